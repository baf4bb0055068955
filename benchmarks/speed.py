"""Time, memory and size of every network and of the whole cascade: ``python -m benchmarks.speed``.

Every network of a model, and the cascade through Detector with its crops, in every backend that is installed
× precision that the model has × batch × number of threads. Each candidate is a process of its own
(``benchmarks.speed_worker``), pinned to as many cores as it has threads. They take turns in an order that is
drawn anew in each round, so that a change of the machine's speed meets all of them.

The yardstick is a plain MobileNetV2 1.0 at 224 px with random weights in ONNX Runtime: the ratio to it is the
figure to compare over machines. The JSON says what each figure is (``definitions``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, write_result
from benchmarks.macs import count
from benchmarks.speed_candidates import (
    CASCADE,
    YARDSTICK,
    Key,
    Notes,
    Turns,
    build_engines,
    installed,
    plan,
    start,
    take_turns,
)
from benchmarks.speed_worker import MOST_CALLS
from benchmarks.timing import percentiles, quartiles
from benchmarks.workers import Worker
from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import natural, number, positive, run_cli
from edge_kp.errors import BackendError, EdgeKpError
from edge_kp.modeldir import NETWORKS, ModelSpec, checked_file, find_model, read_model
from edge_kp.modeldir import PRECISIONS as FILES

BATCHES = (1, 4, 16)
DEFINITIONS = {
    "locator, stage1, stage2": "one network alone: uint8 images in, float32 results out, both in host"
    " memory; input is the side of its image in pixels",
    CASCADE: "a frame (input, pixels) and a box for each image of the batch in, keypoints in frame pixels"
    " out, by Detector.detect: crops, stage 1 and stage 2, Python included, without the locator. staged: two"
    " networks with crops on the host; fused: one network",
    YARDSTICK: "MobileNetV2 1.0, 224 px, 1000 classes, random weights, float32, in ONNX Runtime",
    "precision": "of the model's file that runs: the 8-bit one is int8-cpu on a CPU and int8 in TensorRT",
    "batch": "images in one call; of the cascade boxes in one frame. OpenVINO runs them one after the other",
    "threads": "CPU threads of the backend and of OpenCV, and cores that the process may run on",
    "ms": "milliseconds of a call, host to host: percentiles over the calls of all rounds. With fewer than"
    " 100 calls p99 is little else than the slowest one",
    "compute_ms": "milliseconds on the device, without copies, by its own events; of a staged cascade the sum"
    " of both stages. null: not told by the backend, as by those of a CPU, where nothing is copied",
    "images_per_s": "throughput: images of all calls / their time",
    "rounds, calls": "in each round each candidate has a turn: one call that is not counted, then so many"
    f" that the turn takes about turn_ms, {MOST_CALLS} at most. calls is the number of those counted in all"
    " rounds",
    "peak_mb": "most resident memory of the process (Python and libraries included), MB of 2**20 bytes, after"
    " its first calls of this batch and of all smaller ones. Memory on a GPU is not in it. null: not told",
    "start": "milliseconds of one start: import (Python's modules, the backend's library), load (the network,"
    " of a cascade all of its model's; engines are built before), first_call (the first result). Files were"
    " mostly in the system's cache",
    "file_bytes, weight_bytes": "of the ONNX file, and of its part of weights.bin beside it",
    "macs, parameters": "multiply-accumulates of convolutions and matrix products for one image, and numbers"
    " stored to compute with, both counted in the ONNX graph. Resizing, GridSample, activations are left out",
    "kernels": "launched by TensorRT for one image, as python -m benchmarks.kernels counted them last (what:"
    " kernels_by) in the same ONNX file; null: not counted",
    "ratio_to_mobilenet_v2": "of the cascade and MobileNetV2, both in ONNX Runtime, FP32, one image, one"
    " thread: ratio of their medians in each round, the median of the rounds, and the middle half of them",
}


def rows(turns: Turns, workers: dict[Key, Worker]) -> list[dict[str, Any]]:
    """The figures of each candidate and batch, by :data:`DEFINITIONS`."""
    found = []
    for (key, batch), answers in sorted(turns.items(), key=lambda item: _order(*item[0])):
        about = workers[key].about
        ms = [v for answer in answers for v in answer["ms"]]
        compute = [v for answer in answers for v in answer["compute_ms"] or ()]
        found.append(
            {
                **asdict(key),
                "batch": batch,
                "input": about["input"],
                "device": about["device"],
                "cascade": about.get("cascade"),
                "calls": len(ms),
                "ms": percentiles(ms),
                "compute_ms": percentiles(compute) if compute else None,
                "images_per_s": round(1e3 * batch * len(ms) / sum(ms), 1),
                "peak_mb": about["warm"][about["batches"].index(batch)]["peak_mb"],
                "start": about["start"],
            }
        )
    return found


def _order(key: Key, batch: int) -> tuple[Any, ...]:
    names = (*NETWORKS, YARDSTICK)
    return names.index(key.network), key.backend, PRECISIONS.index(key.precision[:4]), key.threads, batch


def ratio(turns: Turns) -> dict[str, Any] | None:
    """Of the cascade to MobileNetV2, see :data:`DEFINITIONS`; None where one of them was not measured."""
    pair = [turns.get((Key(n, "onnxruntime", "fp32", 1), 1)) for n in (CASCADE, YARDSTICK)]
    if pair[0] is None or pair[1] is None:
        return None
    medians = [[np.median(answer["ms"]) for answer in answers] for answers in pair if answers]
    return quartiles([float(a / b) for a, b in zip(*medians, strict=True)])


def files(
    folder: Path, spec: ModelSpec, networks: Collection[str], kernels: Mapping[str, Any]
) -> dict[str, Any]:
    """Size and cost of every file of some of the model's networks; no kernels that another file has."""
    found = {}
    for network in (n for n in NETWORKS if n in networks):
        for precision in FILES:
            name = f"{network}.{precision}"
            if f"{name}.onnx" in spec.files:
                cost = asdict(count(checked_file(folder, spec, f"{name}.onnx")))
                row = kernels.get(name, {})
                same = row.get("sha256") == spec.files[f"{name}.onnx"]
                found[name] = {**cost, "kernels": row["kernels"] if same else None}
    return found


def known_kernels(folder: Path, model: str) -> tuple[dict[str, Any], str | None]:
    """Networks of ``kernels.json`` in a folder, and who counted when; nothing of another model."""
    try:
        told = json.loads((folder / "kernels.json").read_text(encoding="utf-8"))
        if told["model"] == model:
            return told["networks"], f"{told['library']} on {told['date']}"
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeKpError(
            f"{folder / 'kernels.json'}: not a result of benchmarks.kernels ({error}); run that again"
        ) from error
    return {}, None


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, for people."""
    lines = [
        f"{'':<13}{'':<12}{'':<9}{'batch':>6}{'threads':>8}{'ms p50':>9}{'p90':>9}{'p99':>9}{'compute':>9}"
        f"{'images/s':>10}{'MB':>7}{'start s':>9}"
    ]
    for row in found:
        ms, compute = row["ms"], row["compute_ms"]
        on_device = f"{'-':>9}" if compute is None else f"{compute['p50']:9.3f}"
        peak = f"{'-':>7}" if row["peak_mb"] is None else f"{row['peak_mb']:7.0f}"
        lines.append(
            f"{row['network']:<13}{row['backend']:<12}{row['precision']:<9}{row['batch']:>6}{row['threads']:>8}"
            f"{ms['p50']:9.3f}{ms['p90']:9.3f}{ms['p99']:9.3f}{on_device}{row['images_per_s']:10.1f}{peak}"
            f"{sum(row['start'].values()) / 1e3:9.2f}"
        )
    return "\n".join(lines)


def file_table(costs: Mapping[str, Mapping[str, Any]]) -> str:
    """The files as text, for people."""
    lines = [f"{'':<18}{'MB':>7}{'million MACs':>14}{'parameters':>12}{'kernels':>9}"]
    for name, cost in costs.items():
        size = (cost["file_bytes"] + cost["weight_bytes"]) / 1e6
        kernels = "-" if cost["kernels"] is None else cost["kernels"]
        lines.append(f"{name:<18}{size:7.2f}{cost['macs'] / 1e6:14.1f}{cost['parameters']:>12}{kernels:>9}")
    return "\n".join(lines)


def _threads(wanted: Sequence[int] | None, cores: int) -> list[int]:
    """
    Raises:
        EdgeKpError: more threads than cores.
    """
    if wanted is not None and max(wanted) > cores:
        raise EdgeKpError(f"--threads {max(wanted)}: there are {cores} cores; give at most so many")
    return sorted({1, cores} if wanted is None else set(wanted))


def _run(args: argparse.Namespace) -> None:
    folder = find_model(args.model)
    spec = read_model(folder)
    cores = len(os.sched_getaffinity(0))
    threads, notes = _threads(args.threads, cores), Notes()
    args.batches = sorted(set(args.batches))
    backends = installed(args.backends)
    keys = list(plan(spec, args.networks, backends, args.precisions, threads, notes))
    kernels, counted_by = known_kernels(RESULTS, spec.name)
    costs = files(folder, spec, args.networks, kernels)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as work, ExitStack() as keep:
        if YARDSTICK in args.networks:
            from benchmarks.mobilenet import export_mobilenet  # needs torch, which the networks do not

            path = Path(work, f"{YARDSTICK}.onnx")
            export_mobilenet(path)
            costs[YARDSTICK] = {**asdict(count(path)), "kernels": None}
        if "tensorrt" in backends:
            build_engines(folder, spec, {key.precision for key in keys if key.backend == "tensorrt"})
        shuffled = [keys[i] for i in rng.permutation(len(keys))]
        workers = start(shuffled, args, Path(work), keep, notes)
        if not workers:
            why = next(iter((notes.failed | notes.skipped).values()), "no network to run")
            raise BackendError(f"nothing can be measured ({why})")
        for key, worker in workers.items():
            if key.network == YARDSTICK:
                continue
            for batch in sorted(set(args.batches) - set(worker.about["batches"])):
                made = ", ".join(map(str, worker.about["batches"])) or "others"
                notes.skipped[f"{key}, batch {batch}"] = f"it is made for batches of {made}"
        turns = take_turns(workers, args.rounds, rng)
        found = rows(turns, workers)
    ratio_found = ratio(turns)
    print(f"{table(found)}\n\n{file_table(costs)}")
    for word, lines in (("skipped", notes.skipped), ("FAILED", notes.failed)):
        for name, why in lines.items():
            print(f"{word} {name}: {why}")
    if ratio_found:
        print(f"both stages take {ratio_found['median']:.2f} × the time of MobileNetV2 224 on one core, FP32")
    figures = {
        "model": spec.name,
        "cores": cores,
        "rounds": args.rounds,
        "turn_ms": args.turn_ms,
        "seed": args.seed,
        "definitions": DEFINITIONS,
        "rows": found,
        "files": costs,
        "kernels_by": counted_by,
        "ratio_to_mobilenet_v2": ratio_found and ratio_found["median"],
        "ratio_to_mobilenet_v2_quartiles": ratio_found and ratio_found["quartiles"],
        **asdict(notes),
    }
    write_result("speed", figures, args.out, ("openvino", "onnx", "tensorrt", "tensorrt-rtx-cu13-bindings"))
    if notes.failed:
        raise BackendError(f"{len(notes.failed)} not measured that should be: see 'FAILED' above")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names, backends = (*NETWORKS, YARDSTICK), [b for b in BACKENDS if b != "auto"]
    precisions = [p for p in PRECISIONS if p != "auto"]
    add("--model", default="face68", help="shipped model or model folder")
    add("--networks", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    add("--backends", nargs="+", choices=backends, help="default: those that are installed")
    add("--precisions", nargs="+", choices=precisions, default=precisions)
    add("--batches", type=positive, nargs="+", default=BATCHES, metavar="N")
    add("--threads", type=positive, nargs="+", metavar="N", help="default: 1 and as many as there are cores")
    add("--rounds", type=positive, default=12, help="turns of each candidate (default 12)")
    add("--turn-ms", type=number(0.1, 1e5), default=60.0, help="length of a turn (default 60)")
    add("--seed", type=natural, default=0, help="of the order of turns")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="for the JSON (default benchmarks/results)")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
