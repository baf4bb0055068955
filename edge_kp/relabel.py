"""``python -m edge_kp.relabel``: a data set's photos with the labels that a trained run gives them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_kp.cli import number, program, run_cli
from edge_kp.errors import BackendError, DataError, ModelError
from edge_kp.extras import install


def _parser() -> argparse.ArgumentParser:
    from edge_kp.training.datasets import DATA_HELP  # needs no torch, so --help works without it

    parser = argparse.ArgumentParser(
        program("relabel"),
        description="Write the photos of data sets with labels by a trained run, to train the next one on:"
        " where a set's own labels are less exact than the run. What the two disagree on is left out.",
    )
    add = parser.add_argument
    add(
        "--run",
        type=Path,
        action="append",
        required=True,
        help="folder that python -m edge_kp.train wrote; of several, the mean is taken",
    )
    add("--data", action="append", required=True, metavar="SPEC", help=DATA_HELP)
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write: the last line says how to read it",
    )
    add(
        "--limit",
        type=number(0, 1000),
        default=15.0,
        metavar="PERCENT",
        help="leave out where old and new label differ by more, in %% of the reference distance (default 15)",
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    try:
        from edge_kp.training.datasets import load_dataset
        from edge_kp.training.place import training_place
        from edge_kp.training.recipe import load_cascade
        from edge_kp.training.relabelling import relabel
        from edge_kp.training.writing import LABELS, has_pts
    except ImportError as error:
        raise BackendError(f"relabelling needs {error.name}: {install('train')}") from error
    with training_place("auto") as place:
        cascades = [load_cascade(run, place.device) for run in args.run]
        schema = cascades[0].spec.schema
        for run, cascade in zip(args.run, cascades, strict=True):
            if cascade.spec.schema != schema:
                raise ModelError(f"{run}: its keypoints are not those of {args.run[0]}")
        samples = load_dataset(args.data, schema).samples
        done = relabel(cascades, samples, args.out, args.limit / 100)
    if not done.written:
        raise DataError(
            f"{args.out}: none of {len(samples)} objects was labelled: in {done.unseen} the run sees nothing,"
            f" in {done.disputed} it disagrees with the label; train it longer, or raise --limit"
        )
    to_read = f"ibug:{args.out}" if has_pts(schema) else f"coco:{args.out / LABELS}"
    to_read += "" if done.alone else ",background=no"  # .pts files cannot tell of others
    print(
        f"{args.out}: {done.written} of {len(samples)} objects; left out: {done.unseen} where the run sees no"
        f" object, {done.disputed} where it disagrees with the label; next: --data {to_read}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
