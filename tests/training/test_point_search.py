"""The search of points on maps of their own, against slow plain numpy, and its place in a stage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.training.network import NetworkConfig, StageNet
from edge_kp.training.reading import Search

CELLS, N, K, SIZE = 8, 5, 4, 32


def lively_search(seed: int) -> Search:
    """As after some training: maps that say something, and a spread for each point."""
    torch.manual_seed(seed)
    search = Search(3, N, 6, CELLS).eval()
    with torch.no_grad():
        search.maps[2].weight.normal_(0, 2)
        search.log_spread.uniform_(math.log(0.03), math.log(0.3))
    return search


def stage(residual: bool = True) -> StageNet:
    torch.manual_seed(0)
    templates = np.random.default_rng(0).uniform(0.2, 0.8, (K, N, 2)).astype(np.float32)
    net = StageNet(NetworkConfig(SIZE, 8, True, ("occlusion",), residual=residual, search=6), templates)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
        assert net.search is not None
        net.search.maps[2].weight.normal_(0, 20)
    return net


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_point_moves_to_the_mean_of_map_times_prior(seed: int) -> None:
    """Also for points at the border and outside of the crop."""
    search = lively_search(seed)
    features, at = torch.randn(2, 3, CELLS, CELLS), torch.rand(2, N, 2) * 1.4 - 0.2
    with torch.no_grad():
        found = search(features, at).numpy()
        maps = search.maps(features).double().numpy()
    for b in range(2):
        for point in range(N):
            spread = math.exp(search.log_spread[point].item())
            means = []
            for seen in (maps[b, point], np.zeros((CELLS, CELLS))):
                weights, places = [], []
                for row in range(CELLS):
                    for column in range(CELLS):
                        place = np.array([column + 0.5, row + 0.5]) / CELLS
                        away = (place - at[b, point].double().numpy()) / spread
                        weights.append(seen[row, column] - 0.5 * float(away @ away))
                        places.append(place)
                likely = np.exp(np.array(weights) - max(weights))
                means.append(likely @ np.array(places) / likely.sum())
            np.testing.assert_allclose(found[b, point], means[0] - means[1], atol=1e-4)


def test_what_says_nothing_moves_nothing() -> None:
    search = Search(3, N, 6, CELLS).eval()
    at = torch.rand(2, N, 2, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    with torch.no_grad():
        found = search(torch.randn(2, 3, CELLS, CELLS), at)
    np.testing.assert_allclose(found, np.zeros(found.shape), atol=1e-6)


def test_a_sure_map_outweighs_the_prior_and_an_unsure_one_does_not() -> None:
    """A map that rises by so much to the right shifts a normal distribution by slope times variance."""
    search = Search(1, N, 1, 64).eval()
    with torch.no_grad():
        search.maps[0][0].weight.zero_()
        search.maps[0][0].weight[0, 0, 1, 1] = 1  # hands the feature on
        search.maps[2].weight[:, 0, 0, 0] = torch.tensor([0.0, 1.0, 2.0, 1.0, 2.0])
        search.log_spread[:3], search.log_spread[3:] = math.log(0.05), math.log(0.1)
        ramp = 10 * (torch.arange(64) + 0.5) / 64
        found = search(ramp.expand(1, 1, 64, 64), torch.full((1, N, 2), 0.5))
    batch_norm = 1 / math.sqrt(1 + 1e-5)
    expected = batch_norm * 10 * np.array([0, 1, 2, 1, 2]) * np.array([0.05, 0.05, 0.05, 0.1, 0.1]) ** 2
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=0.01, atol=1e-6)
    np.testing.assert_allclose(found[0, :, 1], np.zeros(N), atol=1e-6)


def test_the_readings_start_where_the_search_led() -> None:
    net = stage().eval()
    seen: list[torch.Tensor] = []
    assert net.search is not None
    net.search.register_forward_hook(lambda _, inputs, out: seen.extend((inputs[1], out)))
    for reading in net.readings:
        reading.register_forward_hook(lambda _, inputs, out: seen.append(inputs[2]))
    with torch.no_grad():
        out = net(torch.randn(2, 3, SIZE, SIZE))
    prior, step, first, _ = seen
    assert step.abs().max() > 1e-3
    torch.testing.assert_close(first, prior + step)
    assert len(out.halfway) == len(net.readings)


def test_without_the_residual_the_search_moves_nothing_either() -> None:
    with torch.no_grad():
        out = stage(residual=False).eval()(torch.randn(2, 3, SIZE, SIZE))
    np.testing.assert_array_equal(out.keypoints, out.prior_keypoints)


def test_gradients_reach_every_parameter() -> None:
    net = stage().train()
    out = net(torch.randn(4, 3, SIZE, SIZE))
    loss = sum(v.square().mean() for v in (*out, *out.halfway) if isinstance(v, torch.Tensor))
    loss.backward()  # type: ignore[union-attr]
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.any(), f"no gradient reaches {name}"


def test_refuses_fewer_features_than_none() -> None:
    with pytest.raises(ValueError, match=r"no search \(0\) or some features for it, got -1"):
        NetworkConfig(64, 8, False, (), search=-1)
