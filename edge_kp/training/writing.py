"""Labelled photos as files: what ``ibug:`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from edge_kp.errors import DataError
from edge_kp.files import replacing
from edge_kp.schema import FACE68, FACE98, KeypointSchema
from edge_kp.training.samples import Sample
from edge_kp.types import Array

JPEG_QUALITY = 95


def file_names(samples: Sequence[Sample], schema: KeypointSchema) -> list[str]:
    """A name for each sample's files, without suffix.

    Raises:
        DataError: keypoints that a ``.pts`` file cannot name, or two samples of one name.
    """
    if schema not in (FACE68, FACE98):
        raise DataError(f"schema {schema.name!r}: .pts files say nothing of points that are not a face's")
    names = [Path(sample.key).stem.replace("#", "_") for sample in samples]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two samples would be written as {twice}; take one data set at a time")
    return names


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
