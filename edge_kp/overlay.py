"""Detections drawn onto a frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_kp.arguments import check_image
from edge_kp.pose import axis_points
from edge_kp.schema import KeypointSchema
from edge_kp.types import Array, Detection, HeadPose

Colour = tuple[int, int, int]

# BGR. Boxes and edges take a colour by object id, so that a changed id is seen.
_OBJECTS: tuple[Colour, ...] = (
    (255, 191, 64),
    (240, 130, 200),
    (80, 200, 255),
    (200, 220, 90),
    (150, 150, 255),
    (230, 170, 130),
)
_VISIBLE = np.array([96, 230, 60], np.float64)
_UNSURE = np.array([60, 200, 240], np.float64)
_COVERED: Colour = (70, 70, 240)
_DARK: Colour = (24, 24, 24)
_WHITE: Colour = (245, 245, 245)
_AXES: tuple[Colour, ...] = ((60, 60, 230), (70, 190, 70), (235, 110, 50))
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Positions are given to OpenCV in 1/16 pixel: without that, points tremble on a slowly moving object.
_SHIFT = 4
# Pixels: further outside the picture is as good as this, and OpenCV's fixed point would overflow.
_FAR = 20000.0
_CIRCLE = np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])


def draw_detections(
    image: Array,
    detections: Sequence[Detection],
    schema: KeypointSchema,
    *,
    text: str | None = None,
    in_place: bool = False,
) -> Array:
    """Draw boxes, edges and keypoints; visible points are filled green, covered ones are red rings.

    Args:
        image: (H, W, 3) uint8 BGR, which may be a view, such as a mirrored one; stays as it is unless
            ``in_place``.
        text: a line of status in the upper left corner.

    Returns:
        The drawn image; where ``in_place``, the one that was given.

    Raises:
        ValueError: not such an image, one that cannot be written to in place, or a detection that does not
            fit the schema; nothing is drawn.
    """
    check_image(image)
    if in_place and not image.flags.writeable:
        raise ValueError("image: it is read-only and cannot be drawn on; leave in_place out")
    for detection in detections:
        if len(detection.keypoints) != len(schema):
            raise ValueError(
                f"detection {detection.id}: expected {len(schema)} keypoints, got {len(detection.keypoints)}"
            )
    canvas = image if in_place and _is_plain(image) else image.copy()
    for detection in detections:
        _draw_one(canvas, detection, schema)
    if text:
        size = _text_size(image)
        _put_text(canvas, text, (round(10 * size), round(10 * size)), size, _DARK, _WHITE)
    if in_place and canvas is not image:
        image[:] = canvas
    return image if in_place else canvas


def sheet(tiles: Sequence[Array], columns: int) -> Array:
    """One picture of (H, W, 3) uint8 tiles of one size, in rows of up to ``columns``; black fills the last.

    Args:
        tiles: at least one.
    """
    columns = min(columns, len(tiles))
    filled = [*tiles, *[np.zeros_like(tiles[0])] * (-len(tiles) % columns)]
    return np.vstack([np.hstack(filled[i : i + columns]) for i in range(0, len(filled), columns)])


def _is_plain(image: Array) -> bool:
    """Can OpenCV draw on it? Pixels of a row must lie one after another, and rows from the top down."""
    return image.strides[1:] == (3, 1) and image.strides[0] >= 3 * image.shape[1]


def _draw_one(canvas: Array, detection: Detection, schema: KeypointSchema) -> None:
    colour = _OBJECTS[detection.id % len(_OBJECTS)]
    points = detection.keypoints.astype(np.float64)
    known = [bool(np.isfinite(point).all()) for point in points]
    far = max(canvas.shape[:2]) + _FAR
    fixed = np.rint(np.clip(np.nan_to_num(points), -_FAR, far) * (1 << _SHIFT)).astype(int)
    boxed = bool(np.isfinite(detection.box).all())
    x0, y0, x1, y1 = np.clip(np.nan_to_num(detection.box), -_FAR, far).tolist()
    side = max(x1 - x0, y1 - y0)
    # A point must stay smaller than the gaps between points: scaled by the object, not by the frame.
    radius = float(np.clip(side / 95 * (68 / max(len(schema), 12)) ** 0.5, 1.2, 9.0))
    line = min(max(1, round(side / 420)), 6)

    for a, b in schema.edges:
        if known[a] and known[b]:
            _line(canvas, fixed[a], fixed[b], colour, line)
    if boxed:
        _draw_box(canvas, (x0, y0, x1, y1), colour, line)
    if detection.pose is not None and boxed:
        _draw_axes(canvas, detection.pose, np.array([x0 + x1, y0 + y1]) / 2, side, line)
    for centre, here, visibility in zip(fixed, known, detection.visibility, strict=True):
        if here:
            _draw_point(canvas, centre, radius, float(visibility))
    if boxed:
        size = _text_size(canvas)
        label = f"#{detection.id}  {detection.score:.2f}"
        if (pose := detection.pose) is not None:
            label += f"  {pose.yaw:+.0f} {pose.pitch:+.0f} {pose.roll:+.0f}"
        (_, height), base = cv2.getTextSize(label, _FONT, 0.5 * size, 1)
        _put_text(
            canvas, label, (round(x0), round(y0) - height - base - round(8 * size)), size, colour, _DARK
        )


def _draw_axes(canvas: Array, pose: HeadPose, origin: Array, side: float, line: int) -> None:
    """The axes of a face, out of the middle of its box: red to its left, green to its chin, blue ahead."""
    if not np.isfinite(pose.rotation).all():
        return
    ends = np.rint(axis_points(pose, origin, 0.35 * side) * (1 << _SHIFT)).astype(int)
    start = np.rint(origin * (1 << _SHIFT)).astype(int)
    for end, colour in zip(ends, _AXES, strict=True):
        _line(canvas, start, end, colour, line + 1)


def _line(canvas: Array, a: Array, b: Array, colour: Colour, width: int) -> None:
    cv2.line(canvas, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), colour, width, cv2.LINE_AA, _SHIFT)


def _draw_box(canvas: Array, box: tuple[float, float, float, float], colour: Colour, width: int) -> None:
    x0, y0, x1, y1 = (round(v * (1 << _SHIFT)) for v in box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA, _SHIFT)


def _draw_point(canvas: Array, centre: Array, radius: float, visibility: float) -> None:
    if visibility < 0.5:
        outer = max(radius * 1.3, 2.2)
        cv2.fillPoly(
            canvas, [_disc(centre, outer), _disc(centre, outer * 0.55)], _COVERED, cv2.LINE_AA, _SHIFT
        )
        return
    if radius >= 1.6:  # a dark rim keeps the point readable on bright skin and bone
        cv2.fillConvexPoly(canvas, _disc(centre, radius + 0.8), _DARK, cv2.LINE_AA, _SHIFT)
    sure = min(max((visibility - 0.5) * 2, 0.0), 1.0)
    blue, green, red = (_UNSURE + sure * (_VISIBLE - _UNSURE)).tolist()
    cv2.fillConvexPoly(canvas, _disc(centre, radius), (blue, green, red), cv2.LINE_AA, _SHIFT)


def _disc(centre: Array, radius: float) -> Array:
    """A round outline around a fixed-point centre; cv2.circle makes a diamond of so small a circle."""
    return np.rint(centre + _CIRCLE * (radius * (1 << _SHIFT))).astype(np.int32)


def _text_size(image: Array) -> float:
    """1.0 at 640 x 480, larger on larger frames."""
    return float(np.clip(min(image.shape[:2]) / 480, 0.7, 3.0))


def _put_text(
    canvas: Array, text: str, corner: tuple[int, int], size: float, back: Colour, ink: Colour
) -> None:
    """Text on a plate whose upper left corner is at ``corner``, moved so that it stays inside the frame."""
    height, width = canvas.shape[:2]
    thickness = max(1, round(size))
    (w, h), base = cv2.getTextSize(text, _FONT, 0.5 * size, thickness)
    pad = round(4 * size)
    x = min(max(corner[0], 0), max(width - w - 2 * pad, 0))
    y = min(max(corner[1], 0), max(height - h - base - 2 * pad, 0))
    plate = canvas[y : y + h + base + 2 * pad, x : x + w + 2 * pad]
    plate[:] = cv2.addWeighted(plate, 0.25, np.full_like(plate, back), 0.75, 0)
    cv2.putText(canvas, text, (x + pad, y + pad + h), _FONT, 0.5 * size, ink, thickness, cv2.LINE_AA)
