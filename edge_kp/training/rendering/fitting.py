"""The 3D face behind the labels of a photo: person, expression and camera.

The camera is a scaled orthographic one: of a face in a photo keypoints hardly tell the distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_kp.training.rendering.contour import outlined_landmarks
from edge_kp.training.rendering.model import FaceModel
from edge_kp.types import Array, HeadPose

DOWN = np.array([1.0, -1.0])  # from y up to y down, and back

_ROUNDS = 6
_SCATTER = 0.12  # cm by which people's labels scatter
_JAW, _JAW_WEIGHT = 17, 0.5  # points of the jaw line come first; their places along it are arbitrary
_EXPRESSION = 0.3  # usual strength of an expression, of 1


@dataclass(frozen=True, eq=False)
class FittedFace:
    """A face in a photo.

    Attributes:
        shape: (V, 3) cm, face frame: the person with the expression.
        rotation: (3, 3) face frame → axes of the image (x right, y up, z towards the viewer).
        scale: pixels per cm.
        shift: (2,) where the face frame's origin is, pixels, y up.
        at: (68,) vertices where the labels are.
        error_cm: mean distance of these from the labels.
    """

    shape: Array
    rotation: Array
    scale: float
    shift: Array
    at: Array
    error_cm: float

    @property
    def pose(self) -> HeadPose:
        return HeadPose.from_rotation(self.rotation)


def fit_face(model: FaceModel, keypoints: Array) -> FittedFace:
    """Fit the model to the labels of one face.

    In turns: where on the model the labels are (the jaw line follows the outline), the likeliest person and
    expression that puts it there, given the camera (linear least squares, expressions within [0, 1]), and the
    camera, given those (the affine one, then the nearest that only turns and scales).

    Args:
        keypoints: (68, 2) of schema ``FACE68``, pixels, y down; none missing.

    Raises:
        ValueError: another shape, or keypoints that are not finite or all in one place.
    """
    if keypoints.shape != (68, 2) or not np.isfinite(keypoints).all() or np.ptp(keypoints, axis=0).min() <= 0:
        raise ValueError("keypoints: expected 68 places in a picture, not all on one line")
    labels = keypoints * DOWN
    offsets = np.concatenate([model.identity, model.expression])
    offsets = offsets.reshape(len(offsets), -1, 3)
    weight = np.where(np.arange(68) < _JAW, _JAW_WEIGHT, 1.0)
    inner = np.arange(_JAW, 68)
    shape, at = model.vertices.astype(np.float64), model.landmarks
    # At first without the jaw: where the outline runs depends on the camera.
    rotation, scale, shift = _camera(shape[at[inner]], labels[inner])
    for _ in range(_ROUNDS):
        at = _outlined(model, scale * shape @ rotation[:2].T + shift, rotation)
        seen = np.einsum("knd,ed->nek", offsets[:, at], rotation[:2]).reshape(2 * len(at), -1)
        missing = ((labels - shift) / scale - model.vertices[at] @ rotation[:2].T).reshape(-1)
        weights = _weights(seen, missing, np.repeat(weight, 2), len(model.identity))
        shape = model.shape(*np.split(weights, [len(model.identity)])).astype(np.float64)
        rotation, scale, shift = _camera(shape[at], labels)
    flat = scale * shape @ rotation[:2].T + shift
    at = _outlined(model, flat, rotation)
    error = float(np.linalg.norm(flat[at] - labels, axis=1).mean() / scale)
    return FittedFace(shape, rotation, scale, shift, at, error)


def _outlined(model: FaceModel, flat: Array, rotation: Array) -> Array:
    """(68,) vertices of the landmarks; ``flat`` (V, 2) has y up."""
    across = rotation[:2, 0] * DOWN
    return outlined_landmarks(model, flat * DOWN, across / np.linalg.norm(across))


def _camera(points: Array, seen: Array) -> tuple[Array, float, Array]:
    """Rotation, scale and shift that put (N, 3) points at (N, 2), y up."""
    padded = np.column_stack([points, np.ones(len(points))])
    affine = np.linalg.lstsq(padded, seen, rcond=None)[0][:3].T
    left, singular, right = np.linalg.svd(affine, full_matrices=False)
    x, y = left @ right
    rotation, scale = np.stack([x, y, np.cross(x, y)]), float(singular.mean())
    return rotation, scale, (seen - scale * points @ rotation[:2].T).mean(0)


def _weights(seen: Array, missing: Array, weight: Array, persons: int) -> Array:
    """(K,) weights of the offsets ``seen`` (2N, K) that make up for ``missing`` (2N,); those of expressions,
    which follow ``persons`` others, within [0, 1]."""
    sure = weight / _SCATTER
    a, b = seen * sure[:, None], missing * sure
    count = seen.shape[1]
    expression = np.arange(count) >= persons
    prior = np.diag(np.where(expression, 1 / _EXPRESSION, 1.0) ** 2)
    weights, free = np.zeros(count), np.ones(count, bool)
    while True:  # each round settles one expression at least at the end that it has run over
        rest = b - a[:, ~free] @ weights[~free]
        normal = a[:, free].T @ a[:, free] + prior[np.ix_(free, free)]
        weights[free] = np.linalg.solve(normal, a[:, free].T @ rest)
        over = free & expression & ((weights < 0) | (weights > 1))
        if not over.any():
            return weights
        weights[over] = weights[over].clip(0, 1)
        free &= ~over
