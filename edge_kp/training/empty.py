"""Pictures that show no object at all: whatever is found in them is false."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from edge_kp.geometry import square_crop
from edge_kp.training.loading import of_each
from edge_kp.training.photos import Photo, kept_photo, pyramid
from edge_kp.training.readers import picture_files
from edge_kp.training.regions import PATCH, key_rng, sample_box
from edge_kp.training.samples import file_key, read_image
from edge_kp.training.split import held_back
from edge_kp.types import Array

PATCHES = 4  # squares kept of each picture


def split_empty(folders: Sequence[str], share: float) -> tuple[list[Path], list[Path]]:
    """The pictures of folders, those to train on and those held back; all are trained on where none would be.

    Raises:
        DataError: a folder that is missing, cannot be read, or holds no picture.
    """
    paths = [path for folder in folders for path in picture_files(Path(folder).expanduser(), "--empty")]
    back = held_back([_key(path) for path in paths], share) if paths else []
    if all(back):  # a single one, or all of one subject
        return paths, []
    return (
        [path for path, held in zip(paths, back, strict=True) if not held],
        [path for path, held in zip(paths, back, strict=True) if held],
    )


def _key(path: Path) -> str:
    return file_key(path.parent, path.name)


def empty_photos(paths: Sequence[Path], progress: bool = True) -> list[Photo]:
    """For the locator: photos without objects, which are the background of others.

    Raises:
        DataError: all unreadable images, one line each.
    """
    images = of_each(_kept, paths, progress)
    return [Photo(_key(path), pyramid(image), (), 0, True) for path, image in zip(paths, images, strict=True)]


def _kept(path: Path) -> Array:
    return kept_photo(read_image(str(path)))


def empty_patches(paths: Sequence[Path], box_rule: str, scale: float, progress: bool = True) -> list[Array]:
    """For the stages: some uint8 (PATCH, PATCH, 3) squares of each picture; the whole, where that is the box.

    Args:
        scale: side of the first crop in sides of the box.

    Raises:
        DataError: all unreadable images, one line each.
    """
    cut = partial(_patches, box_rule=box_rule, scale=scale)
    return [patch for patches in of_each(cut, paths, progress) for patch in patches]


def _patches(path: Path, box_rule: str, scale: float) -> list[Array]:
    image = read_image(str(path))
    height, width = image.shape[:2]
    if box_rule == "image":
        whole = sample_box(np.empty((0, 2)), (width, height), box_rule)
        return [square_crop(whole, PATCH, scale).extract(image)]
    rng = key_rng(_key(path), 1)
    patches = []
    for _ in range(PATCHES):
        side = max(round(rng.uniform(0.2, 1) * min(width, height)), 1)
        x, y = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
        part = image[y : y + side, x : x + side]
        patches.append(cv2.resize(part, (PATCH, PATCH), interpolation=cv2.INTER_AREA))
    return patches
