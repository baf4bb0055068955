"""Does the shape prior help under covers? ``python -m benchmarks.occlusion --data SPEC --models A B``.

A rectangle of a third of the object's box is put at a random place inside the box, filled with a flat colour,
coloured noise or a part of another photo, the same for every model; boxes are jittered by ±10 %. What counts
is by how much the error grows.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from benchmarks.common import write_result
from edge_kp import Detector
from edge_kp.cli import run_cli
from edge_kp.metrics import failure_rate
from edge_kp.training.datasets import Sample, load_dataset
from edge_kp.training.evaluation import evaluate
from edge_kp.training.regions import key_rng
from edge_kp.types import Array


def covered(sample: Sample, other: Sample, share: float, seed: int) -> Array:
    """The sample's image with ``share`` of its box covered."""
    return cover(sample, other, share, seed)[0]


def cover(sample: Sample, other: Sample, share: float, seed: int) -> tuple[Array, Array]:
    """The image with ``share`` of the sample's box covered, and (N,) bool: which points lie under it."""
    rng = key_rng(f"cover {sample.key}", seed)  # by the sample's own key boxes are jittered
    image = sample.load().copy()
    x0, y0, x1, y1 = (float(v) for v in sample.box)
    stretch = math.exp(rng.uniform(-0.5, 0.5))
    # Wider than the box is no cover inside it: the other side grows instead.
    w = float(np.clip(math.sqrt(share * stretch), share, 1)) * (x1 - x0)
    h = share * (x1 - x0) * (y1 - y0) / w
    left, top = rng.uniform(x0, x1 - w), rng.uniform(y0, y1 - h)
    columns = slice(max(0, round(left)), max(0, round(left + w)))
    rows = slice(max(0, round(top)), max(0, round(top + h)))
    x, y = np.round(sample.keypoints).T
    under = (x >= columns.start) & (x < columns.stop) & (y >= rows.start) & (y < rows.stop)
    part = image[rows, columns]
    if not part.size:
        return image, under
    size = (part.shape[1], part.shape[0])
    kind = rng.integers(3)
    if kind == 0:
        part[:] = rng.integers(0, 256, 3)
    elif kind == 1:
        cells = int(rng.integers(3, 16))
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        part[:] = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    else:
        part[:] = cv2.resize(other.load(), size, interpolation=cv2.INTER_AREA)
    return image, under


def _run(args: argparse.Namespace) -> None:
    figures = {}
    for model in args.models:
        with Detector(model, threads=args.threads) as detector:
            samples = load_dataset(args.data, detector.schema).samples
            clean = evaluate(detector.cascade, samples, "jitter")
            growth = []
            for seed in range(args.draws):
                others = samples[seed + 1 :] + samples[: seed + 1]
                hidden = [
                    replace(s, load=partial(covered, s, o, args.share, seed))
                    for s, o in zip(samples, others, strict=True)
                ]
                growth.append(evaluate(detector.cascade, hidden, "jitter"))
        rows = {}
        for output, errors in clean.errors.items():
            before, after = (100 * float(np.nanmean(e)) for e in (errors, [g.errors[output] for g in growth]))
            rows[output] = {
                "nme": round(before, 3),
                "nme_covered": round(after, 3),
                "growth": round(after - before, 3),
                "fr10_covered": round(
                    100 * failure_rate(np.concatenate([g.errors[output] for g in growth])), 2
                ),
            }
            print(f"{model} {output:<14}{before:8.3f} % → {after:8.3f} % (+{after - before:.3f})")
        figures[str(model).rstrip("/").split("/")[-1]] = rows
    write_result(
        "occlusion", {"samples": len(samples), "share": args.share, "draws": args.draws, "models": figures}
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.occlusion", description=__doc__)
    parser.add_argument("--data", action="append", required=True, metavar="SPEC")
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL")
    parser.add_argument(
        "--share", type=float, default=1 / 3, help="of the box that is covered (default a third)"
    )
    parser.add_argument("--draws", type=int, default=3, help="covers per sample (default 3)")
    parser.add_argument("--threads", type=int, default=1)
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
