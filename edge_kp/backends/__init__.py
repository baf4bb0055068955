"""Backends by name. Importing this needs none of them."""

from __future__ import annotations

from pathlib import Path

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError

BACKENDS = ("auto", "onnxruntime")


def open_backend(name: str, path: Path, precision: str, threads: int | None) -> Backend:
    """Load an ONNX file; ``auto`` is ONNX Runtime.

    Raises:
        BackendError: no such backend, its library is missing, or it cannot load the file.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r}: expected one of {', '.join(BACKENDS)}")
    try:
        from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
    except ImportError as error:
        raise BackendError(f"backend onnxruntime: {error}; pip install onnxruntime") from error
    return OnnxRuntimeBackend(path, precision, threads)
