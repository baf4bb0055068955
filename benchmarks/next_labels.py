"""Which photos to label next? ``python -m benchmarks.next_labels --data ibug:train --test ibug:val``.

Trains a small cascade on some photos of a data set, chooses as many more in several ways, and trains it anew
on all of them, with several seeds that also draw other photos to begin with; each sees as many crops.
Told is the error on test photos. The ways:

``at random``, ``most doubtful`` (the points move most between looks), and ``middles of clusters`` of shapes,
as ``edge_kp.prelabel`` chooses. Doubts and shapes are those of the first cascade, in jittered boxes of the
labels. Finished runs are kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from benchmarks.data_efficiency import BUDGET, CROPS, schedule
from benchmarks.many_runs import mean_and_spread, train_all
from edge_kp.cli import positive, run_cli
from edge_kp.errors import DataError
from edge_kp.geometry import jitter_box, tight_box
from edge_kp.schema import KeypointSchema
from edge_kp.training.datasets import load_dataset
from edge_kp.training.doubt import choose, doubt_of
from edge_kp.training.evaluation import evaluate
from edge_kp.training.recipe import load_cascade
from edge_kp.training.regions import key_rng
from edge_kp.training.samples import Sample
from edge_kp.training.writing import LABELS, Labelled, write_coco, write_photo
from edge_kp.types import Array

WAYS = ("at random", "most doubtful", "middles of clusters")


def arguments(data: Path, count: int, seed: int) -> list[str]:
    """Of ``edge_kp.train``, for so many photos."""
    repeat, epochs = schedule(count)
    spec = f"coco:{data / LABELS},repeat={repeat}"
    k = 16 if count < 50 else 24
    return ["--data", spec, "--k", str(k), "--epochs", *epochs, "--seed", str(seed), *BUDGET.split()]


def chosen(way: str, doubts: Sequence[float], shapes: Sequence[Array], count: int) -> list[int]:
    """Which of the photos, given in random order, are labelled next."""
    if way == "at random":
        return list(range(count))
    if way == "most doubtful":
        return np.argsort(-np.array(doubts), kind="stable")[:count].tolist()
    return choose(shapes, count)


def write(schema: KeypointSchema, samples: Sequence[Sample], out: Path) -> Path:
    """A data set of these samples, if it is not there yet."""
    if not (out / LABELS).exists():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        pictures = []
        for number, sample in enumerate(samples):
            image = sample.read()
            write_photo(out / str(number), image)
            size, objects = (image.shape[1], image.shape[0]), ((sample.keypoints, sample.visible == 0),)
            alone = sample.use_background
            pictures.append(Labelled(f"{number}.jpg", size, objects, sample.others, alone))
        write_coco(out / LABELS, schema, pictures)
    return out


def drawn(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """All of them in random order."""
    return [samples[i] for i in np.random.default_rng(seed).permutation(len(samples))]


def seen(run: Path, samples: Sequence[Sample]) -> tuple[list[float], list[Array]]:
    """How much a cascade doubts each sample, and the shape that it sees."""
    cascade = load_cascade(run, torch.device("cpu"))
    doubts, shapes = [], []
    for sample in tqdm(samples, "looking", unit="photo", leave=False):
        image, box = sample.read(), jitter_box(sample.box, key_rng(sample.key, 1))
        found = cascade(image, [box]).keypoints[0]
        shape, doubt = doubt_of(cascade, image, tight_box(found), sample.key)
        doubts.append(doubt)
        shapes.append(shape)
    return doubts, shapes


def _run(args: argparse.Namespace) -> None:
    data = load_dataset(args.data)
    test = load_dataset(args.test, data.schema).samples
    samples = [s for s in data.samples if not np.isnan(s.keypoints).any()]
    if len(samples) < args.start + args.more:
        raise DataError(
            f"{len(samples)} samples whose points are all labelled, fewer than --start and --more together"
        )
    seeds = range(args.seeds)
    orders = {seed: drawn(samples, seed) for seed in seeds}

    def trained(name: str, parts: Mapping[int, Sequence[Sample]]) -> dict[int, Path]:
        """A run for each seed, on these samples."""
        runs = {seed: args.runs / f"{name}-{seed}" for seed in parts}
        told = {}
        for seed, part in parts.items():
            folder = write(data.schema, part, args.runs / f"{name}-{seed}-photos")
            told[runs[seed]] = arguments(folder, len(part), seed)
        train_all(told, args.jobs)
        return runs

    first = trained("first", {seed: order[: args.start] for seed, order in orders.items()})
    torch.set_num_threads(1)
    rest = {seed: order[args.start :] for seed, order in orders.items()}
    known = {seed: seen(first[seed], rest[seed]) for seed in seeds}
    runs = {"none": first}
    for way in WAYS:
        more = {seed: [rest[seed][i] for i in chosen(way, *known[seed], args.more)] for seed in seeds}
        parts = {seed: [*orders[seed][: args.start], *more[seed]] for seed in seeds}
        runs[way] = trained(way.replace(" ", "_"), parts)
    figures: dict[str, Any] = {}
    for way, by_seed in runs.items():
        errors = []
        for seed, run in by_seed.items():
            cascade = load_cascade(run, torch.device("cpu"))
            summary = evaluate(cascade, test, "jitter", seed=seed, progress=False).summary()
            error = summary["cascade"]["nme"]
            assert error is not None
            errors.append(error)
        figures[way] = mean_and_spread(errors)
        print(f"{way:<24}{figures[way]['mean']:6.2f} ±{figures[way]['std'] or 0:5.2f}")
    write_result(
        args.name,
        {
            "seeds": args.seeds,
            "start": args.start,
            "more": args.more,
            "budget": f"{BUDGET}, {CROPS[0]} and {CROPS[1]} crops",
            "pool": len(samples) - args.start,
            "test_samples": len(test),
            "nme": figures,
        },
        args.out,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.next_labels", description=__doc__)
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="SPEC", help="labelled photos to choose from")
    add("--test", action="append", required=True, metavar="SPEC", help="photos to measure on")
    add("--start", type=positive, default=50, help="photos of the first training (default 50)")
    add("--more", type=positive, default=50, help="photos that are chosen then (default 50)")
    add("--seeds", type=positive, default=3)
    add("--jobs", type=positive, default=1, help="runs that train at once, one core each")
    add("--runs", type=Path, default=Path("runs/next_labels"), metavar="DIR")
    add("--name", default="next_labels", help="of the JSON (default next_labels)")
    add("--out", type=Path, default=RESULTS, metavar="DIR")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
