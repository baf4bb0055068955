"""Photos of faces as if the heads in them had turned further, with labels. Such faces are rare in photos."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from edge_kp.errors import DataError
from edge_kp.training.rendering.fitting import FittedFace, fit_face
from edge_kp.training.rendering.model import FaceModel
from edge_kp.training.rendering.turned import turn_head
from edge_kp.training.samples import Sample
from edge_kp.training.writing import file_names, open_folder, remove_labelled, write_labelled
from edge_kp.types import Array, HeadPose

MARGIN = 2.6  # side of the picture in sides of the labels' box
SIDE = 400  # pixels at most
WORST_FIT = 0.45  # cm; where the model cannot be brought closer to the labels the photo is left out
YAW = (8.0, 45.0)  # degrees by which a head is turned
FURTHEST = 72.0  # degrees of yaw that the outcome may have: beyond it is a profile
FRONTAL = 12.0  # degrees up to which a face may be turned either way, not only further
PITCH, MOST_PITCH = 9.0, 18.0  # degrees: standard deviation, and the most


@dataclass(frozen=True)
class Turned:
    """How many pictures were written, and how many photos were left out, as labels lack or do not fit."""

    written: int
    unfit: int


def turn_photos(model: FaceModel, samples: Sequence[Sample], out: Path, count: int, seed: int = 0) -> Turned:
    """Write ``count`` pictures of each photo's face, turned at random, as ``ibug:`` reads them.

    Faces turn further to the side that they look to, where more of them was seen than is needed.

    Args:
        samples: of schema ``FACE68``.

    Raises:
        DataError: an unreadable image, two samples that would be written under one name, or ``out`` is where
            they come from.
    """
    names = file_names(samples)
    open_folder(out, samples)
    written = unfit = 0
    for sample, name in zip(tqdm(samples, "turning", unit="photo", leave=False), names, strict=True):
        stems = [out / f"{name}_t{i}" for i in range(count)]
        if np.isnan(sample.keypoints).any():
            unfit += 1
            _remove(stems)
            continue
        image, keypoints = _cut(sample.read(), sample.keypoints.astype(np.float64))
        try:
            face = fit_face(model, keypoints)
        except ValueError as error:
            raise DataError(f"{sample.key}: {error}") from error
        if face.error_cm > WORST_FIT:
            unfit += 1
            _remove(stems)
            continue
        rng = np.random.default_rng([seed, zlib.crc32(sample.key.encode())])
        for stem in stems:
            picture, labels = turn_head(model, face, image, keypoints, random_turn(face, rng))
            write_labelled(stem, picture, labels)
            written += 1
    return Turned(written, unfit)


def _remove(stems: Sequence[Path]) -> None:
    for stem in stems:
        remove_labelled(stem)


def random_turn(face: FittedFace, rng: np.random.Generator) -> HeadPose:
    """By how much to turn a face: away from the front, unless it looks there, and some way up or down."""
    now = face.pose.yaw
    side = 1.0 if now > 0 else -1.0
    if abs(now) < FRONTAL and rng.random() < 0.5:
        side = -side
    yaw = rng.uniform(YAW[0], np.clip(FURTHEST - abs(now), YAW[0], YAW[1]))
    pitch = np.clip(rng.normal(0, PITCH), -MOST_PITCH, MOST_PITCH)
    return HeadPose(side * float(yaw), float(pitch), 0.0)


def _cut(image: Array, keypoints: Array) -> tuple[Array, Array]:
    """The square part of a photo around a face, no larger than ``SIDE``, and the keypoints in it."""
    low, high = keypoints.min(0), keypoints.max(0)
    side = MARGIN * float((high - low).max())
    scale = min(1.0, SIDE / side)
    size = max(8, round(side * scale))
    move = np.eye(2, 3) * scale
    move[:, 2] = (size - 1) / 2 - scale * (low + high) / 2
    part = cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return part, keypoints * scale + move[:, 2]
