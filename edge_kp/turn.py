"""``python -m edge_kp.turn``: photos of faces with the heads turned further, to train on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_kp.cli import natural, positive, program, run_cli
from edge_kp.errors import DataError


def _parser() -> argparse.ArgumentParser:
    from edge_kp.training.datasets import DATA_HELP  # needs no torch, so --help works without it

    parser = argparse.ArgumentParser(
        program("turn"),
        description="Write each face of data sets a few times more, with the head turned further, and its"
        " labels: laid on a 3D face that fits its 68 points, and turned. Photos show few such faces.",
    )
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="SPEC", help=DATA_HELP)
    add(
        "--face-model",
        type=Path,
        required=True,
        metavar="MODEL.npz",
        help="3D face with identities and expressions, as of rendered: data",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write, for --data ibug:DIR")
    add("--count", type=positive, default=4, help="pictures of each face (default 4)")
    add("--seed", type=natural, default=0)
    return parser


def _run(args: argparse.Namespace) -> None:
    from edge_kp.schema import FACE68
    from edge_kp.training.datasets import load_dataset
    from edge_kp.training.rendering.model import load_face_model
    from edge_kp.training.turning import turn_photos

    model = load_face_model(str(args.face_model))
    samples = load_dataset(args.data, FACE68).samples
    done = turn_photos(model, samples, args.out, args.count, args.seed)
    if not done.written:
        raise DataError(
            f"{args.out}: none of {len(samples)} faces could be turned: they lack labels or fit no face;"
            " give other photos"
        )
    print(
        f"{args.out}: {done.written} pictures of {len(samples) - done.unfit} faces; left out: {done.unfit}"
        f" that lack labels or fit no face; next: --data ibug:{args.out},background=no"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
