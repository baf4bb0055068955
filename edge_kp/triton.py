"""A model repository for NVIDIA's Triton: a model folder's networks, each with a ``config.pbtxt``.

A repository is ``NAME_NETWORK/config.pbtxt`` and ``NAME_NETWORK/1/`` with the network itself. The one-graph
cascade is one of these models: a region around the box goes in, final keypoints come out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_kp.backends import choose_precision
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend, Tensor
from edge_kp.backends.sidecar import EngineInfo, beside, check_served
from edge_kp.errors import ModelError
from edge_kp.files import work_folder
from edge_kp.modeldir import NETWORKS, WEIGHTS, ModelSpec, checked_file, read_model

SERVERS = ("onnxruntime", "tensorrt")  # Triton's backends that run our files
PARAMETER = "edge_kp.spec"  # of every served model: model.json, as far as a client needs it
MAX_BATCH = 16
PREFERRED = (4, 8)  # sizes that go at once, besides the largest
QUEUE_DELAY_US = 1000  # a request waits so long for others; a frame at 30 a second takes 33,000

_KINDS = {"uint8": "TYPE_UINT8", "float": "TYPE_FP32", "float16": "TYPE_FP16"}


class _Word(str):
    """A value that stands without quotes."""


def write_repository(
    folder: Path, out: Path, backend: str = "onnxruntime", precision: str = "auto"
) -> dict[str, str]:
    """Write the networks of a model folder as a repository; returns name → description of its models.

    The repository is written beside ``out``, or in it where it is there already, and moved into place once it
    is whole and every ONNX file in it was loaded from there.

    Args:
        out: new or empty.
        backend: of :data:`SERVERS`. ``tensorrt`` takes the engines that ``edge_kp.build_engine`` put beside
            the ONNX files on the serving machine.
        precision: of :data:`edge_kp.backends.PRECISIONS`; ``auto`` is fp16, where the model has it.

    Raises:
        ModelError: ``out`` is in use, the disk is full, or the model is damaged.
        BackendError: the model lacks the precision, or an engine is missing or does not fit.
    """
    spec = read_model(folder)
    if Path(spec.name).name != spec.name:
        raise ModelError(f"{folder}: the name {spec.name!r} in model.json cannot name a folder; export again")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ModelError(f"{out}: is there already and not empty; give a new folder, or remove this one")
    precision = served_precision(backend, precision, spec.files)
    names = [n for n in NETWORKS if f"{n}.{precision}.onnx" in spec.files]
    # An empty folder is filled, not replaced: it may be where a disk is mounted, or the one we are in.
    with work_folder(out) as temporary:
        work = temporary / "repository"  # unlike the folder around it open to Triton's user
        work.mkdir()
        models = {
            f"{spec.name}_{network}": _write_model(folder, spec, network, work, backend, precision)
            for network in names
        }
        _move(work, out)
    return models


def _move(work: Path, out: Path) -> None:
    if not out.exists():
        os.replace(work, out)
        return
    moved: list[Path] = []
    try:
        for model in sorted(work.iterdir()):
            moved.append(out / model.name)
            os.replace(model, moved[-1])
    except BaseException:
        for model in moved:
            shutil.rmtree(model, ignore_errors=True)
        raise


def served_precision(backend: str, wanted: str, files: Collection[str]) -> str:
    """Which of a model's precisions is served; ``auto`` thinks of a GPU, as most servers have one.

    Raises:
        BackendError: the model was not exported in this precision.
    """
    if wanted == "auto":
        wanted = "fp16" if "stage1.fp16.onnx" in files else "fp32"
    return choose_precision(backend, wanted, files)


def _write_model(
    folder: Path, spec: ModelSpec, network: str, repository: Path, backend: str, precision: str
) -> str:
    onnx = checked_file(folder, spec, f"{network}.{precision}.onnx")
    name = f"{spec.name}_{network}"
    version = repository / name / "1"
    version.mkdir(parents=True)
    engine, loaded, told = None, onnx, f"{backend} {precision}"
    if backend == "tensorrt":
        engine = check_served(beside(onnx), onnx, precision)
        shutil.copyfile(beside(onnx), version / "model.plan")
        told += f", TensorRT {engine.version} for {engine.gpu}"
    else:
        loaded = _copy_onnx(onnx, version, shared=WEIGHTS in spec.files)
    opened = OnnxRuntimeBackend(loaded, precision)
    config = model_config(name, spec, precision, opened.inputs, opened.outputs, engine)
    (repository / name / "config.pbtxt").write_text(pbtxt(config) + "\n", encoding="utf-8")
    return f"{told}, batches of up to {config['max_batch_size']}"


def _copy_onnx(onnx: Path, version: Path, shared: bool) -> Path:
    """The network as Triton wants it: a file or, with weights beside it, a folder of the same name."""
    target = version / "model.onnx"
    if shared:
        target.mkdir()
        shutil.copyfile(onnx.with_name(WEIGHTS), target / WEIGHTS)
        target /= "model.onnx"
    shutil.copyfile(onnx, target)
    return target


def model_config(
    name: str,
    spec: ModelSpec,
    precision: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    engine: EngineInfo | None = None,
) -> dict[str, Any]:
    """What ``config.pbtxt`` says, by the names of Triton's ``ModelConfig``.

    Args:
        engine: what TensorRT runs; None for ONNX Runtime.

    Raises:
        ModelError: Triton cannot make batches for these tensors.
    """
    most = engine.batches[-1] if engine else MAX_BATCH
    group: dict[str, Any] = {"count": 1, "kind": _Word("KIND_GPU" if engine else "KIND_AUTO")}
    if engine:  # each batch size has a profile of its own
        group["profile"] = [str(i) for i in range(len(engine.batches))]
    elif precision == "int8-cpu":
        group["kind"] = _Word("KIND_CPU")
    contract = json.dumps(replace(spec, files={}, card={}).to_json(), separators=(",", ":"))
    told = {PARAMETER: contract, "edge_kp.precision": precision}
    return {
        "name": name,
        "backend": "tensorrt" if engine else "onnxruntime",
        "max_batch_size": most,
        "input": [_tensor(tensor) for tensor in inputs],
        "output": [_tensor(tensor) for tensor in outputs],
        "dynamic_batching": {
            "preferred_batch_size": [*(size for size in PREFERRED if size < most), most],
            "max_queue_delay_microseconds": QUEUE_DELAY_US,
        },
        "instance_group": [group],
        "parameters": [{"key": key, "value": {"string_value": text}} for key, text in told.items()],
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    """A tensor without its batch axis, which Triton adds; nothing may be left without any, hence reshape."""
    if tensor.kind not in _KINDS or not tensor.shape or tensor.shape[0] is not None:
        raise ModelError(
            f"{tensor.name}: {tensor.kind} {list(tensor.shape)} cannot be served in batches; export the"
            " model again"
        )
    sides = [-1 if side is None else side for side in tensor.shape[1:]]
    told = {"name": tensor.name, "data_type": _Word(_KINDS[tensor.kind]), "dims": sides or [1]}
    return told if sides else {**told, "reshape": {"shape": []}}


def pbtxt(message: Mapping[str, Any], indent: str = "") -> str:
    """A message in protobuf's text format: lists of messages repeat their field, of numbers have brackets."""
    lines = []
    for key, value in message.items():
        for item in value if _repeats(value) else [value]:
            if isinstance(item, Mapping):
                lines += [f"{indent}{key} {{", pbtxt(item, f"{indent}  "), f"{indent}}}"]
            elif isinstance(item, list):
                lines.append(f"{indent}{key}: [{', '.join(map(_scalar, item))}]")
            else:
                lines.append(f"{indent}{key}: {_scalar(item)}")
    return "\n".join(lines)


def _repeats(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _scalar(value: Any) -> str:
    # The escapes of JSON are among those of the text format.
    return str(value) if isinstance(value, (int, _Word)) else json.dumps(value, ensure_ascii=False)
