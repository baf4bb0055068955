"""OpenVINO on the CPU: optional, and faster than ONNX Runtime on x86."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino as ov

from edge_kp.backends.base import Backend, check_weights, closed
from edge_kp.errors import BackendError
from edge_kp.extras import installed
from edge_kp.types import Array

if not installed("openvino"):  # a mere folder of that name, as one of models may be called
    raise ImportError("not installed")


class OpenVinoBackend(Backend):
    """An ONNX file in OpenVINO, compiled for one image at a time; a batch is run image by image.

    Args:
        threads: inference threads; None leaves the choice to OpenVINO.
        bfloat16: compute in 16 bits what the file has in FP32, where the processor has instructions for that
            (AVX-512 BF16, AMX), on one thread: for a small network. Coordinates are then right to about a
            five-hundredth of the crop.

    Raises:
        BackendError: OpenVINO cannot load the file.
    """

    name = "openvino"
    device = "CPU"

    def __init__(
        self, path: Path, precision: str = "fp32", threads: int | None = None, bfloat16: bool = False
    ) -> None:
        self.precision = precision
        self._path = path
        # Left to itself OpenVINO takes bfloat16 where the processor has it.
        config: dict[str, str | int | bool] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            with _signal_stack_kept():
                core = ov.Core()
                if bfloat16 and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                    config["INFERENCE_PRECISION_HINT"] = "bf16"
                    # How many threads there are would change the results, and two take longer than one.
                    config["INFERENCE_NUM_THREADS"] = 1
                model = core.read_model(path)
                # Compiled, an output may bear the name of the one it is computed from as well.
                self._outputs = [output.any_name for output in model.outputs]
                image = model.input("image")
                shape = image.partial_shape
                if image.element_type != ov.Type.u8 or len(shape) != 4 or shape[1].is_dynamic:
                    raise BackendError(
                        f"{path}: expected one input image uint8 (B, S, S, 3), got {image.element_type}"
                        f" {shape}; export the model again"
                    )
                model.reshape({"image": ov.PartialShape([1, *list(shape)[1:]])})
                compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            check_weights(path)
            raise BackendError(
                f"{path}: OpenVINO cannot load it ({_cause(error)}); export the model again"
            ) from error
        self._lock = threading.Lock()  # one call at a time: all of them share the request and its tensors
        self._request: ov.InferRequest | None = compiled.create_infer_request()
        # Tensors that stay: naming the input in each call costs a tenth of a millisecond.
        self._image = np.empty([1, *(d.get_length() for d in list(shape)[1:])], np.uint8)
        self._request.set_input_tensor(ov.Tensor(self._image, shared_memory=True))
        self._values = [self._request.get_output_tensor(i).data for i in range(len(self._outputs))]

    def run(self, image: Array) -> dict[str, Array]:
        with self._lock:
            return self._run(image)

    def _run(self, image: Array) -> dict[str, Array]:
        if self._request is None:
            raise closed(self._path)
        if image.dtype != np.uint8 or image.shape[1:] != self._image.shape[1:]:
            side = self._image.shape[1]
            raise BackendError(
                f"{self._path}: expected uint8 (B, {side}, {side}, 3), got {image.dtype} {image.shape}"
            )
        rows = [self._run_one(self._request, picture) for picture in image]
        if len(rows) != 1:
            columns = zip(self._values, *rows, strict=True)
            rows = [[np.concatenate([value[:0], *parts]) for value, *parts in columns]]
        return dict(zip(self._outputs, rows[0], strict=True))

    def _run_one(self, request: ov.InferRequest, picture: Array) -> list[Array]:
        self._image[0] = picture
        try:
            request.infer()
        except RuntimeError as error:
            raise BackendError(f"{self._path}: OpenVINO cannot run it ({_cause(error)})") from error
        return [value.copy() for value in self._values]

    def close(self) -> None:
        with self._lock, _signal_stack_kept():
            self._values = []  # they are parts of the request
            self._request = None


def _cause(error: Exception) -> str:
    """The last line of an error, which says what the others lead to, cut short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Leave the thread's stack for signals as it was.

    OpenVINO replaces it by one of its own. Where several networks are freed in another order than they came,
    that one is left in use after its memory is gone, and the next Ctrl-C is a crash.
    """
    if sys.platform != "linux":
        yield
        return
    library = ctypes.CDLL(None)
    before = _SignalStack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux, see sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))
