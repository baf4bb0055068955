"""The locator's boxes: where they lie in the frame, which of them remain, and in what order."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError
from edge_kp.geometry import box_iou
from edge_kp.locator import (
    DOUBLE,
    DOUBTED,
    MOST,
    MOST_TILES,
    SHARED,
    SURER,
    ImageLocator,
    NetworkLocator,
    View,
    fit_square,
    suppress,
    tile,
)

sides = st.integers(1, 700)
seeds = st.integers(0, 2**32 - 1)


# ---- the frame in a square ---------------------------------------------------------------------------------


@settings(max_examples=50)
@given(sides, sides, st.sampled_from([64, 320]), seeds)
@example(640, 1, 320, 0)
@example(1, 1, 320, 0)
def test_points_return_from_the_square(width: int, height: int, size: int, seed: int) -> None:
    square, crop = fit_square(np.zeros((height, width, 3), np.uint8), size)
    assert square.shape == (size, size, 3)
    assert square.dtype == np.uint8
    assert crop.size == size
    frame = np.random.default_rng(seed).uniform(-0.5, (width - 0.5, height - 0.5), (20, 2))
    inside = crop.to_crop(frame)
    assert (inside > -1e-9).all()
    assert (inside < 1 + 1e-9).all()
    np.testing.assert_allclose(crop.to_frame(inside), frame, atol=1e-6)
    np.testing.assert_allclose(crop.to_crop(crop.to_frame(inside)), inside, atol=1e-9)


@settings(max_examples=50)
@given(sides, sides, st.sampled_from([64, 320]))
@example(640, 1, 320)
@example(1, 1, 320)
def test_the_whole_frame_fills_the_square_one_way_and_is_black_beyond(
    width: int, height: int, size: int
) -> None:
    square, crop = fit_square(np.full((height, width, 3), 255, np.uint8), size)
    corners = crop.to_crop(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])) * size
    np.testing.assert_allclose(corners[0], 0, atol=1e-9)
    w, h = np.round(corners[1]).astype(int)
    np.testing.assert_allclose(corners[1], (w, h), atol=1e-9)  # whole pixels
    assert max(w, h) == size
    assert (square[:h, :w] == 255).all()
    assert square.sum(dtype=np.int64) == 255 * 3 * w * h
    # Nearly the frame's own proportions; a pixel is the least there can be.
    assert abs(w / width - h / height) * min(width, height) <= 1


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (1280, 333), (101, 97), (60, 50), (31, 64)]
)
def test_a_rectangle_is_drawn_where_the_crop_says(width: int, height: int) -> None:
    x0, y0, x1, y1 = (round(v) for v in (0.31 * width, 0.22 * height, 0.74 * width, 0.67 * height))
    image = np.zeros((height, width, 3), np.uint8)
    image[y0 : y1 + 1, x0 : x1 + 1] = (40, 250, 120)
    square, crop = fit_square(image, 256)
    edges = np.array([[x0 - 0.5, y0 - 0.5], [x1 + 0.5, y1 + 0.5]])
    low, high = crop.to_crop(edges) * 256 - 0.5
    share = square[..., 1] / 250.0  # of each pixel that the rectangle fills
    rows, columns = np.nonzero(share > 0.5)
    np.testing.assert_allclose([columns.min(), rows.min()], low + 0.5, atol=0.55)
    np.testing.assert_allclose([columns.max(), rows.max()], high - 0.5, atol=0.55)
    y, x = np.mgrid[0:256, 0:256]
    middle = np.array([(x * share).sum(), (y * share).sum()]) / share.sum()
    np.testing.assert_allclose(middle, (low + high) / 2, atol=0.05)
    assert (square[(share > 0.99)] == (40, 250, 120)).all()  # no channel changed its place
    assert share.sum() == pytest.approx(np.prod(high - low), rel=0.01)


def test_a_square_of_the_right_size_is_the_frame_itself() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    before = image.copy()
    square, crop = fit_square(image, 64)
    np.testing.assert_array_equal(square, image)
    square[:] = 0
    np.testing.assert_array_equal(image, before)
    np.testing.assert_allclose(crop.matrix, [[1 / 64, 0, 0.5 / 64], [0, 1 / 64, 0.5 / 64]])


# ---- doubles -----------------------------------------------------------------------------------------------


def boxes_from(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate([low, low + rng.uniform(5, 60, (count, 2))], 1)


def test_the_likelier_of_two_boxes_on_one_object_remains() -> None:
    object_, shifted, far = [10, 10, 50, 50], [14, 12, 54, 52], [60, 10, 100, 50]
    assert suppress(np.array([object_, shifted, far], float)) == [0, 2]
    assert suppress(np.array([shifted, far, object_], float)) == [0, 1]
    assert suppress(np.array([far, object_, shifted], float)) == [0, 1]
    assert suppress(np.zeros((0, 4))) == []
    row, beside = [100, 50, 300, 50], [100, 51, 290, 51]  # of points in a row
    assert suppress(np.array([row, beside, [100, 90, 300, 90]], float)) == [0, 2]


def test_a_box_that_was_dropped_drops_no_other() -> None:
    """A chain: each overlaps the next, the first and the last show two objects."""
    chain = np.array([[0, 0, 100, 100], [40, 0, 140, 100], [80, 0, 180, 100]], float)
    assert box_iou(chain[0], chain[1]) > DOUBLE
    assert box_iou(chain[1], chain[2]) > DOUBLE
    assert suppress(chain) == [0, 2]


@given(seeds, st.integers(1, 30))
def test_what_remains_is_apart_and_what_went_was_double(seed: int, count: int) -> None:
    boxes = boxes_from(seed, count)
    kept = suppress(boxes)
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    for i in range(count):
        overlap = [box_iou(boxes[i], boxes[k]) for k in kept if k < i]
        assert (max(overlap, default=0) < DOUBLE) == (i in kept)


# ---- search ------------------------------------------------------------------------------------------------


class Given(Backend):
    """Says what it was given and keeps what it was shown."""

    name, device, precision = "given", "here", "fp32"

    def __init__(self, boxes: np.ndarray, score: np.ndarray) -> None:
        self.said = {"boxes": np.float32(boxes)[None], "score": np.float32(score)[None]}
        self.shown: list[np.ndarray] = []
        self.closed = False

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.shown.append(image)
        return self.said

    def close(self) -> None:
        self.closed = True


SIZE = 64
FRAMES = {"landscape": (640, 360), "portrait": (300, 700), "small": (40, 30), "square": (128, 128)}


def in_square(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Coordinates in [0, 1] of the square for boxes in frame pixels, by hand."""
    scale = SIZE / max(width, height)
    used = np.array([round(width * scale), round(height * scale)]) / SIZE
    points = (boxes.reshape(-1, 2, 2) + 0.5) / (width, height) * used
    return np.asarray(points.reshape(-1, 4))


@pytest.mark.parametrize("form", FRAMES)
def test_boxes_come_back_in_frame_pixels(form: str) -> None:
    width, height = FRAMES[form]
    wanted = np.array([[0.1, 0.1, 0.3, 0.4], [0.5, 0.45, 0.9, 0.95]]) * (width, height, width, height)
    backend = Given(in_square(wanted, width, height), np.array([0.9, 0.7]))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    found, scores = NetworkLocator(backend, SIZE, 0.5).search(image)
    np.testing.assert_allclose(found, wanted, atol=0.01)
    np.testing.assert_allclose(scores, [0.9, 0.7], rtol=1e-6)
    assert found.dtype == np.float32
    (shown,) = backend.shown
    np.testing.assert_array_equal(shown, fit_square(image, SIZE)[0][None])


@pytest.mark.parametrize("form", FRAMES)
def test_what_a_network_sees_in_the_square_is_where_it_is_in_the_frame(form: str) -> None:
    """A stand-in that really looks: it boxes the bright pixels."""

    class Looking(Given):
        def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
            rows, columns = np.nonzero(image[0, ..., 2] > 127)
            box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / SIZE
            return {"boxes": np.float32(box)[None, None], "score": np.ones((1, 1), np.float32)}

    width, height = FRAMES[form]
    box = np.array([0.3, 0.2, 0.8, 0.7]) * (width, height, width, height)
    image = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = np.round(box).astype(int).tolist()
    cv2.rectangle(image, (x0, y0), (x1, y1), (0, 0, 255), -1)
    (found,) = NetworkLocator(Looking(np.zeros((1, 4)), np.zeros(1)), SIZE, 0.5)(image).boxes
    pixel = max(width, height) / SIZE  # of the square, in the frame
    np.testing.assert_allclose(found, [x0 - 0.5, y0 - 0.5, x1 + 0.5, y1 + 0.5], atol=0.6 * pixel + 0.1)


def test_order_and_threshold() -> None:
    boxes = np.array(
        [[0, 0, 10, 10], [20, 0, 60, 30], [0, 40, 20, 60], [70, 70, 90, 100], [30, 60, 60, 90]], float
    )
    score = np.array([0.95, 0.6, 0.49, 0.8, 0.5])
    locate = NetworkLocator(Given(in_square(boxes, 100, 100), score), SIZE, 0.5)
    image = np.zeros((100, 100, 3), np.uint8)
    likeliest_first, scores = locate.search(image)
    np.testing.assert_allclose(likeliest_first, boxes[[0, 3, 1, 4]], atol=0.01)
    np.testing.assert_allclose(scores, [0.95, 0.8, 0.6, 0.5])
    for threshold, count in ((0.0, 5), (0.55, 3), (0.9, 1), (0.96, 0)):
        assert len(NetworkLocator(locate.backend, SIZE, threshold).search(image)[0]) == count


def test_boxes_that_the_locator_doubts_are_told_as_such_largest_first() -> None:
    boxes = np.array(
        [[0, 0, 10, 10], [20, 0, 60, 30], [0, 40, 20, 60], [70, 70, 90, 100], [30, 60, 60, 90]], float
    )
    score = np.array([0.95, 0.7 * DOUBTED + 1e-3, 0.69, 0.7, 0.7 * DOUBTED - 1e-3])
    located = NetworkLocator(Given(in_square(boxes, 100, 100), score), SIZE, 0.7)(
        np.zeros((100, 100, 3), np.uint8)
    )
    assert located.boxes.dtype == located.least.dtype == np.float32
    np.testing.assert_allclose(located.boxes, boxes[[1, 3, 2, 0]], atol=0.01)
    np.testing.assert_allclose(located.least, [SURER, 0, SURER, 0])


def test_a_box_in_doubt_hides_none_that_is_sure() -> None:
    boxes = np.array([[10, 10, 60, 60], [12, 11, 61, 62], [70, 70, 99, 99]], float)
    locate = NetworkLocator(Given(in_square(boxes, 100, 100), np.array([0.45, 0.55, 0.4])), SIZE, 0.5)
    located = locate(np.zeros((100, 100, 3), np.uint8))
    np.testing.assert_allclose(located.boxes, boxes[[1, 2]], atol=0.01)
    np.testing.assert_allclose(located.least, [0, SURER])


def test_of_two_boxes_on_one_object_the_likelier_is_told() -> None:
    boxes = np.array([[10, 10, 60, 60], [12, 11, 61, 62], [70, 70, 99, 99]], float)
    locate = NetworkLocator(Given(in_square(boxes, 100, 100), np.array([0.6, 0.9, 0.7])), SIZE, 0.5)
    found, scores = locate.search(np.zeros((100, 100, 3), np.uint8))
    np.testing.assert_allclose(found, boxes[[1, 2]], atol=0.01)
    np.testing.assert_allclose(scores, [0.9, 0.7])
    # One that is too unlikely to be told drops no other.
    weak = NetworkLocator(Given(in_square(boxes, 100, 100), np.array([0.6, 0.4, 0.7])), SIZE, 0.5)
    np.testing.assert_allclose(weak.search(np.zeros((100, 100, 3), np.uint8))[0], boxes[[2, 0]], atol=0.01)


def test_many_cells_on_one_object_are_told_once() -> None:
    """Neighbouring cells say nearly the same box."""
    rng = np.random.default_rng(0)
    objects = np.array([[10, 10, 60, 50], [55, 60, 95, 90]], float)
    boxes = np.repeat(objects, 9, 0) + rng.normal(0, 0.5, (18, 4))
    score = rng.uniform(0.5, 1, 18)
    locate = NetworkLocator(Given(in_square(boxes, 100, 100), score), SIZE, 0.3)
    found, scores = locate.search(np.zeros((100, 100, 3), np.uint8))
    best = sorted((int(score[:9].argmax()), 9 + int(score[9:].argmax())), key=lambda i: -score[i])
    np.testing.assert_allclose(found, boxes[best], atol=0.01)
    np.testing.assert_allclose(scores, score[best], rtol=1e-6)


def test_equally_likely_boxes_keep_the_order_of_their_cells() -> None:
    """So that of two on one object it is the same one, wherever the network ran."""
    low = 4.0 * np.stack([np.arange(200) % 20, np.arange(200) // 20], 1)
    boxes, score = np.concatenate([low, low + 3], 1), np.where(np.arange(200) % 3, 0.75, 0.5)
    locate = NetworkLocator(Given(in_square(boxes, 100, 100), score), SIZE, 0.5)
    found, _ = locate.search(np.zeros((100, 100, 3), np.uint8))
    order = [i for i in range(200) if i % 3] + [i for i in range(200) if not i % 3]
    np.testing.assert_allclose(found, boxes[order], atol=0.01)


def test_of_too_many_boxes_the_likeliest_are_looked_at() -> None:
    """A network that is sure everywhere must not hold up the video."""
    count = 2 * MOST
    low = 3.0 * np.stack([np.arange(count) % 40, np.arange(count) // 40], 1)
    boxes = np.concatenate([low, low + 2], 1)
    score = np.random.default_rng(0).permutation(count) / count
    locate = NetworkLocator(Given(in_square(boxes, 200, 200), score), SIZE, 0.0)
    found, scores = locate.search(np.zeros((200, 200, 3), np.uint8))
    np.testing.assert_allclose(scores, np.sort(score)[::-1][:MOST], atol=1e-6)
    np.testing.assert_allclose(found, boxes[np.argsort(-score)][:MOST], atol=0.01)


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ([0.1, 0.1, math.nan, 0.5], 0.9),
        ([0.1, 0.1, math.inf, 0.5], 0.9),
        ([0.5, 0.1, 0.2, 0.5], 0.9),
        ([0.1, 0.1, 0.5, 0.5], math.nan),
    ],
)
def test_a_network_that_gives_no_boxes_is_no_empty_frame(box: list[float], score: float) -> None:
    locator = NetworkLocator(Given(np.array([[0.1, 0.1, 0.3, 0.3], box]), np.array([0.8, score])), SIZE, 0.5)
    with pytest.raises(BackendError, match="a score or a box that is none"):
        locator(np.zeros((40, 50, 3), np.uint8))


def test_nothing_found_is_an_empty_result() -> None:
    locate = NetworkLocator(Given(np.zeros((3, 4)), np.zeros(3)), SIZE, 0.5)
    boxes, scores = locate.search(np.zeros((50, 80, 3), np.uint8))
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)
    located = locate(np.zeros((50, 80, 3), np.uint8))
    assert located.boxes.shape == (0, 4)
    assert located.least.shape == (0,)


# ---- tiles -------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(2, MOST_TILES), st.sampled_from([1, 64, 320]))
@example(1280, 720, 3, 320)
@example(1280, 720, 8, 320)
@example(640, 480, 2, 320)
@example(5, 4000, 4, 1)
def test_tiles_cover_the_frame_and_share_a_quarter(width: int, height: int, count: int, least: int) -> None:
    views = tile(width, height, count, least)
    longer = max(width, height)
    if not views:
        assert longer <= max(least, math.ceil(longer / (count - (count - 1) * SHARED)))
        return
    side = max(view.width for view in views), max(view.height for view in views)
    longest = max(side)
    assert least <= longest < longer
    across, down = sorted({view.x for view in views}), sorted({view.y for view in views})
    assert {(view.x, view.y) for view in views} == {(x, y) for x in across for y in down}
    number = max(len(across), len(down))
    if longest > least and longer >= 4 * count:  # else tiles of whole pixels cannot be so many
        assert number == count
    assert number <= count
    for starts, length, extent in zip((across, down), side, (width, height), strict=True):
        assert starts[0] == 0
        assert starts[-1] + length == extent
        for one, next_ in pairwise(starts):
            assert one + length - next_ >= SHARED * length - 1
    for view in views:
        assert (view.width, view.height) == (min(longest, width), min(longest, height))


class Spots(Backend):
    """A network that looks: it boxes the bright blobs of a picture that are four pixels wide or more."""

    name, device, precision = "spots", "here", "fp32"

    def __init__(self) -> None:
        self.looks = 0

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.looks += len(image)
        boxes = np.tile(np.float32([0, 0, 1e-3, 1e-3]), (len(image), 20, 1))
        score = np.zeros((len(image), 20), np.float32)
        for i, picture in enumerate(image):
            bright = (picture[..., 2] > 127).astype(np.uint8)
            _, _, blobs, _ = cv2.connectedComponentsWithStats(bright)
            seen = [blob for blob in blobs[1:] if min(blob[2:4]) >= 4]
            for k, (x, y, w, h, _) in enumerate(seen):
                boxes[i, k] = np.float32([x, y, x + w, y + h]) / SIZE
                score[i, k] = min(1, 0.5 + w / 100)
        return {"boxes": boxes, "score": score}


def frame_with(*spots: tuple[int, int, int]) -> np.ndarray:
    """640 × 360, a bright square at each (x, y) of each side."""
    image = np.zeros((360, 640, 3), np.uint8)
    for x, y, side in spots:
        image[y : y + side, x : x + side] = 255
    return image


@pytest.mark.parametrize(("x", "y"), [(10, 10), (600, 320), (300, 100), (231, 171), (0, 0), (616, 336)])
def test_tiles_find_what_is_too_small_in_the_whole_frame(x: int, y: int) -> None:
    image = frame_with((x, y, 24))
    assert not len(NetworkLocator(Spots(), SIZE, 0.5)(image).boxes)
    (box,) = NetworkLocator(Spots(), SIZE, 0.5, tiles=3)(image).boxes
    pixel = tile(640, 360, 3, SIZE)[0].width / SIZE
    np.testing.assert_allclose(box, [x - 0.5, y - 0.5, x + 23.5, y + 23.5], atol=0.6 * pixel)


@given(st.integers(0, 440), st.integers(0, 160), st.integers(60, 200), st.integers(2, MOST_TILES))
@settings(max_examples=60, deadline=None)
@example(0, 0, 167, 5)
def test_an_object_that_tiles_cut_is_told_once_and_whole(x: int, y: int, side: int, count: int) -> None:
    (box,) = NetworkLocator(Spots(), SIZE, 0.5, count)(frame_with((x, y, side))).boxes
    wanted = np.array([x, y, x + side, y + side]) - 0.5
    np.testing.assert_allclose(box, wanted, atol=0.6 * 640 / SIZE)


def test_an_object_that_the_edge_of_the_frame_cuts_is_told_by_a_tile() -> None:
    (box,) = NetworkLocator(Spots(), SIZE, 0.5, 3)(frame_with((620, 340, 30))).boxes
    np.testing.assert_allclose(box, [619.5, 339.5, 639.5, 359.5], atol=3)


def test_each_tile_is_looked_at_once() -> None:
    for count in range(1, MOST_TILES + 1):
        backend = Spots()
        NetworkLocator(backend, SIZE, 0.5, count)(frame_with())
        assert backend.looks == (1 + len(tile(640, 360, count, SIZE)) if count > 1 else 1)


def test_a_frame_that_is_seen_in_full_is_not_tiled() -> None:
    for width, height in ((SIZE, SIZE), (SIZE, 20), (9, 9)):
        backend = Spots()
        NetworkLocator(backend, SIZE, 0.5, 4)(np.zeros((height, width, 3), np.uint8))
        assert backend.looks == 1


def test_a_view_holds_what_only_the_frame_cuts() -> None:
    boxes = np.array([[-9, -9, 30, 30], [40, 40, 60, 60], [70, 24, 90, 34], [-9, 70, 20, 90]], float)
    assert View(0, 0, 100, 100).holds(boxes, 100, 100).all()
    assert View(0, 0, 80, 80).holds(boxes, 100, 100).tolist() == [True, True, False, False]
    assert View(20, 20, 80, 80).holds(boxes, 100, 100).tolist() == [False, True, True, False]


def test_closing_frees_the_network() -> None:
    backend = Given(np.zeros((1, 4)), np.zeros(1))
    NetworkLocator(backend, SIZE, 0.5).close()
    assert backend.closed


@pytest.mark.parametrize("form", FRAMES)
def test_the_whole_image_can_be_the_box(form: str) -> None:
    width, height = FRAMES[form]
    (box,), (least,) = ImageLocator()(np.zeros((height, width, 3), np.uint8))
    assert least == 0
    assert box.dtype == np.float32
    assert math.prod(box[2:] - box[:2]) == width * height
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, [(width - 1) / 2, (height - 1) / 2])
