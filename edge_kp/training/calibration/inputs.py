"""Images as the networks meet them when the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from edge_kp.cascade import Cascade
from edge_kp.geometry import jitter_box, square_crop
from edge_kp.locator import fit_square
from edge_kp.modeldir import ModelSpec
from edge_kp.training.datasets import Sample
from edge_kp.training.regions import Region, cut_regions, key_rng, sample_box
from edge_kp.types import Array

SHARPNESS = 2  # objects are kept this many crops wide


@dataclass(frozen=True, eq=False)
class Held:
    """What the results are judged by.

    Attributes:
        samples: labelled objects, each with the part of its photo that the cascade can look at.
        frames: uint8 (M, S, S, 3) whole photos as the locator meets them, (0, …) where there is none.
    """

    samples: list[Sample]
    frames: Array


def network_inputs(
    spec: ModelSpec, samples: Sequence[Sample], cascade: Cascade, seed: int
) -> dict[str, Array]:
    """Network → uint8 (M, S, S, 3): crops of shaken boxes, the aligned crops of a cascade, whole photos.

    Args:
        cascade: in FP32; its keypoints of stage 1 decide the crops of stage 2.

    Raises:
        DataError: an unreadable image.
    """
    inputs: dict[str, list[Array]] = {"stage1": [], "stage2": []}
    for sample in tqdm(samples, "cutting crops", unit="image", leave=False):
        image = sample.read()
        height, width = image.shape[:2]
        box = sample_box(sample.keypoints, (width, height), spec.box_rule)
        if spec.box_rule != "image":
            box = jitter_box(box, key_rng(sample.key, seed))
        inputs["stage1"].append(square_crop(box, spec.sizes[0], spec.scale).extract(image))
        inputs["stage2"].append(cascade(image, [box]).crop(0))
        if spec.locator == "network":
            inputs.setdefault("locator", []).append(fit_square(image, spec.locator_size)[0])
    return {name: np.stack(images) for name, images in inputs.items()}


def held_out(spec: ModelSpec, samples: Sequence[Sample]) -> Held:
    """Read what the results are judged by, once.

    Raises:
        DataError: all unreadable images, one line each.
    """
    size = SHARPNESS * max(spec.sizes)
    regions = cut_regions(samples, size, spec.box_rule, shape_side=size, scale=spec.scale)
    cut = [_of_region(sample, region) for sample, region in zip(samples, regions, strict=True)]
    frames = np.zeros((0, spec.locator_size, spec.locator_size, 3), np.uint8)
    if spec.locator == "network":
        frames = np.stack([fit_square(sample.read(), spec.locator_size)[0] for sample in samples])
    return Held(cut, frames)


def _of_region(sample: Sample, region: Region) -> Sample:
    points = region.keypoints.astype(np.float32)
    return replace(sample, keypoints=points, load=partial(_image, region), image_size=None)


def _image(region: Region) -> Array:
    return region.image
