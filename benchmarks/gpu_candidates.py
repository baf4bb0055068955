"""What the GPU benchmark times: TensorRT's engines, the same networks in ONNX Runtime and in PyTorch.

What is not there (a library, an engine, a run) is left out by name; an engine that does not run is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import edge_kp
from benchmarks.gpu_measure import Candidate, Notes, one_line
from edge_kp.backends.sidecar import EngineInfo, beside, build_command
from edge_kp.backends.tensorrt import TensorRTBackend
from edge_kp.cascade import Cascade, FusedCascade
from edge_kp.errors import BackendError, ModelError
from edge_kp.geometry import square_crop
from edge_kp.modeldir import ModelSpec, checked_file, find_model, read_model
from edge_kp.parity import References, hold, load_references
from edge_kp.types import Array

CLIP = Path(edge_kp.__file__).parent / "assets" / "astronaut.mp4"
BOX = (182.0, 62.0, 265.0, 165.0)  # about the face in its first frame; for a time any box does


@dataclass(frozen=True, eq=False)
class Job:
    """What is measured, and on what.

    Attributes:
        frame: a picture with a box for each image of the largest batch.
        crops: network → uint8 (B, S, S, 3), what those boxes enclose; only of networks that the model has.
        parity: each output of each engine beside what PyTorch gave, see :mod:`edge_kp.parity`.
    """

    folder: Path
    spec: ModelSpec
    precisions: Sequence[str]
    batches: Sequence[int]
    frame: Array
    boxes: Sequence[Array]
    crops: Mapping[str, Array]
    notes: Notes
    parity: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def references(self) -> Mapping[str, References]:
        """Network → what PyTorch gave for the model's stored pictures; read once, for all engines.

        Raises:
            ModelError: the model carries none, or they are damaged.
        """
        return load_references(self.folder, self.spec)

    def file(self, network: str, precision: str) -> Path | None:
        """The network's ONNX file, after its hash was compared; None where the model has none."""
        name = f"{network}.{precision}.onnx"
        return checked_file(self.folder, self.spec, name) if name in self.spec.files else None


def prepare(model: str, precisions: Sequence[str], batches: Sequence[int]) -> Job:
    """
    Raises:
        ModelError: no such model, or the shipped clip is gone.
    """
    folder = find_model(model)
    spec = read_model(folder)
    read, frame = cv2.VideoCapture(str(CLIP)).read()
    if not read:
        raise ModelError(f"{CLIP}: cannot be read; install the package again")
    boxes = [np.array(BOX, np.float32) + i for i in range(max(batches))]
    views = {
        "stage1": (spec.sizes[0], spec.scale),
        "stage2": (spec.sizes[1], spec.scale),
        "cascade": (spec.cascade_size, spec.cascade_scale),
    }
    crops = {
        name: np.stack([square_crop(box, size, scale).extract(frame) for box in boxes])
        for name, (size, scale) in views.items()
        if size
    }
    return Job(folder, spec, precisions, batches, frame, boxes, crops, Notes())


def engines(job: Job, keep: ExitStack) -> Iterator[Candidate]:
    """Every engine alone, and the whole way from frame to keypoints; with and without CUDA graphs."""
    for precision in dict.fromkeys(job.precisions):
        for graphs in (True, False):
            opened = {}
            for network in job.crops:
                name = f"tensorrt {precision} {network}"
                onnx = job.file(network, precision)
                if onnx is None:
                    job.notes.skipped[name] = f"the model has no {network} in {precision}"
                    continue
                if not beside(onnx).exists():
                    command = build_command(beside(onnx), onnx, precision, job.batches)
                    job.notes.skipped[name] = f"no engine yet: {command}"
                    continue
                try:
                    backend = TensorRTBackend(beside(onnx), onnx, precision, graphs=graphs)
                except BackendError as error:
                    job.notes.failed[f"{name}, graphs {graphs}"] = str(error)
                    continue
                keep.callback(backend.close)
                _compare(job, network, precision, backend)
                opened[network] = (backend, EngineInfo.read(beside(onnx)))
                if graphs and not backend.graphs:
                    left = ", ".join(str(b) for b in backend.batches if b not in backend.captured)
                    job.notes.skipped[f"{name} with graphs"] = f"batch {left} cannot be captured here"
            for batch in dict.fromkeys(job.batches):
                yield from _of_batch(job, opened, precision, graphs, batch)


def _compare(job: Job, network: str, precision: str, backend: TensorRTBackend) -> None:
    """Note how near an engine comes to PyTorch's outputs; one beyond tolerance has failed."""
    name = f"parity of tensorrt {precision} {network}, graphs {backend.graphs}"
    try:
        reference = job.references[network]
    except (ModelError, KeyError) as error:
        job.notes.skipped[name] = f"no references ({one_line(error)})"
        return
    try:
        rows = hold(network, backend, reference)
    except (ModelError, BackendError) as error:
        job.notes.failed[name] = one_line(error)
        return
    for row in rows:
        told = {"precision": precision, "graphs": backend.graphs, "passed": row.passed}
        job.parity.append({**asdict(row), **told})
    if far := dict.fromkeys(row.output for row in rows if not row.passed):
        job.notes.failed[name] = f"beyond tolerance: {', '.join(far)}"


def _of_batch(
    job: Job,
    opened: Mapping[str, tuple[TensorRTBackend, EngineInfo]],
    precision: str,
    graphs: bool,
    batch: int,
) -> Iterator[Candidate]:
    alone: dict[str, Candidate] = {}
    for network, (backend, info) in opened.items():
        if batch not in backend.batches:
            name = f"tensorrt {precision} {network} batch {batch}"
            job.notes.skipped[name] = f"its engine is for batches {', '.join(map(str, backend.batches))}"
            continue
        if graphs and batch not in backend.captured:
            continue  # told where it was opened
        alone[network] = Candidate(
            network,
            backend.name,
            precision,
            batch,
            partial(backend.run, job.crops[network][:batch]),
            partial(backend.device_seconds, batch),
            graphs,
            info.layers[str(batch)],
        )
        yield alone[network]
    wholes: list[tuple[str, type[Cascade], list[str], list[str]]] = [
        ("staged", Cascade, ["stage1", "stage2"], ["stage1", "stage2"]),
        ("fused", FusedCascade, ["cascade", "stage2"], ["cascade"]),  # stage 2 serves tracking alone
    ]
    for what, kind, parts, run in wholes:
        if alone.keys() >= set(parts):
            timed = [alone[name] for name in run]
            cascade = kind(job.spec, *(opened[name][0] for name in parts))
            yield Candidate(
                what,
                timed[0].by,
                precision,
                batch,
                partial(cascade, job.frame, job.boxes[:batch]),
                partial(_added, [c.device for c in timed]),
                graphs,
                sum(c.kernels or 0 for c in timed),
            )


def _added(parts: Sequence[Any], count: int) -> list[float]:
    return [sum(seconds) for seconds in zip(*(part(count) for part in parts), strict=True)]


def onnx_runtime(job: Job) -> Iterator[Candidate]:
    """The same files in ONNX Runtime on the GPU."""
    by, provider = "onnxruntime cuda", "CUDAExecutionProvider"
    try:
        import onnxruntime as ort
    except ImportError as error:
        job.notes.skipped[by] = str(error)
        return
    if provider not in ort.get_available_providers():
        job.notes.skipped[by] = "this ONNX Runtime has no CUDA (pip install onnxruntime-gpu)"
        return
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries where pip put them
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for precision in dict.fromkeys(job.precisions):
        for network, images in job.crops.items():
            onnx = job.file(network, precision)
            if onnx is None:
                continue  # told with the engines
            try:
                session = ort.InferenceSession(str(onnx), options, [provider, "CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's own exception types are private
                job.notes.skipped[f"{by} {precision} {network}"] = one_line(error)
                continue
            if session.get_providers()[0] != provider:
                job.notes.skipped[by] = "CUDA's libraries cannot be loaded: it would run on the CPU"
                return
            for batch in dict.fromkeys(job.batches):
                run = partial(session.run, None, {"image": images[:batch]})
                yield Candidate(network, by, precision, batch, run)


def pytorch(job: Job, run: Path | None) -> Iterator[Candidate]:
    """The networks before their export: eager, and compiled (the cascade in FP16 alone: that takes minutes).

    Raises:
        ModelError: the run is not that of the model.
    """
    if run is None:
        job.notes.skipped["torch"] = "no --run: a model folder holds no weights for PyTorch"
        return
    try:
        import torch

        from edge_kp.training.fusing import CascadeNet
        from edge_kp.training.network import Contract, ExportNet
        from edge_kp.training.recipe import load_run
    except ImportError as error:
        job.notes.skipped["torch"] = str(error)
        return
    if not torch.cuda.is_available():
        job.notes.skipped["torch"] = "this PyTorch finds no GPU"
        return
    _, bank, stage1, stage2 = load_run(run)
    if bank.digest != job.spec.bank_digest:
        raise ModelError(
            f"{run}: not the run of {job.spec.name}, its template bank is another; leave --run out"
        )
    torch.backends.cudnn.allow_tf32 = False  # as in the engines
    torch.backends.cudnn.benchmark = True
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def enqueue(net: Callable[..., Any], image: Any, half: bool) -> Any:
        with torch.no_grad(), torch.autocast("cuda", torch.float16, enabled=half):
            return net(image)

    def call(net: Callable[..., Any], images: Array, half: bool) -> list[Any]:
        return [out.cpu() for out in enqueue(net, torch.from_numpy(images).cuda(), half)]

    def seconds(net: Callable[..., Any], images: Array, half: bool, count: int) -> list[float]:
        image, times = torch.from_numpy(images).cuda(), []
        for _ in range(count):
            start.record()
            enqueue(net, image, half)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return times

    nets: dict[str, Contract] = {"stage1": ExportNet(stage1), "stage2": ExportNet(stage2)}
    nets["cascade"] = CascadeNet(stage1, stage2, job.spec.mean_shape, job.spec.cascade_finer)
    for precision in (p for p in dict.fromkeys(job.precisions) if p != "int8"):
        half = precision == "fp16"
        for network, net in nets.items():
            ways: dict[str, Callable[..., Any]] = {"torch eager": net.eval().cuda()}
            if half and network == "cascade":
                ways["torch compile"] = torch.compile(net, mode="reduce-overhead", dynamic=False)
            for by, way in ways.items():
                for batch in dict.fromkeys(job.batches):
                    at = (way, job.crops[network][:batch], half)
                    yield Candidate(network, by, precision, batch, partial(call, *at), partial(seconds, *at))
