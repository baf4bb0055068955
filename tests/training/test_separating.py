"""A separable convolution in the place of a whole one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_kp.training.separating import separated


def both(depthwise: Tensor, pointwise: Tensor, x: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(x, depthwise, padding=1, groups=len(depthwise)), pointwise)


def inputs(generator: torch.Generator) -> Tensor:
    """Channels of different strength that go together in part, as those of a network do."""
    x = torch.randn(6, 8, 12, 12, generator=generator)
    return (x + x.roll(1, 1)) * torch.linspace(0.1, 3, 8).view(1, 8, 1, 1)


def test_one_that_is_separable_is_found_again() -> None:
    generator = torch.Generator().manual_seed(1)
    depthwise = torch.randn(8, 1, 3, 3, generator=generator)
    pointwise = torch.randn(5, 8, 1, 1, generator=generator)
    x = inputs(generator)
    found = separated(pointwise * depthwise.transpose(0, 1), [x[:2], x[2:]])
    torch.testing.assert_close(both(*found, x), both(depthwise, pointwise, x), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_near_it_comes_closer(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(5, 8, 3, 3, generator=generator), inputs(generator)
    wanted = F.conv2d(x, weight, padding=1)
    found = separated(weight, [x])

    def error(depthwise: Tensor, pointwise: Tensor) -> float:
        return float((both(depthwise, pointwise, x) - wanted).square().mean())

    least = error(*found)
    assert least < 0.7 * float(wanted.square().mean())
    for _ in range(20):
        others = [w + 0.02 * w.std() * torch.randn(w.shape, generator=generator) for w in found]
        assert error(*others) > least * (1 - 1e-4)
        assert error(others[0], found[1]) > least
