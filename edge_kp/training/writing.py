"""Labelled photos as files: what ``ibug:`` reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2

from edge_kp.errors import DataError
from edge_kp.files import replacing
from edge_kp.schema import FACE68, FACE98, KeypointSchema
from edge_kp.training.samples import Sample
from edge_kp.types import Array

JPEG_QUALITY = 95
MARK = ".edge_kp"  # file in a folder of labels that this program wrote
# Of a sample: path, suffix, number of the object.
_KEY = re.compile(r"(.*?)(?:\.[^./#]*)?(?:#([^/#]*))?", re.DOTALL)


def file_names(samples: Sequence[Sample], schema: KeypointSchema) -> list[str]:
    """A name for each sample's files, without suffix.

    Raises:
        DataError: keypoints that a ``.pts`` file cannot name, or two samples of one name.
    """
    if schema not in (FACE68, FACE98):
        raise DataError(
            f"schema {schema.name!r}: only for faces of 68 or 98 points, as .pts files name none; label"
            " other objects as COCO keypoints"
        )
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
    if not (out / MARK).exists() and out.is_dir() and any(out.glob("*.pts")):
        raise DataError(f"{out}: holds labels that this program did not write; write to another folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def remove_labelled(stem: Path) -> None:
    """Take away what an earlier run wrote: what is left out now must not be trained on."""
    for suffix in (".pts", ".jpg"):
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def write_labelled(stem: Path, image: Array, keypoints: Array) -> None:
    """``stem.jpg`` and ``stem.pts`` (1-based).

    Args:
        image: uint8 BGR (H, W, 3).
        keypoints: (N, 2) pixels of it, none missing.
    """
    photo, label = stem.with_name(f"{stem.name}.jpg"), stem.with_name(f"{stem.name}.pts")
    with replacing(photo) as part:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        part.write_bytes(data.tobytes())
    rows = [f"{x:.3f} {y:.3f}" for x, y in (keypoints + 1).tolist()]
    with replacing(label) as part:
        part.write_text("\n".join(["version: 1", f"n_points: {len(rows)}", "{", *rows, "}", ""]))
