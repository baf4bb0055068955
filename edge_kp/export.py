"""``python -m edge_kp.export``: a trained run → a model directory → a repository for a Triton server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_kp.backends import PRECISIONS
from edge_kp.cli import program, run_cli
from edge_kp.errors import BackendError
from edge_kp.extras import install
from edge_kp.modeldir import find_model, read_model
from edge_kp.parity import FILE
from edge_kp.triton import SERVERS, write_repository

# Options that belong to one of the two things that can be made.
OF_RUN = ("out", "locator", "ranges", "terms")
OF_TRITON = ("model", "backend")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("export"),
        description="Write the ONNX files of a run and model.json, after checking them against PyTorch; or,"
        " with --triton, write a finished model for NVIDIA's Triton Inference Server.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="folder that python -m edge_kp.train wrote")
    what.add_argument("--triton", type=Path, metavar="DIR", help="new model repository, written from --model")
    parser.add_argument("--out", type=Path, help="model folder to write, e.g. models/face68")
    parser.add_argument("--model", help="shipped model or model folder that --triton serves")
    parser.add_argument(
        "--backend",
        choices=SERVERS,
        help="what runs it in Triton (default onnxruntime); tensorrt takes the engines that"
        " edge_kp.build_engine put into the model folder",
    )
    parser.add_argument(
        "--locator",
        type=Path,
        metavar="RUN|MODEL",
        help="run or model that the locator is taken from (default: --run)",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS[1:],
        help="files to write beside those in fp32; int8 gives one for TensorRT and one for CPUs. With"
        " --triton the one to serve (default fp16, or fp32 where the model has no other)",
    )
    parser.add_argument(
        "--ranges",
        type=Path,
        metavar="FILE",
        help="ranges.json of python -m edge_kp.calibrate, which int8 is made with",
    )
    parser.add_argument("--terms", help="terms of the training data, for model.json")
    return parser


def _settle(args: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    what, needed, others = ("run", "out", OF_TRITON) if args.run else ("triton", "model", OF_RUN)
    if getattr(args, needed) is None:
        parser.error(f"--{what} needs --{needed}")
    for name in others:
        if getattr(args, name) is not None:
            parser.error(f"--{name} does not go with --{what}")
    if args.triton and len(args.precision or []) > 1:
        parser.error("--triton serves one --precision")
    if args.ranges and "int8" not in (args.precision or []):
        parser.error("--ranges is what --precision int8 is made with")
    return args


def _body(args: argparse.Namespace) -> None:
    if args.triton:
        _serve(args)
    else:
        _export(args)


def _serve(args: argparse.Namespace) -> None:
    precision = args.precision[0] if args.precision else "auto"
    models = write_repository(find_model(args.model), args.triton, args.backend or SERVERS[0], precision)
    for name, description in models.items():
        print(f"{name}: {description}")
    if not any(name.endswith("_cascade") for name in models):
        print("note: the model has no one-graph cascade in this precision; clients call both stages")
    print(f"wrote {args.triton}; next: tritonserver --model-repository={args.triton.resolve()}")


def _export(args: argparse.Namespace) -> None:
    try:
        from edge_kp.training.exporting import export_run
        from edge_kp.training.references import CLIP_SCHEMA
    except ImportError as error:
        raise BackendError(f"exporting needs {error.name}: {install('train')}") from error
    card = {"terms": args.terms} if args.terms else {}
    wanted = args.precision or ["fp32"]
    precisions = {p for name in wanted for p in (("int8", "int8-cpu") if name == "int8" else (name,))}
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
    parser = make_parser()
    return run_cli(_body, parser, argv, lambda args: _settle(args, parser))


if __name__ == "__main__":
    sys.exit(main())
