"""One candidate of ``benchmarks.speed`` in a process of its own, so that its memory and start are its own.

It opens a network, or a whole cascade, runs its batches once from the smallest to the largest, and describes
itself in the first line of output. Then every line of input ``N`` is answered by one line of JSON with a turn
of batch number N, from 0.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before anything heavy is imported

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from contextlib import suppress  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from importlib import import_module  # noqa: E402
from itertools import pairwise  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from edge_kp.backends.base import Backend
    from edge_kp.types import Array

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut"
WARM_UP = 3  # calls of each batch before its time is estimated
MOST_CALLS = 200  # of a turn


@dataclass(frozen=True)
class Opened:
    """
    Attributes:
        run: a call with so many images, from host memory to host memory.
        compute: milliseconds on the device of each of so many runs (batch, count); None where the backend
            cannot tell them.
        batches: those that it is made for; empty for all.
        about: what it is, for the result.
    """

    run: Callable[[int], object]
    compute: Callable[[int, int], list[float]] | None
    batches: Sequence[int]
    about: dict[str, Any]


def open_network(
    model: str, network: str, backend: str, precision: str, threads: int | None, most: int
) -> Opened:
    """A network of a model on up to ``most`` images of noise.

    Args:
        precision: of its file, e.g. ``int8-cpu``.
    """
    import numpy as np

    from edge_kp.backends import open_backend
    from edge_kp.modeldir import checked_file, find_model, read_model

    folder = find_model(model)
    spec = read_model(folder)
    path = checked_file(folder, spec, f"{network}.{precision}.onnx")
    loaded = open_backend(backend, path, precision, threads)
    side = spec.input_size(network)
    images = np.random.default_rng(0).integers(0, 256, (most, side, side, 3), np.uint8)
    return Opened(
        lambda batch: loaded.run(images[:batch]),
        _compute([loaded]),
        loaded.batches,
        {"input": f"{side}x{side}", "device": loaded.device},
    )


def open_cascade(model: str, backend: str, precision: str, threads: int | None, most: int) -> Opened:
    """A model's Detector on the first frame of the shipped clip, with up to ``most`` boxes about the face."""
    from edge_kp import Detector

    frame, box = first_frame()
    detector = Detector(
        model, backend=backend, precision=precision.removesuffix("-cpu"), cascade="auto", threads=threads
    )
    boxes = [box + i for i in range(most)]
    cascade = detector.cascade
    networks = [cascade.stage1] if detector.fused else [cascade.stage1, cascade.stage2]
    return Opened(
        lambda batch: detector.detect(frame, boxes=boxes[:batch]),
        _compute(networks),
        cascade.stage1.batches,
        {
            "input": f"{frame.shape[1]}x{frame.shape[0]}",
            "device": detector.device,
            "cascade": "fused" if detector.fused else "staged",
        },
    )


def open_yardstick(path: Path, threads: int | None) -> Opened:
    """Any network of one float32 input of fixed shape, in ONNX Runtime."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the others
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    image = np.zeros(entry.shape, np.float32)
    return Opened(
        lambda batch: session.run(None, {entry.name: image}),
        None,
        entry.shape[:1],
        {"input": "x".join(map(str, entry.shape[2:])), "device": "CPU"},
    )


def first_frame() -> tuple[Array, Array]:
    """The shipped clip's first frame, uint8 BGR (H, W, 3), and the face's box in it, (4,) pixels."""
    import cv2
    import numpy as np

    from edge_kp.errors import ModelError

    read, frame = cv2.VideoCapture(str(CLIP.with_suffix(".mp4"))).read()
    if not read:
        raise ModelError(f"{CLIP}.mp4: cannot be read; install the package again")
    about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
    matrix, box = np.array(about["frames"][0]["matrix"]), np.array(about["reference_box"]).reshape(2, 2)
    return np.asarray(frame), (box @ matrix[:, :2].T + matrix[:, 2]).reshape(4)


def _compute(networks: Sequence[Backend]) -> Callable[[int, int], list[float]] | None:
    """The device's time of all networks together, where each of them can tell it."""
    tellers = [seconds for n in networks if (seconds := getattr(n, "device_seconds", None)) is not None]
    if len(tellers) < len(networks):
        return None

    def compute(batch: int, count: int) -> list[float]:
        return [1e3 * sum(each) for each in zip(*(tell(batch, count) for tell in tellers), strict=True)]

    return compute


def turn(opened: Opened, batch: int, calls: int) -> dict[str, list[float] | None]:
    """Milliseconds of so many calls and of the device in as many; a first one of each is left out."""
    times = [time.perf_counter()]
    for _ in range(calls + 1):
        opened.run(batch)
        times.append(time.perf_counter())
    compute = opened.compute(batch, calls + 1)[1:] if opened.compute else None
    return {
        "ms": [round(1e3 * (b - a), 5) for a, b in pairwise(times[1:])],
        "compute_ms": None if compute is None else [round(float(ms), 5) for ms in compute],
    }


def warm_up(opened: Opened, batches: Sequence[int], turn_ms: float) -> list[dict[str, Any]]:
    """Each batch for the first time: how many calls a turn is to take, and peak memory so far."""
    found = []
    for batch in batches:
        ms = min(turn(opened, batch, WARM_UP)["ms"] or ())
        found.append({"calls": int(min(max(turn_ms / ms, 1), MOST_CALLS)), "peak_mb": peak_mb()})
    return found


def peak_mb() -> float | None:
    """Most resident memory of this process so far, MB; None where the system does not tell it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):  # getrusage tells the parent's, too
                return round(int(line.split()[1]) / 1024, 1)
    return None


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.speed_worker", description=__doc__)
    parser.add_argument("--network", required=True, help="of the model, or cascade")
    parser.add_argument("--file", type=Path, help="instead of a network of the model")
    parser.add_argument("--model", default="face68")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--cpus", type=int, nargs="+", required=True, help="the only cores to run on")
    parser.add_argument("--turn-ms", type=float, required=True)
    args = parser.parse_args()
    os.sched_setaffinity(0, args.cpus)  # before any thread is started, so that all inherit it
    try:
        opened, start = start_up(args)
    except Exception as error:  # each library has its own; all of it is one line to who waits
        sys.exit((str(error).strip().splitlines() or [type(error).__name__])[0])
    batches = [b for b in sorted(args.batches) if not opened.batches or b in opened.batches]
    warm = warm_up(opened, batches, args.turn_ms)
    about = {**opened.about, "start": start, "batches": batches, "warm": warm}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        batch, calls = batches[int(line)], int(warm[int(line)]["calls"])
        print(json.dumps(turn(opened, batch, calls)), flush=True)


def start_up(args: argparse.Namespace) -> tuple[Opened, dict[str, float]]:
    """The candidate, after its first result, and the milliseconds until then."""
    import cv2

    import_module(f"edge_kp.backends.{args.backend}")
    threads = len(args.cpus)
    cv2.setNumThreads(threads)
    imported = time.perf_counter()
    most = max(args.batches)
    if args.file is not None:
        opened = open_yardstick(args.file, threads)
    elif args.network == "cascade":
        opened = open_cascade(args.model, args.backend, args.precision, threads, most)
    else:
        opened = open_network(args.model, args.network, args.backend, args.precision, threads, most)
    loaded = time.perf_counter()
    opened.run(min(opened.batches or args.batches))
    done = time.perf_counter()
    spans = {"import": imported - STARTED, "load": loaded - imported, "first_call": done - loaded}
    return opened, {f"{name}_ms": round(1e3 * span, 2) for name, span in spans.items()}


if __name__ == "__main__":
    main()
