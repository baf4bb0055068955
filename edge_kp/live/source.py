"""Where frames come from: a camera, a clip, pictures or a network stream.

A live source (camera, endless stream) is read as fast as it delivers and its frames carry the clock's time;
any other source has an end and its frames carry the times that it states, or are evenly spaced.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import cv2
import numpy as np

from edge_kp.errors import SourceError
from edge_kp.files import IMAGE_SUFFIXES
from edge_kp.live.cameras import camera_path, csi_pipeline, open_camera, open_pipeline
from edge_kp.live.capture import open_clip, open_url, without_password
from edge_kp.live.frames import CaptureOptions, Frame, Source, quiet_opencv
from edge_kp.live.lasting import Lasting
from edge_kp.live.pictures import Pictures, is_pattern, matching, pictures_in

PLAIN = CaptureOptions()


def open_source(spec: str | int, options: CaptureOptions = PLAIN) -> Source:
    """Open a source and read its first frame, so that what cannot be read fails here.

    Args:
        spec: camera index (``0`` or ``"0"``), V4L2 path (``/dev/video0``, ``/dev/v4l/by-id/…``), video file,
            picture, folder or pattern of pictures (``"shots/*.png"``), URL (http, rtsp, …), a Jetson's CSI
            camera (``csi://0``), or a GStreamer pipeline that ends in ``appsink``. A file whose name is a
            number is written ``./0``.

    Raises:
        SourceError: nothing there, not permitted, in use, or not readable; or a camera's size or rate was
            asked of something that is none.
    """
    source = _open(str(spec), options)
    return _Oriented(source, options) if options.rotate or options.mirror else source


def open_lasting(spec: str | int, options: CaptureOptions = PLAIN, give_up_s: float | None = None) -> Source:
    """:func:`open_source`, but a live source that stops is opened again until it is back, see ``Lasting``.

    Args:
        give_up_s: end with an error once it has been gone so long; None never does.

    Raises:
        SourceError: as :func:`open_source`; a source must be there at the start.
    """
    again = partial(open_source, spec, options)
    source = again()
    return Lasting(again, source, give_up_s=give_up_s) if source.live else source


def _open(text: str, options: CaptureOptions) -> Source:
    quiet_opencv()
    text = _as_path(text)
    if not text:
        raise SourceError("a source of no name: give a camera, file, folder or address")
    if text.startswith("csi://"):
        number = text.removeprefix("csi://")
        if not (number.isascii() and number.isdigit()):
            raise SourceError(f"{text}: expected the number of a connector, such as csi://0")
        return open_pipeline(csi_pipeline(int(number), options), text)
    path = Path(text)
    node = camera_path(text)
    if text.isascii() and text.isdigit():
        return open_camera(int(text), options)
    if node is not None:
        return open_camera(node, options)
    if options.asks:
        raise SourceError(
            f"{short_name(text)}: --width, --height and --fps are asked of cameras; this one's are its own"
        )
    if " ! " in text:
        return open_pipeline(text, short_name(text))
    if "://" in text:
        return open_url(text, options.threads)
    if path.is_dir():
        return Pictures(path.resolve().name, pictures_in(path))
    if is_pattern(text):
        return Pictures(path.name, matching(text))
    if not path.exists():
        hint = "" if path.parent.is_dir() else f" (there is no folder {path.parent})"
        raise SourceError(f"{text}: no such file{hint}: check the path")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{text}: permission denied: make the file readable (chmod +r)")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Pictures(path.name, [path])
    return open_clip(path, options.threads)


def _as_path(text: str) -> str:
    """A ``file:`` address as the path that it means; any other text as it is.

    Raises:
        SourceError: an address that is none, or of another machine.
    """
    if not text.lower().startswith("file://"):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        raise SourceError(f"{text[:200]}: no such address: give the file's path") from None
    if parts.netloc not in ("", "localhost"):
        raise SourceError(f"{text[:200]}: lies on another machine: give the path by which this one knows it")
    return url2pathname(parts.path)


def short_name(text: str) -> str:
    """How a source is called in messages: no password, and of a pipeline its first element."""
    return text.split()[0] if " ! " in text else without_password(text)


def input_files(spec: str | int) -> list[Path]:
    """The existing files a source reads, so that no output is written over one of them."""
    text = _as_path(str(spec))
    if "://" in text or " ! " in text:  # an address or pipeline; its * ? [ are no pattern
        return []
    path = Path(text)
    if path.is_dir():
        return [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    if is_pattern(text):
        return matching(text)
    return [path] if path.exists() else []


class _Oriented:
    """A source whose pictures are turned or mirrored."""

    def __init__(self, source: Source, options: CaptureOptions) -> None:
        self._source = source
        self._turn = {
            90: cv2.ROTATE_90_CLOCKWISE,
            180: cv2.ROTATE_180,
            270: cv2.ROTATE_90_COUNTERCLOCKWISE,
        }.get(options.rotate)
        self._mirror = options.mirror
        self.live, self.fps, self.name = source.live, source.fps, source.name
        self.names_files = source.names_files
        self.size = source.size[::-1] if options.rotate in (90, 270) else source.size

    @property
    def skipped(self) -> int:
        return self._source.skipped

    @property
    def returns(self) -> int:
        return self._source.returns

    def read(self) -> Frame | None:
        frame = self._source.read()
        if frame is None:
            return None
        image = frame.image if self._turn is None else cv2.rotate(frame.image, self._turn)
        return replace(frame, image=np.asarray(cv2.flip(image, 1) if self._mirror else image))

    def stop(self) -> None:
        self._source.stop()

    def close(self) -> None:
        self._source.close()
