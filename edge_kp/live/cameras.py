"""Cameras: by number or path, at a Jetson's connector, or behind a GStreamer pipeline."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from pathlib import Path

import cv2

from edge_kp.errors import SourceError
from edge_kp.live.capture import Capture, check_utf8, opened, without_password
from edge_kp.live.frames import CaptureOptions
from edge_kp.live.pictures import natural

log = logging.getLogger(__name__)

PIPELINE_TIMEOUT_S = 10.0  # for the first picture out of a GStreamer pipeline


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
    check_utf8(text, name)
    sources: list[Capture | None] = []

    def open_it() -> None:
        sources.append(opened(cv2.VideoCapture(text, cv2.CAP_GSTREAMER), name, live=True))

    # Without its source element a pipeline waits for ever, and OpenCV with it.
    title = f"edge_kp open {text}"
    if any(thread.name == title for thread in threading.enumerate()):
        raise SourceError(f"{name}: the last try to open it still hangs in GStreamer: restart the program")
    opening = threading.Thread(target=open_it, name=title, daemon=True)
    opening.start()
    opening.join(PIPELINE_TIMEOUT_S)
    source = sources[0] if sources else None
    if source is None:
        raise SourceError(
            f"{name}: no picture comes out of this pipeline: try it with gst-launch-1.0, autovideosink in "
            f"place of appsink: {_without_passwords(text)}"
        )
    return source


def _without_passwords(pipeline: str) -> str:
    """The words of a pipeline as they may be shown."""
    shown = re.sub(r"\w+://[^\s\"']+", lambda found: without_password(found[0]), pipeline)
    return re.sub(r"(\buser-(?:id|pw)\s*=\s*)(\"[^\"]*\"|\S+)", r"\1…", shown)


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
    source = opened(capture, name, live=True)
    if source is None and linux:
        raise SourceError(
            f"{node} gives no picture: close the program that uses it ('fuser -v {node}' names it), "
            f"or try another camera{_others(node)}"
        )
    if source is None:
        raise SourceError(
            f"camera {which} gives no picture: check that it is plugged in, that no other program uses it, "
            "and that this terminal may use the camera"
        )
    got = source.size
    asked = (options.width or got[0], options.height or got[1])
    if got != asked:
        log.warning("%s gives %dx%d, not the %dx%d asked for", name, *got, *asked)
    return source


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
