"""Building engines from ONNX files, and keeping them.

``trt`` is always the module that :func:`edge_kp.backends.tensorrt.load_tensorrt` gives. What a version of it
has is asked of the module itself, never read off its number.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edge_kp.backends.base import check_weights
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.sidecar import BATCHES, FORMAT, EngineInfo, check_engine, library_name, sidecar
from edge_kp.errors import BackendError
from edge_kp.files import reason, replacing, try_writing
from edge_kp.modeldir import network_digest

WORKSPACE = 2**30

log = logging.getLogger(__name__)


def cached_engine(trt: Any, onnx: Path, precision: str, gpu: Gpu, batches: Sequence[int] = BATCHES) -> Path:
    """The engine of an ONNX file for this GPU and library, built on the first call.

    It is kept in ``$XDG_CACHE_HOME/edge_kp/engines`` or ``~/.cache/edge_kp/engines``.

    Raises:
        BackendError: it cannot be built or written.
    """
    key = [FORMAT, network_digest(onnx), library_name(trt), trt.__version__, str(gpu), precision, *batches]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    engine = _cache() / "edge_kp" / "engines" / f"{onnx.stem}-{digest}.engine"
    try:
        check_engine(trt, engine, onnx, precision, gpu)
    except BackendError:  # not there yet, or damaged: building mends both
        print(f"building an engine of {onnx.name} for {gpu}, once; kept in {engine.parent}", file=sys.stderr)
        build(trt, onnx, engine, precision, gpu, batches, elsewhere="set XDG_CACHE_HOME to another folder")
    return engine


def _cache() -> Path:
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root)
    try:
        return Path.home() / ".cache"
    except RuntimeError as error:
        raise BackendError(
            "no home directory to keep engines in: set XDG_CACHE_HOME to a folder that can be written"
        ) from error


def build(
    trt: Any,
    onnx: Path,
    engine: Path,
    precision: str,
    gpu: Gpu,
    batches: Sequence[int] = BATCHES,
    *,
    workspace: int = WORKSPACE,
    timing_cache: Path | None = None,
    progress: bool = True,
    elsewhere: str = "give another --engine",
) -> EngineInfo:
    """Build an engine with its sidecar and the list of its layers, ``NAME.engine.layers.json``.

    The network is strongly typed: every tensor has the type that the ONNX file gives it. A build that fails
    or is killed leaves older files as they were; killed in the moment of renaming, an engine that is refused.

    Args:
        gpu: what to build for: the GPU that is here or, with TensorRT-RTX, any of a compute capability.
        batches: batch sizes. Each gets a profile of its own with fixed shapes, hence the best kernels for it,
            and can be replayed as a CUDA graph.
        workspace: most memory on the GPU for the scratch of a layer, bytes.
        timing_cache: file that makes the next build on this GPU faster; written if it is not there yet.
        progress: show a bar.
        elsewhere: what to do where the engine cannot be written, for the message.

    Raises:
        BackendError: the file is not for TensorRT, or cannot be read, built or written.
    """
    if onnx.name.endswith(".int8-cpu.onnx"):
        raise BackendError(_for_cpus(onnx))
    with _writing(engine, elsewhere):
        try_writing(engine)
    if timing_cache is not None:
        with _writing(timing_cache, "give another --timing-cache"):
            try_writing(timing_cache)
    start = time.monotonic()
    batches = tuple(sorted(set(batches)))
    listener = listen(trt)
    builder = started(trt.Builder, listener)
    network = _parse(trt, builder, listener, onnx)
    config = _config(trt, builder, network, batches, workspace)
    _aim(trt, config, gpu)
    cache = _timing_cache(trt, config, timing_cache)
    listener.errors.clear()
    plan = _run(trt, builder, network, config, onnx.name if progress else None)
    if plan is None:
        raise BackendError(
            f"{onnx}: {library_name(trt)} {trt.__version__} cannot build it ({cause(listener)}); close other"
            " programs on the GPU, or export the model again"
        )
    layers, source = _layers(trt, plan, listener, gpu)
    info = EngineInfo(
        library=library_name(trt),
        version=trt.__version__,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        precision=precision,
        onnx_sha256=network_digest(onnx),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        batches=batches,
        flags={
            "strongly_typed": True,
            "tf32": False,
            "workspace": workspace,
            "timing_cache": cache is not None,
        },
        layers=_count(layers, batches),
        seconds=round(time.monotonic() - start, 1),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    # The last one is renamed first. A kill in between leaves an engine with an older sidecar, which does not
    # describe it: such an engine is refused.
    with (
        _writing(engine, elsewhere),
        replacing(sidecar(engine)) as info_file,
        replacing(engine) as plan_file,
        replacing(engine.with_name(f"{engine.name}.layers.json")) as layers_file,
    ):
        info.write(info_file)
        plan_file.write_bytes(plan)
        layers_file.write_text(json.dumps({"source": source, "layers": layers}, indent=1) + "\n")
    if timing_cache is not None and cache is not None:
        with _writing(timing_cache, "give another --timing-cache"), replacing(timing_cache) as part:
            part.write_bytes(bytes(cache.serialize()))
    return info


@contextmanager
def _writing(path: Path, elsewhere: str) -> Iterator[None]:
    """Raises: BackendError: what is done in it fails for want of room or rights."""
    try:
        yield
    except OSError as error:
        raise BackendError(
            f"{path}: cannot be written ({reason(error)}); make room there, or {elsewhere}"
        ) from error


def listen(trt: Any) -> Any:
    """A logger for TensorRT that prints nothing.

    Its list ``errors`` fills with TensorRT's errors, ``layers`` with those that the builder lists, as text.
    """
    levels = trt.ILogger.Severity
    base: Any = trt.ILogger

    class Listener(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.errors: list[str] = []
            self.layers: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                self.errors.append(message.strip().partition("\n")[0][:300])
            elif severity == levels.WARNING:
                log.debug("TensorRT: %s", message)
            elif message.startswith("Layers:"):
                self.layers = [line for line in message.splitlines() if line.startswith("Name: ")]

    return Listener()


def started(kind: Any, listener: Any) -> Any:
    """A TensorRT ``Builder`` or ``Runtime``.

    Raises:
        BackendError: TensorRT finds no GPU that it can use.
    """
    try:
        return kind(listener)
    except TypeError as error:  # what its Python bindings make of a null pointer
        raise BackendError(
            f"TensorRT does not start ({cause(listener)}): try nvidia-smi, close other programs on the GPU"
        ) from error


def cause(listener: Any) -> str:
    """Why TensorRT failed: the first of its errors, which are then forgotten; the others follow from it."""
    first = str(listener.errors[0]) if listener.errors else "it gives no reason"
    listener.errors.clear()
    return first


def _for_cpus(onnx: Path) -> str:
    return (
        f"{onnx}: quantised for CPUs, with zero points other than 0, which TensorRT refuses; build from"
        f" {onnx.name.partition('.')[0]}.int8.onnx"
    )


def _parse(trt: Any, builder: Any, listener: Any, onnx: Path) -> Any:
    """The network of an ONNX file; its one input is ``image`` uint8 (-1, S, S, 3)."""
    check_weights(onnx)
    kinds = trt.NetworkDefinitionCreationFlag
    # Where the flag is gone, every network is strongly typed.
    flags = 1 << int(kinds.STRONGLY_TYPED) if hasattr(kinds, "STRONGLY_TYPED") else 0
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, listener)
    if not parser.parse_from_file(str(onnx)):
        text = str(parser.get_error(0)).strip().partition("\n")[0]
        if "zero point" in text.lower():
            raise BackendError(_for_cpus(onnx))
        raise BackendError(f"{onnx}: TensorRT cannot read it ({text[:300]}); export the model again")
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    seen = [(i.name, i.dtype, tuple(i.shape)) for i in inputs]
    side = seen[0][2][1] if seen and len(seen[0][2]) == 4 else 0
    if side < 1 or seen != [("image", trt.uint8, (-1, side, side, 3))]:
        text = ", ".join(f"{name} {kind} {shape}" for name, kind, shape in seen) or "none"
        raise BackendError(
            f"{onnx}: expected one input image uint8 (B, S, S, 3), got {text}; export the model again"
        )
    return network


def _config(trt: Any, builder: Any, network: Any, batches: Sequence[int], workspace: int) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    # TF32 has 10 bits of mantissa: a coordinate would be rounded to a thousandth of the crop.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for batch in batches:
        profile = builder.create_optimization_profile()
        shape = (batch, *network.get_input(0).shape[1:])
        profile.set_shape("image", shape, shape, shape)
        config.add_optimization_profile(profile)
    return config


def _aim(trt: Any, config: Any, gpu: Gpu) -> None:
    """Tell TensorRT-RTX the compute capability; TensorRT takes that of the GPU."""
    if library_name(trt) != "tensorrt_rtx":
        if gpu.name is None:
            raise BackendError(
                f"{library_name(trt)} builds only for the GPU it runs on: leave --compute-capability out, or"
                " install TensorRT-RTX"
            )
        return
    known = trt.ComputeCapability.__members__
    name = "SM" + gpu.compute_capability.replace(".", "")
    if name in known:
        config.num_compute_capabilities = 1
        config.set_compute_capability(known[name], 0)
    elif gpu.name is None:
        listed = ", ".join(f"{k[2:-1]}.{k[-1]}" for k in known if k.startswith("SM"))
        raise BackendError(
            f"{library_name(trt)} {trt.__version__} cannot build for compute capability"
            f" {gpu.compute_capability}: it knows {listed}"
        )
    # A GPU that is here but not in the list takes what the library does by default: 8.0 and later.


def _timing_cache(trt: Any, config: Any, path: Path | None) -> Any:
    """The timing cache in use, or None."""
    if path is None:
        return None
    if library_name(trt) == "tensorrt_rtx":  # it times nothing; its functions for caches do nothing
        log.warning("TensorRT-RTX has no timing cache: %s is left alone", path)
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        log.warning("%s is not of this GPU and TensorRT: a new one is begun", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _run(trt: Any, builder: Any, network: Any, config: Any, title: str | None) -> bytes | None:
    """The engine, or None after an error; with a bar that bears ``title``."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(builder.build_serialized_network(network, config))
        except BaseException as error:
            future.set_exception(error)

    def stop() -> None:
        if monitor is not None:
            monitor.go_on = False
            with suppress(RuntimeError):  # not started yet
                thread.join()

    with tqdm(desc=f"building {title}", unit="step", disable=title is None, leave=False) as bar:
        monitor = _monitor(trt, bar) if hasattr(trt, "IProgressMonitor") else None
        if monitor is not None:
            config.progress_monitor = monitor
        # In a thread of its own: Ctrl-C would come up inside TensorRT's callbacks and be lost there.
        thread = threading.Thread(target=work, daemon=True)
        # Where the program ends meanwhile, a callback without an interpreter would abort it.
        atexit.register(stop)
        try:
            thread.start()
            plan = future.result()
        except KeyboardInterrupt:
            stop()
            raise
        finally:
            atexit.unregister(stop)
    return None if plan is None else bytes(plan)


def _monitor(trt: Any, bar: Any) -> Any:
    """Counts the steps of a build; how many there will be is not known before the end."""
    base: Any = trt.IProgressMonitor

    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.go_on = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            bar.set_postfix_str(phase_name, refresh=False)

        def phase_finish(self, phase_name: str) -> None:
            """Nothing to show."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            bar.update()
            return self.go_on

    return Monitor()


def _layers(trt: Any, plan: bytes, listener: Any, gpu: Gpu) -> tuple[list[Any], str]:
    """The engine's layers, and who lists them: the inspector needs a GPU, the builder's log does not."""
    logged = listener.layers
    if gpu.name is None:
        return logged, "builder log"
    engine = started(trt.Runtime, listener).deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(
            f"the new engine cannot be loaded ({cause(listener)}); close other programs on the GPU"
        )
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return json.loads(text)["Layers"], "inspector"
    except (ValueError, KeyError, TypeError):
        return logged, "builder log"


def _count(layers: Sequence[Any], batches: Sequence[int]) -> dict[str, int]:
    """Layers of each batch size. They come profile by profile; from the second on some bear its number."""
    counts = dict.fromkeys(map(str, batches), 0)
    profile = 0
    for layer in layers:
        named = re.findall(r"\[profile (\d+)\]", str(layer))
        profile = max(profile, *map(int, named)) if named else profile
        # Signals between streams launch no kernel.
        if not re.search(r"LayerType\W+(signal|wait)\b", str(layer)):
            counts[str(batches[min(profile, len(batches) - 1)])] += 1
    return counts
