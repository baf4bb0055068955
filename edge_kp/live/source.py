"""Where frames come from: a camera, a clip, a folder, a picture or a network stream.

A live source (camera, endless stream) is read as fast as it delivers and its frames carry the clock's time;
any other source has an end and its frames are evenly spaced in time.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from edge_kp.errors import SourceError
from edge_kp.types import Array

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
# Pictures have no frame rate of their own; 25 per second is what ffmpeg gives an image sequence.
PICTURES_FPS = 25.0
# How long a network stream may stay silent, when it is opened and later, before it counts as gone.
STREAM_TIMEOUT_MS = 5000


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        index: number of the frame since the source was opened; a gap means frames that were dropped.
        time_s: seconds since the first frame: ``index / fps`` for a file, the clock for a live source.
        captured: ``time.monotonic()`` at which the frame was taken (camera) or read.
        image: (H, W, 3) uint8, BGR.
    """

    index: int
    time_s: float
    captured: float
    image: Array


class Source(Protocol):
    """A stream of frames. One thread reads it, and the same thread closes it.

    Attributes:
        live: frames come by the clock, whether they are read or not.
        fps: frames per second; None where the device does not say.
        size: (width, height) of the first frame, pixels.
        name: short name for people, without credentials.
        skipped: pictures left out so far because they were damaged.
    """

    live: bool
    fps: float | None
    size: tuple[int, int]
    name: str
    skipped: int

    def read(self) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: a live source stopped delivering.
        """

    def close(self) -> None:
        """Give the device or file back; a second call does nothing."""


def open_source(spec: str | int) -> Source:
    """Open a source and read its first frame, so that what cannot be read fails here.

    Args:
        spec: camera index (``0`` or ``"0"``), V4L2 path (``/dev/video0``), video file, picture, folder of
            pictures, or URL (http, rtsp, …). A file whose name is a number is written ``./0``.

    Raises:
        SourceError: nothing there, not permitted, in use, or not readable.
    """
    quiet_opencv()
    text = str(spec)
    if "://" in text:
        return _open_url(text)
    if text.isascii() and text.isdigit():
        return _open_camera(int(text))
    path = Path(text)
    if text.startswith("/dev/video"):
        return _open_camera(path)
    if path.is_dir():
        return _open_pictures(path.resolve().name, _pictures_in(path))
    if not path.exists():
        hint = "" if path.parent.is_dir() else f" (there is no folder {path.parent})"
        raise SourceError(f"{text}: no such file{hint}: check the path")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{text}: permission denied: make the file readable (chmod +r)")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _open_pictures(path.name, [path])
    return _open_clip(path)


def input_files(spec: str | int) -> list[Path]:
    """The existing files a source reads, so that no output is written over one of them."""
    path = Path(str(spec))
    if path.is_dir():
        return [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    return [path] if path.exists() else []


def quiet_opencv() -> None:
    """Keep OpenCV and FFmpeg from printing pages around our one line; their own variables still win.

    FFmpeg reads its variable once, when OpenCV first touches it, so this runs before any capture or writer.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Capture:
    """A clip, camera or stream behind ``cv2.VideoCapture``."""

    skipped = 0

    def __init__(self, capture: cv2.VideoCapture, first: Array, name: str, live: bool) -> None:
        self._capture = capture
        self._first: Array | None = first
        self._index = 0
        self._start: float | None = None
        stated = capture.get(cv2.CAP_PROP_FPS)
        known = math.isfinite(stated) and 1 <= stated <= 1000
        self.fps: float | None = stated if known else None if live else PICTURES_FPS
        self.live = live
        self.name = name
        self.size = (first.shape[1], first.shape[0])
        self._stamps = live and sys.platform.startswith("linux") and capture.getBackendName() == "V4L2"

    def read(self) -> Frame | None:
        image, captured = self._next()
        if image is None and self.live:
            raise SourceError(
                f"{self.name} stopped delivering frames: check its cable, power or network, then start again"
            )
        if image is None:
            return None
        if self._start is None:
            self._start = captured
        time_s = captured - self._start if self.live else self._index / (self.fps or PICTURES_FPS)
        frame = Frame(self._index, time_s, captured, image)
        self._index += 1
        return frame

    def _next(self) -> tuple[Array | None, float]:
        """The next image and when it was taken."""
        first, self._first = self._first, None
        if first is not None and not self.live:  # a live source's has grown old since it was opened
            return first, time.monotonic()
        grabbed = self._capture.grab()
        captured = self._capture_time()
        ok, image = self._capture.retrieve() if grabbed else (False, None)
        return (image if ok else None), captured

    def _capture_time(self) -> float:
        """When the frame was taken. V4L2 stamps its buffers with the monotonic clock; others say nothing."""
        now = time.monotonic()
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if self._stamps else now
        # Some drivers count from elsewhere: only a stamp of the last seconds can be of this clock.
        return stamp if 0 <= now - stamp < 10 else now

    def close(self) -> None:
        self._capture.release()


class Pictures:
    """Pictures read one after the other; a damaged one is skipped, said and counted."""

    live = False
    fps: float | None = PICTURES_FPS

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.skipped = 0
        self._images = self._load(paths)
        self._index = 0
        self._first = next(self._images, None)
        if self._first is None:
            which = (
                f"{paths[0]}: this"
                if len(paths) == 1
                else f"{paths[0].parent}: none of {len(paths)} pictures"
            )
            raise SourceError(f"{which} can be read as a picture: save it again as JPEG or PNG")
        self.size = (self._first.shape[1], self._first.shape[0])

    def _load(self, paths: Sequence[Path]) -> Iterator[Array]:
        for path in paths:
            image = read_picture(path)
            if image is not None:
                yield image
                continue
            self.skipped += 1
            if len(paths) > 1:
                log.warning("%s cannot be read as a picture: skipped", path)

    def read(self) -> Frame | None:
        image, self._first = (
            (self._first, None) if self._first is not None else (next(self._images, None), None)
        )
        if image is None:
            return None
        frame = Frame(self._index, self._index / PICTURES_FPS, time.monotonic(), image)
        self._index += 1
        return frame

    def close(self) -> None:
        self._images = iter(())


def read_picture(path: Path) -> Array | None:
    """The picture as (H, W, 3) uint8 BGR, turned as its EXIF says; None where it cannot be read."""
    try:
        data = np.fromfile(path, np.uint8)  # unlike cv2.imread it takes every path on every system
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        return None


def _pictures_in(folder: Path) -> list[Path]:
    try:
        paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}: make the folder readable") from error
    if not paths:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"{folder}: no picture in this folder: put {kinds} files directly into it")
    return sorted(paths, key=_natural)


def _natural(path: Path) -> list[str | int]:
    """Sort key that puts frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _open_pictures(name: str, paths: Sequence[Path]) -> Source:
    return Pictures(name, paths)


def _first_frame(capture: cv2.VideoCapture) -> Array | None:
    if capture.isOpened():
        ok, image = capture.read()
        if ok:
            return image
    capture.release()
    return None


def _open_clip(path: Path) -> Source:
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty: copy or record it again")
    capture = cv2.VideoCapture(str(path))
    first = _first_frame(capture)
    if first is None:
        raise SourceError(
            f"{path}: not a video that can be read (cut short, or another kind of file): "
            f"try to mend it with 'ffmpeg -i {path.name} -c:v libx264 mended.mp4'"
        )
    return Capture(capture, first, path.name, live=False)


def _open_url(url: str) -> Source:
    name = _without_password(url)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
    first = _first_frame(capture)
    if first is None:
        raise SourceError(
            f"{name}: no video comes from this address (waited up to {STREAM_TIMEOUT_MS / 1000:g} s): "
            "check the address, user name and network (ffplay or VLC should show it)"
        )
    # A clip on a web server has a length and must not lose frames; a stream has none.
    live = not url.lower().startswith("http") or capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    return Capture(capture, first, name, live)


def _without_password(url: str) -> str:
    place = url.partition("://")[2].partition("/")[0]
    user, at, _ = place.rpartition("@")
    return url.replace(f"{user}{at}", "", 1) if at else url


def _open_camera(which: int | Path) -> Source:
    """Open a camera by index, or by path on Linux."""
    linux = sys.platform.startswith("linux")
    node = which if isinstance(which, Path) else Path(f"/dev/video{which}")
    name = node.name.replace("video", "camera") if linux else f"camera{which}"
    if linux:
        _check_node(node)
    # V4L2 itself: the other ways OpenCV has to a camera queue frames or cannot be told not to.
    v4l2 = linux and cv2.CAP_V4L2 in cv2.videoio_registry.getCameraBackends()
    target = str(which) if isinstance(which, Path) else which
    capture = cv2.VideoCapture(target, cv2.CAP_V4L2 if v4l2 else cv2.CAP_ANY)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    first = _first_frame(capture)
    if first is None and linux:
        raise SourceError(
            f"{node} gives no picture: close the program that uses it ('fuser -v {node}' names it), "
            f"or try another camera{_others(node)}"
        )
    if first is None:
        raise SourceError(
            f"camera {which} gives no picture: check that it is plugged in, that no other program uses it, "
            "and that this terminal may use the camera"
        )
    return Capture(capture, first, name, live=True)


def _check_node(node: Path) -> None:
    """Say why a V4L2 node cannot be opened, as the system puts it."""
    try:
        os.close(os.open(node, os.O_RDWR | os.O_NONBLOCK))
    except FileNotFoundError:
        raise SourceError(f"{node}: no such camera: plug one in, or choose another{_others(node)}") from None
    except PermissionError:
        raise SourceError(
            f"{node}: permission denied: join the group 'video' (sudo usermod -aG video $USER), "
            "then log in again"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SourceError(f"{node}: {reason}: close the program that uses it, or plug it in again") from None


def _others(node: Path) -> str:
    found = sorted((p for p in Path("/dev").glob("video[0-9]*") if p != node), key=_natural)
    return f" (found: {', '.join(map(str, found))})" if found else " (none found)"
