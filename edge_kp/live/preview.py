"""The preview window, and whether there can be one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import cv2

from edge_kp.errors import SinkError
from edge_kp.live.sinks import Draw
from edge_kp.live.statistics import Result

_QUIT_KEYS = (ord("q"), ord("Q"), 27)
_PROBE = "import cv2; cv2.namedWindow('edge_kp'); cv2.waitKey(1); cv2.destroyAllWindows()"


def display_available() -> tuple[bool, str]:
    """Whether a window can be opened here, and if not, why.

    OpenCV's Qt aborts the whole process where it cannot reach a display, so another process tries first.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False, "no display (DISPLAY is not set)"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=15,
        )
    except subprocess.TimeoutExpired:
        return False, "the display does not answer"
    except OSError as error:
        return False, f"no window could be tried ({error})"
    if probe.returncode == 0:
        return True, ""
    if "not implemented" in probe.stderr:
        return False, "this OpenCV build has no windows (opencv-python-headless)"
    return False, f"the display {os.environ.get('DISPLAY', '')!r} cannot be opened"


class Preview:
    """The newest results, in a window for each source, opened by its first. Used in the main thread.

    Args:
        titles: of the windows.
        draw: makes the picture of a result.
        any_key: end on any key, for a single picture, and not only on q or Esc.
    """

    def __init__(self, titles: Sequence[str], draw: Draw, *, any_key: bool = False) -> None:
        # OpenCV crashes on what is not UTF-8, as names of files may be.
        self._titles = [title.encode(errors="backslashreplace").decode() for title in titles]
        self._draw = draw
        self._any_key = any_key
        self._open: set[str] = set()

    def show(self, result: Result) -> None:
        """Put a result into the window of its source.

        Raises:
            SinkError: the window system refuses.
        """
        image = self._draw(result)
        title = self._titles[result.frame.source]
        try:
            if title not in self._open:
                cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                height, width = image.shape[:2]
                scale = min(1.0, 1280 / width, 800 / height)
                cv2.resizeWindow(title, max(int(width * scale), 64), max(int(height * scale), 64))
                self._open.add(title)
            cv2.imshow(title, image)
        except cv2.error as error:
            raise SinkError(f"the preview window failed ({error.err}): run again with --headless") from error

    def wants_to_quit(self) -> bool:
        """Handle window events for 10 ms; True once a window was closed, or q or Esc pressed."""
        if not self._open:
            time.sleep(0.01)
            return False
        key = cv2.waitKey(10)
        if key >= 0 and (self._any_key or key & 0xFF in _QUIT_KEYS):
            return True
        try:
            return any(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1 for title in self._open)
        except cv2.error:  # Qt forgets a last window that was closed by its own button
            return True

    def close(self) -> None:
        """Take all windows away."""
        for title in self._open:
            with suppress(cv2.error):  # already closed by the user
                cv2.destroyWindow(title)
                cv2.waitKey(1)
        self._open.clear()
