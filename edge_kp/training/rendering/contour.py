"""Where people put the 68 points on a face in a picture: the jaw line follows the outline that they see."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edge_kp.schema import FACE68
from edge_kp.training.rendering.model import HEAD, FaceModel
from edge_kp.types import Array

_JAW = 17  # landmarks of the jaw line come first

# cm from a jaw landmark of the model to where people put the point on a face seen from the front, for the
# right ear to the chin: outwards, down, back. Medians over 1,000 labelled photos, less what open mouths add;
# the sixth less what a network lay beside the labels that had learnt it.
_JAW_EDGE = np.array([
    (0.5, 0.6, 2.0), (0.4, 0.5, 2.0), (0.5, 0.5, 2.0), (0.6, 0.6, 1.8), (0.6, 0.4, 1.3),
    (0.6, -0.2, 0.9), (0.4, 0.4, 0.5), (0.2, 0.6, 0.5), (0.0, 0.6, 0.4)])  # fmt: skip
# cm from other landmarks, on the right half of the face or in its middle, to where people put the point:
# outwards, down. Means over 619 photos of HELEN's training part, none of its validation, of how far a network
# was off that had learnt the landmarks themselves.
_BESIDE = {17: (0.3, 0.35), 18: (0.2, 0.2), 19: (0.0, 0.1), 20: (0.0, 0.2), 21: (-0.05, 0.4),
           27: (0.0, -0.1), 29: (0.0, 0.15), 30: (0.0, 0.15), 31: (0.15, -0.25), 32: (0.1, -0.1),
           37: (-0.25, -0.1), 38: (-0.1, -0.05), 41: (-0.15, -0.05),
           49: (-0.15, 0.15), 50: (-0.15, 0.15), 51: (0.0, 0.25), 58: (-0.4, 0.1), 59: (-0.15, 0.05),
           61: (-0.45, -0.05), 67: (-0.5, 0.1)}  # fmt: skip
_STEPS = 32  # vertices of a line over the cheek
_REACH = 0.6  # share of the angle to the face's middle by which the outline may move over the cheek
_HEAD_RADIUS = 8.0  # cm, about


def outlined_landmarks(model: FaceModel, points: Array, across: Array) -> Array:
    """Vertices (68,) of the points of ``FACE68`` in a picture: those of the jaw line where people put them.

    People mark the jaw line that they see. Where the head turns the jaw behind the cheek, the outline has
    moved forwards over the skin: of the line of vertices from each point of the jaw forwards, the one that is
    furthest out in the picture is on it ("landmark marching", Zhu et al. 2015, High-Fidelity Pose and
    Expression Normalization for Face Recognition in the Wild). All other points stay on the
    landmarks' vertices, which people's lie beside (:func:`beside_landmarks`).

    Args:
        points: (V, 2 or more) projected vertices, y down.
        across: (2,) direction in the picture from the face's own right to its left.
    """
    side = np.sign(model.vertices[model.landmarks[:_JAW], 0])
    lines = _jaw_lines(model)
    out = side[:, None] * (points[lines, :2] @ across)
    furthest = np.take_along_axis(lines, out.argmax(1)[:, None], axis=1)[:, 0]
    return np.concatenate([furthest, model.landmarks[_JAW:]])


@lru_cache(maxsize=1)
def beside_landmarks() -> Array:
    """(68, 3) cm, face frame: from the vertices of :func:`outlined_landmarks` to where people put the points.

    The makers of a face model and those who label photos mean the same parts of the face, but not the same
    places: how far along the lip, or at which edge of the brow. (Faces are fitted to labels by
    their vertices: what lies beside them stays so in the picture.)
    """
    way = np.zeros((len(FACE68), 3))
    for point, (outwards, down) in _BESIDE.items():
        way[FACE68.flip_index[point]] = outwards, -down, 0
        way[point] = -outwards, -down, 0  # the face's own right is where x is negative
    return way


@lru_cache(maxsize=2)
def _jaw_lines(model: FaceModel) -> Array:
    """(17, M) vertices on the skin from each point of the jaw line forwards at its height, over the cheek.

    The landmarks of the model lie on the cheek's side of the edge that people mark, so lines start at it.
    """
    vertices, jaw, skin = model.vertices, model.landmarks[:_JAW], np.flatnonzero(model.part <= HEAD)
    lines = np.empty((_JAW, _STEPS), np.int64)
    edge = np.concatenate([_JAW_EDGE, _JAW_EDGE[-2::-1]]) * (1, -1, -1)
    edge[:, 0] *= np.sign(vertices[jaw, 0])
    angle = np.arctan2(vertices[:, 0], vertices[:, 2])  # about the head, from the front
    for line, target in zip(lines, vertices[jaw] + edge, strict=True):
        start = skin[((vertices[skin] - target) ** 2).sum(1).argmin()]
        ahead = skin[vertices[skin, 2] >= vertices[start, 2] - 0.3]
        steps = angle[start] * np.linspace(1, 1 - _REACH, _STEPS)
        across = _HEAD_RADIUS * (angle[ahead] - steps[:, None])
        line[:] = ahead[(across**2 + (vertices[ahead, 1] - vertices[start, 1]) ** 2).argmin(1)]
        line[0] = start
    return lines
