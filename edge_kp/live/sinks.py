"""Results as pictures: a video with the keypoints drawn in, or a single picture.

Each sink is used by one thread. A file is created when the first result arrives, so a run that fails before
leaves an older file as it was; what can be said about the path is said at construction.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_kp.errors import SinkError
from edge_kp.files import IMAGE_SUFFIXES, replacing
from edge_kp.live.frames import is_utf8, path_for_ffmpeg, quiet_opencv
from edge_kp.live.statistics import Result
from edge_kp.types import Array

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".avi"})
# A live recording is evenly timed at no more than this, whatever the camera promises.
LIVE_FPS = 30.0
MOST_PIXELS = 8190  # a side; MPEG-4 Part 2 has no larger pictures
# Recording stops while this much is free: OpenCV hides write errors, and the index at the end needs room.
RESERVE_BYTES = 16 * 2**20

Draw = Callable[[Result], Array]


class VideoSink:
    """A video, by default MP4 (MPEG-4 Part 2, which every OpenCV build can write), playable once closed.

    A file or folder gives one video frame per result. A live source delivers unevenly, so each result takes
    the time it was captured at: late frames are repeated into the gaps and the recording plays at true speed.
    Pictures of more than 8190 pixels a side are scaled down to that.

    Args:
        draw: makes the picture of a result; called in the sink's thread.
        fps: of the source; None where it does not say.
        source: number of the source to record, of several.
        create_parent: make the folder with the file instead of asking for it.

    Raises:
        SinkError: the path cannot be written, or is no kind of video.
    """

    def __init__(
        self,
        path: str | Path,
        draw: Draw,
        *,
        fps: float | None,
        live: bool = False,
        source: int | None = None,
        create_parent: bool = False,
    ) -> None:
        self.path = check_output(path, VIDEO_SUFFIXES, create_parent)
        self.name = str(path)
        if not is_utf8(self.name):
            raise SinkError(f"{path}: OpenCV writes no video whose name is not UTF-8: choose another name")
        self.source = source
        self.written = 0
        stated = fps if fps is not None and 0 < fps <= 1000 else LIVE_FPS
        self.fps = _countable(min(stated, LIVE_FPS) if live else stated)
        self._live = live
        self._draw = draw
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None
        self._slot = -1

    def write(self, result: Result) -> None:
        """Draw a result and add it to the video.

        Raises:
            SinkError: the disk is full or gone, or this OpenCV build writes no such video.
        """
        count = self._count(result.frame.time_s)
        if not count:
            return
        image = self._draw(result)
        self._check_space()
        if self._writer is None:  # an older file is gone from here on
            self._writer = self._open(image)
        assert self._size is not None
        picture = fit(image, self._size)
        for _ in range(count):
            self._writer.write(picture)
        self.written += count

    def _check_space(self) -> None:
        try:
            if self._writer is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
        except OSError as error:  # the disk was pulled out, or the folder removed
            raise write_error(self.name, error) from error
        if free < RESERVE_BYTES:
            so_far = "what was recorded so far is playable; " if self.written else ""
            raise SinkError(f"{self.name}: the disk is full: {so_far}free some space")

    def _count(self, time_s: float) -> int:
        """How many video frames this result fills: 1, or for a live source as many as time went by."""
        if not self._live:
            return 1
        slot = round(time_s * self.fps)
        # After a long stall one second is enough: nobody wants to watch, or wait for, a still picture.
        count = 1 if self._slot < 0 else min(max(slot - self._slot, 0), round(self.fps))
        self._slot = max(slot, self._slot)
        return count

    def _open(self, image: Array) -> cv2.VideoWriter:
        quiet_opencv()
        height, width = image.shape[:2]
        shrink = min(1.0, MOST_PIXELS / max(width, height))
        # The codec wants even sides.
        self._size = (max(int(width * shrink) & ~1, 2), max(int(height * shrink) & ~1, 2))
        there = self.path.exists()
        try:
            open(self.path, "ab").close()  # OpenCV does not say why a path cannot be written; the system does
        except OSError as error:
            raise write_error(self.name, error) from error
        file = path_for_ffmpeg(self.path)
        writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"mp4v"), self.fps, self._size)  # type: ignore[attr-defined]
        if not writer.isOpened():
            if not there:
                self.path.unlink(missing_ok=True)
            raise SinkError(
                f"{self.name}: no {self._size[0]}x{self._size[1]} video can be written here: "
                "check the disk, and that this OpenCV build has FFmpeg"
            )
        return writer

    def close(self) -> None:
        """Finish the file.

        Raises:
            SinkError: it turned out unplayable, which is the only sign OpenCV gives of a failed write.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        check = cv2.VideoCapture(path_for_ffmpeg(self.path))
        playable = check.isOpened() and check.grab()
        check.release()
        if not playable:
            self.written = 0
            raise SinkError(f"{self.name}: the video could not be finished: check that the disk is not full")


class ImageSink:
    """A single picture with the keypoints drawn in; the kind of file follows from its suffix.

    Raises:
        SinkError: the path cannot be written, or is no kind of picture.
    """

    def __init__(self, path: str | Path, draw: Draw, *, create_parent: bool = False) -> None:
        self.path = check_output(path, IMAGE_SUFFIXES, create_parent)
        self.name = str(path)
        self.source = None
        self.written = 0
        self._draw = draw

    def write(self, result: Result) -> None:
        """Draw a result and write the picture, in place of an older one once it is whole.

        Raises:
            SinkError: the system or OpenCV refuses.
        """
        ok, data = cv2.imencode(self.path.suffix, self._draw(result))
        if not ok:
            raise SinkError(f"{self.name}: OpenCV cannot write this kind of picture: choose .png or .jpg")
        try:
            with replacing(Path(os.path.realpath(self.path))) as part:  # a link stays one
                part.write_bytes(data.tobytes())
        except OSError as error:
            raise write_error(self.name, error) from error
        self.written += 1

    def close(self) -> None:
        """Nothing is left open."""


def _countable(fps: float) -> float:
    """The rate as finely as MPEG-4 can tell it: OpenCV writes its decimals out, as at most 65535 units."""
    fps = max(fps, 0.001)
    return next(rate for digits in (3, 2, 1, 0) if (rate := round(fps, digits)) * 10**digits <= 65535)


def check_output(
    path: str | Path, suffixes: frozenset[str] | None = None, create_parent: bool = False
) -> Path:
    """The path, once everything is known to be well that can be known without creating it.

    Raises:
        SinkError: a folder of that name, no parent folder, no permission, or a suffix not in ``suffixes``.
    """
    path = Path(path)
    parent = path.parent
    if suffixes is not None and path.suffix.lower() not in suffixes:
        raise SinkError(f"{path}: cannot write this kind of file: choose one of {' '.join(sorted(suffixes))}")
    if path.is_dir():
        raise SinkError(f"{path}: this is a folder: name a file in it")
    if not create_parent and not parent.is_dir():
        raise SinkError(f"{path}: there is no folder {parent}: create it first (mkdir -p {parent})")
    if parent.is_dir() and not os.access(path if path.exists() else parent, os.W_OK):
        raise SinkError(f"{path}: permission denied: choose another place or make it writable")
    return path


def write_error(name: str, error: OSError) -> SinkError:
    """What the system says of a file that it did not write, as one line."""
    if error.errno == errno.EPIPE:
        return SinkError(f"{name}: whoever read it has left: start a reader that stays, or write to a file")
    return SinkError(
        f"{name}: {(error.strerror or str(error)).lower()}: free some space or choose another place"
    )


def fit(image: Array, size: tuple[int, int]) -> Array:
    """The picture at exactly ``size`` (width, height): as it is, or scaled whole and framed in black."""
    width, height = size
    h, w = image.shape[:2]
    if (w, h) == size:
        return image
    if 0 <= w - width <= 1 and 0 <= h - height <= 1:  # an odd side loses its last line
        return np.ascontiguousarray(image[:height, :width])
    scale = min(width / w, height / h)
    inner = (min(max(round(w * scale), 1), width), min(max(round(h * scale), 1), height))
    part = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    framed = np.zeros((height, width, 3), np.uint8)
    x, y = (width - inner[0]) // 2, (height - inner[1]) // 2
    framed[y : y + inner[1], x : x + inner[0]] = part
    return framed
