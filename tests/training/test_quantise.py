"""Files of fewer bits: near FP32 on real crops, coordinates as exact as before, and what TensorRT takes."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxscript import ir

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.detector import Detector
from edge_kp.errors import ModelError
from edge_kp.geometry import square_crop
from edge_kp.locator import fit_square
from edge_kp.modeldir import SHIPPED
from edge_kp.training.quantise import TYPED, fp32_files, layer_names, to_fp16, to_int8, write_precisions
from edge_kp.training.ranges import METHODS, STYLES, Ranges, graph_digest, measure_ranges, read_ranges
from edge_kp.training.trunk import half_nodes, layer_name, trunk_layers, trunk_nodes
from edge_kp.types import Array

NETWORKS = ("locator", "stage1", "stage2")
# What keypoints, scores and places to read at are made with.
EXACT = (
    "MatMul",
    "Softmax",
    "Sigmoid",
    "Tanh",
    "Exp",
    "Sin",
    "Cos",
    "Floor",
    "Clip",
    "GridSample",
    "ReduceSum",
)
TRUNK = [
    "stem.0.0",
    *(f"{part}.{layer}.0" for part in ("quarter",) for layer in ("0", "2.first", "2.second")),
    *(
        f"{part}.{layer}.0"
        for part in ("eighth", "sixteenth")
        for layer in ("0", "2.first", "2.second", "3.first", "3.second")
    ),
    *(f"top.{layer}.0" for layer in ("0", "2.first", "2.second")),
    "pool.0.0",
    "context",
    "lateral_sixteenth.0",
    "lateral_eighth.0",
    "local.0.0",
]
# What makes the features of the search, not the maps of them; and the second half of a separable fusion.
STAGE2 = ["search.maps.0.0", "local.0.2"]
STAGE1 = [*(f"correction.features.{i}.0" for i in (1, 3, 5, 7)), "correction.hidden"]


@pytest.fixture(scope="module")
def crops(tiny_run: Path) -> dict[str, Array]:
    with np.load(tiny_run / "check_crops.npz") as first, np.load(tiny_run / "check_frames.npz") as second:
        return {**{name: first[name] for name in ("stage1", "stage2")}, "locator": second["locator"]}


@pytest.fixture(scope="module")
def ranges(tiny_model: Path, crops: dict[str, Array]) -> dict[str, Ranges]:
    return {
        name: measure_ranges(path, crops[name], "minmax") for name, path in fp32_files(tiny_model).items()
    }


@pytest.fixture(scope="module")
def plan_file(tiny_model: Path, ranges: dict[str, Ranges], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranges file of the tiny model that keeps one layer."""
    networks = {
        name: {
            "graph_sha256": graph_digest(path),
            "styles": {style: {"method": "minmax", "kept": []} for style in STYLES},
            "ranges": {"minmax": ranges[name]},
        }
        for name, path in fp32_files(tiny_model).items()
    }
    networks["stage2"]["styles"]["int8"]["kept"] = ["stage.stem.0.0"]
    path = tmp_path_factory.mktemp("ranges") / "ranges.json"
    path.write_text(json.dumps({"format": 1, "networks": networks}))
    return path


@pytest.fixture(scope="module")
def typed(tiny_model: Path, plan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all typed files of the tiny model."""
    out = tmp_path_factory.mktemp("typed")
    paths = write_precisions(tiny_model, plan_file, out=out)
    assert {p.name for p in out.iterdir()} == {p.name for p in paths}
    assert {p.name for p in paths} == {f"{n}.{p}.onnx" for n in NETWORKS for p in TYPED}
    return out


class Graph:
    """A file's nodes, who makes and who takes each value, and of what type it is."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
        graph = self.model.graph
        self.nodes = list(graph.node)
        self.constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.maker = {out: node for node in self.nodes for out in node.output}
        self.types = {i.name: i.data_type for i in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type

    def takers(self, value: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if value in node.input]

    def of(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.nodes if node.op_type in kinds)

    def made_by(self, value: str) -> str:
        return self.maker[value].op_type if value in self.maker else ""


# ---- where -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("stage", "own"), [("stage1", STAGE1), ("stage2", STAGE2)])
def test_the_layers_of_the_trunk_are_quantised_and_no_head(
    tiny_model: Path, stage: str, own: list[str], style: str
) -> None:
    names = {f"stage.{name}" for name in (*own, *TRUNK)}
    if style == "int8":
        names -= {"stage.context", "stage.correction.hidden"}
    assert set(layer_names(tiny_model / f"{stage}.fp32.onnx", style)) == names


def test_the_last_layer_of_the_locator_is_not_quantised(tiny_model: Path) -> None:
    names = layer_names(tiny_model / "locator.fp32.onnx", "int8-cpu")
    assert names[0] == "net.stem.0.0"
    assert "net.head.0.0" in names
    assert "net.out" not in names


def test_places_stay_exact_even_without_a_softmax() -> None:
    """A network that regresses its keypoints directly: from the layer on, coordinates are never halved."""
    text = """
    <ir_version: 8, opset_import: ["": 18]>
    g (float[1,2,4,4] x) => (float[1,8] keypoints)
    <float[2,2,1,1] w1, float[8,32] w2, float[8,8] w3, int64[2] flat, float one>
    {
      a = Conv(x, w1)
      r = Relu(a)
      f = Reshape(r, flat)
      place = Gemm <transB = 1> (f, w2)
      down = Floor(place)
      rest = Sub(place, down)
      seen = Gemm <transB = 1> (f, w2)
      blend = Mul(seen, rest)
      moved = Gemm <transB = 1> (blend, w3)
      keypoints = Add(place, moved)
    }
    """
    proto = onnx.parser.parse_model(text)
    for name, shape in {"w1": (2, 2, 1, 1), "w2": (8, 32), "w3": (8, 8), "one": ()}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 32]), "flat"))
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(proto)).graph
    half = {node.outputs[0].name for node in half_nodes(graph)}
    assert half == {"a", "r", "f", "place", "seen", "blend", "moved"}
    assert [layer_name(node) for node in trunk_layers(graph)] == ["w1"]


# ---- accuracy, on the shipped model and the faces of the shipped clip -------------------------------------


@pytest.fixture(scope="module")
def faces(frames: list[Array]) -> dict[str, Array]:
    """Network → uint8 (M, S, S, 3) as it meets them in the clip; every other one is for measuring ranges."""
    with Detector("face68", precision="fp32") as detector:
        spec, cascade, locator = detector.spec, detector.cascade, detector.locator
        found = {"locator": [], "stage1": [], "stage2": []}
        for frame in frames[::12]:
            boxes, least = locator(frame)
            boxes = boxes[least == 0]
            if len(boxes):
                found["locator"].append(fit_square(frame, spec.locator_size)[0])
                found["stage1"].append(square_crop(boxes[0], spec.sizes[0], spec.scale).extract(frame))
                found["stage2"].append(cascade(frame, boxes[:1]).crop(0))
    images = {name: np.stack(pictures) for name, pictures in found.items()}
    assert len(images["stage1"]) >= 16
    return images


# Mean and worst difference from FP32 of coordinates, in sides of the input, and the least that 8 bits cost.
NEAR = {"fp16": (1e-4, 2e-3), "int8": (3e-3, 3e-2), "int8-cpu": (3e-3, 3e-2)}


@pytest.mark.parametrize("precision", TYPED)
@pytest.mark.parametrize("network", NETWORKS)
def test_results_are_near_those_of_fp32(
    faces: dict[str, Array], network: str, precision: str, tmp_path: Path
) -> None:
    source, target = SHIPPED / "face68" / f"{network}.fp32.onnx", tmp_path / "typed.onnx"
    if precision == "fp16":
        to_fp16(source, target)
    else:
        to_int8(source, target, precision, measure_ranges(source, faces[network][::2], "minmax"))
    images = faces[network][1::2]
    expected, seen = (OnnxRuntimeBackend(path).run(images) for path in (source, target))
    one = OnnxRuntimeBackend(target).run(images[:1])
    assert {name: value.dtype for name, value in seen.items()} == dict.fromkeys(expected, np.float32)
    likely = expected["score"] > 0.5 if network == "locator" else np.full(len(images), True)
    places = ("boxes",) if network == "locator" else ("keypoints", "prior_keypoints")
    for place in places:
        difference = np.abs(seen[place] - expected[place])[likely]
        mean, worst = NEAR[precision]
        assert difference.mean() < mean
        assert difference.max() < worst
        assert difference.max() > (0 if precision == "fp16" else 1e-4), "nothing is quantised"
        # More images at a time change the order of additions, at most by a step of 8 bits here and there.
        assert np.abs(one[place] - seen[place][:1])[likely[:1]].max() < worst / 10
    assert np.abs(seen["score"] - expected["score"]).mean() < 1e-2


# ---- float16 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_fp16_halves_the_layers_and_nothing_exact(typed: Path, network: str) -> None:
    graph = Graph(typed / f"{network}.fp16.onnx")
    grouped = 0
    shapes = {tensor.name: tensor.dims for tensor in graph.model.graph.initializer}
    for node in graph.of("Conv", "Gemm"):
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        # ONNX Runtime gets them wrong in 16 bits on ARM.
        own = groups > 1 and shapes[node.input[1]][1] > 1
        grouped += own
        wanted = TensorProto.FLOAT if own else TensorProto.FLOAT16
        assert {graph.types[name] for name in (*node.input, *node.output)} == {wanted}, node.name
    assert (grouped > 0) == (network != "locator")
    for node in graph.of(*EXACT):
        assert TensorProto.FLOAT16 not in {graph.types[n] for n in (*node.input, *node.output) if n}, (
            node.name
        )
    assert [graph.types[i.name] for i in graph.model.graph.input] == [TensorProto.UINT8]
    assert {graph.types[o.name] for o in graph.model.graph.output} == {TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("network", NETWORKS)
def test_casts_are_few(tiny_model: Path, typed: Path, network: str, precision: str) -> None:
    graph = Graph(typed / f"{network}.{precision}.onnx")
    sources = [node.input[0] for node in graph.of("Cast")]
    assert len(sources) == len(set(sources)), "one value is cast twice"
    assert not [source for source in sources if graph.made_by(source) == "Cast"]
    before = sum(1 for _ in Graph(tiny_model / f"{network}.fp32.onnx").of("Cast"))
    assert len(sources) - before <= {"locator": 2, "stage1": 13, "stage2": 21}[network]


# ---- 8 bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("network", NETWORKS)
def test_8_bits_stay_inside_the_trunk(typed: Path, network: str, style: str) -> None:
    graph = Graph(typed / f"{network}.{style}.onnx")
    for node in graph.of(*EXACT):
        assert "DequantizeLinear" not in {graph.made_by(name) for name in node.input}, node.name
        users = {user.op_type for name in node.output for user in graph.takers(name)}
        # What GridSample makes is an image again, and the first layer may read it in 8 bits.
        assert "QuantizeLinear" not in users or node.op_type == "GridSample", node.name
    for node in graph.of("Conv"):
        if len(graph_weights(graph, node).shape) == 3:
            assert "DequantizeLinear" not in {graph.made_by(name) for name in node.input}, node.name


def graph_weights(graph: Graph, node: onnx.NodeProto) -> Array:
    """A layer's weights, in numbers or in 8 bits."""
    name = node.input[1]
    while name not in graph.constants:
        name = graph.maker[name].input[0]
    return graph.constants[name]


def quantised_layers(graph: Graph) -> list[onnx.NodeProto]:
    return [n for n in graph.of("Conv", "Gemm") if graph.made_by(n.input[1]) == "DequantizeLinear"]


@pytest.mark.parametrize("network", NETWORKS)
def test_int8_is_as_tensorrt_wants_it(tiny_model: Path, typed: Path, network: str) -> None:
    graph = Graph(typed / f"{network}.int8.onnx")
    pairs = list(graph.of("QuantizeLinear", "DequantizeLinear"))
    assert pairs
    for node in pairs:
        zero = graph.constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (graph.constants[node.input[1]] > 0).all()
    layers = quantised_layers(graph)
    kept = 1 if network == "stage2" else 0
    assert len(layers) == len(layer_names(tiny_model / f"{network}.fp32.onnx", "int8")) - kept
    for node in layers:
        assert node.op_type == "Conv"
        assert graph.made_by(node.input[0]) == "DequantizeLinear"
        scale = graph.constants[graph.maker[node.input[1]].input[1]]
        assert scale.shape == (graph_weights(graph, node).shape[0],), "one scale for each channel"
        assert graph.made_by(graph.maker[node.input[1]].input[0]) == "QuantizeLinear"
        assert node.input[2] in graph.constants, "the bias is a number"
        for user in graph.takers(node.output[0]):
            assert user.op_type != "QuantizeLinear" or taken_by(graph, user) == {"Conv"}, "before a ReLU"


@pytest.mark.parametrize("network", NETWORKS)
def test_int8_shortcuts_carry_8_bits(typed: Path, network: str) -> None:
    graph = Graph(typed / f"{network}.int8.onnx")
    weights = {node.output[0]: layer(graph, node) for node in graph.of("Conv")}
    seen = 0
    for node in graph.of("Add"):
        if any(weights.get(name, "").endswith("second.0") for name in node.input):
            assert "DequantizeLinear" in {graph.made_by(name) for name in node.input}, node.name
            seen += 1
    assert seen == (5 if network == "locator" else 6)


def taken_by(graph: Graph, quantize: onnx.NodeProto) -> set[str]:
    """Kinds of nodes that take what a Q/DQ pair gives."""
    (dequantize,) = graph.takers(quantize.output[0])
    return {user.op_type for user in graph.takers(dequantize.output[0])}


def layer(graph: Graph, node: onnx.NodeProto) -> str:
    name = node.input[1]
    while name in graph.maker:
        name = graph.maker[name].input[0]
    return name.split(".weight")[0]


@pytest.mark.parametrize("network", NETWORKS)
def test_int8_for_cpus_uses_kernels_of_8_bits_throughout(tiny_model: Path, typed: Path, network: str) -> None:
    graph = Graph(typed / f"{network}.int8-cpu.onnx")
    layers = quantised_layers(graph)
    assert len(layers) == len(layer_names(tiny_model / f"{network}.fp32.onnx", "int8-cpu"))
    for node in layers:
        weights = graph_weights(graph, node)
        assert weights.dtype == np.int8
        # 7 bits: products of u8 and s8 then add up in 16 bits on every CPU.
        assert np.abs(weights.astype(int)).max() <= 64
        assert [user.op_type for user in graph.takers(node.output[0])] == ["QuantizeLinear"]
        assert graph.types[graph.maker[node.input[0]].input[0]] == TensorProto.UINT8
    plain = ir.load(tiny_model / f"{network}.fp32.onnx")
    names = {node.name for node in trunk_nodes(plain.graph)}
    sums = [node for node in graph.of("Add") if node.name in names]
    assert len(sums) == (7 if network == "locator" else 8)
    for node in sums:
        assert {graph.made_by(name) for name in node.input} == {"DequantizeLinear"}, node.name
        assert [user.op_type for user in graph.takers(node.output[0])] == ["QuantizeLinear"], node.name
    # A range that begins at 0 does what a ReLU does; those along the points stay.
    assert len(list(graph.of("Relu"))) == {"locator": 0, "stage1": 4, "stage2": 8}[network]
    assert TensorProto.FLOAT16 not in graph.types.values()


def test_a_kept_layer_stays_in_numbers(typed: Path) -> None:
    names = [
        layer(graph, n) for graph in [Graph(typed / "stage2.int8.onnx")] for n in quantised_layers(graph)
    ]
    assert "stage.stem.0.0" not in names
    assert "stage.quarter.0.0" in names


@pytest.mark.parametrize("style", STYLES)
def test_one_layer_alone(tiny_model: Path, ranges: dict[str, Ranges], tmp_path: Path, style: str) -> None:
    target = tmp_path / "one.onnx"
    to_int8(tiny_model / "stage2.fp32.onnx", target, style, ranges["stage2"], ["stage.top.0.0"])
    graph = Graph(target)
    assert [layer(graph, node) for node in quantised_layers(graph)] == ["stage.top.0.0"]


def test_a_scale_that_float16_cannot_hold_is_raised(
    tiny_model: Path, ranges: dict[str, Ranges], crops: dict[str, Array], tmp_path: Path
) -> None:
    model = onnx.load(tiny_model / "stage2.fp32.onnx")
    weights = next(i for i in model.graph.initializer if i.name == "stage.top.0.0.weight")
    values = numpy_helper.to_array(weights).copy()
    values[0] = 1e-9  # a channel that training has put to sleep
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, tmp_path / "stage2.fp32.onnx")
    to_int8(tmp_path / "stage2.fp32.onnx", tmp_path / "stage2.int8.onnx", "int8", ranges["stage2"])
    seen = OnnxRuntimeBackend(tmp_path / "stage2.int8.onnx").run(crops["stage2"])
    assert all(np.isfinite(value).all() for value in seen.values())
    scales = [v for n, v in Graph(tmp_path / "stage2.int8.onnx").constants.items() if "scale" in n]
    assert min(float(scale.min()) for scale in scales) >= 2.0**-14


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("network", NETWORKS)
def test_tensorrt_compiles_it(typed: Path, network: str, precision: str) -> None:
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)):
        pytest.skip("TensorRT-RTX has wheels for Linux x86-64 up to Python 3.12 only")
    import tensorrt_rtx_bindings as trt

    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network_ = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network_, builder.logger)
    parsed = parser.parse_from_file(str(typed / f"{network}.{precision}.onnx"))
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    size = network_.get_input(0).shape[1]
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, size, size, 3), (1, size, size, 3), (8, size, size, 3))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network_, config) is not None


# ---- ranges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_the_same_every_time(tiny_model: Path, crops: dict[str, Array], method: str) -> None:
    source = tiny_model / "stage2.fp32.onnx"
    first = measure_ranges(source, crops["stage2"], method)
    assert measure_ranges(source, crops["stage2"], method) == first
    assert list(first) == sorted(first)


def test_measuring_writes_nothing_beside_the_network(
    tiny_model: Path, crops: dict[str, Array], tmp_path: Path
) -> None:
    source = Path(shutil.copy(tiny_model / "stage2.fp32.onnx", tmp_path))
    before = tmp_path.stat().st_mtime_ns
    measure_ranges(source, crops["stage2"][:1], "minmax")
    assert tmp_path.stat().st_mtime_ns == before


def test_no_image_is_overlooked(
    tiny_model: Path, crops: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The range over many images, in chunks, is that of the ranges of each."""
    source, images = tiny_model / "stage2.fp32.onnx", crops["stage2"]
    monkeypatch.setattr("edge_kp.training.ranges.CHUNK", 3)
    assert len(images) % 3
    whole = measure_ranges(source, images, "minmax")
    parts = [measure_ranges(source, image[None], "minmax") for image in images]
    for name, (low, high) in whole.items():
        assert low == pytest.approx(min(part[name][0] for part in parts), rel=1e-4, abs=1e-6)
        assert high == pytest.approx(max(part[name][1] for part in parts), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods_stay_within_the_ends(
    tiny_model: Path, crops: dict[str, Array], ranges: dict[str, Ranges], method: str
) -> None:
    found, widest = measure_ranges(tiny_model / "stage2.fp32.onnx", crops["stage2"], method), ranges["stage2"]
    assert found.keys() == widest.keys()
    assert all(found[n][0] >= widest[n][0] - 1e-5 and found[n][1] <= widest[n][1] + 1e-5 for n in found)
    # So few numbers leave the entropy nothing to cut off.
    assert (found != widest) == (method == "percentile")


def network_with(tmp_path: Path, gain: float, offset: float) -> Path:
    """A convolution, and behind it what is no part of the trunk: a sum of nearly the same numbers."""
    text = """
    <ir_version: 8, opset_import: ["": 18]>
    g (uint8[b,4,4,3] image) => (float[b,2,4,4] features, float[b,3] keypoints)
    <float[2,3,1,1] w = {1,1,1,1,1,1}, float gain = {GAIN}, float offset = {OFFSET}, float one = {1}>
    {
      numbers = Cast <to = 1> (image)
      planes = Transpose <perm = [0, 3, 1, 2]> (numbers)
      part = Mul(planes, gain)
      shifted = Sub(part, offset)
      features = Conv(shifted, w)
      tiny = ReduceMean <keepdims = 0> (planes, axes)
      small = Mul(tiny, least)
      keypoints = Add(small, one)
    }
    """
    proto = onnx.parser.parse_model(text.replace("GAIN", str(gain)).replace("OFFSET", str(offset)))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1e-8), "least"))
    onnx.save(proto, tmp_path / "stage1.fp32.onnx")
    return tmp_path / "stage1.fp32.onnx"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_nearly_constant_beside_the_trunk_is_not_measured(tmp_path: Path, method: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
    found = measure_ranges(network_with(tmp_path, 1.0, 0.0), images, method)
    assert "keypoints" not in found
    assert found["features"][1] > 300


def test_a_trunk_that_is_nearly_constant_is_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
    with pytest.raises(ModelError, match=r"stage1\.fp32\.onnx: its features have no ranges .*train longer"):
        measure_ranges(network_with(tmp_path, 1e-9, 1.0), images, "percentile")


def test_stored_ranges_give_the_very_same_files(
    tiny_model: Path, ranges: dict[str, Ranges], plan_file: Path, typed: Path, tmp_path: Path
) -> None:
    for path in write_precisions(tiny_model, plan_file, out=tmp_path):
        assert path.read_bytes() == (typed / path.name).read_bytes(), path.name
    direct = tmp_path / "direct.onnx"
    to_int8(tiny_model / "stage1.fp32.onnx", direct, "int8-cpu", ranges["stage1"])
    assert direct.read_bytes() == (typed / "stage1.int8-cpu.onnx").read_bytes()


@pytest.mark.parametrize("precision", TYPED)
def test_a_typed_file_says_what_it_is(tiny_model: Path, typed: Path, precision: str) -> None:
    for name in NETWORKS:
        before, after = (
            {p.key: p.value for p in onnx.load(path).metadata_props}
            for path in (tiny_model / f"{name}.fp32.onnx", typed / f"{name}.{precision}.onnx")
        )
        assert after.pop("edge_kp.precision") == precision
        before.pop("edge_kp.precision", None)
        assert before["edge_kp.network"] == name
        assert after == before


def test_fp16_needs_no_ranges(tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    paths = write_precisions(copy, None, ["fp16"])
    assert paths == [copy / f"{name}.fp16.onnx" for name in NETWORKS]
    again = tmp_path / "again.onnx"
    to_fp16(copy / "stage1.fp32.onnx", again)
    assert again.read_bytes() == paths[1].read_bytes()


# ---- refusals --------------------------------------------------------------------------------------------


def test_8_bits_need_ranges(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"need measured ranges; run .*edge_kp\.calibrate"):
        write_precisions(tiny_model, None, ["fp16", "int8"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_ranges_of_another_network_are_refused(tiny_model: Path, plan_file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    model = onnx.load(copy / "stage2.fp32.onnx")
    model.metadata_props[0].value = "other words"
    onnx.save(model, copy / "stage2.fp32.onnx")
    write_precisions(copy, plan_file, ["int8"], tmp_path)  # what the metadata says changes no range
    bias = next(i for i in model.graph.initializer if i.name.endswith("bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, copy / "stage2.fp32.onnx")
    with pytest.raises(
        ModelError, match=r"another network than .*stage2\.fp32\.onnx; run .*edge_kp\.calibrate"
    ):
        write_precisions(copy, plan_file, ["int8"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 2}', '{"format": 1, "networks": {"stage1": {}}}'])
def test_damaged_ranges_are_refused(tiny_model: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(damage)
    with pytest.raises(ModelError, match=r"ranges\.json: not usable as ranges .*; run .*edge_kp\.calibrate"):
        write_precisions(tiny_model, path, ["int8"], tmp_path)


@pytest.mark.parametrize(
    "ends", [[float("nan"), 1], [0, float("inf")], [1, -1], ["0", "1"], [1], 10**400, {}]
)
def test_ranges_that_are_none_are_refused(
    tiny_model: Path, plan_file: Path, tmp_path: Path, ends: object
) -> None:
    content = json.loads(plan_file.read_text())
    measured = content["networks"]["stage1"]["ranges"]["minmax"]
    measured[next(iter(measured))] = ends
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"ranges\.json: not usable as ranges"):
        read_ranges(path, fp32_files(tiny_model))
    assert read_ranges(plan_file, fp32_files(tiny_model)).keys() == {"stage1", "stage2", "locator"}


def test_missing_ranges_and_missing_files_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not usable as ranges"):
        write_precisions(tiny_model, tmp_path / "none.json", ["int8"], tmp_path)
    with pytest.raises(ModelError, match=r"no NAME\.fp32\.onnx to make other precisions of"):
        write_precisions(tmp_path, None, ["fp16"])


def test_a_network_that_the_model_does_not_list_is_none_of_it(tiny_model: Path, tmp_path: Path) -> None:
    """As an older version left one behind in the folder of a model."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    told = json.loads((model / "model.json").read_text())
    del told["files"]["locator.fp32.onnx"]
    (model / "model.json").write_text(json.dumps(told))
    assert list(fp32_files(model)) == ["stage1", "stage2"]
    written = write_precisions(model, None, ["fp16"], tmp_path)
    assert [path.name for path in written] == ["stage1.fp16.onnx", "stage2.fp16.onnx"]
