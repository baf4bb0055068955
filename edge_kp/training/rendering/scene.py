"""A face in place before the camera: person, expression, direction, what it wears, and the labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge_kp.geometry import tight_box
from edge_kp.training.rendering.contour import beside_landmarks, outlined_landmarks
from edge_kp.training.rendering.marks import smooth_step
from edge_kp.training.rendering.model import FaceModel
from edge_kp.training.rendering.raster import hidden_points
from edge_kp.training.rendering.worn import Worn, random_worn, sheet_triangles
from edge_kp.types import Array, HeadPose

SIZE = 192  # side of every picture, pixels
PIVOT = np.array([0.0, 0.0, 2.0])  # cm, face frame: the head turns about it, and the camera looks there

_BOX = (88.0, 122.0)  # longer side of the landmarks' box, pixels: labels may move, and pictures stay
_OFF = 9.0  # furthest that the box's middle lies from the picture's, pixels, either way
_DARK = 0.7  # tint from which on lenses hide the eyes

# Chance that an expression takes part; others 0.07. A lone mouthClose pushes the lips through one another.
_EXPRESSED = {"jawOpen": 0.4, "mouthSmile": 0.4, "eyeBlink": 0.25, "browInnerUp": 0.2, "browDown": 0.15,
              "eyeSquint": 0.15, "browOuterUp": 0.15, "mouthClose": 0.0}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scene:
    """A face in place, before it is coloured.

    Axes of the image: cm from the head's middle, x right, y up, z towards the viewer. Projected points are
    (x, y, depth): frame pixels, y down, and cm towards the viewer.

    Attributes:
        pose: direction of the head; body: (3, 3) rotation of the shoulders.
        distance: cm from the camera to the head; scale, shift (2,): cm at that distance → frame pixels.
        shape: (V, 3) cm, face frame, the person with the expression.
        keypoints: (68, 2) float32, frame pixels.
        visible: (68,) float32: 0 under worn things, else 1, also where the head itself hides the point.
    """

    pose: HeadPose
    body: Array
    distance: float
    scale: float
    shift: Array
    shape: Array
    worn: Worn
    keypoints: Array
    visible: Array

    def placed(self, model: FaceModel, shape: Array) -> Array:
        """(V, 3) cm, axes of the image: vertices of the face frame turned, the shoulders less far."""
        return place_head(model, shape, self.pose.rotation, self.body)

    def attached(self, points: Array) -> Array:
        """(..., 3) cm, axes of the image: what is fixed to the head."""
        return np.asarray((points - PIVOT) @ self.pose.rotation.T)

    def project(self, placed: Array) -> Array:
        """(V, 3) float32 projected points of places in the axes of the image."""
        flat = self.scale * _perspective(placed, self.distance) + self.shift
        return np.column_stack([flat, placed[:, 2]]).astype(np.float32)


def random_scene(model: FaceModel, rng: np.random.Generator, worn_rng: np.random.Generator) -> Scene:
    """Draw lots for the person, the expression, the direction and the camera; place the labels.

    Args:
        rng: for all but what the head wears.
        worn_rng: for what the head wears.
    """
    identity = np.clip(rng.normal(0, 1, len(model.identity)), -2.5, 2.5)
    shape = model.shape(identity, random_expression(model.expression_names, rng))
    pose = random_pose(rng)
    body = turned_shoulders(pose)
    distance = float(np.exp(rng.uniform(np.log(40), np.log(300))))
    placed = place_head(model, shape, pose.rotation, body)
    landmarks, at, depth = _labelled(model, placed, distance, pose)
    scale, shift = _framed(landmarks, rng)
    scene = Scene(
        pose=pose,
        body=body,
        distance=distance,
        scale=scale,
        shift=shift,
        shape=shape,
        worn=random_worn(shape[model.landmarks], worn_rng),
        keypoints=(scale * at + shift).astype(np.float32),
        visible=np.ones(len(at), np.float32),
    )
    return replace(scene, visible=1 - _covered(scene, depth).astype(np.float32))


def random_expression(names: tuple[str, ...], rng: np.random.Generator) -> Array:
    """(E,) weights from 0 to 1: none on 30 % of the faces, else a few; halves of a pair mostly alike."""
    weights = np.zeros(len(names))
    if rng.random() < 0.3:
        return weights
    bases = [name.removesuffix("_L").removesuffix("_R") for name in names]
    strength: dict[str, float] = {}
    for base in dict.fromkeys(bases):
        takes_part = rng.random() < _EXPRESSED.get(base, 0.07)
        strength[base] = rng.beta(1.1, 1.3) if takes_part else 0.0
    if strength.get("mouthSmile", 0) > 0.3 and rng.random() < 0.6:  # a smile that shows the teeth
        strength |= {base: rng.uniform(0.2, 0.7) for base in ("mouthUpperUp", "mouthLowerDown")}
    for i, (name, base) in enumerate(zip(names, bases, strict=True)):
        uneven = rng.uniform(0, 1) if rng.random() < 0.1 else rng.uniform(0.85, 1)
        weights[i] = strength[base] * (uneven if base != name else 1)
    return weights


def random_pose(rng: np.random.Generator) -> HeadPose:
    """Mostly towards the camera, at times up to ±80° of yaw, ±35° of pitch, ±25° of roll."""
    kind = rng.random()
    yaw = rng.normal(0, 12 if kind < 0.4 else 32) if kind < 0.8 else rng.uniform(-80, 80)
    pitch = rng.normal(0, 9 if rng.random() < 0.7 else 20)
    limits = np.array([80, 35, 25])
    return HeadPose(*np.clip([yaw, pitch, rng.normal(0, 9)], -limits, limits).tolist())


def turned_shoulders(pose: HeadPose) -> Array:
    """(3, 3) rotation of the shoulders under a head: they follow it some way."""
    return HeadPose(0.4 * pose.yaw, 0.15 * pose.pitch, 0.25 * pose.roll).rotation


def place_head(model: FaceModel, shape: Array, rotation: Array, body: Array) -> Array:
    """(V, 3) cm from :data:`PIVOT`: vertices (V, 3) turned, by ``rotation`` the head, by ``body`` what is far
    below it, the shoulders."""
    share = smooth_step(model.vertices[:, 1], -13.0, -8.0)[:, None]
    away = shape - PIVOT
    return np.asarray(share * (away @ rotation.T) + (1 - share) * (away @ body.T))


def _perspective(placed: Array, distance: float) -> Array:
    """(V, 2): x right and y down in cm at the head's distance, of places in the axes of the image."""
    nearer = distance / (distance - placed[:, 2:])
    return np.asarray(placed[:, :2] * nearer * (1, -1))


def _labelled(model: FaceModel, placed: Array, distance: float, pose: HeadPose) -> tuple[Array, Array, Array]:
    """(68, 2) cm at the head's distance, y down: the model's landmarks, and where people put the 68 points;
    and (68,) cm, depth of the latter."""
    flat, (right, up) = _perspective(placed, distance), pose.rotation[:2, 1]
    chosen = outlined_landmarks(model, flat, np.array([up, right]))
    labelled = placed[chosen] + beside_landmarks() @ pose.rotation.T
    return flat[chosen], _perspective(labelled, distance), labelled[:, 2]


def _framed(at: Array, rng: np.random.Generator) -> tuple[float, Array]:
    """Draw lots for scale, pixels per cm, and shift (2,), pixels, that bring points (68, 2) cm into view."""
    x0, y0, x1, y1 = tight_box(at).tolist()
    scale = rng.uniform(*_BOX) / max(x1 - x0, y1 - y0)
    middle = (SIZE - 1) / 2 + rng.uniform(-_OFF, _OFF, 2)
    return scale, middle - scale * np.array([(x0 + x1) / 2, (y0 + y1) / 2])


def _covered(scene: Scene, depth: Array) -> Array:
    """(68,) bool: does something worn lie before the keypoints, (68,) cm deep?"""
    at = np.column_stack([scene.keypoints, depth])
    covered = np.zeros(len(at), bool)
    for _, sheet in scene.worn.sheets:
        points = scene.project(scene.attached(sheet.reshape(-1, 3)))
        covered |= hidden_points(at, points, sheet_triangles(*sheet.shape[:2]))
    if scene.worn.glasses is not None and scene.worn.tint > _DARK:
        for rim in scene.worn.glasses:
            outline = scene.project(scene.attached(rim))
            flat = np.ascontiguousarray(outline[:, :2])
            for i in np.flatnonzero(depth < outline[:, 2].max()).tolist():
                x, y = scene.keypoints[i].tolist()
                covered[i] |= cv2.pointPolygonTest(flat, (x, y), False) > 0
    return covered
