"""The GPU itself: memory, a stream, copies, timing, graphs. Only this file knows cuda-python and pycuda."""

from __future__ import annotations

import ctypes
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from edge_kp.errors import BackendError
from edge_kp.extras import install
from edge_kp.types import Array

NO_LIBRARY = f"no library to reach the GPU: {install('gpu')} (or pip install cuda-python, or pycuda)"
NO_DRIVER = (
    "no NVIDIA GPU here, or no driver for it: install that (a Jetson has it from JetPack) and try nvidia-smi,"
    " or use --backend onnxruntime"
)
NO_GPU = (
    "the driver finds no GPU: try nvidia-smi and look at CUDA_VISIBLE_DEVICES, or use --backend onnxruntime"
)


@dataclass(frozen=True)
class Gpu:
    """What an engine is built for.

    Attributes:
        name: e.g. ``Orin``; None for any GPU of that compute capability.
        compute_capability: e.g. ``8.7``.
    """

    name: str | None
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name or 'any GPU'} of compute capability {self.compute_capability}"


@dataclass(frozen=True)
class Graph:
    """Work that was captured once; to be closed before the device it came from.

    Attributes:
        launch: enqueues all of it on the device's stream.
        close: frees it.
    """

    launch: Callable[[], None]
    close: Callable[[], None]


class Device(ABC):
    """The first GPU; one thread at a time may use it.

    Memory is the device's own: it stays until :meth:`close`. Every method raises BackendError where CUDA
    reports an error.

    Attributes:
        library: ``cuda-python`` or ``pycuda``.
        gpu: the GPU's name and compute capability.
        driver: newest CUDA version that the driver supports, e.g. ``12.6``.
        stream: handle of the device's stream, as TensorRT takes it.
    """

    library: str
    gpu: Gpu
    driver: str
    stream: int

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes on the GPU, aligned to 256."""

    @abstractmethod
    def host_array(self, size: int) -> Array:
        """uint8 (size,) in page-locked memory; not to be used after :meth:`close`."""

    @abstractmethod
    def upload(self, array: Array, address: int) -> None:
        """Enqueue a copy of a whole page-locked array to the GPU."""

    @abstractmethod
    def download(self, address: int, array: Array) -> None:
        """Enqueue a copy from the GPU that fills a page-locked array."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything on the stream."""

    @abstractmethod
    def seconds(self, work: Callable[[], None]) -> float:
        """Time on the GPU of what ``work`` enqueues, between two events; waits for it."""

    @abstractmethod
    def capture(self, work: Callable[[], None]) -> Graph:
        """What ``work`` enqueues, as a graph; nothing of it runs now.

        Raises:
            BackendError: the work cannot be captured, or the library has no graphs.
        """

    def refuse_other_threads(self) -> None:  # noqa: B027 - most libraries serve every thread
        """
        Raises:
            BackendError: the device serves the thread that opened it alone, and this is another.
        """

    @abstractmethod
    def close(self) -> None:
        """Free all memory and the stream; a second call does nothing."""

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CudaPythonDevice(Device):
    """Through cuda-python 12 or 13; all of its users in a process share the GPU's primary context.

    Args:
        runtime: the module ``cuda.bindings.runtime``, or ``cuda.cudart`` of older versions.
    """

    library = "cuda-python"

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        self._open = ExitStack()
        try:
            version = self._call("cudaDriverGetVersion")
            self.driver = _version(version)
            if version == 0:
                raise BackendError(NO_DRIVER)
            if self._call("cudaGetDeviceCount") == 0:
                raise BackendError(NO_GPU)
        except RuntimeError as error:  # cuda-python 12 finds no libcuda
            raise BackendError(NO_DRIVER) from error
        try:
            self._call("cudaSetDevice", 0)
            properties = self._call("cudaGetDeviceProperties", 0)
            self.gpu = Gpu(properties.name.decode(), f"{properties.major}.{properties.minor}")
            self._stream = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
            self._open.callback(self._cuda.cudaStreamDestroy, self._stream)
            self.stream = int(self._stream)
            self._events = []
            for _ in range(2):
                self._events.append(self._call("cudaEventCreate"))
                self._open.callback(self._cuda.cudaEventDestroy, self._events[-1])
        except BaseException:
            self.close()
            raise

    def _call(self, function: str, *args: Any, asked: str = "memory") -> Any:
        """The one result of a CUDA function, or None; ``asked`` tells what memory is wanted."""
        code, *values = getattr(self._cuda, function)(*args)
        errors = self._cuda.cudaError_t
        if code == errors.cudaSuccess:
            return values[0] if values else None
        if code == errors.cudaErrorMemoryAllocation:
            raise BackendError(_out_of_memory(asked))
        if code == errors.cudaErrorNoDevice:
            raise BackendError(NO_GPU)
        if code == errors.cudaErrorInsufficientDriver:
            raise BackendError(
                f"the NVIDIA driver supports CUDA {self.driver}, too old for this cuda-python: update the"
                f" driver, or pip install 'cuda-python=={self.driver.split('.')[0]}.*'"
            )
        text = self._cuda.cudaGetErrorString(code)[1].decode()
        raise BackendError(_failed(function, f"{code.name}: {text}"))

    def allocate(self, size: int) -> int:
        address = self._call("cudaMalloc", size, asked=_size(size))
        self._open.callback(self._cuda.cudaFree, address)
        return int(address)

    def host_array(self, size: int) -> Array:
        address = self._call("cudaHostAlloc", size, 0, asked=f"{_size(size)} of page-locked memory")
        self._open.callback(self._cuda.cudaFreeHost, address)
        return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))

    def upload(self, array: Array, address: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def download(self, address: int, array: Array) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def seconds(self, work: Callable[[], None]) -> float:
        start, end = self._events
        self._call("cudaEventRecord", start, self._stream)
        work()
        self._call("cudaEventRecord", end, self._stream)
        self._call("cudaEventSynchronize", end)
        return float(self._call("cudaEventElapsedTime", start, end)) / 1000

    def capture(self, work: Callable[[], None]) -> Graph:
        # Other threads may go on using the GPU meanwhile: only this one must not wait or allocate.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            # Whatever went wrong: a stream that is left in capture could never be used again.
            _, graph = self._cuda.cudaStreamEndCapture(self._stream)
            if graph is not None:
                self._cuda.cudaGraphDestroy(graph)
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            instance = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._cuda.cudaGraphDestroy(graph)
        return Graph(
            launch=lambda: self._call("cudaGraphLaunch", instance, self._stream),
            close=lambda: self._cuda.cudaGraphExecDestroy(instance),
        )

    def close(self) -> None:
        self._open.close()


class PycudaDevice(Device):
    """Through pycuda, on the GPU's primary context; it has no graphs.

    That context is current in the calling thread alone: other threads are refused.

    Args:
        driver: the module ``pycuda.driver``.
    """

    library = "pycuda"

    def __init__(self, driver: Any) -> None:
        self._cuda = driver
        self._thread = threading.get_ident()
        self._open = ExitStack()
        try:
            with self._told("opening the GPU"):
                driver.init()
                if driver.Device.count() == 0:
                    raise BackendError(NO_GPU)
                self.driver = _version(driver.get_driver_version())
                device = driver.Device(0)
                major, minor = device.compute_capability()
                self.gpu = Gpu(device.name(), f"{major}.{minor}")
                # The context that TensorRT uses, too. It lives until the last thing made in it is gone.
                device.retain_primary_context().push()
                self._open.callback(driver.Context.pop)
                self._stream = driver.Stream(1)  # CU_STREAM_NON_BLOCKING
                self.stream = int(self._stream.handle)
                self._events = [driver.Event(), driver.Event()]
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _told(self, doing: str, asked: str = "memory") -> Iterator[None]:
        """CUDA's errors as one line; ``asked`` tells what memory is wanted."""
        self.refuse_other_threads()
        try:
            yield
        except self._cuda.MemoryError as error:
            raise BackendError(_out_of_memory(asked)) from error
        except self._cuda.Error as error:
            text = str(error).partition("\n")[0]
            raise BackendError(NO_GPU if "no CUDA-capable" in text else _failed(doing, text)) from error

    def allocate(self, size: int) -> int:
        with self._told("cuMemAlloc", _size(size)):
            memory = self._cuda.mem_alloc(size)
        self._open.callback(memory.free)
        return int(memory)

    def host_array(self, size: int) -> Array:
        with self._told("cuMemHostAlloc", f"{_size(size)} of page-locked memory"):
            array: Array = self._cuda.pagelocked_empty((size,), np.uint8)
        self._open.callback(array.base.free)  # type: ignore[union-attr]
        return array

    def upload(self, array: Array, address: int) -> None:
        with self._told("cuMemcpyHtoDAsync"):
            self._cuda.memcpy_htod_async(address, array, self._stream)

    def download(self, address: int, array: Array) -> None:
        with self._told("cuMemcpyDtoHAsync"):
            self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        with self._told("cuStreamSynchronize"):
            self._stream.synchronize()

    def seconds(self, work: Callable[[], None]) -> float:
        start, end = self._events
        with self._told("cuEventRecord"):
            start.record(self._stream)
            work()
            end.record(self._stream)
            end.synchronize()
            return float(start.time_till(end)) / 1000

    def capture(self, work: Callable[[], None]) -> Graph:
        raise BackendError("pycuda has no CUDA graphs: pip install cuda-python")

    def refuse_other_threads(self) -> None:
        if threading.get_ident() != self._thread:
            raise BackendError(
                "pycuda's context belongs to the thread that made the detector: use and close it there, or"
                " pip install cuda-python"
            )

    def close(self) -> None:
        self.refuse_other_threads()
        self._stream, self._events = None, []  # pycuda frees what nothing names, with the context still there
        self._open.close()


def open_device() -> Device:
    """The first GPU, through cuda-python or else pycuda.

    Raises:
        BackendError: neither is installed, no driver, no GPU, or no memory left on it.
    """
    if (runtime := _cuda_python()) is not None:
        return CudaPythonDevice(runtime)
    if (driver := _pycuda()) is not None:
        return PycudaDevice(driver)
    raise BackendError(NO_LIBRARY if has_driver() else NO_DRIVER)


def find_gpu() -> Gpu:
    """The first GPU; raises as :func:`open_device` does."""
    with open_device() as device:
        return device.gpu


def _cuda_python() -> Any:
    try:
        from cuda.bindings import runtime
    except ModuleNotFoundError:
        try:
            from cuda import cudart  # before 12.6
        except ImportError:
            return None
        return cudart
    except ImportError as error:
        raise BackendError(f"cuda-python cannot be loaded ({error}): install it again") from error
    return runtime


def _pycuda() -> Any:
    try:
        import pycuda.driver
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        if "libcuda" in str(error):
            raise BackendError(NO_DRIVER) from error
        raise BackendError(f"pycuda cannot be loaded ({error}): install it again") from error
    return pycuda.driver


def has_driver() -> bool:
    """Is there an NVIDIA driver? Without one no library helps."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _version(number: int) -> str:
    """12060 → 12.6."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _out_of_memory(asked: str) -> str:
    return (
        f"GPU out of memory, {asked} asked for: close other programs that use it, or build the engine for"
        " smaller batches (edge_kp.build_engine --batch 1)"
    )


def _failed(doing: str, text: str) -> str:
    return f"CUDA failed in {doing} ({text}): try nvidia-smi, and restart the program"
