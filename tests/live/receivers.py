"""What the tests of UDP and MQTT share: results to send, patience, and that nothing is left open."""

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_kp.live.frames import Frame
from edge_kp.live.statistics import Result
from edge_kp.types import Detection, HeadPose

PATIENCE_S = 40  # of a test with a busy machine
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as Linux reports it")


def result(index, objects=1, source=0):
    points = np.full((68, 2), 123.456, np.float32)
    box = np.array([1, 2, 3, 4], np.float32)
    pose = HeadPose(1.0, 2.0, 3.0)
    found = Detection(3, box, 0.9, points, np.ones(68, np.float32), {"occlusion": 0.5}, pose)
    frame = Frame(index, index / 25, 0.0, np.zeros((4, 4, 3), np.uint8), source)
    return Result(frame, [found] * objects, {"total": 0.01})


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


def threads():
    return {thread for thread in threading.enumerate() if "mqtt" in thread.name}


def open_files():
    """What is open beyond the log and the test runner's own files: sockets."""
    fds = Path("/proc/self/fd")
    if not fds.exists():
        return 0
    links = []
    for fd in fds.iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(fd))
    return sum(link.startswith("socket:") for link in links)


@contextlib.contextmanager
def nothing_left_open():
    before, sockets = threads(), open_files()
    yield
    wait_until(lambda: threads() <= before, "paho's threads end")
    wait_until(lambda: open_files() <= sockets, "sockets are closed")
