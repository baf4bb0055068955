"""Time and exactness of a model in TensorRT 8.6: ``python -m benchmarks.legacy_trt86``.

UNTESTED: it has not run on a GPU yet. It is for a GPU that TensorRT-RTX does not take and where no TensorRT
10 is; the package itself needs one of them. numpy and tensorrt 8.6 (Python 3.10) are all it asks for, and
opencv-python to be exact about results: the GPU is reached through the driver's own library.

TensorRT 8.6 chooses the types of a network by itself: ``fp32`` and ``fp16`` are the FP32 file without and
with the flag FP16, ``int8`` is the int8 file with the flags INT8 and FP16. So ``fp16`` rounds coordinates,
too, which the FP16 file does not: its exactness says nothing about that file. A network without an FP32 file,
as the shipped cascades are, is built from the FP16 file for ``fp16`` and left out for ``fp32``. 8.6 reads
operators up to opset 17; what it refuses of a newer file stands in the JSON under ``failed``, and the meaning
of each figure under ``definitions``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, write_result
from benchmarks.gpu_measure import (
    DEFINITIONS,
    Candidate,
    Notes,
    against_goals,
    goal_lines,
    measure,
    missed_goals,
    slug,
    table,
    warm_up,
)
from benchmarks.gpu_power import gpu_state

NETWORKS = ("cascade", "stage1", "stage2", "locator")
FLAGS: dict[str, tuple[str, ...]] = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}
# Which file each is built from; the first that is there.
FILES: dict[str, tuple[str, ...]] = {"fp32": ("fp32",), "fp16": ("fp32", "fp16"), "int8": ("int8",)}
LIKELY = 0.3  # as in edge_kp.parity: boxes of a lower score mean nothing
Arrays = dict[str, "np.ndarray[Any, Any]"]


class Refused(Exception):
    """TensorRT or CUDA cannot do it; one line that says why."""


class Cuda:
    """The first GPU through libcuda: a stream, two events, memory that stays."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise Refused(f"no NVIDIA driver is loaded ({error}): try nvidia-smi") from error
        device, self._context, self.stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", ctypes.byref(device), 0)
        name = ctypes.create_string_buffer(256)
        self("cuDeviceGetName", name, 256, device)
        self.name = name.value.decode()
        self("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self("cuCtxSetCurrent", self._context)
        self("cuStreamCreate", ctypes.byref(self.stream), 1)  # non-blocking
        self._events = (ctypes.c_void_p(), ctypes.c_void_p())
        for event in self._events:
            self("cuEventCreate", ctypes.byref(event), 0)

    def __call__(self, function: str, *args: Any) -> None:
        """Call the driver; whole numbers go as C int, so wider ones come wrapped."""
        code = getattr(self._lib, function)(*args)
        if code:
            raise Refused(f"CUDA: {function} gives error {code}")

    def memory(self, size: int) -> int:
        address = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def host_array(self, shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
        """An array in page-locked memory."""
        size, address = math.prod(shape) * np.dtype(dtype).itemsize, ctypes.c_void_p()
        self("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), 0)
        raw = (ctypes.c_ubyte * size).from_address(address.value or 0)
        return np.frombuffer(raw, dtype).reshape(shape)

    def copy(self, array: np.ndarray[Any, Any], address: int, up: bool) -> None:
        """Enqueue a copy between a page-locked array and the GPU."""
        host, there = ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address)
        size = ctypes.c_size_t(array.nbytes)
        if up:
            self("cuMemcpyHtoDAsync_v2", there, host, size, self.stream)
        else:
            self("cuMemcpyDtoHAsync_v2", host, there, size, self.stream)

    def wait(self) -> None:
        self("cuStreamSynchronize", self.stream)

    def seconds(self, work: Callable[[], None]) -> float:
        start, end = self._events
        self("cuEventRecord", start, self.stream)
        work()
        self("cuEventRecord", end, self.stream)
        self("cuEventSynchronize", end)
        took = ctypes.c_float()
        self("cuEventElapsedTime", ctypes.byref(took), start, end)
        return took.value / 1e3

    def graph(self, work: Callable[[], None]) -> Callable[[], None]:
        """What ``work`` enqueues, to be launched as a whole."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self("cuStreamBeginCapture_v2", self.stream, 1)  # only this thread must not wait meanwhile
        try:
            work()
        finally:
            self("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        self("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_uint64(0))
        return partial(self, "cuGraphLaunch", ready, self.stream)


def listener(trt: Any) -> Any:
    """A logger that keeps TensorRT's errors in its list ``errors``."""
    base: Any = trt.ILogger

    class Listener(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message.strip().partition("\n")[0][:300])

        def cause(self) -> str:
            """The first error, from which the others follow; all are forgotten."""
            first = self.errors[0] if self.errors else "TensorRT gives no reason"
            self.errors.clear()
            return first

    return Listener()


def build(
    trt: Any, log: Any, onnx: Path, flags: Sequence[str], batch: int, cache: bytes
) -> tuple[Any, bytes]:
    """The engine of a file for one batch size, serialised, and the timing cache with what was learnt.

    Raises:
        Refused: an operator is not known, or no kernel is found.
    """
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # what its Python bindings make of a null pointer
        raise Refused(f"TensorRT does not start: {log.cause()}") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):  # a path, since weights may lie beside the file
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(f"node {e.node()}: {e.desc().strip()}".replace("\n", " ")[:300] for e in errors)
        raise Refused(f"its parser refuses {onnx.name}: {said or log.cause()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2**30)
    config.set_tactic_sources(0)  # 8.6 itself no longer asks cuBLAS and cuDNN: they need not be installed
    config.clear_flag(trt.BuilderFlag.TF32)
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    timings = config.create_timing_cache(cache)
    config.set_timing_cache(timings, False)
    profile = builder.create_optimization_profile()
    shape = (batch, *tuple(network.get_input(0).shape)[1:])
    profile.set_shape("image", shape, shape, shape)
    config.add_optimization_profile(profile)
    log.errors.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused(f"it cannot build {onnx.name}: {log.cause()}")
    return plan, bytes(timings.serialize())


class Engine:
    """A loaded engine of one batch size.

    Attributes:
        shape: of the images, (B, S, S, 3).
        graphs: was it captured as a CUDA graph?
    """

    def __init__(self, trt: Any, log: Any, cuda: Cuda, plan: Any) -> None:
        self._cuda, self._runtime = cuda, trt.Runtime(log)
        self._engine = engine = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = engine.create_execution_context() if engine is not None else None
        if self._context is None:
            raise Refused(f"it cannot load its own engine: {log.cause()}")
        self.shape = tuple(engine.get_tensor_profile_shape("image", 0)[1])
        self._context.set_input_shape("image", self.shape)
        self._image = cuda.host_array(self.shape, np.uint8)
        self._image_address = cuda.memory(self._image.nbytes)
        self._context.set_tensor_address("image", self._image_address)
        # All outputs lie in one piece of memory: one copy brings them back.
        kinds = {trt.float32: np.float32, trt.float16: np.float16, trt.int32: np.int32}
        places, size = [], 0
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            if name != "image":
                shape = tuple(self._context.get_tensor_shape(name))
                dtype = np.dtype(kinds[engine.get_tensor_dtype(name)])
                end = size + dtype.itemsize * math.prod(shape)
                places.append((name, dtype, shape, size, end))
                size = -(-end // 256) * 256
        self._host, self._address = cuda.host_array((size,), np.uint8), cuda.memory(size)
        self._outputs: Arrays = {}
        for name, dtype, shape, start, end in places:
            self._context.set_tensor_address(name, self._address + start)
            self._outputs[name] = self._host[start:end].view(dtype).reshape(shape)
        self._enqueue()  # the first run settles what TensorRT puts off, which a capture must not see
        cuda.wait()
        self._launch, self.graphs = self._enqueue, False
        with suppress(Refused):  # told as "with graphs" missing
            self._launch, self.graphs = cuda.graph(self._enqueue), True

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream.value):
            raise Refused("it does not run its own engine")

    def run(self, images: np.ndarray[Any, Any], graphs: bool) -> Arrays:
        """uint8 images of :attr:`shape` → float32 outputs by name."""
        self._image[:] = images
        self._cuda.copy(self._image, self._image_address, up=True)
        (self._launch if graphs else self._enqueue)()
        self._cuda.copy(self._host, self._address, up=False)
        self._cuda.wait()
        return {name: out.astype(np.float32) for name, out in self._outputs.items()}

    def device_seconds(self, graphs: bool, count: int) -> list[float]:
        return [self._cuda.seconds(self._launch if graphs else self._enqueue) for _ in range(count)]


def differences(engine: Engine, reference: Arrays) -> dict[str, dict[str, float]]:
    """Mean and largest difference of each output from PyTorch's, on the model's stored pictures."""
    images, batch = reference["image"], engine.shape[0]
    seen: dict[str, list[np.ndarray[Any, Any]]] = {}
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        for name, values in engine.run(np.resize(part, engine.shape), engine.graphs).items():
            seen.setdefault(name, []).append(values[: len(part)])
    found = {}
    for name in seen:
        difference = np.abs(np.concatenate(seen[name]).astype(np.float64) - reference[name])
        if name == "boxes":
            difference = difference[reference["score"] >= LIKELY]
        if not np.isfinite(difference).all():
            raise Refused(f"{name} has values that are not finite")
        if difference.size:
            found[name] = {"mean": float(difference.mean()), "worst": float(difference.max())}
    return found


def references(folder: Path, notes: Notes) -> dict[str, Arrays]:
    """network → ``image`` and outputs, of the model's stored pictures; none where no OpenCV reads them."""
    try:
        from edge_kp.errors import EdgeKpError
        from edge_kp.modeldir import read_model
        from edge_kp.parity import load_references
    except ImportError as error:
        notes.skipped["parity"] = f"the model's stored pictures need {error.name}: pip install opencv-python"
        return {}
    try:
        found = load_references(folder, read_model(folder))
    except EdgeKpError as error:
        notes.failed["parity"] = str(error)
        return {}
    return {name: {"image": kept.images, **kept.outputs} for name, kept in found.items()}


def candidates(
    trt: Any, cuda: Cuda, args: argparse.Namespace, until: float, parity: dict[str, Any], notes: Notes
) -> Iterator[Candidate]:
    """Build, compare and yield every engine; no further one is begun after ``until``."""
    log, cache, known = listener(trt), b"", references(args.model, notes)
    by = f"tensorrt {trt.__version__}"
    for precision in args.precision:
        for batch in args.batch:
            for network in NETWORKS:
                name = f"{by} {precision} {network} batch {batch}"
                names = [f"{network}.{of}.onnx" for of in FILES[precision]]
                there = [path for file in names if (path := args.model / file).is_file()]
                if not there:
                    notes.skipped[f"{by} {precision} {network}"] = f"the model has no {' or '.join(names)}"
                    continue
                onnx = there[0]
                if time.monotonic() > until:
                    notes.skipped[name] = "no time left to build it; give more --seconds"
                    continue
                try:
                    plan, cache = build(trt, log, onnx, FLAGS[precision], batch, cache)
                    engine = Engine(trt, log, cuda, plan)
                    if network in known and f"{network} {precision}" not in parity:
                        parity[f"{network} {precision}"] = differences(engine, known[network])
                except Refused as error:
                    notes.failed[name] = str(error)
                    continue
                print(f"built {name}", flush=True)
                if not engine.graphs:
                    notes.skipped[f"{name} with graphs"] = "it cannot be captured here"
                seen = known.get(network, {}).get("image", np.full((1, *engine.shape[1:]), 128, np.uint8))
                for graphs in (True, False) if engine.graphs else (False,):
                    run = partial(engine.run, np.resize(seen, engine.shape), graphs)
                    device = partial(engine.device_seconds, graphs)
                    yield Candidate(network, by, precision, batch, run, device, graphs)


def _run(args: argparse.Namespace) -> None:
    start = time.monotonic()
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        raise Refused(f"tensorrt cannot be loaded ({error})") from error
    if not trt.__version__.startswith("8."):
        raise Refused(f"this is tensorrt {trt.__version__}: use python -m benchmarks.gpu")
    name = json.loads((args.model / "model.json").read_text(encoding="utf-8"))["name"]
    cuda, notes, parity = Cuda(), Notes(), dict[str, Any]()
    before = gpu_state()
    built = list(candidates(trt, cuda, args, start + 0.7 * args.seconds, parity, notes))
    rows, rounds = measure(
        warm_up(built, args.calls, notes), args.rounds, args.calls, notes, start + args.seconds
    )
    goals = against_goals(rows)
    notes.failed.update(missed_goals(rows))
    print(f"{table(rows)}\n\n{goal_lines(goals)}")
    for network, outputs in parity.items():
        for output, row in outputs.items():
            print(f"{network:<18}{output:<24}mean {row['mean']:.1e} worst {row['worst']:.1e}")
    for word, those in (("skipped", notes.skipped), ("FAILED", notes.failed)):
        for what, why in those.items():
            print(f"{word} {what}: {why}")
    figures = {
        "model": name,
        "gpu": {"name": cuda.name, "tensorrt": trt.__version__, "nvidia_smi_before": before},
        "definitions": {
            **DEFINITIONS,
            "precision": "what TensorRT 8 made of it: fp32 and fp16 of the FP32 file (fp16 of the FP16 file"
            " where there is no FP32 one), int8 of the int8 file",
            "parity": "mean and largest difference from PyTorch on the model's stored pictures",
        },
        "rounds": rounds,
        "calls": args.calls,
        "rows": rows,
        "goals": goals,
        "parity": parity,
        "skipped": notes.skipped,
        "failed": notes.failed,
    }
    write_result(f"gpu-{slug(cuda.name)}-trt86", figures, args.out, ("tensorrt",), cuda.name)
    if notes.failed:
        raise Refused(f"{len(notes.failed)} failed: see 'FAILED' above")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.legacy_trt86", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="model folder")
    add("--precision", nargs="+", choices=tuple(FLAGS), default=("fp16", "fp32", "int8"))
    add("--batch", type=int, nargs="+", default=(1, 4, 16), metavar="N")
    add("--rounds", type=int, default=30, help="turns of each candidate (default 30)")
    add("--calls", type=int, default=10, help="calls in a turn that count (default 10)")
    add("--seconds", type=float, default=math.inf, help="stop about then; 70 %% are for building")
    add("--out", type=Path, default=RESULTS, help="folder for the JSON (default benchmarks/results)")
    try:
        _run(parser.parse_args(argv))
    except (Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
