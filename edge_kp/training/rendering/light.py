"""Lights on a face: from where, what they reach past the head itself, and how much comes back to the viewer.

All directions are in the axes of the image: x right, y up, z towards the viewer.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_kp.training.rendering.marks import smooth_step
from edge_kp.training.rendering.model import HEAD, FaceModel
from edge_kp.types import Array


def random_lights(rng: np.random.Generator) -> Array:
    """(L, 6) one to three lights, the main one first: direction towards it, linear BGR."""
    count = int(rng.integers(1, 4))
    side, height = np.deg2rad(rng.uniform(-75, 75, count)), np.deg2rad(rng.uniform(-15, 65, count))
    towards = np.column_stack([np.sin(side) * np.cos(height), np.sin(height), np.cos(side) * np.cos(height)])
    warm = rng.normal(0.06, 0.08, (count, 1))
    strength = np.array([1.0, *rng.uniform(0.1, 0.6, count - 1)])
    colours = strength[:, None] * np.exp(warm * (-1, 0, 1))
    return np.column_stack([towards, colours]).astype(np.float32)


def shadows(placed: Array, model: FaceModel, towards: Array) -> Array:
    """(V,) share of a far light that reaches each vertex past the others: a coarse shadow map.

    Args:
        placed: (V, 3) cm, vertices; towards: (3,) unit vector to the light.
    """
    right = np.cross((0.0, 1.0, 0.0), towards)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(towards, right), towards])
    x, y, depth = (placed @ frame.T).T
    cell, side = 0.4, 120
    column = np.clip((x / cell + side / 2).astype(int), 0, side - 1)
    row = np.clip((y / cell + side / 2).astype(int), 0, side - 1)
    nearest = np.full((side, side), -99, np.float32)
    solid = model.part <= HEAD
    np.maximum.at(nearest, (row[solid], column[solid]), depth[solid].astype(np.float32))
    smooth: Array = cv2.GaussianBlur(cv2.medianBlur(nearest, 3), (3, 3), 0)
    arrives = 1 - smooth_step(smooth[row, column] - depth, 0.8, 1.8)
    return _evened(arrives, model.triangles)  # else the cells of the map would show


def _evened(values: Array, triangles: Array) -> Array:
    """(V,) mean of the triangles around each vertex."""
    corners = triangles.T.ravel()
    count = np.bincount(corners, minlength=len(values))
    around = np.tile(values[triangles].mean(1), 3)
    return np.asarray(np.bincount(corners, around, len(values)) / np.maximum(count, 1))


def lit(normal: Array, shadow: Array, lights: Array) -> tuple[Array, Array]:
    """Light (P, 3) that falls on what is seen, and its reflection (P, 3) towards the viewer.

    Args:
        normal: (P, 3) of the surface; shadow: (L, P) share of each light that arrives.
        lights: (L, 6), see ``random_lights``.
    """
    total = np.zeros((len(normal), 3), np.float32)
    total += (0.28 + 0.1 * normal[:, 1:2]) * lights[:, 3:].mean(0)
    shine = np.zeros_like(total)
    for light, arrives in zip(lights, shadow, strict=True):
        towards, colour = light[:3], light[3:]
        half = towards + np.array([0, 0, 1], np.float32)
        facing = np.clip((normal @ towards + 0.15) / 1.15, 0, None) * arrives
        mirrored = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 8
        total += facing[:, None] * colour
        shine += (mirrored**3 * arrives)[:, None] * colour
    return total, shine
