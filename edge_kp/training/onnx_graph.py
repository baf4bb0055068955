"""A PyTorch module → an ONNX file, simplified."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxscript
import onnxsim
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edge_kp.errors import ModelError
from edge_kp.training.facemesh import Bent
from edge_kp.training.network import Contract
from edge_kp.training.reading import Reading

OPSET = 18
HALF = "_half"  # what the name of weights ends in that a compact model keeps in 16 bits
Net = TypeVar("Net", bound=nn.Module)


def settled(net: Net) -> Net:
    """A copy of a trained network as it is exported: batch norms folded in, weights rounded to float16.

    What PyTorch gives for it is therefore what every file is held against, with the very same weights.
    """
    net = copy.deepcopy(net).eval()
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, (Bent, Reading)):
                setattr(module, name, child.settled())
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            first, second = module[i], module[i + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[i], module[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    for parameter in net.parameters():
        parameter.data = parameter.data.half().float()
    return net


def export_network(net: Contract, path: Path, metadata: Mapping[str, str]) -> Path:
    """Write a network that takes images, and return the plain export beside it."""
    example = {"image": torch.zeros(2, net.size, net.size, 3, dtype=torch.uint8)}
    return export_graph(net, example, net.OUTPUTS, path, metadata)


def export_graph(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    metadata: Mapping[str, str],
) -> Path:
    """Write ``path``, simplified, and return the plain export beside it.

    Args:
        inputs: name → example; the first axis is the batch, of any size in the file.
        metadata: entries for the file's ``metadata_props``.

    Raises:
        ModelError: simplifying changed the result.
    """
    plain = path.with_suffix(".plain.onnx")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(plain),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            dynamo=True,
            external_data=False,
            custom_translation_table={torch.ops.edge_kp.gather_rows.default: _gather_rows},
            verbose=False,
        )
    simplified, same = onnxsim.simplify(onnx.load(plain))
    if not same:
        raise ModelError(
            f"{path.name}: onnxsim changed the result; report this with the versions of torch and onnxsim"
        )
    simplified.doc_string = ""
    for node in simplified.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    set_metadata(simplified, metadata)
    save_checked(simplified, path)
    return plain


def save_checked(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and save it, as of the oldest version of the format (IR) that its operators admit.

    Exporters write the newest that they know, which older runtimes refuse to read: ONNX Runtime before 1.18
    any beyond 9.

    Raises:
        onnx.checker.ValidationError: it is no valid model.
    """
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def with_own_weights(path: Path) -> onnx.ModelProto:
    """A file as it was before :mod:`edge_kp.training.compacting` moved its weights out."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] == node.output[0] + HALF and node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]]).astype(np.float32)
            constants[node.input[0]].CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def set_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Replace a file's ``metadata_props``."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)


def _gather_rows(rows: Any, index: Any) -> Any:
    op: Any = onnxscript.opset18
    return op.GatherND(rows, index, batch_dims=1)
