"""What a source is: a stream of frames."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2

from edge_kp.types import Array

# Seconds that never go back, on Linux and macOS those of time.monotonic(). On Windows that one may go in
# steps of 15 ms, half of the time between two frames.
clock = time.perf_counter


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        index: number of the frame since the source was opened; a gap means frames that were dropped, or
            that could not be decoded.
        time_s: seconds since the first frame: what a clip states, ``index / fps`` where it states nothing,
            the clock for a live source.
        captured: :func:`clock` when the frame was taken (camera) or read.
        image: (H, W, 3) uint8, BGR.
        source: number of the source in the run, from 0.
        file: the picture's file; None for frames of a video.
    """

    index: int
    time_s: float
    captured: float
    image: Array
    source: int = 0
    file: str | None = None


class Source(Protocol):
    """A stream of frames. One thread reads it, and the same thread closes it.

    Attributes:
        live: frames come by the clock, whether they are read or not.
        fps: frames per second; None where the device does not say.
        size: (width, height) of the first frame, pixels.
        name: short name for people, without credentials.
        names_files: its frames are pictures, each with the name of its file.
    """

    live: bool
    fps: float | None
    size: tuple[int, int]
    name: str
    names_files: bool

    @property
    def skipped(self) -> int:
        """Pictures left out so far because they were damaged."""

    @property
    def returns(self) -> int:
        """How often the source was gone and came back."""

    def read(self) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: a live source stopped delivering.
        """

    def stop(self) -> None:
        """From any thread: a read that waits for a source to come back ends, with None."""

    def close(self) -> None:
        """Give the device or file back; a second call does nothing."""


@dataclass(frozen=True)
class CaptureOptions:
    """How to take frames.

    Attributes:
        width, height, fps: what to ask a camera for; it gives what it can. None leaves it to the camera.
        rotate: turn every picture clockwise by so many degrees: 0, 90, 180 or 270.
        mirror: then exchange left and right.
        threads: CPU threads that decode a clip or stream; None leaves the choice to the decoder.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    rotate: int = 0
    mirror: bool = False
    threads: int | None = None

    @property
    def asks(self) -> bool:
        """Is anything asked of the camera?"""
        return any(value is not None for value in (self.width, self.height, self.fps))


def is_utf8(text: str) -> bool:
    """Can OpenCV be given this text? It crashes on names of files whose bytes are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_for_ffmpeg(path: Path) -> str:
    """The path with a folder in front: FFmpeg takes what precedes a colon (12:30.mp4) for a protocol."""
    return os.path.join(os.curdir, path)


def quiet_opencv() -> None:
    """Keep OpenCV and FFmpeg from printing pages around our one line; their own variables still win.

    FFmpeg reads its variable once, when OpenCV first touches it, so this runs before any capture or writer.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # The OpenCV of Debian 12 and of JetPack is older and has no such switch.
    if "OPENCV_LOG_LEVEL" not in os.environ and hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
