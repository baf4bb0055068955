"""Float32 → float16 in the parts of a graph that bear it."""

from __future__ import annotations

import numpy as np
from onnxscript import ir

from edge_kp.training.trunk import half_nodes, is_constant

# Scales of 8-bit numbers below the smallest normal float16 would lose their digits, or become 0.
SMALLEST = 2.0**-14
_SINGLE, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def halve(graph: ir.Graph) -> None:
    """Change a graph, sorted and with the types of its values inferred, in place.

    Inputs and outputs keep their types; a Cast stands where a value passes from one width to the other, one
    for all who use it.
    """
    half = half_nodes(graph)
    changed: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        for place, value in enumerate(node.inputs):
            if value is None or value.dtype != _SINGLE or (node.op_type == "Resize" and place > 0):
                continue
            produced_half = value.producer() in half
            if (node in half) == produced_half:
                continue
            if value not in changed:
                changed[value] = _rounded(graph, value) if is_constant(value) else _cast(value, produced_half)
            node.replace_input_with(place, changed[value])
