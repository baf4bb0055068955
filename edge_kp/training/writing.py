"""Labelled photos as files: faces as ``ibug:`` reads them, other objects as ``coco:`` does."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_kp.errors import DataError
from edge_kp.files import replacing
from edge_kp.geometry import widened_box
from edge_kp.schema import FACE68, FACE98, KeypointSchema
from edge_kp.training.samples import Sample
from edge_kp.types import Array

JPEG_QUALITY = 95
LABELS = "labels.json"  # of objects other than faces
MARK = ".edge_kp"  # file in a folder of labels that this program wrote
# Of a sample: path, suffix, number of the object.
_KEY = re.compile(r"(.*?)(?:\.[^./#]*)?(?:#([^/#]*))?", re.DOTALL)


def has_pts(schema: KeypointSchema) -> bool:
    """Are these keypoints those that a ``.pts`` file, which names none, is read as?"""
    return schema in (FACE68, FACE98)


def file_names(samples: Sequence[Sample]) -> list[str]:
    """A name for each sample's files, without suffix.

    Raises:
        DataError: two samples of one name.
    """
    # As short as tells them apart: the photo's name; with the number of the object; with the folders.
    parts = [_KEY.fullmatch(sample.key) for sample in samples]
    paths = [(part[1], f"_o{part[2]}" if part[2] else "") for part in parts if part is not None]
    numbered = [path.rpartition("/")[2] + number for path, number in paths]
    whole = [path.replace("/", "_") + number for path, number in paths]
    for names in ([path.rpartition("/")[2] for path, _ in paths], numbered, whole):
        if len(set(names)) == len(names):
            return names
    twice = next(name for name in whole if whole.count(name) > 1)
    raise DataError(f"two samples would be written as {twice}; take one data set at a time")


def open_folder(out: Path, samples: Sequence[Sample]) -> None:
    """Make the folder to write to.

    A mark in it says that its labels are ours, so that what is there may be replaced and taken away.

    Raises:
        DataError: the samples come from it, or it holds labels that were not written by this program.
    """
    if any(sample.picture and Path(sample.picture).parent == out.resolve() for sample in samples):
        raise DataError(f"{out}: the photos come from this folder; write to another")
    labels = out.is_dir() and (any(out.glob("*.pts")) or (out / LABELS).exists())
    if labels and not (out / MARK).exists():
        raise DataError(f"{out}: holds labels that this program did not write; write to another folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def remove_labelled(stem: Path) -> None:
    """Take away what an earlier run wrote: what is left out now must not be trained on."""
    for suffix in (".pts", ".jpg"):
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def write_photo(stem: Path, image: Array) -> None:
    """``stem.jpg`` of a uint8 BGR (H, W, 3) image."""
    with replacing(stem.with_name(f"{stem.name}.jpg")) as part:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        part.write_bytes(data.tobytes())


def write_labelled(stem: Path, image: Array, keypoints: Array) -> None:
    """``stem.jpg`` and ``stem.pts`` (1-based).

    Args:
        image: uint8 BGR (H, W, 3).
        keypoints: (N, 2) pixels of it, none missing.
    """
    write_photo(stem, image)
    label = stem.with_name(f"{stem.name}.pts")
    rows = [f"{x:.3f} {y:.3f}" for x, y in (keypoints + 1).tolist()]
    with replacing(label) as part:
        part.write_text("\n".join(["version: 1", f"n_points: {len(rows)}", "{", *rows, "}", ""]))


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture and the objects in it.

    Attributes:
        name: of its file.
        size: its width and height.
        objects: of each (N, 2) keypoints in pixels, none missing, and (N,) bool: is it hidden?
        others: (4,) boxes of what else is in it, pixels.
        use_background: False where there is more in it, nobody knows where.
    """

    name: str
    size: tuple[int, int]
    objects: tuple[tuple[Array, Array], ...]
    others: tuple[Array, ...] = ()
    use_background: bool = True


def write_coco(path: Path, schema: KeypointSchema, pictures: Sequence[Labelled]) -> None:
    """A file of COCO keypoints (edge-based) for pictures that lie beside it.

    What else is in a picture has no keypoints, and a box if it is known where; so readers leave it alone.
    """
    names = schema.keypoints
    category = {
        "id": 1,
        "name": schema.name,
        "keypoints": list(names),
        "skeleton": [[a + 1, b + 1] for a, b in schema.edges],
        "flip_pairs": [[names[a], names[b]] for a, b in schema.flip_pairs],
        "reference": [names[i] for i in schema.reference],
    }
    images, annotations = [], []
    for number, picture in enumerate(pictures, 1):
        width, height = picture.size
        images.append({"id": number, "file_name": picture.name, "width": width, "height": height})
        for keypoints, hidden in picture.objects:
            points = (keypoints + 0.5).round(3)
            flags = np.where(hidden, 1, 2)
            low, high = points.min(0).tolist(), points.max(0).tolist()
            flat = np.column_stack([points, flags]).tolist()
            annotations.append(
                {
                    "image_id": number,
                    "num_keypoints": len(names),
                    "keypoints": [value for x, y, flag in flat for value in (x, y, int(flag))],
                    "bbox": [low[0], low[1], high[0] - low[0], high[1] - low[1]],
                }
            )
        for box in (*picture.others, *(() if picture.use_background else (None,))):
            x0, y0, x1, y1 = (widened_box(box) + 0.5).round(3).tolist() if box is not None else [0.0] * 4
            annotations.append(
                {
                    "image_id": number,
                    "num_keypoints": 0,
                    "keypoints": [0] * 3 * len(names),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],  # one without a side says that it is unknown
                }
            )
    numbered = [{"id": i, "category_id": 1, "iscrowd": 0, **entry} for i, entry in enumerate(annotations, 1)]
    with replacing(path) as part:
        part.write_text(
            json.dumps({"images": images, "annotations": numbered, "categories": [category]}), "utf-8"
        )
