"""Drawn surfaces without any object: what gravel, grass, beads, cloth and print look like from afar.

Photos of objects show too little of such surfaces, and their small round spots pass for small objects.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_kp.types import Array


def random_texture(side: int, rng: np.random.Generator) -> Array:
    """uint8 BGR (side, side, 3) of a random kind, scale and colour."""
    kind = (_noise, _pebbles, _strokes, _waves, _print)[rng.integers(5)]
    image = kind(side, rng)
    if rng.random() < 0.5:
        image = _mixed(image, _noise(side, rng), rng.uniform(0.2, 0.5))
    return image


def _colours(count: int, rng: np.random.Generator) -> Array:
    """(count, 3) colours of one family, from much alike to not at all."""
    spread = rng.uniform(8, 70)
    grey = rng.normal(0, spread, (count, 1)) + rng.normal(0, spread * rng.uniform(0, 0.6), (count, 3))
    return np.asarray(np.clip(_base(rng) + grey, 0, 255))


def _base(rng: np.random.Generator, darkest: float = 30, brightest: float = 225) -> Array:
    """(3,) a colour; most surfaces are nearly grey."""
    tint = 10 if rng.random() < 0.6 else 45
    return np.asarray(np.clip(rng.uniform(darkest, brightest) + rng.normal(0, tint, 3), 0, 255))


def _noise(side: int, rng: np.random.Generator) -> Array:
    """Noise of one to four scales, smooth or with hard edges."""
    total = np.zeros((side, side, 3), np.float32)
    for _ in range(rng.integers(1, 5)):
        cells = max(2, int(side / math.exp(rng.uniform(math.log(1.5), math.log(30)))))
        grid = rng.normal(0, 1, (cells, cells, 1 if rng.random() < 0.6 else 3)).astype(np.float32)
        layer = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        total += (layer[..., None] if layer.ndim == 2 else layer) * rng.uniform(0.3, 1)
    if rng.random() < 0.3:
        total = np.tanh(total * rng.uniform(2, 8))
    image = _base(rng) + total * rng.uniform(10, 55)
    return np.clip(image, 0, 255).astype(np.uint8)


def _pebbles(side: int, rng: np.random.Generator) -> Array:
    """Round things side by side, each lit from one side."""
    radius = math.exp(rng.uniform(math.log(2.5), math.log(max(3.0, side / 8))))
    count = int(min(1.2 * (side / radius) ** 2 / math.pi, 600))
    image = np.empty((side, side, 3), np.uint8)
    image[:] = _base(rng, 0, 120)
    light = rng.uniform(0, 2 * math.pi)
    shift = 0.25 * radius * np.array([math.cos(light), math.sin(light)])
    centres, colours = rng.uniform(0, side, (count, 2)), _colours(count, rng)
    for centre, colour in zip(centres, colours, strict=True):
        axes = radius * rng.uniform(0.5, 1.3, 2)
        for share, gain, at in ((1.0, 0.75, centre), (0.7, 1.1, centre + shift)):
            shape = (tuple(at), tuple(2 * share * axes), rng.uniform(0, 180))
            cv2.ellipse(image, shape, np.clip(colour * gain, 0, 255).tolist(), -1)
    return image


def _strokes(side: int, rng: np.random.Generator) -> Array:
    """Grass, hair, straw: many lines of about one direction and length."""
    image = np.empty((side, side, 3), np.uint8)
    image[:] = _base(rng, 0, 150)
    length = math.exp(rng.uniform(math.log(4), math.log(side / 2)))
    direction, scatter = rng.uniform(0, math.pi), rng.uniform(0.05, 1.0)
    count = 500
    starts, angles = rng.uniform(0, side, (count, 2)), rng.normal(direction, scatter, count)
    ends = starts + length * np.column_stack([np.cos(angles), np.sin(angles)])
    width = int(rng.integers(1, max(2, side // 50) + 1))
    for a, b, colour in zip(starts.astype(int), ends.astype(int), _colours(count, rng), strict=True):
        cv2.line(image, a.tolist(), b.tolist(), colour.tolist(), width, cv2.LINE_AA)
    return image


def _waves(side: int, rng: np.random.Generator) -> Array:
    """Cloth, blinds, tiles: one or two sets of stripes, smooth or sharp."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    total = np.zeros((side, side), np.float32)
    for _ in range(rng.integers(1, 3)):
        angle, period = rng.uniform(0, math.pi), math.exp(rng.uniform(math.log(3), math.log(side / 2)))
        bend = rng.uniform(0, 0.5) * period * np.sin(2 * math.pi * y / rng.uniform(0.3 * side, 3 * side))
        total += np.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle) + bend) / period)
    share = 1 / (1 + np.exp(-total * math.exp(rng.uniform(0, 3))))
    low, high = _colours(2, rng)
    return np.asarray(low + share[..., None] * (high - low)).astype(np.uint8)


def _print(side: int, rng: np.random.Generator) -> Array:
    """Lines of letters."""
    paper, ink = _colours(2, rng)
    image = np.empty((side, side, 3), np.uint8)
    image[:] = paper
    scale = rng.uniform(0.25, 1.2)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789  ..,-oO08"))
    for y in range(0, side + 20, max(6, round(24 * scale))):
        text = "".join(rng.choice(letters, 60))
        cv2.putText(image, text, (-rng.integers(0, 20), y), 0, scale, ink.tolist(), 1, cv2.LINE_AA)
    return image


def _mixed(image: Array, other: Array, share: float) -> Array:
    return np.asarray(cv2.addWeighted(image, 1 - share, other, share, 0))
