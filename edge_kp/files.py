"""Files that are either whole or not there, and the reading of those that may be damaged."""

from __future__ import annotations

import errno
import glob
import json
import os
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.errors import ModelError
from edge_kp.types import Array

ABANDONED_S = 3600.0  # age at which a half-written file is nobody's any more
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})  # of pictures
DARK = 16  # of 255: nothing is brighter in 12-bit pictures that are taken for 16 bits
LARGEST = 2**30  # bytes of arrays that a file may unpack to


def dark_end(image: Array, stored: Callable[[], Array | None]) -> int | None:
    """Largest value of a picture that holds 12 bits in 16, and is all but black in 8; None for others.

    Args:
        image: the picture in 8 bits.
        stored: reads it as it is stored; asked only where the picture is all but black.
    """
    raw = stored() if 0 < image.max() <= DARK else None
    # No scaling by what one picture holds: the next would come out in another brightness.
    return int(raw.max()) if raw is not None and raw.dtype == np.uint16 and raw.max() > 255 else None


def clear_abandoned(path: Path) -> None:
    """Remove what killed programs left half written beside ``path``; another may be at work there now."""
    for old in path.parent.glob(f".*.part.{glob.escape(path.name)}"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED_S:
                old.unlink()


def try_writing(path: Path) -> None:
    """Create a file beside ``path``, as :func:`replacing` does, and remove it: before work that takes long.

    Raises:
        OSError: this cannot be done.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.touch()
    part.unlink()


def _part(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}.part.{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path``, of the same suffix, to write to; it takes the place of ``path`` at the end.

    After an error, or a kill, an older file at ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def room_for(out: Path) -> Iterator[None]:
    """What is written in it goes to ``out``; of a full disk the system names another file, or none.

    Raises:
        ModelError: the disk is full, or what one may use of it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ModelError(
            f"{out}: cannot be written ({reason(error)}); make room there, or give another folder"
        ) from error


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """A folder on the disk of ``out`` to write in: in it, if it is there, since a disk may be mounted at it.

    Raises:
        ModelError: that disk is full.
    """
    with room_for(out):
        around = out if out.exists() else out.parent
        around.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=around) as temporary:
            yield Path(temporary)


def absolute(path: Path) -> Path:
    """The path from the root on, links not followed: ``.`` gets a name, and a link keeps its own."""
    return Path(os.path.abspath(path))


def reason(error: Exception) -> str:
    """Why something cannot be read: what the system says, without the path, which the message has already."""
    said = getattr(error, "strerror", None)
    return said.lower() if said else " ".join(str(error).split())[:200]


def parse_json(text: str) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of an ``.npz`` file, after its check sums were compared; no code in it is run.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged, holds something else, or unpacks to more than :data:`LARGEST` bytes.
    """
    try:
        with zipfile.ZipFile(path) as zipped:
            size = sum(entry.file_size for entry in zipped.infolist())
            if size > LARGEST:
                raise ValueError(f"unpacks to {size} bytes, more than {LARGEST}")
            # NumPy reads no further than the shapes say, and so may never come to a check sum.
            if (damaged := zipped.testzip()) is not None:
                raise ValueError(f"{damaged} differs from its check sum")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except (
        *(OSError, EOFError, ValueError, TypeError, KeyError, SyntaxError, RuntimeError, OverflowError),
        *(MemoryError, zipfile.BadZipFile, zlib.error, struct.error),
    ) as error:  # zipfile and NumPy raise all of these for damaged files
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name!r} is no array")
    return arrays
