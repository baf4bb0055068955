"""``python -m edge_kp.build_engine``: ONNX files → TensorRT engines, on the machine that will run them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_kp.backends import open_backend
from edge_kp.backends.cuda import Gpu, find_gpu
from edge_kp.backends.engines import WORKSPACE, build
from edge_kp.backends.sidecar import BATCHES, EngineInfo, beside, library_name
from edge_kp.backends.tensorrt import TensorRTBackend, load_tensorrt
from edge_kp.cli import number, positive, program, run_cli
from edge_kp.errors import BackendError, ModelError
from edge_kp.modeldir import NETWORKS, PRECISIONS, checked_file, find_model, read_model
from edge_kp.parity import References, hold, load_references, table

IN_THE_MODEL = "copy the model folder elsewhere, or build file by file with --onnx F --engine G"
Job = tuple[Path, Path, str]  # ONNX file, engine, precision


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("build-engine"),
        description="Build TensorRT engines from a model's ONNX files, on the machine that will run them.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="shipped model or model folder: all of its networks")
    what.add_argument("--onnx", type=Path, metavar="FILE", help="a single ONNX file")
    add = parser.add_argument
    add("--engine", type=Path, metavar="FILE", help="where the engine of --onnx goes (default: beside it)")
    add(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="which of the model's files (of --onnx: in its name, stage1.int8.onnx)",
    )
    add(
        "--batch",
        type=positive,
        nargs="+",
        default=BATCHES,
        metavar="N",
        help=f"images a run; each N gets kernels of its own (default {' '.join(map(str, BATCHES))})",
    )
    add("--timing-cache", type=Path, metavar="FILE", help="read and written; makes the next build faster")
    add(
        "--workspace-gib",
        type=number(0.001, 1024),
        default=WORKSPACE / 2**30,
        metavar="GIB",
        help="most GPU memory for the scratch of a layer (default 1)",
    )
    add(
        "--verify", action="store_true", help="compare the engines with PyTorch's outputs in the model folder"
    )
    add(
        "--compute-capability",
        type=_capability,
        metavar="X.Y",
        help="build for another GPU, e.g. 8.6; TensorRT-RTX only, needs no GPU",
    )
    return parser


def _capability(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d", text):
        raise argparse.ArgumentTypeError(f"expected a compute capability such as 8.6, got {text!r}")
    return text


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.engine and not args.onnx:
        parser.error("--engine goes with --onnx; the engines of --model lie beside its ONNX files")
    if args.verify and not args.model:
        parser.error("--verify needs the reference outputs of a --model")
    if args.verify and args.compute_capability:
        parser.error("--verify runs the engine, so it needs its GPU: leave --compute-capability out")
    if args.model and not args.precision:
        parser.error("--model needs --precision")
    folder = find_model(args.model) if args.model else None
    jobs = _of_model(folder, args.precision) if folder else [_single(args, parser)]
    references = _references(folder, jobs) if folder and args.verify else {}
    trt = load_tensorrt()
    gpu = _target(args.compute_capability, library_name(trt))
    print(f"{library_name(trt)} {trt.__version__} for {gpu}")
    built, failed = [], {}
    for onnx, engine, precision in jobs:
        try:
            info = build(
                trt,
                onnx,
                engine,
                precision,
                gpu,
                args.batch,
                workspace=int(args.workspace_gib * 2**30),
                timing_cache=args.timing_cache,
                elsewhere=IN_THE_MODEL if folder else "give another --engine",
            )
        except BackendError as error:  # the other engines may be built all the same
            failed[onnx.name] = error
            continue
        print(_line(engine, info), flush=True)
        built.append((onnx, engine, precision))
    if not built:
        raise next(iter(failed.values()))
    if references:
        failed |= _verify(built, references)
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise BackendError(f"{len(failed)} of {len(jobs)} failed: {told}")


def _single(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Job:
    parts = args.onnx.name.split(".")
    named = [parts[-2]] if len(parts) > 2 and parts[-2] in PRECISIONS else []
    precisions = args.precision or named
    if len(precisions) != 1:
        parser.error(f"--onnx {args.onnx.name} needs one --precision")
    if named and precisions != named:
        parser.error(f"--onnx {args.onnx.name} is {named[0]}, not {precisions[0]}: leave --precision out")
    if not args.onnx.is_file():
        raise ModelError(f"{args.onnx}: no such file; give the path of an ONNX file")
    return args.onnx, args.engine or beside(args.onnx), precisions[0]


def _of_model(folder: Path, precisions: Sequence[str]) -> list[Job]:
    spec = read_model(folder)
    jobs = []
    for precision in dict.fromkeys(precisions):
        # The cascade first: it is what runs, and time may end before the last one.
        names = [f"{network}.{precision}.onnx" for network in reversed(NETWORKS)]
        paths = [checked_file(folder, spec, name) for name in names if name in spec.files]
        if not paths:
            there = sorted({name.split(".")[1] for name in spec.files if name.endswith(".onnx")})
            raise ModelError(
                f"{folder}: has no {precision} files, only {', '.join(there)}; write them with"
                " python -m edge_kp.export --precision fp16, or python -m edge_kp.calibrate for int8"
            )
        jobs += [(path, beside(path), precision) for path in paths]
    return jobs


def _references(folder: Path, jobs: Sequence[Job]) -> dict[str, References]:
    """What PyTorch gave for each network; asked for before a build that takes minutes."""
    references = load_references(folder, read_model(folder))
    for onnx, _, _ in jobs:
        if _network(onnx) not in references:
            raise ModelError(
                f"{folder}: has no reference outputs of {_network(onnx)}; export the model again"
            )
    return references


def _network(onnx: Path) -> str:
    return onnx.name.partition(".")[0]


def _target(capability: str | None, library: str) -> Gpu:
    if capability:
        return Gpu(None, capability)
    try:
        return find_gpu()
    except BackendError as error:
        hint = (
            "--compute-capability builds without one" if library == "tensorrt_rtx" else "TensorRT needs one"
        )
        raise BackendError(f"{error} ({hint})") from error


def _line(engine: Path, info: EngineInfo) -> str:
    layers = ", ".join(f"{count} at batch {batch}" for batch, count in info.layers.items())
    size = engine.stat().st_size / 2**20
    return f"{engine}: {size:.1f} MiB in {info.seconds:.1f} s; layers: {layers}"


def _verify(jobs: Sequence[Job], references: Mapping[str, References]) -> dict[str, BackendError]:
    """Engines, and ONNX Runtime on the same files, beside PyTorch's outputs: file → why its engine fails.

    What ONNX Runtime gives is told, and decides nothing: in few bits it has faults of its own, above all on
    ARM.
    """
    failed: dict[str, BackendError] = {}
    for precision in dict.fromkeys(precision for _, _, precision in jobs):
        engines, files, refused = [], [], []
        for onnx, engine, of in jobs:
            if of == precision:
                network, reference = _network(onnx), references[_network(onnx)]
                try:
                    with TensorRTBackend(engine, onnx, precision) as backend:
                        rows = hold(network, backend, reference)
                        far = list(dict.fromkeys(row.output for row in rows if not row.passed))
                        if not far:
                            backend.mark_verified()
                except BackendError as error:
                    failed[onnx.name] = error
                    continue
                engines += rows
                if far:
                    failed[onnx.name] = BackendError(
                        f"beyond tolerance: {', '.join(far)}; do not use this engine, and report TensorRT's"
                        " version"
                    )
                try:
                    with open_backend("onnxruntime", onnx, precision, None) as other:
                        files += hold(network, other, reference)
                except BackendError as error:
                    refused.append(str(error))
        print(f"\n{precision}: engines beside PyTorch\n{table(engines)}")
        print(f"\n{precision}: ONNX Runtime beside PyTorch\n{table(files)}", *refused, sep="\n", flush=True)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    return run_cli(lambda args: _run(args, parser), parser, argv)


if __name__ == "__main__":
    sys.exit(main())
