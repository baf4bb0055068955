"""Something made of every sample: side by side as one after the other, all problems told, no end unseen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

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
    monkeypatch.setattr(loading, "_processes", lambda: cores)
    numbers, places = zip(*of_each(number_and_place, samples(count), progress=False), strict=True)
    assert numbers == tuple(range(count))
    assert (set(places) == {os.getpid()}) == alone
    assert len(set(places)) <= cores


@pytest.mark.parametrize("count", [8, MANY])
def test_every_problem_is_told_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_processes", lambda: 2)
    with pytest.raises(DataError) as caught:
        list(of_each(odd_ones_fail, samples(count), progress=False))
    assert caught.value.problems == ("1 is odd", "and so are others", "3 is odd", "5 is odd")


def test_a_process_that_is_killed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_processes", lambda: 2)
    with pytest.raises(
        DataError, match="want of memory: close other programs, or use fewer photos"
    ) as caught:
        list(of_each(end_at_a_hundred, samples(MANY), progress=False))
    assert len(caught.value.problems) == 1


def test_threads_that_opencv_had_before_hold_nothing_up() -> None:
    """In a process of its own, which is killed if it hangs."""
    script = (
        "import cv2, numpy as np\n"
        "from edge_kp.training import loading\n"
        "from test_loading import number_and_place, samples\n"
        "loading._processes = lambda: 2\n"
        "cv2.setNumThreads(4)\n"
        "cv2.resize(np.zeros((4000, 4000, 3), np.uint8), (1000, 1000), interpolation=cv2.INTER_AREA)\n"
        "print(len(list(loading.of_each(number_and_place, samples(300), progress=False))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "300\n", done.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes run")
def test_processes_end_with_the_one_that_started_them() -> None:
    script = (
        "import time\n"
        "from edge_kp.training import loading\n"
        "from test_loading import number_and_place, samples\n"
        "loading._processes = lambda: 2\n"
        "found = loading.of_each(number_and_place, samples(300), progress=False)\n"
        "print(*{next(found)[1] for _ in range(200)}, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert children
    until = time.monotonic() + 30
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < until, "they live on"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    """A process that has ended may stay in the list until somebody asks for how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_what_is_not_wanted_any_more_is_not_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "_processes", lambda: 2)
    found = of_each(partial(slowly_noted, tmp_path), samples(2000), progress=False)
    next(found)
    found.close()
    assert len(list(tmp_path.iterdir())) < 1000


def slowly_noted(folder: Path, sample: Sample) -> int:
    time.sleep(0.002)
    (folder / sample.key).touch()
    return 0


def test_photos_read_side_by_side_are_those_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = load_dataset(["synthetic:9,seed=5"]).samples
    monkeypatch.setattr(loading, "_processes", lambda: 2)
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
