"""How many labelled photos does it take? ``python -m benchmarks.data_efficiency NAME@DATA@TEST …``.

Trains the same small cascade on 25, 50, 100 and all photos of each data set, in two ways, with several seeds
that also draw other photos: with the template bank and without it (the prior keypoints are regressed then),
or, with ``--compare start``, from the trunks of the shipped model and from nothing. Each run sees as many
crops. Told is the error on test photos. Runs that are finished are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from benchmarks.many_runs import mean_and_spread, train_all
from edge_kp.cli import positive, run_cli
from edge_kp.errors import DataError
from edge_kp.training.datasets import load_dataset
from edge_kp.training.evaluation import evaluate
from edge_kp.training.recipe import load_cascade

COUNTS = (25, 50, 100)
WAYS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "bank": {"with the bank": (), "without": ("--without", "bank")},
    "start": {"from face68-free": ("--trunks", "shipped", "shipped"), "from nothing": ()},
}
RESULT = {"bank": "data_efficiency", "start": "data_efficiency-start"}
CROPS = (8_000, 16_000)  # that each stage sees
BUDGET = (
    "--trunks plain plain --sizes 64 96 --widths 8 16 --readings 1 1 --hidden 16 32 --batch 16 --turn 20"
    " --cover 0.3"
)
EPOCH = 800  # crops: photos are repeated until an epoch has as many


class Object(NamedTuple):
    """A kind of object: what it is trained and measured on, and what its box is."""

    data: str
    test: str
    box: str


def objects(specs: Sequence[str], images: Sequence[str]) -> dict[str, Object]:
    """``NAME@DATA@TEST`` → name → object; those in ``images`` fill their whole picture.

    Raises:
        DataError: another form.
    """
    found = {}
    for spec in specs:
        parts = spec.split("@")
        if len(parts) != 3 or not all(parts):
            raise DataError(f"{spec}: expected NAME@DATA@TEST, such as face68@ibug:train@ibug:val")
        found[parts[0]] = Object(parts[1], parts[2], "image" if parts[0] in images else "keypoints")
    return found


def schedule(count: int) -> tuple[int, list[str]]:
    """How often each of so many photos counts in an epoch, and the epochs of both stages."""
    repeat = max(1, round(EPOCH / count))
    return repeat, [str(round(crops / (0.95 * count * repeat))) for crops in CROPS]


def arguments(thing: Object, count: int, extra: Sequence[str], seed: int) -> list[str]:
    """Of ``edge_kp.train``, for so many photos."""
    repeat, epochs = schedule(count)
    data = f"{thing.data},take={count},seed={seed},repeat={repeat}"
    # Fewer templates than photos: a template is the middle of several.
    k = 16 if count < 50 else 32
    return [
        *("--data", data, "--box", thing.box, "--k", str(k), "--epochs", *epochs, "--seed", str(seed)),
        *BUDGET.split(),
        *extra,
    ]


def _plot(figures: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(figures), figsize=(5.5 * len(figures), 4), layout="constrained")
    for axis, (name, rows) in zip(np.atleast_1d(axes), figures.items(), strict=True):
        for (way, by_count), style in zip(rows.items(), ("o-", "s--"), strict=True):
            counts = [int(count) for count in by_count]
            mean = [row["mean"] for row in by_count.values()]
            spread = [row["std"] or 0.0 for row in by_count.values()]
            axis.errorbar(counts, mean, spread, fmt=style, capsize=3, label=way)
        axis.set_xscale("log")
        axis.set_xticks(counts, labels=[str(count) for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("labelled photos")
        axis.set_ylabel("NME, %")
        axis.set_title(name)
        axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _run(args: argparse.Namespace) -> None:
    things = objects(args.objects, args.image)
    runs: dict[Path, list[str]] = {}
    places: dict[tuple[str, str, int, int], Path] = {}
    for seed in range(args.seeds):
        for name, thing in things.items():
            whole = len(load_dataset([thing.data]))
            for count in args.counts or [*(c for c in COUNTS if c < whole), whole]:
                for way, extra in WAYS[args.compare].items():
                    out = args.runs / f"{name}-{count}-{way.replace(' ', '_')}-{seed}"
                    runs[out] = arguments(thing, count, extra, seed)
                    places[name, way, count, seed] = out
    train_all(runs, args.jobs)

    torch.set_num_threads(1)
    errors: dict[str, dict[str, dict[str, list[float]]]] = {}
    samples = {name: load_dataset([thing.test]).samples for name, thing in things.items()}
    for (name, way, count, seed), out in tqdm(places.items(), "measuring", unit="run"):
        boxes = "jitter" if things[name].box == "keypoints" else "tight"
        cascade = load_cascade(out, torch.device("cpu"))
        found = evaluate(cascade, samples[name], boxes, seed=seed, progress=False).summary()["cascade"]["nme"]
        assert found is not None
        errors.setdefault(name, {}).setdefault(way, {}).setdefault(str(count), []).append(found)
    figures = {
        name: {
            way: {count: mean_and_spread(values) for count, values in by_count.items()}
            for way, by_count in rows.items()
        }
        for name, rows in errors.items()
    }
    args.out.mkdir(parents=True, exist_ok=True)
    _plot(figures, args.out / f"{RESULT[args.compare]}.png")
    tested = {name: len(part) for name, part in samples.items()}
    budget = f"{BUDGET}, {CROPS[0]} and {CROPS[1]} crops"
    write_result(
        RESULT[args.compare],
        {"seeds": args.seeds, "budget": budget, "test_samples": tested, "nme": figures},
        args.out,
    )
    for name, rows in figures.items():
        for way, by_count in rows.items():
            cells = "".join(f"{c:>6}: {v['mean']:6.2f} ±{v['std'] or 0:5.2f}" for c, v in by_count.items())
            print(f"{name:<12}{way:<18}{cells}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.data_efficiency", description=__doc__)
    parser.add_argument("objects", nargs="+", metavar="NAME@DATA@TEST")
    parser.add_argument(
        "--image", action="append", default=[], metavar="NAME", help="its box is the whole picture"
    )
    parser.add_argument("--compare", choices=WAYS, default="bank", help="what differs (default bank)")
    parser.add_argument(
        "--counts", type=positive, nargs="+", metavar="N", help="photos (default 25, 50, 100 and all)"
    )
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--jobs", type=positive, default=1, help="runs that train at once, one core each")
    parser.add_argument("--runs", type=Path, default=Path("runs/data_efficiency"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
