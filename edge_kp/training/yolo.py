"""Reader of YOLO pose data sets: a YAML file, pictures, and for each a text file with a line an object.

A line holds the number of a class, the box's centre, width and height, and the keypoints, all but the first
as shares of the picture's sides (docs.ultralytics.com/datasets/pose).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from edge_kp.errors import DataError
from edge_kp.files import IMAGE_SUFFIXES
from edge_kp.schema import BUILT_IN
from edge_kp.training.readers import plain_numbers
from edge_kp.training.samples import (
    MOST,
    Reading,
    Sample,
    file_key,
    has_extent,
    is_there,
    knowing_others,
    label_problem,
    read_image,
    read_lines,
)
from edge_kp.training.yolo_yaml import (
    Description,
    label_file,
    pictures_of,
    point_names,
    read_description,
    schema_of,
)
from edge_kp.types import Array

_ORIENTATION = 0x0112  # EXIF
_SIDEWAYS = (5, 6, 7, 8)  # its values with which width and height change places


@dataclass(frozen=True, eq=False)
class _Object:
    """A line of a label file.

    Attributes:
        kind: name of its class.
        size: (width, height) of the picture.
        keypoints: (N, 2) float32 frame pixels, NaN where not labelled; ``visible`` as in a sample.
        box: (4,) ``[x0, y0, x1, y1]``, frame pixels; None where the file tells none.
    """

    picture: Path
    line: int
    kind: str
    size: tuple[int, int]
    keypoints: Array
    visible: Array
    box: Array | None


def read_yolo(path: Path, split: str = "train", only: str | None = None) -> Reading:
    """One split of a data set that a YAML file describes.

    Pictures without labels are left out. Objects with fewer than two labelled points are no samples, but the
    others know where they are.

    Args:
        path: the YAML file, or the folder that holds it.
        split: the entry that names the pictures.
        only: name of the class to read; needed where objects of several are labelled.

    Raises:
        DataError: with every problem found.
    """
    described = read_description(path)
    start = f"{described.file}: {split}:"
    if only is not None and only not in described.names.values():
        known = ", ".join(described.names.values())
        raise DataError(f"{described.file}: no class is called {only!r}; expected one of {known[:200]}")
    root, pictures = pictures_of(described, split)
    labels = {picture: label_file(picture) for picture in pictures}
    labelled = {picture: label for picture, label in labels.items() if is_there(label)}
    if not labelled:
        first = next(iter(labels.values()))
        raise DataError(f"{start} none of its {len(labels)} pictures has labels, looked for {first}")
    objects: list[_Object] = []
    problems: list[str] = []
    for picture, label in labelled.items():
        try:
            objects.extend(_objects(picture, label, described, only))
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(*problems)
    kinds = sorted({thing.kind for thing in objects})
    if len(kinds) > 1:
        raise DataError(
            f"{start} has objects of several classes ({', '.join(kinds)[:200]}), a model is of one; add e.g."
            f" ,only={kinds[0]}"
        )
    if not any(_is_sample(thing) for thing in objects):
        whose = f" of class {only!r}" if only is not None else ""
        raise DataError(f"{start} no object{whose} with two labelled points in {len(labelled)} label files")
    names = point_names(described, kinds[0])
    for thing in objects:
        if not np.isnan(thing.keypoints[len(names) :]).all():
            raise DataError(
                f"{label_file(thing.picture)}: line {thing.line}: labels more points than the"
                f" {len(names)} that kpt_names names for class {thing.kind!r}"
            )
    reading = _reading(described, f"{root.resolve().name}/{split}", root, objects, names)
    return replace(reading, notes=_notes(start, labels))


def _notes(start: str, labels: Mapping[Path, Path]) -> tuple[str, ...]:
    """What is left out without being wrong, of picture → label file."""
    there = [label for label in labels.values() if is_there(label)]
    blank = sum(not label.read_bytes().strip() for label in there)
    notes = []
    if blank or len(there) < len(labels):
        notes.append(
            f"{start} {len(labels) - len(there)} of {len(labels)} pictures have no label file, and {blank} an"
            " empty one: left out; those that show no object teach so in a folder for --empty"
        )
    # Pictures of another split may lie in the same folder.
    beside = (path for folder in {picture.parent for picture in labels} for path in folder.iterdir())
    shown = {path.stem for path in beside if path.suffix.lower() in IMAGE_SUFFIXES}
    lost = [
        label
        for folder in dict.fromkeys(label.parent for label in there)
        for label in sorted(folder.glob("*.txt"))
        if label.stem not in shown and label.name != "classes.txt"
    ]
    if lost:
        notes.append(f"{start} {len(lost)} label files have no picture, e.g. {lost[0]}")
    return tuple(notes)


def _objects(picture: Path, label: Path, described: Description, only: str | None) -> list[_Object]:
    """What a label file holds. The picture's header is read, since nothing else tells its size."""
    rows: dict[str, int] = {}
    for number, line in enumerate(read_lines(label), 1):
        if line.strip():
            rows.setdefault(line.strip(), number)  # the same line twice is the same object
    size = _upright_size(picture) if rows else (0, 0)
    objects, problems = [], []
    for line, number in rows.items():
        try:
            words = line.split()
            kind = _kind(words[0], described)
            if only in (None, kind):
                values = _values(words, described)
                objects.append(_object(picture, number, kind, size, values, described.dimensions))
        except ValueError as error:
            problems.append(f"{label}: line {number}: {error}")
    if problems:
        raise DataError(*problems)
    return objects


def _kind(word: str, described: Description) -> str:
    """The name of the class that a line begins with."""
    (number,) = plain_numbers([word])
    if number not in described.names:
        raise ValueError(f"class {word[:20]} is none of names")
    return described.names[int(number)]


def _values(words: Sequence[str], described: Description) -> Array:
    """The numbers of a line behind that of its class."""
    count = 5 + described.n * described.dimensions
    if len(words) != count:
        alone = ": a box alone, as for detection" if len(words) == 5 else ""
        expected = f"5 + {described.n} x {described.dimensions} numbers"
        raise ValueError(f"expected {expected} (kpt_shape), got {len(words)}{alone}")
    values = np.array(plain_numbers(words[1:]))
    if not (np.abs(values) <= MOST).all():  # NaN is no more
        raise ValueError("a number is not finite")
    return values


def _object(
    picture: Path, line: int, kind: str, size: tuple[int, int], values: Array, dimensions: int
) -> _Object:
    points = values[4:].reshape(-1, dimensions)
    if dimensions == 3:
        flag = points[:, 2]
        if not np.isin(flag, (0, 1, 2)).all():
            raise ValueError("a visibility flag is none of 0, 1, 2")
        visible = np.choose(flag.astype(int), [np.nan, 0, 1])
    else:
        # Without flags, a point that is not labelled is told outside of the picture, or in its very corner.
        flag = np.asarray((points >= 0).all(1) & (points > 0).any(1))
        visible = np.full(len(points), np.nan)
    # Shares are measured from the picture's edge, the frame's coordinates from the first pixel's centre.
    keypoints = np.where(flag[:, None] > 0, points[:, :2] * size - 0.5, np.nan)
    if problem := label_problem(keypoints, *size):
        raise ValueError(f"{problem}; expected shares of its sides from 0 to 1: are these pixels?")
    if (flag > 0).sum() >= 2 and not has_extent(keypoints):
        raise ValueError("all points coincide")
    centre, half = values[:2] * size - 0.5, values[2:4] * size / 2
    box = np.concatenate([centre - half, centre + half]).astype(np.float32) if (half > 0).all() else None
    return _Object(picture, line, kind, size, keypoints.astype(np.float32), visible.astype(np.float32), box)


def _is_sample(thing: _Object) -> bool:
    return int((~np.isnan(thing.keypoints[:, 0])).sum()) >= 2


def _upright_size(picture: Path) -> tuple[int, int]:
    """(width, height) of a picture that is turned as its EXIF data say, without decoding it.

    Raises:
        DataError: it is no picture.
    """
    try:
        with Image.open(picture) as image:
            width, height = image.size
            sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{picture}: cannot be decoded as an image; replace or remove it") from error
    return (height, width) if sideways else (width, height)


def _reading(
    described: Description, name: str, root: Path, objects: Sequence[_Object], names: tuple[str, ...]
) -> Reading:
    samples, pictures = [], []
    unlabelled: dict[Hashable, list[Array | None]] = {}
    for thing in objects:
        if not _is_sample(thing):
            unlabelled.setdefault(thing.picture, []).append(thing.box)
            continue
        inside = thing.picture.is_relative_to(root)
        short = thing.picture.relative_to(root).as_posix() if inside else thing.picture.name
        samples.append(
            Sample(
                f"{file_key(root, short)}#{thing.line}",
                thing.keypoints[: len(names)],
                thing.visible[: len(names)],
                {},
                partial(read_image, str(thing.picture), thing.size),
                thing.size,
                picture=str(thing.picture.resolve()),
            )
        )
        pictures.append(thing.picture)
    schema = schema_of(described, objects[0].kind, names, samples)
    own = schema not in BUILT_IN.values()
    return Reading(
        name,
        schema,
        knowing_others(samples, pictures, unlabelled),
        measured_reference=own and described.data.get("reference") is None,
        pairs_by_name=own and not described.data.get("flip_idx"),
    )
