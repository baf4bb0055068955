"""A small face model for tests: an ellipsoid with a nose, landmarks where those of the mean face are."""

from __future__ import annotations

import json

import numpy as np

from edge_kp.pose import load_face68
from edge_kp.training.rendering.model import PARTS

EXPRESSIONS = ("jawOpen", "mouthSmile_L", "mouthSmile_R", "browInnerUp_L")


def ball(middle: tuple[float, float, float], radii: tuple[float, float, float], n: int) -> tuple:
    """Vertices and triangles, counter-clockwise from outside, of an ellipsoid."""
    azimuth, polar = np.meshgrid(np.arange(n) * 2 * np.pi / n, np.linspace(0.01, np.pi - 0.01, n))
    unit = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], 2)
    i, j = (k.ravel() for k in np.mgrid[: n - 1, :n])
    a, b, c, d = i * n + j, i * n + (j + 1) % n, (i + 1) * n + j, (i + 1) * n + (j + 1) % n
    triangles = np.concatenate([np.column_stack([a, c, b]), np.column_stack([b, c, d])])
    return unit.reshape(-1, 3) * radii + middle, triangles


def small_head() -> dict[str, np.ndarray]:
    """The arrays of a model file."""
    points = load_face68()
    head, triangles = ball((0, 0, 0), (7.8, 10, 9), 48)
    nose = np.exp(-((head[:, 0] / 1.2) ** 2) - ((head[:, 1] - points[30, 1]) / 2) ** 2)
    head[:, 2] += np.where(head[:, 2] > 0, 1.5 * nose, 0)
    front = np.where(head[:, 2] > 0, 0, 99)
    landmarks = [int((((head[:, :2] - p[:2]) ** 2).sum(1) + front).argmin()) for p in points]
    parts, count = {"face": [0, len(head)], "head": [len(head)] * 2}, len(head)
    vertices, faces = [head], [triangles]
    for side in (-1, 1):
        eye, its = ball((3.1 * side, 2.7, 7), (1.2, 1.2, 1.2), 8)
        vertices.append(eye)
        faces.append(its + count)
        count += len(eye)
    for name in PARTS[2:]:
        parts[name] = [len(head), count] if name == "eyeballs" else [count, count]
    all_vertices = np.concatenate(vertices)
    x, y, _ = all_vertices.T
    zero = np.zeros((count, 3))
    breadth, length, depth = (np.where(np.arange(3) == k, 0.04 * all_vertices, 0) for k in range(3))
    lower = np.clip(-y - 4, 0, 1)[:, None]
    smiles = [np.where((s * x > 1)[:, None], lower, 0) * (0.5 * s, 0.4, 0) for s in (1, -1)]
    return {
        "vertices": all_vertices.astype(np.float32),
        "triangles": np.concatenate(faces).astype(np.int32),
        "identity": np.stack([breadth, length, depth]).astype(np.float16),
        "expression": np.stack([lower * (0, -1.5, 0), *smiles, zero]).astype(np.float16),
        "expression_names": np.array(EXPRESSIONS),
        "landmarks68": np.array(landmarks, np.int32),
        "parts": np.array(json.dumps(parts)),
    }
