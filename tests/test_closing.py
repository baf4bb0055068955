"""A closed detector answers no more, says so, and holds nothing."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from edge_kp import Detector, Tracker
from edge_kp.backends import open_backend
from edge_kp.each_frame import EachFrame
from edge_kp.errors import BackendError
from edge_kp.extras import installed
from edge_kp.modeldir import SHIPPED, read_model
from edge_kp.types import Array


@pytest.fixture(params=["onnxruntime", "openvino"])
def library(request: pytest.FixtureRequest) -> str:
    if not installed(request.param):
        pytest.skip(f"no {request.param}")
    return str(request.param)


def test_a_closed_network_is_let_go_and_refuses(library: str) -> None:
    backend = open_backend(library, SHIPPED / "face68" / "stage1.fp32.onnx", "fp32", 1)
    kind = {"onnxruntime": "InferenceSession", "openvino": "InferRequest"}[library]
    (held,) = (value for value in vars(backend).values() if type(value).__name__ == kind)
    side = read_model(SHIPPED / "face68").sizes[0]
    image = np.zeros((1, side, side, 3), np.uint8)
    kept = backend.run(image)["keypoints"]
    before = kept.copy()
    alive = weakref.ref(held)
    del held
    assert alive() is not None
    for _ in range(2):
        backend.close()
        assert alive() is None
        with pytest.raises(BackendError, match=r"stage1\.fp32\.onnx is closed.*make a new Detector"):
            backend.run(image)
    np.testing.assert_array_equal(kept, before)  # results are the caller's own


def test_a_closed_detector_refuses_and_so_does_what_follows_with_it(
    library: str, frames: list[Array]
) -> None:
    with Detector("face68", threads=1, backend=library) as detector:
        trackers = [Tracker(detector), EachFrame(detector)]
        assert all(tracker.update(frames[0]) for tracker in trackers)
    detector.close()  # a second time
    calls = [
        lambda: detector.detect(frames[0]),
        lambda: detector.detect(frames[0], []),
        detector.check,
        *(lambda tracker=tracker: tracker.update(frames[1]) for tracker in trackers),
    ]
    for call in calls:
        told = r"^the detector face68 is closed and cannot run again; make a new Detector$"
        with pytest.raises(BackendError, match=told):
            call()


def test_a_detector_is_closed_after_the_calls_in_progress(library: str, frames: list[Array]) -> None:
    detector = Detector("face68", threads=1, backend=library)
    (expected,) = detector.detect(frames[0])
    same: list[bool] = []
    ends: list[Exception] = []
    called = threading.Event()

    def work() -> None:
        try:
            while True:
                (found,) = detector.detect(frames[0])
                same.append(np.array_equal(found.keypoints, expected.keypoints))
                called.set()
        except Exception as error:
            ends.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert called.wait(60)
    detector.close()
    for thread in threads:
        thread.join(60)
    assert all(same)
    assert [type(error) for error in ends] == [BackendError] * 3
    assert all("is closed" in str(error) for error in ends)
