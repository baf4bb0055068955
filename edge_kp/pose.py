"""Head pose: yaw, pitch and roll of a face from its 2D keypoints, without a calibrated camera.

A mean 3D face is fitted to the keypoints under an affine camera, which is linear least squares (POS, the
first step of POSIT, DeMenthon and Davis 1995), and the rotation nearest to that camera is taken. Then the
keypoints are freed from the perspective which a face so turned shows at a usual distance, and fitted once
more (POSIT's second step, with a given distance). ``benchmarks/pose.py`` compares this with methods that ask
more of the 3D face: they do better on its own landmarks, and worse on points as people label them.

What is measured is the face against the line of sight, the ray from the camera to the face: keypoints alone
do not tell how far that ray is from the middle of the picture.

Face frame: cm, right-handed; x towards the face's own left (image right on a frontal face), y up, z out of
the face. Keypoints: frame pixels, y down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_kp.arguments import as_array, as_number
from edge_kp.errors import ModelError
from edge_kp.schema import FACE68, FACE98, KeypointSchema
from edge_kp.types import Array, HeadPose

ASSET = Path(__file__).parent / "assets" / "face68_3d.json"

# cm from the camera to the face unless told otherwise: a webcam's. Of those tried it had the lowest mean
# error on labels like people's: lower than without perspective below 60 cm, by up to 0.4 degrees higher
# above.
DISTANCE = 80.0

# Point of the schema → point of the 3D face. The jaw takes no part: people mark the contour that they see,
# which moves over the skin as the head turns, so no 3D point belongs to it. On their labels it lets the pitch
# come out a third too small.
_SHARED68: Mapping[int, int] = {i: i for i in range(17, 68)}
_SHARED98: Mapping[int, int] = {
    **{33 + i: 17 + i for i in range(5)},  # upper edges of the brows
    **{42 + i: 22 + i for i in range(5)},
    **{51 + i: 27 + i for i in range(9)},  # nose
    **dict(zip((60, 61, 63, 64, 65, 67), range(36, 42), strict=True)),  # eyes, without the lids' middles
    **dict(zip((68, 69, 71, 72, 73, 75), range(42, 48), strict=True)),
    **{76 + i: 48 + i for i in range(20)},  # mouth
}

# cm, thickness that the visible 3D points need: 0.82 of the whole face, 0.40 of half of it, 0.22 of the eyes
# alone. The pose from thinner sets is off by 10 to 20 degrees and more.
_THINNEST = 0.38
# Smallest ratio of the camera's two scales. Those of a face, however noisy, are alike.
_NARROWEST = 1e-3


class PoseModel:
    """Head pose of faces whose 3D points are known; :func:`pose_model` makes the one of a schema.

    Args:
        points: (N, 3) cm, face frame: 3D position of each keypoint; rows with a NaN take no part.
        distance: cm from the camera to the face, for the perspective to expect; ``math.inf``: none.

    Raises:
        ValueError: another shape, points that do not span space, or a camera inside the face.
    """

    def __init__(self, points: Array, distance: float = DISTANCE) -> None:
        points = as_array("points", points, np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"points: expected shape (N, 3), got {points.shape}")
        self._count = len(points)
        self._index = np.flatnonzero(np.isfinite(points).all(axis=1))
        self._points = points[self._index].astype(np.float64)
        self._solver = _affine_solver(self._points, np.ones(len(self._points)))
        reach = float(np.linalg.norm(self._points, axis=1).max())
        if not (distance := as_number("distance", distance)) > reach:
            raise ValueError(f"distance: expected more than the {reach:.1f} cm of the face, got {distance}")
        self._perspective = 1 / distance

    def __call__(self, keypoints: Array, weights: Array | None = None) -> HeadPose:
        """Pose of one face.

        Args:
            keypoints: (N, 2) frame pixels. Those that take no part (jaw, pupils) are not looked at.
            weights: (N,) from 0 up, such as ``Detection.visibility``; all alike when None. Keypoints of
                weight 0 are not looked at and may be NaN.

        Raises:
            ValueError: another shape, a weight that is negative or not finite, a keypoint that is not finite,
                keypoints on one line or in one place, or too few of them with a weight.
        """
        keypoints = as_array("keypoints", keypoints, np.float64)
        if keypoints.shape != (self._count, 2):
            raise ValueError(f"keypoints: expected shape ({self._count}, 2), got {keypoints.shape}")
        index, points, solver = self._index, self._points, self._solver
        if weights is not None:
            weights = as_array("weights", weights, np.float64)
            if weights.shape != (self._count,):
                raise ValueError(f"weights: expected shape ({self._count},), got {weights.shape}")
            parts = weights[index].astype(np.float64)
            if not (np.isfinite(parts).all() and parts.min() >= 0):
                raise ValueError("weights: expected finite numbers from 0 up")
            here = parts > 0
            index, points = index[here], points[here]
            solver = _affine_solver(points, parts[here])
        seen = keypoints[index].astype(np.float64)
        if not np.isfinite(seen).all():
            raise ValueError("keypoints: expected finite numbers")
        seen -= seen[0]  # keypoints in one place become exact zeros
        camera = solver @ seen
        rotation = _nearest_rotation(camera)
        if self._perspective:
            # A point nearer by its depth than the origin of the face is seen as much further away from it.
            seen -= camera[3]
            seen *= 1 - self._perspective * (points @ rotation[2])[:, None]
            rotation = _nearest_rotation(solver @ seen)
        return HeadPose.from_rotation(rotation)


def pose_model(schema: KeypointSchema, distance: float = DISTANCE) -> PoseModel | None:
    """The pose model of a schema with the points of ``face68`` or ``face98``, by their names; else None.

    Args:
        distance: cm from the camera to the face, see :class:`PoseModel`.

    Raises:
        ModelError: the 3D face is missing or damaged.
        ValueError: a camera inside the face.
    """
    for known, shared in ((FACE68, _SHARED68), (FACE98, _SHARED98)):
        if schema.keypoints == known.keypoints:
            points = np.full((len(schema), 3), np.nan)
            points[list(shared)] = load_face68()[list(shared.values())]
            return PoseModel(points, distance)
    return None


def load_face68() -> Array:
    """The mean 3D face, jaw included, in the order of ``face68``: (68, 3) float64, cm, face frame.

    Raises:
        ModelError: the asset is missing or damaged.
    """
    try:
        points = np.array(json.loads(ASSET.read_text(encoding="utf-8"))["points"], np.float64)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{ASSET.name}: {type(error).__name__} {error}; install the package again"
        ) from error
    if points.shape != (68, 3) or not np.isfinite(points).all():
        raise ModelError(f"{ASSET.name}: expected 68 finite 3D points; install the package again")
    return points


def axis_points(pose: HeadPose, origin: Array, length: float) -> Array:
    """Where the axes of a face end in the frame, without perspective.

    Args:
        origin: (2,) frame pixels where the axes start, such as the tip of the nose (``nose_bridge_3``).
        length: of an axis that lies in the image plane, pixels.

    Returns:
        (3, 2) float64 frame pixels: the ends of the axes to the face's own left (image right on a frontal
        face), to its chin, and out of its nose; customarily drawn red, green and blue.
    """
    left, crown, nose = pose.rotation[:2].T * (1.0, -1.0)
    return np.asarray(origin + length * np.array([left, -crown, nose]))


def _affine_solver(points: Array, weights: Array) -> Array:
    """(4, M) float64 that maps M keypoints to the affine camera of (M, 3) points by weighted least squares.

    ``[points, 1] @ (solver @ keypoints)`` are then as near to the keypoints as they can be. The thickness of
    the points is 1 / √trace(scatter⁻¹): their standard deviation where they are thinnest, or a little less.

    Raises:
        ValueError: the points, so weighted, are too few or too flat to tell their depth.
    """
    total = float(weights.sum())
    shares = weights / total if total > 0 else weights
    mean = shares @ points
    spread = points - mean
    pull = (spread * shares[:, None]).T
    scatter = pull @ spread
    a, b, c = scatter.tolist()
    adjoint = (_cross(b, c), _cross(c, a), _cross(a, b))
    determinant = a[0] * adjoint[0][0] + a[1] * adjoint[0][1] + a[2] * adjoint[0][2]
    if not determinant > _THINNEST**2 * (adjoint[0][0] + adjoint[1][1] + adjoint[2][2]):
        raise ValueError("too few keypoints with a weight, or too flat a set of them, to tell a pose")
    solver = np.empty((4, len(points)))
    solver[:3] = (np.array(adjoint) / determinant) @ pull
    solver[3] = shares - mean @ solver[:3]
    return solver


def _nearest_rotation(camera: Array) -> Array:
    """(3, 3) rotation, y up, that is nearest to an affine camera (3 or 4, 2), y down.

    Its first two rows are the polar factor (A Aᵀ)^(-1/2) A of the 2 × 3 camera A, by the closed form of the
    root of a 2 × 2 matrix; in plain numbers, since NumPy's decompositions of so small a matrix take longer.

    Raises:
        ValueError: the keypoints were on one line, in one place or too far apart for floating point.
    """
    (a0, b0), (a1, b1), (a2, b2) = camera[:3].tolist()
    b0, b1, b2 = -b0, -b1, -b2
    aa, ab, bb = a0 * a0 + a1 * a1 + a2 * a2, a0 * b0 + a1 * b1 + a2 * b2, b0 * b0 + b1 * b1 + b2 * b2
    product = math.sqrt(max(aa * bb - ab * ab, 0.0))  # of the camera's two scales
    if not _NARROWEST * (aa + bb) < product < math.inf:
        raise ValueError("keypoints: on one line, in one place or too far apart for floating point")
    scale = 1 / (product * math.sqrt(aa + bb + 2 * product))
    k, m, n = scale * (bb + product), -scale * ab, scale * (aa + product)
    x = (k * a0 + m * b0, k * a1 + m * b1, k * a2 + m * b2)
    y = (m * a0 + n * b0, m * a1 + n * b1, m * a2 + n * b2)
    return np.array([x, y, _cross(x, y)])


def _cross(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
