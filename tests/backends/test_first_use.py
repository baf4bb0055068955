"""What was built on a device is held against PyTorch's results before it is used there for the first time."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeDevice, FakeTensorRT

import edge_kp
from edge_kp import Detector
from edge_kp.backends import cuda, tensorrt
from edge_kp.backends.base import Backend
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.sidecar import EngineInfo
from edge_kp.errors import BackendError
from edge_kp.modeldir import read_model
from edge_kp.parity import hold_once, load_references
from edge_kp.types import Array


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    """The fake TensorRT and GPU as those of this machine, with an empty cache of engines."""
    fake = FakeTensorRT([])
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def open_device() -> FakeDevice:
        fake.device = FakeDevice(gpu=Gpu("Orin", "8.7"), log=fake.log)
        return fake.device

    monkeypatch.setattr(cuda, "open_device", open_device)
    monkeypatch.setattr(tensorrt, "open_device", open_device)
    return fake


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that were compared."""
    seen: list[str] = []
    from edge_kp import parity

    hold = parity.hold

    def note(network: str, *more: Any) -> Any:
        seen.append(network)
        return hold(network, *more)

    monkeypatch.setattr(parity, "hold", note)
    return seen


def infos(folder: Path) -> list[EngineInfo]:
    return [EngineInfo.read(path) for path in sorted((folder / "cache").rglob("*.engine"))]


def opened(model: Path) -> Detector:
    return Detector(model, backend="tensorrt", precision="fp32")


def test_engines_are_compared_once(
    trt: FakeTensorRT, model: Path, tmp_path: Path, compared: list[str], caplog: Any
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    for _ in range(2):
        with opened(model) as detector:
            detector.detect(image)
        assert sorted(compared) == ["cascade", "locator", "stage2"]
    assert [info.verified for info in infos(tmp_path)] == [True] * 3
    assert caplog.records == []


@pytest.mark.parametrize("batch", [1, 4])
def test_wrong_kernels_are_refused_each_time(
    trt: FakeTensorRT, model: Path, tmp_path: Path, batch: int
) -> None:
    """As of compilers that get an operator wrong, without an error: TensorRT 10.14 did so with GridSample."""
    trt.off[batch] = 0.05
    for _ in range(2):
        with pytest.raises(
            BackendError, match=r"^cascade in fp32 gives wrong results in tensorrt on this Orin \(.*keypoints"
        ) as error:
            opened(model)
        assert "\n" not in str(error.value)
        assert "--backend onnxruntime" in str(error.value)
    assert not any(info.verified for info in infos(tmp_path))
    assert trt.log.count("device opened") == trt.log.count("device closed")


def test_a_little_beyond_tolerance_is_told_each_time(
    trt: FakeTensorRT, model: Path, tmp_path: Path, caplog: Any
) -> None:
    trt.off[4] = 4e-5  # twice what is allowed of coordinates
    for count in (1, 2):
        opened(model).close()
        told = [r.getMessage() for r in caplog.records if "beyond tolerance" in r.getMessage()]
        assert len(told) == 2 * count  # the locator is sure of nothing in its picture
    assert told[0] == "cascade in tensorrt is beyond tolerance; run --check tells by how much"


def test_without_stored_results_it_is_used_and_said(
    trt: FakeTensorRT, model: Path, compared: list[str], caplog: Any
) -> None:
    (model / "references.npz").unlink()
    opened(model).close()
    assert compared == []
    assert sum("is used without a comparison" in r.getMessage() for r in caplog.records) == 3


def test_an_engine_that_cannot_be_marked_is_compared_again(
    trt: FakeTensorRT, model: Path, compared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: EngineInfo, path: Path) -> None:
        raise OSError("read-only")

    opened(model).close()
    assert len(compared) == 3
    opened(model).close()
    assert len(compared) == 3
    for path in (model.parent / "cache").rglob("*.engine.json"):
        path.write_text(path.read_text().replace('"verified": true', '"verified": false'))
    monkeypatch.setattr(EngineInfo, "write", full)
    for count in (6, 9):
        opened(model).close()
        assert len(compared) == count


@pytest.mark.parametrize(("precision", "kept"), [("fp16", 0.0), ("int8", 0.0), ("int8", 0.9)])
def test_a_locator_that_overlooks_the_object_is_refused(precision: str, kept: float) -> None:
    """In the mean over its places, most of them empty, that hardly shows."""
    folder = Path(edge_kp.__file__).parent / "models" / "face68"
    spec = read_model(folder)
    outputs = load_references(folder, spec)["locator"].outputs

    class Blind(Backend):
        name, device, verified = "blind", "GPU", False

        def run(self, image: Array) -> dict[str, Array]:
            return {name: value * (kept if name == "score" else 1) for name, value in outputs.items()}

    blind = Blind()
    blind.precision = precision
    if kept:
        hold_once("locator", blind, folder, spec)
        assert blind.verified
        return
    with pytest.raises(BackendError, match=r"^locator in .* gives wrong results in blind .* \(score\)"):
        hold_once("locator", blind, folder, spec)


def test_a_processor_needs_no_comparison(tiny_model: Path, compared: list[str]) -> None:
    Detector(tiny_model, backend="onnxruntime").close()
    assert compared == []
