"""Reader of COCO keypoint files."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from edge_kp.errors import DataError
from edge_kp.files import parse_json
from edge_kp.schema import BUILT_IN, MOST_KEYPOINTS, KeypointSchema, Pair, pairs_from_names
from edge_kp.training.coco_faults import (
    missing_field,
    number_annotations,
    short,
    unlike_images,
    why_none,
)
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
    label_problem,
    leads_out,
    read_image,
)
from edge_kp.training.units import unit_problem
from edge_kp.types import Array


def read_coco(file: Path, images_dir: Path | None = None, only: str | None = None) -> Reading:
    """A COCO keypoints file.

    Crowds and objects with fewer than two labels are no samples, but the others know where they are.

    Args:
        only: name of the category to read; needed where several have labelled keypoints.

    Raises:
        DataError: with every problem found.
    """
    if not file.is_file():
        raise DataError(f"coco:{file}: no such file; give the .json file of keypoint annotations")
    if images_dir is not None and not images_dir.is_dir():
        raise DataError(f"coco:{file}: no image folder {images_dir}")
    try:
        data = parse_json(file.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from error
    if not (isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()):
        raise DataError(
            f"{file}: is no COCO keypoints file; expected an object with images, annotations and categories"
        )
    try:
        if problem := missing_field(data):
            raise DataError(f"{file}: {problem}")
        category = _category(file, data, only)
        if problem := number_annotations(data["annotations"], category["id"]):
            raise DataError(f"{file}: {problem}")
        names = _names(file, category)
        entries = {image["id"]: image for image in data["images"]}
        if len(entries) < len(data["images"]):
            raise DataError(f"{file}: two images have the same id, so that it does not say which is labelled")
        annotations = [a for a in data["annotations"] if a["category_id"] == category["id"]]
        numbers = Counter(repr(a["id"]) for a in annotations)
        if numbers and max(numbers.values()) > 1:
            twice = numbers.most_common(1)[0][0]
            raise DataError(
                f"{file}: two annotations have the id {short(twice)}; give each its own, or remove one"
            )
        folders = [images_dir] if images_dir is not None else [file.parent, file.parent / "images"]
        # Of pictures that nothing is labelled in, the names do not matter.
        shown = dict.fromkeys(a["image_id"] for a in annotations if _is_labelled(a))
        if problem := unlike_images(entries.keys(), shown):
            raise DataError(f"{file}: {problem}")
        files = {i: str(image["file_name"]) for i, image in entries.items() if i in shown}
        if outside := [name for name in files.values() if leads_out(name)]:
            raise DataError(f"{file}: image {outside[0][:200]!r}: {PLAIN_NAMES}")
        paths = {i: _find(folders, name) for i, name in files.items()}
        samples, pictures, problems = [], [], []
        unlabelled: dict[Hashable, list[Array | None]] = {}
        for annotation in annotations:
            if not _is_labelled(annotation):
                unlabelled.setdefault(annotation.get("image_id"), []).append(_bbox(annotation))
                continue
            image = entries.get(annotation["image_id"])
            if image is None:
                missing = short(annotation["image_id"])
                problems.append(f"{file}: annotation {short(annotation['id'])}: no image {missing}")
                continue
            path = paths[image["id"]]
            if path is None:
                name = files[image["id"]]
                hint = _hint(folders, name)
                problems.append(f"{file}: image {name[:200]!r} is not in {_listed(folders)}{hint}")
                continue
            try:
                sample = _sample(file, annotation, image, path, len(names))
            except (ValueError, OverflowError) as error:
                problems.append(f"{file}: annotation {short(annotation['id'])}: {error}")
                continue
            if sample is None:
                unlabelled.setdefault(image["id"], []).append(_bbox(annotation))
                continue
            samples.append(sample)
            pictures.append(image["id"])
    except (KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{file}: is no COCO keypoints file ({type(error).__name__}: {reason}); "
            "expected images, annotations and categories"
        ) from error
    problems = list(dict.fromkeys(problems))  # an image with ten objects is missing once
    if paths and not any(paths.values()):
        first = next(iter(files.values()))
        step = _hint(folders, first) or "; give the folder that its names start from: coco:FILE,DIR"
        raise DataError(
            f"{file}: none of its {len(paths)} images is in {_listed(folders)}, looked for"
            f" {folders[0] / first}{step}"
        )
    if not samples and not problems:
        problems.append(f"{file}: holds no annotation with keypoints{why_none(data, category)}")
    if problems:
        raise DataError(*problems)
    if problem := unit_problem(samples):
        raise DataError(f"{file}: {problem}")
    try:
        schema = _schema(category, names, samples)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{file}: category {str(category.get('name'))[:80]!r}: {error}") from error
    known = knowing_others(samples, pictures, unlabelled)
    own = schema not in BUILT_IN.values()
    return Reading(
        f"{file.resolve().parent.name}/{file.name}",
        schema,
        known,
        measured_reference=own and category.get("reference") is None,
        pairs_by_name=own and category.get("flip_pairs") is None,
    )


def _is_labelled(annotation: Mapping[str, Any]) -> bool:
    labelled = annotation.get("keypoints") and annotation.get("num_keypoints", 1) != 0
    return bool(labelled) and not annotation.get("iscrowd", 0)


def _listed(folders: Sequence[Path]) -> str:
    return " or ".join(str(folder) for folder in folders)


def _find(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if is_there(folder / name)), None)


def _hint(folders: Sequence[Path], name: str) -> str:
    """Which file a name may mean that is written in another way: with ``\\``, ``%20``, or accents apart."""
    plain = (name, name.replace("\\", "/"), unquote(name), unquote(name).replace("\\", "/"))
    for meant in (unicodedata.normalize(form, other) for other in plain for form in ("NFC", "NFD")):
        if meant != name and not leads_out(meant) and (found := _find(folders, meant)):
            return f"; {str(found)!r} is there: write its name as the file system has it"
    return ""


def _names(file: Path, category: Mapping[str, Any]) -> tuple[str, ...]:
    names = category["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file}: category {str(category.get('name'))[:80]!r}: expected a list of names as keypoints"
        )
    if len(names) > MOST_KEYPOINTS:
        raise DataError(f"{file}: has {len(names)} keypoints, more than {MOST_KEYPOINTS}")
    return tuple(names)


def _category(file: Path, data: Mapping[str, Any], only: str | None) -> Mapping[str, Any]:
    categories = [c for c in data["categories"] if c.get("keypoints")]
    if only is not None:
        known = ", ".join(short(c.get("name")) for c in categories)
        categories = [c for c in categories if c.get("name") == only]
        if not categories:
            raise DataError(
                f"{file}: no category with keypoints is called {only!r}; expected one of {known or 'none'}"
            )
    used = {a["category_id"] for a in data["annotations"] if "keypoints" in a}
    if len(categories) > 1:
        categories = [c for c in categories if c["id"] in used] or categories
    if len(categories) > 1:
        found = ", ".join(short(c.get("name")) for c in categories)
        raise DataError(
            f"{file}: has several categories with keypoints ({found}), a model is of one; add e.g."
            f" ,only={short(categories[0].get('name'))}"
        )
    if not categories:
        raise DataError(
            f"{file}: no category names keypoints; is it a detection file? Give the keypoints file"
        )
    category: Mapping[str, Any] = categories[0]
    return category


def _bbox(annotation: Mapping[str, Any]) -> Array | None:
    """An annotation's box ``[x0, y0, x1, y1]``, frame pixels; None where it has none."""
    try:
        x, y, width, height = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    box = np.array([x, y, x + width, y + height]) - 0.5
    sound = bool((np.abs(box) <= MOST).all()) and width > 0 and height > 0  # NaN is no more
    return box.astype(np.float32) if sound else None


def _sample(
    file: Path, annotation: Mapping[str, Any], image: Mapping[str, Any], path: Path, n: int
) -> Sample | None:
    """One annotation; None where too few points are labelled to place a crop."""
    given = annotation["keypoints"]
    if isinstance(given, list) and len(given) != 3 * n:
        raise ValueError(f"expected {3 * n} keypoint numbers, got {len(given)}")
    try:
        flag = np.array(given[2::3], np.float64)
        # What stands for a point that is not labelled is not looked at: null, say.
        points = np.array([given[3 * i : 3 * i + 2] if flag[i] else (0, 0) for i in range(n)], np.float64)
    except (TypeError, ValueError, IndexError, KeyError):
        raise ValueError("a keypoint is no number") from None
    if flag.shape != (n,) or points.shape != (n, 2):
        raise ValueError("a keypoint is no number")
    if not (np.abs(points) <= MOST).all():  # NaN is no more
        raise ValueError("a keypoint is not finite")
    if not np.isin(flag, (0, 1, 2)).all():
        raise ValueError("a visibility flag is none of 0, 1, 2")
    # COCO measures from the image's edge, the frame's coordinates from the centre of the first pixel.
    keypoints = np.where(flag[:, None] > 0, points - 0.5, np.nan).astype(np.float32)
    visible = np.choose(flag.astype(int), [np.nan, 0, 1]).astype(np.float32)
    if (flag > 0).sum() < 2:
        return None
    if not has_extent(keypoints):
        raise ValueError("all points coincide")
    size = None
    if image.get("width") is not None and image.get("height") is not None:
        size = (int(image["width"]), int(image["height"]))
        problem = label_problem(keypoints, *size)
        if problem:
            raise ValueError(problem)
    key = f"{file_key(file.parent, str(image['file_name']))}#{annotation['id']}"
    load = partial(read_image, str(path), size)
    return Sample(key, keypoints, visible, {}, load, size, picture=str(path.resolve()))


def _schema(category: Mapping[str, Any], names: tuple[str, ...], samples: Sequence[Sample]) -> KeypointSchema:
    """The category's schema; pairs that it does not name are those that the names tell."""
    name = str(category.get("name", f"points{len(names)}"))
    known = BUILT_IN.get(name)
    if known is not None and len(known) == len(names):
        return known

    def pair(values: Any) -> Pair:
        if not isinstance(values, (list, tuple)) or len(values) != 2:
            raise ValueError(f"expected a pair of names or indices, got {short(values)}")
        unknown = [v for v in values if isinstance(v, str) and v not in names]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of its keypoints")
        a, b = (names.index(v) if isinstance(v, str) else int(v) for v in values)
        return a, b

    def edge(values: Any) -> Pair:
        a, b = pair([v if isinstance(v, str) else int(v) - 1 for v in values])
        if not (0 <= a < len(names) and 0 <= b < len(names)):
            raise ValueError(f"skeleton {short(values)}: COCO counts its keypoints from 1 to {len(names)}")
        return a, b

    flips = category.get("flip_pairs")
    pairs = pairs_from_names(names) if flips is None else tuple(pair(p) for p in flips)
    edges = tuple(edge(values) for values in category.get("skeleton") or ())
    named = category.get("reference")
    reference = pair(named) if named is not None else farthest_pair([s.keypoints for s in samples])
    return KeypointSchema(name, names, pairs, edges, reference)
