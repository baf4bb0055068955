"""Command line: cluster the keypoints of data sets into a template bank, and say how good it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from edge_kp.cli import natural, positive, program, run_cli
from edge_kp.errors import DataError
from edge_kp.files import replacing
from edge_kp.schema import KeypointSchema
from edge_kp.templates import (
    align_to_mean,
    build_bank,
    nearest_template,
    reconstruction_error,
    usable_shapes,
)
from edge_kp.templates.picture import draw_bank, draw_mean_shape
from edge_kp.training.by_count import templates_for
from edge_kp.training.datasets import DATA_HELP, load_dataset
from edge_kp.training.mirroring import about_mirroring
from edge_kp.types import Array

_WORTH = 0.10  # a doubling of k that gains less is not worth its templates
_LEAST = 0.001  # nor is one that gains less than that of the reference distance


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("templates"),
        description="Build a template bank from labelled data; writes the bank and two pictures of it.",
    )
    parser.add_argument("--data", action="append", required=True, metavar="SPEC", help=DATA_HELP)
    parser.add_argument(
        "--k", type=positive, help="number of templates (default 64, or a quarter of fewer photos)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="the bank to write")
    parser.add_argument("--seed", type=natural, default=0, help="of the clustering (default 0)")
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.out.suffix != ".npz":
        raise DataError(f"--out {args.out}: expected a file name that ends in .npz")
    dataset = load_dataset(args.data)
    for note in dataset.notes:
        print(note)
    given = np.stack([sample.keypoints for sample in dataset.samples])
    k = args.k or templates_for(given)
    usable_shapes(dataset.schema, given, k)
    # A set that counts several times in training does so here.
    samples = [sample for sample in dataset.samples for _ in range(sample.repeat)]
    shapes = np.stack([sample.keypoints for sample in samples])
    partial = np.isnan(shapes).any((1, 2)).mean()
    if partial >= 0.05:
        print(f"{100 * partial:.0f} % of the samples have unlabelled points; these are filled in to cluster")
    if dataset.pairs_by_name and not dataset.schema.can_flip:
        print(about_mirroring(dataset.schema, dataset.pairs_by_name, fits=False))
    bank = build_bank(dataset.schema, shapes, k, args.seed)
    aligned = align_to_mean(bank, shapes)
    nearest = nearest_template(bank, aligned)
    shares = np.bincount(nearest, minlength=k) / len(shapes)
    try:
        bank.save(args.out)
        grid = _write_picture(args.out.with_suffix(".png"), draw_bank(bank, shares))
        mean = _write_picture(args.out.with_name(args.out.stem + "-mean.png"), draw_mean_shape(bank))
    except OSError as error:
        raise DataError(f"cannot write beside {args.out}: {error.strerror or error}") from error

    single, mixture = reconstruction_error(bank, shapes)
    print(f"{len(shapes)} shapes of {len(bank.schema)} points, {len(bank)} templates")
    print("reconstruction error, % of the reference distance:")
    print(f"  {'':14}  median   mean   95 %   worst")
    print(_error_row("best template", single))
    print(_error_row("best mixture", mixture))
    first = np.cumsum([0, *(sample.repeat for sample in dataset.samples)])[:-1]
    worst = first[np.argsort(-np.nan_to_num(mixture[first]), kind="stable")[:3]]
    print(
        "  worst served, look whether the labels are right: "
        + ", ".join(dict.fromkeys(samples[i].shown for i in worst))
    )
    print(_verdict(dataset.schema, shapes[first], k, args.seed))
    print(f"wrote {args.out}, {grid} and {mean}; digest {bank.digest[:12]}")


def _write_picture(path: Path, image: Array) -> Path:
    with replacing(path) as part:
        part.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def _error_row(what: str, errors: Array) -> str:
    errors = 100 * errors[~np.isnan(errors)]
    if not len(errors):
        return f"  {what:14}  no sample has both reference points labelled"
    figures = (np.median(errors), errors.mean(), np.percentile(errors, 95), errors.max())
    return f"  {what:14}" + "".join(f"  {figure:6.2f}" for figure in figures)


def _verdict(schema: KeypointSchema, shapes: Array, k: int, seed: int) -> str:
    """A sentence on whether ``k`` is enough: banks of four fifths of the shapes, tried on the last fifth."""
    shapes = shapes[schema.reference_distance(shapes) > 0]
    order = np.random.default_rng(seed).permutation(len(shapes))
    held, kept = shapes[order[: len(shapes) // 5]], shapes[order[len(shapes) // 5 :]]
    too_few = f"{len(shapes)} shapes are too few to tell whether {k} templates are enough"
    if k < 2 or not len(held) or len(kept) < 2 * k:
        return too_few
    try:
        few, many = (
            float(np.nanmean(reconstruction_error(build_bank(schema, kept, n, seed), held)[1]))
            for n in (k // 2, k)
        )
    except DataError:  # a point that is seldom labelled may be so in the last fifth alone
        return too_few
    gain = 1 - many / few if few > 0 else 0.0
    found = f"on a held-back fifth the mixture errs by {100 * many:.2f} %, with {k // 2} by {100 * few:.2f} %"
    if gain < _WORTH or few - many < _LEAST:
        return f"{k} templates are enough: {found}, so more would add little"
    more = f"try --k {2 * k}" if 4 * k <= len(kept) else "but for more of them there are too few shapes"
    return f"{k} templates are few: {found}; {more}"


def main(argv: list[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
