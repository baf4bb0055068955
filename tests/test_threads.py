"""One detector, or one tracker, that several threads call: each gets what it would get alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edge_kp import Detection, Detector, Tracker
from edge_kp.each_frame import EachFrame
from edge_kp.extras import installed
from edge_kp.types import Array

CALLS = 30


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    if not installed(request.param):
        pytest.skip(f"no {request.param}")
    with Detector("face68", threads=1, backend=request.param) as detector:
        yield detector


@pytest.fixture(scope="module")
def pictures(frames: list[Array]) -> list[Array]:
    """One for each thread; the last shows two faces."""
    return [frames[0], frames[20][:, ::-1].copy(), np.hstack([frames[0], frames[0][:, ::-1]])]


def in_threads(works: list[Callable[[], Any]]) -> list[Any]:
    """What each work returns, all of them at once; what one raises is raised."""
    results: list[Any] = [None] * len(works)
    start = threading.Barrier(len(works))

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = works[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def numbers(found: list[Detection]) -> list[Any]:
    return [(d.id, d.score, d.keypoints.tolist(), d.visibility.tolist(), d.pose) for d in found]


def test_a_detector_gives_each_thread_what_it_gives_it_alone(
    detector: Detector, pictures: list[Array]
) -> None:
    expected = [numbers(detector.detect(picture)) for picture in pictures]
    assert [len(found) for found in expected] == [1, 1, 2]

    def work(picture: Array) -> Callable[[], list[Any]]:
        return lambda: [numbers(detector.detect(picture)) for _ in range(CALLS)]

    for seen, alone in zip(in_threads([work(p) for p in pictures]), expected, strict=True):
        assert all(found == alone for found in seen)


def test_trackers_of_several_threads_share_a_detector(detector: Detector, frames: list[Array]) -> None:
    def work(images: list[Array]) -> Callable[[], list[Any]]:
        tracker = Tracker(detector)
        return lambda: [numbers(tracker.update(image)) for image in images]

    videos = [frames[:CALLS], [image[:, ::-1] for image in frames[20 : 20 + CALLS]]]
    expected = [work(video)() for video in videos]
    assert in_threads([work(video) for video in videos]) == expected


@pytest.mark.parametrize("kind", [Tracker, EachFrame])
def test_a_tracker_takes_the_frames_of_several_threads_one_after_another(
    detector: Detector, pictures: list[Array], kind: type[Tracker] | type[EachFrame]
) -> None:
    """All frames are the same, so it does not matter which comes first."""
    alone, shared = kind(detector), kind(detector)
    expected = [numbers(alone.update(pictures[2])) for _ in range(2 * CALLS)]

    def work() -> list[Any]:
        return [numbers(shared.update(pictures[2])) for _ in range(CALLS)]

    seen = [found for thread in in_threads([work, work]) for found in thread]
    assert sorted(seen, key=repr) == sorted(expected, key=repr)
