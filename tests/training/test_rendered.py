"""Rendered faces: labelled where they are drawn, outlined as people see them, the same everywhere."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from refusal import problem
from small_head import EXPRESSIONS, small_head

from edge_kp.schema import FACE68
from edge_kp.training.datasets import load_dataset
from edge_kp.training.rendered import make_scene, read_rendered, render
from edge_kp.training.rendering import drawing
from edge_kp.training.rendering.contour import beside_landmarks
from edge_kp.training.rendering.model import HEAD, FaceModel, load_face_model
from edge_kp.training.rendering.raster import rasterise, vertex_normals
from edge_kp.training.rendering.scene import SIZE, Scene, random_expression, random_pose
from edge_kp.training.rendering.surface import Surface


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "head.npz"
    np.savez(file, **small_head())
    return file


@pytest.fixture(scope="module")
def model(path: Path) -> FaceModel:
    return load_face_model(str(path))


def scenes(model: FaceModel, wanted: Callable[[Scene], bool], count: int) -> list[Scene]:
    found: Iterator[Scene] = (make_scene(model, 3, i) for i in range(1000))
    return list(islice((scene for scene in found if wanted(scene)), count))


def dark_glasses(scene: Scene) -> bool:
    return scene.worn.glasses is not None and scene.worn.tint > 0.7


def worn_before(scene: Scene) -> bool:
    """Does the head wear anything that may cover a point?"""
    return dark_glasses(scene) or bool(scene.worn.sheets)


def plainly_projected(model: FaceModel, scene: Scene, beside: np.ndarray | float = 0) -> np.ndarray:
    """(68, 2) frame pixels of the landmarks' own vertices, or of places beside them (68, 3) cm on the head,
    written out anew: a pinhole and a turned head."""
    points = []
    for x, y, z in (scene.shape[model.landmarks] + beside - (0, 0, 2)).tolist():
        right, up, near = scene.pose.rotation @ (x, y, z)
        unit = scene.scale * scene.distance / (scene.distance - near)
        points.append((scene.shift[0] + unit * right, scene.shift[1] - unit * up))
    return np.array(points)


def skin_pixels(model: FaceModel, scene: Scene) -> np.ndarray:
    """(SIZE, SIZE) bool: where the bare head is."""
    points = scene.project(scene.placed(model, scene.shape))
    skin = model.triangles[(model.part[model.triangles] <= HEAD).all(1)]
    mask = np.zeros(SIZE * SIZE, bool)
    mask[rasterise(points, skin, SIZE)[0]] = True
    return mask.reshape(SIZE, SIZE)


# ---- labels ---------------------------------------------------------------------------------------


def test_inner_points_are_fixed_to_the_head_beside_the_vertices(model: FaceModel) -> None:
    for scene in (make_scene(model, 1, i) for i in range(20)):
        found = scene.keypoints[17:] - plainly_projected(model, scene, beside_landmarks())[17:]
        assert np.abs(found).max() < 1e-3


def test_people_put_points_beside_landmarks_alike_on_both_halves() -> None:
    way = beside_landmarks()
    np.testing.assert_array_equal(way[FACE68.flip_index], way * (-1, 1, 1))
    assert not way[:17].any()  # the jaw has its own rule
    right_brow, inner_lip = way[[17, 21]], way[61]
    assert right_brow[0, 0] < 0  # the outer end further out,
    assert (right_brow[:, 1] < 0).all()  # both ends further down
    assert inner_lip[0] > 0  # nearer to the middle
    assert np.abs(way).max() <= 0.5


def test_the_jaw_of_a_frontal_face_stays_about_where_it_is(model: FaceModel) -> None:
    for scene in scenes(model, lambda s: abs(s.pose.yaw) < 6 and abs(s.pose.pitch) < 8, 6):
        moved = scene.keypoints[:17] - plainly_projected(model, scene)[:17]
        assert np.linalg.norm(moved, axis=1).max() < 2 * scene.scale


def test_the_far_jaw_lies_on_the_outline(model: FaceModel) -> None:
    plain = []
    for scene in scenes(model, lambda s: 32 < abs(s.pose.yaw) < 50, 12):
        # A yaw > 0 turns the face's own right away, where the points of the jaw begin.
        far = slice(1, 6) if scene.pose.yaw > 0 else slice(11, 16)
        mask = skin_pixels(model, scene).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = max(outlines, key=len)
        away = [abs(cv2.pointPolygonTest(outline, p, True)) for p in scene.keypoints[far].tolist()]
        assert max(away) < 2, (scene.pose, away)
        vertices = plainly_projected(model, scene)[far].tolist()
        plain.append(max(abs(cv2.pointPolygonTest(outline, p, True)) for p in vertices))
    assert np.mean(plain) > 4  # the vertices themselves are not on it


def test_points_that_only_the_head_hides_count_as_visible(model: FaceModel) -> None:
    averted = 0
    for scene in scenes(model, lambda s: abs(s.pose.yaw) > 45 and not worn_before(s), 40):
        placed = scene.placed(model, scene.shape)
        normals = vertex_normals(placed, model.triangles)[model.landmarks[17:]]
        towards = np.array([0, 0, scene.distance]) - placed[model.landmarks[17:]]
        facing = (normals * towards).sum(1) / np.linalg.norm(towards, axis=1)
        averted += int((facing < -0.6).sum())
        assert (scene.visible == 1).all()
    assert averted > 10


def test_worn_things_cover_points_and_nothing_else_does(model: FaceModel) -> None:
    dark = 0
    for scene in (make_scene(model, 5, i) for i in range(150)):
        assert set(scene.visible.tolist()) <= {0.0, 1.0}
        if (scene.visible == 0).any():
            assert worn_before(scene)
        if dark_glasses(scene) and abs(scene.pose.yaw) < 20 and abs(scene.pose.pitch) < 15:
            assert scene.visible[36:48].max() == 0
            dark += 1
    assert dark > 0


def test_points_lie_inside_the_picture_with_room_around(path: Path) -> None:
    for sample in read_rendered(60, path, seed=2).samples:
        assert sample.keypoints.dtype == np.float32
        assert sample.keypoints.min() > 20
        assert sample.keypoints.max() < SIZE - 21
        assert 85 < np.ptp(sample.keypoints, axis=0).max() < 125
        assert sample.attributes == {}
        assert sample.visible.dtype == np.float32


def test_directions_are_mostly_frontal_and_the_same_to_both_sides() -> None:
    rng = np.random.default_rng(0)
    poses = [random_pose(rng) for _ in range(4000)]
    yaw, pitch, roll = np.array([(p.yaw, p.pitch, p.roll) for p in poses]).T
    assert [np.abs(v).max() <= limit for v, limit in ((yaw, 80), (pitch, 35), (roll, 25))] == [True] * 3
    assert np.median(np.abs(yaw)) < 25
    assert 0.05 < (yaw > 45).mean() < 0.15
    assert abs((yaw > 45).mean() - (yaw < -45).mean()) < 0.02
    assert abs((yaw > 0).mean() - 0.5) < 0.03


def test_halves_of_an_expression_go_mostly_together() -> None:
    rng = np.random.default_rng(0)
    weights = np.stack([random_expression(EXPRESSIONS, rng) for _ in range(1000)])
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert (weights == 0).all(1).mean() > 0.3
    smiles = weights[weights[:, 1] > 0.2]
    assert (np.abs(smiles[:, 1] - smiles[:, 2]) < 0.2).mean() > 0.75


# ---- pictures -------------------------------------------------------------------------------------


def write_photos(folder: Path, value: int) -> Path:
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(folder / name), np.full((40, 50, 3), value, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_the_picture_shows_the_face_where_the_labels_say(
    path: Path, model: FaceModel, tmp_path: Path
) -> None:
    """What two backgrounds leave alike is the face, with its shoulders and what it wears."""
    black, white = (write_photos(tmp_path / str(v), v) for v in (0, 255))
    pairs = zip(read_rendered(8, path, black).samples, read_rendered(8, path, white).samples, strict=True)
    for index, (a, b) in enumerate(pairs):
        change = cv2.absdiff(a.read(), b.read()).max(axis=2)
        scene = make_scene(model, 0, index)
        skin = skin_pixels(model, scene).astype(np.uint8)
        core = cv2.erode(skin, np.ones((9, 9), np.uint8)).astype(bool)
        assert change[core].max() < 90
        assert change[:6, :6].min() > 120
        x, y = np.round(scene.keypoints).astype(int).T
        assert cv2.dilate(skin, np.ones((5, 5), np.uint8))[y, x].all()


def test_lips_are_painted_at_their_points(path: Path, model: FaceModel) -> None:
    """The mouth is redder than the chin below it, on the average of some faces."""
    redder = []
    for index in range(12):
        scene, image = make_scene(model, 4, index), render(str(path), None, 4, index).astype(float)
        share = image[..., 2] / (image.sum(2) + 1)
        lip, chin = scene.keypoints[[51, 57]].mean(0), scene.keypoints[[8, 57]].mean(0)
        (lx, ly), (cx, cy) = np.round([lip, chin]).astype(int)
        redder.append(
            share[ly - 1 : ly + 2, lx - 3 : lx + 4].mean() - share[cy - 1 : cy + 2, cx - 3 : cx + 4].mean()
        )
    assert np.mean(redder) > 0.02


def test_paint_appears_where_the_labels_are(model: FaceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """White spots on the skin about some landmarks have their middles at the keypoints."""
    marked = [30, 36, 45, 48, 54]
    spots = model.vertices[model.landmarks]

    def spot(k: int, rest: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rest - spots[k], axis=1) < 1

    def camera(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return image.copy()

    monkeypatch.setattr(drawing, "_camera", camera)
    away = []
    frontal = scenes(
        model, lambda s: abs(s.pose.yaw) < 12 and abs(s.pose.pitch) < 12 and not s.worn.sheets, 8
    )
    for scene in (replace(s, worn=replace(s.worn, glasses=None)) for s in frontal):
        for k in marked:

            def paint(model: FaceModel, surface: Surface, *_: object, k: int = k) -> tuple:
                white = spot(k, surface.rest).astype(np.float32)
                return np.repeat(white[:, None], 3, 1), np.zeros(len(white), np.float32)

            monkeypatch.setattr(drawing, "paint", paint)
            black = np.zeros((2 * SIZE, 2 * SIZE, 3), np.uint8)
            image = drawing.draw(model, scene, black, np.random.default_rng(0))[..., 1] > 60
            x0, y0, x1, y1 = (*(scene.keypoints[k] - 15), *(scene.keypoints[k] + 15))
            y, x = np.nonzero(image)
            near = (x > x0) & (x < x1) & (y > y0) & (y < y1)
            away.append((x[near].mean() - scene.keypoints[k, 0], y[near].mean() - scene.keypoints[k, 1]))
    assert np.abs(np.mean(away, axis=0)).max() < 0.15
    assert np.abs(away).max() < 2.5


def test_glasses_are_drawn_where_they_cover(model: FaceModel) -> None:
    scene = scenes(model, lambda s: s.worn.glasses is not None and (s.visible[36:48] == 0).all(), 1)[0]
    background = np.full((2 * SIZE, 2 * SIZE, 3), 128, np.uint8)
    with_them, without = (
        drawing.draw(model, s, background, np.random.default_rng(1)).astype(int)
        for s in (scene, replace(scene, worn=replace(scene.worn, glasses=None)))
    )
    x, y = np.round(scene.keypoints[36:48]).astype(int).T
    assert np.abs(with_them - without).max(axis=2)[y, x].mean() > 15


def test_same_lot_same_picture_in_any_order_process_and_after_pickling(path: Path) -> None:
    first = [render(str(path), None, 3, i) for i in range(3)]
    again = [render(str(path), None, 3, i) for i in reversed(range(3))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 for image in first)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], render(str(path), None, 4, 0))
    sample = read_rendered(2, path, seed=3).samples[1]
    assert np.array_equal(pickle.loads(pickle.dumps(sample)).read(), first[1])
    code = (
        "import hashlib, sys; from pathlib import Path\n"
        "from edge_kp.training.rendered import read_rendered\n"
        "s = read_rendered(2, Path(sys.argv[1]), seed=3).samples[1]\n"
        "print(hashlib.sha256(s.load().tobytes() + s.keypoints.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    expected = hashlib.sha256(first[1].tobytes() + sample.keypoints.tobytes()).hexdigest()
    assert other.stdout.strip() == expected


# ---- data set -------------------------------------------------------------------------------------


def test_a_longer_set_starts_with_the_shorter_and_keys_are_unique(path: Path) -> None:
    short, long = read_rendered(3, path, seed=9).samples, read_rendered(6, path, seed=9).samples
    for a, b in zip(short, long, strict=False):
        assert a.key == b.key
        assert np.array_equal(a.keypoints, b.keypoints)
    assert [s.key for s in short] == [f"rendered/seed9/{i}" for i in range(3)]


def test_the_spec_is_read(path: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 90)
    dataset = load_dataset([f"rendered:2,{path},{photos},seed=7,repeat=2", f"rendered:3,{path}"])
    assert dataset.schema is FACE68
    assert dataset.names == ("rendered:2,seed=7", "rendered:3")
    assert [s.key for s in dataset.samples[:2]] == ["rendered/seed7/0", "rendered/seed7/1"]
    assert dataset.samples[0].repeat == 2
    assert dataset.samples[0].read().shape == (SIZE, SIZE, 3)


def test_bad_photo_folders_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no such folder; give a folder" in problem(lambda: read_rendered(1, path, tmp_path / "gone"))
    assert "holds no picture (.bmp" in problem(lambda: read_rendered(1, path, tmp_path / "empty"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"no picture")
    sample = read_rendered(1, path, tmp_path / "bad").samples[0]
    assert "a.jpg: cannot be decoded" in problem(sample.read)
