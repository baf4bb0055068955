"""The clip that ships with the package moves the way its JSON says."""

import json
import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge_kp
from edge_kp.geometry import box_iou, invert, tight_box, transform_points

ASSETS = Path(edge_kp.__file__).parent / "assets"


@pytest.fixture(scope="module")
def truth():
    return json.loads((ASSETS / "astronaut.json").read_text())


@pytest.fixture(scope="module")
def photo():
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[..., ::-1])


def test_json_and_clip_agree(truth, frames):
    assert len(frames) == len(truth["frames"]) == 250
    width, height = truth["size"]
    assert {image.shape for image in frames} == {(height, width, 3)}
    assert cv2.VideoCapture(str(ASSETS / "astronaut.mp4")).get(cv2.CAP_PROP_FPS) == truth["fps"]
    assert truth["licence"] == "public domain"
    assert "NASA" in truth["credit"]


def test_clip_is_small():
    assert (ASSETS / "astronaut.mp4").stat().st_size <= 1.5e6


def corners(box):
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def test_clip_covers_scale_rotation_and_place(truth):
    matrices = np.array([frame["matrix"] for frame in truth["frames"]])
    x0, _, x1, _ = truth["reference_box"]
    widths = (x1 - x0) * np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert widths.min() < 80
    assert widths.max() > 140
    assert angles.min() == pytest.approx(-20, abs=0.5)
    assert angles.max() == pytest.approx(20, abs=0.5)
    faces = [transform_points(m, corners(truth["reference_box"])) for m in matrices]
    assert all((face > 0).all() and (face < truth["size"]).all() for face in faces)
    # Slow enough that a tracker can follow from one frame to the next.
    boxes = [tight_box(face) for face in faces]
    assert min(box_iou(a, b) for a, b in pairwise(boxes)) > 0.7


def test_face_is_part_covered_for_a_while_and_hidden_for_a_second(truth):
    covered = np.array([frame["covered"] for frame in truth["frames"]])
    assert ((covered > 0.3) & (covered < 0.4)).sum() >= truth["fps"]
    hidden = np.array([not frame["face_visible"] for frame in truth["frames"]])
    np.testing.assert_array_equal(hidden, covered >= 0.9)
    assert hidden.sum() >= truth["fps"]
    assert np.count_nonzero(np.diff(hidden.astype(int))) == 2  # once, in one piece
    assert all(frame["cover"] is not None for frame in truth["frames"] if frame["covered"] > 0)


def test_covered_is_the_share_of_the_box_under_the_cover(truth):
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 60)), -1).reshape(-1, 2)
    x0, y0, x1, y1 = truth["reference_box"]
    inside_box = [x0, y0] + grid * [x1 - x0, y1 - y0]
    for frame in truth["frames"]:
        if frame["cover"] is None:
            assert frame["covered"] == 0
            continue
        moved = transform_points(np.array(frame["matrix"]), inside_box)
        start = np.array(frame["cover"])
        side, to_point = np.roll(start, -1, 0) - start, moved[:, None] - start
        under = (side[:, 0] * to_point[..., 1] - side[:, 1] * to_point[..., 0] >= 0).all(1)
        assert under.mean() == pytest.approx(frame["covered"], abs=0.04)


def test_every_uncovered_frame_shows_the_face_where_its_matrix_says(truth, frames, photo):
    x0, y0, x1, y1 = (round(v) for v in truth["reference_box"])
    face = cv2.cvtColor(photo[y0:y1, x0:x1], cv2.COLOR_BGR2GRAY).astype(np.float32)
    window = cv2.createHanningWindow(face.shape[::-1], cv2.CV_32F)
    checked = 0
    for image, frame in zip(frames, truth["frames"], strict=True):
        if frame["covered"] > 0:
            continue
        back = cv2.warpAffine(image, invert(np.array(frame["matrix"])), truth["photo_size"])
        seen = cv2.cvtColor(back[y0:y1, x0:x1], cv2.COLOR_BGR2GRAY).astype(np.float32)
        assert np.abs(seen - face).mean() < 6  # of 255
        shift, _ = cv2.phaseCorrelate(face.copy(), seen, window)  # it writes into its arguments
        assert math.hypot(*shift) < 0.4  # pixels
        checked += 1
    assert checked > 100


def test_hidden_face_is_not_in_the_picture(truth, frames, photo):
    x0, y0, x1, y1 = (round(v) for v in truth["reference_box"])
    for image, frame in zip(frames, truth["frames"], strict=True):
        if frame["covered"] >= 1:
            back = cv2.warpAffine(image, invert(np.array(frame["matrix"])), truth["photo_size"])
            difference = back[y0:y1, x0:x1].astype(float) - photo[y0:y1, x0:x1]
            assert np.abs(difference).mean() > 40
