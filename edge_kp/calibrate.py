"""``python -m edge_kp.calibrate``: files of fewer bits for a model, made with a folder of images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_kp.cli import natural, positive, program, run_cli
from edge_kp.errors import BackendError
from edge_kp.extras import install
from edge_kp.modeldir import find_model


def make_parser() -> argparse.ArgumentParser:
    from edge_kp.training.datasets import DATA_HELP  # needs no torch, so --help works without it

    parser = argparse.ArgumentParser(
        program("calibrate"),
        description="Write the fp16, int8 (TensorRT) and int8-cpu files of a model, and a report.",
    )
    add = parser.add_argument
    add("--model", required=True, help="model folder that python -m edge_kp.export wrote")
    add("--data", action="append", required=True, metavar="SPEC", help=DATA_HELP)
    add(
        "--validation",
        action="append",
        default=[],
        metavar="SPEC",
        help="what the methods are judged by (default: what --data leaves over)",
    )
    add(
        "--images",
        type=positive,
        help="images to calibrate with (default 256, or four fifths of --data where the rest must judge)",
    )
    add("--seed", type=natural, default=0, help="of the choice of images")
    add(
        "--exact",
        nargs="+",
        choices=("locator", "stage1", "stage2"),
        default=(),
        metavar="NETWORK",
        help="leave these in FP32 in int8-cpu: small networks are no faster in 8 bits",
    )
    add("--report", type=Path, metavar="DIR", help="default: calibration/NAME of the model")
    return parser


def _run(args: argparse.Namespace) -> None:
    try:
        from edge_kp.training.calibrating import Calibration, calibrate_model
    except ImportError as error:
        raise BackendError(f"calibrating needs {error.name}: {install('train')}") from error
    using = Calibration(tuple(args.data), tuple(args.validation), args.images, args.seed, tuple(args.exact))
    precisions, written = calibrate_model(find_model(args.model), using, args.report)
    for precision, figures in precisions.items():
        stages = figures["stages"]
        print(f"{precision:<10}NME {stages['nme']:.3f} %, shift {stages['shift']:.3f} %")
    for path in written:
        print(f"wrote {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_cli(_run, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
