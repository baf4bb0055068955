"""``python -m edge_kp.calibrate``: one command from a folder of images to the files of all precisions."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_kp import calibrate, parity
from edge_kp.detector import Detector
from edge_kp.errors import DataError
from edge_kp.modeldir import file_digest, read_model
from edge_kp.parity import load_references
from edge_kp.training import calibrating, exporting
from edge_kp.training.calibration import search
from edge_kp.training.calibration.report import page as text_of
from edge_kp.training.datasets import Dataset, load_dataset
from edge_kp.training.quantise import TYPED, fp32_files, layer_names, write_precisions
from edge_kp.training.ranges import METHODS, STYLES, read_auto

DATA = ("--data", "synthetic:40,seed=5")
NETWORKS = ("locator", "stage1", "stage2")


@pytest.fixture(scope="module")
def done(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A calibrated copy of the tiny model, and its report."""
    folder = tmp_path_factory.mktemp("calibrated")
    model = Path(shutil.copytree(tiny_model, folder / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        # Each layer takes a while; the last ones stand for all.
        patch.setattr(search, "layer_names", lambda *args: layer_names(*args)[-3:])
        more = ("--images", "32", "--seed", "2", "--exact", "stage1")
        assert run(model, folder / "report", *more) == 0
    assert {path.name for path in folder.iterdir()} == {"tiny", "report"}, "something was left behind"
    return model, folder / "report"


def run(model: Path, report: Path, *more: str) -> int:
    data = () if "--data" in more else DATA
    return calibrate.main(["--model", str(model), "--report", str(report), *data, *more])


def test_the_model_folder_is_complete(tiny_model: Path, done: tuple[Path, Path]) -> None:
    model, _ = done
    spec, before = read_model(model), read_model(tiny_model)
    new = {f"{network}.{precision}.onnx" for network in NETWORKS for precision in TYPED}
    if before.cascade_size:
        new |= {f"cascade.{precision}.onnx" for precision in ("fp16", "int8")}
    assert set(spec.files) == {*before.files, *new}
    assert {path.name for path in model.iterdir()} == {*spec.files, "model.json"}
    for name, digest in spec.files.items():
        assert file_digest(model / name) == digest
        assert name in new or digest == before.files[name], "an FP32 file was changed"
    for name in new:
        said = {p.key: p.value for p in onnx.load(model / name).metadata_props}
        assert name == f"{said['edge_kp.network']}.{said['edge_kp.precision']}.onnx"
    other = {"files": {}, "card": {}, "auto": {}}
    assert {**spec.to_json(), **other} == {**before.to_json(), **other}
    with Detector(model) as detector:
        assert detector.spec.name == "tiny"


def test_auto_takes_what_was_faster(done: tuple[Path, Path], tmp_path: Path) -> None:
    model, folder = done
    seconds = json.loads((folder / "report.json").read_text())["onnxruntime_seconds"]
    faster = min(seconds, key=seconds.__getitem__)
    assert set(seconds) == {"fp32", "int8-cpu"}
    assert read_model(model).auto == {"onnxruntime": faster}
    assert read_auto(folder / "ranges.json") == {"onnxruntime": faster}
    assert f"`auto` takes `{faster}` there" in (folder / "README.md").read_text()
    copy = Path(shutil.copytree(model, tmp_path / "tiny"))
    told = json.loads((copy / "model.json").read_text())
    for precision in ("fp32", "int8-cpu"):
        (copy / "model.json").write_text(json.dumps({**told, "auto": {"onnxruntime": precision}}))
        with Detector(copy, backend="onnxruntime") as detector:
            assert detector.precision == precision


def test_the_cascade_is_glued_as_in_fp32(done: tuple[Path, Path]) -> None:
    glue = []
    for precision in ("fp32", "fp16", "int8"):
        constants = onnx.load(done[0] / f"cascade.{precision}.onnx").graph.initializer
        glue.append({c.name: numpy_helper.to_array(c) for c in constants if c.name.startswith("align/")})
    assert glue[0]
    for other in glue[1:]:
        assert other.keys() == glue[0].keys()
        assert all(np.array_equal(other[name], glue[0][name]) for name in other)


def test_the_card_says_how_it_was_made(tiny_model: Path, done: tuple[Path, Path]) -> None:
    card = dict(read_model(done[0]).card)
    note = card.pop("calibration")
    assert card == read_model(tiny_model).card
    assert (note["data"], note["images"]) == (["synthetic:40,seed=5"], 32)
    assert note["validation"] == {"data": ["synthetic:40,seed=5"], "samples": 8}
    assert list(note["precisions"]) == ["fp32", *TYPED]
    assert all(set(note["methods"][style]) == set(NETWORKS) for style in STYLES)


def test_the_report_holds_the_figures(done: tuple[Path, Path]) -> None:
    _, folder = done
    report = json.loads((folder / "report.json").read_text())
    assert report["command"] == (
        "python -m edge_kp.calibrate --model tiny --data synthetic:40,seed=5 --exact stage1"
        " --images 32 --seed 2"
    )
    assert all(list(report["trials"][style]) == list(METHODS) for style in STYLES)
    exact = report["precisions"]["fp32"]["stages"]
    assert exact["shift"] == 0
    for precision in TYPED:
        figures = report["precisions"][precision]["stages"]
        assert 0 < figures["shift"] < 2
        assert figures["nme"] == pytest.approx(exact["nme"], abs=2)
    page = (folder / "README.md").read_text()
    for words in (
        "| int8-cpu |",
        "| percentile |",
        "| stage.local.0.0 |",
        "- `int8-cpu`, stage1: all of it, as `--exact` says",
        "(layers.png)",
    ):
        assert words in page, words
    assert f"{exact['nme']:.3f}" in page
    picture = cv2.imread(str(folder / "layers.png"))
    assert picture.shape[1] > 800
    assert picture.std() > 20
    assert json.loads((folder / "manifest.json").read_text())["seed"] == 2


def test_the_ranges_make_the_very_files_again(
    tiny_model: Path, done: tuple[Path, Path], tmp_path: Path
) -> None:
    model, folder = done
    for path in write_precisions(tiny_model, folder / "ranges.json", out=tmp_path):
        assert path.read_bytes() == (model / path.name).read_bytes(), path.name


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(iter(METHODS))
    monkeypatch.setattr(search, "METHODS", {first: METHODS[first]})
    monkeypatch.setattr(search, "layer_names", lambda *args: layer_names(*args)[-1:])


@pytest.mark.usefixtures("quick")
def test_a_network_beyond_tolerance_stays_in_higher_precision_and_the_others_do_not(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tolerance lies between what the two worst networks differ by, which is another on each machine."""
    measured = Path(shutil.copytree(copy, tmp_path / "measured" / "tiny"))
    assert run(measured, tmp_path / "report") == 0, "a fifth of 40 samples is left over to judge by"
    references = load_references(measured, read_model(measured))
    differs = dict.fromkeys(NETWORKS, 0.0)
    for row in exporting.held(measured, "int8", {name: references[name] for name in NETWORKS}):
        if row.output in ("keypoints", "prior_keypoints", "boxes"):
            differs[row.network] = max(differs[row.network], row.mean)
    *others, beyond = sorted(NETWORKS, key=differs.__getitem__)
    between = (differs[others[-1]] + differs[beyond]) / 2
    assert differs[others[-1]] < between < differs[beyond]
    tight = parity.Tolerance((between, 1e-1), (5e-2, 3e-1))
    monkeypatch.setattr(parity, "TOLERANCE", {**parity.TOLERANCE, "int8": tight})
    assert run(copy, tmp_path / "report") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["images"] == 32
    assert report["kept_by_tolerance"] == {"int8": [beyond], "int8-cpu": []}
    page = (tmp_path / "report" / "README.md").read_text()
    assert f"- `int8`, {beyond}: all of it, since it differed from PyTorch beyond tolerance" in page
    quantised = {
        name: sum(
            node.op_type == "QuantizeLinear" for node in onnx.load(copy / f"{name}.int8.onnx").graph.node
        )
        for name in NETWORKS
    }
    assert quantised.pop(beyond) == 0
    assert min(quantised.values()) > 0


@pytest.mark.usefixtures("quick")
def test_what_nothing_needs_is_left_out_where_it_is_beyond_tolerance(
    done: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The cascade of int8, and all of fp16, of which stage 1 differs; those of an earlier run go, too."""
    told = exporting.parity

    def strict(network: str, precision: str, *outputs: Any) -> list[parity.Row]:
        rows = told(network, precision, *outputs)
        differs = (network, precision) in {("cascade", "int8"), ("stage1", "fp16")}
        return [replace(row, worst=2 * row.allowed[1]) for row in rows] if differs else rows

    monkeypatch.setattr(exporting, "parity", strict)
    model = Path(shutil.copytree(done[0], tmp_path / "tiny"))
    assert run(model, tmp_path / "report", "--images", "32") == 0
    gone = {*(f"{name}.fp16.onnx" for name in (*NETWORKS, "cascade")), "cascade.int8.onnx"}
    spec, before = read_model(model), read_model(done[0])
    assert set(spec.files) == set(before.files) - gone
    assert {path.name for path in model.iterdir()} == {*spec.files, "model.json"}
    assert all(file_digest(model / name) == digest for name, digest in spec.files.items())
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(lines) == 2
    assert all(any(name in line for line in lines) for name in gone)
    page = (tmp_path / "report" / "README.md").read_text()
    assert "Left out, since beyond tolerance" in page
    assert "| fp16 |" not in page
    assert "| int8 |" in page
    with Detector(model, precision="int8") as detector:
        assert not detector.fused


def test_a_kept_layer_is_told(done: tuple[Path, Path]) -> None:
    report = json.loads((done[1] / "report.json").read_text())
    report["kept"]["int8"]["stage2"] = ["stage.local.0.0"]
    assert "- `int8`, stage2: `stage.local.0.0`, 0.0" in text_of(report)


def test_a_report_in_which_nothing_is_kept_says_so(done: tuple[Path, Path]) -> None:
    report = json.loads((done[1] / "report.json").read_text())
    assert "None had to be kept" not in text_of(report)
    report |= {"exact": [], "kept": {style: {name: [] for name in NETWORKS} for style in STYLES}}
    assert "None had to be kept" in text_of(report)


def test_what_is_left_exact_has_the_graph_of_fp32(done: tuple[Path, Path]) -> None:
    model, _ = done
    names = ("stage1.int8-cpu", "stage1.fp32", "stage2.int8-cpu")
    exact, fp32, other = (onnx.load(model / f"{name}.onnx").graph for name in names)
    assert [node.op_type for node in exact.node] == [node.op_type for node in fp32.node]
    assert "QuantizeLinear" in {node.op_type for node in other.node}
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(model / "stage1.int8.onnx").graph.node}


# ---- refusals --------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


def refused(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, *more: str) -> str:
    """The one line of a refusal that left the model as it was."""
    before = content(model)
    assert run(model, tmp_path / "report", *more) == 1
    assert content(model) == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_run_that_fails_at_the_end_changes_nothing(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    first = next(iter(METHODS))
    monkeypatch.setattr(search, "METHODS", {first: METHODS[first]})
    monkeypatch.setattr(calibrating, "write_cascades", lambda *_: [])
    monkeypatch.setattr(calibrating, "layer_shifts", lambda *_: {"stage.stem.0.0": 0.0})
    monkeypatch.setattr(calibrating, "write_report", full)
    line = refused(capsys, copy, tmp_path, "--images", "32")
    assert f"{copy}: cannot be written (no space left on device)" in line


def test_too_few_images(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, copy, tmp_path, "--images", "31")
    assert line == (
        "error: 31 images to calibrate with, at least 32 are needed; add a --data or raise --images"
    )


def test_nothing_left_to_judge_by(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, copy, tmp_path, "--images", "40")
    assert line == (
        "error: all 40 images are used to calibrate, none is left to judge by;"
        " give --validation or fewer --images"
    )


def test_a_fifth_of_the_photos_is_left_to_judge_by(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the objects, of which there are three in each photo."""

    def crowded(*args: Any) -> Dataset:
        data = load_dataset(*args)
        s = data.samples
        shared = [replace(s[i], picture=f"{i // 3}.png", load=s[i - i % 3].load) for i in range(len(s))]
        return replace(data, samples=tuple(shared))

    def told(_: object, samples: list[Any]) -> None:
        raise DataError(f"{len(samples)} objects in {len({s.picture for s in samples})} photos")

    monkeypatch.setattr(calibrating, "load_dataset", crowded)
    monkeypatch.setattr(calibrating, "held_out", told)
    line = refused(capsys, copy, tmp_path, "--data", "synthetic:120,seed=5")
    assert line == "error: 24 objects in 8 photos"


def test_a_validation_set_of_its_own(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    line = refused(capsys, copy, tmp_path, "--validation", f"ibug:{folder}")
    assert str(folder) in line


def test_a_model_without_fp32_files(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fp32_files(copy)["stage2"].unlink()
    assert "stage2.fp32.onnx: missing; copy the whole model folder" in refused(capsys, copy, tmp_path)
    told = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**told, "files": {}}))
    assert "no NAME.fp32.onnx" in refused(capsys, copy, tmp_path)


def test_a_changed_fp32_file(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (copy / "stage1.fp32.onnx").open("ab") as file:
        file.write(b"x")
    assert "differs from the hash in model.json" in refused(capsys, copy, tmp_path)


def test_a_blank_photo(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*args: Any) -> Dataset:
        data = load_dataset(*args)
        samples = list(data.samples)
        samples[7] = replace(samples[7], load=partial(np.full, (96, 96, 3), 90, np.uint8), image_size=None)
        return replace(data, samples=tuple(samples))

    monkeypatch.setattr(calibrating, "load_dataset", spoilt)
    line = refused(capsys, copy, tmp_path, "--images", "32")
    assert re.fullmatch(r"error: synthetic/.*: a blank picture; remove it", line)
