"""How many objects the locator finds: ``python -m benchmarks.locate --data ibug:helen_val``.

A box counts as found where one overlaps it by more than 40 % (IoU); every other box is false, unless the
data set is read with ``background=no``, where only boxes that touch a label can be. ``--background DIR``
counts the boxes in pictures without any object. ``--keep FILE.png`` draws what was missed and what was wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.common import write_result
from benchmarks.timing import median_ms
from edge_kp import Detector
from edge_kp.cli import run_cli
from edge_kp.errors import DataError, ModelError
from edge_kp.files import replacing
from edge_kp.geometry import tight_box
from edge_kp.live.source import input_files
from edge_kp.locator import NetworkLocator
from edge_kp.metrics import average_precision, match_boxes, recall_and_false
from edge_kp.overlay import sheet
from edge_kp.training.datasets import load_dataset
from edge_kp.training.photos import Photo, read_photos
from edge_kp.training.samples import read_image
from edge_kp.types import Array

OVERLAP = 0.4
TILE = 320  # side of a picture of --keep, pixels


def on_data(locate: NetworkLocator, threshold: float, spec: str) -> tuple[dict[str, Any], list[Array]]:
    """Figures of one data set, and its worst pictures."""
    data = load_dataset([spec])
    photos = read_photos(data.samples)
    found = [locate.search(photo.levels[0]) for photo in tqdm(photos, "searching", leave=False)]
    truth = [np.array([tight_box(points) for points in photo.objects]) for photo in photos]
    complete = [photo.complete for photo in photos]
    boxes, scores = [f[0] for f in found], [f[1] for f in found]
    recall, false = recall_and_false(boxes, scores, truth, complete, threshold, OVERLAP)
    figures = {
        "photos": len(photos),
        "objects": sum(map(len, truth)),
        "found_percent": round(100 * recall, 2),
        "false_boxes_per_photo": round(false, 3),
        "average_precision": round(average_precision(boxes, scores, truth, complete, OVERLAP), 4),
        "all_objects_labelled": all(complete),
    }
    worst = [
        drawn
        for photo, true, (box, score) in zip(photos, truth, found, strict=True)
        if (drawn := _drawn(photo, true, box[score >= threshold])) is not None
    ]
    return figures, worst


def _drawn(photo: Photo, truth: Array, boxes: Array) -> Array | None:
    """What was missed (blue) and what was wrong (red), beside what was right; None where all was."""
    match, touches = match_boxes(boxes, truth, OVERLAP)
    wrong = (match < 0) & (touches | photo.complete)
    missed = set(range(len(truth))) - set(match.tolist())
    if not missed and not wrong.any():
        return None
    image = photo.levels[0].copy()
    rows = [(box, (0, 0, 255) if bad else (0, 220, 0)) for box, bad in zip(boxes, wrong, strict=True)]
    for box, colour in [*rows, *((truth[i], (255, 80, 0)) for i in missed)]:
        x0, y0, x1, y1 = np.round(box).astype(int).tolist()
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, 2)
    scale = TILE / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    tile[: image.shape[0], : image.shape[1]] = image[:TILE, :TILE]
    return tile


def on_background(locate: NetworkLocator, threshold: float, folder: Path) -> dict[str, Any]:
    files = input_files(str(folder))
    if not files:
        raise DataError(f"{folder}: holds no pictures")
    counts = [int((locate.search(read_image(str(file)))[1] >= threshold).sum()) for file in files]
    return {
        "pictures": len(files),
        "false_boxes_per_picture": round(float(np.mean(counts)), 3),
        "pictures_with_false_boxes": int(np.count_nonzero(counts)),
    }


def _milliseconds(locate: NetworkLocator, rounds: int) -> float:
    """Median of one search in a 640 × 480 frame, shrinking included."""
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 5)
    return round(median_ms(lambda: locate.search(image), rounds), 2)


def _run(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    with Detector(args.model, threads=1) as detector:
        locator = detector.locator
        if not isinstance(locator, NetworkLocator):
            raise ModelError(f"{args.model}: has no locator; train one with --part locator")
        threshold = locator.threshold
        wide = NetworkLocator(locator.backend, locator.size, 0.05)
        figures: dict[str, Any] = {
            "threshold": threshold,
            "search_640x480_median_ms": _milliseconds(locator, 200),
        }
        worst: list[Array] = []
        for spec in args.data:
            name = load_dataset([spec]).names[0]
            figures[name], drawn = on_data(wide, threshold, spec)
            worst += drawn
        if args.background:
            figures["background"] = on_background(wide, threshold, args.background)
    for name, value in figures.items():
        print(f"{name:<28}{value}")
    if args.keep and worst:
        side = int(np.ceil(np.sqrt(len(worst))))
        with replacing(args.keep) as part:
            part.write_bytes(cv2.imencode(".png", sheet(worst, side))[1].tobytes())
    how = {"model": args.model, "precision": detector.precision, "backend": detector.backend_name}
    write_result(args.name, {**how, "overlap": OVERLAP, "figures": figures})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.locate", description=__doc__)
    parser.add_argument("--data", action="append", required=True, metavar="SPEC")
    parser.add_argument("--background", type=Path, metavar="DIR", help="pictures without any object")
    parser.add_argument("--model", default="face68")
    parser.add_argument("--keep", type=Path, metavar="FILE.png", help="draw what was missed or wrong")
    parser.add_argument("--name", default="locate", help="of the result file")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
