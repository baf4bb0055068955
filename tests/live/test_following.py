"""How inference threads and cores are shared among sources."""

import os

import pytest

from edge_kp.live.following import share_cores


@pytest.mark.parametrize(
    ("backend", "sources", "threads", "expected"),
    [
        ("onnxruntime", 1, None, (1, None)),  # the backend's own choice
        ("onnxruntime", 1, 3, (1, 3)),
        ("onnxruntime", 2, 2, (2, 1)),
        ("openvino", 2, 8, (2, 4)),
        ("openvino", 5, 2, (2, 1)),
        ("openvino", 4, 1, (1, 1)),
        ("tensorrt", 4, None, (1, None)),
    ],
)
def test_cores_are_shared(backend, sources, threads, expected):
    assert share_cores(backend, sources, threads) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores of a process are Linux's")
def test_only_cores_that_the_process_may_use_count():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert share_cores("onnxruntime", 3, None) == (1, 1)
    finally:
        os.sched_setaffinity(0, before)
