"""How a person looks: colours, hairline, beard, make-up. Colours are linear BGR from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_kp.training.rendering.marks import smooth_step
from edge_kp.training.rendering.worn import Worn
from edge_kp.types import Array


@dataclass(frozen=True, eq=False)
class Look:
    """Colours and hair of one person.

    Attributes:
        skin, hair, top, cloth, iris, lips: (3,) linear BGR; top: of the hair on the head, or of a cap.
        hairline: (2, K) angles from the front in radians, and height there in cm of the rest frame.
        hair_depth: cm; 0 bald.
        cap: the hair is a cap.
        brow: thickness in cm, strength 0 to 1, rise above the landmarks in cm.
        beard, lip_paint, lid_paint: 0 to 1.
    """

    skin: Array
    hair: Array
    top: Array
    cloth: Array
    iris: Array
    lips: Array
    hairline: Array
    hair_depth: float
    cap: bool
    brow: tuple[float, float, float]
    beard: float
    lip_paint: float
    lid_paint: float


def linear(*rgb: float) -> Array:
    """sRGB from 0 to 255 as linear BGR."""
    return np.asarray((np.array(rgb[::-1]) / 255) ** 2.2)


def _palette(*colours: tuple[int, int, int]) -> Array:
    """(K, 3) linear BGR of sRGB colours."""
    return np.stack([linear(*colour) for colour in colours])


_SKINS = _palette(  # from pale to dark
    *((242, 204, 182), (231, 182, 154), (212, 160, 126), (180, 126, 92), (136, 90, 64), (92, 60, 44)),
    (62, 42, 34),
)
_HAIRS = _palette(  # from black to blond, then red and grey
    *((18, 16, 16), (38, 28, 24), (70, 46, 32), (110, 74, 46), (168, 128, 80), (214, 184, 136)),
    *((120, 52, 28), (150, 148, 146)),
)
_IRISES = _palette(  # from brown to blue
    *((42, 26, 18), (74, 44, 24), (96, 74, 40), (84, 110, 84), (90, 124, 160), (120, 134, 140))
)


def random_look(worn: Worn, rng: np.random.Generator) -> Look:
    """Draw lots for a person's colours, hair, beard and make-up."""
    tone = rng.beta(1.0, 1.6) * (len(_SKINS) - 1.001)
    low, dark = int(tone), tone > 3
    skin = _SKINS[low] + (tone - low) * (_SKINS[low + 1] - _SKINS[low])
    skin = skin * np.exp(rng.normal(0, 0.08) + rng.normal(0, 0.03, 3))
    hair = _HAIRS[rng.integers(3 if dark else len(_HAIRS))]
    hair = hair * np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.06, 3))
    cloth = linear(*rng.uniform(10, 235, 3)) if rng.random() < 0.5 else np.full(3, rng.uniform(0.005, 0.8))
    bald = worn.hair is None and rng.random() < 0.1
    thick = rng.uniform(0.2, 0.45)  # people mark the upper edge of the brow
    depth = 0.0 if bald else rng.uniform(0.2, 1.8)
    return Look(
        skin=skin,
        hair=hair,
        top=rng.uniform(0.01, 0.6) * np.exp(rng.normal(0, 0.6, 3)) if worn.capped else hair,
        cloth=cloth,
        iris=_IRISES[rng.integers(2 if dark else len(_IRISES))],
        lips=skin * linear(*rng.uniform((205, 130, 130), (245, 185, 190))),
        hairline=_hairline(worn.capped, rng),
        hair_depth=0.6 if worn.capped else depth,
        cap=worn.capped,
        brow=(thick, rng.uniform(0.55, 1.0), -0.7 * thick - rng.uniform(-0.05, 0.15)),
        beard=float(rng.choice([0, rng.uniform(0.1, 0.5), rng.uniform(0.5, 1)], p=[0.65, 0.2, 0.15])),
        lip_paint=rng.uniform(0.3, 0.9) if rng.random() < 0.25 else 0.0,
        lid_paint=rng.uniform(0, 0.5) if rng.random() < 0.6 else rng.uniform(0.5, 1),
    )


def _hairline(capped: bool, rng: np.random.Generator) -> Array:
    """(2, 10) see :class:`Look`: above the brows, down before the ear, to the nape; a cap's is rounder."""
    front, edge = float(np.clip(rng.normal(9.3, 1.2), 7.2, 12)), rng.uniform(7.4, 9)
    temples = (front + rng.normal(0, 0.6), front - rng.uniform(0.4, 1.8), 7.0, 4.5)
    heights = [front, *temples, rng.normal(3, 0.8), rng.choice([5.0, 1.0, -3.0]), 1.0, -2.0, -5.0]
    if capped:
        heights = [edge, edge, edge, edge, 6.5, 6.0, 6.0, 5.5, 5.0, 4.0]
    return np.stack([np.deg2rad([0, 25, 45, 60, 72, 80, 92, 110, 130, 180]), heights])


def hair_share(rest: Array, hairline: Array, ragged: Array | float) -> Array:
    """(P,) 0 on the skin, 1 under hair, for places on the mean face."""
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    angle = np.arctan2(x, rest[:, 2] - 0.5)
    ear = smooth_step(x, 7.75, 8.05) * smooth_step(-y, -5.9, -5.4)
    return smooth_step(y - np.interp(angle, *hairline) + ragged, -0.3, 0.5) * (1 - ear)
