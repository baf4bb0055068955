"""What each precision costs in accuracy and gains in time on a CPU: ``python -m benchmarks.precision``.

Accuracy: every file that the model has, staged and fused, on labelled photos with jittered boxes. Time: one
frame of the shipped clip with one box on one core, crops and Python included; the candidates take turns of
``--chunk`` calls, so that a change of the machine's speed meets all of them. The ratio of medians to FP32 in
ONNX Runtime is the figure to compare over machines.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from benchmarks.peer_worker import pin
from benchmarks.timing import measure
from edge_kp.backends import open_backend
from edge_kp.cascade import Cascade, FusedCascade
from edge_kp.cli import natural, positive, run_cli
from edge_kp.modeldir import PRECISIONS, ModelSpec, checked_file, find_model, read_model
from edge_kp.training.datasets import DATA_HELP, load_dataset
from edge_kp.training.evaluation import evaluate, figure
from edge_kp.training.references import clip_boxes

BASE = "onnxruntime fp32 staged"


def _cascades(folder: Path, spec: ModelSpec) -> Iterator[tuple[str, Cascade]]:
    """Every way to run the model on one CPU core, by name."""
    for backend in ("onnxruntime", "openvino"):
        for precision in PRECISIONS:
            if f"stage1.{precision}.onnx" not in spec.files or (backend == "openvino" and "16" in precision):
                continue

            def network(name: str, backend: str = backend, precision: str = precision) -> Any:
                path = checked_file(folder, spec, f"{name}.{precision}.onnx")
                return open_backend(backend, path, precision, 1)

            second = network("stage2")
            yield f"{backend} {precision} staged", Cascade(spec, network("stage1"), second)
            if f"cascade.{precision}.onnx" in spec.files:
                yield f"{backend} {precision} fused", FusedCascade(spec, network("cascade"), second)


def _run(args: argparse.Namespace) -> None:
    pin(min(os.sched_getaffinity(0)) if args.cpu is None else args.cpu)
    folder = find_model(args.model)
    spec = read_model(folder)
    cascades = dict(_cascades(folder, spec))
    accuracy: dict[str, dict[str, Any]] = {}
    for data in args.data:
        samples = load_dataset([data], spec.schema).samples
        rows = {
            name: evaluate(cascade, samples, "jitter").summary()["cascade"]
            for name, cascade in cascades.items()
        }
        base = rows[BASE]["nme"]
        print(f"{Path(data).name}: {len(samples)} samples, jittered boxes")
        for name, row in rows.items():
            more = None if row["nme"] is None or base is None else row["nme"] - base
            print(f"  {name:<32}NME {figure(row['nme'], '.3f')} %  {figure(more, '+.3f')}")
        kind, _, path = data.partition(":")
        accuracy[f"{kind}:{Path(path).name}"] = {"samples": len(samples), **rows}
    image, box = clip_boxes()[0]
    points = cascades[BASE](image, [box]).keypoints
    calls: dict[str, Callable[[], object]] = {}
    for name, cascade in cascades.items():
        calls[name] = lambda c=cascade: c(image, [box])  # type: ignore[misc]
        if name.endswith("staged"):
            calls[name.replace("staged", "stage 2 alone")] = lambda c=cascade: c.refine(image, points)  # type: ignore[misc]
    times = measure(calls, args.rounds, args.chunk)
    for name, spread in times.items():
        base_name = BASE if not name.endswith("alone") else BASE.replace("staged", "stage 2 alone")
        spread["times_as_fast"] = round(times[base_name]["median_ms"] / spread["median_ms"], 3)
        print(f"{name:<36}{spread['median_ms']:8.2f} ms median  {spread['times_as_fast']:.2f} × as fast")
    sizes = {name: (folder / name).stat().st_size for name in sorted(spec.files)}
    write_result(
        args.name,
        {
            "model": spec.name,
            "threads": 1,
            "rounds": args.rounds,
            "chunk": args.chunk,
            "accuracy": accuracy,
            "one_core_ms": times,
            "bytes": sizes,
        },
        packages=("openvino",),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--model", default="face68")
    parser.add_argument("--data", action="append", default=[], metavar="SPEC", help=DATA_HELP)
    parser.add_argument("--rounds", type=positive, default=40)
    parser.add_argument("--chunk", type=positive, default=25, help="calls of each in a round (default 25)")
    parser.add_argument("--cpu", type=natural, help="core to run on (default: the first one allowed)")
    parser.add_argument("--name", default="precision", help="of the result file")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
