"""Whether a window can be opened is found out without risking the process."""

import sys

import numpy as np
import pytest

import edge_kp.live.preview as preview
from edge_kp.live.frames import Frame
from edge_kp.live.preview import Preview, display_available
from edge_kp.live.statistics import Result

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays are named so on Linux only")


@linux
def test_without_a_display_nothing_is_tried(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(preview.subprocess, "run", lambda *a, **k: pytest.fail("no window may be tried"))
    assert display_available() == (False, "no display (DISPLAY is not set)")


@linux
def test_a_display_that_does_not_answer_ends_another_process_and_not_this_one(monkeypatch):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":987")
    shown, why = display_available()
    assert not shown
    assert why


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("raise SystemExit('The function is not implemented. Rebuild the library')", "no windows"),
        ("raise SystemExit('anything else')", "cannot be opened"),
        ("pass", ""),
    ],
)
def test_the_reason_is_told(monkeypatch, probe, expected):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(preview, "_PROBE", probe)
    shown, why = display_available()
    assert shown == (expected == "")
    assert expected in why


def test_a_preview_that_showed_nothing_opens_no_window():
    window = Preview(["edge_kp"], lambda result: result.frame.image)
    assert not window.wants_to_quit()
    window.close()


def test_titles_are_such_as_opencv_takes_without_a_crash(monkeypatch):
    titles = []
    for name in ("namedWindow", "resizeWindow", "imshow", "destroyWindow"):
        monkeypatch.setattr(preview.cv2, name, lambda title, *_: titles.append(title))
    window = Preview(["grün", "m\udcfcller"], lambda result: result.frame.image)
    for source in (0, 1):
        frame = Frame(0, 0.0, 0.0, np.zeros((48, 64, 3), np.uint8), source)
        window.show(Result(frame, [], {"total": 0.0}))
    window.close()
    assert set(titles) == {"grün", "m\\udcfcller"}
