"""Colours of what is seen: skin, lips, brows, lashes, hair, clothes, eyes, teeth.

Every pixel is coloured by itself from its place on the mean face ("rest", cm, the same for every person).
Colours are linear BGR from 0 to 1; shine is the share of a light that is mirrored.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from edge_kp.training.rendering.look import Look, hair_share, linear
from edge_kp.training.rendering.marks import Marks, smooth_step
from edge_kp.training.rendering.model import EYEBALLS, HEAD, TEETH, FaceModel
from edge_kp.training.rendering.surface import Surface
from edge_kp.training.rendering.worn import HANGING, PEAK
from edge_kp.types import Array


class Texture:
    """Noise and strands, looked up by places on the mean face.

    Attributes:
        around: cm that a radian about the head counts: a turn is the texture's width twice, without a seam.
        blotches, grain, strands: (512, 512) float32 layers.
    """

    _SIDE, _PER_CM = 512, 20
    around = _SIDE / (_PER_CM * np.pi)

    def __init__(self, rng: np.random.Generator) -> None:
        self.blotches = self._noise(rng, (16, 16)) + 0.5 * self._noise(rng, (48, 48))
        self.grain = self._noise(rng, (256, 256))
        self.strands = 0.6 * self._noise(rng, (10, 256)) + 0.6 * self._noise(rng, (5, 60))

    def _noise(self, rng: np.random.Generator, cells: tuple[int, int]) -> Array:
        """Smooth noise of (rows, columns) cells."""
        grid = rng.standard_normal(cells, np.float32)
        return np.asarray(cv2.resize(grid, (self._SIDE, self._SIDE), interpolation=cv2.INTER_LINEAR))

    def at(self, layer: Array, across: Array, along: Array) -> Array:
        """(P,) of a layer at (P,) places in cm; strands run along."""
        u, v = ((self._PER_CM * x).astype(np.int32) % self._SIDE for x in (across, along))
        return np.asarray(layer[v, u])


class Noise(NamedTuple):
    """Layers of a :class:`Texture` at P pixels, (P,) each."""

    blotches: Array
    grain: Array
    strands: Array


def paint(
    model: FaceModel, surface: Surface, look: Look, texture: Texture, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Colours (P, 3) and shine (P,) of what is seen."""
    around, up = texture.around * np.arctan2(surface.rest[:, 0], surface.rest[:, 2]), surface.rest[:, 1]
    layers = (texture.blotches, texture.grain, texture.strands)
    noise = Noise(*(texture.at(layer, around, up) for layer in layers))
    albedo = _paint_skin(surface.marks, look, noise, rng)
    gloss = rng.uniform(0, 0.2) + 0.25 * smooth_step(surface.marks.lips, -0.08, 0.12)
    albedo = _mix(albedo, 0.6 * look.hair, _beard_share(surface.marks, look, noise))
    albedo = _mix(albedo, 0.5 * look.hair, _brow_share(surface.marks, look, texture))
    albedo = _mix(albedo, np.full(3, 0.008), _lash_share(surface.marks, look))
    albedo *= np.exp(-2.2 * np.clip(surface.marks.crease, -0.05, 1))[:, None]
    if look.hair_depth > 0:
        albedo, gloss = _add_hair(albedo, gloss, surface.rest, look, noise)
    below_neck = smooth_step(-up - 0.4 * surface.rest[:, 2], 13.2, 13.5)
    albedo = _mix(albedo, look.cloth * (1 + 0.1 * noise.grain)[:, None], below_neck)
    hanging, peak = surface.part == HANGING, surface.part == PEAK
    albedo[hanging] = look.hair * np.exp(0.45 * noise.strands[hanging])[:, None]
    albedo[peak] = look.top
    gloss[hanging | peak] = 0.1
    inside = (surface.part > HEAD) & (surface.part < HANGING)
    albedo[inside], gloss[inside] = _paint_inside(model, surface, inside, look, rng)
    return albedo, gloss


def _mix(a: Array, b: Array, share: Array) -> Array:
    """``a`` (P, 3) gives way to ``b`` (P, 3) or (3,) by a share (P,); float32."""
    return np.asarray(a + (b.astype(np.float32) - a) * share.astype(np.float32)[:, None])


def _paint_skin(marks: Marks, look: Look, noise: Noise, rng: np.random.Generator) -> Array:
    """(P, 3) skin with red cheeks, eye shadow and lips."""
    albedo = look.skin.astype(np.float32) * (1 + 0.05 * noise.blotches + 0.04 * noise.grain)[:, None]
    flush = rng.uniform(0, 0.45) * marks.flush * (1 + 0.2 * noise.blotches)
    albedo *= 1 - flush[:, None] * np.array([0.9, 0.8, 0.15], np.float32)
    shade = 0.6 * look.lid_paint * smooth_step(-marks.upper_lid, -0.9, -0.2) * (marks.brow < -0.8)
    albedo = _mix(albedo, look.skin * (0.5, 0.55, 0.7), shade)
    paint = np.array([0.06, 0.03, 0.45]) * rng.uniform(0.4, 1.2, 3)
    lips = look.lips + look.lip_paint * (paint - look.lips)
    return _mix(albedo, lips * (1 + 0.08 * noise.grain)[:, None], 0.85 * smooth_step(marks.lips, -0.08, 0.12))


def _add_hair(albedo: Array, gloss: Array, rest: Array, look: Look, noise: Noise) -> tuple[Array, Array]:
    """Colours and shine with the hair on the head, or a cap."""
    ragged = 0.0 if look.cap else 0.2 * noise.strands + 0.35 * noise.blotches
    hair = hair_share(rest, look.hairline, ragged)
    streaks = np.exp(0.1 * noise.grain if look.cap else 0.45 * noise.strands)
    shine = 0 if look.cap else 0.15
    gloss = gloss * (1 - hair) + shine * hair * np.clip(1 + noise.strands, 0, 2)
    return _mix(albedo, look.top * streaks[:, None], hair), gloss


def _beard_share(marks: Marks, look: Look, noise: Noise) -> Array:
    """(P,) how far a beard covers the skin."""
    growth = look.beard * marks.beard * smooth_step(-marks.lips, -0.05, 0.25)
    return np.asarray(growth * np.clip(0.75 + 0.15 * noise.strands + 0.25 * noise.grain, 0, 1))


def _brow_share(marks: Marks, look: Look, texture: Texture) -> Array:
    """(P,) how far the hairs of the brows cover the skin."""
    thick, strength, rise = look.brow
    taper = thick * np.interp(marks.brow_along, [0, 0.15, 0.6, 1], [0.75, 1, 0.9, 0.35])
    ends = smooth_step(marks.brow_along, 0, 0.02) * smooth_step(1 - marks.brow_along, 0, 0.05)
    inside = smooth_step(taper - np.abs(marks.brow - rise), -0.12, 0.1)
    hairs = texture.at(texture.strands, 4 * marks.brow_along + 0.8 * marks.brow, marks.brow)
    return np.asarray(strength * ends * inside * np.clip(0.85 + 0.3 * hairs, 0, 1))


def _lash_share(marks: Marks, look: Look) -> Array:
    """(P,) how dark the edges of the lids are."""
    upper, lower = np.exp(-((marks.upper_lid / 0.11) ** 2)), np.exp(-((marks.lower_lid / 0.07) ** 2))
    return np.asarray(np.clip((0.55 + 0.4 * look.lid_paint) * (upper + 0.5 * lower), 0, 1))


def _paint_inside(
    model: FaceModel, surface: Surface, inside: Array, look: Look, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Colours (Q, 3) and shine (Q,) of eyes, teeth and mouth; ``inside`` (P,) bool are these Q pixels."""
    rest, part = surface.rest[inside], surface.part[inside]
    colour = np.tile(linear(90, 28, 28), (len(rest), 1))
    colour[part == TEETH] = linear(*rng.uniform((200, 185, 160), (235, 228, 220)))
    colour *= (0.2 + 0.8 * smooth_step(rest[:, 2], 5.0, 11.0))[:, None]
    white = linear(*rng.uniform((205, 195, 190), (240, 235, 232)))
    gaze, pupil = np.array([*rng.normal(0, 0.12, 2), 1]), rng.uniform(0.1, 0.2)
    eyes = part == EYEBALLS
    balls = model.vertices[model.part == EYEBALLS]
    for side in (-1, 1):
        ball = balls[side * balls[:, 0] > 0]
        seen = np.flatnonzero(eyes & (side * rest[:, 0] > 0))
        if len(seen):
            away = rest[seen] - (ball.min(0) + ball.max(0)) / 2
            colour[seen] = _paint_eye(away, gaze, pupil, look.iris, white)
    return colour, np.where(eyes, 0.6, 0.1)


def _paint_eye(away: Array, gaze: Array, pupil: float, iris: Array, white: Array) -> Array:
    """(P, 3) colours at places (P, 3), cm from the middle of the eyeball.

    Args:
        gaze: (3,) direction; pupil: its radius in radians; iris, white: (3,) colours.
    """
    cosine = (away @ gaze) / np.maximum(np.linalg.norm(away, axis=1) * np.linalg.norm(gaze), 1e-6)
    angle = np.arccos(np.clip(cosine, -1, 1))
    rim = (0.6 + 0.5 * smooth_step(angle, 0.1, 0.35)) * (1 - smooth_step(angle, 0.38, 0.46))
    eye = _mix(iris * rim[:, None], white, smooth_step(angle, 0.38, 0.45))
    eye = _mix(eye, np.full(3, 0.003), 1 - smooth_step(angle, pupil - 0.02, pupil + 0.04))
    return eye * (0.85 - 0.35 * smooth_step(away[:, 1], 0.2, 0.7))[:, None]  # the upper lid's shadow
