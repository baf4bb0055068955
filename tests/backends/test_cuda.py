"""Memory, copies, graphs and errors through cuda-python and pycuda, over modules that answer as theirs do."""

from __future__ import annotations

import ctypes
import enum
import sys
import threading
import types

import numpy as np
import pytest

import edge_kp.backends.cuda as cuda_module
from edge_kp.backends.cuda import Gpu, find_gpu, open_device
from edge_kp.errors import BackendError

CudaError = enum.IntEnum(
    "cudaError_t",
    {
        "cudaSuccess": 0,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorInsufficientDriver": 35,
        "cudaErrorNoDevice": 100,
        "cudaErrorIllegalAddress": 700,
        "cudaErrorStreamCaptureInvalidated": 901,
    },
)
OK = CudaError.cudaSuccess


class Driver:
    """What both libraries stand on: memory, one stream, captures. ``open`` counts what was not freed."""

    def __init__(self):
        self.memory, self.kinds, self.open, self.freed = {}, {}, {}, []
        self.queue, self.captured = [], None

    def new(self, kind):
        self.open[kind] = self.open.get(kind, 0) + 1

    def free(self, kind):
        self.open[kind] -= 1
        self.freed.append(kind)

    def allocate(self, kind, size):
        buffer = np.zeros(size, np.uint8)
        self.memory[buffer.ctypes.data] = buffer
        self.kinds[buffer.ctypes.data] = kind
        self.new(kind)
        return buffer.ctypes.data

    def enqueue(self, work):
        (self.queue if self.captured is None else self.captured).append(work)

    def wait(self):
        while self.queue:
            self.queue.pop(0)()

    def left(self):
        return {kind for kind, count in self.open.items() if count}


def cuda_python(driver, version=12060, fails=None, devices=1):
    """``cuda.bindings.runtime``: functions return (code, value…) and raise nothing.

    Args:
        fails: function → the code it returns.
    """
    fails = fails or {}
    module = types.ModuleType("cuda.bindings.runtime")
    module.cudaError_t = CudaError
    module.cudaStreamNonBlocking = 1
    module.cudaMemcpyKind = enum.IntEnum(
        "cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2}
    )
    module.cudaStreamCaptureMode = enum.IntEnum(
        "cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1}
    )

    class Stream:
        def __int__(self):
            return 11

    def offer(function):
        def call(*args):
            if function.__name__ in fails:
                return (fails[function.__name__], *([None] if function.__name__ in VALUES else []))
            return function(*args)

        setattr(module, function.__name__, call)

    VALUES = {"cudaGetDeviceCount", "cudaMalloc", "cudaHostAlloc", "cudaEventCreate", "cudaStreamEndCapture",
              "cudaStreamCreateWithFlags", "cudaGraphInstantiate", "cudaGetDeviceProperties"}  # fmt: skip

    @offer
    def cudaDriverGetVersion():
        return OK, version

    @offer
    def cudaGetDeviceCount():
        return OK, devices

    @offer
    def cudaSetDevice(device):
        assert device == 0
        return (OK,)

    @offer
    def cudaGetDeviceProperties(device):
        return OK, types.SimpleNamespace(name=b"Orin", major=8, minor=7)

    @offer
    def cudaStreamCreateWithFlags(flags):
        assert flags == 1
        driver.new("stream")
        return OK, Stream()

    @offer
    def cudaStreamDestroy(stream):
        driver.free("stream")
        return (OK,)

    @offer
    def cudaEventCreate():
        driver.new("event")
        return OK, [None]

    @offer
    def cudaEventDestroy(event):
        driver.free("event")
        return (OK,)

    @offer
    def cudaEventRecord(event, stream):
        driver.enqueue(lambda: event.__setitem__(0, driver.__dict__.setdefault("ran", 0)))
        return (OK,)

    @offer
    def cudaEventSynchronize(event):
        driver.wait()
        return (OK,)

    @offer
    def cudaEventElapsedTime(start, end):
        return OK, float(end[0] - start[0])

    @offer
    def cudaMalloc(size):
        return OK, driver.allocate("memory", size)

    @offer
    def cudaFree(address):
        driver.free("memory")
        return (OK,)

    @offer
    def cudaHostAlloc(size, flags):
        return OK, driver.allocate("host memory", size)

    @offer
    def cudaFreeHost(address):
        driver.free("host memory")
        return (OK,)

    @offer
    def cudaMemcpyAsync(to, source, count, kind, stream):
        host, device = (source, to) if kind == 1 else (to, source)
        assert (driver.kinds[host], driver.kinds[device]) == ("host memory", "memory")
        driver.enqueue(lambda: ctypes.memmove(to, source, count))
        return (OK,)

    @offer
    def cudaStreamSynchronize(stream):
        driver.wait()
        return (OK,)

    @offer
    def cudaStreamBeginCapture(stream, mode):
        assert driver.captured is None
        driver.captured = []
        return (OK,)

    def cudaStreamEndCapture(stream):  # leaves capture mode, even where it fails
        work, driver.captured = driver.captured, None
        if "cudaStreamEndCapture" in fails:
            return fails["cudaStreamEndCapture"], None
        driver.new("graph")
        return OK, work

    module.cudaStreamEndCapture = cudaStreamEndCapture

    @offer
    def cudaGraphInstantiate(graph, flags):
        driver.new("instance")
        return OK, graph

    @offer
    def cudaGraphDestroy(graph):
        driver.free("graph")
        return (OK,)

    @offer
    def cudaGraphExecDestroy(instance):
        driver.free("instance")
        return (OK,)

    @offer
    def cudaGraphLaunch(instance, stream):
        for work in instance:
            driver.enqueue(work)
        return (OK,)

    @offer
    def cudaGetErrorString(code):
        return OK, b"an illegal memory access was encountered"

    return module


def pycuda(driver, fails=None, devices=1):
    """``pycuda.driver``: raises its own exceptions, with the name of the function and a text."""
    fails = fails or {}
    module = types.ModuleType("pycuda.driver")
    module.Error = type("Error", (Exception,), {})
    module.MemoryError = type("MemoryError", (module.Error,), {})
    module.RuntimeError = type("RuntimeError", (module.Error,), {})

    def fail(function):
        if function in fails:
            kind, text = fails[function]
            raise getattr(module, kind)(f"{function} failed: {text}")

    class Allocation:
        def __init__(self, size):
            fail("cuMemAlloc")
            self.address = driver.allocate("memory", size)

        def __int__(self):
            return self.address

        def free(self):
            driver.free("memory")

    class HostAllocation:
        def __init__(self, shape, dtype):
            address = driver.allocate("host memory", int(np.prod(shape)) * np.dtype(dtype).itemsize)
            self.__array_interface__ = {
                "shape": shape,
                "typestr": np.dtype(dtype).str,
                "data": (address, False),
                "version": 3,
            }

        def free(self):
            driver.free("host memory")

    def pagelocked_empty(shape, dtype):
        fail("cuMemHostAlloc")
        return np.asarray(HostAllocation(shape, dtype))

    class Resource:
        kind = ""

        def __init__(self, *flags):
            driver.new(self.kind)

        def __del__(self):
            if driver.open.get("context"):
                driver.free(self.kind)

    class Stream(Resource):
        kind, handle = "stream", 11

        def synchronize(self):
            fail("cuStreamSynchronize")
            driver.wait()

    class Event(Resource):
        kind, at = "event", None

        def record(self, stream):
            driver.enqueue(lambda: setattr(self, "at", driver.__dict__.setdefault("ran", 0)))

        def synchronize(self):
            driver.wait()

        def time_till(self, other):
            return float(other.at - self.at)

    def memcpy_htod_async(address, array, stream):
        assert driver.kinds[array.ctypes.data] == "host memory"
        driver.enqueue(lambda: ctypes.memmove(address, array.ctypes.data, array.nbytes))

    def memcpy_dtoh_async(array, address, stream):
        driver.enqueue(lambda: ctypes.memmove(array.ctypes.data, address, array.nbytes))

    class Device:
        def __init__(self, number):
            assert number == 0

        @staticmethod
        def count():
            return devices

        name = staticmethod(lambda: "Orin")
        compute_capability = staticmethod(lambda: (8, 7))

        def retain_primary_context(self):
            return types.SimpleNamespace(push=lambda: driver.new("context"))

    module.init = lambda: fail("cuInit")
    module.get_driver_version = lambda: 12060
    module.Device, module.Stream, module.Event = Device, Stream, Event
    module.Context = types.SimpleNamespace(pop=lambda: driver.free("context"))
    module.mem_alloc, module.pagelocked_empty = Allocation, pagelocked_empty
    module.memcpy_htod_async, module.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async
    return module


def install(monkeypatch, **modules):
    """``cuda_python=``, ``cudart=`` or ``pycuda=``: the libraries that are there; the others are not."""
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    places = {
        "cuda_python": ("cuda", "bindings", "runtime"),
        "cudart": ("cuda", "cudart"),
        "pycuda": ("pycuda", "driver"),
    }
    for library, module in modules.items():
        place = places[library]
        above = None
        for depth in range(1, len(place) + 1):
            name = ".".join(place[:depth])
            if depth == len(place):
                part = module
            else:
                part = types.ModuleType(name)
                part.__path__ = []
            monkeypatch.setitem(sys.modules, name, part)
            if above is not None:
                setattr(above, place[depth - 1], part)
            above = part


@pytest.fixture
def driver():
    return Driver()


@pytest.fixture(params=["cuda_python", "cudart", "pycuda"])
def library(request, monkeypatch, driver):
    module = pycuda(driver) if request.param == "pycuda" else cuda_python(driver)
    install(monkeypatch, **{request.param: module})
    return request.param


def test_the_device_tells_what_it_is(library, driver):
    with open_device() as device:
        assert device.library == ("pycuda" if library == "pycuda" else "cuda-python")
        assert device.gpu == Gpu("Orin", "8.7")
        assert device.driver == "12.6"
        assert device.stream == 11
    assert find_gpu() == Gpu("Orin", "8.7")
    assert driver.left() == set()


def test_copies_are_enqueued_and_arrive(library):
    with open_device() as device:
        there, back = device.host_array(24), device.host_array(24)
        address = device.allocate(24)
        numbers = there.view(np.float32).reshape(2, 3)
        numbers[:] = [[1, 2, 3], [4, 5, 6]]
        device.upload(numbers, address)
        device.download(address, back)
        assert not back.any()
        device.synchronize()
        np.testing.assert_array_equal(back.view(np.float32), [1, 2, 3, 4, 5, 6])


def test_closing_frees_everything_once_and_the_context_last(library, driver):
    device = open_device()
    device.allocate(8)
    device.host_array(8)
    device.allocate(8)
    device.close()
    device.close()
    assert driver.left() == set()
    assert driver.freed[-1] == ("context" if library == "pycuda" else "stream")
    assert driver.freed.count("memory") == 2


def test_time_on_the_gpu_is_in_seconds(library, driver):
    def work():
        driver.enqueue(lambda: setattr(driver, "ran", 250))

    driver.ran = 0
    with open_device() as device:
        assert device.seconds(work) == pytest.approx(0.25)


def test_a_capture_runs_nothing_and_a_launch_all_of_it(monkeypatch, driver):
    install(monkeypatch, cuda_python=cuda_python(driver))
    ran = []
    with open_device() as device:
        graph = device.capture(lambda: driver.enqueue(lambda: ran.append(1)))
        device.synchronize()
        assert ran == []
        for _ in range(3):
            graph.launch()
        device.synchronize()
        assert ran == [1, 1, 1]
        graph.close()
    assert driver.left() == set()


def test_a_failed_capture_leaves_the_stream_usable(monkeypatch, driver):
    install(monkeypatch, cuda_python=cuda_python(driver))

    def work():
        driver.enqueue(lambda: None)
        raise BackendError("no")

    with open_device() as device:
        with pytest.raises(BackendError, match=r"^no$"):
            device.capture(work)
        assert driver.captured is None
        device.capture(lambda: None).close()
    assert driver.left() == set()


@pytest.mark.parametrize("function", ["cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_capture_that_cuda_refuses_is_told(function, monkeypatch, driver):
    code = CudaError.cudaErrorStreamCaptureInvalidated
    install(monkeypatch, cuda_python=cuda_python(driver, fails={function: code}))
    with open_device() as device:
        with pytest.raises(BackendError, match=f"{function}.*cudaErrorStreamCaptureInvalidated"):
            device.capture(lambda: None)
        assert driver.captured is None
    assert driver.left() == set()


def test_pycuda_says_that_it_has_no_graphs(monkeypatch, driver):
    install(monkeypatch, pycuda=pycuda(driver))
    with open_device() as device, pytest.raises(BackendError, match="pip install cuda-python"):
        device.capture(lambda: None)


def test_pycuda_refuses_another_thread_than_its_own(monkeypatch, driver):
    install(monkeypatch, pycuda=pycuda(driver))
    refused = []

    def work(device, address, host):
        for call in (lambda: device.upload(host, address), device.synchronize, device.close):
            with pytest.raises(BackendError, match="thread that made the detector") as error:
                call()
            refused.append(one_line(error))

    with open_device() as device:
        there = device.allocate(8), device.host_array(8)
        thread = threading.Thread(target=work, args=(device, *there))
        thread.start()
        thread.join()
        assert len(refused) == 3
        device.upload(there[1], there[0])  # nothing was taken away
    assert driver.left() == set()


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (CudaError.cudaErrorNoDevice, ("finds no GPU", "nvidia-smi")),
        (
            CudaError.cudaErrorInsufficientDriver,
            ("supports CUDA 12.6", "update the driver", "cuda-python==12.*"),
        ),
        (CudaError.cudaErrorMemoryAllocation, ("out of memory", "close other programs")),
        (
            CudaError.cudaErrorIllegalAddress,
            ("cudaGetDeviceCount", "cudaErrorIllegalAddress: an illegal memory"),
        ),
    ],
)
def test_why_the_gpu_does_not_open(code, words, monkeypatch, driver):
    install(monkeypatch, cuda_python=cuda_python(driver, fails={"cudaGetDeviceCount": code}))
    with pytest.raises(BackendError) as error:
        open_device()
    assert all(word in one_line(error) for word in words)


def test_a_machine_without_a_driver(monkeypatch, driver):
    code = CudaError.cudaErrorInsufficientDriver  # as cuda-python 13 says it
    install(monkeypatch, cuda_python=cuda_python(driver, 0, fails={"cudaGetDeviceCount": code}))
    with pytest.raises(BackendError, match="no NVIDIA GPU here, or no driver for it: install that"):
        open_device()
    module = cuda_python(driver)

    def no_driver():
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    module.cudaDriverGetVersion = no_driver  # as cuda-python 12 says it
    install(monkeypatch, cuda_python=module)
    with pytest.raises(BackendError, match="no NVIDIA GPU here, or no driver for it: install that"):
        open_device()


@pytest.mark.parametrize("kind", ["cuda_python", "pycuda"])
def test_no_gpu_at_all(kind, monkeypatch, driver):
    make = {"cuda_python": cuda_python, "pycuda": pycuda}[kind]
    install(monkeypatch, **{kind: make(driver, devices=0)})
    with pytest.raises(BackendError, match="finds no GPU"):
        open_device()
    assert driver.left() == set()


def test_no_gpu_as_pycuda_says_it(monkeypatch, driver):
    fails = {"cuInit": ("RuntimeError", "no CUDA-capable device is detected")}
    install(monkeypatch, pycuda=pycuda(driver, fails))
    with pytest.raises(BackendError, match="finds no GPU"):
        open_device()


@pytest.mark.parametrize("where", ["cudaMalloc", "cudaHostAlloc"])
def test_out_of_memory_says_how_much_was_asked(where, monkeypatch, driver):
    fails = {where: CudaError.cudaErrorMemoryAllocation}
    install(monkeypatch, cuda_python=cuda_python(driver, fails=fails))
    with open_device() as device, pytest.raises(BackendError) as error:
        (device.allocate if where == "cudaMalloc" else device.host_array)(3 * 2**19)
    text = one_line(error)
    assert "out of memory, 1.5 MiB" in text
    assert "--batch" in text
    assert ("page-locked" in text) == (where == "cudaHostAlloc")
    assert driver.left() == set()


@pytest.mark.parametrize("where", ["cuMemAlloc", "cuMemHostAlloc"])
def test_out_of_memory_through_pycuda(where, monkeypatch, driver):
    install(monkeypatch, pycuda=pycuda(driver, {where: ("MemoryError", "out of memory")}))
    with open_device() as device, pytest.raises(BackendError) as error:
        (device.allocate if where == "cuMemAlloc" else device.host_array)(3 * 2**19)
    assert "out of memory, 1.5 MiB" in one_line(error)


@pytest.mark.parametrize("library", ["cuda_python", "pycuda"])
def test_what_goes_wrong_in_a_run_is_one_line(library, monkeypatch, driver):
    text = "an illegal memory access was encountered"
    if library == "pycuda":
        fails = {"cuStreamSynchronize": ("Error", f"{text}\nPyCUDA WARNING: more")}
        install(monkeypatch, pycuda=pycuda(driver, fails))
    else:
        fails = {"cudaStreamSynchronize": CudaError.cudaErrorIllegalAddress}
        install(monkeypatch, cuda_python=cuda_python(driver, fails=fails))
    with open_device() as device, pytest.raises(BackendError, match=f"Synchronize.*{text}.*restart") as error:
        device.synchronize()
    one_line(error)


@pytest.mark.parametrize(
    "function", ["cudaGetDeviceProperties", "cudaStreamCreateWithFlags", "cudaEventCreate"]
)
def test_a_device_that_opens_only_half_is_closed(function, monkeypatch, driver):
    fails = {function: CudaError.cudaErrorMemoryAllocation}
    install(monkeypatch, cuda_python=cuda_python(driver, fails=fails))
    with pytest.raises(BackendError, match="out of memory"):
        open_device()
    assert driver.left() == set()


def test_cuda_python_comes_first(monkeypatch, driver):
    install(monkeypatch, cuda_python=cuda_python(driver), pycuda=pycuda(driver))
    with open_device() as device:
        assert device.library == "cuda-python"


def test_no_library_names_both_where_there_is_a_driver_to_use(monkeypatch):
    install(monkeypatch)
    opened = []
    monkeypatch.setattr(cuda_module.ctypes, "CDLL", lambda name: opened.append(name))
    with pytest.raises(BackendError, match=r"pip install cuda-python, or pycuda"):
        open_device()
    assert opened in (["libcuda.so.1"], ["nvcuda.dll"])

    def none(name):
        raise OSError(name)

    monkeypatch.setattr(cuda_module.ctypes, "CDLL", none)
    with pytest.raises(BackendError, match="no NVIDIA GPU here"):
        open_device()


def test_a_library_that_is_there_but_does_not_load_is_not_passed_over(monkeypatch, driver, tmp_path):
    install(monkeypatch, pycuda=pycuda(driver))
    broken = tmp_path / "cuda" / "bindings"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "runtime.py").write_text("raise ImportError('undefined symbol: x')")
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError, match=r"cuda-python cannot be loaded \(undefined symbol: x\)"):
        open_device()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("libcuda.so.1: cannot open shared object file", "no NVIDIA GPU here, or no driver for it"),
        ("undefined symbol: cuCtx", r"pycuda cannot be loaded \(undefined symbol: cuCtx\)"),
    ],
)
def test_pycuda_that_does_not_load(text, words, monkeypatch, tmp_path):
    install(monkeypatch)
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text(f"raise ImportError({text!r})")
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError, match=words):
        open_device()
