"""Training crops: cut anew from the kept regions in every epoch, misplaced, mirrored, covered, coloured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edge_kp.geometry import (
    Crop,
    box_iou,
    compose,
    decompose_similarity,
    estimate_similarity,
    invert,
    jitter_box,
    square_crop,
    transform_points,
)
from edge_kp.training.attributes import OCCLUDED_SHARE, OCCLUSION, AttributeWeights, ShapeAttributes
from edge_kp.training.augment import (
    MIRROR,
    Augmentation,
    about_middle,
    random_bend,
    random_colour,
    random_cover,
    random_transform,
)
from edge_kp.training.regions import Region, key_rng
from edge_kp.types import Array

NEGATIVES = 0.1  # share of training crops that show no object
STRANGE = 0.1  # IoU with another object's box, below which a box is not taken for one around that

Item = dict[str, Any]


@dataclass(frozen=True, eq=False)
class StageView:
    """How a stage sees an object.

    Attributes:
        size: side of the input image in pixels.
        mean_shape: (N, 2) canonical shape, crop coordinates.
        scale: stage 1: side of the crop in sides of the box; None for the aligned crop of stage 2.
        errors: stage 2: (M, 4) errors of stage 1 ``(angle, log scale, du, dv)`` about the middle of the
            aligned crop; crops are misplaced by draws from them.
    """

    size: int
    mean_shape: Array
    scale: float | None = None
    errors: Array | None = None

    def crop(self, region: Region, rng: np.random.Generator, augmentation: Augmentation | None) -> Crop:
        """A crop of the region: misplaced as at run time, and augmented where asked."""
        if self.scale is not None:
            box = region.box if augmentation else jitter_box(region.box, rng)
            crop = square_crop(box, self.size, self.scale)
            if augmentation is None or not augmentation.moves:
                return crop
            return Crop(compose(random_transform(rng, augmentation, self.scale), crop.matrix), self.size)
        assert self.errors is not None
        known = ~np.isnan(region.keypoints).any(1)
        aligned = estimate_similarity(region.keypoints[known], self.mean_shape[known].astype(np.float64))
        angle, log_scale, du, dv = self.errors[rng.integers(len(self.errors))]
        if augmentation and augmentation.moves:
            # Between and somewhat beyond the errors measured, since new photos are harder than those at hand.
            grow = rng.uniform(0.5, 1.6)
            angle, log_scale, du, dv = grow * np.array([angle, log_scale, du, dv]) + rng.normal(
                0, (0.03, 0.02, 0.01, 0.01)
            )
        return Crop(compose(about_middle(angle, np.exp(log_scale), np.array([du, dv])), aligned), self.size)


def alignment_error(predicted: Array, truth: Array, mean_shape: Array) -> Array:
    """(4,) ``(angle, log scale, du, dv)``: how the crop aligned by ``predicted`` differs from the true one.

    Args:
        predicted, truth: (N, 2) in any common frame; points that are NaN in ``truth`` are left out.
    """
    known = ~np.isnan(truth).any(1)
    mean = mean_shape.astype(np.float64)
    seen = estimate_similarity(predicted, mean)
    # Not the estimate from the mean to the truth: least squares shrinks what it cannot fit, both ways.
    to_truth = invert(estimate_similarity(truth[known], mean[known]))
    error = compose(seen, to_truth)
    angle, scale, _, _ = decompose_similarity(error)
    du, dv = transform_points(error, np.array([0.5, 0.5])) - 0.5
    return np.array([angle, np.log(scale), du, dv])


class CropDataset:
    """Map-style data set of crops with labels; every crop depends on ``(seed, epoch, index)`` alone.

    Args:
        regions: the photos; ``counts`` says how often each stands in an epoch.
        augmentation: None gives validation crops, the same in every epoch.
        weights: weights of attributes; None weights everything 1.
        negatives: share of augmented crops that show no object.
        patches: more uint8 (PATCH, PATCH, 3) pictures that show no object.
        ends: (R,) epoch from which on a region is not shown any more; others stand in for it then.

    An item is a dict of arrays: ``image`` uint8 (S, S, 3); ``keypoints`` (N, 2), crop coordinates, 0 where
    unlabelled; ``labelled``, ``visible``, ``visible_known`` (N,); ``present`` (); ``alignment`` (2, 3)
    canonical → crop; ``unit`` () reference distance in crop coordinates; ``attributes``,
    ``attribute_weight`` (A,); ``weight`` (). All float32 but the image.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        view: StageView,
        shape_attributes: ShapeAttributes,
        attributes: Sequence[str],
        flip_index: Array | None,
        seed: int,
        augmentation: Augmentation | None = None,
        weights: AttributeWeights | None = None,
        counts: Sequence[int] | int = 1,
        negatives: float = NEGATIVES,
        ends: Sequence[int] | None = None,
        patches: Sequence[Array] = (),
    ) -> None:
        self.regions = regions
        self.view = view
        self.shape_attributes = shape_attributes
        self.attributes = tuple(attributes)
        self.flip_index = flip_index
        self.seed = seed
        self.augmentation = augmentation
        self.weights = weights
        self.index = np.repeat(np.arange(len(regions)), counts)
        self.ends = None if ends is None else np.repeat(ends, counts)
        self.negatives = negatives
        self.patches = [*(region.patch for region in regions if region.patch is not None), *patches]
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> Item:
        region = self.regions[self.index[at]]
        if self.augmentation is None:
            rng = key_rng(region.key, self.seed)
            return self._labelled(region, rng)
        rng = np.random.default_rng([self.seed, self.epoch, at])
        if self.ends is not None and self.ends[at] <= self.epoch:
            region = self.regions[rng.choice(self.index[self.ends > self.epoch])]
        if rng.random() < self.negatives:
            return self._negative(region, rng)
        return self._labelled(region, rng)

    def labels(self, count: int) -> Array:
        """(count, A) attributes of random training crops, NaN where unknown: their distribution."""
        rng = np.random.default_rng(self.seed)
        at = rng.integers(len(self), size=count)
        rows = (
            self._labelled(self.regions[self.index[i]], np.random.default_rng([self.seed, i]))
            for i in at.tolist()
        )
        return np.stack([np.where(r["attribute_weight"] > 0, r["attributes"], np.nan) for r in rows])

    def _labelled(self, region: Region, rng: np.random.Generator) -> Item:
        view, augmentation = self.view, self.augmentation
        crop = view.crop(region, rng, augmentation)
        keypoints, visible = region.keypoints, region.visible
        if augmentation and augmentation.moves and self.flip_index is not None and rng.random() < 0.5:
            crop = Crop(compose(MIRROR, crop.matrix), view.size)
            keypoints, visible = keypoints[self.flip_index], visible[self.flip_index]
        border = cv2.BORDER_REPLICATE if augmentation and rng.random() < 0.3 else cv2.BORDER_CONSTANT
        image = crop.extract(region.image, border)
        points = crop.to_crop(keypoints)
        if augmentation and augmentation.bend > 0:
            image, points = random_bend(image, points, rng, augmentation.bend)
        labelled = np.asarray(~np.isnan(points).any(1))
        attributes = dict(region.attributes)
        # Unknown visibility of an object that the data set calls occluded teaches nothing.
        known = ~np.isnan(visible) | (attributes.get(OCCLUSION) != 1.0)
        visible = np.where(np.isnan(visible), 1.0, visible)
        if augmentation:
            if rng.random() < augmentation.cover:
                texture = self.regions[int(rng.integers(len(self.regions)))]
                image, under = random_cover(
                    image,
                    points,
                    rng,
                    augmentation.cover_share,
                    texture.patch if texture.patch is not None and rng.random() < 0.5 else texture.image,
                )
                visible, known = np.where(under, 0.0, visible), known | under
                if np.mean(under[labelled]) >= OCCLUDED_SHARE:
                    attributes[OCCLUSION] = 1.0
            image = random_colour(image, rng, augmentation.colour)
        attributes.setdefault(OCCLUSION, float(np.mean(visible[labelled] < 0.5) >= OCCLUDED_SHARE))
        attributes = {**self.shape_attributes(points), **attributes}
        mean = view.mean_shape.astype(np.float64)
        alignment = estimate_similarity(mean[labelled], points[labelled])
        return self._item(image, points, labelled, visible, known, alignment, attributes, present=True)

    def _negative(self, region: Region, rng: np.random.Generator) -> Item:
        """A crop that misses the object: background, or the object far off, or far too close."""
        view, size = self.view, self.view.size
        kind = rng.random()
        if kind < 0.5 and self.patches:
            patch = self.patches[rng.integers(len(self.patches))]
            image = cv2.resize(np.ascontiguousarray(patch[:, :: rng.choice((-1, 1))]), (size, size))
        else:
            scale, beside = view.scale or 1.5, False
            if kind < 0.8 and region.use_background:
                # Beside the object, in any size: collars, hair and hands among it.
                side = max(region.box[2] - region.box[0], region.box[3] - region.box[1])
                half = side * math.exp(rng.uniform(-1.2, 0.1)) / 2
                direction = rng.uniform(0, 2 * np.pi)
                away = (side / 2 + half) * rng.uniform(0.75, 1.3)
                middle = (region.box[:2] + region.box[2:]) / 2
                middle = middle + away * np.array([np.cos(direction), np.sin(direction)])
                box = np.concatenate([middle - half, middle + half])
                beside = all(box_iou(box, other) < STRANGE for other in region.others)
            if not beside:
                middle = (region.box[:2] + region.box[2:]) / 2 + rng.uniform(-0.3, 0.3, 2) * (
                    region.box[2:] - region.box[:2]
                )
                half = (region.box[2:] - region.box[:2]) / 2 * rng.uniform(0.12, 0.25)
                box = np.concatenate([middle - half, middle + half])
            image = square_crop(box, size, scale).extract(region.image, cv2.BORDER_REPLICATE)
        assert self.augmentation is not None
        image = random_colour(image, rng, self.augmentation.colour)
        mean = view.mean_shape.astype(np.float64)
        nothing = np.zeros(len(mean), bool)
        return self._item(
            image, mean, nothing, nothing, nothing, about_middle(0, 1, np.zeros(2)), {}, present=False
        )

    def _item(
        self,
        image: Array,
        points: Array,
        labelled: Array,
        visible: Array,
        visible_known: Array,
        alignment: Array,
        attributes: Mapping[str, float],
        present: bool,
    ) -> Item:
        row = np.array([[attributes.get(name, np.nan) for name in self.attributes]])
        weights = self.weights.classes(row) if self.weights else (~np.isnan(row)).astype(np.float32)
        weight = float(self.weights.samples(row)[0]) if self.weights else 1.0
        a, b = self.shape_attributes.reference
        unit = np.linalg.norm(self.view.mean_shape[a] - self.view.mean_shape[b]) * np.hypot(*alignment[:, 0])
        return {
            "image": image,
            "keypoints": np.where(labelled[:, None], points, 0).astype(np.float32),
            "labelled": labelled.astype(np.float32),
            "visible": visible.astype(np.float32),
            "visible_known": visible_known.astype(np.float32),
            "present": np.float32(present),
            "alignment": alignment.astype(np.float32),
            "unit": np.float32(unit),
            "attributes": np.nan_to_num(row[0]).astype(np.float32),
            "attribute_weight": weights[0],
            "weight": np.float32(weight if present else 0.0),
        }
