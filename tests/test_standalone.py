"""The detector without edge_kp gives what edge_kp gives."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from by_path import load

import edge_kp
from edge_kp import Detector
from edge_kp.geometry import Crop, box_iou, estimate_similarity, similarity
from edge_kp.locator import NetworkLocator

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "deploy" / "standalone.py"
MODELS = Path(edge_kp.__file__).parent / "models"
CLIP = Path(edge_kp.__file__).parent / "assets" / "astronaut.mp4"


standalone = load(SCRIPT)


@pytest.fixture(scope="module")
def detector() -> Any:
    with Detector("face68", backend="onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> Any:
    return standalone.Model(MODELS / "face68")


def test_it_needs_nothing_of_edge_kp() -> None:
    tree = ast.parse(SCRIPT.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    names = {alias.name for node in imports for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"cv2", "numpy", "onnxruntime"}


@pytest.mark.parametrize("number", [0, 40, 80])
def test_frames_give_the_same_objects(detector: Detector, model: Any, frames: list[Any], number: int) -> None:
    frame = frames[number]
    assert isinstance(detector.locator, NetworkLocator)
    boxes, _ = detector.locator.search(frame)
    assert len(boxes) == 1
    np.testing.assert_allclose(model.locate(frame), boxes, atol=1e-3)

    expected = detector.cascade(frame, boxes)
    (found,) = model.detect(frame)
    np.testing.assert_allclose(found["keypoints"], expected.keypoints[0], atol=0.02)
    np.testing.assert_allclose(found["visibility"], expected.visibility[0], atol=1e-3)
    assert found["score"] == pytest.approx(float(expected.score[0]), abs=1e-3)
    assert list(found["attributes"]) == list(detector.spec.attributes)

    nearly = found["keypoints"] + [3, -2]
    again = detector.cascade.refine(frame, [nearly])
    np.testing.assert_allclose(model.follow(frame, nearly)["keypoints"], again.keypoints[0], atol=0.02)


@pytest.mark.parametrize("times", [0.5, 3, 7.3])
def test_faces_of_other_sizes(detector: Detector, model: Any, frames: list[Any], times: float) -> None:
    assert isinstance(detector.locator, NetworkLocator)
    frame = cv2.resize(frames[0], None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
    (found,) = model.detect(frame)
    expected = detector.cascade(frame, detector.locator.search(frame)[0])
    np.testing.assert_allclose(found["keypoints"], expected.keypoints[0], atol=0.1 * times)


def test_where_nothing_is_it_finds_nothing(model: Any) -> None:
    assert model.detect(np.full((120, 160, 3), 90, np.uint8)) == []


@pytest.mark.parametrize("shrink", [0.3, 1, 2, 3.7, 9])
def test_crops_are_those_of_the_package(frames: list[Any], shrink: float) -> None:
    size, middle = 32, np.array([[255.5, 200.0]])
    matrix = similarity(0.4, 1 / (size * shrink))
    matrix[:, 2] = 0.5 - (matrix[:, :2] @ middle[0])
    ours = Crop(matrix, size).extract(frames[0]).astype(int)
    # Means taken in one go and in several are rounded once and several times.
    assert np.abs(standalone.crop(frames[0], matrix, size).astype(int) - ours).max() <= (
        2 if shrink >= 2 else 0
    )


def test_thin_frames_and_boxes(detector: Detector, model: Any, frames: list[Any]) -> None:
    assert model.detect(np.ascontiguousarray(frames[0][:2])) == []
    assert model.detect(frames[0][:, :1].repeat(1, axis=1)) == []
    row, beside = np.array([100.0, 50, 300, 50]), np.array([100.0, 52, 290, 52])
    assert standalone.overlap(row, beside) == pytest.approx(box_iou(row, beside))
    assert standalone.overlap(row, row) == 1


def test_a_frame_thinner_than_a_block(frames: list[Any]) -> None:
    assert standalone.crop(frames[0][:3], similarity(0, 1 / 4000), 16).shape == (16, 16, 3)


def test_alignment_is_that_of_the_package() -> None:
    rng = np.random.default_rng(1)
    points, shape = rng.normal(100, 30, (68, 2)), rng.uniform(0, 1, (68, 2))
    np.testing.assert_allclose(
        standalone.similarity(points, shape), estimate_similarity(points, shape), atol=1e-12
    )


def test_the_command_prints_a_line_per_frame(frames: list[Any]) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(MODELS / "face68-nano"), str(CLIP)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(frames)
    assert all(np.shape(found["keypoints"]) == (68, 2) for line in lines for found in line["detections"])
    assert sum(bool(line["detections"]) for line in lines) > 0.8 * len(lines)


@pytest.mark.parametrize(
    ("args", "code"), [([], 2), (["nowhere", str(CLIP)], 1), ([str(MODELS), "no.mp4"], 1)]
)
def test_wrong_use_is_one_line(args: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
