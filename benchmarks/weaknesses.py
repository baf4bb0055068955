"""Where does a face model fail? ``python -m benchmarks.weaknesses --face MODEL.npz``: error by difficulty.

Faces are rendered (see :mod:`edge_kp.training.rendered`), so that labels are known at any angle and under
any cover, and made harder step by step: turned, nodding, covered, dark, small, smeared by motion. Told is
the mean error of each step, and drawn the face whose error is the median one, with its labels in white.
Rendered faces are not photos: read how the error grows, not how large it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from benchmarks.degradations import motion_blur
from edge_kp import Detector
from edge_kp.cli import positive, run_cli
from edge_kp.errors import DataError
from edge_kp.files import replacing
from edge_kp.geometry import jitter_box, tight_box
from edge_kp.schema import FACE68
from edge_kp.training.rendered import make_scene, render
from edge_kp.training.rendering.model import FaceModel, load_face_model
from edge_kp.training.textures import random_texture
from edge_kp.types import Array

SEED = 20  # of the people: other faces than any training run draws by default
MOST = 20_000  # scenes that are looked through for faces of a direction
TURNS = (0, 20, 40, 60, 75)  # degrees of yaw, ± 5
NODS = (-30, -15, 0, 15, 30)  # degrees of pitch
COVERS = (0.0, 0.2, 0.35, 0.5, 0.65)  # share of the box
LIGHTS = (1.0, 0.3, 0.1, 0.04, 0.02)
EYES = (40.0, 20.0, 12.0, 8.0, 5.0)  # pixels from eye to eye
SMEARS = (0.0, 0.1, 0.2, 0.35, 0.5)  # motion during the exposure, in eye distances

Harder = Callable[[Array, Array, float, np.random.Generator], Array]


def covered(image: Array, keypoints: Array, share: float, rng: np.random.Generator) -> Array:
    """A drawn surface before a share of the keypoints' box."""
    x0, y0, x1, y1 = tight_box(keypoints).tolist()
    w, h = (x1 - x0) * share**0.5, (y1 - y0) * share**0.5
    left, top = round(rng.uniform(x0, x1 - w)), round(rng.uniform(y0, y1 - h))
    out = image.copy()
    part = out[max(0, top) : round(top + h), max(0, left) : round(left + w)]
    if part.size:
        part[:] = cv2.resize(random_texture(64, rng), part.shape[1::-1])
    return out


def dark(image: Array, keypoints: Array, light: float, rng: np.random.Generator) -> Array:
    """Less light, and a camera that makes up for it: shot noise (8 electrons a grey level), then gain."""
    electrons = rng.poisson(np.float64(image) * 8 * light)
    return np.clip(electrons / (8 * light), 0, 255).astype(np.uint8)


def small(image: Array, keypoints: Array, eyes: float, rng: np.random.Generator) -> Array:
    """As few pixels as a distant face has; enlarged again, since all are shown at one size."""
    scale = eyes / float(np.linalg.norm(keypoints[36] - keypoints[45]))
    size = image.shape[1::-1]
    shrunk = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, size, interpolation=cv2.INTER_LINEAR))


def smeared(image: Array, keypoints: Array, length: float, rng: np.random.Generator) -> Array:
    """Moved along a straight line while the shutter was open."""
    angle, reach = rng.uniform(0, np.pi), length * float(np.linalg.norm(keypoints[36] - keypoints[45]))
    return motion_blur(image, reach, angle)


def faces_like(model: FaceModel, count: int, yaw: float, pitch: float, width: float) -> list[int]:
    """Numbers of scenes whose head is turned so, either way, within ``width`` degrees.

    Raises:
        DataError: there are too few.
    """
    found = []
    for index in range(MOST):
        pose = make_scene(model, SEED, index).pose
        if abs(abs(pose.yaw) - yaw) < width and abs(pose.pitch - pitch) < width and abs(pose.roll) < 15:
            found.append(index)
        if len(found) == count:
            return found
    raise DataError(f"only {len(found)} of {MOST} rendered faces are turned by {yaw} and {pitch} degrees")


class Ruler:
    """Measures the detector on rendered faces, and keeps the median face of each step."""

    def __init__(self, detector: Detector, model_path: str) -> None:
        self.detector = detector
        self.path = model_path
        self.model = load_face_model(model_path)

    def step(self, numbers: Sequence[int], harder: Harder | None, value: float) -> tuple[float, Array]:
        """Mean error in % of the eye distance, and the picture of the median face."""
        seen: list[tuple[float, Array]] = []
        for index in numbers:
            rng = np.random.default_rng([SEED, index])
            truth = make_scene(self.model, SEED, index).keypoints
            image = render(self.path, None, SEED, index)
            if harder is not None:
                image = harder(image, truth, value, rng)
            (found,) = self.detector.detect(image, boxes=[jitter_box(tight_box(truth), rng)])
            unit = _unit(truth)
            error = 100 * float(np.linalg.norm(found.keypoints - truth, axis=1).mean()) / unit
            seen.append((error, _drawn(image, truth, found.keypoints)))
        seen.sort(key=lambda pair: pair[0])
        return float(np.mean([error for error, _ in seen])), seen[len(seen) // 2][1]


def _unit(truth: Array) -> float:
    """Distance of the eyes as if seen from the front: a turned head is not measured by a shorter rule.

    It is the longer of the eyes' distance and 0.6 of the box, about what it is from the front.
    """
    x0, y0, x1, y1 = tight_box(truth).tolist()
    return max(float(np.linalg.norm(truth[36] - truth[45])), 0.6 * max(x1 - x0, y1 - y0))


def _drawn(image: Array, truth: Array, found: Array) -> Array:
    out = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    for points, colour, radius in ((truth, (255, 255, 255), 1), (found, (60, 220, 60), 2)):
        for x, y in (2 * points + 0.5).tolist():
            cv2.circle(out, (round(4 * x), round(4 * y)), 4 * radius, colour, -1, cv2.LINE_AA, 2)
    return np.asarray(out)


def _sheet(rows: Sequence[tuple[str, Sequence[tuple[str, float, Array]]]], side: int = 190) -> Array:
    """One picture: a row for each weakness, a cell for each step with its error below."""
    lines = []
    for title, cells in rows:
        pictures = []
        for name, error, picture in cells:
            cell = np.full((side + 22, side, 3), 255, np.uint8)
            cell[:side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
            text = f"{name}: {error:.1f} %"
            cv2.putText(cell, text, (4, side + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
            pictures.append(cell)
        head = np.full((22, side * len(cells), 3), 235, np.uint8)
        cv2.putText(head, title, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        lines += [head, np.hstack(pictures)]
    return np.vstack(lines)


def _run(args: argparse.Namespace) -> None:
    rows: list[tuple[str, list[tuple[str, float, Array]]]] = []
    figures: dict[str, dict[str, float]] = {}
    with Detector(args.model) as detector:
        if detector.schema != FACE68:
            raise DataError(f"model {args.model}: rendered faces have the points of {FACE68.name} alone")
        ruler = Ruler(detector, str(args.face))
        front = faces_like(ruler.model, args.faces, 0, 0, 10)
        kinds: list[tuple[str, Harder | None, Sequence[float], Callable[[float], str]]] = [
            ("turned to the side", None, TURNS, lambda v: f"{v:.0f} deg"),
            ("nodding (+ looks up)", None, NODS, lambda v: f"{v:+.0f} deg"),
            ("covered", covered, COVERS, lambda v: f"{100 * v:.0f} % of the box"),
            ("dark", dark, LIGHTS, lambda v: f"light x {v:g}"),
            ("small", small, EYES, lambda v: f"eyes {v:g} px apart"),
            ("smeared by motion", smeared, SMEARS, lambda v: f"{v:g} eye distances"),
        ]
        for title, harder, values, name in tqdm(kinds, "weaknesses", leave=False):
            cells = []
            for value in values:
                numbers = front
                if harder is None:
                    yaw, pitch = (value, 0) if values is TURNS else (0, value)
                    numbers = faces_like(ruler.model, args.faces, yaw, pitch, 8)
                error, picture = ruler.step(numbers, harder, value)
                cells.append((name(value), error, picture))
            rows.append((title, cells))
            figures[title] = {label: round(error, 2) for label, error, _ in cells}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.name}-weaknesses.jpg"
    with replacing(path) as part:
        part.write_bytes(cv2.imencode(".jpg", _sheet(rows), [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes())
    write_result(
        f"{args.name}-weaknesses",
        {"model": args.name, "faces_a_step": args.faces, "error_percent": figures},
        args.out,
    )
    for title, steps in figures.items():
        print(f"{title}: " + ", ".join(f"{label} {error:.1f} %" for label, error in steps.items()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.weaknesses", description=__doc__)
    parser.add_argument("--face", type=Path, required=True, metavar="MODEL.npz", help="3D face model (ICT)")
    parser.add_argument("--model", default="face68")
    parser.add_argument("--name", default="face68", help="of the files written")
    parser.add_argument("--faces", type=positive, default=24, help="of each step (default 24)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
