"""Losses on both keypoint outputs, the correction, the score, visibility and attributes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_kp.training.network import StageOutput
from edge_kp.training.sampling import apply_affine

Batch = dict[str, Tensor]
SMOOTH = 0.01  # % of the reference distance: where the root has no slope any more


def keypoint_loss(predicted: Tensor, batch: Batch) -> Tensor:
    """Weighted mean distance between (B, N, 2) points and their labels, in % of the reference distance.

    It is what NME measures, so a point that may lie anywhere along an edge is put where it errs least on
    average. A loss that counts small errors for more (wing, Feng et al. 2018) left it 3 % higher.

    Uses ``keypoints`` (B, N, 2), ``labelled`` (B, N) 0/1, ``unit`` (B,) crop coordinates per reference
    distance, and ``weight`` (B,), the sample's weight from its attributes (0 for crops without object).
    """
    error = (predicted - batch["keypoints"]) * (100 / batch["unit"])[:, None, None]
    distance = (error.square().sum(-1) + SMOOTH**2).sqrt()
    weight = batch["labelled"] * batch["weight"][:, None]
    return (distance * weight).sum() / weight.sum().clamp(min=1)


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


def stage_loss(
    output: StageOutput, batch: Batch, mean_shape: Tensor, last_only: bool = False
) -> dict[str, Tensor]:
    """Every part of the loss, weighted, and their sum as ``total``.

    Args:
        last_only: of the keypoints, only the last ones are judged, for comparison.
    """
    parts = {
        "keypoints": 4.0 * keypoint_loss(output.keypoints, batch),
        "score": 2.0 * F.binary_cross_entropy_with_logits(output.score_logit, batch["present"]),
        "visibility": 2.0 * visibility_loss(output.visibility_logits, batch),
        "attributes": attribute_loss(output.attribute_logits, batch),
    }
    if not last_only:
        parts["prior"] = 2.0 * keypoint_loss(output.prior_keypoints, batch)
    if output.halfway and not last_only:
        parts["halfway"] = 2.0 * torch.stack([keypoint_loss(p, batch) for p in output.halfway]).mean()
    if output.correction is not None:
        parts["correction"] = 0.5 * correction_loss(output.correction, mean_shape, batch)
    parts["total"] = torch.stack(list(parts.values())).sum()
    return parts


def teacher_loss(output: StageOutput, teacher: StageOutput, batch: Batch) -> Tensor:
    """How far a stage is from its teacher on the same crops, in keypoints and in the map they are read from.

    The map (Romero et al. 2015, FitNets) says something of every place in the crop, labelled or not, and so
    keeps a small network from learning its few labels by heart.
    """
    assert output.foretold is not None, "a network with a teacher foretells its map"
    seen = F.interpolate(teacher.features, size=output.foretold.shape[-1], mode="bilinear", antialias=True)
    seen = seen / seen.square().mean().sqrt()
    features = (output.foretold.float() - seen).square().mean()
    return 4.0 * (features + keypoint_loss(output.keypoints, {**batch, "keypoints": teacher.keypoints}))
