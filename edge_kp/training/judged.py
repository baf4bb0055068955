"""Files of fewer bits in ONNX Runtime, to see how good they are: as they are written, on every processor."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.training.onnx_graph import with_own_weights

PAIRS = ("QuantizeLinear", "DequantizeLinear")


def open_judged(path: Path) -> OnnxRuntimeBackend:
    """An ONNX file in ONNX Runtime.

    On ARM that truncates 16-bit numbers where it should round them to 8 bits, and makes layers of them that
    it then refuses (1.20 and 1.23, Cortex-A76), while TensorRT on the same board does neither. There it is
    given 32-bit numbers to round.

    Raises:
        BackendError: ONNX Runtime cannot load the file.
    """
    if platform.machine().lower() not in ("aarch64", "arm64"):
        return OnnxRuntimeBackend(path)
    with tempfile.TemporaryDirectory() as temporary:
        rounding = Path(temporary, path.name)
        onnx.save(round_in_single(with_own_weights(path)), rounding)
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
