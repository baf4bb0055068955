"""Backends by name. Importing this needs none of them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError

BACKENDS = ("auto", "onnxruntime")


def check_backend(name: str) -> str:
    """The backend that ``name`` stands for: ``auto`` is ONNX Runtime.

    Raises:
        BackendError: no such backend.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r}: expected one of {', '.join(BACKENDS)}")
    return "onnxruntime" if name == "auto" else name


def open_backend(name: str, path: Path, precision: str, threads: int | None) -> Backend:
    """Load an ONNX file.

    Raises:
        BackendError: no such backend, its library is missing, or it cannot load the file.
    """
    module = check_backend(name)
    try:
        import_module("onnxruntime")
    except ImportError as error:
        raise BackendError(f"backend {module}: {error}; pip install onnxruntime") from error
    from edge_kp.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, precision, threads)
