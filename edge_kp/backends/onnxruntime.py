"""ONNX Runtime on the CPU: the default backend, and the reference that others are held against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_kp.backends.base import Backend, check_weights, closed
from edge_kp.errors import BackendError
from edge_kp.types import Array


@dataclass(frozen=True)
class Tensor:
    """An input or output as the file tells it.

    Attributes:
        kind: of its numbers, in ONNX Runtime's words: ``uint8``, ``float``, ``float16``, …
        shape: None where the side is not fixed, as the batch.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]


class OnnxRuntimeBackend(Backend):
    """An ONNX file in ONNX Runtime.

    Args:
        threads: inference threads; None leaves the choice to ONNX Runtime.

    Attributes:
        inputs, outputs: what the file takes and gives.

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
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception types are private
            check_weights(path)
            raise BackendError(
                f"{path}: ONNX Runtime cannot load it ({_cause(error)}); export the model again"
            ) from error
        image = session.get_inputs()[0]
        if image.name != "image" or image.type != "tensor(uint8)" or len(image.shape) != 4:
            raise BackendError(
                f"{path}: expected one input image uint8 (B, S, S, 3), got {image.name} {image.type}"
                f" {image.shape}; export the model again"
            )
        self.inputs = _tensors(session.get_inputs())
        self.outputs = _tensors(session.get_outputs())
        self._outputs = [output.name for output in self.outputs]
        self._session: ort.InferenceSession | None = session

    def run(self, image: Array) -> dict[str, Array]:
        session = self._session  # of this call, even if another thread closes the backend meanwhile
        if session is None:
            raise closed(self._path)
        try:
            values = session.run(self._outputs, {"image": np.ascontiguousarray(image)})
        except Exception as error:  # as above
            raise BackendError(f"{self._path}: ONNX Runtime cannot run it ({_cause(error)})") from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}

    def close(self) -> None:
        self._session = None


def _cause(error: Exception) -> str:
    """The first line of an error, cut short."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _tensors(arguments: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            argument.name,
            argument.type.removeprefix("tensor(").removesuffix(")"),
            tuple(side if isinstance(side, int) else None for side in argument.shape),
        )
        for argument in arguments
    )
