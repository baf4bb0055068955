"""Kernels that TensorRT-RTX makes of every network, counted without a GPU: ``python -m benchmarks.kernels``.

Each graph is compiled for one image and a compute capability; the builder lists the layers after fusion, of
which each is one kernel (those that only pass signals between streams are left out). At this size a GPU waits
for kernels to be launched, so their number tells more about the time than the arithmetic does. Each row has
the sha256 of its ONNX file, by which ``benchmarks.speed`` knows whether it is the one that it measures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.engines import build
from edge_kp.backends.sidecar import library_name
from edge_kp.backends.tensorrt import load_tensorrt
from edge_kp.cli import run_cli
from edge_kp.modeldir import NETWORKS, PRECISIONS, checked_file, find_model, read_model


def _run(args: argparse.Namespace) -> None:
    trt = load_tensorrt()
    folder = find_model(args.model)
    spec = read_model(folder)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as work:
        for network in NETWORKS:
            for precision in PRECISIONS[:-1]:  # int8-cpu is not for TensorRT
                name = f"{network}.{precision}"
                if f"{name}.onnx" not in spec.files:
                    continue
                engine = Path(work, f"{name}.engine")
                path = checked_file(folder, spec, f"{name}.onnx")
                info = build(
                    trt, path, engine, precision, Gpu(None, args.compute_capability), (1,), progress=False
                )
                layers = json.loads(Path(f"{engine}.layers.json").read_text(encoding="utf-8"))["layers"]
                rows[name] = {
                    "sha256": spec.files[path.name],
                    "kernels": info.layers["1"],
                    "convolutions": dict(Counter(_convolutions(layers))),
                    "engine_bytes": engine.stat().st_size,
                }
                print(f"{name:<16}{info.layers['1']:>4} kernels  {rows[name]['convolutions']}")
    write_result(
        "kernels",
        {
            "model": spec.name,
            "library": f"{library_name(trt)} {trt.__version__}",
            "compute_capability": args.compute_capability,
            "batch": 1,
            "networks": rows,
        },
    )


def _convolutions(layers: Sequence[str]) -> list[str]:
    """Type of the image that each convolution takes."""
    found = (re.search(r"LayerType: correlation.*?Inputs: \[ \{.*?Datatype: (\w+)", text) for text in layers)
    return [match.group(1) for match in found if match]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--model", default="face68")
    parser.add_argument("--compute-capability", default="8.6", metavar="X.Y")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
