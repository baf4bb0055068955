"""Clustering of aligned shapes, so that rare ones get clusters of their own."""

from __future__ import annotations

import numpy as np

from edge_kp.types import Array

CHUNK = 1024  # shapes handled at once where a table of shapes x shapes or shapes x templates is needed


def principal_components(centred: Array, share: float, limit: int) -> Array:
    """(D, R) orthonormal directions that hold ``share`` of the variance, at most ``limit``; fixed signs."""
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    rank = int(np.searchsorted(np.cumsum(values), share * values.sum())) + 1
    vectors = vectors[:, : min(rank, limit)]
    largest = np.abs(vectors).argmax(0)
    return np.asarray(vectors * np.sign(vectors[largest, range(vectors.shape[1])]))


def _squared_distances(a: Array, b: Array) -> Array:
    """(A, D), (B, D) → (A, B)."""
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0))


def loneliness(points: Array, neighbour: int = 10) -> Array:
    """(M,) weights: distance to the 10th neighbour over its median; 0 for a shape unlike any other.

    Such a shape is a faulty label. It is known by a 10th neighbour farther off than shapes picked at random
    are from each other (about 1.4 times the root mean square distance from the mean).
    """
    if len(points) <= 10 * neighbour:  # too few to tell
        return np.ones(len(points))
    rows = points.astype(np.float32)
    squared = [
        np.partition(_squared_distances(rows[i : i + CHUNK], rows), neighbour, axis=1)[:, neighbour]
        for i in range(0, len(rows), CHUNK)
    ]
    distance = np.sqrt(np.concatenate(squared).astype(np.float64))
    alone = distance > 1.5 * np.sqrt((points**2).sum(1).mean())
    middle = np.median(distance)
    return np.where(alone, 0, np.clip(distance / middle, 0.25, 4)) if middle > 0 else np.ones(len(points))


def kmeans(points: Array, weights: Array, k: int, rng: np.random.Generator) -> Array:
    """(M,) cluster numbers; no cluster is empty."""
    centres = np.empty((k, points.shape[1]))
    nearest = np.ones(len(points))
    for i in range(k):
        chance = weights * nearest
        if not chance.any():  # only copies of points already chosen are left
            chance = weights
        centres[i] = points[rng.choice(len(points), p=chance / chance.sum())]
        distance = _squared_distances(points, centres[i : i + 1])[:, 0]
        nearest = distance if i == 0 else np.minimum(nearest, distance)

    labels = np.full(len(points), -1)
    for _ in range(100):
        distance = _squared_distances(points, centres)
        new = distance.argmin(1)
        nearest = distance[np.arange(len(points)), new]
        for empty in np.setdiff1d(np.arange(k), new):  # takes the worst served point of a shared cluster
            shared = np.bincount(new, minlength=k)[new] > 1
            worst = np.where(shared, nearest, -1).argmax()
            new[worst], nearest[worst] = empty, 0
        if (new == labels).all():
            break
        labels = new
        member = (labels == np.arange(k)[:, None]) * weights
        centres = member @ points / member.sum(1, keepdims=True)
    return labels
