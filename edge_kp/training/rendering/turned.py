"""A photo as if the head in it had turned further: the face seen from where no camera stood.

Zhu et al. 2016, *Face Alignment Across Large Poses: A 3D Solution*, section 4 (face profiling): the photo is
laid on a 3D face that was fitted to its labels, the face is turned, and the background is drawn along. Here
the background follows the outline of the head, and what no camera saw is stretched from beside it.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_kp.training.rendering.contour import outlined_landmarks
from edge_kp.training.rendering.fitting import DOWN, FittedFace
from edge_kp.training.rendering.marks import smooth_step
from edge_kp.training.rendering.model import EYE_SOCKETS, HEAD, FaceModel
from edge_kp.training.rendering.raster import rasterise
from edge_kp.training.rendering.scene import PIVOT, place_head, turned_shoulders
from edge_kp.types import Array, HeadPose

_BEHIND = 0.6  # cm that a place may lie behind what the photo shows there and still count as seen
_REACH = 10.0  # cm beyond the outline at which the background stays where it is
_ANGLES = 360  # around the head, at which its outline is measured
_EVEN = 9  # directions to each side that the outline is averaged over
_SOFT = 0.7  # pixels, blur of the head's edge


def turn_head(model: FaceModel, face: FittedFace, image: Array, keypoints: Array, pose: HeadPose) -> tuple[
    Array, Array
]:  # fmt: skip
    """Turn the head in a photo.

    Args:
        face: what :func:`fit_face` found for ``keypoints``.
        image: uint8 BGR (S, S, 3), square.
        keypoints: (68, 2) its labels, pixels.
        pose: by how much to turn, about the axes of the picture.

    Returns:
        The new picture, and its labels (68, 2).
    """
    size = len(image)
    away = (face.shape - PIVOT) @ face.rotation.T
    middle = face.scale * PIVOT @ face.rotation[:2].T + face.shift
    old, new = (
        np.column_stack([(face.scale * p[:, :2] + middle) * DOWN, p[:, 2]]).astype(np.float32)
        for p in (away, place_head(model, away + PIVOT, pose.rotation, turned_shoulders(pose)))
    )
    y, x = np.mgrid[:size, :size].astype(np.float32)
    places = np.stack([x, y], -1)
    triangles = model.triangles[(model.part[model.triangles] != EYE_SOCKETS).all(1)]
    before, after, from_face = _from_face(old, new, triangles, places)
    skin = model.part <= HEAD
    heads = (before, old[skin, :2].mean(0)), (after, new[skin, :2].mean(0))
    from_behind = _from_behind(*heads, places, _REACH * face.scale)
    front, back = (
        cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for x, y in (np.moveaxis(source, 2, 0) for source in (from_face, from_behind))
    )
    share = cv2.GaussianBlur(after.astype(np.float32), (0, 0), _SOFT)[..., None]
    across = (pose.rotation @ face.rotation)[:2, 0] * DOWN
    at = outlined_landmarks(model, new[:, :2], across / np.linalg.norm(across))
    labels = new[at, :2] + (keypoints - old[face.at, :2])
    return (front * share + back * (1 - share)).astype(np.uint8), labels


def _from_face(old: Array, new: Array, triangles: Array, places: Array) -> tuple[Array, Array, Array]:
    """Where the head is, (S, S) bool before and after, and (S, S, 2) float32: what it shows after comes from
    where in the photo, smoothly continued to where it shows what the photo did not."""
    size = len(places)
    pixel, _, _, depth = rasterise(old, triangles, size)
    surface = np.full(size * size, -np.inf, np.float32)
    surface[pixel] = depth
    before = np.isfinite(surface).reshape(size, size)
    nearest = cv2.erode(surface.reshape(size, size), np.ones((3, 3)))

    pixel, triangle, shares, _ = rasterise(new, triangles, size)
    after = np.zeros(size * size, bool)
    after[pixel] = True
    corners = triangles[triangle]
    source = np.einsum("kp,pkc->pc", shares, old[corners])
    column, row = np.clip(np.round(source[:, :2]).astype(int), 0, size - 1).T
    seen = source[:, 2] > nearest[row, column] - _BEHIND
    steps = np.zeros((size * size, 2), np.float32)
    steps[pixel[seen]] = source[seen, :2] - places.reshape(-1, 2)[pixel[seen]]
    known = np.zeros(size * size, bool)
    known[pixel[seen]] = True
    steps = _continued(steps.reshape(size, size, 2), known.reshape(size, size))
    return before, after.reshape(size, size), places + steps


def _continued(values: Array, known: Array) -> Array:
    """(H, W, 2) values, 0 where not ``known`` (H, W), continued there, the smoother the further it is:
    from the picture of half the size (pull-push, Gortler et al. 1996)."""
    if known.all() or not known.any() or min(known.shape) == 1:
        return values
    half = tuple(-(-n // 2) for n in known.shape[::-1])
    share = cv2.resize(known.astype(np.float32), half, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(values, half, interpolation=cv2.INTER_AREA) / np.maximum(share, 1e-3)[..., None]
    coarse = _continued(mean, share > 0)
    return np.where(known[..., None], values, cv2.resize(coarse, known.shape[::-1]))


def _from_behind(old: tuple[Array, Array], new: tuple[Array, Array], places: Array, reach: float) -> Array:
    """(S, S, 2) float32: what lies outside the head comes from as far outside its old outline, in the same
    direction from its middle; from ``reach`` pixels on, from where it is.

    Args:
        old, new: mask (S, S) of the head, and its middle (2,).
    """
    away = places - new[1].astype(np.float32)
    distance = np.maximum(np.linalg.norm(away, axis=-1), 1e-6)
    angle = np.arctan2(away[..., 1], away[..., 0]) % (2 * np.pi) * (_ANGLES / (2 * np.pi))
    first, share = angle.astype(int) % _ANGLES, angle % 1
    edges = (_outline(*head) for head in (old, new))
    before, after = ((1 - share) * e[first] + share * e[(first + 1) % _ANGLES] for e in edges)
    beyond = np.maximum(distance - after, 0)
    there = old[1] + ((before + beyond) / distance)[..., None] * away
    stays = smooth_step(beyond, 0.0, reach)[..., None]
    return np.asarray(there + stays * (places - there), np.float32)


def _outline(mask: Array, middle: Array) -> Array:
    """(_ANGLES,) how far a mask reaches from ``middle`` in each direction, pixels."""
    dy, dx = (np.stack(np.nonzero(mask)) - middle[::-1, None]).astype(np.float64)
    angle = (np.arctan2(dy, dx) % (2 * np.pi) * (_ANGLES / (2 * np.pi))).astype(int) % _ANGLES
    furthest = np.zeros(_ANGLES)
    np.maximum.at(furthest, angle, np.hypot(dx, dy))
    around = np.pad(furthest, _EVEN, mode="wrap")
    return np.convolve(around, np.full(2 * _EVEN + 1, 1 / (2 * _EVEN + 1)), "valid")
