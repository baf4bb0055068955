"""What a head wears: hair that hangs down, the peak of a cap, glasses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edge_kp.training.rendering.marks import smooth_step
from edge_kp.training.rendering.model import PARTS
from edge_kp.types import Array

# Parts of the surface besides those of the model: sheets fixed to the head.
HANGING, PEAK = len(PARTS), len(PARTS) + 1


@dataclass(frozen=True, eq=False)
class Worn:
    """What a head wears, cm in the face frame.

    Attributes:
        capped: is there a cap?
        hair, peak: (R, C, 3) grid of a sheet: hair that hangs down, the peak of the cap; None without.
        glasses: (2, K, 3) rims of the face's right and left lens; None without glasses.
        tint: 0 to 1, how far the lenses are dark.
    """

    capped: bool
    hair: Array | None
    peak: Array | None
    glasses: Array | None
    tint: float

    @property
    def sheets(self) -> list[tuple[int, Array]]:
        """Sheets that there are, each after its part of the surface."""
        return [(part, s) for part, s in ((HANGING, self.hair), (PEAK, self.peak)) if s is not None]


def random_worn(at: Array, rng: np.random.Generator) -> Worn:
    """Draw lots for what a face with landmarks (68, 3) wears."""
    breadth = float(np.linalg.norm(at[16] - at[0])) / 14.7  # of the mean face of ICT-FaceKit
    capped = rng.random() < 0.12
    hair = breadth * _hanging_hair(6.5 if capped else 11.5, rng) if rng.random() < 0.35 else None
    peak = breadth * _peak(rng) if capped and rng.random() < 0.6 else None
    glasses = _glasses(at, rng) if rng.random() < 0.2 else None
    tint = rng.uniform(0.5, 0.97) if rng.random() < 0.35 else rng.uniform(0, 0.15)
    return Worn(capped, hair, peak, glasses, tint)


def _hanging_hair(top: float, rng: np.random.Generator) -> Array:
    """(12, 30, 3) a curtain around the head from a height in cm down, open in front."""
    bend = rng.uniform(0, 10) * np.sin(rng.uniform(0, 2 * np.pi) + np.linspace(0, 4, 12))[:, None]
    opening = np.deg2rad(rng.uniform(64, 100) + bend)
    angle = opening + np.linspace(0, 1, 30) * (2 * np.pi - 2 * opening)
    y = np.linspace(top, rng.uniform(-16, -2), 12)[:, None]
    full = rng.uniform(0.2, 1.6) + 0.15 * np.sin(angle * rng.integers(3, 9) + y)
    round_top = np.sqrt(np.clip(1 - (np.clip(y - 5, 0, None) / 9.5) ** 2, 0.05, 1))
    x = (8.7 + full) * round_top * np.sin(angle)
    z = (9.3 + full) * round_top * np.cos(angle) + 0.5 - 1.5 * smooth_step(-y, 3, 9)
    return np.stack([x, y + 0 * x, z], axis=2)


def _peak(rng: np.random.Generator) -> Array:
    """(5, 15, 3) the peak of a cap above the brows."""
    angle = np.linspace(-1.1, 1.1, 15)
    out = np.linspace(0, 1, 5)[:, None]
    length = rng.uniform(4, 7) * np.cos(angle * 1.2).clip(0.25)
    x = (7.9 + 0.4 * out) * np.sin(angle)
    z = 0.6 + 9.6 * np.cos(angle) + out * length
    y = rng.uniform(8.2, 9.2) - out * rng.uniform(0, 2.5) - 0.6 * np.sin(angle) ** 2
    return np.stack([x, y, z], axis=2)


def _glasses(at: Array, rng: np.random.Generator) -> Array:
    """(2, 40, 3) rims before the eyes of a face with landmarks (68, 3)."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    square = rng.uniform(0.45, 1)
    wide, tall = rng.uniform(2.3, 3.0), rng.uniform(1.5, 2.5)
    round_x, round_y = (np.sign(f(t)) * np.abs(f(t)) ** square for f in (np.cos, np.sin))
    bridge, drop = at[28, 2] + rng.uniform(-0.2, 0.5), rng.uniform(0, 0.6)
    rims = []
    for eye in (at[36:42].mean(0), at[42:48].mean(0)):
        side = np.sign(eye[0] - at[27, 0])
        x = eye[0] + 0.25 * side + wide * round_x
        y = eye[1] - drop + tall * round_y
        rims.append(np.column_stack([x, y, bridge - 0.045 * (x - at[27, 0]) ** 2 + 0 * t]))
    return np.stack(rims)


def frame(rims: Array) -> list[Array]:
    """Bridge and arms, (K, 3) each, of glasses with rims (2, K, 3)."""
    (right, left), up = rims, np.array([0.0, 0.4, 0.0])
    lines = [np.stack([right[right[:, 0].argmax()], left[left[:, 0].argmin()]]) + up]
    for hinge in (right[right[:, 0].argmin()] + up, left[left[:, 0].argmax()] + up):
        ear = np.array([np.sign(hinge[0]) * 8.3, hinge[1] - 0.3, 1.0])
        lines.append(hinge + np.linspace(0, 1, 12)[:, None] * (ear - hinge))
    return lines


@lru_cache(maxsize=8)
def sheet_triangles(rows: int, columns: int) -> Array:
    """(T, 3) triangles of a grid of points, row by row, each once for either side."""
    corner = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    )
    front = np.concatenate([np.column_stack([a, b, c]), np.column_stack([b, d, c])])
    return np.concatenate([front, front[:, ::-1]])
