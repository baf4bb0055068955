"""TensorRT and TensorRT-RTX on an NVIDIA GPU. The only file of the package that imports them."""

from __future__ import annotations

import importlib
import logging
import math
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.backends.base import Backend, closed
from edge_kp.backends.building import cause, listen, started
from edge_kp.backends.cuda import Device, Graph, find_gpu, open_device
from edge_kp.backends.engines import cached_engine
from edge_kp.backends.sidecar import EngineInfo, beside, build_command, check_engine, library_name, sidecar
from edge_kp.errors import BackendError
from edge_kp.files import replacing
from edge_kp.types import Array

LIBRARIES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
_ALIGNED = 256  # bytes; TensorRT wants every tensor to begin at a multiple

log = logging.getLogger(__name__)


def load_tensorrt() -> Any:
    """The module of TensorRT 10.3 or later, or else of TensorRT-RTX.

    Raises:
        BackendError: neither is installed, or the one that is cannot be loaded or is too old.
    """
    for name in LIBRARIES:
        try:
            trt = importlib.import_module(name)
        except (ImportError, OSError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                continue
            step = "install it again"
            if "libnvdla_compiler" in str(error):  # of a Jetson: TensorRT's packages do not ask for it
                step = "sudo apt install nvidia-l4t-dla-compiler"
            raise BackendError(f"{name} cannot be loaded ({error}): {step}") from error
        if hasattr(trt, "__path__") and getattr(trt, "__file__", None) is None:
            continue  # a mere folder of that name, as one of engines may be called
        kinds = trt.NetworkDefinitionCreationFlag
        if hasattr(kinds, "EXPLICIT_BATCH") and not hasattr(kinds, "STRONGLY_TYPED"):
            raise BackendError(
                f"{name} {trt.__version__} is too old: update it (or JetPack) to 10.3 or later"
            )
        return trt
    raise BackendError(
        "TensorRT is not installed: pip install tensorrt (on a Jetson JetPack brings it: make the venv with"
        " --system-site-packages), or for a desktop GPU pip install tensorrt-rtx"
    )


def open_tensorrt(onnx: Path, precision: str) -> TensorRTBackend:
    """The engine of an ONNX file: the one beside it, or one that is built once and kept in a cache.

    Raises:
        BackendError: the engine beside the file does not fit, or there is none and it cannot be built, or the
            GPU cannot be used.
    """
    engine = beside(onnx)
    if not engine.exists():
        engine = cached_engine(load_tensorrt(), onnx, precision, find_gpu())
    return TensorRTBackend(engine, onnx, precision)


class TensorRTBackend(Backend):
    """An engine on the first GPU, with memory, a stream and a context of its own for each of its batch sizes.

    Args:
        engine: file that ``python -m edge_kp.build_engine`` or :func:`open_tensorrt` built.
        onnx: the file it was built from, which is compared with the sidecar's hash.
        precision: that of the ONNX file.
        graphs: replay runs as CUDA graphs where that can be done; False measures what they gain.

    Attributes:
        batches: the batch sizes it runs, smallest first.
        captured: those of them whose runs are replayed as CUDA graphs.
        graphs: are all runs replayed as CUDA graphs?

    Raises:
        BackendError: the engine does not fit, is damaged, or the GPU cannot be used or has too little memory.
    """

    def __init__(self, engine: Path, onnx: Path, precision: str, graphs: bool = True) -> None:
        trt = load_tensorrt()
        self.name = library_name(trt)
        self.precision = precision
        self._path = engine
        self._profiles: list[_Profile] = []
        self._lock = threading.Lock()  # one call at a time: all of them share the stream and the buffers
        self._engine = self._runtime = None
        self._device: Device | None = open_device()
        try:
            info = check_engine(trt, engine, onnx, precision, self._device.gpu)
            self.device = str(self._device.gpu.name)
            self.batches, self.verified = info.batches, info.verified
            self._sha256 = info.engine_sha256
            listener = listen(trt)
            refusals = _Refusals(engine, build_command(engine, onnx, precision, info.batches), listener)
            self._runtime = started(trt.Runtime, listener)
            self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
            refusals.demand(self._engine is not None, "cannot load it")
            refused: dict[int, BackendError] = {}
            for number, batch in enumerate(info.batches):
                profile = _Profile(trt, self._engine, number, self._device, refusals)
                self._profiles.append(profile)
                if graphs:
                    try:
                        profile.capture()
                    except BackendError as error:
                        refused[batch] = error
            self.captured = tuple(b for b in info.batches if graphs and b not in refused)
            self.graphs = self.captured == info.batches
            if refused:
                which = ", ".join(map(str, refused))
                of = f" batch {which}" if self.captured else ""
                why = next(iter(refused.values()))
                log.warning("%s runs%s without CUDA graphs, so slower (%s)", engine.name, of, why)
        except BaseException:
            self.close()
            raise

    def run(self, image: Array) -> dict[str, Array]:
        with self._lock:
            return self._run(image)

    def _run(self, image: Array) -> dict[str, Array]:
        if self._device is None:
            raise closed(self._path)
        shape = self._profiles[0].image.shape[1:]
        if image.dtype != np.uint8 or image.shape[1:] != shape:
            side = shape[0]
            raise ValueError(f"image: expected uint8 (B, {side}, {side}, 3), got {image.dtype} {image.shape}")
        results = {
            name: np.empty((len(image), *out.shape[1:]), np.float32)
            for name, out in self._profiles[0].outputs.items()
        }
        done = 0
        while done < len(image):
            left = len(image) - done
            profile = next((p for p in self._profiles if p.batch >= left), self._profiles[-1])
            count = min(left, profile.batch)
            profile.run(image[done : done + count])
            for name, out in profile.outputs.items():
                results[name][done : done + count] = out[:count]
            done += count
        return results

    def device_seconds(self, batch: int, count: int) -> Array:
        """Time on the GPU of each of ``count`` runs of a whole batch, without copies, by CUDA's events.

        The images are those of the last run. For steady figures leave the first ones out.

        Returns:
            (count,) float64, seconds.
        """
        with self._lock:
            if self._device is None:
                raise closed(self._path)
            profile = self._profiles[self.batches.index(batch)]
            return np.array([profile.device.seconds(profile.launch) for _ in range(count)])

    def mark_verified(self) -> None:
        """In the engine's sidecar; where that cannot be written the next process compares again."""
        self.verified = True
        with suppress(OSError, ValueError):
            info = EngineInfo.read(self._path)
            if info.engine_sha256 == self._sha256:  # it may have been built anew meanwhile
                with replacing(sidecar(self._path)) as part:
                    replace(info, verified=True).write(part)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        device = self._device
        if device is None:
            return
        device.refuse_other_threads()
        self._device = None
        with suppress(BackendError):  # the run that failed has told it; all is freed nevertheless
            device.synchronize()
        try:
            while self._profiles:
                self._profiles.pop().close()
            self._engine = None
            self._runtime = None
        finally:
            device.close()


@dataclass(frozen=True)
class _Refusals:
    """Turns a no of TensorRT into an error: its logger knows why."""

    engine: Path
    command: str
    listener: Any

    def demand(self, done: bool, what: str) -> None:
        if done:
            return
        why = cause(self.listener)
        advice = f"build it again: {self.command}"
        if "memory" in why.lower():
            advice = "close other programs on the GPU, or build it for smaller batches (--batch 1)"
        raise BackendError(f"{self.engine}: TensorRT {what} ({why}); {advice}")


class _Profile:
    """One batch size of an engine.

    Attributes:
        batch: images in a run.
        image: uint8 (batch, S, S, 3), page-locked.
        outputs: name → (batch, …) float16 or float32, page-locked: the next run overwrites them.
    """

    def __init__(self, trt: Any, engine: Any, number: int, device: Device, refusals: _Refusals) -> None:
        self.device = device
        self._demand = demand = refusals.demand
        self._graph: Graph | None = None
        self._context = _context(trt, engine)
        demand(self._context is not None, "gives no execution context")
        demand(
            self._context.set_optimization_profile_async(number, device.stream), f"has no profile {number}"
        )
        shape = tuple(engine.get_tensor_profile_shape("image", number)[2])
        demand(self._context.set_input_shape("image", shape), f"does not take images {shape}")
        self.batch = shape[0]
        self.image = device.host_array(math.prod(shape)).reshape(shape)
        self._image_address = device.allocate(self.image.nbytes)
        demand(self._context.set_tensor_address("image", self._image_address), "does not take the input")
        # All outputs lie in one piece of memory: one copy brings them back.
        tensors, size = [], 0
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                kind, shape = engine.get_tensor_dtype(name), tuple(self._context.get_tensor_shape(name))
                fits = kind in (trt.float32, trt.float16) and shape[:1] == (self.batch,) and min(shape) > 0
                demand(fits, f"has an output {name} {kind} {shape}, expected float ({self.batch}, …)")
                dtype = np.dtype(np.float32 if kind == trt.float32 else np.float16)
                end = size + dtype.itemsize * math.prod(shape)
                tensors.append((name, dtype, shape, size, end))
                size = -(-end // _ALIGNED) * _ALIGNED
        self._host = device.host_array(size)
        self._address = device.allocate(size)
        self.outputs: dict[str, Array] = {}
        for name, dtype, shape, start, end in tensors:
            demand(self._context.set_tensor_address(name, self._address + start), f"does not take {name}")
            self.outputs[name] = self._host[start:end].view(dtype).reshape(shape)
        # The first run settles what TensorRT puts off, which a capture must not see.
        self._enqueue()
        device.synchronize()

    def capture(self) -> None:
        """Replay later runs as a CUDA graph.

        Raises:
            BackendError: they cannot be captured; nothing has changed.
        """
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(self.device.stream):
            raise BackendError("TensorRT says that this engine cannot be captured")
        self._graph = self.device.capture(self._enqueue)

    def run(self, images: Array) -> None:
        """Fill :attr:`outputs` from up to ``batch`` images; rows beyond them mean nothing."""
        self.image[: len(images)] = images
        self.device.upload(self.image, self._image_address)
        self.launch()
        self.device.download(self._address, self._host)
        self.device.synchronize()

    def launch(self) -> None:
        """Enqueue one run on what lies in the GPU's memory."""
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        self._demand(self._context.execute_async_v3(self.device.stream), "does not run it")

    def close(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = None


def _context(trt: Any, engine: Any) -> Any:
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        # TensorRT-RTX else compiles the best kernels in the background, too late to be captured.
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        return engine.create_execution_context(config)
    return engine.create_execution_context()
