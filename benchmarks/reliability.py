"""Do ``visibility`` and ``score`` mean something? ``python -m benchmarks.reliability --data SPEC``.

Each is asked one question of yes or no, and the figure is the area under its ROC curve (Fawcett 2006): how
often a random yes gets more than a random no, 0.5 for a coin.

visibility: a cover is put on each photo, as in :mod:`benchmarks.occlusion`; which points lie under it? Boxes
are jittered by ±10 %.

score: crops of objects, their boxes jittered, against crops of as many places beside each object, 0.3 to 1.2
times as large, that touch at most a sliver of it. Sets of photos where other objects stand unlabelled
(``background=no``) give objects only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from benchmarks.common import write_result
from benchmarks.occlusion import cover
from edge_kp import Detector
from edge_kp.cli import positive, run_cli
from edge_kp.geometry import jitter_box
from edge_kp.metrics import roc_auc
from edge_kp.training.datasets import Sample, load_dataset
from edge_kp.training.regions import key_rng, shared
from edge_kp.types import Array

SLIVER = 0.03  # of the smaller box
SIZES = (0.3, 1.2)  # of a place beside the object, in sides of its box
TRIES = 50


def background_boxes(sample: Sample, shape: tuple[int, ...], count: int, seed: int) -> list[Array]:
    """At most ``count`` square boxes inside a picture of ``shape`` that show no object known to be in it."""
    rng = key_rng(sample.key, seed)
    height, width = shape[:2]
    x0, y0, x1, y1 = (float(v) for v in sample.box)
    objects = (sample.box, *sample.others)
    boxes: list[Array] = []
    for _ in range(TRIES * count):
        side = max(x1 - x0, y1 - y0) * rng.uniform(*SIZES)
        if side >= min(width, height):
            continue
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        square = np.array([x, y, x + side, y + side], np.float32)
        if all(shared(square, box) <= SLIVER for box in objects):
            boxes.append(square)
        if len(boxes) == count:
            break
    return boxes


def _run(args: argparse.Namespace) -> None:
    seen: list[Array] = []
    chances: list[Array] = []
    objects: list[Array] = []
    places: list[Array] = []
    with Detector(
        args.model, backend=args.backend, precision=args.precision, threads=args.threads
    ) as detector:
        samples = load_dataset(args.data, detector.schema).samples
        for i, sample in enumerate(tqdm(samples, "photos", unit="photo", leave=False)):
            image = sample.read()
            boxes = [jitter_box(sample.box, key_rng(sample.key, seed)) for seed in range(args.draws)]
            objects.append(detector.cascade(image, boxes).score)
            if sample.use_background:
                beside = background_boxes(sample, image.shape, args.draws, 0)
                places.append(detector.cascade(image, beside).score)
            for seed, box in enumerate(boxes):
                other = samples[(i + seed + 1) % len(samples)]
                picture, under = cover(sample, other, args.share, seed)
                labelled = ~np.isnan(sample.keypoints).any(1)
                chances.append(detector.cascade(picture, [box]).visibility[0][labelled])
                seen.append(~under[labelled])
        backend, precision = detector.backend_name, detector.precision
    visible, found = np.concatenate(seen), np.concatenate(objects)
    figures = {
        "backend": backend,
        "precision": precision,
        "visibility": {
            "auc": round(roc_auc(np.concatenate(chances), visible), 4),
            "points": len(visible),
            "covered": int((~visible).sum()),
        },
    }
    if places:
        empty = np.concatenate(places)
        is_object = np.repeat([True, False], [len(found), len(empty)])
        figures["score"] = {
            "auc": round(roc_auc(np.concatenate([found, empty]), is_object), 4),
            "objects": len(found),
            "places": len(empty),
            "objects_below_half": round(float((found < 0.5).mean()), 4),
            "places_above_half": round(float((empty > 0.5).mean()), 4),
        }
    for name in ("visibility", "score"):
        print(name, figures.get(name, "no photo whose background may be used"))
    write_result(args.name, {"samples": len(samples), "share": args.share, "draws": args.draws, **figures})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.reliability", description=__doc__)
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="SPEC")
    add("--model", default="face68")
    add("--backend", default="auto")
    add("--precision", default="auto")
    add("--share", type=float, default=1 / 3, help="of the box that is covered (default a third)")
    add("--draws", type=positive, default=5, help="covers, boxes and places per photo (default 5)")
    add("--threads", type=int, default=1)
    add("--name", default="reliability", help="of the result file")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
