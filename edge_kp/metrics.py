"""How far keypoints are off, as the face alignment literature counts it; how many objects are found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_kp.geometry import box_iou
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


def roc_auc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve: the share of pairs in which the positive has the higher score.

    Equal scores count half (the Mann-Whitney statistic; Fawcett 2006, "An introduction to ROC analysis").

    Args:
        scores: (M,), any unit.
        positive: (M,) bool.

    Raises:
        ValueError: all are positive or none is.
    """
    scores, positive = np.asarray(scores).ravel(), np.asarray(positive, bool).ravel()
    yes, no = scores[positive], np.sort(scores[~positive])
    if not len(yes) or not len(no):
        raise ValueError(f"{len(yes)} of {len(scores)} are positive: there is nothing to tell apart")
    below, up_to = (np.searchsorted(no, yes, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(no)))


def _counted(errors: Array) -> Array:
    errors = np.asarray(errors, np.float64).ravel()
    errors = errors[~np.isnan(errors)]
    if not len(errors):
        raise ValueError("no sample with a measurable error")
    return errors


def match_boxes(boxes: Array, truth: Array, overlap: float) -> tuple[Array, Array]:
    """Which true box each found one shows: -1 for none; each true box is shown once.

    Args:
        boxes: (M, 4) found boxes, likeliest first: the first that overlaps a true box enough takes it.
        truth: (T, 4) true boxes.
        overlap: least IoU.

    Returns:
        (M,) index of the true box or -1, and (M,) bool: does the box touch any true box at all (IoU > 0)?
    """
    match = np.full(len(boxes), -1)
    touches = np.zeros(len(boxes), bool)
    free = np.ones(len(truth), bool)
    for i, box in enumerate(boxes):
        iou = np.array([box_iou(box, other) for other in truth])
        touches[i] = bool((iou > 0).any())
        candidates = np.where(free & (iou > overlap), iou, -1) if len(truth) else np.zeros(0)
        if len(candidates) and candidates.max() > 0:
            match[i] = int(candidates.argmax())
            free[match[i]] = False
    return match, touches


def _found(
    boxes: Sequence[Array],
    scores: Sequence[Array],
    truth: Sequence[Array],
    complete: Sequence[bool],
    overlap: float,
) -> tuple[Array, Array]:
    """Scores and hits of all boxes that count: away from the labels of an incomplete photo none does."""
    all_scores, all_hits = [np.zeros(0)], [np.zeros(0, bool)]
    for b, s, t, whole in zip(boxes, scores, truth, complete, strict=True):
        order = np.argsort(-s, kind="stable")
        match, touches = match_boxes(b[order], t, overlap)
        counts = (match >= 0) | touches | whole
        all_scores.append(s[order][counts])
        all_hits.append(match[counts] >= 0)
    return np.concatenate(all_scores), np.concatenate(all_hits)


def recall_and_false(
    boxes: Sequence[Array],
    scores: Sequence[Array],
    truth: Sequence[Array],
    complete: Sequence[bool],
    threshold: float,
    overlap: float = 0.4,
) -> tuple[float, float]:
    """Share of the true boxes that are found, and false boxes per photo, at a threshold of the score.

    False boxes are counted in photos whose objects are all labelled, where there are such.

    Args:
        boxes, scores: (M, 4) and (M,) of each photo.
        truth: (T, 4) of each photo.
        complete: is every object of the photo labelled? Where not, boxes away from the labels do not count.
        overlap: IoU that a found box must exceed.

    Raises:
        ValueError: no photo.
    """
    if not truth:
        raise ValueError("no photo to count in")
    score, hit = _found(boxes, scores, truth, complete, overlap)
    found = float((hit & (score >= threshold)).sum() / max(sum(len(t) for t in truth), 1))
    counted = [i for i, whole in enumerate(complete) if whole] or list(range(len(truth)))
    boxes, scores, truth = ([part[i] for i in counted] for part in (boxes, scores, truth))
    score, hit = _found(boxes, scores, truth, [complete[i] for i in counted], overlap)
    return found, float((~hit & (score >= threshold)).sum() / len(counted))


def average_precision(
    boxes: Sequence[Array],
    scores: Sequence[Array],
    truth: Sequence[Array],
    complete: Sequence[bool],
    overlap: float = 0.4,
) -> float:
    """Area under the curve of precision over recall, precision made monotone (Everingham et al. 2010, VOC).

    Arguments as in :func:`recall_and_false`; 0 where nothing is to be found.
    """
    score, hit = _found(boxes, scores, truth, complete, overlap)
    wanted = sum(len(t) for t in truth)
    if not wanted or not len(score):
        return 0.0
    hit = hit[np.argsort(-score, kind="stable")]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hit).sum() / wanted)
