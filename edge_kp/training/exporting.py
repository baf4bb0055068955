"""A trained run → a model directory of ONNX files, each checked against PyTorch on real crops."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.errors import ModelError
from edge_kp.files import absolute, work_folder
from edge_kp.look_rules import LookRules
from edge_kp.modeldir import PRECISIONS, ModelSpec, file_digest, write_model_json
from edge_kp.parity import FILE, References, Row, save_references
from edge_kp.parity import compare as parity
from edge_kp.parity import table as show
from edge_kp.training.finished import check_images, data_names, read_figures
from edge_kp.training.fusing import CascadeNet, finer, fuse, glue_examples, region_size
from edge_kp.training.judged import open_judged
from edge_kp.training.lending import LentLocator, TrainedLocator, locator_of
from edge_kp.training.looking import LOOK_RULES, read_look_rules
from edge_kp.training.network import Contract, ExportNet
from edge_kp.training.onnx_graph import export_graph, export_network, save_checked, set_metadata, settled
from edge_kp.training.placing import move_into
from edge_kp.training.quantise import write_precisions
from edge_kp.training.ranges import read_auto
from edge_kp.training.recipe import CHECK_CROPS, load_run, model_spec
from edge_kp.training.references import make_references
from edge_kp.training.shipped import MODEL, TRUNK
from edge_kp.training.torch_backend import TorchBackend
from edge_kp.types import Array

# Largest difference from PyTorch allowed in FP32: crop coordinates for keypoints, probabilities for the rest.
TOLERANCE = {"keypoints": 2e-4, "prior_keypoints": 2e-4}
OTHER_TOLERANCE = 2e-3
_STAGE_ENTRIES = ("name", "schema", "attributes", "mean_shape", "bank_sha256")

log = logging.getLogger(__name__)


def export_run(
    run: Path,
    out: Path,
    card: Mapping[str, Any] | None = None,
    locator: Path | None = None,
    precisions: Sequence[str] = ("fp32",),
    ranges: Path | None = None,
) -> str:
    """Write the model directory of a finished run and return the table of the checks.

    The folder is written beside ``out`` and moved there when everything passed: a failed export leaves an
    older model as it is. A finished one takes its place: networks that only the older one had are removed.

    Args:
        card: entries for people, e.g. ``{"terms": …}``, added to data and accuracy.
        locator: run or model folder whose locator is taken, where it is not ``run``'s own.
        precisions: of :data:`edge_kp.modeldir.PRECISIONS`. Stages and locator are always there in fp32, which
            the others are made of; the one-graph cascade only in these.
        ranges: what ``python -m edge_kp.calibrate`` measured; the int8 precisions need it.

    Raises:
        ModelError: ``out`` is a run's folder, the run is unfinished, a file differs from PyTorch beyond its
            tolerance, or the disk is full.
    """
    out = absolute(out)
    if (out / "run.json").exists():
        raise ModelError(
            f"--out {out}: is the folder of a run, and the model would replace its templates.npz;"
            " give another folder"
        )
    recipe, bank, *trained = load_run(run)
    stage1, stage2 = (settled(net) for net in trained)
    spec = model_spec(recipe, bank, stage1.config.attributes, out.name)
    spec = replace(spec, looks=read_look_rules(run / LOOK_RULES))
    # The shape as model.json tells it, so that what is made of the folder later is the same to the last bit.
    told = np.array(spec.to_json()["mean_shape"], np.float32)
    fine = finer(spec.sizes, spec.scale)
    spec = replace(spec, mean_shape=told, cascade_size=region_size(spec.sizes[0], fine), cascade_finer=fine)
    nets: dict[str, Contract] = {"stage1": ExportNet(stage1), "stage2": ExportNet(stage2)}
    images = check_images(run / CHECK_CROPS, ("stage1", "stage2"))
    notes = {"data": data_names(recipe.data), "accuracy": read_figures(run / "evaluation.json")}
    if recipe.start or TRUNK in recipe.trunks:
        notes["started_from"] = absolute(Path(recipe.start)).name if recipe.start else MODEL
    if locator is not None and recipe.box_rule == "image":
        raise ModelError(
            f"{run}: trained with --box image, where nothing is to be located; leave --locator out"
        )
    found = locator_of(run, locator, spec)
    if found is not None:
        spec, notes["locator"] = found.spec, found.card
        if locator is not None:  # the run measured its own
            spec = replace(spec, looks=replace(spec.looks, doubted=LookRules().doubted))
    if isinstance(found, TrainedLocator):
        nets["locator"], images["locator"] = found.net, found.images
    table = [f"{'file':<22}{'output':<18}{'ONNX':>12}{'simplified':>12}  largest difference from PyTorch"]
    with work_folder(out) as folder:
        for name, net in nets.items():
            path = folder / f"{name}.fp32.onnx"
            plain = export_network(net, path, metadata(spec, name, "fp32"))
            if isinstance(net, ExportNet) and net.stage.config.bank:
                find_bank(onnx.load(path), bank.templates)
            rows = compare(net, {"ONNX": plain, "simplified": path}, images[name])
            plain.unlink()
            for output, row in rows.items():
                table.append(f"{path.name:<22}{output:<18}{row['ONNX']:>12.2e}{row['simplified']:>12.2e}")
        nets["cascade"] = CascadeNet(stage1, stage2, spec.mean_shape, fine)
        references = make_references(spec, nets, images)
        if isinstance(found, LentLocator):
            set_metadata(found.network, metadata(spec, "locator", "fp32"))
            save_checked(found.network, folder / "locator.fp32.onnx")
            references["locator"] = found.references
        save_references(folder, references)
        other = [p for p in PRECISIONS if p in precisions and p != "fp32"]
        if other:
            write_precisions(folder, ranges, other)
        if ranges is not None and "int8-cpu" in other:
            spec = replace(spec, auto=read_auto(ranges))
        write_cascades(folder, spec, [p for p in PRECISIONS if p in precisions])
        for precision in ("fp32", *other):
            if precision != "fp32":
                leave_out(folder, precision, references)
            table += ["", f"{precision}, held against PyTorch on {FILE}:"]
            table.append(hold(folder, precision, references))
        bank.save(folder / "templates.npz")
        files = {p.name: file_digest(p) for p in sorted(folder.iterdir())}
        write_model_json(folder, replace(spec, files=files, card={**notes, **(card or {})}))
        move_into(folder, out)
    return "\n".join(table)


def hold(folder: Path, precision: str, references: Mapping[str, References]) -> str:
    """Every file of a precision beside the references, in ONNX Runtime, as a table.

    Raises:
        ModelError: a difference is beyond tolerance.
    """
    rows = held(folder, precision, references)
    if beyond := [row for row in rows if not row.passed]:
        worst = max(beyond, key=lambda row: row.worst / row.allowed[1])
        raise ModelError(
            f"{precision} differs from PyTorch beyond tolerance in {len(beyond)} of {len(rows)} outputs, most"
            f" in {worst.network} {worst.output}: {worst.worst:.1e}, allowed {worst.allowed[1]:.0e}; nothing"
            f" was written: leave {precision} out, or train longer"
        )
    return show(rows)


def leave_out(
    folder: Path, precision: str, references: Mapping[str, References], whole: bool = False
) -> list[str]:
    """Remove what differs from PyTorch beyond tolerance, and return the names of the files.

    That is the one-graph cascade if it alone does, since both stages serve as well; else, with ``whole``, all
    files of the precision.
    """
    beyond = {row.network for row in held(folder, precision, references) if not row.passed}
    if not beyond or (beyond != {"cascade"} and not whole):
        return []
    network = "cascade" if beyond == {"cascade"} else "*"
    names = sorted(path.name for path in folder.glob(f"{network}.{precision}.onnx"))
    for name in names:
        (folder / name).unlink()
    log.warning("left out, since beyond tolerance of PyTorch's results: %s", ", ".join(names))
    return names


def held(folder: Path, precision: str, references: Mapping[str, References]) -> list[Row]:
    """Every output of every file of a precision beside the references, in ONNX Runtime."""
    rows: list[Row] = []
    for name, reference in references.items():
        path = folder / f"{name}.{precision}.onnx"
        if not path.exists():  # the one-graph cascade, which is not there in every precision
            continue
        seen = open_judged(path).run(reference.images)
        rows += parity(name, precision, seen, reference.outputs)
    return rows


def write_cascades(folder: Path, spec: ModelSpec, precisions: Sequence[str]) -> list[Path]:
    """Write ``cascade.PRECISION.onnx`` of the stages in a folder; see :mod:`edge_kp.training.fusing`.

    There is none in int8-cpu: on a CPU the crop is cut on the host, and the file would be dead weight.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        glue = {}
        parts = glue_examples(spec.mean_shape, spec.sizes, spec.cascade_finer)
        for name, (module, inputs, outputs) in parts.items():
            glue[name] = Path(temporary, f"{name}.onnx")
            export_graph(module, inputs, outputs, glue[name], {})
        paths = []
        for precision in precisions:
            if precision == "int8-cpu":
                continue
            stages = [folder / f"{stage}.{precision}.onnx" for stage in ("stage1", "stage2")]
            paths.append(folder / f"cascade.{precision}.onnx")
            fuse(glue, stages[0], stages[1], paths[-1], metadata(spec, "cascade", precision))
    return paths


def find_bank(model: onnx.ModelProto, templates: Array) -> str:
    """Name of the one MatMul whose constant is the template bank.

    Raises:
        ModelError: there is none, or more than one.
    """
    wanted = templates.reshape(len(templates), -1)
    constants = {i.name: i for i in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            value = numpy_helper.to_array(constants[node.input[1]])
            if value.shape == wanted.shape and np.array_equal(value, wanted):
                found.append(node.name)
    if len(found) != 1:
        raise ModelError(
            f"expected the template bank as the constant of exactly one MatMul, found {len(found)}"
        )
    return found[0]


def compare(net: Contract, files: Mapping[str, Path], images: Array) -> dict[str, dict[str, float]]:
    """Largest absolute difference from PyTorch, per output and file.

    Args:
        images: uint8 (M, S, S, 3) real crops or pictures; run as one batch and as single images.

    Raises:
        ModelError: a difference is beyond tolerance.
    """
    truth = TorchBackend(net).run(images)
    rows: dict[str, dict[str, float]] = {name: {} for name in truth}
    for label, path in files.items():
        backend = OnnxRuntimeBackend(path)
        batch = backend.run(images)
        single = backend.run(images[:1])
        for name, expected in truth.items():
            worst = max(_difference(batch[name], expected), _difference(single[name], expected[:1]))
            rows[name][label] = worst
            if not worst <= TOLERANCE.get(name, OTHER_TOLERANCE):
                raise ModelError(
                    f"{path.name}: {name} differs from PyTorch by {worst:.2e}; nothing was written"
                )
    return rows


def _difference(seen: Array, expected: Array) -> float:
    return float(np.abs(seen.astype(np.float64) - expected).max())


def metadata(spec: ModelSpec, network: str, precision: str) -> dict[str, str]:
    """What a host program must know, inside the file itself."""
    described = spec.to_json()
    common = ("name", "schema") if network == "locator" else _STAGE_ENTRIES
    contract = {**{key: described[key] for key in common}, **described[network]}
    return {
        "edge_kp.network": network,
        "edge_kp.precision": precision,
        "edge_kp.spec": json.dumps(contract),
    }
