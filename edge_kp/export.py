"""``python -m edge_kp.export``: a trained run → a model directory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_kp.backends import PRECISIONS
from edge_kp.cli import program, run_cli
from edge_kp.errors import BackendError
from edge_kp.extras import install
from edge_kp.modeldir import read_model
from edge_kp.parity import FILE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("export"),
        description="Write the ONNX files of a run and model.json, after checking them against PyTorch.",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder that python -m edge_kp.train wrote")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write, e.g. models/face68")
    parser.add_argument(
        "--locator", type=Path, metavar="RUN", help="run that holds the locator (default: --run)"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS[1:],
        default=["fp32"],
        help="files to write beside those in fp32; int8 gives one for TensorRT and one for CPUs",
    )
    parser.add_argument(
        "--ranges",
        type=Path,
        metavar="FILE",
        help="ranges.json of python -m edge_kp.calibrate, which int8 is made with",
    )
    parser.add_argument("--terms", help="terms of the training data, for model.json")
    return parser


def _run(args: argparse.Namespace) -> None:
    try:
        from edge_kp.training.exporting import export_run
        from edge_kp.training.references import CLIP_SCHEMA
    except ImportError as error:
        raise BackendError(f"exporting needs {error.name}: {install('train')}") from error
    card = {"terms": args.terms} if args.terms else {}
    precisions = {p for name in args.precision for p in (("int8", "int8-cpu") if name == "int8" else (name,))}
    print(export_run(args.run, args.out, card, args.locator, sorted(precisions), args.ranges))
    spec = read_model(args.out)
    if spec.locator == "image" and spec.box_rule == "keypoints":
        print(
            "note: nothing finds this object in a frame: the whole frame is taken as its box. Train a locator"
            " with the same command and --part locator, then export again"
        )
    if spec.schema.name != CLIP_SCHEMA:
        print(f"note: {FILE} holds some of your own held-back pictures, for checks on other devices")
    figures = spec.card.get("locator", {}).get("accuracy", {})
    if figures.get("recall", 1.0) < 0.5:
        print(
            f"note: the locator finds only {100 * figures['recall']:.0f} % of the held-back objects; train it"
            " for more --locator-epochs"
        )
    print(f"wrote {args.out}; next: python -m edge_kp.run --camera 0 --model {args.out}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
