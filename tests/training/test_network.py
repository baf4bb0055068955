"""One stage against slow plain numpy: mixture, reading of the maps, way back of the correction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.geometry import similarity, transform_points
from edge_kp.training.network import (
    CorrectionNet,
    ExportNet,
    NetworkConfig,
    Reading,
    StageNet,
    normalise,
)
from edge_kp.training.sampling import apply_affine, gather_cells

SIZE, K, N = 32, 8, 6
NAMES = ("rotation_in_plane", "occlusion")


def templates(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, (K, N, 2)).astype(np.float32)


def config(
    correct: bool = False, bank: bool = True, size: int = SIZE, residual: bool = True
) -> NetworkConfig:
    return NetworkConfig(size, 8, correct, NAMES, bank, residual=residual)


def lively(net: StageNet, seed: int = 0) -> StageNet:
    """Random values where a fresh network has zeros or ones, as after some training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                value.normal_(0, 0.2)
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
        net.mixture.weight.normal_(0, 2)
    return net.eval()


def images(count: int = 3, size: int = SIZE, seed: int = 5) -> torch.Tensor:
    """Smooth random pictures, around [-1, 1]."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")


def bilinear(planes: np.ndarray, x: float, y: float) -> np.ndarray:
    """(C, H, W) at pixel (x, y), whose pixels have their centres at whole numbers; borders repeat."""
    _, height, width = planes.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    x0, y0 = math.floor(x), math.floor(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    a, b = x - x0, y - y0
    top = (1 - a) * planes[:, y0, x0] + a * planes[:, y0, x1]
    bottom = (1 - a) * planes[:, y1, x0] + a * planes[:, y1, x1]
    return (1 - b) * top + b * bottom


def warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(3, S, S) seen through a transform, output crop → input crop coordinates, pixel by pixel."""
    size = image.shape[-1]
    out = np.empty_like(image)
    for row in range(size):
        for column in range(size):
            u, v = transform_points(matrix, np.array([(column + 0.5) / size, (row + 0.5) / size]))
            out[:, row, column] = bilinear(image, u * size - 0.5, v * size - 0.5)
    return out


def test_the_prior_is_the_template_mixture() -> None:
    bank = templates()
    with torch.no_grad():
        out = lively(StageNet(config(), bank))(images())
    for logits, prior in zip(out.mixture_logits.numpy(), out.prior_keypoints.numpy(), strict=True):
        weights = [math.exp(v) for v in logits.astype(float)]
        total = sum(weights)
        assert max(weights) / total > 1.5 / K  # a mixture that says something
        mixed = sum(w / total * shape.astype(float) for w, shape in zip(weights, bank, strict=True))
        np.testing.assert_allclose(prior, mixed, atol=1e-5)


def test_without_a_bank_the_prior_starts_at_the_mean_template() -> None:
    bank = templates()
    net = StageNet(config(bank=False), bank).eval()
    with torch.no_grad():
        out = net(images())
    np.testing.assert_allclose(out.prior_keypoints, np.broadcast_to(bank.mean(0), (3, N, 2)), atol=1e-6)
    assert "bank" not in dict(net.named_buffers())


def test_without_the_residual_the_prior_is_the_result() -> None:
    bank = templates()
    with torch.no_grad():
        out, corrected = (lively(StageNet(config(residual=r), bank))(images()) for r in (False, True))
    np.testing.assert_array_equal(out.keypoints, out.prior_keypoints)
    assert (corrected.keypoints - corrected.prior_keypoints).abs().max() > 1e-3


def test_a_fresh_network_corrects_nothing_and_trusts_the_prior() -> None:
    with torch.no_grad():
        out = StageNet(config(correct=True), templates()).eval()(images())
    np.testing.assert_allclose(out.correction, np.broadcast_to(np.eye(2, 3), (3, 2, 3)), atol=1e-6)
    np.testing.assert_array_equal(out.keypoints, out.prior_keypoints)


def test_shapes() -> None:
    for correct in (False, True):
        out = StageNet(config(correct, size=48), templates()).eval()(images(2, 48))
        assert out.keypoints.shape == out.prior_keypoints.shape == (2, N, 2)
        assert out.mixture_logits.shape == (2, K)
        assert out.score_logit.shape == (2,)
        assert out.visibility_logits.shape == (2, N)
        assert out.attribute_logits.shape == (2, len(NAMES))
        assert (out.correction is None) == (not correct)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_apply_affine_equals_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrices, points = rng.normal(0, 1, (3, 2, 3)), rng.normal(0, 1, (3, N, 2))
    found = apply_affine(torch.from_numpy(matrices), torch.from_numpy(points)).numpy()
    for matrix, own, moved in zip(matrices, points, found, strict=True):
        np.testing.assert_allclose(moved, transform_points(matrix, own), atol=1e-12)
    shared = apply_affine(torch.from_numpy(matrices), torch.from_numpy(points[:1])).numpy()
    np.testing.assert_allclose(shared[2], transform_points(matrices[2], points[0]), atol=1e-12)


def forced(net: CorrectionNet, log_scale: float, angle: float, dx: float, dy: float) -> np.ndarray:
    """Make the network answer one similarity, and give that similarity: about the middle, then shifted."""
    with torch.no_grad():
        net.out.weight.zero_()
        wanted = torch.tensor([log_scale / 0.7, angle / (math.pi / 2), dx / 0.5, dy / 0.5])
        net.out.bias.copy_(torch.atanh(wanted))
    turn = similarity(angle, math.exp(log_scale))
    turn[:, 2] = np.array([0.5, 0.5]) - turn[:, :2] @ [0.5, 0.5] + [dx, dy]
    return turn


@pytest.mark.parametrize(
    "correction", [(0, 0, 0, 0), (0.2, 0.5, 0.1, -0.07), (-0.3, -1.2, 0, 0.2), (0.5, 0.1, -0.3, 0.3)]
)
def test_keypoints_come_back_from_the_corrected_crop(correction: tuple[float, ...]) -> None:
    """The slow path: warp the image by hand, run the stage without its correction, map the points by hand."""
    bank = templates()
    net = lively(StageNet(config(correct=True), bank))
    assert net.correction is not None
    matrix = forced(net.correction, *correction)
    plain = StageNet(config(), bank).eval()
    rest = {name: value for name, value in net.state_dict().items() if not name.startswith("correction.")}
    plain.load_state_dict(rest)
    image = images(2)
    warped = np.stack([warp(one.astype(np.float64), matrix) for one in image.numpy()]).astype(np.float32)
    with torch.no_grad():
        fast, slow = net(image), plain(torch.from_numpy(warped))
    np.testing.assert_allclose(fast.correction, np.stack([matrix] * 2), atol=1e-5)
    assert np.abs((slow.keypoints - slow.prior_keypoints).numpy()).max() > 1e-3
    for name in ("keypoints", "prior_keypoints"):
        expected = transform_points(matrix, getattr(slow, name).numpy().astype(np.float64))
        np.testing.assert_allclose(getattr(fast, name), expected, atol=2e-4, err_msg=name)
    for name in ("mixture_logits", "score_logit", "visibility_logits", "attribute_logits"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), atol=2e-3, err_msg=name)


def test_the_correction_keeps_within_its_limits() -> None:
    net = CorrectionNet(SIZE).eval()
    with torch.no_grad():
        net.out.weight.normal_(0, 100)
        matrix = net(50 * images(4)).double()
    scale = (matrix[:, 0, 0] ** 2 + matrix[:, 1, 0] ** 2).sqrt()
    assert ((scale.log().abs() - 0.7) < 1e-4).all()
    assert (matrix[:, 0, 0] > -1e-4).all()  # cosine of at most 90 degrees
    middle = matrix @ torch.tensor([0.5, 0.5, 1.0], dtype=torch.double)
    assert ((middle - 0.5).abs() <= 0.5 + 1e-4).all()
    torch.testing.assert_close(matrix[:, 0, 0], matrix[:, 1, 1])
    torch.testing.assert_close(matrix[:, 0, 1], -matrix[:, 1, 0])


def plain_reading(row: int, hidden: int = 64) -> Reading:
    """A reading whose features are rows of what it sees: row, row + 1, … of channels × cells."""
    reading = Reading(8, 4 / SIZE, N, hidden, 4).eval()
    with torch.no_grad():
        for parameter in reading.parameters():
            parameter.zero_()
        for i in range(hidden):
            reading.read.weight[i, row + i, 0] = 1
    return reading


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 8]), st.booleans())
def test_points_are_read_around_where_they_are(seed: int, row: int, exported: bool) -> None:
    """Channel c and cell j of the 3 x 3 neighbourhood stand in row 9 c + j; points may leave the crop."""
    rng = np.random.default_rng(seed)
    plain, cells = plain_reading(row), SIZE // 4
    reading = plain.settled() if exported else plain
    local = rng.uniform(0, 1, (2, 8, cells, cells)).astype(np.float32)
    at = rng.uniform(-0.2, 1.2, (2, N, 2)).astype(np.float32)
    with torch.no_grad():
        found, _ = reading(torch.from_numpy(local), torch.zeros(2, 64), torch.from_numpy(at))
    # The last layer adds its input to what it makes of it, which is nothing here.
    hidden = found.numpy()
    for b in range(2):
        for point in range(N):
            x, y = at[b, point].astype(float) * cells - 0.5
            near = np.stack([bilinear(local[b], x + dx, y + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], 1)
            expected = near.reshape(-1)[row : row + hidden.shape[2]]
            np.testing.assert_allclose(hidden[b, point], expected, atol=1e-4)


def test_a_ramp_of_coordinates_reads_as_the_keypoints_themselves() -> None:
    reading, cells = plain_reading(0), SIZE // 4
    centre = (torch.arange(cells) + 0.5) / cells
    local = torch.zeros(1, 8, cells, cells)
    local[0, 0], local[0, 1] = centre[None, :], centre[:, None]
    at = torch.rand(1, N, 2, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    with torch.no_grad():
        hidden, step = reading(local, torch.zeros(1, 64), at)
    np.testing.assert_allclose(hidden[0][:, [4, 13]], at[0], atol=1e-6)  # cell 4 of 9 is the middle one
    assert not step.any()


def test_every_point_has_weights_of_its_own() -> None:
    """Points that see the same differ by their own weights alone, and only by theirs."""
    reading = plain_reading(0, hidden=3)
    local, at = torch.full((1, 8, 8, 8), 0.5), torch.full((1, N, 2), 0.5)
    point = 2
    with torch.no_grad():
        same, _ = reading(local, torch.zeros(1, 3), at)
        reading.own.weight[3 * point + 1, 0] = 2  # the point's second feature takes its first
        reading.step.weight[2 * point, 1] = 1  # and moves it to the right
        hidden, step = reading(local, torch.zeros(1, 3), at)
    difference = hidden - same
    assert float(difference[0, point, 1]) == pytest.approx(2 * 0.5)
    difference[0, point, 1] = 0
    assert not difference.any()
    assert float(step[0, point, 0]) == pytest.approx(0.1 * float(hidden[0, point, 1]))
    assert int((step != 0).sum()) == 1


def test_each_reading_starts_where_the_last_one_led() -> None:
    """Keypoints = prior + all steps; the second reading looks at the corrected points."""
    net = lively(StageNet(config(), templates()))
    seen: list[torch.Tensor] = []
    for reading in net.readings:
        reading.register_forward_hook(lambda _, inputs, out: seen.extend((inputs[2], out[1])))
    with torch.no_grad():
        out = net(images())
    at1, step1, at2, step2 = seen
    assert step1.abs().min() > 0
    torch.testing.assert_close(at1, out.prior_keypoints)
    torch.testing.assert_close(at2, at1 + step1)
    torch.testing.assert_close(out.keypoints, at2 + step2)
    (halfway,) = out.halfway
    torch.testing.assert_close(halfway, at2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([1, 2, 3, 5]))
def test_gathered_cells_equal_grid_sampling(seed: int, batch: int, side: int) -> None:
    """Inside, on the border and outside of the map."""
    torch.manual_seed(seed)
    features = torch.randn(batch, 4, 8, 8)
    points = torch.rand(batch, 6, 2) * 1.6 - 0.3
    reach = torch.arange(side) - side // 2
    down, right = torch.meshgrid(reach, reach, indexing="ij")
    where = points.unsqueeze(2) + torch.stack([right, down], -1).view(1, 1, -1, 2) / 8
    expected = F.grid_sample(features, 2 * where - 1, align_corners=False, padding_mode="border")
    seen = gather_cells(features, points, side).flatten(2, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_a_reading_is_exported_as_it_is(seed: int, batch: int) -> None:
    torch.manual_seed(seed)
    reading = Reading(8, 4 / SIZE, N, 16, 4)
    torch.nn.init.normal_(reading.step.weight, std=0.1)
    local, context = torch.randn(batch, 8, SIZE // 4, SIZE // 4), torch.randn(batch, 16)
    at = torch.rand(batch, N, 2) * 1.4 - 0.2
    with torch.no_grad():
        for seen, expected in zip(
            reading.settled()(local, context, at), reading(local, context, at), strict=True
        ):
            torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-3)


def test_gradients_reach_every_parameter() -> None:
    for correct, bank in ((True, True), (False, True), (False, False)):
        net = lively(StageNet(config(correct, bank), templates())).train()
        out = net(images(4))
        loss = sum(value.square().mean() for value in out if isinstance(value, torch.Tensor))
        loss.backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), f"no gradient reaches {name}"


def test_where_to_look_is_no_path_for_gradients() -> None:
    reading = plain_reading(0)
    at = torch.full((1, N, 2), 0.4, requires_grad=True)
    local = torch.rand(1, 8, 8, 8, requires_grad=True)
    reading(local, torch.rand(1, 64), at)[0].sum().backward()
    assert local.grad is not None
    assert local.grad.any()
    assert at.grad is None


@pytest.mark.parametrize("size", [0, 16, 40, 100, -32])
def test_refuses_sizes_that_halve_unevenly(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 16 from 32 up, got {size}"):
        config(size=size)


@pytest.mark.parametrize("width", [0, 4, 12, -8])
def test_refuses_widths(width: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 8 from 8 up, got {width}"):
        NetworkConfig(64, width, False, NAMES)


@pytest.mark.parametrize("change", [{"size": 16 * 10**6}, {"readings": 10**9}, {"hidden": 10**9}])
def test_refuses_what_no_memory_holds(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected no size or width above 4096, and up to 16 readings"):
        NetworkConfig(**{"size": 64, "width": 8, "correct": False, "attributes": NAMES, **change})


def test_normalise_keeps_the_colour_order() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    found = normalise(torch.from_numpy(image)).numpy()
    assert found.shape == (2, 3, 5, 7)
    assert found.dtype == np.float32
    assert found[1, 2, 4, 6] == (float(image[1, 4, 6, 2]) - 127.5) / 64  # red is channel 2: BGR
    np.testing.assert_array_equal(found, (image.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 64)


def test_the_exported_form_takes_pixels_and_gives_probabilities() -> None:
    net = lively(StageNet(config(correct=True), templates()))
    image = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    with torch.no_grad():
        raw = net(torch.from_numpy((image.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 64))
        out = dict(zip(ExportNet.OUTPUTS, ExportNet(net)(torch.from_numpy(image)), strict=True))
        turned = ExportNet(net)(torch.from_numpy(image[..., ::-1].copy()))[0]
    assert not torch.allclose(turned, out["keypoints"])  # BGR is not RGB
    sigmoid = {"score": "score_logit", "visibility": "visibility_logits", "attributes": "attribute_logits"}
    for name, logit in sigmoid.items():
        expected = 1 / (1 + np.exp(-getattr(raw, logit).numpy().astype(np.float64)))
        np.testing.assert_allclose(out[name], expected, atol=1e-6)
    power = np.exp(raw.mixture_logits.numpy().astype(np.float64))
    np.testing.assert_allclose(out["mixture"], power / power.sum(1, keepdims=True), atol=1e-6)
    for name in ("keypoints", "prior_keypoints"):
        np.testing.assert_allclose(out[name], getattr(raw, name), atol=1e-6)


def test_autocast_leaves_the_mixing_in_float32() -> None:
    """bfloat16 holds 8 bits: keypoints would fall on a grid of 1/256 of the crop."""
    net = StageNet(
        NetworkConfig(32, 8, False, ("occlusion",)), np.random.default_rng(0).random((8, 5, 2), np.float32)
    )
    mixture = torch.softmax(torch.randn(3, 8), 1)
    expected = mixture @ net.bank
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net.mix(mixture)
        prior = net.eval()(torch.randn(3, 3, 32, 32)).prior_keypoints
    assert mixed.dtype == prior.dtype == torch.float32
    assert torch.equal(mixed, expected)
