"""``NAME.fp32.onnx`` → files in fewer bits.

``fp16``: float16 where features are computed. ``int8``: for TensorRT, Q/DQ pairs with zero points of 0 at the
convolutions, float16 for the other features. ``int8-cpu``: for ONNX Runtime and OpenVINO, whose kernels want
unsigned activations and quantised results; the rest in float32. :mod:`edge_kp.training.trunk` says where.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxscript import ir
from onnxscript.ir.passes.common import RemoveUnusedNodesPass

from edge_kp.errors import ModelError
from edge_kp.files import replacing
from edge_kp.modeldir import NETWORKS, PRECISIONS, read_model
from edge_kp.training.onnx_graph import save_checked
from edge_kp.training.ranges import STYLES, Ranges, read_ranges
from edge_kp.training.trunk import (
    FOLLOWERS,
    follows,
    half_nodes,
    is_constant,
    layer_name,
    load_graph,
    trunk_layers,
    trunk_nodes,
)

TYPED = PRECISIONS[1:]
INT8_OPSET = 19  # the first whose Q/DQ take float16
# A scale below the smallest normal float16 would lose its digits or become 0.
SMALLEST_SCALE = 2.0**-14
_SINGLE, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def write_precisions(
    folder: Path, ranges: Path | None, precisions: Sequence[str] = TYPED, out: Path | None = None
) -> list[Path]:
    """Write the files of some precisions of every network in a folder, and return their paths.

    Args:
        folder: holds ``NAME.fp32.onnx``.
        ranges: what ``python -m edge_kp.calibrate`` wrote; fp16 alone needs none.
        out: where to write, if not into ``folder``.

    Raises:
        ModelError: there is no FP32 file; or the ranges are missing, damaged or of other FP32 files.
    """
    sources = fp32_files(folder)
    plans = read_ranges(ranges, sources) if set(precisions) & set(STYLES) else {}
    paths = []
    for name, source in sources.items():
        for precision in precisions:
            paths.append((out or folder) / f"{name}.{precision}.onnx")
            if precision == "fp16":
                to_fp16(source, paths[-1])
            else:
                plan = plans[name]
                method, kept = plan["styles"][precision]["method"], plan["styles"][precision]["kept"]
                layers = set(layer_names(source, precision)) - set(kept)
                to_int8(source, paths[-1], precision, plan["ranges"][method], layers)
    return paths


def fp32_files(folder: Path) -> dict[str, Path]:
    """The networks of a folder that other precisions are made of: name → file.

    Where there is a ``model.json`` it says which they are: what else lies there is of another model.

    Raises:
        ModelError: there is none, or ``model.json`` is damaged.
    """
    described = (folder / "model.json").is_file()
    there = set(read_model(folder).files) if described else {path.name for path in folder.iterdir()}
    paths = {name: folder / f"{name}.fp32.onnx" for name in NETWORKS if name != "cascade"}
    found = {name: path for name, path in paths.items() if path.name in there}
    if not found:
        raise ModelError(f"{folder}: no NAME.fp32.onnx to make other precisions of; export the model again")
    return found


def layer_names(source: Path, style: str) -> list[str]:
    """The layers of an FP32 file that are 8 bits wide in a style, by the names of their weights."""
    return [layer_name(node) for node in _style_layers(load_graph(source).graph, style)]


def _style_layers(graph: ir.Graph, style: str) -> list[ir.Node]:
    layers = trunk_layers(graph)
    # One image at a time, a fully connected layer on a GPU waits for memory, not for arithmetic.
    return layers if style == "int8-cpu" else [node for node in layers if node.op_type == "Conv"]


def to_fp16(source: Path, target: Path) -> None:
    """Write the float16 form of an FP32 file; what the image and the results are made of does not change."""
    model = load_graph(source)
    _halve(model.graph)
    _save(model, target, "fp16", model.metadata_props)


def to_int8(
    source: Path, target: Path, style: str, ranges: Ranges, layers: Collection[str] | None = None
) -> None:
    """Write an 8-bit form of an FP32 file.

    Args:
        style: ``int8`` or ``int8-cpu``.
        ranges: what :func:`measure_ranges` found.
        layers: which layers are quantised, as :func:`layer_names` names them; None means all. Of none at all
            comes the FP32 graph as it is.
    """
    plain = load_graph(source)
    graph = plain.graph
    nodes = {n: None for n in _style_layers(graph, style) if layers is None or layer_name(n) in layers}
    if not nodes:
        _save(plain, target, style, plain.metadata_props)
        return
    if style == "int8-cpu":
        for node in trunk_nodes(graph):
            if node.op_type in FOLLOWERS and follows(node, nodes):
                nodes[node] = None
    # TensorRT wants no pair between a convolution and its ReLU, biases as they are, and weights that a pair
    # quantises in the graph.
    options: Mapping[str, dict[str, Any]] = {
        "int8": {
            "ActivationSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
        "int8-cpu": {"ActivationSymmetric": False},
    }
    quantiser = QDQQuantizer(
        onnx.shape_inference.infer_shapes(onnx.load(source)),
        per_channel=True,
        reduce_range=style == "int8-cpu",
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if style == "int8-cpu" else QuantType.QInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
        ),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={**options[style], "WeightSymmetric": True},
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(quantiser.quantize_model()))
    model.graph.sort()
    if style == "int8":
        model.opset_imports[""] = INT8_OPSET
        _halve(model.graph)
    _save(model, target, style, plain.metadata_props)


def _save(model: ir.Model, target: Path, precision: str, metadata: Mapping[str, str]) -> None:
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.helper.set_model_props(proto, {**metadata, "edge_kp.precision": precision})
    with replacing(target) as part:
        save_checked(proto, part)


def _halve(graph: ir.Graph) -> None:
    """Float32 → float16 where :func:`half_nodes` allows it, in place.

    Inputs and outputs keep their types. Where numbers pass from one width to the other stands a Cast, one for
    all who use them.
    """
    half = half_nodes(graph)
    changed: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        for place, value in enumerate(node.inputs):
            # Resize takes its factors as float32 only.
            if value is None or value.dtype != _SINGLE or (node.op_type == "Resize" and place > 0):
                continue
            from_half = value.producer() in half
            if (node in half) == from_half:
                continue
            if value not in changed:
                changed[value] = (
                    _half_constant(graph, value, node) if is_constant(value) else _cast(value, from_half)
                )
            node.replace_input_with(place, changed[value])
    for node in half:
        for value in node.outputs:
            if value.dtype == _SINGLE:
                value.dtype = _HALF


def _cast(value: ir.Value, from_half: bool) -> ir.Value:
    to = _SINGLE if from_half else _HALF
    name = f"{value.name}_{to.name.lower()}"
    result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(to))
    producer = value.producer()
    assert producer is not None  # the only input of a network is an image of bytes
    producer.append(ir.node("Cast", [value], {"to": to}, outputs=[result], name=f"cast_{name}"))
    return result


def _half_constant(graph: ir.Graph, value: ir.Value, user: ir.Node) -> ir.Value:
    assert value.const_value is not None
    numbers = value.const_value.numpy()
    if user.op_type in ("QuantizeLinear", "DequantizeLinear") and value is user.inputs[1]:
        numbers = np.maximum(numbers, SMALLEST_SCALE)
    tensor = ir.tensor(numbers.astype(np.float16), name=f"{value.name}_float16")
    result = ir.Value(name=tensor.name, shape=value.shape, type=ir.TensorType(_HALF), const_value=tensor)
    graph.register_initializer(result)
    return result
