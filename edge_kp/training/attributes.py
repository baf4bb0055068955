"""Attributes of a training sample, and weights from how rare each is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_kp.cascade import IN_PLANE, IN_PLANE_LIMIT
from edge_kp.geometry import decompose_similarity, estimate_similarity, transform_points
from edge_kp.templates import TemplateBank
from edge_kp.types import Array

OUT_OF_PLANE, OCCLUSION = "rotation_out_of_plane", "occlusion"
OWN_ATTRIBUTES = (IN_PLANE, OUT_OF_PLANE, OCCLUSION)
OCCLUDED_SHARE = 0.1  # of the points
RIGID = 1e-3  # mean movement of a point, in sides of the crop, below which a change of shape means nothing


class ShapeAttributes:
    """Rotation read off a shape alone, for data sets that say nothing of it.

    In the plane: the turn between the shape and the canonical one. Out of the plane: how far the aligned
    shape lies along the bank's main axis of *asymmetry* (where the schema has mirror pairs), which is what a
    turned symmetric object shows; without pairs, along the bank's main axis of change. The limit is one
    standard deviation of the templates, which cover rare poses on purpose. Where the templates hardly differ
    along it (:data:`RIGID`: a rigid object seen from one side, two points, one template), it is not told.
    """

    def __init__(self, bank: TemplateBank) -> None:
        self.reference = bank.schema.reference
        self.mean_shape = bank.mean_shape.astype(np.float64)
        spread = bank.templates.astype(np.float64) - self.mean_shape
        if bank.schema.can_flip:
            mirrored = spread[:, bank.schema.flip_index] * np.array([-1.0, 1.0])
            spread = (spread - mirrored) / 2
        flat = spread.reshape(len(spread), -1)
        self.axis = np.linalg.svd(flat, full_matrices=False)[2][0]
        self.limit = float(np.sqrt(np.mean((flat @ self.axis) ** 2)))

    def __call__(self, keypoints: Array) -> dict[str, float]:
        """Attributes of (N, 2) keypoints in any upright frame; NaN points are left out; {} if all are NaN."""
        known = ~np.isnan(keypoints).any(axis=1)
        if known.sum() < 2:
            return {}
        align = estimate_similarity(keypoints[known], self.mean_shape[known])
        angle = decompose_similarity(align)[0]
        aligned = self.mean_shape.copy()
        aligned[known] = transform_points(align, keypoints[known])
        turn = abs(float((aligned - self.mean_shape).reshape(-1) @ self.axis))
        found = {IN_PLANE: float(abs(angle) > IN_PLANE_LIMIT)}
        if self.limit >= RIGID * math.sqrt(len(self.mean_shape)):
            found[OUT_OF_PLANE] = float(turn > self.limit)
        return found


def attribute_names(samples_attributes: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Our own attributes, then those that the data sets bring, sorted."""
    given = {name for attributes in samples_attributes for name in attributes}
    return (*OWN_ATTRIBUTES, *sorted(given - set(OWN_ATTRIBUTES)))


@dataclass(frozen=True, eq=False)
class AttributeWeights:
    """Weights of the two classes of each attribute: inverse frequency over the data, clamped, never 0.

    Source: the sample weights of PFLD (Guo et al. 2019, equation 2), here for both classes of an attribute.

    Attributes:
        positive, negative: (A,) float32, weight of a sample that has or has not the attribute.
        mean_weight: mean of the samples' unnormalised weights, so that :meth:`samples` averages 1.
    """

    positive: Array
    negative: Array
    mean_weight: float

    LIMITS = (0.25, 4.0)

    @classmethod
    def measure(cls, labels: Array) -> AttributeWeights:
        """From (M, A) labels 0 or 1, NaN where unknown. An attribute nobody has is weighted 1."""
        known = ~np.isnan(labels)
        count = known.sum(0)
        share = np.where(count > 0, np.nansum(labels, 0) / np.maximum(count, 1), 0.5)
        both = (share > 0) & (share < 1)
        safe = np.where(both, share, 0.5)
        positive = np.clip(0.5 / safe, *cls.LIMITS).astype(np.float32)
        negative = np.clip(0.5 / (1 - safe), *cls.LIMITS).astype(np.float32)
        raw = cls(positive, negative, 1.0)
        return cls(positive, negative, float(raw.samples(labels).mean()) if len(labels) else 1.0)

    def classes(self, labels: Array) -> Array:
        """(M, A) weight of each label; 0 where it is unknown (NaN)."""
        weights = np.where(labels > 0.5, self.positive, self.negative)
        return np.where(np.isnan(labels), 0.0, weights).astype(np.float32)

    def samples(self, labels: Array) -> Array:
        """(M,) weight of each sample's keypoint loss: mean over its known attributes; averages 1."""
        known = (~np.isnan(labels)).sum(1)
        total = self.classes(labels).sum(1)
        return np.where(known > 0, total / np.maximum(known, 1), 1.0).astype(np.float32) / self.mean_weight
