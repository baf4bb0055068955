"""Which parts of an exported network bear fewer bits, told from the graph alone.

The *trunk* is where feature maps turn into feature maps: convolutions, their ReLU, sums and resizing, and the
hidden layers behind them. It may be 8 bits wide. What leads from there to keypoints, scores or places to read
at never is; of that, only what flows from one layer of weights to the next may be 16 bits wide.
"""

from __future__ import annotations

from onnxscript import ir

LAYERS = ("Conv", "Gemm")
_FOLLOW = ("Relu", "Add", "Resize", "MaxPool", "AveragePool", "Reshape", "Flatten")
# Operators that pass features on, beside those of the trunk: how the points read them and blend them.
_PASS = (
    *_FOLLOW,
    *(
        "Sub",
        "Mul",
        "Div",
        "Where",
        "GatherND",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Concat",
    ),
    *("QuantizeLinear", "DequantizeLinear"),
)


def is_constant(value: ir.Value) -> bool:
    return value.is_initializer() or value.const_value is not None


def computed_inputs(node: ir.Node) -> list[ir.Value]:
    """Inputs that depend on the image."""
    return [value for value in node.inputs if value is not None and not is_constant(value)]


def is_layer(node: ir.Node) -> bool:
    """A convolution or a fully connected layer, with weights of its own."""
    return node.op_type in LAYERS and len(computed_inputs(node)) == 1


def layer_name(node: ir.Node) -> str:
    """Name of a layer for people: that of its weights."""
    return str(_weights(node).name).removesuffix(".weight")


def _weights(node: ir.Node) -> ir.Value:
    weights = node.inputs[1]
    assert weights is not None
    return weights


def trunk_nodes(graph: ir.Graph) -> list[ir.Node]:
    """All nodes between feature maps, in their order."""
    inside: dict[ir.Node, None] = {}
    for node in graph:
        sources = computed_inputs(node)
        if node.op_type == "Conv":
            # Two-dimensional: the convolutions along the points work on what was read off the maps.
            belongs = is_layer(node) and len(_weights(node).shape or ()) == 4
        elif node.op_type in (*_FOLLOW, "Gemm"):
            belongs = bool(sources) and all(value.producer() in inside for value in sources)
            belongs = belongs and len(sources) == (2 if node.op_type == "Add" else 1)
        else:
            belongs = False
        if belongs:
            inside[node] = None
    return list(inside)


def trunk_layers(graph: ir.Graph) -> list[ir.Node]:
    """The layers that may be 8 bits wide: those of the trunk whose result stays in it.

    The last layer of each branch, whose result is a keypoint, a score or a box, is none of them.
    """
    nodes = trunk_nodes(graph)
    inside = set(nodes)
    return [
        n for n in nodes if n.op_type in LAYERS and all(user in inside for user in n.outputs[0].consumers())
    ]


def half_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that may be 16 bits wide: layers, and what only passes features on to a next layer."""
    exact = _exact_nodes(graph)
    half: set[ir.Node] = set()
    for node in graph:
        if node.op_type in LAYERS:
            half.add(node)
        elif node not in exact:
            floats = [value for value in computed_inputs(node) if value.dtype == ir.DataType.FLOAT]
            # None where 8 bits or constants turn into numbers again.
            if not floats or any(value.producer() in half for value in floats):
                half.add(node)
    return half


def _exact_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Nodes whose numbers reach a result, or an operator that is not in :data:`_PASS`, by way of no layer."""
    exact: set[ir.Node] = set()
    for node in reversed(list(graph)):
        if node.op_type in LAYERS:
            continue
        ends = (value.is_graph_output() or exact.intersection(value.consumers()) for value in node.outputs)
        if node.op_type not in _PASS or any(ends):
            exact.add(node)
    return exact
