"""Arguments of the public calls: what is wrong with one is told before anything is done with it."""

from __future__ import annotations

import math
import numbers
import operator
import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt


def as_whole(name: str, value: object) -> int:
    """A whole number of any kind, such as ``np.int64(3)``.

    Raises:
        ValueError: 1.5, None, True, "3" and the like.
    """
    try:
        if isinstance(value, bool | np.bool_):  # for Python they are 0 and 1
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # what has no index is told below
    except TypeError:
        raise ValueError(f"{name}: expected a whole number, got {_told(value)}") from None


def as_count(name: str, value: object) -> int:
    """A whole number from 1 up; ValueError for anything else."""
    count = as_whole(name, value)
    if count < 1:
        raise ValueError(f"{name}: expected at least 1, got {count}")
    return count


def as_number(name: str, value: object) -> float:
    """A real number of any kind, such as ``np.float32(0.5)``; it may be infinite or NaN.

    Raises:
        ValueError: None, True, "1" and the like, or a number that no float can hold.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name}: expected a number, got {_told(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that a float can hold") from None


def as_seconds(name: str, value: object) -> float:
    """A finite number from 0 up; ValueError for anything else."""
    seconds = as_number(name, value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name}: expected seconds from 0 up, got {seconds}")
    return seconds


def as_array(name: str, value: object, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array as it is; lists of numbers and the like as one of ``dtype``.

    Raises:
        ValueError: no numbers, or rows of different lengths.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected an array of numbers, got {_told(value)}") from None


def check_image(image: npt.NDArray[Any]) -> None:
    """
    Raises:
        ValueError: not uint8 BGR (H, W, 3), or empty.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image: expected a uint8 array (H, W, 3), got {type(image).__name__}; was it read?")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected uint8 (H, W, 3) BGR, got {image.dtype} {image.shape}")


def _told(value: object) -> str:
    """On one line, cut short."""
    plain = value is None or isinstance(value, str | numbers.Number)
    return reprlib.repr(value) if plain else f"a {type(value).__name__}"
