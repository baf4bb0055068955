"""ONNX Runtime on the CPU: the default backend, and the reference that others are held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError
from edge_kp.types import Array


class OnnxRuntimeBackend(Backend):
    """An ONNX file in ONNX Runtime.

    Args:
        threads: inference threads; None leaves the choice to ONNX Runtime.

    Raises:
        BackendError: ONNX Runtime cannot load the file.
    """

    name = "onnxruntime"
    device = "CPU"

    def __init__(self, path: Path, precision: str = "fp32", threads: int | None = None) -> None:
        self.precision = precision
        self._path = path
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        # Waiting threads that spin take the cores from capture and encoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception types are private
            raise BackendError(
                f"{path}: ONNX Runtime cannot load it ({_cause(error)}); export the model again"
            ) from error
        image = self._session.get_inputs()[0]
        if image.name != "image" or image.type != "tensor(uint8)" or len(image.shape) != 4:
            raise BackendError(
                f"{path}: expected one input image uint8 (B, S, S, 3), got {image.name} {image.type}"
                f" {image.shape}; export the model again"
            )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, image: Array) -> dict[str, Array]:
        try:
            values = self._session.run(self._outputs, {"image": np.ascontiguousarray(image)})
        except Exception as error:  # as above
            raise BackendError(f"{self._path}: ONNX Runtime cannot run it ({_cause(error)})") from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}


def _cause(error: Exception) -> str:
    """The first line of an error, cut short."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
