"""Random covers, colours and geometry for training crops. numpy and OpenCV only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_kp.geometry import similarity, transform_points
from edge_kp.types import Array

BEND_CELLS = 5  # of the coarse grid that a bend is drawn on, along each axis
MIRROR = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # u → 1 - u in crop coordinates


@dataclass(frozen=True)
class Augmentation:
    """How far samples are changed. Lengths are shares of the object's box, angles are degrees.

    ``turn``, ``shift`` and ``zoom`` act on stage 1, whose box is uncertain; stage 2 is moved by the
    measured error of stage 1 instead. Without ``moves`` stage 1 sees the box as it is, stage 2 the measured
    error and no more, and nothing is mirrored. ``bend`` is how far a place in the crop moves at most, in its
    sides: objects are bent as if drawn on rubber.
    """

    turn: float = 30.0
    shift: float = 0.12
    zoom: float = 0.14
    cover: float = 0.5
    cover_share: float = 0.40
    colour: float = 0.8
    moves: bool = True
    bend: float = 0.0


def random_transform(rng: np.random.Generator, augmentation: Augmentation, scale: float) -> Array:
    """(2, 3) similarity about the middle of the crop, for a crop ``scale`` times the object's box."""
    # Most objects stand nearly upright: a triangular law keeps large turns rare but present.
    angle = math.radians(augmentation.turn) * rng.triangular(-1, 0, 1)
    zoom = math.exp(rng.uniform(-augmentation.zoom, augmentation.zoom))
    shift = rng.uniform(-augmentation.shift, augmentation.shift, 2) / scale
    return about_middle(angle, zoom, shift)


def about_middle(angle: float, scale: float, shift: Array) -> Array:
    """(2, 3) similarity of crop coordinates that turns and scales about (0.5, 0.5), then shifts."""
    turn = similarity(angle, scale)
    middle = np.array([0.5, 0.5])
    turn[:, 2] = middle + shift - turn[:, :2] @ middle
    return turn


def random_bend(image: Array, points: Array, rng: np.random.Generator, most: float) -> tuple[Array, Array]:
    """Bend a crop smoothly (Simard et al. 2003, elastic distortions; Ronneberger et al. 2015, coarse grids).

    Args:
        image: uint8 (S, S, 3) crop.
        points: (N, 2) crop coordinates; NaN stays NaN.
        most: how far any place moves at most, along each axis, crop coordinates.

    Returns:
        The bent image, and where it shows the points.
    """
    size = len(image)
    cells = rng.uniform(-most, most, (BEND_CELLS, BEND_CELLS, 2)).astype(np.float32)
    shift = cv2.resize(cells, (size, size), interpolation=cv2.INTER_LINEAR)
    shift = cv2.GaussianBlur(shift, (0, 0), size / (3 * BEND_CELLS))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    bent = cv2.remap(
        image,
        x + size * shift[..., 0],
        y + size * shift[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    # What lay at a point shows where place + shift(place) is that point.
    place = points.astype(np.float64)
    for _ in range(8):
        at = (np.nan_to_num(place) * size - 0.5).astype(np.float32)
        moved = cv2.remap(
            shift, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        place = points - moved[0]
    return bent, place


def random_colour(image: Array, rng: np.random.Generator, strength: float) -> Array:
    """Brightness, contrast, gamma, white balance, light gradient, blur, low resolution, noise, grey."""
    if rng.random() < strength:
        ramp = np.linspace(0, 1, 256)[:, None]
        ramp = ramp ** np.exp(rng.normal(0, 0.25))
        ramp = (ramp - 0.5) * np.exp(rng.normal(0, 0.25)) + 0.5 + rng.normal(0, 0.1)
        ramp = ramp * np.exp(rng.normal(0, 0.08, 3))
        image = cv2.LUT(image, np.clip(ramp * 255, 0, 255).astype(np.uint8)[:, None, :])
    if rng.random() < 0.2 * strength:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    size = image.shape[0]
    if rng.random() < 0.2 * strength:
        angle = rng.uniform(0, 2 * math.pi)
        axis = np.linspace(-1, 1, size, dtype=np.float32)
        light = 1 + rng.uniform(0.2, 0.6) * (axis[None] * math.cos(angle) + axis[:, None] * math.sin(angle))
        image = np.clip(image * light[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.2 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8))
    if rng.random() < 0.2 * strength:
        small = int(size * rng.uniform(0.25, 0.7))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    if rng.random() < 0.2 * strength:
        noise = rng.normal(0, rng.uniform(2, 14), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def random_cover(
    image: Array, keypoints: Array, rng: np.random.Generator, share: float, texture: Array | None
) -> tuple[Array, Array]:
    """Put something in front of the object.

    Args:
        image: uint8 (S, S, 3) crop, left as it is.
        keypoints: (N, 2) crop coordinates, the object.
        share: at most about this share of the object's box is covered.
        texture: uint8 image to cover with, e.g. part of another photo; None paints.

    Returns:
        The covered image and (N,) bool: which points lie under the cover.
    """
    size = image.shape[0]
    points = keypoints * size - 0.5
    low, high = np.nanmin(points, 0), np.nanmax(points, 0)
    width, height = np.maximum(high - low, 1)
    area = rng.uniform(0.05, share) * width * height
    stretch = math.exp(rng.uniform(-0.9, 0.9))
    half = np.array([math.sqrt(area * stretch), math.sqrt(area / stretch)]) / 2
    centre = low + rng.uniform(0, 1, 2) * (high - low)
    mask = np.zeros((size, size), np.uint8)
    kind = rng.integers(3)
    angle = rng.uniform(0, 180)
    if kind == 0:
        corners = cv2.boxPoints((tuple(centre), tuple(2 * half), angle))
        cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 255)
    elif kind == 1:
        axes = half * 1.128  # an ellipse of the rectangle's area
        cv2.ellipse(mask, (tuple(centre), tuple(2 * axes), angle), 255, -1)
    else:  # everything beyond a line through the box, as a mask, a hand or the frame's edge would
        direction = rng.uniform(0, 2 * math.pi)
        normal = np.array([math.cos(direction), math.sin(direction)])
        along = points[~np.isnan(points).any(axis=1)] @ normal
        edge = np.quantile(along, 1 - rng.uniform(0.05, share))
        y, x = np.mgrid[0:size, 0:size]
        depth = x * normal[0] + y * normal[1] - edge
        mask[(depth > 0) & (depth < rng.uniform(0.3, 1.0) * size)] = 255
    paint = _paint(size, rng, texture)
    if rng.random() < 0.3:
        soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2.5))[..., None] / 255.0
        covered_image = (image * (1 - soft) + paint * soft).astype(np.uint8)
    else:
        covered_image = np.where(mask[..., None] > 127, paint, image)
    with np.errstate(invalid="ignore"):
        pixel = np.nan_to_num(np.round(points), nan=-1).astype(int)
    inside_crop = ((pixel >= 0) & (pixel < size)).all(1)
    at = np.clip(pixel, 0, size - 1)
    return covered_image, inside_crop & (mask[at[:, 1], at[:, 0]] > 127)


def _paint(size: int, rng: np.random.Generator, texture: Array | None) -> Array:
    """uint8 (size, size, 3) to cover with: a flat colour, blurred noise, or a turned part of ``texture``."""
    kind = rng.integers(3)
    if kind == 0 or (kind == 2 and texture is None):
        flat = np.empty((size, size, 3), np.uint8)
        flat[:] = rng.integers(0, 256, 3)
        return flat
    if kind == 1:
        cells = int(rng.integers(2, 24))
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    assert texture is not None
    height, width = texture.shape[:2]
    turn = similarity(rng.uniform(0, 2 * math.pi), math.exp(rng.uniform(-0.3, 0.9)))
    middle = np.array([width / 2, height / 2])
    turn[:, 2] = size / 2 - transform_points(turn, middle[None])[0] + rng.uniform(-0.2, 0.2, 2) * size
    return cv2.warpAffine(texture, turn, (size, size), borderMode=cv2.BORDER_REFLECT)
