from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_kp.metrics import (
    auc,
    average_precision,
    cumulative_curve,
    failure_rate,
    match_boxes,
    nme,
    recall_and_false,
    roc_auc,
)
from edge_kp.schema import KeypointSchema

SCHEMA = KeypointSchema("three", ("a", "b", "c"), (), (), (0, 2))
TRUTH = np.array([[[0.0, 0.0], [5.0, 5.0], [10.0, 0.0]]])  # reference distance 10


def test_nme_is_mean_distance_over_reference_distance():
    off = TRUTH + np.array([[3, 4], [0, 0], [0, 1]])
    np.testing.assert_allclose(nme(off, TRUTH, SCHEMA), [(5 + 0 + 1) / 3 / 10])
    np.testing.assert_allclose(nme(off * 7, TRUTH * 7, SCHEMA), nme(off, TRUTH, SCHEMA))


def test_nme_leaves_unlabelled_points_out():
    truth = TRUTH.copy()
    truth[0, 1] = np.nan
    np.testing.assert_allclose(nme(TRUTH + np.array([3, 4]), truth, SCHEMA), [0.5])
    off = TRUTH + np.array([[1, 0], [99, 0], [2, 0]])
    np.testing.assert_allclose(nme(off, truth, SCHEMA), [0.15])


def test_nme_without_reference_is_nan_and_aggregates_ignore_it():
    truth = np.concatenate([TRUTH, TRUTH, TRUTH])
    truth[1, 2] = np.nan  # a reference point is not labelled
    truth[2, 2] = truth[2, 0]  # both in one place
    errors = nme(truth + np.array([1, 0]), truth, SCHEMA)
    np.testing.assert_allclose(errors, [0.1, np.nan, np.nan])
    assert auc(errors, 0.2) == pytest.approx(0.5)


def test_missing_prediction_is_infinite_error():
    predicted = TRUTH.copy()
    predicted[0, 1] = np.nan
    errors = nme(predicted, TRUTH, SCHEMA)
    assert errors[0] == np.inf
    assert failure_rate(errors) == 1
    assert auc(errors) == 0


def test_nme_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"expected two arrays \(M, 3, 2\), got \(1, 2, 2\)"):
        nme(TRUTH[:, :2], TRUTH[:, :2], SCHEMA)
    with pytest.raises(ValueError, match="expected two arrays"):
        nme(TRUTH[0], TRUTH[0], SCHEMA)


def test_failure_rate_counts_what_exceeds_the_threshold():
    assert failure_rate(np.array([0.05, 0.10, 0.11, 0.5, np.nan])) == 0.5
    assert failure_rate(np.array([0.05, 0.10]), threshold=0.04) == 1


def test_auc_equals_the_finely_sampled_curve():
    errors = np.random.default_rng(0).gamma(4, 0.01, 500)
    thresholds = np.linspace(0, 0.08, 200_001)
    sampled = cumulative_curve(errors, thresholds).mean()
    assert auc(errors, 0.08) == pytest.approx(sampled, abs=1e-4)
    assert auc(np.zeros(3)) == 1
    assert auc(np.array([0.02, 0.06]), 0.08) == pytest.approx(0.5)


def test_cumulative_curve_steps_at_each_error():
    curve = cumulative_curve(np.array([0.3, np.nan, 0.1, 0.2, 0.2]), np.array([0.0, 0.1, 0.19, 0.2, 0.3]))
    np.testing.assert_allclose(curve, [0, 0.25, 0.25, 0.75, 1])


@pytest.mark.parametrize("errors", [np.array([]), np.array([np.nan, np.nan])])
def test_aggregates_refuse_nothing(errors):
    for aggregate in (auc, failure_rate, lambda e: cumulative_curve(e, np.array([0.1]))):
        with pytest.raises(ValueError, match="no sample"):
            aggregate(errors)


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_auc_refuses_a_threshold_without_area(threshold):
    with pytest.raises(ValueError, match="positive"):
        auc(np.array([0.1]), threshold)


# ---- boxes ----------------------------------------------------------------------------------------------


def box_at(x: float, y: float = 0.0, side: float = 10.0) -> list[float]:
    return [x, y, x + side, y + side]


def photo(boxes: Sequence[Any], scores: Sequence[float], truth: Sequence[Any], whole: bool = True) -> Any:
    """A photo's found boxes, their scores, the true boxes, and whether all of its objects are labelled."""
    return (
        np.array(boxes, float).reshape(-1, 4),
        np.array(scores, float),
        np.array(truth, float).reshape(-1, 4),
        whole,
    )


def counted(*photos: Any, threshold: float = 0.5) -> tuple[float, float]:
    return recall_and_false(*zip(*photos, strict=True), threshold)


def precision(*photos: Any) -> float:
    return average_precision(*zip(*photos, strict=True))


A, B, FAR = box_at(0), box_at(30), box_at(200, 200)


def test_everything_found_and_nothing_else_is_perfect() -> None:
    photos = photo([A, B], [0.9, 0.6], [B, A]), photo([], [], []), photo([FAR], [0.7], [FAR])
    assert counted(*photos) == (1.0, 0.0)
    assert precision(*photos) == 1.0


def test_nothing_found_counts_nothing() -> None:
    photos = photo([], [], [A, B]), photo([], [], [A])
    assert counted(*photos) == (0.0, 0.0)
    assert precision(*photos) == 0.0
    assert precision(photo([FAR], [0.9], [])) == 0.0


def test_a_second_box_on_one_object_is_false() -> None:
    double = photo([A, box_at(1), B], [0.8, 0.9, 0.7], [A, B])
    assert counted(double) == (1.0, 1.0)
    # In order of their scores: right, false, right. Precision 1 up to half of the recall, then 2/3.
    assert precision(double) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_false_boxes_are_counted_for_each_photo() -> None:
    photos = photo([A, FAR], [0.9, 0.8], [A]), photo([FAR], [0.7], []), photo([], [], [B])
    assert counted(*photos) == (0.5, pytest.approx(2 / 3))
    assert counted(*photos, threshold=0.75) == (0.5, pytest.approx(1 / 3))
    assert counted(*photos, threshold=0.9) == (0.5, 0.0)
    assert counted(*photos, threshold=0.95) == (0.0, 0.0)


def test_boxes_away_from_the_labels_of_an_incomplete_photo_do_not_count() -> None:
    found = [A, FAR, box_at(32, 1), box_at(24)], [0.9, 0.8, 0.7, 0.6], [A, B]
    assert counted(photo(*found)) == (1.0, 2.0)
    assert counted(photo(*found, whole=False)) == (1.0, 1.0)  # the last one touches a label and shows none
    assert precision(photo(*found)) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert precision(photo(*found, whole=False)) == 1.0


def test_a_box_that_overlaps_too_little_is_false_and_misses() -> None:
    for shift, hit in ((4.2, 1.0), (4.4, 0.0)):  # IoU 0.408 and 0.389
        off = photo([box_at(shift)], [0.9], [A])
        assert counted(off) == (hit, 1 - hit)
        assert precision(off) == hit
    shifted = np.array([[2.0, 0.0, 12.0, 10.0]])  # IoU 2/3
    assert recall_and_false([shifted], [np.ones(1)], [np.array([A])], [True], 0.5, overlap=0.7) == (0.0, 1.0)


def test_precision_by_hand() -> None:
    """Right, false, false, right, of three objects."""
    photos = photo([A, FAR], [0.9, 0.8], [A, B]), photo([FAR, B], [0.7, 0.6], [B])
    assert precision(*photos) == pytest.approx((1 + 2 / 4) / 3)
    # A later, better precision lifts what came before: false, right, right.
    assert precision(photo([FAR, A, B], [0.9, 0.8, 0.7], [A, B])) == pytest.approx(2 / 3)


def test_each_box_shows_the_object_it_overlaps_most() -> None:
    left, right = box_at(0), box_at(4)
    match, touches = match_boxes(
        np.array([box_at(3.5), box_at(0.5), box_at(9), FAR]), np.array([left, right]), 0.4
    )
    assert match.tolist() == [1, 0, -1, -1]
    assert touches.tolist() == [True, True, True, False]
    # The first takes the object; the second takes the other one, though it lies nearer to the first.
    match, _ = match_boxes(np.array([box_at(4), box_at(3)]), np.array([left, right]), 0.4)
    assert match.tolist() == [1, 0]
    match, touches = match_boxes(np.array([left]), np.zeros((0, 4)), 0.4)
    assert (match.tolist(), touches.tolist()) == ([-1], [False])


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_boxes_and_photos_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(200) / 200  # no two alike
    photos = []
    for i in range(5):
        truth = [box_at(x) for x in 25 * np.arange(rng.integers(0, 5))]
        boxes = [np.array(t) + rng.normal(0, 2, 4) for t in truth if rng.random() < 0.8]
        boxes += [np.array(box_at(*rng.uniform(0, 100, 2))) for _ in range(rng.integers(0, 4))]
        photos.append(photo(boxes, scores[20 * i : 20 * i + len(boxes)], truth, bool(rng.random() < 0.7)))
    shuffled = []
    for i in rng.permutation(5):
        boxes, score, truth, whole = photos[i]
        order, other = rng.permutation(len(boxes)), rng.permutation(len(truth))
        shuffled.append((boxes[order], score[order], truth[other], whole))
    assert counted(*shuffled) == counted(*photos)
    assert precision(*shuffled) == pytest.approx(precision(*photos))
    assert 0 <= precision(*photos) <= 1


@given(st.integers(0, 2**32 - 1))
def test_a_lower_threshold_finds_no_less_and_raises_no_fewer_false_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = [box_at(*rng.uniform(0, 40, 2)) for _ in range(8)]
    one = photo(boxes, rng.uniform(0, 1, 8), [A, B, box_at(15, 15)])
    figures = [counted(one, threshold=t) for t in np.linspace(0, 1, 11)]
    assert figures == sorted(figures, reverse=True)
    assert [f for _, f in figures] == sorted((f for _, f in figures), reverse=True)


def test_no_photo_is_refused() -> None:
    with pytest.raises(ValueError, match="no photo"):
        recall_and_false([], [], [], [], 0.5)


# ---- area under the ROC curve ----------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_roc_auc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([s for s, _ in rows]) / 7, np.array([p for _, p in rows])
    yes, no = scores[positive], scores[~positive]
    if not len(yes) or not len(no):
        with pytest.raises(ValueError, match="nothing to tell apart"):
            roc_auc(scores, positive)
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in yes for b in no]
    assert roc_auc(scores, positive) == pytest.approx(sum(pairs) / len(pairs))
