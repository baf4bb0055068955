"""Photos made worse step by step, the same way each time: what :mod:`benchmarks.accuracy` measures on.

A pixel of blur or a grey level of noise means little on a face of a thousand pixels and much on one of fifty.
Blur, motion, noise and JPEG therefore act on photos whose object has first been brought to one size,
:data:`FACE`; light and covers act on the photos as they are. What is drawn at random follows from the
sample's name and the seed, and is the same for all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from benchmarks.occlusion import covered
from edge_kp.errors import DataError
from edge_kp.training.regions import key_rng, sample_box
from edge_kp.training.samples import Sample
from edge_kp.types import Array

FACE = 200  # longer side of the object's box where blur, motion, noise and JPEG act, pixels
REACH = 4.0  # side of the part kept of a resized photo, in longer sides of the box: more than crops show

Change = Callable[[Array, float, np.random.Generator], Array]


def gaussian_blur(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Out of focus; ``sigma`` in pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))


def motion_blur(image: Array, length: float, angle: float) -> Array:
    """Moved along a straight line while the shutter was open.

    Args:
        length: of the way, pixels.
        angle: of the way, radians, x towards y.
    """
    steps = max(1, round(length))
    total = np.zeros(image.shape, np.float32)
    for t in np.linspace(-length / 2, length / 2, steps) if steps > 1 else [0.0]:
        shift = np.array([[1, 0, t * np.cos(angle)], [0, 1, t * np.sin(angle)]])
        moved = cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        cv2.accumulate(moved, total)
    return np.round(total / steps).astype(np.uint8)


def _motion(image: Array, length: float, rng: np.random.Generator) -> Array:
    return motion_blur(image, length, rng.uniform(0, np.pi))


def exposed(image: Array, gain: float, rng: np.random.Generator) -> Array:
    """Grey levels times ``gain``, rounded, and cut off at white."""
    table = np.clip(np.round(np.arange(256) * gain), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table))


def jpeg_file(image: Array, quality: int) -> bytes:
    """The image as a JPEG file of a quality from 1 to 100."""
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def _jpeg(image: Array, quality: float, rng: np.random.Generator) -> Array:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg_file(image, int(quality)), np.uint8), cv2.IMREAD_COLOR))


def noisy(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Gaussian noise on every pixel and colour; ``sigma`` in grey levels."""
    noise = rng.normal(0, sigma, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Degradation:
    """One way to make photos worse.

    Attributes:
        unit: what its levels count.
        levels: from lightest to heaviest; for brightness from darkest to brightest.
        change: of the pixels; None where it is more than that.
        resized: brings the object to :data:`FACE` first.
    """

    unit: str
    levels: tuple[float, ...]
    change: Change | None = None
    resized: bool = False


SIZE, COVER, JITTER = "size", "cover", "box_jitter"
DEGRADATIONS: Mapping[str, Degradation] = {
    SIZE: Degradation("longer side of the box, pixels", (200, 120, 80, 60, 40, 30, 20)),
    "gaussian_blur": Degradation(f"sigma, pixels at {FACE}", (1, 2, 3, 5, 8, 12), gaussian_blur, True),
    "motion_blur": Degradation(f"way, pixels at {FACE}", (5, 10, 20, 30, 45, 60), _motion, True),
    "brightness": Degradation("gain", (0.03, 0.06, 0.125, 0.25, 0.5, 2, 3, 4), exposed),
    "jpeg": Degradation(f"quality, at {FACE} pixels", (95, 75, 50, 30, 20, 10, 5), _jpeg, True),
    "noise": Degradation(f"sigma, grey levels at {FACE} pixels", (5, 10, 20, 30, 50, 80), noisy, True),
    JITTER: Degradation("shift and rescale of the box at most, % of its sides", (0, 5, 10, 15, 20, 25, 30)),
    COVER: Degradation("share of the keypoints' box covered, %", (10, 20, 30, 40, 50, 60)),
}


def resized(sample: Sample, longer: float, box_rule: str) -> Sample:
    """The sample with its photo resampled so that the longer side of its box measures ``longer`` pixels.

    Of the photo the part around the object is kept. A side of the result is rounded to whole pixels, the
    labels move with it.

    Raises:
        DataError: an unreadable image.
    """
    image = sample.read()
    height, width = image.shape[:2]
    box = sample_box(sample.keypoints, (width, height), box_rule).astype(np.float64)
    side = float(max(box[2] - box[0], box[3] - box[1]))
    if not side > 0:
        raise DataError(f"{sample.key}: its keypoints coincide; remove it")
    centre = (box[:2] + box[2:]) / 2
    limits = np.array([width, height])
    low = np.clip(np.floor(centre - side * REACH / 2), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(centre + side * REACH / 2), low + 1, limits).astype(int)
    size = np.maximum(np.round((high - low) * longer / side), 1).astype(int)
    keypoints = (sample.keypoints.astype(np.float64) - low + 0.5) * (size / (high - low)) - 0.5
    return replace(
        sample,
        keypoints=keypoints.astype(np.float32),
        load=partial(_resampled, sample.load, (*low.tolist(), *high.tolist()), (int(size[0]), int(size[1]))),
        image_size=None,
    )


def _resampled(load: Callable[[], Array], window: tuple[int, int, int, int], size: tuple[int, int]) -> Array:
    x0, y0, x1, y1 = window
    part = np.ascontiguousarray(load()[y0:y1, x0:x1])
    shrinks = size[0] < x1 - x0
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))


def degrade(
    sample: Sample, name: str, level: float | None, box_rule: str, other: Sample, seed: int = 0
) -> Sample:
    """The sample at a level of one of :data:`DEGRADATIONS`; as it is where ``level`` is None.

    Box jitter is nothing that happens to a photo: :func:`edge_kp.training.evaluation.evaluate` does it.

    Args:
        box_rule: of the model, see :class:`edge_kp.modeldir.ModelSpec`.
        other: the sample that covers may show a part of.

    Raises:
        DataError: an unreadable image.
    """
    if level is None or name == JITTER:
        return sample
    if name == SIZE:
        return resized(sample, level, box_rule)
    if name == COVER:
        # By a key of its own: by the sample's the box is jittered, with the same numbers.
        keyed = replace(sample, key=f"{sample.key} {name}")
        return replace(sample, load=partial(covered, keyed, other, level / 100, seed))
    degradation = DEGRADATIONS[name]
    assert degradation.change is not None
    base = resized(sample, FACE, box_rule) if degradation.resized else sample
    changed = partial(_changed, base.load, degradation.change, level, f"{sample.key} {name}", seed)
    return replace(base, load=changed)


def _changed(load: Callable[[], Array], change: Change, level: float, key: str, seed: int) -> Array:
    return change(load(), level, key_rng(key, seed))
