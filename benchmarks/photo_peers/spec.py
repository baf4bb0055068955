"""Landmark networks described by TOML files, for ``benchmarks.peer_photos --network``.

    file = "pfld.onnx"            # beside the TOML file
    runtime = "onnxruntime"       # or "opencv", or "facemark-lbf" with OpenCV's YAML file
    size = [112, 112]             # width and height of the input, pixels
    colour = "rgb"                # or "bgr", "grey"
    layout = "nchw"               # or "nhwc"
    scale = 0.00392156862745098   # input = (pixel * scale - mean) / std
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    coordinates = "unit"          # [0, 1] of the crop; or "centred" ([-1, 1]), "pixels"
    box_scale = 1.2               # width of the crop, in longer sides of the 68 points' box

``benchmarks.photo_peers.network.NetworkSpec`` tells the other keys and what each may be.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.photo_peers.network import (
    COLOURS,
    COORDINATES,
    DTYPES,
    LAYOUTS,
    RUNTIMES,
    NetworkSpec,
)
from edge_kp.config import read_toml
from edge_kp.errors import ConfigError

_CHOICES = {
    "runtime": RUNTIMES,
    "colour": COLOURS,
    "layout": LAYOUTS,
    "dtype": DTYPES,
    "coordinates": COORDINATES,
}
_LARGEST = 4096  # pixels, side of an input; and index of a point


def read_spec(path: Path) -> NetworkSpec:
    """The network that a TOML file describes.

    Raises:
        ConfigError: in one line: no such file, no TOML, an unknown key, or a value of another kind.
    """
    told = read_toml(path)
    known = [field.name for field in fields(NetworkSpec)]
    for key in told:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"is it {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{path}: {key}: no such key; {hint}")
    if "file" not in told:
        raise ConfigError(f"{path}: file: is missing; name the network's file")
    values: dict[str, Any] = {"name": path.stem}
    for key, value in told.items():
        values[key] = _value(path, key, value)
    file = path.parent / values["file"]
    if not file.is_file():
        raise ConfigError(f"{path}: file: there is no {file}")
    spec = NetworkSpec(**{**values, "file": str(file)})
    channels = 1 if spec.colour == "grey" else 3
    for key, numbers in (("mean", spec.mean), ("std", spec.std)):
        if len(numbers) not in (1, channels):
            raise ConfigError(f"{path}: {key}: expected 1 or {channels} numbers, got {len(numbers)}")
    return spec


def _value(path: Path, key: str, value: Any) -> Any:
    """A key's value as the spec holds it."""

    def refuse(expected: str) -> ConfigError:
        return ConfigError(f"{path}: {key}: expected {expected}, got {value!r}")

    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise refuse(f"one of {', '.join(_CHOICES[key])}")
        return value
    if key in ("name", "file", "output", "python"):
        if not isinstance(value, str) or not value or "\0" in value:
            raise refuse("a text")
        return value
    if key == "columns":
        if not _whole(value, 2, 16):
            raise refuse("a whole number from 2 to 16")
        return value
    if key in ("scale", "box_scale"):
        if not _numbers([value]) or value <= 0:
            raise refuse("a number above 0")
        return float(value)
    if key in ("mean", "std"):
        numbers = value if isinstance(value, list) else [value]
        if not _numbers(numbers) or (key == "std" and min(numbers) <= 0):
            raise refuse("numbers" if key == "mean" else "numbers above 0")
        return tuple(float(v) for v in numbers)
    if key == "size":
        if not isinstance(value, list) or len(value) != 2 or not all(_whole(v, 8, _LARGEST) for v in value):
            raise refuse(f"[width, height], from 8 to {_LARGEST} pixels")
        return tuple(value)
    if key == "box_shift":
        if not isinstance(value, list) or len(value) != 2 or not _numbers(value):
            raise refuse("[x, y]")
        return tuple(float(v) for v in value)
    if not isinstance(value, list) or len(value) != 68 or not all(_whole(v, 0, _LARGEST) for v in value):
        raise refuse("68 indices of the network's points, from 0")
    return tuple(value)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _numbers(values: Sequence[Any]) -> bool:
    """Are they numbers, and at least one?"""
    return bool(values) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )
