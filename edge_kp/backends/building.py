"""TensorRT's builder: a network from an ONNX file, its settings, the work itself with a bar, and the layers.

``trt`` is always the module that :func:`edge_kp.backends.tensorrt.load_tensorrt` gives. What a version of it
has is asked of the module itself, never read off its number.
"""

from __future__ import annotations

import atexit
import json
import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edge_kp.backends.base import check_weights
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.sidecar import library_name
from edge_kp.errors import BackendError

# The first logger that a library is given it keeps for all that has none, beyond the life of who gave it.
_FIRST: dict[str, Any] = {}

log = logging.getLogger(__name__)


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

    listener = Listener()
    _FIRST.setdefault(library_name(trt), listener)
    return listener


def started(kind: Any, listener: Any) -> Any:
    """A TensorRT ``Builder`` or ``Runtime``.

    Raises:
        BackendError: TensorRT finds no GPU that it can use.
    """
    try:
        return kind(listener)
    except TypeError as error:  # what its Python bindings make of a null pointer
        why = cause(listener)
        advice = "close other programs on the GPU" if "memory" in why.lower() else "try nvidia-smi"
        raise BackendError(f"TensorRT does not start ({why}): {advice}") from error


def cause(listener: Any) -> str:
    """Why TensorRT failed: the first of its errors, which are then forgotten; the others follow from it."""
    first = str(listener.errors[0]) if listener.errors else "it gives no reason"
    listener.errors.clear()
    return first


def for_cpus(onnx: Path) -> str:
    return (
        f"{onnx}: quantised for CPUs, with zero points other than 0, which TensorRT refuses; build from"
        f" {onnx.name.partition('.')[0]}.int8.onnx"
    )


def parse(trt: Any, builder: Any, listener: Any, onnx: Path) -> Any:
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
            raise BackendError(for_cpus(onnx))
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


def configure(trt: Any, builder: Any, network: Any, batches: Sequence[int], workspace: int) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    # TF32 has 10 bits of mantissa: a coordinate would be rounded to a thousandth of the crop.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if captures_on_request(trt):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    for batch in batches:
        profile = builder.create_optimization_profile()
        shape = (batch, *network.get_input(0).shape[1:])
        profile.set_shape("image", shape, shape, shape)
        config.add_optimization_profile(profile)
    return config


def captures_on_request(trt: Any) -> bool:
    """Must an engine be built for capture in a CUDA graph? TensorRT-RTX, which has the flag, promises capture
    only with it; TensorRT can always capture these networks."""
    return hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")


def aim(trt: Any, config: Any, gpu: Gpu) -> None:
    """Tell TensorRT-RTX the compute capability; TensorRT takes that of the GPU.

    A GPU that is here but that its list lacks, as those of data centres, is named by CURRENT.
    """
    if library_name(trt) != "tensorrt_rtx":
        if gpu.name is None:
            raise BackendError(
                f"{library_name(trt)} builds only for the GPU it runs on: leave --compute-capability out, or"
                " install TensorRT-RTX"
            )
        return
    known = trt.ComputeCapability.__members__
    name = "SM" + gpu.compute_capability.replace(".", "")
    if name not in known and gpu.name is not None:
        name = "CURRENT"
    if name in known:
        config.num_compute_capabilities = 1
        config.set_compute_capability(known[name], 0)
    elif gpu.name is None:
        listed = ", ".join(f"{k[2:-1]}.{k[-1]}" for k in known if k.startswith("SM"))
        raise BackendError(
            f"{library_name(trt)} {trt.__version__} cannot build for compute capability"
            f" {gpu.compute_capability}: it knows {listed}"
        )


def use_timing_cache(trt: Any, config: Any, path: Path | None) -> Any:
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


def run_builder(trt: Any, builder: Any, network: Any, config: Any, title: str | None) -> bytes | None:
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


def engine_layers(trt: Any, plan: bytes, listener: Any, gpu: Gpu) -> tuple[list[Any], str]:
    """The engine's layers, and who lists them: the inspector needs a GPU, the builder's log does not."""
    logged = listener.layers
    if gpu.name is None:
        return logged, "builder log"
    engine = started(trt.Runtime, listener).deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(
            f"the new engine cannot be loaded ({cause(listener)}): this GPU, its driver or its free memory"
            f" does not suit {library_name(trt)} {trt.__version__}; try nvidia-smi"
        )
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return json.loads(text)["Layers"], "inspector"
    except (ValueError, KeyError, TypeError):
        return logged, "builder log"


def count_layers(layers: Sequence[Any], batches: Sequence[int]) -> dict[str, int]:
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
