"""Which backend, which files and which cascade a detector runs."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import edge_kp.backends as backends
from edge_kp import Detector
from edge_kp.backends import BACKENDS, choose_backend, choose_precision, cuda, open_backend
from edge_kp.errors import BackendError
from edge_kp.extras import installed

FILES = [f"stage1.{p}.onnx" for p in ("fp32", "fp16", "int8", "int8-cpu")] + ["model.json"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with these packages, processor and GPU."""

    def make(packages: set[str], processor: str = "x86_64", gpu: bool = False) -> None:
        monkeypatch.setattr(backends, "installed", packages.__contains__)
        monkeypatch.setattr(platform, "machine", lambda: processor)
        monkeypatch.setattr(backends, "_gpu_is_usable", lambda: gpu)

    return make


def test_auto_takes_the_fastest_that_is_there(machine: Any) -> None:
    machine(set())
    assert choose_backend("auto") == "onnxruntime"
    machine({"openvino"})
    assert choose_backend("auto") == "openvino"
    machine({"openvino"}, "AMD64")
    assert choose_backend("auto") == "openvino"
    machine({"openvino"}, "aarch64")
    assert choose_backend("auto") == "onnxruntime"
    machine({"openvino"}, gpu=True)
    assert choose_backend("auto") == "tensorrt"


@pytest.mark.parametrize("driver", [True, False])
def test_a_gpu_that_cannot_be_reached_is_told_where_there_is_a_driver(
    driver: bool, machine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where TensorRT came with JetPack, and cuda-python was forgotten."""
    usable = backends._gpu_is_usable
    machine({"tensorrt"}, "aarch64")
    monkeypatch.setattr(backends, "_gpu_is_usable", usable)
    monkeypatch.setattr(cuda, "has_driver", lambda: driver)
    monkeypatch.setattr(cuda, "_cuda_python", lambda: None)
    monkeypatch.setattr(cuda, "_pycuda", lambda: None)
    assert choose_backend("auto") == "onnxruntime"
    told = [record.getMessage() for record in caplog.records]
    expected = f"the networks run on the CPU, not on the GPU: {cuda.NO_LIBRARY}"
    assert told == ([expected] if driver else [])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("class NetworkDefinitionCreationFlag: EXPLICIT_BATCH = 0\n__version__ = '8.6'", "8.6 is too old"),
        ("import libnvinfer_of_another_version", "cannot be loaded"),
        (
            "raise ImportError('libnvdla_compiler.so: cannot open shared object file')",
            "sudo apt install nvidia-l4t-dla-compiler",
        ),
    ],
)
def test_a_tensorrt_that_cannot_be_used_is_named_and_passed_over(
    content: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tiny_model: Path,
) -> None:
    (tmp_path / "tensorrt.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(cuda, "has_driver", lambda: True)
    monkeypatch.setattr(cuda, "find_gpu", lambda: cuda.Gpu("Orin", "8.7"))
    try:
        with Detector(tiny_model) as detector:
            assert detector.device == "CPU"
        assert [told in record.getMessage() for record in caplog.records] == [True]
        with pytest.raises(BackendError, match=told):
            Detector(tiny_model, backend="tensorrt")
    finally:
        sys.modules.pop("tensorrt", None)


def test_an_openvino_that_is_too_old_is_named_and_passed_over(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine({"openvino"})
    described = tmp_path / "openvino-2024.6.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 2024.6.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert choose_backend("auto") == "onnxruntime"
    told = "OpenVINO 2024.6.0 is too old; pip install 'openvino>=2025.0'"
    assert [record.getMessage() for record in caplog.records] == [f"the networks run in ONNX Runtime: {told}"]
    with pytest.raises(BackendError, match=re.escape(told)):
        open_backend("openvino", tmp_path / "stage1.fp32.onnx", "fp32", 1)
    (described / "METADATA").unlink()  # as an uninstall that was cut short leaves it
    assert choose_backend("auto") == "openvino"
    for version, new in (("2025.0.0", True), ("2026.4.1", True), ("2024.10", False), ("unknown", True)):
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: openvino\nVersion: {version}\n")
        assert choose_backend("auto") == ("openvino" if new else "onnxruntime"), version


def test_a_folder_called_like_a_package_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models_of_openvino").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("models_of_openvino") is not None, "Python would import it"
    assert not installed("models_of_openvino")
    assert not installed("nothing_of_this_name")
    assert installed("numpy")


def test_a_named_backend_is_taken_whatever_is_there(machine: Any) -> None:
    machine({"openvino"}, gpu=True)
    for name in set(BACKENDS) - {"auto"}:
        assert choose_backend(name) == name
    with pytest.raises(BackendError, match="backend 'abacus': expected one of auto, onnxruntime"):
        choose_backend("abacus")


@pytest.mark.parametrize(
    ("backend", "wanted", "file"),
    [
        ("onnxruntime", "auto", "int8-cpu"),
        ("openvino", "auto", "int8-cpu"),
        ("tensorrt", "auto", "fp16"),
        ("onnxruntime", "int8", "int8-cpu"),
        ("openvino", "int8", "int8-cpu"),
        ("tensorrt", "int8", "int8"),
        ("onnxruntime", "fp16", "fp16"),
        ("tensorrt", "fp32", "fp32"),
    ],
)
def test_nobody_loads_the_wrong_int8_file(backend: str, wanted: str, file: str) -> None:
    assert choose_precision(backend, wanted, FILES) == file


def test_auto_is_what_the_model_says() -> None:
    told = {"onnxruntime": "fp32"}
    assert choose_precision("onnxruntime", "auto", FILES, told) == "fp32"
    assert choose_precision("openvino", "auto", FILES, told) == "int8-cpu"
    assert choose_precision("onnxruntime", "int8", FILES, told) == "int8-cpu"  # what is asked for comes first
    assert (
        choose_precision("onnxruntime", "auto", ["stage1.fp32.onnx"], {"onnxruntime": "int8-cpu"}) == "fp32"
    )


def test_a_model_in_float_alone_runs_in_float() -> None:
    for backend in ("onnxruntime", "openvino", "tensorrt"):
        assert choose_precision(backend, "auto", ["stage1.fp32.onnx"]) == "fp32"
    with pytest.raises(
        BackendError,
        match=r"no int8-cpu files for openvino, only fp32; make them with .*edge_kp\.calibrate",
    ):
        choose_precision("openvino", "int8", ["stage1.fp32.onnx", "stage2.int8-cpu.onnx"])
    with pytest.raises(BackendError, match="precision 'int3': expected one of auto, fp32"):
        choose_precision("openvino", "int3", FILES)


def test_a_detector_says_what_it_runs(tiny_model: Path) -> None:
    with Detector(tiny_model, backend="onnxruntime", cascade="fused") as detector:
        assert (detector.backend_name, detector.device, detector.precision) == ("onnxruntime", "CPU", "fp32")
        assert detector.fused
    with Detector(tiny_model, backend="openvino") as detector:
        assert detector.backend_name == "openvino"
        assert not detector.fused  # on a CPU the crop is cut on the host
    with pytest.raises(BackendError, match="cascade 'welded': expected one of auto, fused, staged"):
        Detector(tiny_model, cascade="welded")


def test_a_model_without_the_one_graph_is_run_staged(tiny_model: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    about = json.loads((folder / "model.json").read_text())
    del about["files"]["cascade.fp32.onnx"], about["cascade"]
    (folder / "model.json").write_text(json.dumps(about))
    with Detector(folder) as detector:
        assert not detector.fused
        assert detector.spec.cascade_size == 0
    with pytest.raises(BackendError, match="no one-graph cascade in fp32; export it again, or use staged"):
        Detector(folder, cascade="fused")


def test_where_the_one_graph_is_in_other_precisions_they_are_named() -> None:
    said = r"no one-graph cascade in fp32; give --precision fp16, or use staged"  # int8 is TensorRT's alone
    with pytest.raises(BackendError, match=said):
        Detector("face68", backend="onnxruntime", cascade="fused")
    with Detector("face68", backend="onnxruntime", cascade="fused", precision="fp16") as detector:
        assert (detector.fused, detector.precision) == (True, "fp16")
