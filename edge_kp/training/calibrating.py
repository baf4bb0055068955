"""Choose images, measure ranges, and write files of fewer bits into a model."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.cascade import Cascade
from edge_kp.errors import DataError, ModelError
from edge_kp.files import work_folder
from edge_kp.modeldir import (
    WEIGHTS,
    ModelSpec,
    checked_file,
    file_digest,
    read_model,
    write_model_json,
)
from edge_kp.parity import References, load_references
from edge_kp.templates import TemplateBank
from edge_kp.training.calibration.inputs import held_out, network_inputs
from edge_kp.training.calibration.report import write_report
from edge_kp.training.calibration.search import (
    Judge,
    best_methods,
    judge_files,
    layer_shifts,
    layers_to_keep,
    plan,
    try_methods,
)
from edge_kp.training.calibration.selection import FEWEST, Choice, choose, manifest, pictures, pixel_digest
from edge_kp.training.calibration.timing import seconds
from edge_kp.training.datasets import Dataset, Sample, load_dataset
from edge_kp.training.exporting import held, hold, leave_out, write_cascades
from edge_kp.training.quantise import TYPED, fp32_files, layer_names, write_precisions
from edge_kp.training.ranges import RANGES_FORMAT, STYLES, graph_digest

IMAGES = 256
MOST_HELD = 150  # samples to judge by that --data leaves over


@dataclass(frozen=True)
class Calibration:
    """What a model is calibrated with.

    Attributes:
        data: sets to choose images from, as ``--data`` names them.
        validation: sets that the methods are judged by; without one, what ``data`` leaves over.
        images: how many to calibrate with, at most; None takes :data:`IMAGES`, or four fifths of ``data``
            where these are fewer and judge as well.
        seed: of the choice of images.
        exact: networks that int8-cpu leaves in FP32. CPUs gain nothing from 8 bits in a small one, whose time
            goes to what lies between its layers.
    """

    data: tuple[str, ...]
    validation: tuple[str, ...] = ()
    images: int | None = None
    seed: int = 0
    exact: tuple[str, ...] = ()


def calibrate_model(
    folder: Path, using: Calibration, reports: Path | None = None
) -> tuple[dict[str, Any], list[Path]]:
    """Add the files of fewer bits to a model folder, and write a report.

    A one-graph cascade, or fp16 as a whole, that is beyond tolerance is left out.

    Args:
        reports: folder of the report; default ``calibration/NAME`` of the model's folder, where the program
            runs.

    Returns:
        Figures by precision (``stages``: ``nme`` and ``shift`` in % of the reference distance), and the
        paths of all files written.

    Raises:
        ModelError: the folder is no intact model, is compact already, or has no network to be left exact.
        DataError: too few images, unreadable ones, or none left to judge by.
    """
    spec = read_model(folder)
    if WEIGHTS in spec.files:
        raise ModelError(
            f"{folder}: was made compact, which is the last step: export it again, calibrate, then compact it"
        )
    sources = {name: checked_file(folder, spec, path.name) for name, path in fp32_files(folder).items()}
    for name in using.exact:
        if name not in sources:
            raise ModelError(f"--exact {name}: {folder} has no such network, but {', '.join(sources)}")
    bank = TemplateBank.load(checked_file(folder, spec, "templates.npz"))
    references = load_references(folder, spec)
    out = reports or Path("calibration", folder.resolve().name)
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    data = load_dataset(using.data, spec.schema)
    if using.images is None:
        left = len(pictures(data.samples))
        if not using.validation:
            left = max(FEWEST, 4 * left // 5)
        using = replace(using, images=min(IMAGES, left))
    assert using.images is not None
    chosen = choose(data.samples, bank, spec.box_rule, using.images, using.seed)
    judged = _judged(using, data, chosen, spec)
    cascade = Cascade(spec, *(OnnxRuntimeBackend(sources[name]) for name in ("stage1", "stage2")))
    inputs = network_inputs(spec, [choice.sample for choice in chosen], cascade, using.seed)
    judge = Judge(spec, sources, held_out(spec, judged))

    # On the model's disk, so that the finished files only have to be renamed.
    with work_folder(folder) as work:
        ranges, trials = try_methods(sources, inputs, judge, work)
        methods = {style: best_methods(trials[style]) for style in STYLES}
        layers: dict[str, Any] = {
            name: {
                s: layer_shifts(source, inputs[name], s, ranges[name][methods[s][name]], work) for s in STYLES
            }
            for name, source in sources.items()
        }
        kept = {s: {name: layers_to_keep(layers[name][s]) for name in sources} for s in STYLES}
        kept["int8-cpu"] |= {name: layer_names(sources[name], "int8-cpu") for name in using.exact}
        kept_by_tolerance: dict[str, list[str]] = {s: [] for s in STYLES}
        digests = {name: graph_digest(source) for name, source in sources.items()}
        plans: dict[str, Any] = {}
        written: list[Path] = []
        for again in (False, True):
            plans = {"format": RANGES_FORMAT, "networks": plan(digests, ranges, methods, kept)}
            (work / "ranges.json").write_text(json.dumps(plans), encoding="utf-8")
            written = write_precisions(folder, work / "ranges.json", out=work)
            beyond = {} if again else {s: _beyond_tolerance(work, s, references, sources) for s in STYLES}
            if not any(beyond.values()):
                break
            for style, names in beyond.items():
                kept[style] |= {name: layer_names(sources[name], style) for name in names}
            kept_by_tolerance = beyond
        if spec.cascade_size:
            written += write_cascades(work, spec, TYPED)
        left_out = [n for p in TYPED for n in leave_out(work, p, references, whole=p == "fp16")]
        written = [path for path in written if path.name not in left_out]
        precisions = {"fp32": judge_files(judge, sources)}
        for precision in (p for p in TYPED if f"stage1.{p}.onnx" not in left_out):
            hold(work, precision, references)
            precisions[precision] = judge_files(judge, {n: work / f"{n}.{precision}.onnx" for n in sources})
        times = seconds({"fp32": folder, "int8-cpu": work}, inputs)
        plans["auto"] = {"onnxruntime": min(times, key=times.__getitem__)}
        report = {
            "model": spec.name,
            "command": _command(folder, using),
            "data": [_short(name) for name in using.data],
            "images": len(chosen),
            "seed": using.seed,
            "validation": {
                "data": [_short(n) for n in using.validation or using.data],
                "samples": len(judged),
            },
            "precisions": _rounded(precisions),
            "left_out": left_out,
            "methods": methods,
            "trials": _rounded(trials),
            "kept": kept,
            "exact": list(using.exact),
            "kept_by_tolerance": kept_by_tolerance,
            "layers": _rounded(layers),
            "onnxruntime_seconds": _rounded(times),
        }
        reported = write_report(out, report, manifest(chosen, report["data"], using.seed), plans)
        files = {name: digest for name, digest in spec.files.items() if name not in left_out}
        spec = replace(spec, files=files, auto={**spec.auto, **plans["auto"]})
        _put_in_place(folder, spec, written, report)
    return precisions, [*(folder / path.name for path in written), *reported]


def _beyond_tolerance(
    folder: Path, precision: str, references: Mapping[str, References], names: Collection[str]
) -> list[str]:
    """Networks that differ from PyTorch by more than the tolerance in a precision."""
    rows = held(folder, precision, {name: references[name] for name in names if name in references})
    return sorted({row.network for row in rows if not row.passed})


def _judged(using: Calibration, data: Dataset, chosen: Sequence[Choice], spec: ModelSpec) -> list[Sample]:
    """The samples that methods are judged by: objects of photos that are not calibrated with.

    Raises:
        DataError: there is none.
    """
    taken = {choice.digest for choice in chosen}
    offered: Sequence[Sample] = data.samples
    most = MOST_HELD
    if using.validation:
        offered = load_dataset(using.validation, spec.schema).samples
        most = len(offered)
    found: list[int] = []
    for i in np.random.default_rng(using.seed).permutation(len(offered)).tolist():
        if len(found) < most and pixel_digest(offered[i].read()) not in taken:
            found.append(i)
    if not found:
        raise DataError(
            f"all {len(pictures(offered))} images are used to calibrate, none is left to judge by;"
            " give --validation or fewer --images"
        )
    return [offered[i] for i in sorted(found)]


def _command(folder: Path, using: Calibration) -> str:
    """The command line, without the folders of this machine."""
    words = ["python -m edge_kp.calibrate", f"--model {folder.name}"]
    words += [f"--data {_short(name)}" for name in using.data]
    words += [f"--validation {_short(name)}" for name in using.validation]
    words += [f"--exact {' '.join(using.exact)}"] if using.exact else []
    return " ".join([*words, f"--images {using.images}", f"--seed {using.seed}"])


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
    """Move the finished files into the model and ``model.json`` after them; what is left out goes last."""
    digests = {path.name: file_digest(path) for path in written}
    note = {key: report[key] for key in ("data", "images", "validation", "methods", "kept", "precisions")}
    for path in written:
        os.replace(path, folder / path.name)
    card = {**spec.card, "calibration": note}
    write_model_json(folder, replace(spec, files={**spec.files, **digests}, card=card))
    for name in report["left_out"]:  # of an earlier calibration
        (folder / name).unlink(missing_ok=True)
