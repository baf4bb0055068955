"""The trunk of MediaPipe's face mesh: its maps are the original's, and training ends with plain ReLUs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edge_kp.errors import BackendError
from edge_kp.training import facemesh
from edge_kp.training.facemesh import Bent, FaceMeshTrunk, straighten
from edge_kp.training.network import ExportNet, NetworkConfig, StageNet, normalise
from edge_kp.training.onnx_graph import export_network, settled

MISSING = [name for name in ("mediapipe", "tflite") if importlib.util.find_spec(name) is None]
weights = pytest.mark.skipif(bool(MISSING), reason=f"MediaPipe's weights need {' and '.join(MISSING)}")


def pattern(size: int) -> torch.Tensor:
    """(1, size, size, 3) uint8 BGR with edges everywhere."""
    y, x, c = np.mgrid[0:size, 0:size, 0:3]
    rgb = ((7 * x + 13 * y + 101 * c + x * y // 16) % 256).astype(np.uint8)
    return torch.from_numpy(rgb[None, :, :, ::-1].copy())


def stage(size: int = 64, correct: bool = False) -> StageNet:
    templates = torch.rand(8, 6, 2, generator=torch.Generator().manual_seed(0)).numpy()
    torch.manual_seed(0)
    return StageNet(NetworkConfig(size, 16, correct, ("occlusion",), trunk="facemesh"), templates)


@weights
def test_maps_are_those_of_the_original() -> None:
    """Numbers: face_landmark.tflite of MediaPipe 0.10.14 in tflite-runtime 2.14 for the same picture."""
    net = FaceMeshTrunk().eval()
    net.load_pretrained()
    with torch.no_grad():
        maps = net(normalise(pattern(192)))
    assert [m.shape[1:] for m in maps] == [(32, 48, 48), (64, 24, 24), (128, 12, 12), (128, 6, 6)]
    rows = (
        (17, 30, 5, 2.2338812, -0.28973332, 0.87308013, 1.2347108),
        (11, 3, 40, 0.08790598, 0.022559658, 0.52058494, 1.1537904),
        (6, 9, 77, 0.3889114, 0.65594214, 0.523256, 0.7792026),
        (2, 4, 100, 0.26441914, 0.26226363, 1.4673644, 1.5608877),
    )
    for features, (y, x, c, value, following, mean, spread) in zip(maps, rows, strict=True):
        got = [features[0, c, y, x], features[0, c + 1, y, x], features.mean(), features.std(correction=0)]
        assert [float(v) for v in got] == pytest.approx([value, following, mean, spread], abs=2e-5)


def test_shares_fade_and_what_is_exported_knows_only_relus() -> None:
    bent = Bent(2)
    bent.share.data = torch.tensor([0.5, -0.2])
    x = torch.tensor([-2.0, 3.0]).view(2, 1, 1, 1).expand(2, 2, 1, 1)
    np.testing.assert_allclose(bent(x)[:, :, 0, 0].detach(), [[-1.0, 0.4], [3.0, 3.0]], rtol=1e-6)
    kept = bent.settled()
    assert torch.equal(kept(x), bent(x))
    straighten(bent, 0.15)
    assert bent(x)[0, :, 0, 0].tolist() == pytest.approx([-0.5, 0.2])
    straighten(bent, 0.9)
    assert isinstance(bent.settled(), torch.nn.ReLU)
    assert torch.equal(bent.settled()(x), bent(x))


@weights
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_a_stage_is_exported_as_it_is(tmp_path: Path, progress: float) -> None:
    net = stage(correct=True).eval()
    net.pretrained.load_pretrained()  # type: ignore[union-attr]
    straighten(net, progress)
    net = settled(net)
    path = tmp_path / "stage.onnx"
    export_network(ExportNet(net), path, {})
    image = pattern(64)
    with torch.no_grad():
        wanted = ExportNet(net)(image)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for got, want in zip(session.run(None, {"image": image.numpy()}), wanted, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=2e-4)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert ("PRelu" in kinds) == (progress == 0.0)
    # Only the channels that a shortcut lacks are padded: at the border of a map the convolution does it.
    assert kinds.count("Pad") == 3


def test_a_stage_learns_in_all_its_layers() -> None:
    net = stage()
    out = net(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    heads = out.keypoints, out.score_logit, out.visibility_logits, out.attribute_logits
    sum(head.square().sum() for head in heads).backward()  # type: ignore[union-attr]
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert out.features.shape == (2, 16, 16, 16)


def test_a_side_that_is_odd_on_the_way_is_rounded_up() -> None:
    net = stage(80).eval()
    maps = net.pretrained(torch.zeros(1, 3, 80, 80))  # type: ignore[misc]
    assert [m.shape[2:] for m in maps] == [(20, 20), (10, 10), (5, 5), (3, 3)]
    assert net(torch.zeros(1, 3, 80, 80)).keypoints.shape == (1, 6, 2)


@pytest.mark.parametrize("package", [pytest.param("tflite", marks=weights), "mediapipe"])
def test_without_a_package_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "mediapipe":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BackendError,
        match=rf"^{package} is missing: .*facemesh.* and pip install --no-deps mediapipe==0\.10\.14",
    ):
        FaceMeshTrunk().load_pretrained()


@weights
def test_another_network_in_its_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facemesh, "_FILE", "modules/iris_landmark/iris_landmark.tflite")
    with pytest.raises(BackendError, match=r"iris_landmark\.tflite: not the face mesh that is known here"):
        FaceMeshTrunk().load_pretrained()
