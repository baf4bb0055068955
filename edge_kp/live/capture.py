"""Frames out of ``cv2.VideoCapture``, and clips and streams by it; cameras are in ``cameras.py``."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_kp.errors import SourceError
from edge_kp.live.frames import Frame, clock, is_utf8, path_for_ffmpeg
from edge_kp.live.pictures import PICTURES_FPS
from edge_kp.types import Array

log = logging.getLogger(__name__)

# How long a network stream may stay silent, when it is opened and later, before it counts as gone.
STREAM_TIMEOUT_MS = 5000
DAMAGED_IN_A_ROW = 30  # frames that cannot be decoded, after which a source has ended
STREAMS = frozenset({"rtsp", "rtsps", "rtp", "rtmp", "rtmps", "srt", "udp", "tcp"})
# A failure that took longer is no damaged frame: a driver or network has waited for one in vain.
PATIENCE_S = 2.0


class Capture:
    """A clip, camera or stream behind ``cv2.VideoCapture``.

    Args:
        first: its first frame.
        skipped: frames before that one which could not be decoded.
    """

    returns = 0
    names_files = False

    def __init__(
        self, capture: cv2.VideoCapture, first: Array, name: str, live: bool, skipped: int = 0
    ) -> None:
        self._capture = capture
        self._first: Array | None = first
        self._index = skipped
        self._start: float | None = None
        self._time = 0.0
        stated = capture.get(cv2.CAP_PROP_FPS)
        known = math.isfinite(stated) and (1 if live else 0) <= stated <= 1000 and stated > 0
        self.fps: float | None = stated if known else None if live else PICTURES_FPS
        self.live = live
        self.name = name
        self.size = (first.shape[1], first.shape[0])
        self.skipped = skipped
        self._stated = 0 if live else _count(capture)  # frames that there should be
        self._origin = _position(capture)
        self._stamps = live and sys.platform.startswith("linux") and capture.getBackendName() == "V4L2"

    def read(self) -> Frame | None:
        image, captured = self._next()
        if image is None and self.live:
            raise SourceError(
                f"{self.name} stopped delivering frames: check its cable, power or network, then start again"
            )
        if image is None:
            self._say_if_short()
            return None
        if self._start is None:
            self._start = captured
        frame = Frame(self._index, captured - self._start if self.live else self._time, captured, image)
        self._index += 1
        return frame

    def _next(self) -> tuple[Array | None, float]:
        """The next image and when it was taken; None at the end."""
        first, self._first = self._first, None
        if first is not None and not self.live:  # a live source's has grown old since it was opened
            return first, clock()
        most = max(DAMAGED_IN_A_ROW, self._stated - self._index)
        image, captured, damaged = next_picture(self._capture, most, self._capture_time)
        if image is not None:
            self.skipped += damaged
            if not self.live:
                self._index += damaged
                self._time = self._clip_time(1 + damaged)
        return image, captured

    def _capture_time(self) -> float:
        """When the frame was taken. V4L2 stamps its buffers with the monotonic clock; others say nothing."""
        now = clock()
        stamp = _position(self._capture) if self._stamps else now
        # Some drivers count from elsewhere: only a stamp of the last seconds can be of this clock.
        return stamp if 0 <= now - stamp < 10 else now

    def _clip_time(self, frames: int) -> float:
        """Seconds since the first frame, as the clip says it: those of a phone are not evenly spaced."""
        stamp = _position(self._capture) - self._origin
        return stamp if stamp > self._time else self._time + frames / (self.fps or PICTURES_FPS)

    def _say_if_short(self) -> None:
        """Of a clip that lacks its end. Some only estimate their count, so it must lack much, in time too."""
        seconds = self._stated / (self.fps or PICTURES_FPS)
        if self._index < 0.95 * self._stated - 2 and self._time < 0.95 * seconds:
            log.warning(
                "%s ends after %d of %d frames: it is cut short or damaged; what could be read was",
                self.name,
                self._index,
                self._stated,
            )
            self._stated = 0  # said once

    def stop(self) -> None:
        """A read ends by itself, at the latest when the driver gives up."""

    def close(self) -> None:
        self._capture.release()


def next_picture(
    capture: cv2.VideoCapture, most: int, when: Callable[[], float] = clock
) -> tuple[Array | None, float, int]:
    """The next frame that can be decoded, when it was taken, and how many before it could not be.

    FFmpeg decodes while it grabs, so a damaged frame looks like the end there: only what follows tells.

    Args:
        most: frames that may be damaged.
        when: asked between grabbing and decoding.

    Returns:
        The image as (H, W, 3) uint8 BGR; None at the end.
    """
    given_up = time.monotonic() + PATIENCE_S
    for damaged in range(most + 1):
        if capture.grab():
            captured = when()
            ok, image = capture.retrieve()
            if ok and image is not None and image.size:
                return as_bgr(image), captured, damaged
        elif time.monotonic() > given_up:
            break
    return None, 0.0, 0


def _position(capture: cv2.VideoCapture) -> float:
    """Of the newest frame, seconds; what is no number is 0."""
    seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return seconds if math.isfinite(seconds) else 0.0


def _count(capture: cv2.VideoCapture) -> int:
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and count > 0 else 0


def as_bgr(image: Array) -> Array:
    """(H, W, 3) uint8 BGR of whatever a camera gives: grey, with transparency, or 16 bits deep."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) if image.shape[2] == 4 else image


def opened(capture: cv2.VideoCapture, name: str, live: bool) -> Capture | None:
    """The capture, its first frame read; None where it gives none, and it is released then."""
    image, _, damaged = next_picture(capture, DAMAGED_IN_A_ROW) if capture.isOpened() else (None, 0.0, 0)
    if image is None:
        capture.release()
        return None
    return Capture(capture, image, name, live, damaged)


def _decoder(threads: int | None) -> list[int]:
    """What asks FFmpeg to decode by so many threads; before OpenCV 4.7 it took one for each core."""
    known = getattr(cv2, "CAP_PROP_N_THREADS", None)
    return [] if threads is None or known is None else [known, threads]


def check_utf8(text: str, name: str) -> None:
    """
    Raises:
        SourceError: OpenCV cannot be given this text; ``name`` is what to call it.
    """
    if not is_utf8(text):
        raise SourceError(f"{name}: OpenCV opens no name that is not UTF-8: rename it, or write it as UTF-8")


def open_clip(path: Path, threads: int | None = None) -> Capture:
    """
    Args:
        threads: see :class:`CaptureOptions`.

    Raises:
        SourceError: not a video, or of a name that is not UTF-8.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty: copy or record it again")
    check_utf8(str(path), str(path))
    name = path_for_ffmpeg(path)
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, _decoder(threads))
    if not capture.isOpened():  # an OpenCV without FFmpeg has other ways
        capture = cv2.VideoCapture(name)
    clip = opened(capture, path.name, live=False)
    if clip is None:
        raise SourceError(
            f"{path}: not a video that can be read (cut short, or another kind of file): "
            f"try to mend it with 'ffmpeg -i ./{path.name} -c:v libx264 mended.mp4'"
        )
    return clip


def open_url(url: str, threads: int | None = None) -> Capture:
    """
    Args:
        threads: see :class:`CaptureOptions`.

    Raises:
        SourceError: no video comes from there.
    """
    name = without_password(url)
    check_utf8(url, name)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts + _decoder(threads))
    # A clip on a server has a length and must not lose frames; a stream has none, whatever it says.
    live = url.partition("://")[0].lower() in STREAMS or _count(capture) == 0
    source = opened(capture, name, live)
    if source is None:
        raise SourceError(
            f"{name}: no video comes from this address (waited up to {STREAM_TIMEOUT_MS / 1000:g} s): "
            "check the address, user name and network (ffplay or VLC should show it)"
        )
    return source


def without_password(url: str) -> str:
    """The address as it may be shown: no user, and nothing after ``?``, where many cameras have theirs.

    All up to the last ``@`` may be of a password; with a ``?`` before it, all after it may be, too.
    """
    scheme, mark, rest = url.partition("://")
    credentials, _, rest = rest.rpartition("@")
    return f"{scheme}{mark}…" if "?" in credentials else f"{scheme}{mark}{rest.partition('?')[0]}"
