"""Time of the engines on an NVIDIA GPU, beside PyTorch and ONNX Runtime on it: ``python -m benchmarks.gpu``.

The engines are those that build_engine.py put beside the model's ONNX files. All candidates take turns, so
that a change of the GPU's clock meets all of them. The JSON says what each figure is (``definitions``).
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, write_result
from benchmarks.gpu_candidates import engines, onnx_runtime, prepare, pytorch
from benchmarks.gpu_measure import (
    DEFINITIONS,
    Candidate,
    Notes,
    against_goals,
    goal_lines,
    measure,
    missed_goals,
    one_line,
    slug,
    table,
    warm_up,
)
from benchmarks.gpu_power import SETTLE, board_state, gpu_state, power
from edge_kp.backends.cuda import open_device
from edge_kp.backends.sidecar import library_name
from edge_kp.backends.tensorrt import load_tensorrt
from edge_kp.cli import number, positive, run_cli
from edge_kp.errors import BackendError

PRECISIONS = ("fp32", "fp16", "int8")
BATCHES = (1, 4, 16)
PACKAGES = (
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "cuda-python",
    "cuda-bindings",
    "pycuda",
    "onnxruntime-gpu",
)


def _power(candidates: Sequence[Candidate], seconds: float, notes: Notes) -> list[dict[str, Any]]:
    """Of the cascade in each precision, at the smallest and the largest batch.

    One that fails meanwhile is named in ``notes``.
    """
    cascades = [c for c in candidates if c.what == "cascade" and c.graphs is not None]
    chosen = [c for c in cascades if c.graphs] or cascades
    ends = {f(c.batch for c in chosen) for f in (min, max)} if chosen and seconds else set()
    found: list[dict[str, Any]] = []
    for candidate in (c for c in chosen if c.batch in ends):
        try:
            figures = power(candidate.run, candidate.batch, seconds)
        except Exception as error:  # as in the warm-up
            notes.failed[f"power of {candidate}"] = one_line(error)
            continue
        found.append({"of": str(candidate), **figures})
        print(f"power: {figures.get('watts', figures.get('rails_w'))}, {candidate}")
        if "source" not in figures:
            break  # nor will it be for the next
    return found


def _run(args: argparse.Namespace) -> None:
    start = time.monotonic()
    job = prepare(args.model, args.precision, sorted(args.batch))
    tensorrt = "none"
    try:
        trt = load_tensorrt()
        tensorrt = f"{library_name(trt)} {trt.__version__}"
    except BackendError as error:  # the others can be measured without it
        job.notes.failed["tensorrt"] = str(error)
    with open_device() as device:
        machine: dict[str, Any] = {
            **asdict(device.gpu),
            "driver_cuda": device.driver,
            "reached_by": device.library,
            "tensorrt": tensorrt,
            "python": platform.python_version(),
            "nvidia_smi_before": gpu_state(),
            **board_state(),
        }
    print(f"TensorRT: {machine['tensorrt']} on {machine['name']}; opening the engines", flush=True)
    with ExitStack() as keep:
        ours = engines(job, keep) if tensorrt != "none" else iter(())
        everyone = chain(ours, onnx_runtime(job), pytorch(job, args.run))
        candidates = warm_up(everyone, args.calls, job.notes, start + args.seconds / 2)
        if not candidates:
            why = next(iter((job.notes.failed | job.notes.skipped).values()), "no network to run")
            raise BackendError(f"nothing can be measured ({why})")
        if not any(c.by.startswith("tensorrt") for c in candidates):
            job.notes.failed.setdefault("tensorrt", "no engine can be measured: see above, or 'skipped'")
        warm = time.monotonic() - start
        print(f"{len(candidates)} candidates, warmed up after {warm:.0f} s", flush=True)

        def write(rows: list[dict[str, Any]], rounds: int, watts: Sequence[Any] = ()) -> None:
            figures = {
                "model": job.spec.name,
                "gpu": machine,
                "definitions": DEFINITIONS,
                "rounds": rounds,
                "calls": args.calls,
                "seconds_until_warm": round(warm, 1),
                "rows": rows,
                "parity": job.parity,
                "goals": against_goals(rows),
                "power": list(watts),
                **asdict(job.notes),
            }
            name = str(machine["name"])
            with redirect_stdout(StringIO()):  # it tells the path each time
                write_result(f"gpu-{slug(name)}", figures, args.out, PACKAGES, name)

        write([], 0)  # the parity, and what failed
        stretches = 2 * len(args.precision) * (args.power_seconds + SETTLE) if args.power_seconds else 0
        until = start + args.seconds - stretches
        # Written after each round, so that whatever happens later costs no figure that is there.
        rows, rounds = measure(candidates, args.rounds, args.calls, job.notes, until, write)
        machine["nvidia_smi_after"] = gpu_state()
        job.notes.failed.update(missed_goals(rows))
        write(rows, rounds)
        measured = [c for c in candidates if str(c) not in job.notes.failed]
        write(rows, rounds, _power(measured, args.power_seconds, job.notes))
    print(f"{table(rows)}\n\n{goal_lines(against_goals(rows))}")
    for word, notes in (("skipped", job.notes.skipped), ("FAILED", job.notes.failed)):
        for name, why in notes.items():
            print(f"{word} {name}: {why}")
    print(f"wrote {args.out / ('gpu-' + slug(str(machine['name'])) + '.json')}")
    if job.notes.failed:
        raise BackendError(f"{len(job.notes.failed)} not measured that should be: see 'FAILED' above")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--model", default="face68", help="shipped model or model folder, with engines in it")
    add("--run", type=Path, help="folder of the run that the model is from: adds PyTorch")
    add("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    add("--batch", type=positive, nargs="+", default=BATCHES, metavar="N")
    add("--rounds", type=positive, default=30, help="turns of each candidate (default 30)")
    add("--calls", type=positive, default=10, help="calls in a turn that count (default 10)")
    add(
        "--seconds",
        type=number(0, math.inf),
        default=math.inf,
        help="begin no further round after so long; one is always made",
    )
    add(
        "--power-seconds",
        type=number(0, 600),
        default=2.0,
        help="length of each stretch in which power is read (default 2; 0: not at all)",
    )
    add("--out", type=Path, default=RESULTS, help="folder for the JSON (default benchmarks/results)")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
