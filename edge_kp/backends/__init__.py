"""Backends by name. Importing this needs none of them."""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Mapping
from pathlib import Path

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError
from edge_kp.extras import installed, older

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt")
"""What can run the networks; ``auto`` is :func:`choose_backend`'s choice."""
PRECISIONS = ("auto", "fp32", "fp16", "int8")
"""What they can run in; ``auto`` is :func:`choose_precision`'s choice."""
# What ``auto`` takes where the model says nothing else, the first that it has.
_PREFERRED = {
    "onnxruntime": ("int8-cpu", "fp32"),
    "openvino": ("int8-cpu", "fp32"),
    "tensorrt": ("fp16", "fp32"),
}

OLDEST_OPENVINO = (2025, 0)  # older ones misread the weights that files of a compact model share

log = logging.getLogger(__name__)


def choose_backend(name: str) -> str:
    """The backend that ``auto`` stands for here, or ``name`` itself.

    TensorRT where it and a GPU are, with a warning where one of them cannot be used; else OpenVINO where
    it is installed, on x86, where it was measured to be the faster one, with a warning where it is too old;
    else ONNX Runtime.

    Raises:
        BackendError: there is no backend of this name.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r}: expected one of {', '.join(BACKENDS)}")
    if name != "auto":
        return name
    if _gpu_is_usable():
        return "tensorrt"
    if platform.machine().lower() in ("x86_64", "amd64") and installed("openvino"):
        if fault := _openvino_is_too_old():
            log.warning("the networks run in ONNX Runtime: %s", fault)
        else:
            return "openvino"
    return "onnxruntime"


def _openvino_is_too_old() -> str:
    """What to say of the OpenVINO that is installed; nothing where it is new enough."""
    if not (told := older("openvino", OLDEST_OPENVINO)):
        return ""
    least = ".".join(str(part) for part in OLDEST_OPENVINO)
    return f"OpenVINO {told} is too old; pip install 'openvino>={least}'"


def _gpu_is_usable() -> bool:
    """Are TensorRT, a library to reach the GPU, its driver and a GPU all there, and fit to be used?"""
    if not any(installed(m) for m in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")):
        return False
    from edge_kp.backends.cuda import find_gpu, has_driver
    from edge_kp.backends.tensorrt import load_tensorrt

    if not has_driver():  # TensorRT may be installed on machines that have no GPU
        return False
    try:
        find_gpu()
        load_tensorrt()
    except BackendError as error:
        log.warning("the networks run on the CPU, not on the GPU: %s", error)
        return False
    return True


def choose_precision(
    backend: str, wanted: str, files: Collection[str], auto: Mapping[str, str] | None = None
) -> str:
    """Which of a model's precisions a backend is to run.

    Args:
        backend: not ``auto``.
        wanted: one of :data:`PRECISIONS`.
        files: names of the model's files.
        auto: what the model says of ``auto``: backend → precision.

    Raises:
        BackendError: the model was not exported in this precision.
    """
    if wanted not in PRECISIONS:
        raise BackendError(f"precision {wanted!r}: expected one of {', '.join(PRECISIONS)}")
    there = {name.split(".")[1] for name in files if name.startswith("stage1.") and name.endswith(".onnx")}
    if wanted == "auto":
        told = [auto[backend]] if auto and backend in auto else []
        return next((p for p in (*told, *_PREFERRED[backend]) if p in there), "fp32")
    precision = file_precision(backend, wanted)
    if precision not in there:
        how = "calibrate" if wanted == "int8" else f"export --precision {wanted}"
        raise BackendError(
            f"the model has no {precision} files for {backend}, only {', '.join(sorted(there)) or 'none'};"
            f" make them with python -m edge_kp.{how}"
        )
    return precision


def file_precision(backend: str, wanted: str) -> str:
    """How the files of a precision other than ``auto`` are named for a backend.

    There are two int8 files of each network: TensorRT wants symmetric ranges (``int8``), CPUs are faster
    without (``int8-cpu``).
    """
    return "int8-cpu" if wanted == "int8" and backend != "tensorrt" else wanted


def open_backend(name: str, path: Path, precision: str, threads: int | None) -> Backend:
    """Load an ONNX file of a model folder.

    With 8 bits the first stage may be in bfloat16: its keypoints only place the second crop, and of both
    stages' scores the lower one counts.

    Args:
        name: as :func:`choose_backend` gave it.

    Raises:
        BackendError: its library is missing, or it cannot load the file.
    """
    try:
        if name == "tensorrt":
            from edge_kp.backends.tensorrt import open_tensorrt

            return open_tensorrt(path, precision)
        if name == "openvino":
            if fault := _openvino_is_too_old():
                raise BackendError(fault)
            from edge_kp.backends.openvino import OpenVinoBackend

            rough = precision == "int8-cpu" and path.name.startswith("stage1.")
            return OpenVinoBackend(path, precision, threads, bfloat16=rough)
        from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
    except ImportError as error:
        raise BackendError(f"backend {name}: {error}; pip install {name}") from error
    return OnnxRuntimeBackend(path, precision, threads)
