"""What the locator is taught agrees with what its pictures show, and nothing is taught that nobody knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.errors import DataError
from edge_kp.geometry import box_iou, similarity, tight_box, transform_points
from edge_kp.training import scenes
from edge_kp.training.augment import Augmentation
from edge_kp.training.photos import LARGEST_PHOTO, Photo, mark_unlabelled, read_photos
from edge_kp.training.regions import cut_regions
from edge_kp.training.samples import Sample, read_image
from edge_kp.training.scenes import LEAST_SEEN, SMALLEST, STRIDE, SceneDataset, targets
from edge_kp.training.textures import random_texture

SIZE = 128
PLAIN = Augmentation(turn=30, cover=0, colour=0)  # moves pixels and changes none
COLOURS = [(b, g, r) for b in (0, 255) for g in (0, 255) for r in (0, 255)][1:]
RED, GREEN = (0, 0, 255), (0, 255, 0)


def octagon(x: float, y: float, side: float, stretch: float = 1.0) -> np.ndarray:
    """(8, 2) corners that are blunt, so that a pixel misses none of them by much."""
    turns = np.arange(8) * math.pi / 4
    return np.stack([x + side / 2 * np.cos(turns) * stretch, y + side / 2 * np.sin(turns)], 1)


def draw(
    shapes: Sequence[np.ndarray],
    colours: Sequence[Any],
    size: tuple[int, int] = (320, 240),
    ground: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """uint8 BGR image of filled shapes."""
    image = np.full((size[1], size[0], 3), ground, np.uint8)
    for shape, colour in zip(shapes, colours, strict=True):
        cv2.fillConvexPoly(image, np.round(shape * 256).astype(np.int32), colour, cv2.LINE_AA, 8)
    return image


def sample(key: str, image: np.ndarray, keypoints: np.ndarray, **more: Any) -> Sample:
    points = keypoints.astype(np.float32)
    return Sample(key, points, np.ones(len(points), np.float32), {}, partial(np.copy, image), **more)


def dataset(
    photos: Sequence[Photo], augmentation: Augmentation = PLAIN, mirror: bool = True, **more: int
) -> SceneDataset:
    return SceneDataset(photos, **{"size": SIZE, "seed": 0, **more}, augmentation=augmentation, mirror=mirror)


def colourful_photos() -> list[Photo]:
    """A photo for each colour, with an object of its own size, shape and place."""
    rng = np.random.default_rng(0)
    samples = []
    for i, colour in enumerate(COLOURS):
        side = rng.uniform(40, 90)
        points = octagon(rng.uniform(60, 120), rng.uniform(60, 180), side, rng.uniform(0.6, 1))
        samples.append(sample(f"{i}", draw([points], [colour]), points))
    return read_photos(samples, progress=False)


@pytest.fixture(autouse=True)
def photographed_grounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """No drawn surfaces, whose colours are like those of the objects here."""
    monkeypatch.setattr(scenes, "_DRAWN", 0.0)


@pytest.fixture
def single_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of one tile each."""
    monkeypatch.setattr(scenes, "_GRIDS", ((1, 1.0),))


def of_colour(image: np.ndarray, colour: Any) -> np.ndarray:
    """Where the image is nearer to one of the eight corners of the colour cube than to the others."""
    return np.asarray(((image > 127) == (np.array(colour) > 127)).all(-1))


def piece(image: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(4,) box around the pixels of one colour that hang together with the one in the middle."""
    x, y = np.clip(np.round(middle).astype(int), 0, len(image) - 1)
    colour = np.where(image[y, x] > 127, 255, 0)
    assert colour.any(), "nothing where the box says an object is"
    _, parts = cv2.connectedComponents(of_colour(image, colour).astype(np.uint8))
    rows, columns = np.nonzero(parts == parts[y, x])
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float64)


def centres() -> tuple[np.ndarray, np.ndarray]:
    """x and y of the middle of every cell, each (G, G), pixels."""
    along = (np.arange(SIZE // STRIDE) + 0.5) * STRIDE - 0.5
    x, y = np.meshgrid(along, along)
    return x, y


def cells_within(boxes: Sequence[np.ndarray], grown: float = 0) -> np.ndarray:
    x, y = centres()
    inside = np.zeros(x.shape, bool)
    for x0, y0, x1, y1 in boxes:
        inside |= (x > x0 - grown) & (x < x1 + grown) & (y > y0 - grown) & (y < y1 + grown)
    return inside


# ---- pixels and labels -----------------------------------------------------------------------------------


def test_boxes_lie_around_the_pixels_of_their_objects() -> None:
    """At every size of tile, turned, mirrored and cut off."""
    data = dataset(colourful_photos())
    off, fits = [], []
    for at in range(6 * len(data)):
        data.epoch, index = divmod(at, len(data))
        image, labels = data.picture(index)
        for box in labels.boxes:
            difference = piece(image, (box[:2] + box[2:]) / 2) - box
            inside = (difference[:2] > -1).all() and (difference[2:] < 1).all()
            # What is cut off, by its tile or by the picture, is cut at one end of an axis only.
            near = np.abs(difference) < 2
            fits.append(inside and near.reshape(2, 2).any(0).all())
            if near.all():
                off.append(difference)
    assert len(off) > 100
    assert np.mean(fits) > 0.98  # two of one colour may touch
    middles = np.reshape(off, (-1, 2, 2)).mean(1)
    assert (np.abs(middles.mean(0)) < 0.15).all(), "boxes are shifted"


def test_every_object_in_sight_is_labelled_or_left_open() -> None:
    data = dataset(colourful_photos())
    bright, explained = 0, 0
    for at in range(10 * len(data)):
        data.epoch, index = divmod(at, len(data))
        image, labels = data.picture(index)
        rows, columns = np.nonzero((image > 127).any(-1))
        known = np.zeros(len(rows), bool)
        for x0, y0, x1, y1 in [*labels.boxes, *labels.unknown]:
            known |= (columns > x0 - 1) & (columns < x1 + 1) & (rows > y0 - 1) & (rows < y1 + 1)
        bright, explained = bright + len(rows), explained + known.sum()
    assert bright > 50_000
    assert explained > 0.99 * bright  # a background may show a sliver of an object


@pytest.mark.usefixtures("single_photos")
def test_backgrounds_show_hardly_anything_of_an_object() -> None:
    data = dataset(colourful_photos())
    empty = 0
    for at in range(200):
        data.epoch, index = divmod(at, len(data))
        image, labels = data.picture(index)
        if not labels.boxes and not labels.unknown:
            empty += 1
            assert (image > 127).any(-1).mean() < 0.03
            assert not targets(labels, SIZE)["heat"].any()
            assert (targets(labels, SIZE)["taught"] == 1).all()
    assert 20 < empty < 100


@pytest.mark.usefixtures("single_photos")
def test_drawn_surfaces_show_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "_DRAWN", 1.0)
    monkeypatch.setattr(scenes, "_BACKGROUND", 1.0)
    data = dataset(colourful_photos())
    vivid = []
    for index in range(len(data)):
        image, labels = data.picture(index)
        vivid += [(np.abs(image - np.array(colour)) < 8).all(-1).mean() for colour in COLOURS[:-1]]
        found = targets(labels, SIZE)
        assert not found["heat"].any()
        assert (found["taught"] == 1).all()
    assert np.mean(vivid) < 0.01


@pytest.mark.parametrize("side", [8, 11, 40, 160])
def test_surfaces_are_drawn_at_every_size(side: int) -> None:
    """Each of its own, the same again from the same random numbers, and few of them plain."""
    drawn = [random_texture(side, np.random.default_rng(seed)) for seed in range(40)]
    assert all(image.shape == (side, side, 3) and image.dtype == np.uint8 for image in drawn)
    for seed in (0, 17):
        np.testing.assert_array_equal(drawn[seed], random_texture(side, np.random.default_rng(seed)))
    assert len({image.tobytes() for image in drawn}) > 35
    assert np.mean([image.std((0, 1)).max() > 3 for image in drawn]) > 0.8
    means = np.array([image.mean() for image in drawn])
    assert means.min() < 90 < 150 < means.max()


@pytest.mark.usefixtures("single_photos")
@pytest.mark.parametrize("mirror", [True, False])
def test_pictures_are_mirrored_where_that_is_allowed(mirror: bool) -> None:
    left, right = octagon(130, 120, 50), octagon(190, 120, 50)
    photos = read_photos(
        [sample("a", draw([left, right], [RED, GREEN]), np.concatenate([left, right]))], False
    )
    data = dataset(photos, mirror=mirror)
    swapped = []
    for data.epoch in range(100):
        image, labels = data.picture(0)
        if labels.boxes:
            red, green = (np.nonzero(of_colour(image, c))[1].mean() for c in (RED, GREEN))
            swapped.append(bool(red > green))
    assert len(swapped) > 50
    assert (0.3 < np.mean(swapped) < 0.7) if mirror else not any(swapped)


@pytest.mark.usefixtures("single_photos")
def test_boxes_go_through_the_middles_of_the_outermost_discs(kites: Any) -> None:
    """Every keypoint of a kite is the middle of a disc of its own colour."""
    data = dataset(read_photos(kites(12), progress=False))
    off = []
    for at in range(15 * len(data)):
        data.epoch, index = divmod(at, len(data))
        image, labels = data.picture(index)
        for box in labels.boxes:
            side = float((box[2:] - box[:2]).max())
            reach = 0.25 * side  # more than the radius of a disc
            if side > 40 and (box[:2] > reach).all() and (box[2:] < SIZE - reach).all():
                discs = np.stack([centroid(of_colour(image, c)[..., None]) for c in kites.COLOURS])
                off.append(tight_box(discs) - box)
    assert len(off) > 20
    assert np.abs(off).max() < 0.5
    assert np.abs(np.mean(off, 0)).max() < 0.15


@pytest.mark.usefixtures("single_photos")
def test_covers_lie_over_the_objects() -> None:
    points = octagon(150, 120, 80)
    photos = read_photos([sample("a", draw([points], [RED]), points)], progress=False)
    hidden = {}
    for cover in (0.0, 1.0):
        data = dataset(photos, Augmentation(turn=30, cover=cover, cover_share=0.4, colour=0))
        shares = []
        for data.epoch in range(150):
            image, labels = data.picture(0)
            for box in labels.boxes:
                if share_seen(box) == 1 and (box[2:] - box[:2]).max() > 30:
                    x0, y0, x1, y1 = np.round(box).astype(int)
                    # An octagon fills 71 to 83 % of its box, depending on how it is turned.
                    shares.append(of_colour(image[y0 : y1 + 1, x0 : x1 + 1], RED).mean())
        hidden[cover] = np.array(shares) < 0.62
        assert len(shares) > 40
    assert not hidden[0.0].any()
    assert 0.08 < hidden[1.0].mean() < 0.6


def test_items_hold_the_picture_and_its_targets() -> None:
    data = dataset(colourful_photos())
    image, labels = data.picture(3)
    item = data[3]
    assert item["image"].dtype == np.uint8
    np.testing.assert_array_equal(item["image"], image)
    for name, value in targets(labels, SIZE).items():
        np.testing.assert_array_equal(item[name], value)
        assert item[name].dtype == np.float32
    g = SIZE // STRIDE
    assert {k: v.shape for k, v in item.items()} == {
        "image": (SIZE, SIZE, 3),
        "heat": (g, g),
        "taught": (g, g),
        "share": (g, g),
        "box": (g, g, 4),
    }


# ---- photos ------------------------------------------------------------------------------------------------


def test_one_picture_under_two_names_is_one_photo() -> None:
    a, b, c = octagon(80, 80, 60), octagon(220, 120, 80), octagon(150, 100, 50)
    shared, other = draw([a, b], [RED, GREEN]), draw([c], [RED])
    samples = [
        sample("first/1.png", shared, a, repeat=2),
        sample("other.png", other, c, repeat=5),
        sample("second/7.png", shared, b, repeat=3),
    ]
    both, alone = read_photos(samples, progress=False)
    assert (both.key, alone.key) == ("first/1.png", "other.png")
    np.testing.assert_allclose(both.objects, [a, b], atol=1e-4)
    np.testing.assert_array_equal(both.levels[0], shared)
    # As often as the samples of it counted by themselves, were each repeated as often as the one most so.
    assert (both.repeat, alone.repeat) == (6, 5)
    data = dataset([both, alone])
    assert len(data) == 11
    assert np.bincount(data.index).tolist() == [6, 5]


def test_a_photo_is_complete_when_all_its_samples_say_so() -> None:
    a, b = octagon(80, 80, 60), octagon(220, 120, 80)
    image = draw([a, b], [RED, GREEN])
    for known, expected in [((True, True), True), ((True, False), False), ((False, True), False)]:
        samples = [sample(k, image, p, use_background=u) for k, p, u in zip("ab", (a, b), known, strict=True)]
        (photo,) = read_photos(samples, progress=False)
        assert photo.complete is expected


@pytest.mark.parametrize("size", [(1000, 701), (333, 1501), (61, 47), (640, 480)])
def test_keypoints_follow_a_photo_that_is_shrunk(size: tuple[int, int]) -> None:
    """And every level shows the same part of the world."""
    place = np.array(size) * (0.62, 0.37)
    disc = octagon(*place, 0.4 * min(size))
    image = draw([disc], [(255, 255, 255)], size)
    (photo,) = read_photos([sample("a", image, disc)], progress=False)
    assert max(photo.levels[0].shape[:2]) == min(max(size), LARGEST_PHOTO)
    assert min(photo.levels[-1].shape[:2]) <= 48 < min([99, *(min(v.shape[:2]) for v in photo.levels[:-1])])
    scale = min(1, LARGEST_PHOTO / max(size))
    box = tight_box(photo.objects[0])
    np.testing.assert_allclose(box[2:] - box[:2], np.full(2, 0.4 * min(size) * scale), rtol=0.02)
    expected = (photo.objects[0].mean(0) + 0.5) / photo.levels[0].shape[1::-1]
    for level in photo.levels:
        found = (centroid(level) + 0.5) / level.shape[1::-1]
        np.testing.assert_allclose(found, expected, atol=0.1 / max(level.shape))


def centroid(image: np.ndarray) -> np.ndarray:
    """Of the brightness, pixels."""
    weight = image.mean(-1)
    y, x = np.mgrid[0 : len(image), 0 : image.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def test_all_unreadable_images_are_told_at_once(tmp_path: Path) -> None:
    whole = cv2.imencode(".png", draw([octagon(50, 50, 30)], [RED], (100, 100)))[1].tobytes()
    for name, content in {"good.png": whole, "cut.png": whole[:-20], "text.png": b"no image"}.items():
        (tmp_path / name).write_bytes(content)

    def named(name: str) -> Sample:
        points = octagon(50, 50, 30).astype(np.float32)
        load = partial(read_image, str(tmp_path / name))
        return Sample(name, points, np.ones(8, np.float32), {}, load)

    names = ["cut.png", "good.png", "gone.png", "cut.png", "text.png"]
    with pytest.raises(DataError) as caught:
        read_photos([named(name) for name in names], progress=False)
    told = caught.value.problems
    assert [next(n for n in names if n in line) for line in told] == ["cut.png", "gone.png", "text.png"]
    assert len(read_photos([named("good.png")], progress=False)) == 1


# ---- views -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.9, 0.6, 0.45, 0.3, 0.2, 0.13, 0.07])
@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
def test_a_view_from_a_coarser_level_shows_the_same(scale: float, angle: float) -> None:
    size = (613, 457)
    rng = np.random.default_rng(1)
    noise = cv2.resize(rng.integers(0, 90, (12, 16, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
    place = np.array([340.3, 205.8])
    disc = draw([octagon(*place, 9 / scale)], [(255, 255, 255)], size)
    (photo,) = read_photos([sample("a", np.maximum(disc, noise), octagon(*place, 9 / scale))], False)
    (dark,) = read_photos([sample("a", disc, octagon(*place, 9 / scale))], False)
    assert len(photo.levels) > 3
    side = 48
    turn = similarity(angle, scale)
    wanted = np.array([20.7, 26.2])
    turn[:, 2] = wanted - turn[:, :2] @ place
    for mirrored in (False, True):
        matrix = turn.copy()
        if mirrored:
            matrix[0] = -matrix[0] + (0, 0, side - 1)
        found, crop = scenes._view(dark, matrix, side, np.random.default_rng(0))
        at = transform_points(matrix, place)
        np.testing.assert_allclose(crop.to_crop(place) * side - 0.5, at, atol=1e-9)
        np.testing.assert_allclose(centroid(found), at, atol=0.05)
        # Without its smaller levels the photo is sampled at full resolution.
        finest = Photo("a", photo.levels[:1], photo.objects, 1, True)
        views = [scenes._view(p, matrix, side, np.random.default_rng(0))[0] for p in (photo, finest)]
        difference = np.abs(views[0].astype(float) - views[1])
        assert difference.mean() < 3
        assert np.ptp(views[1]) > 100


# ---- determinism -------------------------------------------------------------------------------------------


def test_a_picture_depends_on_seed_epoch_and_index_alone() -> None:
    photos = colourful_photos()
    changing = Augmentation()

    def item(seed: int, epoch: int, index: int, before: Sequence[int] = ()) -> dict[str, Any]:
        data = dataset(photos, changing, seed=seed)
        data.epoch = epoch
        for other in before:
            data[other]
        return data[index]

    first, again = item(1, 4, 2), item(1, 4, 2, before=(5, 0, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for changed in (item(2, 4, 2), item(1, 5, 2), item(1, 4, 3)):
        assert not np.array_equal(first["image"], changed["image"])


# ---- what is left open -------------------------------------------------------------------------------------


def expected_taught(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cells in objects that are neither taught nor denied, and cells that an object to find claims."""
    x, y = centres()
    claimed = cells_within(labels.boxes)
    for box in labels.boxes:
        middle, side = (box[:2] + box[2:]) / 2, np.maximum(scenes.SPREAD * (box[2:] - box[:2]), 3.6)
        far = ((x - middle[0]) / side[0]) ** 2 + ((y - middle[1]) / side[1]) ** 2
        claimed |= np.exp(-far / 2) > 0.05
        claimed |= (np.abs(x - middle[0]) <= 4) & (np.abs(y - middle[1]) <= 4)
    return cells_within(labels.unknown), claimed


@pytest.mark.usefixtures("single_photos")
def test_objects_too_small_or_cut_off_are_neither_taught_nor_denied() -> None:
    """Where one of the two is well in sight, the other is often too large or too small."""
    large, small = octagon(110, 130, 160), octagon(220, 60, 20)
    image = draw([large, small], [RED, GREEN])
    data = dataset(read_photos([sample("a", image, large), sample("b", image, small)], progress=False))
    reasons = {"small": 0, "cut off": 0, "both in sight": 0}
    for at in range(400):
        data.epoch, index = divmod(at, len(data))
        _, labels = data.picture(index)
        found = targets(labels, SIZE)
        sides = [float((box[2:] - box[:2]).max()) for box in labels.boxes]
        reasons["both in sight"] += len(sides) == 2
        assert all(side >= SMALLEST for side in sides)
        assert all(share_seen(box) >= LEAST_SEEN for box in labels.boxes)
        for box in labels.unknown:
            too_small = float((box[2:] - box[:2]).max()) < SMALLEST
            assert too_small or box.min() <= -0.5 or box.max() >= SIZE - 0.5
            reasons["small" if too_small else "cut off"] += 1
        left_open, claimed = expected_taught(labels)
        np.testing.assert_array_equal(found["taught"], ~left_open | claimed)
        assert (found["heat"] == 1).sum() == len(labels.boxes)
        if not labels.boxes:
            assert not found["heat"].any()
            assert not found["share"].any()
    assert min(reasons.values()) > 10, reasons


@pytest.mark.usefixtures("single_photos")
def test_an_object_whose_points_lie_in_a_row_is_taught_and_no_background() -> None:
    """Its box is a line, which has no area."""
    samples = []
    for i in range(40):
        x = 60.0 + 2 * i
        shape = np.array([[x, 98], [x + 100, 98], [x + 100, 102], [x, 102]])
        row = np.array([[x, 100], [x + 50, 100], [x + 100, 100]])
        samples.append(sample(f"{i}", draw([shape], [RED], (300, 200)), row))
    patches = [r.patch for r in cut_regions(samples, 144, "keypoints", False, 200) if r.patch is not None]
    assert len(patches) > 20
    assert sum(of_colour(patch, RED).any() for patch in patches) < 4  # at an edge
    data = dataset(read_photos(samples, progress=False))
    assert sum(len(data.picture(i)[1].boxes) for i in range(40)) > 20
    shown = [of_colour(data._background(96, np.random.default_rng(i)), RED).mean() for i in range(300)]
    assert np.mean(np.array(shown) > 0.02) < 0.02


def share_seen(box: np.ndarray) -> float:
    """Share of a box within the picture."""
    shown = np.clip(box, -0.5, SIZE - 0.5)
    return float(np.prod(shown[2:] - shown[:2]) / np.prod(box[2:] - box[:2]))


@pytest.mark.usefixtures("single_photos")
def test_a_photo_not_fully_labelled_teaches_its_labelled_objects_only() -> None:
    points = octagon(150, 120, 90)
    (photo,) = read_photos([sample("a", draw([points], [RED]), points, use_background=False)], False)
    data = dataset([photo])
    shown = 0
    for data.epoch in range(60):
        _, labels = data.picture(0)
        found = targets(labels, SIZE)
        if not (labels.boxes or labels.unknown):
            assert (found["taught"] == 1).all()  # a drawn surface: no photo may lend a background
            continue
        shown += 1
        _, claimed = expected_taught(labels)
        np.testing.assert_array_equal(found["taught"], claimed)
        assert 0 < claimed.sum() < claimed.size
    assert shown > 20


def test_in_a_mosaic_only_the_tiles_not_fully_labelled_stay_open() -> None:
    """The ground of a tile's photo says which kind it is."""
    known, unknown = (0, 90, 0), (90, 0, 0)
    photos = []
    for i, (ground, complete) in enumerate([(known, True), (unknown, False)]):
        points = octagon(160, 120, 70)
        image = draw([points], [(255, 255, 255)], ground=ground)
        photos += read_photos([sample(str(i), image, points, use_background=complete)], progress=False)
    data = dataset(photos)
    counted = np.zeros(2, int)
    for at in range(300):
        data.epoch, index = divmod(at, 2)
        image, labels = data.picture(index)
        if not labels.boxes:
            continue
        taught = targets(labels, SIZE)["taught"]
        near = cells_within([*labels.boxes, *labels.unknown], 12)
        for kind, colour in enumerate((known, unknown)):
            of_kind = (np.abs(image - np.array(colour)) < 20).all(-1).astype(np.uint8)
            inner = cv2.erode(of_kind, np.ones((3, 3))).astype(bool)
            cells = inner[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] & ~near
            assert (taught[cells] == 1 - kind).all()
            counted[kind] += cells.sum()
    assert (counted > 300).all()


def marked(locate: Callable[[np.ndarray], list[np.ndarray]], **more: Any) -> list[Photo]:
    """A photo of a red labelled object and a green one without label."""
    red, green = octagon(90, 130, 60), octagon(210, 110, 70)
    image = draw([red, green], [RED, GREEN])
    return mark_unlabelled(read_photos([sample("a", image, red, **more)], progress=False), locate)


def coloured_boxes(image: np.ndarray) -> list[np.ndarray]:
    """Finds all red and all green, as a perfect locator does."""
    boxes = []
    for colour in (RED, GREEN):
        rows, columns = np.nonzero(of_colour(image, colour))
        boxes.append(np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float32))
    return boxes


def test_what_a_locator_finds_beside_the_labels_is_kept() -> None:
    (photo,) = marked(coloured_boxes)
    (extra,) = photo.unlabelled
    assert box_iou(extra, tight_box(octagon(210, 110, 70))) > 0.9
    (none,) = marked(lambda image: coloured_boxes(image)[:1])
    assert none.unlabelled == ()
    (untouched,) = marked(coloured_boxes, use_background=False)
    assert untouched.unlabelled == ()
    assert len(untouched.objects) == 1


@pytest.mark.usefixtures("single_photos")
def test_what_nobody_labelled_is_neither_taught_nor_denied() -> None:
    data = dataset(marked(coloured_boxes))
    seen = 0
    for data.epoch in range(120):
        image, labels = data.picture(0)
        found = targets(labels, SIZE)
        left_open, claimed = expected_taught(labels)
        np.testing.assert_array_equal(found["taught"], ~left_open | claimed)
        green = of_colour(image, GREEN)
        if not labels.boxes and not labels.unknown:
            assert green.mean() < 0.03  # no background shows it either
            continue
        cells = green[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] & ~claimed
        assert not found["taught"][cells].any()
        seen += cells.sum()
        assert (found["heat"] == 1).sum() == len(labels.boxes) <= 1
    assert seen > 150


def test_in_a_mosaic_nothing_is_left_open_for_what_is_out_of_sight() -> None:
    data = dataset(marked(coloured_boxes))
    shown = []
    for data.epoch in range(200):
        image, labels = data.picture(0)
        for box in labels.unknown:
            x0, y0, x1, y1 = np.clip(np.round(box).astype(int), 0, SIZE)
            if min(x1 - x0, y1 - y0) > 5:
                shown.append((image[y0:y1, x0:x1] > 127).any())
    assert len(shown) > 200
    assert np.mean(shown) > 0.97  # a corner of a box may show nothing


# ---- maps --------------------------------------------------------------------------------------------------


@st.composite
def some_boxes(draw_from: Any, equal: bool = False) -> list[np.ndarray]:
    """Boxes whose middles lie in different cells of the picture."""
    taken, boxes = set(), []
    side = draw_from(st.floats(7, 90))
    for _ in range(draw_from(st.integers(1, 4))):
        middle = np.array([draw_from(st.floats(0, SIZE - 1)), draw_from(st.floats(0, SIZE - 1))])
        half = np.array([side, side] if equal else [draw_from(st.floats(7, 90)) for _ in range(2)]) / 2
        cell = tuple(((middle + 0.5) // STRIDE).astype(int))
        if cell not in taken:
            taken.add(cell)
            boxes.append(np.concatenate([middle - half, middle + half]))
    return boxes


def maps(boxes: Sequence[np.ndarray], **more: Any) -> dict[str, np.ndarray]:
    return targets(scenes._Labels(**{"boxes": list(boxes), "unknown": [], "unlabelled": [], **more}), SIZE)


@settings(max_examples=60)
@given(some_boxes())
def test_heat_is_one_in_the_cell_of_each_middle_and_nowhere_else(boxes: list[np.ndarray]) -> None:
    found = maps(boxes)
    middles = [((box[:2] + box[2:] + 1) / 2 // STRIDE).astype(int).tolist() for box in boxes]
    columns, rows = zip(*middles, strict=True)
    ones = np.zeros_like(found["heat"], bool)
    ones[rows, columns] = True
    np.testing.assert_array_equal(found["heat"] == 1, ones)
    for box, row, column in zip(boxes, rows, columns, strict=True):
        np.testing.assert_allclose(found["box"][row, column], box, atol=1e-4)
    assert (found["heat"] >= 0).all()
    assert (found["taught"] == 1).all()
    np.testing.assert_array_equal(found["share"], np.where(found["heat"] > 0.3, found["heat"], 0))


@settings(max_examples=60)
@given(some_boxes())
def test_each_cell_belongs_to_the_object_it_is_warmest_of(boxes: list[np.ndarray]) -> None:
    together, alone = maps(boxes), [maps([box]) for box in boxes]
    heats = np.stack([m["heat"] for m in alone])
    np.testing.assert_array_equal(together["heat"], heats.max(0))
    clear = np.diff(np.sort(np.concatenate([np.zeros_like(heats[:1]), heats]), axis=0)[-2:], axis=0)[0] > 1e-6
    warm = (together["heat"] > 1e-3) & clear  # a cell in the middle of two may be either's
    owner = heats.argmax(0)[warm]
    np.testing.assert_allclose(together["box"][warm], np.stack(boxes)[owner], atol=1e-4)


@settings(max_examples=60)
@given(some_boxes(equal=True))
def test_of_equal_objects_the_nearest_owns_a_cell(boxes: list[np.ndarray]) -> None:
    found = maps(boxes)
    x, y = centres()
    middles = [(box[:2] + box[2:]) / 2 for box in boxes]
    distance = np.stack([np.hypot(x - m[0], y - m[1]) for m in middles])
    ranked = np.sort(distance, 0)
    clear = (found["heat"] > 1e-3) & (found["heat"] < 1)
    if len(boxes) > 1:
        clear &= ranked[1] - ranked[0] > 1e-6
    owner = distance.argmin(0)[clear]
    np.testing.assert_allclose(found["box"][clear], np.stack(boxes)[owner], atol=1e-4)


@given(st.floats(20, SIZE - 20), st.floats(20, SIZE - 20), st.floats(8, 60), st.floats(8, 60))
def test_the_cells_around_a_middle_show_the_same_box(x: float, y: float, width: float, height: float) -> None:
    box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    found = maps([box])
    column, row = int((x + 0.5) // STRIDE), int((y + 0.5) // STRIDE)
    around = found["box"][row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 4)
    np.testing.assert_allclose(around, np.broadcast_to(box, around.shape), atol=1e-4)
    for along in (found["heat"][row], found["heat"][:, column]):
        steps, middle = np.diff(along), int(along.argmax())
        assert (steps[:middle] >= 0).all()
        assert (steps[middle:] <= 0).all()
    beside = max(found["heat"][row, column - 1], found["heat"][row, column + 1])
    assert beside > 0.05


def test_a_wide_object_spreads_its_heat_along_its_longer_side() -> None:
    heat = maps([np.array([8.0, 56.0, 119.0, 71.0])])["heat"]
    row, column = 8, 8  # the cell of the middle (63.5, 63.5)
    assert heat[row, column] == 1
    assert heat[row, column + 1] > 2 * heat[row + 1, column]


def test_what_is_to_be_found_is_taught_even_inside_of_what_is_left_open() -> None:
    inner, outer = np.array([50.0, 50, 70, 70]), np.array([20.0, 20, 100, 100])
    found = maps([inner], unknown=[outer])
    np.testing.assert_array_equal(found["taught"][cells_within([inner])], 1)
    rim = cells_within([outer]) & ~cells_within([inner], 12)
    assert rim.sum() > 20
    np.testing.assert_array_equal(found["taught"][rim], 0)
    np.testing.assert_array_equal(found["taught"][~cells_within([outer])], 1)


def test_few_photos_give_as_many_pictures_as_asked_for() -> None:
    photos = read_photos([sample("a", draw([octagon(100, 100, 60)], [RED]), octagon(100, 100, 60))], False)
    few = SceneDataset(photos, SIZE, 0, PLAIN, False)
    many = SceneDataset(photos, SIZE, 0, PLAIN, False, least=7)
    assert len(few) == 1
    assert len(many) == 7
    assert not np.array_equal(many[0]["image"], many[6]["image"])
    assert len(SceneDataset(photos * 4, SIZE, 0, PLAIN, False, least=7)) == 8  # every photo as often
