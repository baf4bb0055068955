"""The YAML file of a YOLO pose data set: its classes, its keypoints, and where pictures and labels lie."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edge_kp.errors import DataError
from edge_kp.files import IMAGE_SUFFIXES
from edge_kp.schema import BUILT_IN, MOST_KEYPOINTS, KeypointSchema, Pair, pairs_from_names
from edge_kp.training.samples import Sample, farthest_pair, is_there, read_file, read_lines

_KINDS = " ".join(sorted(IMAGE_SUFFIXES))


@dataclass(frozen=True)
class Description:
    """What the YAML file says.

    Attributes:
        names: class number → name.
        n: keypoints of an object.
        dimensions: numbers of a keypoint: 2, or 3 with its visibility.
        data: all of it.
    """

    file: Path
    names: Mapping[int, str]
    n: int
    dimensions: int
    data: Mapping[str, Any]


def read_description(path: Path) -> Description:
    """Read the YAML file, given itself or by the folder that holds it.

    Raises:
        DataError: there is none, or it describes no pose data set.
    """
    file = _find(path)
    if not file.is_file():
        raise DataError(f"yolo:{file}: no such file; give the data set's .yaml file")
    try:
        data = yaml.safe_load(read_file(file).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: cannot be read as YAML: {reason}") from error
    if not isinstance(data, dict):
        raise DataError(f"{file}: describes no data set; expected names, kpt_shape and train")
    names = data.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    numbered = names if isinstance(names, dict) and all(type(i) is int for i in names) else {}
    if not numbered or not _are_names(numbered.values()):
        raise DataError(f"{file}: names: expected the names of the classes, e.g. [hand] or 0: hand")
    shape = data.get("kpt_shape")
    if shape is None:
        raise DataError(f"{file}: is no pose data set: kpt_shape, e.g. [17, 3], is missing")
    sound = isinstance(shape, list) and len(shape) == 2 and all(type(v) is int for v in shape)
    if not sound or not 2 <= shape[0] <= MOST_KEYPOINTS or shape[1] not in (2, 3):
        expected = f"[N, 2] or [N, 3] with N from 2 to {MOST_KEYPOINTS}"
        raise DataError(f"{file}: kpt_shape: expected {expected}, got {reprlib.repr(shape)}")
    return Description(file, {i: str(name) for i, name in numbered.items()}, shape[0], shape[1], data)


def _are_names(values: Iterable[Any]) -> bool:
    # YAML's aliases make nested lists without end out of a few lines: such are never turned into text.
    return all(isinstance(value, (str, int, float)) for value in values)


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / "data.yaml"] if (path / "data.yaml").is_file() else sorted(path.glob("*.y*ml"))
    if len(found) != 1:
        what = "no .yaml file" if not found else f"{len(found)} .yaml files"
        raise DataError(f"yolo:{path}: holds {what}; give the one that names kpt_shape and the pictures")
    return found[0]


def pictures_of(described: Description, split: str) -> tuple[Path, list[Path]]:
    """The folder that the split's entries start from, and its pictures in order.

    Args:
        split: the entry that names them: folders, or text files that list pictures.

    Raises:
        DataError: something named is not there.
    """
    file, data = described.file, described.data
    entries = data.get(split)
    entries = entries if isinstance(entries, list) else [entries]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        splits = ", ".join(key for key in ("train", "val", "test") if data.get(key))
        raise DataError(f"{file}: names no pictures for {split!r}; expected one of {splits or 'train, val'}")
    stated = Path(str(data.get("path") or "."))
    # Data sets move: the folder that the file names may be another machine's, or told from elsewhere.
    roots = [file.parent / stated, stated, file.parent]
    pictures: dict[Path, None] = {}
    used = file.parent
    for entry in entries:
        # Some exports write ../train/images for what lies beside the file.
        names = [entry, entry[3:]] if entry.startswith("../") else [entry]
        places = {root / name: root for root in reversed(roots) for name in reversed(names)}
        there = [place for place in reversed(places) if place.exists()]
        if not there:
            looked = " or ".join(str(place) for place in reversed(places))
            raise DataError(f"{file}: {split}: {entry[:200]!r} is not there, looked for {looked}")
        used = places[there[0]]
        pictures.update(dict.fromkeys(_listed(there[0], [there[0].parent, used])))
    if not pictures:
        raise DataError(f"{file}: {split}: no picture ({_KINDS}) in {', '.join(entries)[:200]}")
    return used, list(pictures)


def _listed(place: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """The pictures in a folder and those below it, or those that a text file lists."""
    if place.is_dir():
        found = (p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        yield from sorted(p for p in found if not p.name.startswith("."))
        return
    lines = read_lines(place, "; expected a folder, or a list of pictures")
    missing = []
    for line in filter(None, (line.strip() for line in lines)):
        there = next((folder / line for folder in folders if is_there(folder / line)), None)
        if there is None:
            missing.append(f"{place}: picture {line[:200]!r} is not there, looked for {folders[0] / line}")
        else:
            yield there
    if missing:
        raise DataError(*missing)


def label_file(picture: Path) -> Path:
    """Where a picture's labels are: the last folder called ``images`` gives way to ``labels``."""
    parts = list(picture.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def point_names(described: Description, kind: str) -> tuple[str, ...]:
    """The names of a class's keypoints: those in ``kpt_names``, else ``point_0`` and so on.

    One ``kpt_shape`` holds for all classes. One with fewer points has fewer names.

    Raises:
        DataError: there are too many, or they are none.
    """
    names = described.data.get("kpt_names")
    if isinstance(names, dict):
        names = next((names.get(i) for i, name in described.names.items() if name == kind), None)
    if names is None:
        names = [f"point_{i}" for i in range(described.n)]
    if not isinstance(names, list) or not 2 <= len(names) <= described.n or not _are_names(names):
        raise DataError(f"{described.file}: kpt_names: expected 2 to {described.n} names for class {kind!r}")
    return tuple(str(name) for name in names)


def schema_of(
    described: Description, kind: str, names: tuple[str, ...], samples: Sequence[Sample]
) -> KeypointSchema:
    """A class's schema; pairs that ``flip_idx`` does not name are those that the points' names tell.

    Args:
        names: of its keypoints.

    Raises:
        DataError: names, pairs or reference points do not fit.
    """
    known = BUILT_IN.get(kind)
    if known is not None and len(known) == len(names):
        return known
    flips, reference = described.data.get("flip_idx"), described.data.get("reference")
    try:
        pairs = pairs_from_names(names) if flips in (None, []) else _pairs(flips, described.n)
        if reference is None:
            reference = farthest_pair([s.keypoints for s in samples])
        elif not isinstance(reference, list) or list(map(type, reference)) != [int, int]:
            given = reprlib.repr(reference)
            raise ValueError(f"reference: expected the numbers of two points, from 0, got {given}")
        pairs = tuple(pair for pair in pairs if max(pair) < len(names))
        return KeypointSchema(kind, names, pairs, (), (reference[0], reference[1]))
    except ValueError as error:
        raise DataError(f"{described.file}: {error}") from error


def _pairs(flips: Any, n: int) -> tuple[Pair, ...]:
    """The pairs of ``flip_idx``, which says of each point which one it is in a mirror."""
    sound = isinstance(flips, list) and all(type(i) is int for i in flips) and sorted(flips) == list(range(n))
    if not sound or any(flips[flips[i]] != i for i in range(n)):
        raise ValueError(f"flip_idx: expected for each of {n} points, from 0, which one it is in a mirror")
    return tuple((i, j) for i, j in enumerate(flips) if i < j)
