"""Building engines from ONNX files, and keeping them.

``trt`` is always the module that :func:`edge_kp.backends.tensorrt.load_tensorrt` gives.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_kp.backends.building import (
    aim,
    captures_on_request,
    cause,
    configure,
    count_layers,
    engine_layers,
    for_cpus,
    listen,
    parse,
    run_builder,
    started,
    use_timing_cache,
)
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
        raise BackendError(for_cpus(onnx))
    with _writing(engine, elsewhere):
        try_writing(engine)
    if timing_cache is not None:
        with _writing(timing_cache, "give another --timing-cache"):
            try_writing(timing_cache)
    start = time.monotonic()
    batches = tuple(sorted(set(batches)))
    listener = listen(trt)
    builder = started(trt.Builder, listener)
    network = parse(trt, builder, listener, onnx)
    config = configure(trt, builder, network, batches, workspace)
    aim(trt, config, gpu)
    cache = use_timing_cache(trt, config, timing_cache)
    listener.errors.clear()
    plan = run_builder(trt, builder, network, config, onnx.name if progress else None)
    if plan is None:
        raise BackendError(
            f"{onnx}: {library_name(trt)} {trt.__version__} cannot build it ({cause(listener)}); close other"
            " programs on the GPU, or export the model again"
        )
    layers, source = engine_layers(trt, plan, listener, gpu)
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
            **({"user_allocation": True} if captures_on_request(trt) else {}),
        },
        layers=count_layers(layers, batches),
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
