"""Reader of labelme's JSON files, one a picture, as X-AnyLabeling writes them, too.

Each point is a shape of its own: its label says which keypoint it is, its group which object it belongs to
(github.com/wkentaro/labelme).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from edge_kp.errors import DataError
from edge_kp.files import parse_json
from edge_kp.schema import KeypointSchema, pairs_from_names
from edge_kp.training.samples import (
    MOST,
    Reading,
    Sample,
    farthest_pair,
    file_key,
    has_extent,
    is_there,
    knowing_others,
    label_problem,
    read_file,
    read_image,
)
from edge_kp.types import Array

NAMES = "labels.txt"  # the keypoints in their order, one a line, as for `labelme --labels`
RARE = 0.05  # share of the objects below which a name is odd
_HIDDEN = ("occluded", "hidden")  # flags of a shape; X-AnyLabeling has a field of its own, "difficult"


@dataclass(frozen=True, eq=False)
class _Point:
    position: Array
    hidden: bool


@dataclass(frozen=True, eq=False)
class _File:
    """What a label file holds.

    Attributes:
        size: (width, height) that it tells of the picture.
        objects: group → label → point.
        rectangles: (4,) boxes, frame pixels, and their labels.
    """

    path: Path
    picture: Path
    size: tuple[int, int] | None
    objects: Mapping[Hashable, Mapping[str, _Point]]
    rectangles: Sequence[tuple[str, Array]]


def read_labelme(folder: Path, images_dir: Path | None = None) -> Reading:
    """A folder of label files, their pictures beside them or in ``images_dir``.

    Points without a group are one object. A rectangle without points in it is an object that is not labelled.
    Points are in the order of ``labels.txt`` in the folder, else in that of their names, 2 before 10.

    Raises:
        DataError: with every problem found.
    """
    for needed in (folder, *([images_dir] if images_dir is not None else [])):
        if not needed.is_dir():
            raise DataError(f"labelme:{folder}: no such folder as {needed}; give that of the .json files")
    found = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    if not found:
        raise DataError(f"labelme:{folder}: holds no .json file; give the folder that labelme saved to")
    files: list[_File] = []
    problems: list[str] = []
    for path in found:
        try:
            files.append(_read(path, images_dir or folder))
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(*problems)
    names = _names(folder, files)
    notes = _odd_names(folder, files)
    has_flags = any(p.hidden for file in files for thing in file.objects.values() for p in thing.values())
    samples, pictures = [], []
    unlabelled: dict[Hashable, list[Array | None]] = {}
    for file in files:
        alone = [box for _, box in file.rectangles if not _holds_any(box, file)]
        unlabelled.setdefault(file.picture, []).extend(alone)
        for number, thing in enumerate(file.objects.values(), 1):
            try:
                sample = _sample(file, number, thing, names, has_flags)
            except ValueError as error:
                problems.append(f"{file.path}: {error}")
                continue
            if sample is None:
                unlabelled[file.picture].append(None)
                continue
            samples.append(sample)
            pictures.append(file.picture)
    if not samples and not problems:
        problems.append(f"labelme:{folder}: no object with two labelled points in its {len(files)} files")
    if problems:
        raise DataError(*problems)
    pair = farthest_pair([s.keypoints for s in samples])
    try:
        schema = KeypointSchema(f"points{len(names)}", names, pairs_from_names(names), (), pair)
    except ValueError as error:
        raise DataError(f"labelme:{folder}: {error}") from error
    return Reading(
        folder.resolve().name,
        schema,
        knowing_others(samples, pictures, unlabelled),
        measured_reference=True,
        pairs_by_name=True,
        notes=notes,
    )


def _read(path: Path, images: Path) -> _File:
    try:
        data = parse_json(read_file(path).decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise DataError(f"{path}: is no label file of labelme; expected an object with shapes and imagePath")
    try:
        return _File(path, _picture(path, data, images), _size(data), *_shapes(data["shapes"]))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _picture(path: Path, data: Mapping[str, Any], images: Path) -> Path:
    """The file that the label file names, wherever its own path to it led."""
    name = PureWindowsPath(str(data.get("imagePath") or "")).name  # knows / and \
    if not name or not is_there(images / name):
        raise ValueError(
            f"its picture {name[:200]!r} is not in {images}; put it there, or add the folder of pictures"
        )
    return images / name


def _size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height), None where the file does not tell."""
    width, height = data.get("imageWidth"), data.get("imageHeight")
    if width is None or height is None:
        return None
    if not all(type(side) is int and 0 < side < 2**31 for side in (width, height)):
        raise ValueError("imageWidth and imageHeight: expected whole numbers of pixels")
    return width, height


def _shapes(
    shapes: Sequence[Any],
) -> tuple[dict[Hashable, dict[str, _Point]], list[tuple[str, Array]]]:
    objects: dict[Hashable, dict[str, _Point]] = {}
    rectangles = []
    for number, shape in enumerate(shapes, 1):
        try:
            kind, label, group = shape["shape_type"], shape["label"], shape.get("group_id")
            if kind not in ("point", "rectangle"):
                continue
            corners = np.array(shape["points"], np.float64)
            flags = shape.get("flags") or {}
            hidden = bool(shape.get("difficult")) or any(flags.get(name) for name in _HIDDEN)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise ValueError(f"shape {number} is none; expected label, shape_type and points") from None
        if not isinstance(label, str) or not isinstance(group, (int, str, type(None))):
            raise ValueError(f"shape {number}: expected a text as label and a number as group_id")
        if corners.shape[1:] != (2,) or not len(corners) or not (np.abs(corners) <= MOST).all():
            raise ValueError(f"shape {number} ({label[:80]!r}): expected points of two finite numbers")
        corners -= 0.5  # measured from the picture's edge, the frame's from the first pixel's centre
        if kind == "rectangle":
            low, high = corners.min(0), corners.max(0)
            if (low < high).all():
                rectangles.append((label, np.concatenate([low, high]).astype(np.float32)))
            continue
        points = objects.setdefault(group, {})
        if label in points:
            which = f"group {group}" if group is not None else "the object without a group"
            raise ValueError(
                f"{which} has two points {label[:80]!r}; give the points of each object a group id of its own"
            )
        points[label] = _Point(corners[0].astype(np.float32), hidden)
    return objects, rectangles


def _names(folder: Path, files: Sequence[_File]) -> tuple[str, ...]:
    used = {label: file.path for file in files for thing in file.objects.values() for label in thing}
    boxes = {label for file in files for label, _ in file.rectangles}
    listed = folder / NAMES
    if not listed.exists():
        return tuple(sorted(used, key=_natural))
    try:
        lines = [line.strip() for line in read_file(listed).decode("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listed}: cannot be read: {error}") from error
    # Names like __ignore__ stand for no object, and some are those of rectangles.
    names = [n for n in lines if n and (n in used or not (n.startswith("_") or n in boxes))]
    if unknown := [label for label in used if label not in names]:
        raise DataError(f"{used[unknown[0]]}: its label {unknown[0][:80]!r} is not in {listed}; add it there")
    return tuple(dict.fromkeys(names))


def _odd_names(folder: Path, files: Sequence[_File]) -> tuple[str, ...]:
    """Lines on names that hardly any object has, and on files without points.

    Raises:
        DataError: two names differ in case alone.
    """
    where: dict[str, list[Path]] = {}
    for file in files:
        for thing in file.objects.values():
            for label in thing:
                where.setdefault(label, []).append(file.path)
    alike: dict[str, str] = {}
    for label in where:
        other = alike.setdefault(label.strip().casefold(), label)
        if other != label:
            few = min((label, other), key=lambda name: len(where[name]))
            most = other if few == label else label
            raise DataError(
                f"{where[few][0]}: its label {few[:80]!r} is {most[:80]!r} elsewhere; write it so"
            )
    objects = sum(len(file.objects) for file in files)
    notes = [
        f"{folder}: {label[:80]!r} is labelled in {len(paths)} of {objects} objects, e.g. in {paths[0]}:"
        " is it another point's name?"
        for label, paths in where.items()
        if len(paths) < RARE * objects
    ]
    if blank := sum(not file.objects for file in files):
        notes.append(f"{folder}: {blank} of {len(files)} files hold no point: left out")
    return tuple(notes)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``p2`` before ``p10``."""
    parts = re.split(r"([0-9]+)", name)  # every second one is a number; of two the longer one is larger
    return [(len(part.lstrip("0")) if i % 2 else 0, part) for i, part in enumerate(parts)]


def _holds_any(box: Array, file: _File) -> bool:
    inside = (
        (box[:2] <= point.position).all() and (point.position <= box[2:]).all()
        for thing in file.objects.values()
        for point in thing.values()
    )
    return any(inside)


def _sample(
    file: _File, number: int, thing: Mapping[str, _Point], names: Sequence[str], has_flags: bool
) -> Sample | None:
    """One object; None where too few points are labelled to place a crop."""
    if len(thing) < 2:
        return None
    keypoints = np.full((len(names), 2), np.nan, np.float32)
    visible = np.full(len(names), np.nan, np.float32)
    for label, point in thing.items():
        keypoints[names.index(label)] = point.position
        if has_flags:
            visible[names.index(label)] = float(not point.hidden)
    if not has_extent(keypoints):
        raise ValueError("all points of an object coincide")
    if file.size is not None and (problem := label_problem(keypoints, *file.size)):
        raise ValueError(problem)
    return Sample(
        f"{file_key(file.path.parent, file.picture.name)}#{number}",
        keypoints,
        visible,
        {},
        partial(read_image, str(file.picture), file.size),
        file.size,
        picture=str(file.picture.resolve()),
    )
