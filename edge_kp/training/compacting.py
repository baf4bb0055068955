"""A model folder whose networks share one file of weights.

The same weights stand in the FP32, the FP16 and the 8-bit files of a network, and again in the one-graph
cascade. ONNX lets a file keep its tensors elsewhere ("external data"); here each different tensor is kept
once, and FP32 ones in 16 bits where that loses nothing, which is nearly everywhere: exported weights are
rounded to float16 (:func:`edge_kp.training.onnx_graph.settled`). 8-bit weights are worked out from these by
the file itself, when a runtime loads it. What only people read of a graph is left out.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from edge_kp.files import work_folder
from edge_kp.modeldir import (
    PRECISIONS,
    WEIGHTS,
    checked_file,
    file_digest,
    read_model,
    write_model_json,
)
from edge_kp.parity import load_references
from edge_kp.training.exporting import hold
from edge_kp.training.onnx_graph import HALF, with_own_weights
from edge_kp.training.placing import move_into
from edge_kp.types import Array

SMALLEST = 64  # numbers; smaller tensors stay where they are
ALIGNMENT = 64  # bytes
KINDS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)
_QUANTISED = "_quantized"  # what the quantiser adds to the name of weights


def compact_model(folder: Path) -> tuple[int, int]:
    """Let the networks of a model folder share ``weights.bin``; returns the folder's size before and after.

    Every network is held against the folder's references before anything is replaced.

    Raises:
        ModelError: the folder is no intact model, or a network gives other results than it should.
    """
    spec = read_model(folder)
    paths = [checked_file(folder, spec, name) for name in sorted(spec.files)]
    references = load_references(folder, spec)
    with work_folder(folder) as work:
        for path in paths:
            shutil.copy(path, work)
        share_weights(work)
        for precision in PRECISIONS:
            if (work / f"stage2.{precision}.onnx").exists():
                hold(work, precision, references)
        files = {path.name: file_digest(path) for path in sorted(work.iterdir())}
        before, after = (sum(path.stat().st_size for path in found) for found in (paths, work.iterdir()))
        write_model_json(work, replace(spec, files=files))
        move_into(work, folder)
    return before, after


def share_weights(folder: Path) -> None:
    """Move the weights of a folder's ``.onnx`` files into ``weights.bin``, each different tensor once."""
    models = {path: with_own_weights(path) for path in sorted(folder.glob("*.onnx"))}
    exact = {_network(path): _floats(model) for path, model in models.items() if ".fp32." in path.name}
    store = _Store()
    for path, model in models.items():
        _derive(model.graph, exact.get(_network(path), {}))
        _move(model.graph, store)
        _strip(model.graph, keep_weights=".fp32." in path.name)
    (folder / WEIGHTS).write_bytes(store.data)
    for path, model in models.items():
        onnx.save(model, path)
        onnx.checker.check_model(str(path), full_check=True)


class _Store:
    """Bytes of all tensors so far."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, int] = {}

    def place(self, content: bytes) -> int:
        """Offset of these bytes, which are added if they are not there yet."""
        key = hashlib.sha256(content).digest()
        if key not in self._places:
            self.data.extend(bytes(-len(self.data) % ALIGNMENT))
            self._places[key] = len(self.data)
            self.data.extend(content)
        return self._places[key]


def _move(graph: onnx.GraphProto, store: _Store) -> None:
    """Move the large tensors of a graph; where one is kept in 16 bits, a Cast gives its value back."""
    casts = []
    for tensor in graph.initializer:
        values, name = numpy_helper.to_array(tensor), tensor.name
        if tensor.data_type not in KINDS or values.size < SMALLEST:
            continue
        if tensor.data_type == TensorProto.FLOAT and _fits_half(values):
            values, half = values.astype(np.float16), name + HALF
            casts.append(helper.make_node("Cast", [half], [name], f"cast_{half}", to=TensorProto.FLOAT))
            name = half
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        place = store.place(tensor.raw_data)
        external_data_helper.set_external_data(tensor, WEIGHTS, place, len(tensor.raw_data))
        tensor.ClearField("raw_data")
    _prepend(graph, casts)


def _network(path: Path) -> str:
    return path.name.split(".")[0]


def _floats(model: onnx.ModelProto) -> dict[str, Array]:
    """Name → weights of a network in FP32, of those that move out of its file."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name: value for name, value in found.items() if value.size >= SMALLEST}


def _derive(graph: onnx.GraphProto, exact: Mapping[str, Array]) -> None:
    """Replace 8-bit weights by the rounding of those in FP32, where that gives the very same."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    roundings = []
    for node in graph.node:
        name = node.input[0] if node.op_type == "DequantizeLinear" else ""
        source = name.removesuffix(_QUANTISED)
        if source not in exact or source in constants or not constants.keys() >= set(node.input):
            continue
        if constants[name].data_type != TensorProto.INT8 or len(node.input) != 3:  # biases have 32 bits
            continue
        scale, zero = (numpy_helper.to_array(constants[other]) for other in node.input[1:3])
        values = exact[source]
        along = [1] * values.ndim
        if scale.ndim:
            along[next((a.i for a in node.attribute if a.name == "axis"), 1)] = -1
        rounded = np.rint(values / scale.reshape(along)) + zero.reshape(along)
        if np.array_equal(np.clip(rounded, -128, 127), numpy_helper.to_array(constants[name])):
            constants.pop(name).CopyFrom(numpy_helper.from_array(values, source))
            rounding = helper.make_node("QuantizeLinear", [source, *node.input[1:3]], [name])
            rounding.attribute.extend(node.attribute)
            roundings.append(rounding)
    _prepend(graph, roundings)


def _strip(graph: onnx.GraphProto, keep_weights: bool) -> None:
    """Leave out the shapes between the nodes, which every runtime finds for itself, and long names.

    FP32 results change in the last bit in ONNX Runtime, which joins nodes by the shapes it is told.

    Args:
        keep_weights: leave them their names, by which a training that starts from the file finds them.
    """
    del graph.value_info[:]
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    if keep_weights:
        names.update({name: name for name in (t.name.removesuffix(HALF) for t in graph.initializer)})

    def short(name: str) -> str:
        if name.endswith(HALF) and name not in names:
            return short(name.removesuffix(HALF)) + HALF
        return names.setdefault(name, f"v{len(names)}") if name else ""

    for i, node in enumerate(graph.node):
        node.name = str(i)
        for edges in (node.input, node.output):
            edges[:] = [short(edge) for edge in edges]
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)


def _prepend(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    everything = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(everything)


def _fits_half(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))
