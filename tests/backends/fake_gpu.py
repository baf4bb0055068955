"""A GPU and a TensorRT of numpy and ONNX Runtime, with the manners of the real ones.

What is enqueued on a stream happens when the stream is waited for, a capture enqueues nothing, memory is
rubbish after it was freed, and TensorRT says no by returning None or False while its logger tells the reason.
"""

from __future__ import annotations

import bisect
import enum
import json
import math
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edge_kp.backends.cuda import Device, Gpu, Graph, _out_of_memory, _size
from edge_kp.errors import BackendError

SIZE, POINTS = 16, 5


def write_onnx(path: Path, half: bool = False, seed: int = 0, zero_point: int | None = None) -> Path:
    """A network with the contract of a stage: image uint8 (B, 16, 16, 3) → keypoints (B, 5, 2), score (B,).

    Args:
        half: compute and return float16.
        zero_point: quantise the image with this one; None for not at all.
    """
    rng = np.random.default_rng(seed)
    real = np.float16 if half else np.float32
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    constants = {
        "scale": np.array([1 / 255], real),
        "kernel": (rng.standard_normal((8, 3, 3, 3)) * 0.5).astype(real),
        "points": rng.standard_normal((8, 2 * POINTS)).astype(real),
        "shape": np.array([-1, POINTS, 2], np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=kind),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["x"]),
        helper.make_node("Conv", ["x", "kernel"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("GlobalAveragePool", ["z"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "points"], ["list"]),
        helper.make_node("Reshape", ["list", "shape"], ["keypoints"]),
        helper.make_node("ReduceMean", ["list", "axis"], ["score"], keepdims=0),
    ]
    if zero_point is not None:
        constants |= {"step": np.float32(0.01), "zero": np.int8(zero_point), "none": np.int8(0)}
        constants["kernel"] = np.clip(np.round(constants["kernel"] / 0.01), -127, 127).astype(np.int8)
        nodes[3].input[:] = ["xq", "k"]
        nodes.insert(3, helper.make_node("DequantizeLinear", ["kernel", "step", "none"], ["k"]))
        nodes.insert(3, helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]))
        nodes.insert(4, helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["xq"]))
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("keypoints", kind, ["batch", POINTS, 2]),
            helper.make_tensor_value_info("score", kind, ["batch"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


class FakeDevice(Device):
    """Memory is numpy's; ``log`` tells what happened, in order.

    Args:
        memory: bytes there are.
        graphs: False for a library that has none.
    """

    library, driver = "cuda-python", "12.6"

    def __init__(self, gpu: Gpu, log: list[str], stream: int = 7, memory: int = 2**30, graphs: bool = True):
        self.gpu, self.log, self.stream = gpu, log, stream
        self._left, self._graphs = memory, graphs
        self._memory: dict[int, np.ndarray] = {}
        self._host: list[np.ndarray] = []
        self._pending: list[Callable[[], None]] = []
        self._captured: list[Callable[[], None]] | None = None
        self._open = True
        log.append("device opened")

    def allocate(self, size: int) -> int:
        if size > self._left:
            raise BackendError(_out_of_memory(_size(size)))
        self._left -= size
        address = 4096 * (1 + len(self._memory)) * 1000
        assert size < 4096 * 1000
        self._memory[address] = np.full(size, 0xA5, np.uint8)
        return address

    def host_array(self, size: int) -> np.ndarray:
        self._host.append(np.full(size, 0x5A, np.uint8))
        return self._host[-1]

    def at(self, address: int, size: int) -> np.ndarray:
        bases = sorted(self._memory)
        base = bases[bisect.bisect(bases, address) - 1]
        assert 0 <= address - base <= len(self._memory[base]) - size, "outside of its memory"
        return self._memory[base][address - base : address - base + size]

    def enqueue(self, work: Callable[[], None]) -> None:
        assert self._open, "used after it was closed"
        (self._pending if self._captured is None else self._captured).append(work)

    def _page_locked(self, array: np.ndarray) -> np.ndarray:
        assert array.flags.c_contiguous
        assert any(np.shares_memory(array, host) for host in self._host), "not page-locked"
        return array.reshape(-1).view(np.uint8)

    def upload(self, array: np.ndarray, address: int) -> None:
        raw = self._page_locked(array)
        self.enqueue(lambda: np.copyto(self.at(address, raw.size), raw))

    def download(self, address: int, array: np.ndarray) -> None:
        raw = self._page_locked(array)
        self.enqueue(lambda: np.copyto(raw, self.at(address, raw.size)))

    def synchronize(self) -> None:
        assert self._captured is None, "waiting is not allowed in a capture"
        if self._open:
            self.log.append("synchronised")
        while self._pending:
            self._pending.pop(0)()

    def seconds(self, work: Callable[[], None]) -> float:
        work()
        self.log.append(f"timed {len(self._pending)}")
        self.synchronize()
        return 0.001

    def capture(self, work: Callable[[], None]) -> Graph:
        if not self._graphs:
            raise BackendError("no graphs here")
        assert not self._pending, "captured while work was waiting"
        self._captured = []
        self.log.append("captured")
        try:
            work()
            return self._graph(self._captured)
        finally:
            self._captured = None

    def _graph(self, work: list[Callable[[], None]]) -> Graph:
        def launch() -> None:
            assert work, "launched after it was closed, or empty"
            self.log.append("graph launched")
            for part in work:
                self.enqueue(part)

        def close() -> None:
            self.log.append("graph closed")
            work.clear()

        return Graph(launch, close)

    def close(self) -> None:
        if self._open:
            self.log.append("device closed")
        self._open = False
        for array in (*self._memory.values(), *self._host):
            array[:] = 0xDD


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class _ILogger:
    Severity = Severity


class _Progress:
    """Base of progress monitors, as in the bindings."""


class _Timings:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class FakeTensorRT(types.ModuleType):
    """The module ``tensorrt``; its engines are a line of JSON and the ONNX file.

    Attributes:
        device: where engines run.
        log: shared with the device.
        no: what TensorRT refuses, e.g. ``context``, with the text that its logger gets.
        built: settings of the builder's config at the last build.
        off: batch size → by how much its kernels miss every result, as of a compiler that errs.
    """

    def __init__(self, log: list[str], version: str = "10.3.0") -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.log, self.device, self.no, self.built = log, None, {}, {}
        self.off: dict[int, float] = {}
        self.ILogger, self.IProgressMonitor = _ILogger, _Progress
        self.uint8, self.float32, self.float16 = "UINT8", "FLOAT", "HALF"
        self.TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
        self.NetworkDefinitionCreationFlag = enum.IntEnum("Flag", "EXPLICIT_BATCH STRONGLY_TYPED", start=0)
        self.BuilderFlag = enum.Enum("BuilderFlag", "TF32 FP16")
        self.MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
        self.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED")
        self.LayerInformationFormat = enum.Enum("LayerInformationFormat", "ONELINE JSON")
        for part in (Runtime, Engine, Context, Builder, OnnxParser, Network, Config):
            setattr(self, part.__name__, types.MethodType(part, self))

    def refuses(self, what: str, logger: Any) -> bool:
        if what in self.no:
            logger.log(Severity.ERROR, self.no[what])
            logger.log(Severity.ERROR, "and so that failed, too")
        return what in self.no


def fake_plan(path: Path, batches: list[int]) -> bytes:
    return json.dumps({"batches": batches}).encode() + b"\n" + path.read_bytes()


class Runtime:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self.trt, self.logger = trt, logger
        weakref.finalize(self, trt.log.append, "runtime freed")

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if self.trt.refuses("engine", self.logger):
            return None
        return self.trt.Engine(self, plan)


class Engine:
    def __init__(self, trt: FakeTensorRT, runtime: Runtime, plan: bytes) -> None:
        header, _, model = plan.partition(b"\n")
        self.trt, self.runtime, self.taken = trt, runtime, set()
        self.batches = json.loads(header)["batches"]
        self.session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.outputs = {o.name: o for o in self.session.get_outputs()}
        self.num_io_tensors = 1 + len(self.outputs)
        weakref.finalize(self, trt.log.append, "engine freed")

    def get_tensor_name(self, i: int) -> str:
        return ["image", *self.outputs][i]

    def get_tensor_mode(self, name: str) -> Any:
        return self.trt.TensorIOMode.INPUT if name == "image" else self.trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        kinds = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
        return "UINT8" if name == "image" else kinds[self.outputs[name].type]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name == "image"
        return [(self.batches[profile], *self.session.get_inputs()[0].shape[1:])] * 3

    def create_execution_context(self) -> Context | None:
        return None if self.trt.refuses("context", self.runtime.logger) else self.trt.Context(self)

    def create_engine_inspector(self) -> Engine:
        return self

    def get_engine_information(self, form: Any) -> str:
        assert form is self.trt.LayerInformationFormat.JSON
        suffixes = ["", *(f" [profile {i}]" for i in range(1, len(self.batches)))]
        layers = [{"Name": f"layer{i}{s}"} for s in suffixes for i in range(3 if s else 2)]
        return json.dumps({"Layers": layers, "Bindings": []})


class Context:
    def __init__(self, trt: FakeTensorRT, engine: Engine) -> None:
        self.trt, self.engine = trt, engine
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        weakref.finalize(self, trt.log.append, "context freed")

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == self.trt.device.stream
        free = profile not in self.engine.taken  # no two contexts may share a profile
        self.engine.taken.add(profile)
        self.profile = profile
        return free

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape == self.engine.get_tensor_profile_shape(name, self.profile)[1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape, "asked for a shape before the input's was set"
        return (self.shape[0], *self.engine.outputs[name].shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        device = self.trt.device
        assert stream == device.stream
        assert len(self.addresses) == self.engine.num_io_tensors
        if self.trt.refuses("run", self.engine.runtime.logger):
            return False
        where, shape, session = dict(self.addresses), self.shape, self.engine.session
        off = self.trt.off.get(shape[0], 0.0) if shape else 0.0
        # A graph keeps no context alive.
        device.enqueue(lambda: _execute(device, session, where, shape, off))
        self.trt.log.append("enqueued")
        return True


def _execute(
    device: FakeDevice, session: Any, where: dict[str, int], shape: tuple[int, ...], off: float
) -> None:
    image = device.at(where["image"], math.prod(shape)).reshape(shape)
    names = [name for name in where if name != "image"]
    for name, right in zip(names, session.run(names, {"image": image}), strict=True):
        value = right + right.dtype.type(off)
        np.copyto(
            device.at(where[name], value.nbytes), np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        )


class Network:
    def __init__(self, trt: FakeTensorRT, flags: int) -> None:
        assert flags == 1 << 1, "not strongly typed"
        self.num_inputs = 1

    def get_input(self, i: int) -> Any:
        image = self.session.get_inputs()[i]
        shape = tuple(-1 if isinstance(side, str) else side for side in image.shape)
        return types.SimpleNamespace(name=image.name, dtype="UINT8", shape=shape)


class OnnxParser:
    def __init__(self, trt: FakeTensorRT, network: Network, logger: Any) -> None:
        self.network = network

    def parse_from_file(self, path: str) -> bool:
        self.network.path = Path(path)
        self.network.session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return True


class Config:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.on, self.pools, self.profiles, self.cache = {trt.BuilderFlag.TF32}, {}, [], None
        self.progress_monitor = None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def clear_flag(self, flag: Any) -> None:
        self.on.discard(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> _Timings:
        return _Timings(content)

    def set_timing_cache(self, cache: _Timings, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if fits := not cache.content.startswith(b"another"):
            self.cache = cache
        return fits


class Builder:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        if trt.refuses("builder", logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.trt, self.logger = trt, logger

    def create_network(self, flags: int) -> Network:
        return self.trt.Network(flags)

    def create_builder_config(self) -> Config:
        return self.trt.Config()

    def create_optimization_profile(self) -> Any:
        profile = types.SimpleNamespace(shapes=None)
        profile.set_shape = lambda name, *shapes: setattr(profile, "shapes", shapes)
        return profile

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        self.trt.log.append("built")
        self.trt.built = vars(config)
        if config.cache is not None:
            config.cache.content += b"+timed"
        config.progress_monitor.phase_start("all", None, 2)
        if self.trt.refuses("build", self.logger) or not config.progress_monitor.step_complete("all", 0):
            return None
        config.progress_monitor.phase_finish("all")
        return fake_plan(network.path, [shapes[1][0] for shapes in config.profiles])
