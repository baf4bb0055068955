"""Which images a model is calibrated with: some of every rotation and every light, the same for one seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from edge_kp.cascade import IN_PLANE
from edge_kp.errors import DataError
from edge_kp.templates import TemplateBank
from edge_kp.training.attributes import OUT_OF_PLANE, ShapeAttributes
from edge_kp.training.datasets import Sample
from edge_kp.training.regions import sample_box
from edge_kp.types import Array

FEWEST = 32  # images, below which the ends of the ranges are chance
LIGHTS = 4  # groups of equally many images, from dark to bright
POOL = 4  # times as many images are looked at as are chosen


@dataclass(frozen=True, eq=False)
class Choice:
    """One image to calibrate with.

    Attributes:
        digest: sha256 of the decoded pixels, hex.
        rotation: ``level`` or ``tilted`` in the plane, ``front`` or ``turned`` out of it.
        light: 0 (darkest) to ``LIGHTS`` - 1, by the mean brightness of the object's box.
    """

    sample: Sample
    digest: str
    rotation: str
    light: int


def choose(
    samples: Sequence[Sample], bank: TemplateBank, box_rule: str, count: int, seed: int
) -> list[Choice]:
    """Up to ``count`` images, as evenly as can be over the kinds of rotation and light, each once.

    Raises:
        DataError: too few images, or images that are unreadable or blank, one line each.
    """
    _demand(min(count, len(pictures(samples))))
    rng = np.random.default_rng(seed)
    attributes = ShapeAttributes(bank)
    rotations = [_rotation(attributes(sample.keypoints.astype(np.float64))) for sample in samples]
    # Several objects of one photo, or one photo under two names, count once.
    pool = _once([picture(sample) for sample in samples], in_turns(rotations, rng))[: POOL * count]
    digests, brightness = _look([samples[i] for i in pool], box_rule)
    steps = np.quantile(brightness, np.arange(1, LIGHTS) / LIGHTS)
    lights = np.searchsorted(steps, brightness).tolist()
    strata = [(rotations[i], light) for i, light in zip(pool, lights, strict=True)]
    taken = _once(digests, in_turns(strata, rng))[:count]
    _demand(len(taken))
    return [Choice(samples[pool[i]], digests[i], *strata[i]) for i in taken]


def picture(sample: Sample) -> str:
    """What the picture of a sample is known by; several objects may be in one."""
    return sample.picture or sample.key


def pictures(samples: Sequence[Sample]) -> set[str]:
    """The different pictures that samples are in."""
    return {picture(sample) for sample in samples}


def _demand(images: int) -> None:
    if images < FEWEST:
        raise DataError(
            f"{images} images to calibrate with, at least {FEWEST} are needed; add a --data or raise --images"
        )


def _once(names: Sequence[str], order: Sequence[int]) -> list[int]:
    """The indices of ``order`` without those whose name came before."""
    return list({names[i]: i for i in reversed(order)}.values())[::-1]


def in_turns(groups: Sequence[Any], rng: np.random.Generator) -> list[int]:
    """Every index once: one of each group, in the order of the groups, then the next of each, at random."""
    seen: Counter[Any] = Counter()
    places = []
    for i in rng.permutation(len(groups)).tolist():
        places.append((seen[groups[i]], groups[i], i))
        seen[groups[i]] += 1
    return [i for _, _, i in sorted(places)]


def _rotation(attributes: dict[str, float]) -> str:
    tilted, turned = attributes.get(IN_PLANE, 0.0), attributes.get(OUT_OF_PLANE, 0.0)
    return f"{'tilted' if tilted else 'level'} {'turned' if turned else 'front'}"


def _look(samples: Sequence[Sample], box_rule: str) -> tuple[list[str], list[float]]:
    """Digest of every image, and mean brightness of its object's box."""
    digests: list[str] = []
    brightness: list[float] = []
    problems: list[str] = []
    for sample in tqdm(samples, "looking at images", unit="image", leave=False):
        try:
            image = sample.read()
        except DataError as error:
            problems += error.problems
            continue
        if image.min() == image.max():
            problems.append(f"{sample.key}: a blank picture; remove it")
            continue
        digests.append(pixel_digest(image))
        brightness.append(float(cv2.cvtColor(_inside(image, sample, box_rule), cv2.COLOR_BGR2GRAY).mean()))
    if problems:
        raise DataError(*dict.fromkeys(problems))
    return digests, brightness


def pixel_digest(image: Array) -> str:
    """sha256 of a picture's pixels, hex: the same for copies under other names."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def _inside(image: Array, sample: Sample, box_rule: str) -> Array:
    height, width = image.shape[:2]
    x0, y0, x1, y1 = sample_box(sample.keypoints, (width, height), box_rule).round().astype(int).tolist()
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return image[y0 : max(y1, y0) + 1, x0 : max(x1, x0) + 1]


def manifest(chosen: Sequence[Choice], names: Sequence[str], seed: int) -> dict[str, Any]:
    """What identifies the chosen images, for people and for a check, without the images."""
    return {
        "data": list(names),
        "seed": seed,
        "sha256_of": "decoded pixels, uint8 BGR, row by row",
        "strata": dict(sorted(Counter(_stratum(choice) for choice in chosen).items())),
        "images": [
            {"name": choice.sample.key, "sha256": choice.digest, "stratum": _stratum(choice)}
            for choice in chosen
        ],
    }


def _stratum(choice: Choice) -> str:
    return f"{choice.rotation}, light {choice.light}"
