"""Something made of every sample: side by side as one after the other, all problems told, no end unseen."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest

from edge_kp.errors import DataError
from edge_kp.training import loading
from edge_kp.training.datasets import load_dataset
from edge_kp.training.loading import MANY, of_each
from edge_kp.training.photos import read_photos
from edge_kp.training.regions import cut_regions
from edge_kp.training.samples import Sample


def samples(count: int) -> list[Sample]:
    return [Sample(str(i), np.zeros((2, 2)), np.ones(2), {}, partial(int, i)) for i in range(count)]


def number_and_place(sample: Sample) -> tuple[int, int]:
    return int(sample.key), os.getpid()


def odd_ones_fail(sample: Sample) -> str:
    if int(sample.key) % 2:
        raise DataError(f"{int(sample.key) % 6} is odd", "and so are others")
    return sample.key


def end_at_a_hundred(sample: Sample) -> int:
    if sample.key == "100":
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.parametrize(
    ("count", "cores", "alone"), [(MANY, 3, False), (MANY - 1, 3, True), (MANY, 1, True)]
)
def test_many_samples_are_shared_among_cores_and_stay_in_order(
    count: int, cores: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_cores", lambda: cores)
    numbers, places = zip(*of_each(number_and_place, samples(count), progress=False), strict=True)
    assert numbers == tuple(range(count))
    assert (set(places) == {os.getpid()}) == alone
    assert len(set(places)) <= cores


@pytest.mark.parametrize("count", [8, MANY])
def test_every_problem_is_told_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_cores", lambda: 2)
    with pytest.raises(DataError) as caught:
        of_each(odd_ones_fail, samples(count), progress=False)
    assert caught.value.problems == ("1 is odd", "and so are others", "3 is odd", "5 is odd")


def test_a_process_that_is_killed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_cores", lambda: 2)
    with pytest.raises(
        DataError, match="want of memory; close other programs, or use fewer photos"
    ) as caught:
        of_each(end_at_a_hundred, samples(MANY), progress=False)
    assert len(caught.value.problems) == 1


def test_photos_read_side_by_side_are_those_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = load_dataset(["synthetic:9,seed=5"]).samples
    monkeypatch.setattr(loading, "_cores", lambda: 2)
    plain = cut_regions(drawn, 60, "keypoints", progress=False), read_photos(drawn, progress=False)
    monkeypatch.setattr(loading, "MANY", 2)
    shared = cut_regions(drawn, 60, "keypoints", progress=False), read_photos(drawn, progress=False)
    for one, other in zip(plain[0], shared[0], strict=True):
        assert one.key == other.key
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.keypoints, other.keypoints)
    for a, b in zip(plain[1], shared[1], strict=True):
        assert a.key == b.key
        np.testing.assert_array_equal(a.levels[0], b.levels[0])
        np.testing.assert_array_equal(a.objects[0], b.objects[0])
