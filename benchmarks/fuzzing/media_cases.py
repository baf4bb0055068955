"""Fuzz cases of pictures and clips."""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.fuzzing.materials import (
    SIDE,
    picture,
)
from benchmarks.fuzzing.spoil import (
    Random,
    pick,
    spoil_bytes,
)
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong, each
from edge_kp.errors import EdgeKpError, SourceError
from edge_kp.live.pictures import read_picture
from edge_kp.live.source import open_source
from edge_kp.types import Array

SUFFIXES = (".png", ".jpg", ".bmp", ".webp", ".tif")


def _encoded(image: Array, suffix: str) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def _picture(content: bytes, suffix: str, same: Array | None = None) -> None:
    """A file of a picture, as training and as running read it."""
    from edge_kp.training.samples import read_image

    path = Path(f"x{suffix}")
    path.write_bytes(content)
    shown = read_picture(path)
    if shown is not None:
        _check_picture(shown, same)
        source = open_source(str(path))
        frame = source.read()
        source.close()
        if frame is None:
            raise Wrong("a picture that gives no frame")
    _check_picture(read_image(str(path)), same)
    if shown is None:
        raise SourceError(f"{path}: read for training, but not for running")


def _check_picture(image: Array, same: Array | None) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise Wrong(f"a picture {image.dtype} {image.shape}")
    if same is not None and not (image.shape == same.shape and np.array_equal(image, same)):
        raise Wrong("another picture than was written")


def _random_picture(_: Any, folder: Path, rng: Random) -> None:
    suffix = pick(rng, SUFFIXES)
    image = picture(3)
    spoilt = spoil_bytes(_encoded(image, suffix), rng)
    # A PNG has check sums: what is read of it is what was written.
    _picture(spoilt, suffix, image if suffix == ".png" and len(spoilt) > 90 else None)


def _same(make: Callable[[Array], Array], suffix: str = ".png") -> Case:
    def run(_: Any, folder: Path) -> None:
        image = make(picture(3))
        expected = (image >> 8 if image.dtype == np.uint16 else image).astype(np.uint8)
        if expected.ndim == 2:
            expected = np.dstack([expected] * 3)
        _picture(_encoded(image, suffix), suffix, expected[..., :3])

    return Case(run, ANSWERED)


def _png_of(width: int, height: int) -> bytes:
    """A PNG whose header says this size, and that holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _refused(content: bytes, suffix: str = ".png") -> Case:
    return Case(lambda _, folder: _picture(content, suffix), REFUSED)


def _no_picture(make: Callable[[Path], Any]) -> Case:
    """Something that is no file, by the name of a picture."""

    def run(_: Any, folder: Path) -> None:
        make(Path("x.png"))
        if read_picture(Path("x.png")) is not None:
            raise Wrong("was read as a picture")
        try:
            open_source("x.png").close()
        except EdgeKpError:
            from edge_kp.training.samples import read_image

            read_image("x.png")

    return Case(run, REFUSED)


_CLAIMS = ((0, 0), (2**31 - 1, 2**31 - 1), (10**6, 10**6), (2**20, 2**10), (30_000, 30_000), (5000, 5000))

PICTURES = Kind(
    fixed={
        "grey": _same(lambda image: image[..., 0]),
        "16 bit": _same(lambda image: image.astype(np.uint16) << 8),
        "16 bit grey": _same(lambda image: image[..., 0].astype(np.uint16) << 8),
        "with transparency": _same(lambda image: np.dstack([image, image[..., :1]])),
        "8000 x 8000": _same(lambda image: np.full((8000, 8000, 3), 90, np.uint8)),
        "a line": _same(lambda image: np.full((8, 5000, 3), 90, np.uint8)),
        "a pixel": _refused(_encoded(np.zeros((1, 1, 3), np.uint8), ".png")),
        **each("claimed pixels", lambda size: _refused(_png_of(*size)), _CLAIMS),
        **each("empty", lambda suffix: _refused(b"", suffix), SUFFIXES),
        **each("text as", lambda suffix: _refused(b"no picture at all\n" * 40, suffix), SUFFIXES),
        **each("cut short", lambda suffix: _refused(_encoded(picture(0), suffix)[:24], suffix), SUFFIXES),
        "a pipe": _no_picture(os.mkfifo),
        "a folder": _no_picture(lambda path: path.mkdir()),
        "a link to itself": _no_picture(lambda path: path.symlink_to(path)),
        "endless zeros": _no_picture(lambda path: path.symlink_to("/dev/zero")),
    },
    mutated=_random_picture,
    weight=3.0,
)


def _clip(folder: Path) -> bytes:
    """An MPEG-4 clip of 20 frames."""
    path = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25.0, (SIDE, SIDE))  # type: ignore[attr-defined]
    for number in range(20):
        writer.write(np.roll(picture(number % 9), number, 1))
    writer.release()
    return path.read_bytes()


def _play(content: bytes, folder: Path, count: int | None = None) -> None:
    path = folder / "x.mp4"
    path.write_bytes(content)
    source = open_source(str(path))
    number, last = 0, (-1, -1.0)
    try:
        while number < 100 and (frame := source.read()) is not None:
            _check_picture(frame.image, None)
            # What could not be decoded leaves a gap; numbers and times must grow all the same.
            here = (frame.index, frame.time_s)
            if not (last[0] < here[0] and last[1] < here[1] < math.inf):
                raise Wrong(f"frame {here[0]} at {here[1]} s after frame {last[0]} at {last[1]} s")
            number, last = number + 1, here
    finally:
        source.close()
    if count is not None and number != count:
        raise Wrong(f"{number} frames of {count}")


def _refused_clip(content: bytes) -> Case:
    return Case(lambda clip, folder: _play(content, folder), REFUSED)


CLIPS = Kind(
    share=_clip,
    fixed={
        "as it is": Case(lambda clip, folder: _play(clip, folder, 20), ANSWERED),
        "empty": _refused_clip(b""),
        "text": _refused_clip(b"no clip\n" * 50),
        "zeros": _refused_clip(bytes(5000)),
        "a picture": Case(lambda clip, folder: _play(_encoded(picture(0), ".png"), folder)),
        "its first half": Case(lambda clip, folder: _play(clip[: len(clip) // 2], folder)),
        "a list of other files": _refused_clip(b"#EXTM3U\n#EXTINF:1,\n../secret.png\n"),
        "a script of ffmpeg": _refused_clip(b"ffconcat version 1.0\nfile ../secret.png\n"),
    },
    mutated=lambda clip, folder, rng: _play(spoil_bytes(clip, rng), folder),
)
