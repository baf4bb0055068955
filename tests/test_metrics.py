import numpy as np
import pytest

from edge_kp.metrics import auc, cumulative_curve, failure_rate, nme
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
