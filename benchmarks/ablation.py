"""What is each part of the method worth? ``python -m benchmarks.ablation --data SPEC --test SPEC``.

Trains the same small cascade without one part after the other, with several seeds, and tells of each the
error on test photos as they are, with a third of the object covered, and with boxes jittered by ±20 % and
turned by ±30°; and how often a result is a shape that the object never has. Runs that are finished are kept,
so the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from benchmarks.many_runs import mean_and_spread, train_all
from benchmarks.occlusion import covered
from edge_kp.cli import positive, run_cli
from edge_kp.geometry import similarity, transform_points
from edge_kp.templates import TemplateBank, align_to_mean
from edge_kp.training.datasets import Sample, load_dataset
from edge_kp.training.evaluation import evaluate
from edge_kp.training.parts import PARTS
from edge_kp.training.recipe import load_cascade
from edge_kp.training.regions import key_rng
from edge_kp.types import Array

WHOLE = "whole method"
NO_STAGE2 = "without stage 2"  # the first output of the whole method's runs
VARIANTS: Mapping[str, Sequence[str]] = {
    WHOLE: (),
    "without the bank (regression)": ("--without", "bank"),
    "without the residual": ("--without", "residual"),
    "loss on the last keypoints only": ("--without", "prior-loss"),
    "without attribute weights": ("--without", "weights"),
    "without random covers": ("--cover", "0"),
    "without random moves": ("--without", "moves"),
    "without the correction network": ("--without", "correction"),
    "1 template": ("--k", "1"),
    "16 templates": ("--k", "16"),
    "256 templates": ("--k", "256"),
}
BUDGET = (
    "--trunks plain plain --sizes 64 64 --widths 8 16 --readings 1 1 --hidden 16 32 --epochs 16 32 --batch 32"
)
SHARE = 1 / 3  # of the object's box that is covered
JITTER, TURN = 0.2, 30.0  # of the box's sides; degrees
USUAL = 0.999  # share of true shapes that count as normal


def turned(sample: Sample, degrees: float, seed: int) -> Sample:
    """The sample with its picture turned about the middle of its box, to either side."""
    sign = key_rng(f"turn {sample.key}", seed).choice((-1.0, 1.0))
    turn = similarity(np.radians(sign * degrees), 1.0)
    middle = (sample.box[:2].astype(np.float64) + sample.box[2:]) / 2
    turn[:, 2] = middle - turn[:, :2] @ middle
    points = transform_points(turn, sample.keypoints).astype(np.float32)
    return replace(sample, keypoints=points, load=partial(_turned_image, sample.load, turn))


def _turned_image(load: Callable[[], Array], turn: Array) -> Array:
    image = load()
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.warpAffine(image, turn, size, borderMode=cv2.BORDER_REPLICATE))


def conditions(samples: Sequence[Sample], seed: int) -> dict[str, tuple[list[Sample], float]]:
    """Name → samples, and by how much their boxes are jittered."""
    others = [*samples[1:], samples[0]]
    hidden = [
        replace(s, load=partial(covered, s, other, SHARE, seed))
        for s, other in zip(samples, others, strict=True)
    ]
    return {
        "plain": (list(samples), 0.1),
        "covered": (hidden, 0.1),
        "moved": ([turned(s, TURN, seed) for s in samples], JITTER),
    }


@dataclass(frozen=True, eq=False)
class NormalShapes:
    """Tells shapes that an object has from others: by their distance to the span of a bank.

    Attributes:
        basis: (2N, D) orthonormal directions in which the bank's templates differ.
        limit: distance that true shapes hardly ever have, root mean square over the points, in sides of the
            aligned crop.
    """

    bank: TemplateBank
    basis: Array
    limit: float

    @classmethod
    def measure(cls, bank: TemplateBank, shapes: Array) -> NormalShapes:
        """From (M, N, 2) true shapes, frame pixels."""
        spread = (bank.templates.astype(np.float64) - bank.mean_shape).reshape(len(bank), -1)
        _, size, rows = np.linalg.svd(spread, full_matrices=False)
        normal = cls(bank, rows[size > 1e-6 * size[0]].T, 0.0)
        # Of a shape that lacks a label nobody knows how far it is.
        return replace(normal, limit=float(np.nanquantile(normal.distance(shapes), USUAL)))

    def distance(self, shapes: Array) -> Array:
        """(M,) distances of (M, N, 2) shapes in any frame."""
        aligned = align_to_mean(self.bank, shapes)
        rest = (aligned - self.bank.mean_shape).reshape(len(shapes), -1)
        rest = rest - rest @ self.basis @ self.basis.T
        return np.asarray(np.sqrt((rest**2).sum(1) / len(self.bank.schema)))

    def abnormal(self, shapes: Array) -> float:
        """Share of the shapes that no object has."""
        return float((self.distance(shapes) > self.limit).mean())


def measure(
    run: Path, sets: Mapping[str, tuple[list[Sample], float]], normal: NormalShapes, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Output (``cascade``, ``stage1``) → condition → NME %, FR@10 % and share of abnormal shapes, %."""
    cascade = load_cascade(run, torch.device("cpu"))
    rows: dict[str, dict[str, dict[str, float]]] = {"cascade": {}, "stage1": {}}
    for name, (samples, jitter) in sets.items():
        result = evaluate(cascade, samples, "jitter", seed=seed, progress=False, jitter=jitter)
        summary = result.summary()
        for output, points in (("cascade", result.keypoints), ("stage1", result.stage1_keypoints)):
            nme, failures = summary[output]["nme"], summary[output]["fr10"]
            assert nme is not None
            assert failures is not None
            rows[output][name] = {
                "nme": nme,
                "fr10": failures,
                "abnormal": 100 * normal.abnormal(points),
            }
    return rows


def _table(figures: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> dict[str, Any]:
    """Variant → condition → figure → mean and spread over the seeds."""
    return {
        variant: {
            condition: {name: mean_and_spread(seeds) for name, seeds in values.items()}
            for condition, values in rows.items()
        }
        for variant, rows in figures.items()
    }


def _plot(table: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(table)
    columns = [(c, "nme") for c in table[WHOLE]] + [("covered", "abnormal")]
    titles = [
        "NME %, plain",
        "NME %, a third covered",
        "NME %, box off and turned",
        "abnormal shapes %, covered",
    ]
    figure, axes = plt.subplots(1, len(columns), figsize=(14, 5), sharey=True, layout="constrained")
    for axis, (condition, name), title in zip(axes, columns, titles, strict=True):
        mean = np.array([table[v][condition][name]["mean"] for v in names])
        spread = np.array([table[v][condition][name]["std"] or 0.0 for v in names])
        colours = ["C0" if v == WHOLE else "0.6" for v in names]
        axis.barh(names, mean, xerr=spread, color=colours, error_kw={"elinewidth": 1})
        axis.axvline(mean[0], color="C0", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(left=max(0.0, 0.8 * (mean - spread).min()))
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _run(args: argparse.Namespace) -> None:
    data = [word for spec in args.data for word in ("--data", spec)]
    runs = {
        args.runs / f"{_folder(variant)}-{seed}": [*data, *BUDGET.split(), *extra, "--seed", str(seed)]
        for seed in range(args.seeds)
        for variant, extra in VARIANTS.items()
    }
    train_all(runs, args.jobs)

    torch.set_num_threads(1)
    bank = TemplateBank.load(args.runs / f"{_folder(WHOLE)}-0" / "templates.npz")
    shapes = np.stack([s.keypoints for s in load_dataset(args.data).samples]).astype(np.float64)
    if bank.schema.can_flip:
        mirrored = shapes[:, bank.schema.flip_index] * np.array([-1.0, 1.0])
        shapes = np.concatenate([shapes, mirrored])
    normal = NormalShapes.measure(bank, shapes)
    samples = load_dataset(args.test, bank.schema).samples
    sets = conditions(samples, 0)
    figures: dict[str, dict[str, dict[str, list[float]]]] = {}
    every = [(variant, seed) for variant in VARIANTS for seed in range(args.seeds)]
    for variant, seed in tqdm(every, "measuring", unit="run"):
        rows = measure(args.runs / f"{_folder(variant)}-{seed}", sets, normal, seed)
        outputs = {variant: rows["cascade"]}
        if variant == WHOLE:
            outputs[NO_STAGE2] = rows["stage1"]
        for title, row in outputs.items():
            for condition, values in row.items():
                for name, value in values.items():
                    figures.setdefault(title, {}).setdefault(condition, {}).setdefault(name, []).append(value)
    table = _table(figures)
    args.out.mkdir(parents=True, exist_ok=True)
    _plot(table, args.out / "ablation.png")
    write_result(
        "ablation",
        {
            "data": sorted({s.key.split("/")[0] for s in load_dataset(args.data).samples}),
            "test_samples": len(samples),
            "seeds": args.seeds,
            "budget": BUDGET,
            "parts": PARTS,
            "abnormal": f"distance to the span of {len(bank)} templates above {normal.limit:.4f} sides of the"
            f" aligned crop, as {100 * USUAL:g} % of the true shapes stay below",
            "variants": table,
        },
        args.out,
    )
    _print(table)


def _print(table: Mapping[str, Any]) -> None:
    print(f"{'':<34}{'plain':>14}{'covered':>16}{'moved':>16}{'abnormal, covered':>20}")
    for variant, rows in table.items():
        cells = [rows[c]["nme"] for c in ("plain", "covered", "moved")] + [rows["covered"]["abnormal"]]
        print(f"{variant:<34}" + "".join(f"{c['mean']:>10.2f} ±{c['std'] or 0:5.2f}" for c in cells))


def _folder(variant: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in variant).strip("_")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--data", action="append", required=True, metavar="SPEC", help="to train on")
    parser.add_argument("--test", action="append", required=True, metavar="SPEC", help="to measure on")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--jobs", type=positive, default=1, help="runs that train at once, one core each")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
