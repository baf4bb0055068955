"""Pictures as a source: one, a folder of them, or those that a pattern names."""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from edge_kp.errors import SourceError
from edge_kp.files import IMAGE_SUFFIXES, dark_end
from edge_kp.live.frames import Frame, clock
from edge_kp.types import Array

log = logging.getLogger(__name__)

# Pictures have no frame rate of their own; 25 per second is what ffmpeg gives an image sequence.
PICTURES_FPS = 25.0


class Pictures:
    """Pictures read one after the other; a damaged one is skipped, said and counted."""

    live = False
    fps: float | None = PICTURES_FPS
    returns = 0
    names_files = True

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.skipped = 0
        self._dark = False  # has it been said that pictures come out all but black?
        self._frames = self._load(paths)
        self._first = next(self._frames, None)
        if self._first is None:
            which = (
                f"{paths[0]}: it cannot"
                if len(paths) == 1
                else f"{paths[0].parent}: none of {len(paths)} pictures can"
            )
            raise SourceError(f"{which} be read as a picture: save it again as JPEG or PNG")
        height, width = self._first.image.shape[:2]
        self.size = (width, height)

    def _load(self, paths: Sequence[Path]) -> Iterator[Frame]:
        for index, path in enumerate(paths):
            image = read_picture(path)
            if image is not None:
                self._say_if_dark(path, image)
                yield Frame(index, index / PICTURES_FPS, clock(), image, file=str(path))
                continue
            self.skipped += 1
            if len(paths) > 1:
                log.warning("%s cannot be read as a picture: skipped", path)

    def _say_if_dark(self, path: Path, image: Array) -> None:
        """Of pictures that hold 12 bits in 16, once: in 8 bits hardly anything is left of them."""
        end = None if self._dark else dark_end(image, lambda: read_picture(path, cv2.IMREAD_UNCHANGED))
        if end is not None:
            self._dark = True
            log.warning(
                "%s: its 16-bit values end at %d, so it comes out all but black: is it 12-bit data?"
                " Save all such pictures in 8 bits, scaled alike",
                path,
                end,
            )

    def read(self) -> Frame | None:
        frame, self._first = self._first or next(self._frames, None), None
        return frame

    def stop(self) -> None:
        """A read never waits for long."""

    def close(self) -> None:
        self._frames = iter(())


def read_picture(path: Path, flags: int = cv2.IMREAD_COLOR) -> Array | None:
    """The picture as (H, W, 3) uint8 BGR, turned as its EXIF says; None where it cannot be read.

    Args:
        flags: of ``cv2.imdecode``, for another form.
    """
    try:
        if not path.is_file():  # a pipe or a device may have no end
            return None
        data = np.fromfile(path, np.uint8)  # unlike cv2.imread it takes every path on every system
        return cv2.imdecode(data, flags) if data.size else None
    except (OSError, cv2.error):
        return None


def is_picture(spec: str | int) -> bool:
    """Does it name a single picture that exists?"""
    path = Path(str(spec))
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def is_pattern(spec: str) -> bool:
    """Does it name files by ``*``, ``?`` or ``[…]``? A file that exists under that very name wins."""
    return glob.has_magic(spec) and not Path(spec).exists()


def matching(pattern: str) -> list[Path]:
    """The pictures that a pattern names (``**`` reaches into all folders below), in order.

    Raises:
        SourceError: there are none.
    """
    paths = _pictures(Path(name) for name in glob.iglob(pattern, recursive=True))
    if not paths:
        raise SourceError(
            f"{pattern}: no picture has such a name: check the pattern, and quote it in the shell"
        )
    return paths


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in order.

    Raises:
        SourceError: there are none, or the folder cannot be read.
    """
    try:
        paths = _pictures(folder.iterdir())
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}: make the folder readable") from error
    below = _below(folder)
    if not paths and below:
        raise SourceError(f"{folder}: no picture in this folder: {below}")
    if not paths:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"{folder}: no picture in this folder: put {kinds} files directly into it")
    if below:
        log.warning("%s: pictures left out: %s", folder, below)
    return paths


def _below(folder: Path) -> str:
    """How many pictures the folders directly in a folder hold, and the pattern that takes them; or nothing.

    No deeper: a tree may have no end.
    """
    kinds: list[str] = []
    for inner in glob.iglob(f"{glob.escape(str(folder))}/*/"):
        with suppress(OSError):  # not ours to read
            kinds += [Path(name).suffix for name in os.listdir(inner) if not name.startswith(".")]
    kinds = [kind for kind in kinds if kind.lower() in IMAGE_SUFFIXES]
    if not kinds:
        return ""
    names = f"*{kinds[0]}" if len(set(kinds)) == 1 else "*"
    pattern = shlex.quote(f"{glob.escape(str(folder))}/**/{names}")
    return f"{len(kinds)} in folders below: to take all, give {pattern} instead"


def _pictures(paths: Iterable[Path]) -> list[Path]:
    found = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    return sorted(found, key=natural)


def natural(path: Path) -> list[str | int]:
    """Sort key that puts frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", str(path).lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
