"""A 3D face whose shape has parameters: its file, and the shapes that it can take.

Frame: face frame as in ``edge_kp.pose`` (cm; x towards the face's own left, y up, z out of the face).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from edge_kp.errors import DataError
from edge_kp.files import parse_json, read_arrays
from edge_kp.types import Array

PARTS = ("face", "head", "mouth_socket", "eye_sockets", "teeth", "eyeballs")
FACE, HEAD, MOUTH_SOCKET, EYE_SOCKETS, TEETH, EYEBALLS = range(len(PARTS))

_ADVICE = "give the .npz file of a face model, with the arrays that load_face_model in face_model.py names"
# The later identity modes of ICT-FaceKit move no landmark by more than 0.2 mm.
_IDENTITY_MODES = 50


@dataclass(frozen=True, eq=False)
class FaceModel:
    """What the file holds, ready for use.

    Attributes:
        vertices: (V, 3) float32, the mean face without expression.
        triangles: (T, 3) int32, counter-clockwise as seen from outside.
        identity: (I, 3V) float32, offsets in cm per standard deviation.
        expression: (E, 3V) float32, offsets in cm of each whole expression.
        expression_names: (E,), ``_L`` and ``_R`` mark the halves of a pair.
        landmarks: (68,) vertex of each point of ``FACE68``.
        part: (V,) place in ``PARTS``.
    """

    vertices: Array
    triangles: Array
    identity: Array
    expression: Array
    expression_names: tuple[str, ...]
    landmarks: Array
    part: Array

    def shape(self, identity: Array, expression: Array) -> Array:
        """(V, 3) float32 vertices of a person (I,) with an expression (E,)."""
        active = np.flatnonzero(expression)
        offsets = identity.astype(np.float32) @ self.identity
        offsets += expression[active].astype(np.float32) @ self.expression[active]
        return np.asarray(self.vertices + offsets.reshape(-1, 3))


@lru_cache(maxsize=2)
def load_face_model(path: str) -> FaceModel:
    """The model file, read once per process.

    The ``.npz`` holds ``vertices`` (V, 3) cm, ``triangles`` (T, 3), ``identity`` (I, V, 3), ``expression``
    (E, V, 3), ``expression_names`` (E,), ``landmarks68`` (68,) and ``parts``, JSON of the range of vertices
    of each of ``PARTS``: [first, past the last].

    Raises:
        DataError: the file is missing, damaged, or lacks a part of this.
    """
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise DataError(f"rendered: {path}: no such file; {_ADVICE}") from None
    except ValueError:
        raise DataError(f"rendered: {path}: cannot be read as a face model; {_ADVICE}") from None
    if problem := _problem(arrays):
        raise DataError(f"rendered: {path}: {problem}; {_ADVICE}")
    vertices = arrays["vertices"].astype(np.float32)
    return FaceModel(
        vertices=vertices,
        triangles=arrays["triangles"].astype(np.int32),
        identity=_rows(arrays["identity"][:_IDENTITY_MODES]),
        expression=_rows(arrays["expression"]),
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        landmarks=arrays["landmarks68"].astype(np.int64),
        part=_part_of_vertices(arrays["parts"], len(vertices)),
    )


def _rows(offsets: Array) -> Array:
    """Offsets (M, V, 3) as float32 (M, 3V)."""
    return np.ascontiguousarray(offsets.reshape(len(offsets), -1), np.float32)


def _problem(arrays: Mapping[str, Any]) -> str | None:
    """What is wrong with a model file's arrays."""
    names = ("vertices", "triangles", "identity", "expression", "expression_names", "landmarks68", "parts")
    if missing := [name for name in names if name not in arrays]:
        return f"lacks {', '.join(missing)}"
    count, expressions = len(np.atleast_1d(arrays["vertices"])), arrays["expression_names"].size
    shapes: dict[str, tuple[int | None, ...]] = {
        "vertices": (count, 3),
        "triangles": (None, 3),
        "identity": (None, count, 3),
        "expression": (expressions, count, 3),
        "landmarks68": (68,),
    }
    for name, shape in shapes.items():
        if problem := _array_problem(arrays[name], shape, whole=name in ("triangles", "landmarks68")):
            return f"{name} {problem}"
    for name in ("triangles", "landmarks68"):
        if arrays[name].size and not (arrays[name].min() >= 0 and arrays[name].max() < count):
            return f"{name} names vertices that are not there"
    return _parts_problem(arrays["parts"], count)


def _array_problem(array: Array, shape: tuple[int | None, ...], whole: bool) -> str | None:
    """What is wrong with an array of whole numbers or fractions; None in ``shape`` allows any length."""
    fits = len(array.shape) == len(shape) and all(
        a in (None, b) for a, b in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.issubdtype(array.dtype, np.integer if whole else np.floating):
        kind = "whole numbers" if whole else "fractions"
        expected = str(shape).replace("None", "any")
        return f"has the shape {array.shape} of type {array.dtype}, expected {kind} {expected}"
    if not array.size:
        return "is empty"
    with np.errstate(over="ignore"):  # beyond float32 is as good as infinite
        finite = np.isfinite(array.astype(np.float32)).all()
    return None if finite else "holds values that are not finite"


def _parts_problem(parts: Array, count: int) -> str | None:
    """What is wrong with the JSON of the parts of ``count`` vertices."""
    try:
        ranges = parse_json(str(parts))
        good = all(0 <= int(a) <= int(b) <= count for a, b in (ranges[name] for name in PARTS))
    except (ValueError, TypeError, KeyError, OverflowError):
        good = False
    return None if good else f"parts is not JSON of vertex ranges of {', '.join(PARTS)}"


def _part_of_vertices(parts: Array, count: int) -> Array:
    """(V,) uint8 place in ``PARTS``; a vertex of no part is of the head."""
    ranges = parse_json(str(parts))
    part = np.full(count, HEAD, np.uint8)
    for i, name in enumerate(PARTS):
        part[int(ranges[name][0]) : int(ranges[name][1])] = i
    return part
