"""Similarity transforms and crops: from frame pixels to crop coordinates and exactly back.

Frames: pixel (0, 0) has its centre at (0, 0). Crop coordinates are in [0, 1] with ``u = (x + 0.5) / size``.
Every transform is a (2, 3) float64 matrix acting on column vectors ``[x, y, 1]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from edge_kp.types import Array


def transform_points(matrix: Array, points: Array) -> Array:
    """Apply a (2, 3) transform to (..., 2) points."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def similarity(angle: float, scale: float, shift: Iterable[float] = (0.0, 0.0)) -> Array:
    """(2, 3) matrix that scales, turns by ``angle`` radians (x towards y), then shifts."""
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    tx, ty = shift
    return np.array([[a, -b, tx], [b, a, ty]], np.float64)


def decompose_similarity(matrix: Array) -> tuple[float, float, float, float]:
    """Inverse of :func:`similarity`: ``(angle rad, scale, shift x, shift y)``."""
    a, b = float(matrix[0, 0]), float(matrix[1, 0])
    return math.atan2(b, a), math.hypot(a, b), float(matrix[0, 2]), float(matrix[1, 2])


def invert(matrix: Array) -> Array:
    """Inverse of a (2, 3) affine transform.

    Raises:
        ValueError: the transform is singular.
    """
    (a, b, x), (c, d, y) = matrix.tolist()
    determinant = a * d - b * c
    if not math.isfinite(determinant) or determinant == 0:
        raise ValueError("singular transform has no inverse")
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    return np.array([[a, b, -a * x - b * y], [c, d, -c * x - d * y]])


def compose(second: Array, first: Array) -> Array:
    """The (2, 3) transform that applies ``first``, then ``second``."""
    return np.column_stack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]])


def estimate_similarity(source: Array, target: Array, weights: Array | None = None) -> Array:
    """Least-squares similarity that takes ``source`` (N, 2) onto ``target`` (N, 2), without reflection.

    Closed form in the plane: with points as complex numbers the turn and scale are one complex factor
    (Umeyama 1991, equations 40 to 42, restricted to two dimensions).

    Args:
        weights: (N,) non-negative weights of the points; equal when None.

    Raises:
        ValueError: shapes differ, or the weighted source points coincide.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise ValueError(f"expected two (N, 2) arrays, got {source.shape} and {target.shape}")
    s = source[:, 0].astype(np.float64) + 1j * source[:, 1]
    t = target[:, 0].astype(np.float64) + 1j * target[:, 1]
    w = np.full(len(s), 1 / len(s)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    s_mean, t_mean = w @ s, w @ t
    s, t = s - s_mean, t - t_mean
    power = float(w @ (s.real**2 + s.imag**2))
    if not power > 0:
        raise ValueError("source points coincide: no similarity can be estimated")
    factor = (w @ (s.conj() * t)) / power
    shift = t_mean - factor * s_mean
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


class ShapeAlignment:
    """:func:`estimate_similarity` from and to one shape, quick enough for every frame of a video.

    Points are complex numbers here, x + iy: a similarity is one product and one sum.

    Args:
        shape: (N, 2) the shape in its own coordinates.
    """

    def __init__(self, shape: Array) -> None:
        points = as_complex(shape)
        self._mean = points.mean()
        self._centred = points - self._mean
        self._power = float(np.vdot(self._centred, self._centred).real)

    def from_shape(self, points: Array) -> tuple[complex, complex]:
        """Factor and shift of the similarity that takes the shape nearest to (N,) complex points."""
        factor = complex(np.vdot(self._centred, points)) / self._power
        return factor, complex(points.sum()) / len(points) - factor * self._mean

    def to_shape(self, keypoints: Array) -> Array:
        """(2, 3) similarity that takes (N, 2) keypoints nearest to the shape.

        Raises:
            ValueError: the keypoints coincide or are not finite.
        """
        points = as_complex(keypoints)
        mean = complex(points.sum()) / len(points)
        points = points - mean
        power = float(np.vdot(points, points).real)
        if not (1e-9 * abs(mean)) ** 2 * len(points) < power < math.inf:
            raise ValueError("source points coincide or are not finite: no similarity can be estimated")
        factor = complex(np.vdot(points, self._centred)) / power
        shift = self._mean - factor * mean
        return np.array(
            [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]], np.float64
        )

    def distance(self, first: Array, second: Array) -> float:
        """By how much two similarities (2, 3) to the shape's frame part its points, root mean square."""
        (a, _, x), (b, _, y) = first.tolist()
        (c, _, u), (d, _, v) = second.tolist()
        factor = complex(c, d) / complex(a, b)  # what leads from the first to the second is one as well
        shift = complex(u, v) - factor * complex(x, y)
        grow, count = factor - 1, len(self._centred)
        return math.sqrt(abs(grow * self._mean + shift) ** 2 + abs(grow) ** 2 * self._power / count)


def as_complex(points: Array) -> Array:
    """(N, 2) → (N,) complex128, x + iy."""
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]


def from_complex(points: Array) -> Array:
    """Inverse of :func:`as_complex`; a view."""
    return points.view(np.float64).reshape(-1, 2)


def tight_box(keypoints: Array) -> Array:
    """(4,) float32 ``[x0, y0, x1, y1]`` around the (N, 2) points that are not NaN.

    Raises:
        ValueError: every point is NaN.
    """
    columns = np.ascontiguousarray(keypoints.T)  # rows of two numbers each take NumPy three times as long
    box = np.concatenate([columns.min(1), columns.max(1)]).astype(np.float32)
    if not math.isnan(box.sum()):
        return box
    known = keypoints[~np.isnan(keypoints).any(axis=1)]
    if not len(known):
        raise ValueError("no labelled keypoint to put a box around")
    return np.concatenate([known.min(0), known.max(0)]).astype(np.float32)


def jitter_box(box: Array, rng: np.random.Generator, amount: float = 0.1) -> Array:
    """A box shifted by up to ``±amount`` of its sides and rescaled by up to ``±amount``; (4,) float32."""
    x0, y0, x1, y1 = (float(v) for v in box)
    w, h = x1 - x0, y1 - y0
    dx, dy, ds = rng.uniform(-amount, amount, 3)
    cx, cy, k = (x0 + x1) / 2 + dx * w, (y0 + y1) / 2 + dy * h, (1 + ds) / 2
    return np.array([cx - w * k, cy - h * k, cx + w * k, cy + h * k], np.float32)


def box_area(box: Array) -> float:
    """Of a (4,) box; 0 where it is empty."""
    x0, y0, x1, y1 = box.tolist()
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)


def widened_box(box: Array) -> Array:
    """A (4,) box with sides of at least a pixel, its middle kept: points in a row have a box without area."""
    middle, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 0.5)
    return np.concatenate([middle - half, middle + half])


THINNEST = 0.1  # of a box's longer side


def solid_boxes(boxes: Array) -> Array:
    """(M, 4) float64 boxes none of which is thinner than :data:`THINNEST`, their middles kept.

    What thin boxes share says little of whether they show one object, and boxes of points in a row, which are
    lines, share nothing.
    """
    boxes = np.asarray(boxes, np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    more = np.maximum(THINNEST * size.max(1, keepdims=True) - size, 0) / 2
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)


def box_iou(a: Array, b: Array) -> float:
    """Intersection over union of two (4,) boxes, made solid first; 0 where both are points."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = solid_box(a), solid_box(b)
    overlap = max(min(ax1, bx1) - max(ax0, bx0), 0.0) * max(min(ay1, by1) - max(ay0, by0), 0.0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap
    return overlap / union if union > 0 else 0.0


def solid_box(box: Array) -> tuple[float, float, float, float]:
    """:func:`solid_boxes` of one, ``x0, y0, x1, y1``, in a tenth of the time."""
    x0, y0, x1, y1 = (float(v) for v in box)
    w, h = x1 - x0, y1 - y0
    if w < THINNEST * h:
        more = (THINNEST * h - w) / 2
        return x0 - more, y0, x1 + more, y1
    if h < THINNEST * w:
        more = (THINNEST * w - h) / 2
        return x0, y0 - more, x1, y1 + more
    return x0, y0, x1, y1


_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_LARGEST = 2**15 - 2  # longest side of an image that OpenCV warps


@dataclass(frozen=True, eq=False)
class Crop:
    """A square view of a frame.

    Attributes:
        matrix: (2, 3) float64, frame pixels → crop coordinates in [0, 1].
        size: side of the crop image in pixels.
    """

    matrix: Array
    size: int

    def to_crop(self, points: Array) -> Array:
        """Frame pixels (..., 2) → crop coordinates."""
        return transform_points(self.matrix, points)

    def to_frame(self, points: Array) -> Array:
        """Crop coordinates (..., 2) → frame pixels; exact inverse of :meth:`to_crop`."""
        return transform_points(self._inverse, points)

    @cached_property
    def _inverse(self) -> Array:
        return invert(self.matrix)

    def extract(self, image: Array, border: int = cv2.BORDER_CONSTANT) -> Array:
        """The crop's image: uint8 (size, size, 3), bilinear; black outside the frame.

        Where the frame shrinks to less than half, the part under the crop is first halved, as often as
        needed, by averaging blocks of pixels, so that detail does not alias.
        """
        to_pixels = self.matrix * self.size
        to_pixels[:, 2] -= 0.5
        a, b, c, d = to_pixels[:, :2].ravel().tolist()
        scale = math.sqrt(abs(a * d - b * c))
        block = 1 << int(math.log2(1 / scale) + 1e-9) if 0 < scale <= 0.5 else 1
        height, width = image.shape[:2]
        if block > 1 or max(height, width) > _LARGEST:
            corners = self.to_frame(_CORNERS)
            (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
            x0, x1 = _inside(math.floor(x0) - block, math.ceil(x1) + block + 1, width)
            y0, y1 = _inside(math.floor(y0) - block, math.ceil(y1) + block + 1, height)
            bx, by = min(block, x1 - x0), min(block, y1 - y0)  # a frame may be thinner than a block
            w, h = (x1 - x0) // bx, (y1 - y0) // by
            image = _block_means(image[y0 : y0 + h * by, x0 : x0 + w * bx], bx, by)
            # A small pixel's centre lies at block * x + (block - 1) / 2 of the part.
            to_part = np.array([[bx, 0, x0 + (bx - 1) / 2], [0, by, y0 + (by - 1) / 2]])
            to_pixels = compose(to_pixels, to_part)
        # Given where to write, OpenCV need not ask Python, and its other threads, for memory in between.
        crop = np.empty((self.size, self.size, *image.shape[2:]), image.dtype)
        return cv2.warpAffine(
            image, to_pixels, (self.size, self.size), crop, flags=cv2.INTER_LINEAR, borderMode=border
        )


def _block_means(image: Array, x: int, y: int) -> Array:
    """Means of blocks of x × y pixels, which fill the image. Halved again and again where that is possible:
    for that OpenCV has code that takes a third of the time.
    """
    while x > 1 or y > 1:
        by_x, by_y = (n if n % 2 else 2 for n in (x, y))
        height, width = image.shape[:2]
        image = cv2.resize(image, (width // by_x, height // by_y), interpolation=cv2.INTER_AREA)
        x, y = x // by_x, y // by_y
    return image


def _inside(low: int, high: int, length: int) -> tuple[int, int]:
    """The part of ``low`` to ``high`` that lies within 0 to ``length``, or the pixel nearest to it."""
    low = min(max(low, 0), length - 1)
    return low, min(max(high, low + 1), length)


def quarter_turns(matrix: Array) -> int:
    """By how many quarter turns, 0 to 3, a similarity (2, 3) turns x towards y, to the nearest."""
    return round(decompose_similarity(matrix)[0] / (math.pi / 2)) % 4


def square_crop(box: Array, size: int, scale: float, angle: float = 0.0) -> Crop:
    """Upright (or turned by ``angle`` radians) square around a box, ``scale`` times its longer side.

    Raises:
        ValueError: the box is a point, inverted or not finite; a line may be the box of points in a row.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    side = max(x1 - x0, y1 - y0) * scale
    if not math.isfinite(side + x0 + y0 + x1 + y1) or x1 < x0 or y1 < y0 or side <= 0:
        raise ValueError(
            f"expected a box [x0, y0, x1, y1] with x1 > x0 or y1 > y0, none less, got {[x0, y0, x1, y1]}"
        )
    turn = similarity(angle, 1 / side)
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return Crop(np.column_stack([turn[:, :2], 0.5 - turn[:, :2] @ centre]), size)


def aligned_crop(keypoints: Array, mean_shape: Array, size: int) -> Crop:
    """The crop in which ``keypoints`` (N, 2, frame pixels) fall as near as they can on ``mean_shape``.

    Args:
        mean_shape: (N, 2) canonical shape in crop coordinates.

    Raises:
        ValueError: the keypoints coincide.
    """
    return Crop(estimate_similarity(keypoints, mean_shape), size)
