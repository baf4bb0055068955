"""Steady keypoints: filters of an object's place and of its shape, and a guess at where it goes.

What trembles is mostly the shape, what moves is mostly the place. So keypoints are taken apart into a
similarity (where the canonical shape lies in the frame) and the shape in canonical coordinates. The shape
passes one-euro filters (Casiez, Roussel and Vogel, CHI 2012): a low pass whose cut-off rises with speed. The
place passes an alpha-beta filter with such a cut-off, which starts from where the velocity leads, so that
steady motion does not make it lag; beta follows from alpha (Benedict and Bordner 1962).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_kp.arguments import as_array, as_seconds
from edge_kp.geometry import ShapeAlignment, as_complex, from_complex
from edge_kp.types import Array

Place = tuple[complex, complex]  # factor and shift: shape * factor + shift are frame pixels
SHORTEST_S = 1e-9  # between two frames; shorter times, and pixels so far away, lead beyond floating point
FARTHEST = 1e100
COVERED = 0.25  # share of the cut-off that is left for a point that is surely covered


@dataclass(frozen=True)
class Strength:
    """Of both filters; frequencies in Hz, speeds in sides of the aligned crop per second.

    Attributes:
        place: cut-off of the place at rest.
        place_speed: by how many Hz it rises per unit of speed.
        place_error: and per unit of the speed by which the last guess was wrong.
        shape, shape_speed: the same of a point's place in the shape.
        derivative: cut-off of the shape's speed itself.
    """

    place: float
    shape: float
    shape_speed: float
    place_error: float
    place_speed: float = 5.0
    derivative: float = 3.0


STRENGTHS: dict[str, Strength] = {
    "light": Strength(place=2.0, place_error=200.0, shape=0.5, shape_speed=40.0),
    "strong": Strength(place=1.0, place_error=100.0, shape=0.3, shape_speed=10.0),
}
SMOOTHING = ("off", *STRENGTHS)
"""How much keypoints can be steadied."""


class KeypointFilter:
    """Filters the keypoints of one object, and predicts them.

    Args:
        mean_shape: (N, 2) canonical shape.
        smooth: ``off`` (keypoints pass as they are; they are still predicted), ``light`` or ``strong``.

    Raises:
        ValueError: another strength, or a shape of another form.
    """

    def __init__(self, mean_shape: Array, smooth: str) -> None:
        if smooth not in SMOOTHING:
            raise ValueError(f"smooth: expected one of {', '.join(SMOOTHING)}, got {smooth!r}")
        mean_shape = as_array("mean_shape", mean_shape, np.float64)
        if mean_shape.ndim != 2 or mean_shape.shape[1] != 2 or not np.isfinite(mean_shape).all():
            raise ValueError(f"mean_shape: expected finite numbers (N, 2), got shape {mean_shape.shape}")
        self._passes = smooth == "off"
        self._strength = STRENGTHS["light" if self._passes else smooth]
        self._alignment = ShapeAlignment(mean_shape - 0.5)
        # Complex numbers, x + iy. The shift of the place is where the middle of the canonical crop lies, so
        # that turning does not move it.
        self._place: Place | None = None
        self._velocity: Place = 0j, 0j
        self._shape = as_complex(mean_shape)
        self._shape_speed = np.zeros_like(self._shape)

    def predict(self, dt: float) -> Array:
        """(N, 2) keypoints expected ``dt`` seconds after the last ones, frame pixels.

        Raises:
            ValueError: before the first keypoints, or ``dt`` is not finite or less than 0.
        """
        dt = as_seconds("dt", dt)
        if self._place is None:
            raise ValueError("nothing to predict from: give keypoints to update first")
        factor, shift = _add(self._place, self._velocity, dt)
        return from_complex(self._shape * factor + shift)

    def update(self, keypoints: Array, visibility: Array, dt: float) -> Array:
        """Filter the keypoints of the next frame.

        Args:
            keypoints: (N, 2), frame pixels.
            visibility: (N,) in [0, 1]; what is covered is guessed, and so filtered more.
            dt: seconds since the last frame, from :data:`SHORTEST_S` up.

        Returns:
            (N, 2) float32, frame pixels.

        Raises:
            ValueError: an argument of another form, or keypoints that coincide; nothing has changed.
        """
        s, count = self._strength, len(self._shape)
        keypoints = as_array("keypoints", keypoints, np.float64)
        visibility = as_array("visibility", visibility, np.float64)
        if keypoints.shape != (count, 2):
            raise ValueError(f"keypoints: expected shape ({count}, 2), got {keypoints.shape}")
        # What a network calls 0 or 1 may be a little beyond; NaN is nowhere.
        if visibility.shape != (count,) or not (np.abs(visibility - 0.5) < 0.51).all():
            raise ValueError(f"visibility: expected ({count},) numbers from 0 to 1")
        if not (dt := as_seconds("dt", dt)) >= SHORTEST_S:
            raise ValueError(f"dt: expected {SHORTEST_S:g} seconds or more, got {dt}")
        points = as_complex(keypoints)
        factor, shift = self._alignment.from_shape(points)
        unit = abs(factor)  # side of the aligned crop, frame pixels
        largest = float(np.abs(points).max())
        if not (1e-9 * largest < unit and largest < FARTHEST):
            raise ValueError("keypoints coincide or are not finite")
        shape = (points - shift) / factor
        if self._place is None:
            self._place, self._shape = (factor, shift), shape
            return keypoints.astype(np.float32)
        expected = _add(self._place, self._velocity, dt)
        error = factor - expected[0], shift - expected[1]
        speed = max(map(abs, self._velocity)) / unit
        wrong = max(map(abs, error)) / (unit * dt)
        alpha = _alpha(s.place + s.place_speed * speed + s.place_error * wrong, dt)
        self._place = factor, shift = _add(expected, error, alpha)
        self._velocity = _add(self._velocity, error, alpha * alpha / (2 - alpha) / dt)

        change = shape - self._shape
        self._shape_speed += _alpha(s.derivative, dt) * (change / dt - self._shape_speed)
        cutoff = s.shape + s.shape_speed * np.abs(self._shape_speed)
        cutoff *= COVERED + (1 - COVERED) * visibility
        self._shape = self._shape + change / (1 + 1 / (2 * math.pi * dt * cutoff))
        if self._passes:
            return keypoints.astype(np.float32)
        return from_complex(self._shape * factor + shift).astype(np.float32)


def _add(place: Place, change: Place, times: float) -> Place:
    return place[0] + times * change[0], place[1] + times * change[1]


def _alpha(cutoff: float, dt: float) -> float:
    """Share of the new value in a first-order low pass (Casiez et al. 2012, equations 5 and 6)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * dt))
