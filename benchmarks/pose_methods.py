"""The methods that ``benchmarks.pose`` compares: keypoints of faces in, rotations out."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.pose_faces import FRAME, INNER, FaceModel, to_line_of_sight
from edge_kp.pose import PoseModel, load_face68, pose_model
from edge_kp.schema import FACE68
from edge_kp.types import Array

RIGID = np.array([*range(27, 36), 36, 39, 42, 45])  # nose and corners of the eyes

Method = Callable[[Array], Array]


def only(indices: Array) -> Array:
    """(68, 3) points of the shipped face, NaN but for ``indices``."""
    points = np.full((68, 3), np.nan)
    points[indices] = load_face68()[indices]
    return points


def each(model: PoseModel) -> Method:
    return lambda keypoints: np.stack([model(face).rotation for face in keypoints])


def affine(keypoints: Array, solver: Array) -> tuple[Array, Array]:
    """Rotations (n, 3, 3) and scales (n,) nearest to the affine cameras that a (3, M) solver finds; y up."""
    cameras = (solver @ keypoints).transpose(0, 2, 1) * np.array([[1.0], [-1.0]])
    u, s, vt = np.linalg.svd(cameras, full_matrices=False)
    rows = u @ vt
    return np.concatenate([rows, np.cross(rows[:, :1], rows[:, 1:])], 1), s.mean(1)


def refined(keypoints: Array, points: Array, turns: Array, scales: Array, steps: int) -> tuple[Array, Array]:
    """Gauss-Newton steps of rotation and scale on the squared distances in the image, weak perspective."""
    seen = (keypoints - keypoints.mean(1, keepdims=True)) * (1, -1)
    points = points - points.mean(0)
    for _ in range(steps):
        turned = points @ turns.transpose(0, 2, 1) * scales[:, None, None]
        x, y, z = np.moveaxis(turned, -1, 0)
        zero = np.zeros_like(x)
        # Columns: growth, turns about the image's x, y and z.
        jacobian = np.stack([[x, zero, z, -y], [y, -z, zero, x]]).transpose(2, 0, 3, 1).reshape(len(x), -1, 4)
        residual = (seen - turned[..., :2]).transpose(0, 2, 1).reshape(len(x), -1, 1)
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        normal += 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(4)
        step = np.linalg.solve(normal, jacobian.transpose(0, 2, 1) @ residual)[..., 0]
        scales = scales * np.exp(np.clip(step[:, 0], -0.5, 0.5))
        turns = np.stack([cv2.Rodrigues(np.clip(w, -0.5, 0.5))[0] for w in step[:, 1:]]) @ turns
    return turns, scales


def least_squares(keypoints: Array) -> Array:
    """The rotation, not the affine camera, that fits best."""
    points = load_face68()[INNER]
    solver = np.linalg.pinv(np.column_stack([points, np.ones(len(points))]))[:3]
    seen = keypoints[:, INNER]
    return refined(seen, points, *affine(seen, solver), steps=5)[0]


def covariance(model: FaceModel, distance: float) -> Method:
    """The shipped method with generalised least squares: how the model's landmarks vary together counts."""
    rng = np.random.default_rng(99)  # not the faces that are measured
    offsets = (model.shapes(20000, rng) - model.mean)[:, INNER]
    scatter = np.einsum("npi,nqi->pq", offsets, offsets) / offsets[..., 0].size * len(INNER) / 3
    weight = np.linalg.inv(scatter + 0.13**2 * np.eye(len(INNER)))  # 1.5 % of the eye distance
    points = load_face68()[INNER]
    design = np.column_stack([points, np.ones(len(points))])
    solver = np.linalg.solve(design.T @ weight @ design, design.T @ weight)

    def method(keypoints: Array) -> Array:
        seen = keypoints[:, INNER]
        turns, _ = affine(seen, solver[:3])
        depth = points @ turns[:, 2, :, None]
        flat = (seen - solver[3:] @ seen) * (1 - depth / distance)
        return affine(flat, solver[:3])[0]

    return method


def solve_pnp(keypoints: Array) -> Array:
    """OpenCV's perspective solvers and a guessed camera, its focal length the frame's width.

    The only method here that knows where in the frame the face is.
    """
    width, height = FRAME
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    flip = np.diag([1.0, -1.0, -1.0])  # OpenCV: y down, z into the scene
    points = load_face68()[INNER] @ flip
    turns, centres = [], []
    for face in np.ascontiguousarray(keypoints[:, INNER]):
        _, vector, shift = cv2.solvePnP(points, face, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        _, vector, shift = cv2.solvePnP(points, face, camera, None, vector, shift, True)
        turns.append(flip @ cv2.Rodrigues(vector)[0] @ flip)
        centres.append(flip @ shift[:, 0])
    return to_line_of_sight(np.stack(turns), np.stack(centres))


def methods(model: FaceModel) -> dict[str, Method]:
    shipped = pose_model(FACE68)
    assert shipped is not None
    return {
        "shipped": each(shipped),
        "no perspective": each(PoseModel(only(INNER), np.inf)),
        "distance 50 cm": each(PoseModel(only(INNER), 50.0)),
        "distance 120 cm": each(PoseModel(only(INNER), 120.0)),
        "with the jaw": each(PoseModel(load_face68())),
        "nose and eye corners": each(PoseModel(only(RIGID))),
        "rotation by Gauss-Newton": least_squares,
        "shape covariance": covariance(model, 80.0),
        "solvePnP": solve_pnp,
    }
