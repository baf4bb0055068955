"""How a system's points become the 68 of a data set: picked by a table, or fitted to labels.

A table names for each of the 68 the system's point that people take for it. The two often mean different
places, at the jaw above all: MediaPipe's outline lies on the face in space, that of the 68 points is what the
camera sees. The fit tells what error is left when every point means what the labels do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_kp.errors import DataError
from edge_kp.types import Array

PARTS = {
    "jaw": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
}

# fmt: off
MEDIAPIPE = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)
# fmt: on
MEDIAPIPE_SOURCE = "landmark_points_68, as public projects share it, LatentSync of ByteDance among them"

RIDGES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # per labelled photo; the points' unit is their own spread
FOLDS = 5
LEAST = 2 * FOLDS  # photos to fit on
FIT = (
    "each of the 68 is a weighted sum of the system's points, with the same weights for x and y, which sum to"
    " 1: the map goes with any affine change of the picture. Weights by ridge regression on the points about"
    " their mean, in units of their root mean square distance from it; the ridge is chosen on the fit photos"
    f" alone, by {FOLDS}-fold cross-validation"
)


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear map from a system's points to a data set's.

    Attributes:
        weights: (P, N) of the points about their mean.
        ridge: the penalty that was chosen.
    """

    weights: Array
    ridge: float

    def __call__(self, points: Array) -> Array:
        """(M, P, 2) → (M, N, 2), the same unit; NaN stays NaN."""
        mean = points.mean(axis=1, keepdims=True)
        return np.asarray(self.weights.T @ (points - mean) + mean)


def fit_linear(points: Array, labels: Array) -> LinearFit:
    """Ridge regression as :data:`FIT` says it.

    Args:
        points: (M, P, 2) of a system; photos with NaN, where it found no face, are left out.
        labels: (M, N, 2); so are those with NaN.

    Raises:
        DataError: fewer than :data:`LEAST` photos are left.
    """
    whole = np.isfinite(points).all(axis=(1, 2)) & np.isfinite(labels).all(axis=(1, 2))
    if whole.sum() < LEAST:
        raise DataError(f"{whole.sum()} photos to fit a map on; at least {LEAST} needed")
    points, labels = points[whole].astype(np.float64), labels[whole].astype(np.float64)
    mean = points.mean(axis=1, keepdims=True)
    unit = np.sqrt(((points - mean) ** 2).sum(axis=-1).mean(axis=1))[:, None, None]
    x, y = (points - mean) / unit, (labels - mean) / unit
    fold = np.arange(len(x)) % FOLDS
    # (F, P, P) and (F, P, N): sums of products over the photos of each fold, x and y alike.
    squares = np.stack([np.einsum("mpc,mqc->pq", x[fold == i], x[fold == i]) for i in range(FOLDS)])
    products = np.stack([np.einsum("mpc,mnc->pn", x[fold == i], y[fold == i]) for i in range(FOLDS)])
    errors = []
    for ridge in RIDGES:
        error = 0.0
        for i in range(FOLDS):
            rest = fold != i
            w = _solve(squares.sum(0) - squares[i], products.sum(0) - products[i], ridge * int(rest.sum()))
            error += float(np.linalg.norm(w.T @ x[~rest] - y[~rest], axis=-1).sum())
        errors.append(error)
    best = RIDGES[int(np.argmin(errors))]
    return LinearFit(_solve(squares.sum(0), products.sum(0), best * len(x)), best)


def _solve(squares: Array, products: Array, penalty: float) -> Array:
    # The mean was taken off, so that the weights of a system's points have a sum that does not matter.
    return np.linalg.solve(squares + penalty * np.eye(len(squares)), products)


def picked(points: Array, table: Sequence[int]) -> Array:
    """(M, P, 2) → (M, 68, 2): the points that a table names.

    Raises:
        DataError: the system has fewer points than the table names.
    """
    if max(table) >= points.shape[1]:
        raise DataError(f"a markup names point {max(table)} of a system with {points.shape[1]} points")
    return points[:, list(table)]
