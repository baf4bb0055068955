"""Counts, seconds and time stamps that are none are refused in one line, before anything is done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edge_kp import Detector, Tracker
from edge_kp.each_frame import EachFrame
from edge_kp.errors import BackendError
from edge_kp.types import Array

NO_NUMBERS = (None, True, np.True_, "1", b"1", [1], np.ones(2), 1j)
NO_COUNTS = (*NO_NUMBERS, 1.0, 1.5, math.nan, np.float32(2), 0, -1, np.int64(-3))
NO_SECONDS = (*NO_NUMBERS, -1.0, math.nan, math.inf, 10**400)


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector("face68", threads=1, backend="onnxruntime") as detector:
        yield detector


def refusal(error: pytest.ExceptionInfo[Exception], name: str) -> None:
    text = str(error.value)
    assert text.startswith(f"{name}: expected ")
    assert "\n" not in text
    assert len(text) < 150


def ids(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:8]}"


@pytest.mark.parametrize("name", ["max_objects", "locate_every"])
@pytest.mark.parametrize("value", NO_COUNTS, ids=ids)
def test_counts_of_a_tracker(detector: Detector, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name) as error:
        Tracker(detector, **{name: value})
    refusal(error, name)


@pytest.mark.parametrize("value", NO_COUNTS[1:], ids=ids)  # None gives all
def test_the_count_of_single_frames(detector: Detector, frames: list[Array], value: Any) -> None:
    with pytest.raises(ValueError, match="max_objects") as error:
        EachFrame(detector, value)
    refusal(error, "max_objects")


@pytest.mark.parametrize("value", NO_SECONDS, ids=ids)
def test_how_long_is_remembered(detector: Detector, value: Any) -> None:
    with pytest.raises(ValueError, match="remember") as error:
        Tracker(detector, remember=value)
    refusal(error, "remember")


@pytest.mark.parametrize("name", ["threads", "tiles"])
@pytest.mark.parametrize("value", NO_COUNTS[1:], ids=ids)
def test_counts_of_a_detector(name: str, value: Any) -> None:
    with pytest.raises((ValueError, BackendError), match=name) as error:
        Detector("face68", **{name: value})
    refusal(error, name)


@pytest.mark.parametrize(("name", "value"), [("threads", 10**400), ("threads", 2**31), ("tiles", None)])
def test_other_counts_of_a_detector(name: str, value: Any) -> None:
    with pytest.raises((ValueError, BackendError), match=name) as error:
        Detector("face68", **{name: value})
    refusal(error, name)


def test_whole_numbers_of_numpy_are_counts(detector: Detector, frames: list[Array]) -> None:
    one, two = np.int64(1), np.uint8(2)
    with Detector("face68", backend="onnxruntime", threads=one, tiles=one) as other:  # type: ignore[arg-type]
        assert len(other.detect(frames[0])) == 1
    both = np.hstack([frames[0], frames[0][:, ::-1]])
    assert len(Tracker(detector, max_objects=one, locate_every=two).update(both)) == 1
    assert len(Tracker(detector, remember=np.float32(0)).update(both)) == 2
    assert len(EachFrame(detector, two).update(both)) == 2


@pytest.mark.parametrize("value", [*NO_NUMBERS[1:], 10**400], ids=ids)
def test_a_time_stamp_that_is_no_number_is_refused_and_changes_nothing(
    detector: Detector, frames: list[Array], value: Any
) -> None:
    tracker, untouched = Tracker(detector), Tracker(detector)
    for i, image in enumerate(frames[:4]):
        with pytest.raises(ValueError, match="time_s") as error:
            tracker.update(image[:200] if i == 2 else image, value)  # another size would start afresh
        refusal(error, "time_s")
        seen, expected = tracker.update(image, i / 10), untouched.update(image, i / 10)
        assert [d.id for d in seen] == [d.id for d in expected] == [1]
        np.testing.assert_array_equal(seen[0].keypoints, expected[0].keypoints)


@pytest.mark.parametrize("kind", [np.float32, np.float64, Fraction, np.int64])
def test_time_stamps_may_be_numbers_of_any_kind(detector: Detector, frames: list[Array], kind: Any) -> None:
    tracker, expected = Tracker(detector), Tracker(detector)
    for i in range(4):
        seen = tracker.update(frames[20 + i], kind(i))
        np.testing.assert_array_equal(
            seen[0].keypoints, expected.update(frames[20 + i], float(i))[0].keypoints
        )


@pytest.mark.parametrize("stamp", [lambda i: 5.0, lambda i: -i / 100, lambda i: math.nan])
def test_a_time_stamp_that_is_not_after_the_last_one_is_as_good_as_none(
    detector: Detector, frames: list[Array], stamp: Any
) -> None:
    tracker, expected = Tracker(detector), Tracker(detector)
    for i in range(12):
        (seen,), (wanted,) = tracker.update(frames[20 + i], stamp(i)), expected.update(frames[20 + i])
        np.testing.assert_array_equal(seen.keypoints, wanted.keypoints)


def test_the_clock_goes_on_from_a_stamp_that_went_back(detector: Detector, frames: list[Array]) -> None:
    """As where a clip begins again: what comes later is measured from there."""
    tracker = Tracker(detector, remember=1.0)
    for i, time_s in enumerate((100.0, 100.1, 0.0, 0.1)):
        assert [d.id for d in tracker.update(frames[20 + i], time_s)] == [1]
    for time_s in (0.2, 0.4):
        assert tracker.update(np.zeros_like(frames[0]), time_s) == []
    for time_s in (0.9, 1.1, 1.6, 2.0):  # by now it is forgotten
        assert tracker.update(np.zeros_like(frames[0]), time_s) == []
    assert [d.id for d in tracker.update(frames[23], 2.1)] == [2]
