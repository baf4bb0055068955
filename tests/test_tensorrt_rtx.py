"""TensorRT-RTX compiles every shipped graph, without a GPU, for a GPU that is not there."""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path

import pytest

if not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)):
    pytest.skip("TensorRT-RTX has wheels for Linux x86-64 up to Python 3.12 only", allow_module_level=True)

pytest.importorskip("tensorrt_rtx_bindings")

from edge_kp.backends.cuda import Gpu
from edge_kp.backends.engines import build
from edge_kp.backends.sidecar import EngineInfo, sidecar
from edge_kp.backends.tensorrt import load_tensorrt
from edge_kp.errors import BackendError
from edge_kp.modeldir import SHIPPED, read_model, shipped_models
from edge_kp.templates import TemplateBank

MODELS = shipped_models()
SPECS = {model: read_model(SHIPPED / model) for model in MODELS}
GRAPHS = {
    model: sorted(name.removesuffix(".onnx") for name in spec.files if name.endswith(".onnx"))
    for model, spec in SPECS.items()
}
FOR_TENSORRT = [f"{m}/{name}" for m in MODELS for name in GRAPHS[m] if not name.endswith("int8-cpu")]
TYPES = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}
Layers = list[str]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[EngineInfo, Layers]]:
    """Every graph for TensorRT: its sidecar, and its layers for one image as the builder lists them."""
    trt, folder = load_tensorrt(), tmp_path_factory.mktemp("engines")
    found = {}
    for name in FOR_TENSORRT:
        engine = folder / f"{name.replace('/', '-')}.engine"
        precision = name.rpartition(".")[2]
        build(trt, SHIPPED / f"{name}.onnx", engine, precision, Gpu(None, "8.6"), (1,), progress=False)
        layers = json.loads(Path(f"{engine}.layers.json").read_text())["layers"]
        found[name] = (EngineInfo.read(engine), layers)
        assert sidecar(engine).exists()
        assert engine.stat().st_size > 500_000
    return found


def convolutions(layers: Layers) -> list[str]:
    """Type of the image that each convolution takes."""
    found = []
    for layer in layers:
        if "LayerType: correlation" in layer:
            match = re.search(r"Inputs: \[ \{.*?Datatype: (\w+)", layer)
            assert match, layer
            found.append(match.group(1))
    return found


@pytest.mark.parametrize("model", MODELS)
def test_every_network_is_shipped_in_every_precision(model: str) -> None:
    for network in ("locator", "stage1", "stage2"):
        for precision in ("fp32", "fp16", "int8", "int8-cpu"):
            assert f"{network}.{precision}" in GRAPHS[model]
    assert {"cascade.fp16", "cascade.int8"} <= set(GRAPHS[model])


@pytest.mark.parametrize("name", FOR_TENSORRT)
def test_it_compiles_in_its_precision(compiled: dict[str, tuple[EngineInfo, Layers]], name: str) -> None:
    """Few kernels are the point: on a GPU it is they, not the arithmetic, that take the time."""
    info, layers = compiled[name]
    network, precision = name.partition("/")[2].split(".")
    kinds = convolutions(layers)
    most = {"locator": 30, "stage1": 77, "stage2": 77, "cascade": 160}[network]
    least = {"locator": 20, "stage1": 35, "stage2": 35, "cascade": 70}[network]
    assert len(kinds) >= least
    if precision == "int8":
        # Those on features read at the keypoints stay in 16 bits. Here each 8-bit one is two kernels: the
        # sums in one; scale, bias, ReLU and the next rounding to 8 bits, pairs and all, in the other.
        assert kinds.count("Int8") >= 0.7 * len(kinds)
        assert set(kinds) <= {"Int8", "Half"}
        assert info.layers["1"] <= most + kinds.count("Int8")
    else:
        assert set(kinds) == {TYPES[precision]}
        assert info.layers["1"] <= most
    left = [layer for layer in layers if re.search(r"(?i)LayerType: \w*quanti|Name: \w*_(Des|S)cale_", layer)]
    assert not left, "Q/DQ pairs that were not fused"


@pytest.mark.parametrize("name", [n for n in FOR_TENSORRT if "/locator" not in n])
def test_the_templates_are_mixed_inside_the_engine(
    compiled: dict[str, tuple[EngineInfo, Layers]], name: str
) -> None:
    """One layer holds the bank as a constant, in 32 bits whatever the precision."""
    bank = TemplateBank.load(SHIPPED / name.partition("/")[0] / "templates.npz").templates
    size = rf"Dimensions: \[(?:1,)?{len(bank)},{bank[0].size}\]"
    holders = [
        constants
        for layer in compiled[name][1]
        if re.search(size, constants := layer.partition("Constants: [")[2].partition("Outputs:")[0])
    ]
    assert len(holders) == (2 if "/cascade" in name else 1)
    for constants in holders:
        match = re.search(size + r".*?Datatype: (\w+)", constants)
        assert match
        assert match.group(1) == "Float"


def test_files_for_cpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"quantised for CPUs.*build from stage2\.int8\.onnx"):
        build(
            load_tensorrt(),
            SHIPPED / "face68" / "stage2.int8-cpu.onnx",
            tmp_path / "x.engine",
            "int8",
            Gpu(None, "8.6"),
            (1,),
            progress=False,
        )
    assert not any(tmp_path.iterdir())
