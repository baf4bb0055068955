"""Heads turned in photos: the 3D face behind the labels, what the new picture shows, and its labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_head import small_head

from edge_kp.schema import FACE68
from edge_kp.training.datasets import load_dataset
from edge_kp.training.rendering.contour import outlined_landmarks
from edge_kp.training.rendering.fitting import fit_face
from edge_kp.training.rendering.model import FaceModel, load_face_model
from edge_kp.training.rendering.raster import rasterise
from edge_kp.training.rendering.scene import PIVOT
from edge_kp.training.rendering.turned import turn_head
from edge_kp.training.turning import FURTHEST, YAW, random_turn, turn_photos
from edge_kp.turn import main
from edge_kp.types import HeadPose

SIZE, SCALE = 300, 8.0  # pixels of a picture, pixels per cm
MIDDLE = np.array([150.0, 150.0])
INNER = range(17, 68)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "head.npz"
    np.savez(file, **small_head())
    return file


@pytest.fixture(scope="module")
def model(path: Path) -> FaceModel:
    return load_face_model(str(path))


def seen(model: FaceModel, pose: HeadPose, shape: np.ndarray | None = None) -> np.ndarray:
    """(V, 3) pixels and depth of the head, far from the camera, whose pivot is in the middle."""
    away = ((model.vertices if shape is None else shape) - PIVOT) @ pose.rotation.T
    return np.column_stack([MIDDLE + SCALE * away[:, :2] * (1, -1), away[:, 2]])


def labels(model: FaceModel, points: np.ndarray, pose: HeadPose) -> np.ndarray:
    """(68, 2) where people would put the points."""
    across = pose.rotation[:2, 0] * (1, -1)
    return points[outlined_landmarks(model, points, across / np.linalg.norm(across)), :2]


def photo(model: FaceModel, pose: HeadPose) -> np.ndarray:
    """A picture of the head: each place on it has a colour of its own; green behind it."""
    pixel, triangle, shares, _ = rasterise(seen(model, pose).astype(np.float32), model.triangles, SIZE)
    image = np.full((SIZE * SIZE, 3), (0, 200, 0), np.uint8)
    places = np.einsum("kp,pkc->pc", shares, model.vertices[model.triangles[triangle]])
    image[pixel] = np.clip(128 + 11 * places, 30, 255)
    return image.reshape(SIZE, SIZE, 3)


# ---- the face behind the labels ----------------------------------------------------------------------


@given(yaw=st.floats(-40, 40), pitch=st.floats(-15, 15), roll=st.floats(-30, 30))
@settings(max_examples=20, deadline=None)
def test_the_camera_of_a_known_face_is_found(model: FaceModel, yaw: float, pitch: float, roll: float) -> None:
    pose = HeadPose(yaw, pitch, roll)
    points = seen(model, pose)
    face = fit_face(model, labels(model, points, pose))
    found = face.pose
    assert abs(found.yaw - yaw) < 4
    assert abs(found.pitch - pitch) < 4
    assert abs(found.roll - roll) < 2
    assert abs(face.scale / SCALE - 1) < 0.05
    assert face.error_cm < 0.15


def test_an_expression_is_found(model: FaceModel) -> None:
    """An open mouth in a broad face: without them the labels would be missed by far more."""
    person, expression = np.array([2.0, 0, 0]), np.array([1.0, 0, 0, 0])
    shape, pose = model.shape(person, expression), HeadPose(10, 0, 0)
    face = fit_face(model, labels(model, seen(model, pose, shape), pose))
    plain = fit_face(model, labels(model, seen(model, pose), pose))
    assert face.error_cm < 0.15
    chin, nose = model.landmarks[8], model.landmarks[30]
    opened = [f.shape[nose, 1] - f.shape[chin, 1] for f in (face, plain)]
    assert opened[0] - opened[1] > 0.6


def test_expressions_stay_within_what_faces_do(model: FaceModel) -> None:
    """A chin pulled up to the nose is no expression: the mouth closes, no further."""
    points = labels(model, seen(model, HeadPose(0, 0, 0)), HeadPose(0, 0, 0))
    points[6:11, 1] -= 30
    face = fit_face(model, points)
    lower = model.vertices[:, 1] < -6
    assert face.error_cm > 0.2
    assert np.abs((face.shape - model.vertices)[lower, 1]).max() < 1.6  # persons alone


@pytest.mark.parametrize(
    "points",
    [np.zeros((68, 2)), np.full((68, 2), np.nan), np.zeros((5, 2)), np.c_[np.arange(68.0), np.ones(68)]],
)
def test_no_face_is_refused(model: FaceModel, points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected 68 places in a picture, not all on one line"):
        fit_face(model, points)


# ---- the turned picture ------------------------------------------------------------------------------


def turned(model: FaceModel, start: HeadPose, turn: HeadPose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo, the one with the head turned, and its labels."""
    image, points = photo(model, start), labels(model, seen(model, start), start)
    return image, *turn_head(model, fit_face(model, points), image, points, turn)


def test_no_turn_leaves_photo_and_labels(model: FaceModel) -> None:
    pose = HeadPose(15, 5, 0)
    image, found, points = turned(model, pose, HeadPose(0, 0, 0))
    np.testing.assert_allclose(points, labels(model, seen(model, pose), pose), atol=1e-3)
    inside = cv2.erode((image != (0, 200, 0)).any(-1).astype(np.uint8), np.ones((9, 9))) > 0
    assert np.abs(found.astype(int) - image)[inside].mean() < 2
    assert np.abs(found.astype(int) - image).mean() < 3


@pytest.mark.parametrize(
    "turn", [HeadPose(30, 0, 0), HeadPose(-30, 0, 0), HeadPose(0, 15, 0), HeadPose(20, -12, 0)]
)
def test_the_new_picture_is_what_a_camera_would_have_seen(model: FaceModel, turn: HeadPose) -> None:
    _, found, points = turned(model, HeadPose(0, 0, 0), turn)
    truth = photo(model, turn)
    np.testing.assert_allclose(points[17:], labels(model, seen(model, turn), turn)[17:], atol=0.35 * SCALE)
    np.testing.assert_allclose(points[:17], labels(model, seen(model, turn), turn)[:17], atol=0.8 * SCALE)
    far = np.abs(found.astype(int) - truth).max(-1)
    face = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(np.round(points[17:]).astype(np.int32)), 1)
    assert np.median(far[face > 0]) < 8  # colours change by 11 a cm
    assert np.mean(far[face > 0] < 20) > 0.9


def test_labels_stay_on_what_they_name(model: FaceModel) -> None:
    """The colour under each inner point is the same before and after, where the photo shows it."""
    start, turn = HeadPose(10, 0, 0), HeadPose(25, 8, 0)
    image, found, points = turned(model, start, turn)
    old = labels(model, seen(model, start), start)
    near = [i for i in INNER if model.vertices[model.landmarks[i], 0] > -2]  # not beyond the new outline
    for i in near:
        before, after = (
            picture[round(float(y)), round(float(x))].astype(int)
            for picture, (x, y) in ((image, old[i]), (found, points[i]))
        )
        assert np.abs(after - before).max() < 14, i


def test_far_from_the_head_nothing_moves(model: FaceModel) -> None:
    image, points = (
        photo(model, HeadPose(0, 0, 0)),
        labels(model, seen(model, HeadPose(0, 0, 0)), HeadPose(0, 0, 0)),
    )
    big = cv2.copyMakeBorder(image, 150, 150, 150, 150, cv2.BORDER_CONSTANT, value=(0, 200, 0))
    big[:, :40], big[:, -40:] = (255, 0, 0), (0, 0, 255)
    face = fit_face(model, points + 150)
    found, _ = turn_head(model, face, big, points + 150, HeadPose(35, 0, 0))
    assert (found[:, :38] == (255, 0, 0)).all()
    assert (found[:, -38:] == (0, 0, 255)).all()


def test_the_background_comes_up_to_the_new_outline(model: FaceModel) -> None:
    """Where the head was and is no more there is background, not the side of the face."""
    narrow = seen(model, HeadPose(40, 0, 0))
    mask = np.zeros(SIZE * SIZE, bool)
    mask[rasterise(narrow.astype(np.float32), model.triangles, SIZE)[0]] = True
    _, found, _ = turned(model, HeadPose(0, 0, 0), HeadPose(40, 0, 0))
    outside = ~(cv2.dilate(mask.reshape(SIZE, SIZE).astype(np.uint8), np.ones((13, 13))) > 0)
    green = (np.abs(found.astype(int) - (0, 200, 0)).max(-1) < 30)[outside]
    assert green.mean() > 0.97


# ---- data sets ---------------------------------------------------------------------------------------


@pytest.fixture
def faces(model: FaceModel, tmp_path: Path) -> Path:
    """A folder of photos: looking ahead, to the left, and one whose labels are no face."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for name, pose in (
        ("ahead", HeadPose(0, 0, 0)),
        ("left", HeadPose(30, 0, 0)),
        ("odd", HeadPose(0, 0, 0)),
    ):
        points = labels(model, seen(model, pose), pose)
        if name == "odd":
            points = points[np.random.default_rng(0).permutation(68)]
        cv2.imwrite(str(folder / f"{name}.jpg"), photo(model, pose))
        rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in points)
        (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    return folder


def test_the_photos_own_folder_is_not_written_to(
    faces: Path, path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = sorted(faces.iterdir())
    assert main(["--data", f"ibug:{faces}", "--face-model", str(path), "--out", str(faces)]) == 1
    assert "the photos come from this folder; write to another" in capsys.readouterr().err
    assert sorted(faces.iterdir()) == before


def test_faces_that_cannot_be_turned_leave_no_advice_to_train_on_them(
    faces: Path, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in faces.glob("odd.*"):
        (odd / file.name).write_bytes(file.read_bytes())
    command = ["--data", f"ibug:{odd}", "--face-model", str(path), "--out", str(tmp_path / "turned")]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "none of 1 faces could be turned" in err
    assert "next" not in out


def test_a_set_is_written_that_can_be_trained_on(
    faces: Path, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "turned"
    command = ["--data", f"ibug:{faces}", "--face-model", str(path), "--count", "3", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "6 pictures of 2 faces; left out: 1 that lack labels or fit no face" in said
    found = load_dataset([f"ibug:{out}"])
    assert found.schema == FACE68
    names = {Path(s.key).name for s in found.samples}
    assert names == {f"{face}_t{i}.jpg" for face in ("ahead", "left") for i in range(3)}
    for sample in found.samples:
        image = sample.read()
        assert image.shape[0] == image.shape[1] <= 400
        x0, y0, x1, y1 = sample.box.tolist()
        assert min(x0, y0) > 0
        assert max(x1, y1) < len(image)
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    assert main([*command[:-1], str(tmp_path / "again")]) == 0
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()}
    assert main([*command[:-1], str(tmp_path / "other"), "--seed", "1"]) == 0
    assert first != {p.name: p.read_bytes() for p in (tmp_path / "other").iterdir()}


def test_faces_without_all_labels_are_left_out(model: FaceModel, faces: Path, tmp_path: Path) -> None:
    (sample,) = [s for s in load_dataset([f"ibug:{faces}"]).samples if s.key.endswith("ahead.jpg")]
    sample.keypoints[3] = np.nan
    done = turn_photos(model, [sample], tmp_path / "out", 2)
    assert (done.written, done.unfit) == (0, 1)


def test_turns_lead_on_to_where_a_face_looks(model: FaceModel) -> None:
    rng = np.random.default_rng(0)
    for yaw in (-60, -35, 35, 60, 70):
        pose = HeadPose(yaw, 0, 0)
        face = fit_face(model, labels(model, seen(model, pose), pose))
        for _ in range(30):
            turn = random_turn(face, rng)
            assert turn.yaw * face.pose.yaw > 0
            assert abs(turn.yaw) >= YAW[0]
            assert abs(face.pose.yaw + turn.yaw) <= max(FURTHEST, abs(face.pose.yaw) + YAW[0])
    ahead = fit_face(model, labels(model, seen(model, HeadPose(0, 0, 0)), HeadPose(0, 0, 0)))
    sides = [random_turn(ahead, rng).yaw > 0 for _ in range(60)]
    assert 15 < sum(sides) < 45


def test_what_cannot_be_turned_is_refused(
    path: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["--data", "synthetic:5", "--face-model", str(path), *out]) == 1
    assert "face68" in capsys.readouterr().err
    assert main(["--data", f"ibug:{faces}", "--face-model", str(tmp_path / "no.npz"), *out]) == 1
    assert "no.npz: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
