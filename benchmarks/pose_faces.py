"""The simulated faces of ``benchmarks.pose``: random people under random cameras, with known pose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_kp.errors import DataError
from edge_kp.files import read_arrays
from edge_kp.pose import HeadPose, load_face68
from edge_kp.types import Array

INNER = np.arange(17, 68)
FRAME = (1280.0, 960.0)


@dataclass(frozen=True, eq=False)
class FaceModel:
    """Landmarks of the 3D model, cm, centred as the shipped asset is.

    Attributes:
        mean: (68, 3).
        identity: (I, 68, 3) offsets for one standard deviation each.
        expression: (E, 68, 3) offsets of expression units.
    """

    mean: Array
    identity: Array
    expression: Array

    def shapes(self, count: int, rng: np.random.Generator) -> Array:
        """(count, 68, 3) random people with random expressions."""
        who = rng.normal(size=(count, len(self.identity)))
        mood = np.zeros((count, len(self.expression)))
        for row in mood:
            units = rng.choice(len(row), rng.integers(6), replace=False)
            row[units] = rng.uniform(0, 1, len(units))
        return np.asarray(
            self.mean
            + np.einsum("nk,kij->nij", who, self.identity)
            + np.einsum("nk,kij->nij", mood, self.expression)
        )


@dataclass(frozen=True, eq=False)
class Faces:
    """Keypoints with known pose: (n, 68, 2) pixels, (n, 3, 3) rotations, (n,) cm from the camera."""

    keypoints: Array
    rotations: Array
    distances: Array


def load_model(path: Path) -> FaceModel:
    """The landmarks of a 3D model whose mean face is the shipped one.

    Raises:
        DataError: not such a file, or another model.
    """
    try:
        data = read_arrays(path)
        marks = data["landmarks68"]
        mean, identity, expression = (
            data[name][..., marks, :].astype(np.float64) for name in ("vertices", "identity", "expression")
        )
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path.name}: not a face model .npz ({error})") from error
    mean = mean - mean[INNER].mean(0)
    worst = float(np.abs(mean - load_face68()).max()) if mean.shape == (68, 3) else np.inf
    if not worst < 0.002:
        raise DataError(f"{path.name}: its mean face is not the shipped one (off by {worst:.3f} cm)")
    return FaceModel(mean, identity, expression)


def simulate(model: FaceModel, count: int, rng: np.random.Generator) -> Faces:
    """Faces under random cameras."""
    shapes = model.shapes(count, rng)
    turns = np.stack(
        [HeadPose(*angles).rotation for angles in rng.uniform((-75, -40, -45), (75, 40, 45), (count, 3))]
    )
    width, height = FRAME
    focal = width / 2 / np.tan(np.radians(rng.uniform(40, 75, count)) / 2)
    share = rng.uniform(0.1, 0.6, count)
    distance = focal * np.ptp(model.mean[:, 0]) / (share * width)
    room = np.stack([width - share * width, np.maximum(height - share * width, 0)], 1) / 2
    place = rng.uniform(-1, 1, (count, 2)) * room  # of the face from the middle of the frame, pixels, y up
    centre = np.column_stack([place / focal[:, None], -np.ones(count)]) * distance[:, None]
    points = shapes @ turns.transpose(0, 2, 1) + centre[:, None]
    seen = focal[:, None, None] * points[..., :2] / -points[..., 2:]
    eyes = np.linalg.norm(model.mean[36] - model.mean[45]) * focal / distance
    seen += rng.normal(size=seen.shape) * (rng.uniform(0, 0.03, count) * eyes)[:, None, None]
    keypoints = seen * (1, -1) + (width / 2, height / 2)
    return Faces(keypoints, to_line_of_sight(turns, centre), distance)


def to_line_of_sight(turns: Array, centres: Array) -> Array:
    """Rotations against the camera's axes → against the ray to the face, by the smallest turn."""
    ray = centres / np.linalg.norm(centres, axis=-1, keepdims=True)
    x, y, z = ray.T
    zero = np.zeros_like(x)
    # The cross product with ray × (0, 0, -1), whose length is the sine of the turn.
    cross = np.stack([zero, zero, x, zero, zero, y, -x, -y, zero], -1).reshape(-1, 3, 3)
    return np.asarray((np.eye(3) + cross + cross @ cross / (1 - z)[:, None, None]) @ turns)
