"""Which parts of an exported network bear fewer bits, told from the graph alone.

The *trunk* is where feature maps turn into feature maps: convolutions, their ReLU, sums, pooling, padding and
enlarging, and the hidden layers behind them. It may be 8 bits wide. What leads from there to keypoints,
scores or places to read at never is; of that, only what flows from one layer of weights to the next may be
16 bits wide.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import onnx
from onnxscript import ir

LAYERS = ("Conv", "Gemm")
FOLLOWERS = ("Relu", "Add", "Resize", "Reshape", "MaxPool", "Pad")
# What passes features on to a next layer, beside the trunk: how the points read and blend them, and 8 bits.
_PASS = (
    *FOLLOWERS,
    *("Sub", "Mul", "Where", "GatherND", "Transpose", "Unsqueeze", "Slice"),
    *("QuantizeLinear", "DequantizeLinear"),
)


def load_graph(path: Path) -> ir.Model:
    """An ONNX file with the type and shape of every value in it."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(path)))


def is_constant(value: ir.Value) -> bool:
    """Is it part of the file, and the same for every image?"""
    return value.const_value is not None


def computed_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that depend on the image."""
    return [value for value in node.inputs if value is not None and not is_constant(value)]


def layer_name(node: ir.Node) -> str:
    """A layer's name for people: that of its weights."""
    return str(_weights(node).name).removesuffix(".weight")


def _weights(node: ir.Node) -> ir.Value:
    weights = node.inputs[1]
    assert weights is not None
    return weights


def trunk_nodes(graph: ir.Graph) -> list[ir.Node]:
    """All nodes of the trunk, in their order."""
    inside: dict[ir.Node, None] = {}
    for node in graph:
        if node.op_type == "Conv":
            # Two-dimensional: the convolutions along the points work on what was read off the maps.
            belongs = len(_weights(node).shape or ()) == 4
        elif node.op_type in (*FOLLOWERS, "Gemm"):
            belongs = follows(node, inside)
        else:
            belongs = False
        if belongs:
            inside[node] = None
    return list(inside)


def follows(node: ir.Node, nodes: Container[ir.Node]) -> bool:
    """Do all numbers that a node computes with come from some other nodes?"""
    sources = [value.producer() for value in computed_inputs(node)]
    return bool(sources) and all(source in nodes for source in sources)


def trunk_layers(graph: ir.Graph) -> list[ir.Node]:
    """The layers that may be 8 bits wide: those of the trunk whose result stays in it.

    The last layer of each branch, whose result is a keypoint, a score or a box, is none of them.
    """
    nodes = trunk_nodes(graph)
    inside = set(nodes)
    return [
        node
        for node in nodes
        if node.op_type in LAYERS and all(user in inside for user in node.outputs[0].consumers())
    ]


def half_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that may be 16 bits wide: layers, and what only passes features on to a next layer."""
    exact = _exact_nodes(graph)
    half: set[ir.Node] = set()

    def is_feature(value: ir.Value) -> bool:
        return value.producer() in half and not exact.intersection(value.consumers())

    for node in graph:
        floats = [value for value in computed_inputs(node) if value.dtype == ir.DataType.FLOAT]
        # A node without any turns 8 bits, or constants, into numbers again.
        passes = not floats or any(is_feature(value) for value in floats)
        if node not in exact and (node.op_type in LAYERS or passes) and not _is_grouped(node):
            half.add(node)
    return half


def _is_grouped(node: ir.Node) -> bool:
    """Is it a convolution in groups of several channels?

    ONNX Runtime adds the bias of the first group to all of them, in 16 bits on ARM processors that compute
    with these (1.20 and 1.23, Cortex-A76). Such are small here: each keypoint's own weights.
    """
    if node.op_type != "Conv" or node.attributes.get_int("group", 1) == 1:
        return False
    return (_weights(node).shape or (0, 0))[1] != 1


def _exact_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Nodes whose numbers reach a result, or an operator that is not in :data:`_PASS`, by way of no layer."""
    exact: set[ir.Node] = set()
    for node in reversed(list(graph)):
        ends = any(value.is_graph_output() for value in node.outputs)
        if node.op_type not in LAYERS:
            ends |= node.op_type not in _PASS
            ends |= any(exact.intersection(value.consumers()) for value in node.outputs)
        if ends:
            exact.add(node)
    return exact
