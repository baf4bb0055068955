"""The part of each photo around its object, read once and kept in memory."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from edge_kp.geometry import box_area, tight_box, widened_box
from edge_kp.training.datasets import Sample
from edge_kp.training.loading import of_each
from edge_kp.types import Array

MARGIN = 2.4  # side of the part kept of a photo, in sides of the object's box, at least
MARGIN_OF_CROP = 1.5  # and in sides of the crop that a stage sees
LARGEST_REGION = 1024  # pixels
OVERSAMPLING = 1.5  # the object is kept this much larger than it appears in a crop
SLIVER = 0.03  # share of an object, or of a patch, that may be in the other
PATCH = 96  # side of a kept background patch, pixels


def key_rng(key: str, seed: int) -> np.random.Generator:
    """Random numbers that depend on a sample's name and a seed alone."""
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def sample_box(keypoints: Array, image_size: tuple[int, int], box_rule: str) -> Array:
    """(4,) box of the object: around its keypoints, or the whole image (``box_rule``), frame pixels."""
    if box_rule == "image":
        return np.array([-0.5, -0.5, image_size[0] - 0.5, image_size[1] - 0.5], np.float32)
    return tight_box(keypoints)


@dataclass(frozen=True, eq=False)
class Region:
    """The kept part of a photo.

    Attributes:
        key: the sample's name.
        image: uint8 BGR (h, w, 3).
        keypoints: (N, 2) float64, pixels of ``image``; NaN where not labelled.
        visible: (N,) 1, 0 or NaN, as in :class:`Sample`.
        attributes: what the data set says.
        box: (4,) box of the object, pixels of ``image``.
        patch: uint8 (PATCH, PATCH, 3) of the same photo without the object, or None.
        use_background: whether what surrounds the object may be taught as "no object".
        others: (4,) boxes of other objects, pixels of ``image``; these are no "no object".
    """

    key: str
    image: Array
    keypoints: Array
    visible: Array
    attributes: Mapping[str, float]
    box: Array
    patch: Array | None
    use_background: bool
    others: tuple[Array, ...] = ()


def cut_region(
    sample: Sample, box_side: float, box_rule: str, shape_side: float = 0.0, scale: float = 1.6
) -> Region:
    """Keep the part of a photo that crops can show, no larger than they need it.

    Args:
        box_side: the box needs to be this large, pixels.
        shape_side: so do the keypoints, where the box is not theirs.
        scale: side of the first crop in sides of the box.
    """
    margin = max(MARGIN, MARGIN_OF_CROP * scale)
    image = sample.read()
    height, width = image.shape[:2]
    box = sample_box(sample.keypoints, (width, height), box_rule)
    side = max(box[2] - box[0], box[3] - box[1])
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    x0, y0 = np.clip(np.floor(centre - side * margin / 2).astype(int), 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.ceil(centre + side * margin / 2).astype(int), (x0 + 1, y0 + 1), (width, height))
    part = image[y0:y1, x0:x1]
    shape = sample.box
    shape_needs = shape_side / max(1.0, float(max(shape[2] - shape[0], shape[3] - shape[1])))
    shrink = min(1.0, max(box_side / side, shape_needs), LARGEST_REGION / max(part.shape[:2]))
    new_size = (max(1, round((x1 - x0) * shrink)), max(1, round((y1 - y0) * shrink)))
    ratio = np.array([new_size[0] / (x1 - x0), new_size[1] / (y1 - y0)])
    if shrink < 1:
        part = cv2.resize(part, new_size, interpolation=cv2.INTER_AREA)

    def moved(points: Array) -> Array:
        return (points.astype(np.float64) - (x0, y0) + 0.5) * ratio - 0.5

    return Region(
        sample.key,
        np.ascontiguousarray(part),
        moved(sample.keypoints),
        sample.visible,
        sample.attributes,
        moved(box.reshape(2, 2)).reshape(4),
        _background_patch(sample, image, box) if sample.use_background and box_rule != "image" else None,
        sample.use_background,
        tuple(moved(other.reshape(2, 2)).reshape(4) for other in sample.others),
    )


def _background_patch(sample: Sample, image: Array, box: Array) -> Array | None:
    """A square of the photo that holds at most a sliver of any object; None where there is no room."""
    rng = key_rng(sample.key, 1)
    height, width = image.shape[:2]
    for _ in range(20):
        side = rng.uniform(0.2, 0.8) * min(width, height)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        square = np.array([x, y, x + side, y + side])
        if side >= 24 and all(shared(square, other) < SLIVER for other in (box, *sample.others)):
            part = image[int(y) : int(y + side), int(x) : int(x + side)]
            return cv2.resize(part, (PATCH, PATCH), interpolation=cv2.INTER_AREA)
    return None


def shared(a: Array, b: Array) -> float:
    """Of the smaller of two (4,) boxes, what lies in the other; a line counts as a pixel wide."""
    a, b = widened_box(a), widened_box(b)
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / min(box_area(a), box_area(b))


def cut_regions(
    samples: Sequence[Sample],
    box_side: float,
    box_rule: str,
    progress: bool = True,
    shape_side: float = 0.0,
    scale: float = 1.6,
) -> list[Region]:
    """Load every photo once, on all cores where there are many.

    Raises:
        DataError: all unreadable images, one line each.
    """
    cut = partial(cut_region, box_side=box_side, box_rule=box_rule, shape_side=shape_side, scale=scale)
    return list(of_each(cut, samples, progress))
