"""What the tests of the page share: results to show, a page that leaves nothing behind, and a client."""

import contextlib
import http.client
import json
import threading
import time
import urllib.parse
from types import SimpleNamespace

import cv2
import numpy as np

from edge_kp.errors import SinkError
from edge_kp.live.frames import Frame
from edge_kp.live.page import PageSink
from edge_kp.live.statistics import Result, Summary
from edge_kp.types import Detection

WAIT_S = 30  # what never comes shows as a failure and not as a test run that hangs
OWN = {"X-Edge-KP": "1"}
LIVE = SimpleNamespace(fps=None, live=True)
FILE = SimpleNamespace(fps=25.0, live=False)


def detection(number=3, pose=None):
    points = np.array([[1, 2], [3, 4]], np.float32)
    visibility = np.array([1.0, 0.5], np.float32)
    box = np.array([1, 2, 3, 4], np.float32)
    return Detection(number, box, 0.91234, points, visibility, {"occlusion": 0.25}, pose)


def result(index, level=None, source=0, image=None, found=None):
    """A grey picture whose level says which it is."""
    level = index % 250 if level is None else level
    image = np.full((48, 64, 3), level, np.uint8) if image is None else image
    found = [detection()] if found is None else found
    return Result(Frame(index, index / 25, time.monotonic(), image, source), found, {"total": 0.02})


def plain(result):
    return result.frame.image


def until(condition, what):
    """The first true answer of ``condition``."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


class Button:
    """A recorder that only notes what it was told."""

    def __init__(self, refuse=None):
        self.recording, self.problem, self.told, self.refuse = None, None, [], refuse

    def start(self):
        self.told.append("start")
        if self.refuse is not None:
            raise SinkError(self.refuse)
        self.recording = "a.mp4"
        return self.recording

    def stop(self):
        self.told.append("stop")
        self.recording = None


@contextlib.contextmanager
def pages():
    """Makes pages and closes them at the end; no thread of them may be left."""
    made = []

    def make(draw=plain, summary=Summary, recorder=None, port=0, **more):
        made.append(PageSink(port, draw, summary, recorder, **more))
        return made[-1]

    yield make
    for page in made:
        page.close()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("edge_kp")], "threads to end")


def port_of(page):
    return urllib.parse.urlsplit(page.url).port


def ask(page, path, method="GET", headers=None):
    """Status, headers and body of an answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=WAIT_S)) as wire:
        wire.request(method, path, headers=headers or {})
        answer = wire.getresponse()
        return answer.status, answer.headers, answer.read()


def state(page, query=""):
    return json.loads(ask(page, f"/state{query}")[2])


def levels_of(path):
    clip = cv2.VideoCapture(str(path))
    assert clip.isOpened()
    levels = []
    while (item := clip.read())[0]:
        levels.append(round(item[1].mean()))
    return levels


def indices_of(path):
    text = path.read_text()
    assert text.endswith("}\n")
    return [json.loads(line)["frame"] for line in text.splitlines()]
