"""Files of fewer bits in ONNX Runtime, to see how good they are: as they are written, on every processor."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.training.onnx_graph import with_own_weights

PAIRS = ("QuantizeLinear", "DequantizeLinear")


def open_judged(path: Path) -> OnnxRuntimeBackend:
    """An ONNX file in ONNX Runtime, with 32-bit numbers where it has 16-bit ones to be rounded to 8 bits.

    On ARM ONNX Runtime truncates those, and joins them into layers that it then refuses (1.20 and 1.23,
    Cortex-A76); on x86 without 8-bit dot products the layers that it joins them into overflow (before 1.30).
    TensorRT, which such files are for, computes what is written.

    Raises:
        BackendError: ONNX Runtime cannot load the file.
    """
    model = with_own_weights(path)
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    if not any(node.op_type in PAIRS and node.input[1] in half for node in model.graph.node):
        return OnnxRuntimeBackend(path)
    with tempfile.TemporaryDirectory() as temporary:
        rounding = Path(temporary, path.name)
        onnx.save(round_in_single(model), rounding)
        return OnnxRuntimeBackend(rounding)


def round_in_single(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with float32 in and out of every node that quantises, and casts around those."""
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    half = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    half |= {v.name for v in graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = []
    for node in graph.node:
        after = []
        if node.op_type in PAIRS and node.input[1] in half:
            for place in (0, 1):
                if (name := node.input[place]) in half:
                    node.input[place] = f"{name}_for_{node.output[0]}"
                    nodes.append(helper.make_node("Cast", [name], [node.input[place]], to=TensorProto.FLOAT))
            if node.op_type == "DequantizeLinear":
                (name,) = node.output
                node.output[0] = f"{name}_single"
                after.append(helper.make_node("Cast", [node.output[0]], [name], to=TensorProto.FLOAT16))
        nodes += [node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model
