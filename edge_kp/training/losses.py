"""Losses on both keypoint outputs, the correction, the score, visibility and attributes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_kp.training.network import StageOutput, apply_affine

Batch = dict[str, Tensor]


def wing(error: Tensor, width: float = 10.0, curvature: float = 2.0) -> Tensor:
    """Wing loss (Feng et al. 2018, equation 5): logarithmic below ``width``, linear above."""
    error = error.abs()
    offset = width - width * math.log(1 + width / curvature)
    return torch.where(error < width, width * torch.log1p(error / curvature), error - offset)


def keypoint_loss(predicted: Tensor, batch: Batch) -> Tensor:
    """Weighted mean wing loss of (B, N, 2) crop coordinates, in % of the object's reference distance.

    Uses ``keypoints`` (B, N, 2), ``labelled`` (B, N) 0/1, ``unit`` (B,) crop coordinates per reference
    distance, and ``weight`` (B,), the sample's weight from its attributes (0 for crops without object).
    """
    error = (predicted - batch["keypoints"]) * (100 / batch["unit"])[:, None, None]
    weight = batch["labelled"] * batch["weight"][:, None]
    return (wing(error).sum(-1) * weight).sum() / weight.sum().clamp(min=1)


def correction_loss(correction: Tensor, mean_shape: Tensor, batch: Batch) -> Tensor:
    """How far the correction misplaces the canonical shape; labels are ``alignment`` (B, 2, 3)."""
    shape = mean_shape.unsqueeze(0)
    error = (apply_affine(correction, shape) - apply_affine(batch["alignment"], shape)).abs()
    error = error * (100 / batch["unit"])[:, None, None]
    weight = batch["present"] * batch["weight"]
    return (
        F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none").mean((1, 2)) * weight
    ).sum() / (weight.sum().clamp(min=1))


def attribute_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of (B, A) attributes, each class weighted by its rarity; unknown labels weigh 0."""
    weight = batch["attribute_weight"] * batch["present"][:, None]
    loss = F.binary_cross_entropy_with_logits(logits, batch["attributes"], reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def visibility_loss(logits: Tensor, batch: Batch) -> Tensor:
    weight = batch["labelled"] * batch["visible_known"] * batch["present"][:, None]
    loss = F.binary_cross_entropy_with_logits(logits, batch["visible"], reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def stage_loss(output: StageOutput, batch: Batch, mean_shape: Tensor) -> dict[str, Tensor]:
    """Every part of the loss, weighted, and their sum as ``total``."""
    parts = {
        "keypoints": keypoint_loss(output.keypoints, batch),
        "prior": 0.5 * keypoint_loss(output.prior_keypoints, batch),
        "score": 2.0 * F.binary_cross_entropy_with_logits(output.score_logit, batch["present"]),
        "visibility": 2.0 * visibility_loss(output.visibility_logits, batch),
        "attributes": attribute_loss(output.attribute_logits, batch),
    }
    if output.correction is not None:
        parts["correction"] = 0.5 * correction_loss(output.correction, mean_shape, batch)
    parts["total"] = torch.stack(list(parts.values())).sum()
    return parts
