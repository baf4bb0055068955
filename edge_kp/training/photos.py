"""Whole photos with all their labelled objects, as the locator is trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge_kp.geometry import box_iou, tight_box
from edge_kp.training.loading import of_each
from edge_kp.training.samples import Sample
from edge_kp.types import Array

LARGEST_PHOTO = 640  # longest side kept of a photo, pixels


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and all its labelled objects.

    Attributes:
        levels: uint8 BGR (h, w, 3), each half the size of the one before.
        objects: (N, 2) float64 keypoints each, pixels of ``levels[0]``; NaN where not labelled.
        repeat: how often it counts in an epoch; 0: it is background for others only.
        unlabelled: (4,) boxes of objects that the data set names without labelling them, and of what is
            likely one, see :func:`mark_unlabelled`.
        complete: no object in it is without label, so the rest of it may be taught as "no object".
    """

    key: str
    levels: tuple[Array, ...]
    objects: tuple[Array, ...]
    repeat: int
    complete: bool
    unlabelled: tuple[Array, ...] = ()


def mark_unlabelled(photos: Sequence[Photo], locate: Callable[[Array], Sequence[Array]]) -> list[Photo]:
    """The photos with boxes that a locator found where nothing is labelled: neither taught nor denied.

    Photos of people show other people. A locator that is taught to overlook half of the faces learns to
    doubt the other half.
    """
    marked = []
    for photo in photos:
        labelled = [tight_box(points) for points in photo.objects]
        # Of a picture that is said to show no object that is believed.
        found = locate(photo.levels[0]) if photo.complete and photo.objects else []
        labelled += photo.unlabelled
        extra = [box for box in found if all(box_iou(box, known) < 0.3 for known in labelled)]
        marked.append(replace(photo, unlabelled=(*photo.unlabelled, *extra)))
    return marked


def read_photos(samples: Sequence[Sample], progress: bool = True) -> list[Photo]:
    """Load every photo once; samples that show the same picture, under whatever name, are put together.

    Raises:
        DataError: all unreadable images, one line each.
    """
    groups: dict[bytes, list[tuple[Sample, Array]]] = {}
    pictures: dict[bytes, Array] = {}
    others: dict[bytes, list[Array]] = {}
    with closing(of_each(_read, samples, progress)) as found:
        for sample, (digest, image, points, beside) in zip(samples, found, strict=True):
            pictures.setdefault(digest, image)
            others.setdefault(digest, []).extend(beside)
            group = groups.setdefault(digest, [])
            # The same object in two data sets is one object.
            if all(box_iou(tight_box(points), tight_box(other)) < 0.8 for _, other in group):
                group.append((sample, points))
    photos = []
    for digest, members in groups.items():
        first = members[0][0]
        # Objects that are no samples, or were not drawn from among them: neither taught nor denied.
        open_boxes: list[Array] = []
        for box in others[digest]:
            if all(box_iou(box, tight_box(points)) < 0.3 for _, points in members) and not any(
                box_iou(box, other) > 0.8 for other in open_boxes
            ):
                open_boxes.append(box)
        photos.append(
            Photo(
                first.key,
                pyramid(pictures[digest]),
                tuple(points for _, points in members),
                max(sample.repeat for sample, _ in members) * len(members),
                all(sample.use_background for sample, _ in members),
                tuple(open_boxes),
            )
        )
    return photos


def _read(sample: Sample) -> tuple[bytes, Array, Array, list[Array]]:
    """Digest of a sample's picture, the picture as kept, and in its pixels keypoints and others' boxes."""
    image = sample.read()
    digest = hashlib.sha256(image.tobytes() + str(image.shape).encode()).digest()
    height, width = image.shape[:2]
    image = kept_photo(image)
    ratio = np.array([image.shape[1] / width, image.shape[0] / height])

    def moved(points: Array) -> Array:
        return np.asarray((points.astype(np.float64) + 0.5) * ratio - 0.5)

    beside = [moved(box.reshape(2, 2)).reshape(4) for box in sample.others]
    return digest, image, moved(sample.keypoints), beside


def kept_photo(image: Array) -> Array:
    """The picture, no larger than :data:`LARGEST_PHOTO`."""
    shrink = min(1.0, LARGEST_PHOTO / max(image.shape[:2]))
    return image if shrink == 1 else _resized(image, shrink)


def pyramid(image: Array) -> tuple[Array, ...]:
    """The picture, and each time half of it, for as long as that shows anything."""
    levels = [image]
    while min(levels[-1].shape[:2]) > 48:
        levels.append(_resized(levels[-1], 0.5))
    return tuple(levels)


def _resized(image: Array, scale: float) -> Array:
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
