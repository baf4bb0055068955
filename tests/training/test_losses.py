"""Losses against plain Python, and what must not count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.training.losses import (
    attribute_loss,
    correction_loss,
    keypoint_loss,
    stage_loss,
    teacher_loss,
    visibility_loss,
)
from edge_kp.training.network import StageOutput

B, N, A = 4, 5, 3
MEAN_SHAPE = torch.rand(N, 2, generator=torch.Generator().manual_seed(3))


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Every object present, every point and attribute labelled, every weight 1."""
    rng = np.random.default_rng(seed)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))

    return {
        "keypoints": tensor(rng.uniform(0, 1, (B, N, 2))),
        "labelled": torch.ones(B, N),
        "visible": tensor(rng.integers(0, 2, (B, N))),
        "visible_known": tensor(np.ones((B, N))),
        "present": torch.ones(B),
        "alignment": tensor(rng.uniform(-1, 1, (B, 2, 3))),
        "unit": tensor(rng.uniform(0.2, 0.6, B)),
        "attributes": tensor(rng.integers(0, 2, (B, A))),
        "attribute_weight": torch.ones(B, A),
        "weight": torch.ones(B),
    }


def predicted(seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 1, (B, N, 2)).astype(np.float32))


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_a_point_at_its_label_costs_nothing_and_has_a_gradient() -> None:
    data = batch()
    points = data["keypoints"].clone().requires_grad_()
    loss = keypoint_loss(points, data)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=0.011)
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_keypoint_loss_equals_plain_python(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = batch(seed)
    data["labelled"] = torch.from_numpy(rng.integers(0, 2, (B, N)).astype(np.float32))
    data["weight"] = torch.from_numpy(rng.uniform(0, 3, B).astype(np.float32))
    points = predicted(seed + 1)
    total = weights = 0.0
    for b in range(B):
        for n in range(N):
            weight = float(data["labelled"][b, n]) * float(data["weight"][b])
            weights += weight
            distance = math.dist(points[b, n].tolist(), data["keypoints"][b, n].tolist())
            total += weight * 100 * distance / float(data["unit"][b])
    assert float(keypoint_loss(points, data)) == pytest.approx(total / max(weights, 1), rel=1e-4)


def test_unlabelled_points_and_absent_objects_move_no_loss() -> None:
    data, points = batch(), predicted()
    data["labelled"][1, 2] = 0
    data["labelled"][3], data["weight"][3], data["present"][3] = 0, 0, 0
    before = (keypoint_loss(points, data), visibility_loss(torch.zeros(B, N), data))
    points[1, 2] += 5
    points[3] -= 7
    data["keypoints"][3] = 100
    far = torch.zeros(B, N)
    far[1, 2], far[3] = 9, -9
    assert float(keypoint_loss(points, data)) == float(before[0])
    assert float(visibility_loss(far, data)) == pytest.approx(float(before[1]))
    points[1, 1, 0] += 0.1
    assert float(keypoint_loss(points, data)) != float(before[0])


def test_a_batch_without_objects_costs_nothing_and_has_gradients() -> None:
    data = batch()
    for name in ("labelled", "weight", "present", "attribute_weight"):
        data[name].zero_()
    points = predicted().requires_grad_()
    scores, others = logits(B).requires_grad_(), logits(B, A).requires_grad_()
    seen, turn = logits(B, N).requires_grad_(), logits(B, 2, 3).requires_grad_()
    out = StageOutput(points, points, logits(B, 4), scores, seen, others, turn, (points,), points, None)
    parts = stage_loss(out, data, MEAN_SHAPE)
    assert {name: v.item() for name, v in parts.items() if name not in ("score", "total")} == dict.fromkeys(
        ("keypoints", "prior", "halfway", "visibility", "attributes", "correction"), 0.0
    )
    parts["total"].backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
    assert scores.grad is not None
    assert scores.grad.all()


def test_weights_act() -> None:
    data, points = batch(), predicted()
    single = []
    for b in range(B):
        data["weight"] = torch.zeros(B)
        data["weight"][b] = 1
        single.append(float(keypoint_loss(points, data)))
    assert len({round(v, 3) for v in single}) == B
    weight = torch.tensor([0.5, 2.0, 1.0, 4.0])
    data["weight"] = weight
    expected = float((torch.tensor(single) * weight).sum() / weight.sum())
    assert float(keypoint_loss(points, data)) == pytest.approx(expected, rel=1e-5)


def test_the_correction_costs_nothing_at_the_truth() -> None:
    data = batch()
    assert float(correction_loss(data["alignment"].clone(), MEAN_SHAPE, data)) == 0
    off = data["alignment"].clone()
    off[2, 0, 2] += 0.05
    worse = data["alignment"].clone()
    worse[2, 0, 2] += 0.10
    small = float(correction_loss(off, MEAN_SHAPE, data))
    assert 0 < small < float(correction_loss(worse, MEAN_SHAPE, data))
    # A shift of 0.05 in x alone: smooth L1 of 100 * 0.05 / unit, over both axes and all samples.
    error = 5 / float(data["unit"][2])
    assert small == pytest.approx((error - 0.5) / 2 / B, rel=1e-4)
    data["present"][2] = 0
    assert float(correction_loss(off, MEAN_SHAPE, data)) == 0


def test_attributes_that_are_unknown_do_not_count() -> None:
    data, out = batch(), logits(B, A)
    data["attribute_weight"][0, 1] = 0
    data["attribute_weight"][2] = 0
    before = float(attribute_loss(out, data))
    out[0, 1], out[2] = 50, -50
    data["attributes"][0, 1] = 0
    assert float(attribute_loss(out, data)) == pytest.approx(before)


def test_attribute_loss_equals_plain_python() -> None:
    data, out = batch(), logits(B, A)
    data["attribute_weight"] = torch.rand(B, A, generator=torch.Generator().manual_seed(4)) * 4
    data["present"][1] = 0
    total = weights = 0.0
    for b in range(B):
        for a in range(A):
            weight = float(data["attribute_weight"][b, a]) * float(data["present"][b])
            chance = 1 / (1 + math.exp(-float(out[b, a])))
            wanted = chance if data["attributes"][b, a] else 1 - chance
            total -= weight * math.log(wanted)
            weights += weight
    assert float(attribute_loss(out, data)) == pytest.approx(total / weights, rel=1e-5)


def test_the_whole_is_the_sum_of_its_parts() -> None:
    data = batch()
    out = StageOutput(
        predicted(1),
        predicted(2),
        logits(B, 4),
        logits(B),
        logits(B, N),
        logits(B, A),
        None,
        (),
        predicted(1),
        None,
    )
    parts = stage_loss(out, data, MEAN_SHAPE)
    assert set(parts) == {"keypoints", "prior", "score", "visibility", "attributes", "total"}
    assert float(parts["total"]) == pytest.approx(sum(float(v) for n, v in parts.items() if n != "total"))
    assert float(parts["keypoints"]) == pytest.approx(4 * float(keypoint_loss(predicted(1), data)))
    assert float(parts["prior"]) == pytest.approx(2 * float(keypoint_loss(predicted(2), data)))
    halfway = stage_loss(out._replace(halfway=(predicted(3), predicted(4))), data, MEAN_SHAPE)
    both = [float(keypoint_loss(predicted(i), data)) for i in (3, 4)]
    assert float(halfway["halfway"]) == pytest.approx(sum(both))
    assert float(halfway["total"]) == pytest.approx(float(parts["total"]) + sum(both))
    last = stage_loss(out._replace(halfway=(predicted(3),)), data, MEAN_SHAPE, last_only=True)
    assert set(parts) - set(last) == {"prior"}
    assert float(last["total"]) == pytest.approx(float(parts["total"] - parts["prior"]))
    corrected = stage_loss(out._replace(correction=torch.eye(2, 3).repeat(B, 1, 1)), data, MEAN_SHAPE)
    assert float(corrected["correction"]) > 0
    assert float(corrected["total"]) > float(parts["total"])


def test_the_score_learns_absence_too() -> None:
    data = batch()
    data["present"] = torch.tensor([1.0, 0, 1, 0])
    points = data["keypoints"]

    def cost(score: list[float]) -> float:
        out = StageOutput(
            points,
            points,
            logits(B, 4),
            torch.tensor(score),
            logits(B, N),
            logits(B, A),
            None,
            (),
            points,
            None,
        )
        return float(stage_loss(out, data, MEAN_SHAPE)["score"])

    right, half, wrong = cost([5.0, -5, 5, -5]), cost([5.0, 5, 5, -5]), cost([-5.0, 5, -5, 5])
    assert right < half < wrong


def test_a_teacher_pulls_keypoints_and_features_towards_its_own() -> None:
    data = batch()
    data["weight"][3] = 0  # shows no object: there is no keypoint to agree on
    maps = torch.randn(B, 7, 4, 4, generator=torch.Generator().manual_seed(4))

    def output(points: torch.Tensor, foretold: torch.Tensor | None) -> StageOutput:
        rest = logits(B, 4), logits(B), logits(B, N), logits(B, A), None, ()
        return StageOutput(points, points, *rest, maps, foretold)

    taught = output(predicted(1), None)
    scale = maps.square().mean().sqrt()
    agrees = float(teacher_loss(output(taught.keypoints, maps / scale), taught, data))
    assert agrees == pytest.approx(0, abs=0.05)
    moved = taught.keypoints.clone()
    moved[0, 0, 0] += 0.1
    assert float(teacher_loss(output(moved, maps / scale), taught, data)) > agrees + 0.1
    moved = taught.keypoints.clone()
    moved[3] += 0.1
    assert float(teacher_loss(output(moved, maps / scale), taught, data)) == pytest.approx(agrees)
    assert float(teacher_loss(output(taught.keypoints, -maps / scale), taught, data)) == pytest.approx(
        agrees + 4 * 4, rel=1e-3
    )
    # A map of another size is compared place by place all the same.
    finer = F.interpolate(maps, scale_factor=2.0)
    coarse = output(taught.keypoints, maps / scale)
    assert float(teacher_loss(coarse, taught._replace(features=finer), data)) < agrees + 4
