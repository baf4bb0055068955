"""Clips, cameras and streams, by way of ``cv2.VideoCapture``."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from edge_kp.errors import SourceError
from edge_kp.live.frames import CaptureOptions, Frame
from edge_kp.live.pictures import PICTURES_FPS, natural
from edge_kp.types import Array

log = logging.getLogger(__name__)

# How long a network stream may stay silent, when it is opened and later, before it counts as gone.
STREAM_TIMEOUT_MS = 5000
PIPELINE_TIMEOUT_S = 10.0  # for the first picture out of a GStreamer pipeline
DAMAGED_IN_A_ROW = 30  # frames of a live source that cannot be decoded, after which it counts as gone


class Capture:
    """A clip, camera or stream behind ``cv2.VideoCapture``."""

    returns = 0

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
        self.skipped = 0
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
        """The next image and when it was taken; None at the end."""
        first, self._first = self._first, None
        if first is not None and not self.live:  # a live source's has grown old since it was opened
            return first, time.monotonic()
        for _ in range(DAMAGED_IN_A_ROW):
            if not self._capture.grab():
                return None, 0.0
            captured = self._capture_time()
            ok, image = self._capture.retrieve()
            if ok and image is not None and image.size:
                return as_bgr(image), captured
            self.skipped += 1  # a broken JPEG of a camera, say: the next one may be whole
        return None, 0.0

    def _capture_time(self) -> float:
        """When the frame was taken. V4L2 stamps its buffers with the monotonic clock; others say nothing."""
        now = time.monotonic()
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if self._stamps else now
        # Some drivers count from elsewhere: only a stamp of the last seconds can be of this clock.
        return stamp if 0 <= now - stamp < 10 else now

    def stop(self) -> None:
        """A read ends by itself, at the latest when the driver gives up."""

    def close(self) -> None:
        self._capture.release()


def as_bgr(image: Array) -> Array:
    """(H, W, 3) uint8 BGR of whatever a camera gives: grey, with transparency, or 16 bits deep."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) if image.shape[2] == 4 else image


def _first_frame(capture: cv2.VideoCapture) -> Array | None:
    for _ in range(DAMAGED_IN_A_ROW):
        if not capture.isOpened() or not capture.grab():
            break
        ok, image = capture.retrieve()
        if ok and image is not None and image.size:
            return as_bgr(image)
    capture.release()
    return None


def _decoder(threads: int | None) -> list[int]:
    """What asks FFmpeg to decode by so many threads; before OpenCV 4.7 it took one for each core."""
    known = getattr(cv2, "CAP_PROP_N_THREADS", None)
    return [] if threads is None or known is None else [known, threads]


def open_clip(path: Path, threads: int | None = None) -> Capture:
    """
    Args:
        threads: see :class:`CaptureOptions`.

    Raises:
        SourceError: not a video.
    """
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty: copy or record it again")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, _decoder(threads))
    if not capture.isOpened():  # an OpenCV without FFmpeg has other ways
        capture = cv2.VideoCapture(str(path))
    first = _first_frame(capture)
    if first is None:
        raise SourceError(
            f"{path}: not a video that can be read (cut short, or another kind of file): "
            f"try to mend it with 'ffmpeg -i {path.name} -c:v libx264 mended.mp4'"
        )
    return Capture(capture, first, path.name, live=False)


def open_url(url: str, threads: int | None = None) -> Capture:
    """
    Args:
        threads: see :class:`CaptureOptions`.

    Raises:
        SourceError: no video comes from there.
    """
    name = without_password(url)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts + _decoder(threads))
    first = _first_frame(capture)
    if first is None:
        raise SourceError(
            f"{name}: no video comes from this address (waited up to {STREAM_TIMEOUT_MS / 1000:g} s): "
            "check the address, user name and network (ffplay or VLC should show it)"
        )
    # A clip on a web server has a length and must not lose frames; a stream has none.
    live = not url.lower().startswith("http") or capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    return Capture(capture, first, name, live)


def without_password(url: str) -> str:
    """The address as it may be shown."""
    place = url.partition("://")[2].partition("/")[0]
    user, at, _ = place.rpartition("@")
    return url.replace(f"{user}{at}", "", 1) if at else url


def csi_pipeline(sensor: int, options: CaptureOptions) -> str:
    """GStreamer's words for a camera at a Jetson's CSI connector; the newest frame wins in it as well."""
    width, height = options.width or 1280, options.height or 720
    fps = options.fps or 30
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM), width={width}, height={height}, "
        f"framerate={round(fps * 1000)}/1000 ! nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! "
        "video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def open_pipeline(text: str, name: str) -> Capture:
    """A GStreamer pipeline that ends in ``appsink``.

    Raises:
        SourceError: this OpenCV cannot, or no picture comes out.
    """
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise SourceError(
            f"{name}: this OpenCV has no GStreamer (that of pip never has): use the system's, on a Jetson "
            "'sudo apt install python3-opencv' and a venv made with --system-site-packages"
        )
    if "appsink" not in text:
        raise SourceError(
            f"{name}: the pipeline must end in appsink: add '! videoconvert ! appsink drop=true'"
        )
    opened: list[tuple[cv2.VideoCapture, Array | None]] = []

    def open_it() -> None:
        capture = cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
        opened.append((capture, _first_frame(capture)))

    # Without its source element a pipeline waits for ever, and OpenCV with it.
    title = f"edge_kp open {name}"
    if any(thread.name == title for thread in threading.enumerate()):
        raise SourceError(f"{name}: the last try to open it still hangs in GStreamer: restart the program")
    opening = threading.Thread(target=open_it, name=title, daemon=True)
    opening.start()
    opening.join(PIPELINE_TIMEOUT_S)
    capture, first = opened[0] if opened else (None, None)
    if capture is None or first is None:
        raise SourceError(
            f"{name}: no picture comes out of this pipeline: try it with gst-launch-1.0, autovideosink in "
            f"place of appsink: {text}"
        )
    return Capture(capture, first, name, live=True)


def open_camera(which: int | Path, options: CaptureOptions) -> Capture:
    """Open a camera by index, or by path on Linux.

    Raises:
        SourceError: no such camera, not permitted, or in use.
    """
    linux = sys.platform.startswith("linux")
    node = which if isinstance(which, Path) else Path(f"/dev/video{which}")
    name = node.name.replace("video", "camera") if linux else f"camera{which}"
    if linux:
        _check_node(node)
    # V4L2 itself: the other ways OpenCV has to a camera queue frames or cannot be told not to.
    v4l2 = linux and cv2.CAP_V4L2 in cv2.videoio_registry.getCameraBackends()
    # A camera's lasting name (/dev/v4l/by-id/…) is a link; OpenCV knows /dev/videoN alone.
    target = os.path.realpath(which) if isinstance(which, Path) else which
    capture = cv2.VideoCapture(target, cv2.CAP_V4L2 if v4l2 else cv2.CAP_ANY)
    if options.asks:
        # Raw pictures of any size hardly fit through USB 2: most cameras reach it in MJPEG only.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG"))  # type: ignore[attr-defined]
    for what, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, options.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
        (cv2.CAP_PROP_FPS, options.fps),
    ):
        if value is not None:
            capture.set(what, value)
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
    got = (first.shape[1], first.shape[0])
    asked = (options.width or got[0], options.height or got[1])
    if got != asked:
        log.warning("%s gives %dx%d, not the %dx%d asked for", name, *got, *asked)
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
    found = sorted((p for p in Path("/dev").glob("video[0-9]*") if p != node), key=natural)
    return f" (found: {', '.join(map(str, found))})" if found else " (none found)"


def camera_path(text: str) -> Path | None:
    """The V4L2 node that a text names, or None."""
    return Path(text) if re.match(r"/dev/(video|v4l/)", text) else None
