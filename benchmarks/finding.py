"""Which objects does the detector find? ``python -m benchmarks.finding --data SPEC``: by size, cover, turn.

Found counts what the whole detector tells, locator and both stages, with its points in place. Small: each
photo is shrunk until its labelled object is so many pixels wide, and laid at random onto a drawn surface of
1280 × 720 pixels; with ``--tiles`` from 1 on. Covered: a drawn surface hides a share of the object's box.
Turned: the photo is turned in its plane. The price: the time of a search, and what is told where no object
is, in drawn surfaces and in the pictures of ``--background DIR``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from benchmarks.timing import median_ms
from benchmarks.weaknesses import covered
from edge_kp import Detector
from edge_kp.cli import run_cli
from edge_kp.errors import DataError
from edge_kp.files import replacing
from edge_kp.geometry import box_area, box_iou, similarity, tight_box, transform_points
from edge_kp.live.source import input_files
from edge_kp.training.datasets import Sample, load_dataset
from edge_kp.training.regions import key_rng
from edge_kp.training.samples import read_image
from edge_kp.training.textures import random_texture
from edge_kp.types import Array, Detection

WIDTH, HEIGHT = 1280, 720
WIDTHS = (12, 16, 20, 28, 40, 64, 100, 160, 320)  # of the object's box in the frame, pixels
TILES = (1, 2, 3, 4)
COVERS = (0.0, 0.2, 0.35, 0.5)  # share of the object's box
TURNS = (15, 30, 45, 60, 90, 135, 180)  # degrees
OVERLAP = 0.4  # IoU of what is found and the label
IN_PLACE = 0.08  # mean distance of the points below that, sides of a square of the label's area
SURFACES = 100  # frames of a drawn surface alone
ROUNDS = 40  # searches that are timed

Harder = Callable[[Sample, float, np.random.Generator], tuple[Array, Array]]


def surface(rng: np.random.Generator) -> Array:
    """uint8 BGR (720, 1280, 3)."""
    square = cv2.resize(random_texture(320, rng), (WIDTH, WIDTH), interpolation=cv2.INTER_CUBIC)
    return np.asarray(square[:HEIGHT])


def small_in_frame(sample: Sample, width: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """A frame with the sample's photo in it, its object ``width`` pixels wide, and its keypoints there."""
    photo, box = sample.read(), sample.box.astype(np.float64)
    scale = width / (box[2] - box[0])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=how)
    box = (box + 0.5) * scale - 0.5
    keypoints = (sample.keypoints + 0.5) * scale - 0.5
    frame = surface(rng)
    size = np.array([WIDTH, HEIGHT])
    middle = rng.uniform(np.minimum(width, size / 2), np.maximum(size - width, size / 2))
    x, y = np.round(middle - (box[:2] + box[2:]) / 2).astype(int).tolist()
    h, w = photo.shape[:2]
    left, top, right, bottom = max(0, x), max(0, y), min(WIDTH, x + w), min(HEIGHT, y + h)
    frame[top:bottom, left:right] = photo[top - y : bottom - y, left - x : right - x]
    return frame, keypoints + np.array([x, y])


def covered_photo(sample: Sample, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The photo with a share of its object's box hidden, and its keypoints."""
    return covered(sample.read(), sample.keypoints, share, rng), sample.keypoints


def turned_photo(sample: Sample, degrees: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The photo turned either way about its middle, all of it in view, and its object's keypoints."""
    photo = sample.read()
    height, width = photo.shape[:2]
    side = math.ceil(math.hypot(width, height))
    angle = math.radians(degrees if rng.random() < 0.5 else -degrees)
    turn = similarity(angle, 1.0)
    turn[:, 2] = (side - 1) / 2 - turn[:, :2] @ [(width - 1) / 2, (height - 1) / 2]
    return cv2.warpAffine(photo, turn, (side, side)), transform_points(turn, sample.keypoints)


def found_percent(detector: Detector, samples: Sequence[Sample], harder: Harder, value: float) -> float:
    """Share of the samples that the detector tells in the pictures that ``harder`` makes of them."""
    found = 0
    for sample in samples:
        picture, keypoints = harder(sample, value, key_rng(sample.key, round(100 * value)))
        found += any(is_it(detection, keypoints) for detection in detector.detect(picture))
    return round(100 * found / len(samples), 1)


def is_it(detection: Detection, keypoints: Array) -> bool:
    """Does it show the object with these keypoints (N, 2), NaN where unlabelled?"""
    box = tight_box(keypoints)
    distance = float(np.nanmean(np.linalg.norm(detection.keypoints - keypoints, axis=1)))
    return box_iou(detection.box, box) > OVERLAP and distance < IN_PLACE * math.sqrt(box_area(box))


def told_in(detector: Detector, frames: Iterable[Array]) -> float:
    """Objects told a frame."""
    return round(float(np.mean([len(detector.detect(frame)) for frame in frames])), 3)


def plot(found: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for tiles, row in found.items():
        axis.plot([float(width) for width in row], list(row.values()), marker="o", label=f"--tiles {tiles}")
    axis.set_xscale("log", base=2)
    axis.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    axis.set_xlabel(f"width of the object's box in a frame of {WIDTH} × {HEIGHT}, pixels")
    axis.set_ylabel("found, %")
    axis.grid(alpha=0.3)
    axis.legend()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
    plt.close(figure)


def _run(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    files = input_files(str(args.background)) if args.background else []
    if args.background and not files:
        raise DataError(f"{args.background}: holds no pictures")
    samples = load_dataset(args.data).samples
    found: dict[str, dict[str, float]] = {}
    figures: dict[str, Any] = {"search_ms": {}, "objects_in_a_surface": {}, "objects_in_a_background": {}}
    for tiles in TILES:
        key = str(tiles)
        with Detector(args.model, threads=1, tiles=tiles) as detector:
            widths = tqdm(WIDTHS, f"{tiles} tiles", leave=False)
            found[key] = {
                str(width): found_percent(detector, samples, small_in_frame, width) for width in widths
            }
            if tiles == 1:
                for name, harder, values in (
                    ("covered", covered_photo, COVERS),
                    ("turned", turned_photo, TURNS),
                ):
                    figures[f"found_{name}_percent"] = {
                        f"{value:g}": found_percent(detector, samples, harder, value) for value in values
                    }
            drawn = (surface(np.random.default_rng(seed)) for seed in range(SURFACES))
            figures["objects_in_a_surface"][key] = told_in(detector, drawn)
            if files:
                pictures = (read_image(str(file)) for file in files)
                figures["objects_in_a_background"][key] = told_in(detector, pictures)
            search = partial(detector.locator, surface(np.random.default_rng(0)))
            figures["search_ms"][key] = round(median_ms(search, ROUNDS), 1)
            how = {"precision": detector.precision, "backend": detector.backend_name}
        print(f"{tiles} tiles: " + ", ".join(f"{share:.0f} % at {w} px" for w, share in found[key].items()))
    for name in ("covered", "turned"):
        row = figures[f"found_{name}_percent"].items()
        print(f"{name}: " + ", ".join(f"{share:.0f} % at {value}" for value, share in row))
    plot(found, RESULTS / f"{args.name}.png")
    frame = {"frame": [WIDTH, HEIGHT], "samples": len(samples), "backgrounds": len(files)}
    write_result(args.name, {"model": args.model, **how, **frame, "found_percent": found, **figures})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.finding", description=__doc__)
    parser.add_argument("--data", action="append", required=True, metavar="SPEC")
    parser.add_argument("--background", type=Path, metavar="DIR", help="pictures without any object")
    parser.add_argument("--model", default="face68")
    parser.add_argument("--name", default="finding", help="of the result file")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
