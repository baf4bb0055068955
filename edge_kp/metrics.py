"""How far keypoints are off, as the face alignment literature counts it."""

from __future__ import annotations

import numpy as np

from edge_kp.schema import KeypointSchema
from edge_kp.types import Array


def nme(predicted: Array, truth: Array, schema: KeypointSchema) -> Array:
    """Normalised mean error of each sample.

    Mean distance between predicted and true points, divided by the distance between the true reference
    points. For face68 these are the outer eye corners, the convention of the 300-W challenge (Sagonas et al.,
    ICCV workshops 2013).

    Args:
        predicted: (M, N, 2), same unit as ``truth``.
        truth: (M, N, 2); points that are NaN do not count.

    Returns:
        (M,) float64 fractions. NaN for a sample whose reference points are not labelled or coincide, since
        its error has no unit; the aggregates below leave such samples out. NaN in ``predicted`` at a labelled
        point is infinite error: a missing answer must not look like a good one.

    Raises:
        ValueError: shapes that differ or do not fit the schema.
    """
    n = len(schema)
    if predicted.shape != truth.shape or truth.ndim != 3 or truth.shape[1:] != (n, 2):
        raise ValueError(f"expected two arrays (M, {n}, 2), got {predicted.shape} and {truth.shape}")
    truth = truth.astype(np.float64)
    labelled = ~np.isnan(truth).any(2)
    distance = np.linalg.norm(predicted - truth, axis=2)
    distance = np.where(np.isnan(distance), np.inf, distance)
    reference = schema.reference_distance(truth)
    reference = np.where(reference > 0, reference, np.nan)
    total = np.where(labelled, distance, 0).sum(1)
    return np.asarray(total / np.maximum(labelled.sum(1), 1) / reference)


def failure_rate(errors: Array, threshold: float = 0.10) -> float:
    """Share of samples whose error exceeds ``threshold``; a fraction in [0, 1].

    Raises:
        ValueError: no error that is a number.
    """
    return float((_counted(errors) > threshold).mean())


def auc(errors: Array, threshold: float = 0.08) -> float:
    """Area under the cumulative error curve from 0 to ``threshold``, divided by ``threshold``; in [0, 1].

    The curve is a step function, so its area is exact without sampling. The 300-W challenge compares these
    curves (Sagonas et al. 2016, "300 Faces In-The-Wild Challenge: database and results").

    Raises:
        ValueError: no error that is a number, or a threshold that is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"threshold: expected a positive number, got {threshold}")
    # A sample of error e lifts the curve by 1/M from e on: it adds (threshold - e) / M to the area.
    return float(np.maximum(threshold - _counted(errors), 0).mean() / threshold)


def cumulative_curve(errors: Array, thresholds: Array) -> Array:
    """(T,) share of samples whose error is at most each of the (T,) thresholds.

    Raises:
        ValueError: no error that is a number.
    """
    counted = np.sort(_counted(errors))
    return np.asarray(np.searchsorted(counted, thresholds, side="right") / len(counted))


def _counted(errors: Array) -> Array:
    errors = np.asarray(errors, np.float64).ravel()
    errors = errors[~np.isnan(errors)]
    if not len(errors):
        raise ValueError("no sample with a measurable error")
    return errors
