"""Shipped models on an emulated ARM processor: the parts of ``bash benchmarks/arm_check.sh``.

``hold`` and ``follow`` need no more than edge_kp itself and run on either processor; ``write`` puts their
files together.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import RESULTS, write_result
from edge_kp import Detector, Tracker
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.cli import run_cli
from edge_kp.errors import DataError
from edge_kp.modeldir import SHIPPED, read_model, shipped_models
from edge_kp.parity import compare, load_references
from edge_kp.schema import FACE68
from edge_kp.types import Array

CLIP = SHIPPED.parent / "assets" / "astronaut.mp4"
HELD = ("fp32", "fp16", "int8-cpu")  # int8 is TensorRT's
FOLLOWED = ("fp32", "fp16", "int8")
EVERY = 4  # frames: an emulated processor is slow


def hold() -> dict[str, Any]:
    """Every shipped network beside the stored results: model → precision → network → its points' errors."""
    held: dict[str, Any] = {}
    for model in shipped_models():
        folder = SHIPPED / model
        spec = read_model(folder)
        references = load_references(folder, spec)
        for precision in HELD:
            rows = held.setdefault(model, {}).setdefault(precision, {})
            for network, expected in references.items():
                if (name := f"{network}.{precision}.onnx") in spec.files:
                    with OnnxRuntimeBackend(folder / name, precision, threads=1) as backend:
                        seen = backend.run(expected.images)
                    found = compare(network, precision, seen, expected.outputs)
                    points = next(row for row in found if row.output in ("keypoints", "boxes"))
                    rows[network] = {
                        "mean": float(f"{points.mean:.3g}"),
                        "worst": float(f"{points.worst:.3g}"),
                        "beyond_tolerance": [row.output for row in found if not row.passed],
                    }
    return held


def follow(precision: str) -> Array:
    """(F, 68, 2) keypoints of the face in every fourth frame of the shipped clip, NaN in those without it."""
    clip = cv2.VideoCapture(str(CLIP))
    rows: list[Array] = []
    fps = clip.get(cv2.CAP_PROP_FPS)
    count = 0
    with Detector("face68", backend="onnxruntime", precision=precision, threads=1) as detector:
        tracker = Tracker(detector)
        while (frame := clip.read())[0]:
            if count % EVERY == 0:
                found = tracker.update(frame[1], count / fps)
                rows.append(found[0].keypoints if found else np.full((68, 2), np.nan))
            count += 1
    return np.array(rows)


def apart(seen: Array, expected: Array) -> dict[str, Any]:
    """How far two followings of the clip are apart, % of the distance between the outer eye corners.

    Raises:
        DataError: clips of different lengths, or no frame with the face in both.
    """
    if len(seen) != len(expected):
        raise DataError(f"the clip had {len(seen)} frames there and {len(expected)} here; run both again")
    left, right = FACE68.reference
    unit = np.linalg.norm(expected[:, left] - expected[:, right], axis=1)
    distance = 100 * np.linalg.norm(seen - expected, axis=2).mean(1) / unit
    there = [np.isfinite(points).all((1, 2)) for points in (seen, expected)]
    if not (both := there[0] & there[1]).any():
        raise DataError("no frame shows the face both there and here")
    return {
        "frames": len(seen),
        "frames_with_face": int(there[0].sum()),
        "frames_with_face_here": int(there[1].sum()),
        "apart_mean_percent": round(float(distance[both].mean()), 4),
        "apart_worst_percent": round(float(distance[both].max()), 4),
    }


def errors(folder: Path) -> dict[str, Any]:
    """What ``edge_kp.evaluate`` measured there on labelled photos, by precision, where it did."""
    measured = {}
    for precision in FOLLOWED:
        if (path := folder / f"{precision}.error.json").exists():
            told = json.loads(path.read_text(encoding="utf-8"))
            measured[precision] = {"title": told["title"], **told["summary"]["cascade"]}
    return measured


def _run(args: argparse.Namespace) -> None:
    if args.part == "hold":
        about = {"machine": platform.machine(), "onnxruntime": version("onnxruntime"), "models": hold()}
        args.file.write_text(json.dumps(about))
    elif args.part == "follow":
        np.save(args.file, follow(args.precision))
    else:
        clip = {
            precision: apart(*(np.load(args.file / f"{precision}.{where}.npy") for where in ("arm", "here")))
            for precision in FOLLOWED
        }
        held = json.loads((args.file / "held.json").read_text())
        emulated = {"processor": args.processor, "emulator": args.emulator, **held}
        write_result("arm", {"emulated": emulated, "clip": clip, "error": errors(args.file)}, args.out)
        far = [
            f"{model} {network}.{precision}: beyond tolerance in {', '.join(figures['beyond_tolerance'])}"
            for model, precisions in held["models"].items()
            for precision, networks in precisions.items()
            for network, figures in networks.items()
            if figures["beyond_tolerance"]
        ]
        if far:
            raise DataError(*far)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.arm", description=__doc__)
    parser.add_argument("part", choices=("hold", "follow", "write"))
    parser.add_argument("file", type=Path, help="to write; of write the folder of the others")
    parser.add_argument("--precision", choices=FOLLOWED, default="fp32")
    parser.add_argument("--processor", default=platform.machine())
    parser.add_argument("--emulator", default="none")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for the results")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
