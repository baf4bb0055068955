"""What an ONNX graph costs, counted from its nodes: multiply-accumulates, parameters, bytes.

Counted are convolutions and matrix products, which is what published figures of networks count. Additions,
activations, resizing and GridSample are not. Shapes come from ONNX's own shape inference, for one image.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import NodeProto, TensorProto

from edge_kp.errors import ModelError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# Nodes that multiply and accumulate as well, or hold others that may: better no figure than a wrong one.
UNKNOWN = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DeformConv", "Einsum",
           "Attention", "RNN", "LSTM", "GRU", "If", "Loop", "Scan")  # fmt: skip
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

_DAMAGED = (DecodeError, onnx.shape_inference.InferenceError, onnx.checker.ValidationError)


@dataclass(frozen=True)
class Cost:
    """
    Attributes:
        macs: multiply-accumulates for one image.
        by_kind: the same by operator, e.g. ``{"Conv": …, "Gemm": …}``.
        parameters: numbers that the file stores to compute with: weights, biases and other constants; not
            shapes and indices, not scales and zero points of 8-bit features.
        file_bytes: of the ONNX file alone.
        weight_bytes: of what it takes from files beside it, such as ``weights.bin``.
    """

    macs: int
    by_kind: Mapping[str, int]
    parameters: int
    file_bytes: int
    weight_bytes: int


def count(path: Path) -> Cost:
    """
    Raises:
        ModelError: it cannot be read, or has nodes or shapes that cannot be counted.
    """
    try:
        plain = onnx.load(path, load_external_data=False)
        model = onnx.load(path)
        shapes = infer_shapes(model)
    except (OSError, ValueError, *_DAMAGED) as error:
        raise ModelError(f"{path}: cannot be counted ({_line(error)}); export the model again") from error
    by_kind: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in UNKNOWN:
            raise ModelError(
                f"{path}: it is not known how to count {node.op_type} (node {node.name!r}); export the model"
                " without it, or teach benchmarks/macs.py to"
            )
        if node.op_type in _COUNTED:
            try:
                by_kind[node.op_type] += _COUNTED[node.op_type](node, shapes)
            except KeyError as error:
                raise ModelError(f"{path}: the shape of {error} is not known; export it again") from error
    return Cost(
        macs=sum(by_kind.values()),
        by_kind=dict(by_kind),
        parameters=_parameters(model),
        file_bytes=path.stat().st_size,
        weight_bytes=_external_bytes(plain),
    )


def infer_shapes(model: onnx.ModelProto, batch: int = 1) -> dict[str, Shape]:
    """Shapes of all tensors of a graph that can be told, for so many images.

    Raises:
        ValueError: an input has a side that is not fixed, other than its first.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    stored = {tensor.name for tensor in model.graph.initializer}
    for entry in model.graph.input:
        sides = entry.type.tensor_type.shape.dim
        for i, side in enumerate(sides):
            if side.HasField("dim_value"):
                continue
            if i:
                raise ValueError(f"side {i} of input {entry.name} is not fixed")
            side.dim_value = batch
    # What the file says of them is for any batch, and would win over what is inferred.
    del model.graph.value_info[:]
    for entry in model.graph.output:
        entry.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for entry in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        sides = entry.type.tensor_type.shape.dim
        known = all(side.HasField("dim_value") for side in sides)
        if known and entry.name not in stored and entry.type.tensor_type.HasField("shape"):
            shapes[entry.name] = tuple(side.dim_value for side in sides)
    return shapes


def _conv(node: NodeProto, shapes: Shapes) -> int:
    """Each number of the output is a sum over the channels of its group and the window."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _conv_transpose(node: NodeProto, shapes: Shapes) -> int:
    """Each number of the input is spread over the channels of its group and the window."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _gemm(node: NodeProto, shapes: Shapes) -> int:
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else 1]


def _matmul(node: NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


_COUNTED: Mapping[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def _parameters(model: onnx.ModelProto) -> int:
    scales: set[str] = set()
    quantised: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales.update(node.input[1:])
            quantised.add(node.input[0])
    # A compact file may keep some of them in 16 bits.
    scales.update(n.input[0] for n in model.graph.node if n.op_type == "Cast" and n.output[0] in scales)
    return sum(
        math.prod(tensor.dims)
        for name, tensor in _stored(model)
        if name not in scales and (tensor.data_type in FLOATS or name in quantised)
    )


def _stored(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _external_bytes(model: onnx.ModelProto) -> int:
    pieces: set[tuple[str, int, int]] = set()  # tensors may share one
    for _, tensor in _stored(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            told = {entry.key: entry.value for entry in tensor.external_data}
            pieces.add((told["location"], int(told.get("offset", 0)), int(told["length"])))
    return sum(length for _, _, length in pieces)


def _line(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
