"""What fuzz cases of several kinds start from: pictures, shapes, the shipped model; and what is right."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.fuzzing.worker import Wrong
from edge_kp import Detector
from edge_kp.errors import ModelError
from edge_kp.geometry import transform_points
from edge_kp.modeldir import SHIPPED
from edge_kp.types import Array, Detection

CLIP = Path(__file__).parents[2] / "edge_kp" / "assets" / "astronaut.mp4"
MODEL = SHIPPED / "face68"
NETWORKS = ("stage1.fp32.onnx", "stage2.fp32.onnx", "locator.fp32.onnx")
SIDE = 64  # of drawn pictures
POINTS = 5  # of drawn shapes


def picture(number: int) -> Array:
    """uint8 BGR (64, 64, 3)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.dstack([3 * x, 3 * y, np.full_like(x, 20 * number)]).astype(np.uint8)


def shape(number: int, points: int = POINTS) -> Array:
    """(points, 2) float64 keypoints inside of :func:`picture`."""
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False) + 0.1 * number
    return np.round(32 + np.column_stack([20 * np.cos(angle), 14 * np.sin(angle)]), 3)


def first_frame() -> tuple[Array, Array]:
    """The first frame of the shipped clip, and the box (4,) of the face in it."""
    read, image = cv2.VideoCapture(str(CLIP)).read()
    if not read:
        raise ModelError(f"{CLIP}: cannot be read; install the package again")
    about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
    x0, y0, x1, y1 = about["reference_box"]
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
    points = transform_points(np.array(about["frames"][0]["matrix"]), corners)
    return image, np.concatenate([points.min(0), points.max(0)])


def check_sound(found: Sequence[Detection], points: int = 68) -> None:
    """Raises: Wrong: a detection that tells something that cannot be."""
    for one in found:
        chances = [one.score, *one.visibility.tolist(), *one.attributes.values()]
        angles = [] if one.pose is None else [one.pose.yaw, one.pose.pitch, one.pose.roll]
        if one.keypoints.shape != (points, 2) or len(one.visibility) != points:
            raise Wrong(f"{len(one.keypoints)} keypoints and {len(one.visibility)} visibilities of {points}")
        if not all(np.isfinite(values).all() for values in (one.keypoints, one.box, angles)):
            raise Wrong("a keypoint, box or angle that is not finite")
        if not all(0 <= chance <= 1 for chance in chances):
            raise Wrong(f"a probability of {min(chances):g} or {max(chances):g}")


def check_same(found: Sequence[Detection], expected: Sequence[Detection], pixels: float = 1e-3) -> None:
    """Raises: Wrong: other objects, or keypoints farther off than ``pixels``."""
    if len(found) != len(expected):
        raise Wrong(f"{len(found)} objects instead of {len(expected)}")
    for one, other in zip(found, expected, strict=True):
        off = float(np.abs(one.keypoints - other.keypoints).max())
        if not (off <= pixels and abs(one.score - other.score) <= 1e-4):
            raise Wrong(f"keypoints off by {off:g} pixels, score {one.score:g} instead of {other.score:g}")


@dataclass(frozen=True, eq=False)
class Shipped:
    """The shipped model, and what it gives for the clip's first frame: in the face's box, then in all."""

    image: Array
    box: Array
    answer: list[Detection]
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> Shipped:
        image, box = first_frame()
        with Detector(MODEL, threads=1, backend="onnxruntime", precision="fp32") as detector:
            answer = [*detector.detect(image, boxes=[box]), *detector.detect(image)]
        return cls(image, box, answer, {path.name: path.read_bytes() for path in MODEL.iterdir()})


def model_folder(folder: Path, changed: Mapping[str, bytes | None], told: bool = False) -> Path:
    """A copy of the shipped model with some files changed, or gone.

    Args:
        told: let ``model.json`` name the hashes of the changed files.
    """
    place = folder / "face68"
    place.mkdir()
    for name in ("model.json", "weights.bin", "templates.npz", "references.npz", *NETWORKS):
        shutil.copy(MODEL / name, place)
    for name, content in changed.items():
        (place / name).unlink()
        if content is not None:
            (place / name).write_bytes(content)
    if told:
        described = json.loads((place / "model.json").read_text())
        hashes = {name: hashlib.sha256(content or b"").hexdigest() for name, content in changed.items()}
        described["files"] |= hashes
        (place / "model.json").write_text(json.dumps(described))
    return place
