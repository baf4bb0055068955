"""``python -m calibration``: choose images, measure ranges, and write files of fewer bits into a model."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.inputs import held_out, network_inputs
from calibration.report import write_report
from calibration.search import (
    Judge,
    best_methods,
    judge_files,
    layer_shifts,
    layers_to_keep,
    plan,
    try_methods,
)
from calibration.selection import Choice, choose, manifest, pixel_digest
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.cascade import Cascade
from edge_kp.cli import natural, positive, run_cli
from edge_kp.errors import DataError, ModelError
from edge_kp.modeldir import (
    WEIGHTS,
    ModelSpec,
    checked_file,
    file_digest,
    find_model,
    read_model,
    write_model_json,
)
from edge_kp.parity import load_references
from edge_kp.templates import TemplateBank
from edge_kp.training.datasets import DATA_HELP, Dataset, Sample, load_dataset
from edge_kp.training.exporting import hold, write_cascades
from edge_kp.training.quantise import (
    RANGES_FORMAT,
    STYLES,
    TYPED,
    fp32_files,
    graph_digest,
    write_precisions,
)

MOST_HELD = 150  # samples to judge by that --data leaves over


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m calibration",
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
    add("--images", type=positive, default=256, help="images to calibrate with (default 256)")
    add("--seed", type=natural, default=0, help="of the choice of images")
    add("--report", type=Path, metavar="DIR", help="default: calibration/NAME of the model")
    return parser


def _run(args: argparse.Namespace) -> None:
    folder = find_model(args.model)
    spec = read_model(folder)
    if WEIGHTS in spec.files:
        raise ModelError(
            f"{folder}: was made compact, which is the last step: export it again, calibrate, then compact it"
        )
    sources = {name: checked_file(folder, spec, path.name) for name, path in fp32_files(folder).items()}
    bank = TemplateBank.load(checked_file(folder, spec, "templates.npz"))
    references = load_references(folder, spec)
    out = args.report or Path(__file__).parent / spec.name
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    data = load_dataset(args.data, spec.schema)
    chosen = choose(data.samples, bank, spec.box_rule, args.images, args.seed)
    judged = _judged(args, data, chosen, spec)
    cascade = Cascade(spec, *(OnnxRuntimeBackend(sources[name]) for name in ("stage1", "stage2")))
    inputs = network_inputs(spec, [choice.sample for choice in chosen], cascade, args.seed)
    judge = Judge(spec, sources, held_out(spec, judged))

    # Beside the model, so that the finished files only have to be renamed.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        work = Path(temporary)
        ranges, trials = try_methods(sources, inputs, judge, work)
        methods = {style: best_methods(trials[style]) for style in STYLES}
        layers: dict[str, Any] = {
            name: {
                s: layer_shifts(source, inputs[name], s, ranges[name][methods[s][name]], work) for s in STYLES
            }
            for name, source in sources.items()
        }
        kept = {s: {name: layers_to_keep(layers[name][s]) for name in sources} for s in STYLES}
        digests = {name: graph_digest(source) for name, source in sources.items()}
        plans = {"format": RANGES_FORMAT, "networks": plan(digests, ranges, methods, kept)}
        (work / "ranges.json").write_text(json.dumps(plans), encoding="utf-8")
        written = write_precisions(folder, work / "ranges.json", out=work)
        if spec.cascade_size:
            written += write_cascades(work, spec, TYPED)
        for precision in TYPED:
            hold(work, precision, references)
        precisions = {"fp32": judge_files(judge, sources)}
        for precision in TYPED:
            precisions[precision] = judge_files(judge, {n: work / f"{n}.{precision}.onnx" for n in sources})
        report = {
            "model": spec.name,
            "command": _command(args),
            "data": [_short(name) for name in args.data],
            "images": len(chosen),
            "seed": args.seed,
            "validation": {"data": [_short(n) for n in args.validation or args.data], "samples": len(judged)},
            "precisions": _rounded(precisions),
            "methods": methods,
            "trials": _rounded(trials),
            "kept": kept,
            "layers": _rounded(layers),
        }
        reports = write_report(out, report, manifest(chosen, report["data"], args.seed), plans)
        _put_in_place(folder, spec, written, report)
    for precision, figures in precisions.items():
        print(
            f"{precision:<10}NME {figures['stages']['nme']:.3f} %, shift {figures['stages']['shift']:.3f} %"
        )
    for path in (*(folder / path.name for path in written), *reports):
        print(f"wrote {path}")


def _judged(
    args: argparse.Namespace, data: Dataset, chosen: Sequence[Choice], spec: ModelSpec
) -> list[Sample]:
    """The samples that methods are judged by: objects of photos that are not calibrated with.

    Raises:
        DataError: there is none.
    """
    taken = {choice.digest for choice in chosen}
    offered: Sequence[Sample] = data.samples
    most = MOST_HELD
    if args.validation:
        offered = load_dataset(args.validation, spec.schema).samples
        most = len(offered)
    found: list[int] = []
    for i in np.random.default_rng(args.seed).permutation(len(offered)).tolist():
        if len(found) < most and pixel_digest(offered[i].read()) not in taken:
            found.append(i)
    if not found:
        raise DataError(
            f"all {len(offered)} images are used to calibrate, none is left to judge by;"
            " give --validation or fewer --images"
        )
    return [offered[i] for i in sorted(found)]


def _command(args: argparse.Namespace) -> str:
    """The command line, without the folders of this machine."""
    words = ["python -m calibration", f"--model {Path(args.model).name}"]
    words += [f"--data {_short(name)}" for name in args.data]
    words += [f"--validation {_short(name)}" for name in args.validation]
    return " ".join([*words, f"--images {args.images}", f"--seed {args.seed}"])


def _short(name: str) -> str:
    """A data set's name without the folders of this machine."""
    kind, _, rest = name.partition(":")
    return f"{kind}:{','.join(Path(part).name for part in rest.split(','))}"


def _rounded(figures: Any) -> Any:
    """The same with six digits."""
    if isinstance(figures, dict):
        return {name: _rounded(value) for name, value in figures.items()}
    return float(f"{figures:.6g}")


def _put_in_place(folder: Path, spec: ModelSpec, written: Sequence[Path], report: dict[str, Any]) -> None:
    """Move the finished files into the model, ``model.json`` last."""
    digests = {path.name: file_digest(path) for path in written}
    note = {key: report[key] for key in ("data", "images", "validation", "methods", "kept", "precisions")}
    for path in written:
        os.replace(path, folder / path.name)
    card = {**spec.card, "calibration": note}
    write_model_json(folder, replace(spec, files={**spec.files, **digests}, card=card))


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
