"""A model folder whose networks share one file of weights.

The same weights stand in the FP32, the FP16 and the 8-bit files of a network, and again in the one-graph
cascade. ONNX lets a file keep its tensors elsewhere ("external data"); here each different tensor is kept
once, and FP32 ones in 16 bits where that loses nothing, which is nearly everywhere: exported weights are
rounded to float16 (:func:`edge_kp.training.onnx_graph.settled`).
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from edge_kp.modeldir import (
    PRECISIONS,
    WEIGHTS,
    checked_file,
    file_digest,
    read_model,
    write_model_json,
)
from edge_kp.parity import load_references
from edge_kp.training.exporting import hold, move_into
from edge_kp.types import Array

SMALLEST = 256  # numbers; smaller tensors stay where they are
ALIGNMENT = 64  # bytes
KINDS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)


def compact_model(folder: Path) -> tuple[int, int]:
    """Let the networks of a model folder share ``weights.bin``; returns the folder's size before and after.

    Every network is held against the folder's references before anything is replaced.

    Raises:
        ModelError: the folder is no intact model, or a network gives other results than it should.
    """
    spec = read_model(folder)
    paths = [checked_file(folder, spec, name) for name in sorted(spec.files)]
    references = load_references(folder, spec)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        work = Path(temporary)
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
    models = {path: onnx.load(path) for path in sorted(folder.glob("*.onnx"))}
    store = _Store()
    for model in models.values():
        _move(model.graph, store)
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
            values, half = values.astype(np.float16), f"{name}_half"
            casts.append(helper.make_node("Cast", [half], [name], f"cast_{half}", to=TensorProto.FLOAT))
            name = half
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        place = store.place(tensor.raw_data)
        external_data_helper.set_external_data(tensor, WEIGHTS, place, len(tensor.raw_data))
        tensor.ClearField("raw_data")
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _fits_half(values: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))
