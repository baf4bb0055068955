"""TensorRT-RTX compiles the shipped graphs, without a GPU, for a GPU that is not there."""

import platform
import sys

import pytest

from edge_kp.modeldir import SHIPPED, read_model

if not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)):
    pytest.skip("TensorRT-RTX has wheels for Linux x86-64 up to Python 3.12 only", allow_module_level=True)

import tensorrt_rtx_bindings as trt

FOLDER = SHIPPED / "face68"


@pytest.fixture(scope="module")
def builder():
    return trt.Builder(trt.Logger(trt.Logger.ERROR))


@pytest.mark.parametrize("name", ["stage1", "stage2", "locator"])
def test_compiles(builder, name):
    spec = read_model(FOLDER)
    size = {"stage1": spec.sizes[0], "stage2": spec.sizes[1], "locator": spec.locator_size}[name]
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    parsed = parser.parse_from_file(str(FOLDER / f"{name}.fp32.onnx"))
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, size, size, 3), (1, size, size, 3), (8, size, size, 3))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 1_000_000
