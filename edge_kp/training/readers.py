"""Readers of iBUG ``.pts`` folders and WFLW lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edge_kp.errors import DataError
from edge_kp.files import IMAGE_SUFFIXES
from edge_kp.schema import FACE68, FACE98, MOST_KEYPOINTS, KeypointSchema
from edge_kp.training.samples import (
    MOST,
    PLAIN_NAMES,
    Reading,
    Sample,
    farthest_pair,
    file_key,
    has_extent,
    is_there,
    knowing_others,
    leads_out,
    read_image,
    read_lines,
)
from edge_kp.types import Array

_KINDS = " ".join(sorted(IMAGE_SUFFIXES))
WFLW_ATTRIBUTES = ("pose", "expression", "illumination", "make_up", "occlusion", "blur")


def plain_numbers(words: Sequence[str]) -> list[float]:
    """Raises: ValueError: a word is no plain number; ``float`` takes 1_0 and the digits of all scripts."""
    if not all(word.isascii() and "_" not in word for word in words):
        raise ValueError("expected plain numbers")
    return [float(word) for word in words]


def _unknown(n: int) -> Array:
    return np.full(n, np.nan, np.float32)


# ---- iBUG -----------------------------------------------------------------------------------------


def read_pts(path: Path) -> Array:
    """A ``.pts`` file, with the iBUG header and braces or bare lines of two numbers; (N, 2) float32, 0-based.

    Raises:
        DataError: unreadable, not finite, cut off, or not as many points as the header says.
    """
    lines = [line.strip() for line in read_lines(path)]
    first, last, promised = 0, len(lines), None
    if "{" in lines or any(":" in line for line in lines):
        if "{" not in lines or "}" not in lines:
            raise DataError(f"{path}: is cut off: it has a header but no {{ … }} around the points")
        first, last = lines.index("{") + 1, lines.index("}")
        for line in lines[: first - 1]:
            name, _, value = line.partition(":")
            if name.strip() == "n_points":
                promised = value.strip()
    points = []
    for number, line in enumerate(lines[first:last], first + 1):
        if not line:
            continue
        try:
            x, y = plain_numbers(line.split())
        except ValueError:
            raise DataError(f"{path}: line {number}: expected two numbers, got {line[:40]!r}") from None
        if not (abs(x) <= MOST and abs(y) <= MOST):  # NaN is no more
            raise DataError(f"{path}: line {number}: the point {line[:40]!r} is not finite")
        points.append((x - 1, y - 1))
    if promised is not None and promised != str(len(points)):
        raise DataError(f"{path}: the header says n_points: {promised[:40]}, but {len(points)} points follow")
    if len(points) > MOST_KEYPOINTS:
        raise DataError(f"{path}: holds {len(points)} points, more than {MOST_KEYPOINTS}")
    if not points:
        raise DataError(f"{path}: holds no points")
    return np.array(points, np.float32)


def picture_files(folder: Path, what: str) -> list[Path]:
    """The pictures directly in a folder, sorted, but for hidden ones.

    Args:
        what: the folder is given as, for messages.

    Raises:
        DataError: it is missing, cannot be read, or holds none.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise DataError(f"{what} {folder}: {error.strerror or error}; give a folder of pictures") from error
    found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise DataError(f"{what} {folder}: holds no picture ({_KINDS}); put some there or leave it away")
    return found


def read_ibug(folder: Path) -> Reading:
    """A folder of images with a ``.pts`` file beside each; images without one are left out."""
    if not folder.is_dir():
        raise DataError(
            f"ibug:{folder}: no such folder; give the folder that holds the images and .pts files"
        )
    images: dict[str, list[Path]] = {}
    labels = []
    try:
        files = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"ibug:{folder}: {error.strerror or error}") from error
    for path in files:
        if path.name.startswith("."):  # e.g. the ._x.pts that macOS leaves on foreign disks
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images.setdefault(path.stem, []).append(path)
        elif path.suffix.lower() == ".pts":
            labels.append(path)
    if not labels:
        raise DataError(
            f"ibug:{folder}: holds no .pts file; give the folder that holds them beside the images"
        )
    problems: list[str] = []
    shapes: dict[Path, Array] = {}
    for path in labels:
        beside = images.get(path.stem, [])
        if len(beside) != 1:
            what = "no image" if not beside else f"{len(beside)} images"
            problems.append(f"{path}: {what} beside it; expected one of that name ({_KINDS})")
        try:
            points = read_pts(path)
        except DataError as error:
            problems.extend(error.problems)
            continue
        if has_extent(points):
            shapes[path] = points
        else:
            problems.append(f"{path}: all points coincide")
    n = Counter(len(points) for points in shapes.values()).most_common(1)[0][0] if shapes else 0
    for path, points in shapes.items():
        if len(points) != n:
            problems.append(f"{path}: has {len(points)} points, most files of its folder have {n}")
    if problems:
        raise DataError(*problems)
    samples = tuple(
        Sample(
            file_key(folder, images[path.stem][0].name),
            points,
            _unknown(n),
            {},
            partial(read_image, str(images[path.stem][0])),
            picture=str(images[path.stem][0].resolve()),
        )
        for path, points in shapes.items()
    )
    known = {68: FACE68, 98: FACE98}.get(n)
    if known is not None:
        return Reading(folder.resolve().name, known, samples)
    names = tuple(f"point_{i}" for i in range(n))
    schema = KeypointSchema(f"points{n}", names, (), (), farthest_pair([s.keypoints for s in samples]))
    return Reading(folder.resolve().name, schema, samples, measured_reference=True)


# ---- WFLW -----------------------------------------------------------------------------------------


def read_wflw(file: Path, images_dir: Path) -> Reading:
    """A WFLW list; each line: 196 coordinates (0-based pixels), 4 box numbers, 6 attributes, image."""
    if not file.is_file():
        raise DataError(f"wflw:{file}: no such file; give the list_98pt_rect_attr_….txt file")
    if not images_dir.is_dir():
        raise DataError(f"wflw:{file}: no image folder {images_dir}")
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text: {error}") from error
    samples, problems, missing = [], [], set()
    for number, line in enumerate(lines, 1):
        fields = line.split(maxsplit=206)
        if not fields:
            continue
        try:
            if len(fields) != 207:
                raise ValueError(f"expected 206 numbers and an image name, got {len(fields)} fields")
            values = np.array(plain_numbers(fields[:206]))
            if not (np.abs(values) <= MOST).all():  # NaN is no more
                raise ValueError("a number is not finite")
            keypoints = values[:196].reshape(98, 2).astype(np.float32)
            if not has_extent(keypoints):
                raise ValueError("all points coincide")
            if not np.isin(values[200:206], (0, 1)).all():
                raise ValueError("an attribute is neither 0 nor 1")
            name = fields[206].strip()
            if leads_out(name):
                raise ValueError(f"image {name[:200]!r}: {PLAIN_NAMES}")
        except ValueError as error:
            problems.append(f"{file}: line {number}: {error}")
            continue
        if not is_there(images_dir / name):
            missing.add(name)
            continue
        attributes = dict(zip(WFLW_ATTRIBUTES, (float(v) for v in values[200:206]), strict=True))
        path = images_dir / name
        load = partial(read_image, str(path))
        key = f"{file_key(images_dir, name)}#{number}"
        samples.append(Sample(key, keypoints, _unknown(98), attributes, load, picture=str(path.resolve())))
    if missing and not samples:
        problems.append(f"{file}: none of its {len(missing)} images is in {images_dir}; give their folder")
    else:
        problems.extend(f"{file}: image {name[:200]!r} is not in {images_dir}" for name in sorted(missing))
    if not samples and not problems:
        problems.append(f"{file}: the list is empty")
    if problems:
        raise DataError(*problems)
    return Reading(file.name, FACE98, knowing_others(samples, [s.picture for s in samples], {}))
