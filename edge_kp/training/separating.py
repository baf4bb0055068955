"""A 3×3 convolution as a separable one: what comes closest to it on the images that it will see."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 20


def separated(weight: Tensor, inputs: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Weights of a depthwise 3×3 convolution and of a 1×1 behind it that together do much what one 3×3 did.

    Least squares over what comes out for the inputs, for the one, then for the other, in turn. All that is
    needed of the inputs are the second moments of their 3×3 patches.

    Args:
        weight: (O, C, 3, 3) of the convolution, padding 1.
        inputs: batches of what goes into it, (B, C, H, W).

    Returns:
        (C, 1, 3, 3) and (O, C, 1, 1) weights.
    """
    outputs, channels = weight.shape[:2]
    whole = weight.double().flatten(1)
    moments = torch.zeros(whole.shape[1], whole.shape[1], dtype=torch.float64)
    for batch in inputs:
        patches = F.unfold(batch, 3, padding=1).double().transpose(0, 1).flatten(1)
        moments += patches @ patches.T
    moments += 1e-6 * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64)
    wanted = whole @ moments  # (O, 9C), what comes out against every input of a patch
    every = torch.arange(channels)
    taps = torch.linalg.svd(weight.double().permute(1, 0, 2, 3).flatten(2))[2][:, 0]  # (C, 9)
    for _ in range(ROUNDS):
        spread = torch.zeros(channels, channels, 9, dtype=torch.float64)
        spread[every, every] = taps
        spread = spread.flatten(1)  # the depthwise convolution as a matrix, (C, 9C)
        mix = torch.linalg.solve(spread @ moments @ spread.T, spread @ wanted.T).T  # (O, C)
        normal = (mix.T @ mix).repeat_interleave(9, 0).repeat_interleave(9, 1) * moments
        right = (mix.unsqueeze(2) * wanted.view(outputs, channels, 9)).sum(0)
        taps = torch.linalg.solve(normal, right.flatten()).view(channels, 9)
    return taps.view(channels, 1, 3, 3).float(), mix.view(outputs, channels, 1, 1).float()
