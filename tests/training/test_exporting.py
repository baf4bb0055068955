"""A run becomes a model directory: complete, checked, and the same network as in PyTorch."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from reference_arrays import reference_arrays

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.detector import Detector
from edge_kp.errors import BackendError, ModelError
from edge_kp.export import main
from edge_kp.modeldir import NETWORKS, ModelSpec, file_digest, read_model
from edge_kp.parity import Row
from edge_kp.templates import TemplateBank
from edge_kp.training import exporting
from edge_kp.training.compacting import compact_model
from edge_kp.training.exporting import compare, export_network, find_bank
from edge_kp.training.finished import data_names
from edge_kp.training.lending import lent_locator
from edge_kp.training.network import ExportNet, NetworkConfig, StageNet
from edge_kp.training.onnx_graph import settled
from edge_kp.training.recipe import load_run
from edge_kp.training.torch_backend import TorchBackend

STAGES = ("stage1", "stage2")
SIZE, K, N, A = 48, 8, 12, 3
SHAPES = {
    "keypoints": (N, 2),
    "prior_keypoints": (N, 2),
    "mixture": (K,),
    "score": (),
    "visibility": (N,),
    "attributes": (A,),
}


def crops(run: Path, stage: str) -> np.ndarray:
    with np.load(run / "check_crops.npz") as file:
        return np.asarray(file[stage])


def onnx_file(model: Path, stage: str) -> Path:
    return model / f"{stage}.fp32.onnx"


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


# ---- the folder ----------------------------------------------------------------------------------------


def test_the_folder_holds_what_its_description_says(tiny_model: Path, tiny_run: Path) -> None:
    spec = read_model(tiny_model)
    assert {p.name for p in tiny_model.iterdir()} == {*spec.files, "model.json"}
    networks = (f"{name}.fp32.onnx" for name in NETWORKS)
    assert set(spec.files) == {*networks, "references.npz", "templates.npz"}
    for name, digest in spec.files.items():
        assert file_digest(tiny_model / name) == digest
    bank = TemplateBank.load(tiny_model / "templates.npz")
    assert spec.bank_digest == bank.digest == TemplateBank.load(tiny_run / "templates.npz").digest
    np.testing.assert_allclose(spec.mean_shape, bank.mean_shape, atol=1e-6)
    assert spec.schema == bank.schema
    assert (spec.name, spec.sizes, spec.scale) == ("tiny", (SIZE, SIZE), 1.6)
    assert spec.card["terms"] == "made up, free for all"
    assert spec.card["data"] == ["synthetic:300"]
    assert spec.card["accuracy"] == json.loads((tiny_run / "evaluation.json").read_text())


def test_the_description_survives_reading_and_writing(tiny_model: Path) -> None:
    data = json.loads((tiny_model / "model.json").read_text())
    assert ModelSpec.from_json(data).to_json() == data


def test_no_path_of_the_machine_that_trained_is_inside(tiny_model: Path, tiny_run: Path) -> None:
    for path in tiny_model.iterdir():
        text = path.read_bytes()
        for secret in (str(tiny_run), str(tiny_model), str(Path(exporting.__file__).parents[2])):
            assert secret.encode() not in text, path.name
    assert data_names(("ibug:/home/me/faces/helen,repeat=3", "coco:/a/b.json,/c/d", "ibug:.")) == [
        "ibug:helen,repeat=3",
        "coco:b.json,d",
        "ibug:.",
    ]


# ---- the networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_onnx_and_torch_agree_on_real_crops(tiny_run: Path, tiny_model: Path, stage: str) -> None:
    net = settled(load_run(tiny_run)[2 + STAGES.index(stage)])
    images = crops(tiny_run, stage)
    with torch.no_grad():
        expected = ExportNet(net)(torch.from_numpy(images))
    found = OnnxRuntimeBackend(onnx_file(tiny_model, stage)).run(images)
    assert list(found) == list(ExportNet.OUTPUTS)
    for name, value in zip(ExportNet.OUTPUTS, expected, strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), atol=2e-4, err_msg=name)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("count", [1, 3, 16])
def test_a_batch_equals_its_single_runs(tiny_run: Path, tiny_model: Path, stage: str, count: int) -> None:
    images = np.resize(crops(tiny_run, stage), (count, SIZE, SIZE, 3))
    images[count // 2] = 255 - images[count // 2]
    backend = OnnxRuntimeBackend(onnx_file(tiny_model, stage), threads=1)
    together = backend.run(images)
    for i in range(count):
        alone = backend.run(images[i : i + 1])
        for name, shape in SHAPES.items():
            assert together[name].shape == (count, *shape), name
            assert alone[name].shape == (1, *shape), name
            np.testing.assert_allclose(together[name][i], alone[name][0], atol=1e-5, err_msg=name)


def test_a_network_that_does_much_is_exported_as_well(tmp_path: Path, kites: Any) -> None:
    """After two epochs hardly anything is corrected or refined; here everything is, far off the defaults."""
    torch.manual_seed(0)
    templates = np.random.default_rng(0).uniform(0.2, 0.8, (K, 5, 2)).astype(np.float32)
    net = StageNet(NetworkConfig(32, 8, True, ("occlusion",)), templates)
    assert net.correction is not None
    with torch.no_grad():
        net.correction.out.weight.normal_(0, 2)
        net.mixture.weight.normal_(0, 5)
        for reading in net.readings:
            reading.step.weight.normal_(0, 0.5)
    images = np.stack([cv2.resize(s.load(), (32, 32)) for s in kites(6)])
    out = TorchBackend(ExportNet(net)).run(images)
    assert np.ptp(out["keypoints"], axis=0).max() > 0.05
    assert np.abs(out["keypoints"] - out["prior_keypoints"]).max() > 0.01
    path = tmp_path / "lively.onnx"
    plain = export_network(ExportNet(net), path, {"edge_kp.network": "test"})
    rows = compare(ExportNet(net), {"ONNX": plain, "simplified": path}, images)
    assert set(rows) == set(ExportNet.OUTPUTS)
    assert max(max(row.values()) for row in rows.values()) < 1e-4
    find_bank(onnx.load(path), templates)
    with torch.no_grad():
        net.readings[-1].step.bias += 0.05
    with pytest.raises(ModelError, match=r"lively\.onnx: keypoints differs from PyTorch by .*e-03"):
        compare(ExportNet(net), {"simplified": path}, images)


@pytest.mark.parametrize("stage", STAGES)
def test_the_contract_of_a_file(tiny_model: Path, stage: str) -> None:
    model = onnx.load(onnx_file(tiny_model, stage))
    onnx.checker.check_model(model, full_check=True)
    (opset,) = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    assert 17 <= opset <= 20
    (image,) = model.graph.input
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    batch = image.type.tensor_type.shape.dim[0].dim_param
    assert batch
    assert [d.dim_value for d in image.type.tensor_type.shape.dim[1:]] == [SIZE, SIZE, 3]
    assert [o.name for o in model.graph.output] == list(SHAPES)
    for output in model.graph.output:
        kind = output.type.tensor_type
        assert kind.elem_type == TensorProto.FLOAT, output.name
        assert kind.shape.dim[0].dim_param == batch, output.name
        assert tuple(d.dim_value for d in kind.shape.dim[1:]) == SHAPES[output.name], output.name


@pytest.mark.parametrize("stage", STAGES)
def test_a_file_says_what_a_host_program_must_know(tiny_model: Path, stage: str) -> None:
    about = {p.key: p.value for p in onnx.load(onnx_file(tiny_model, stage)).metadata_props}
    assert about["edge_kp.network"] == stage
    spec = json.loads(about["edge_kp.spec"])
    described = json.loads((tiny_model / "model.json").read_text())
    for name in ("name", "schema", "attributes", "mean_shape", "bank_sha256"):
        assert spec[name] == described[name]
    assert {name: spec[name] for name in described[stage]} == described[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_a_graph_that_tensorrt_takes(tiny_model: Path, stage: str) -> None:
    graph = onnx.load(onnx_file(tiny_model, stage)).graph
    assert [n.op_type for n in graph.node if "image" in n.input] == ["Cast"]
    kinds = {n.op_type for n in graph.node}
    assert not kinds & {"AffineGrid", "DeformConv", "NonZero", "Loop", "If", "Scan", "SequenceEmpty"}
    assert all(n.domain in ("", "ai.onnx") for n in graph.node)
    # The picture is turned by GridSample; features are gathered.
    assert sum(n.op_type == "GridSample" for n in graph.node) == (stage == "stage1")
    assert sum(n.op_type == "GatherND" for n in graph.node) == {"stage1": 1, "stage2": 2}[stage]
    # Rows become columns where the image comes in, the map is flattened, and the picture is turned; not in a
    # reading. Nor is blending taken apart into cases.
    assert sum(n.op_type == "Transpose" for n in graph.node) == {"stage1": 4, "stage2": 2}[stage]
    assert "Where" not in kinds


# ---- the bank inside ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_the_bank_is_the_constant_of_exactly_one_matmul(tiny_model: Path, stage: str) -> None:
    model, bank = onnx.load(onnx_file(tiny_model, stage)), TemplateBank.load(tiny_model / "templates.npz")
    name = find_bank(model, bank.templates)
    (node,) = [n for n in model.graph.node if n.name == name]
    assert node.op_type == "MatMul"
    (constant,) = [i for i in model.graph.initializer if i.name == node.input[1]]

    altered = onnx.ModelProto()
    altered.CopyFrom(model)
    (copy,) = [i for i in altered.graph.initializer if i.name == node.input[1]]
    values = numpy_helper.to_array(constant).copy()
    values[3, 5] = np.nextafter(values[3, 5], 1)
    copy.CopyFrom(numpy_helper.from_array(values, constant.name))
    with pytest.raises(ModelError, match="exactly one MatMul, found 0"):
        find_bank(altered, bank.templates)

    twice = onnx.ModelProto()
    twice.CopyFrom(model)
    second = twice.graph.node.add()
    second.CopyFrom(node)
    second.name, second.output[0] = "again", "again"
    with pytest.raises(ModelError, match="exactly one MatMul, found 2"):
        find_bank(twice, bank.templates)
    with pytest.raises(ModelError, match="found 0"):
        find_bank(model, bank.templates[::-1])


def test_the_constant_decides_the_result(tiny_model: Path, tiny_run: Path, tmp_path: Path) -> None:
    """Templates moved inside the file move the prior keypoints by the same."""
    model, bank = onnx.load(onnx_file(tiny_model, "stage2")), TemplateBank.load(tiny_model / "templates.npz")
    (node,) = [n for n in model.graph.node if n.name == find_bank(model, bank.templates)]
    for constant in model.graph.initializer:
        if constant.name == node.input[1]:
            moved = numpy_helper.to_array(constant) + np.tile(np.float32([0.1, -0.05]), N)
            constant.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), constant.name))
    onnx.save(model, tmp_path / "moved.onnx")
    images = crops(tiny_run, "stage2")
    before = OnnxRuntimeBackend(onnx_file(tiny_model, "stage2")).run(images)["prior_keypoints"]
    after = OnnxRuntimeBackend(tmp_path / "moved.onnx").run(images)["prior_keypoints"]
    np.testing.assert_allclose(after - before, np.broadcast_to([0.1, -0.05], before.shape), atol=1e-5)


# ---- the locator -----------------------------------------------------------------------------------------


def test_the_locator_carries_its_contract(tiny_model: Path, tiny_run: Path) -> None:
    spec = read_model(tiny_model)
    figures = json.loads((tiny_run / "locator.json").read_text())
    assert (spec.locator, spec.locator_size) == ("network", 64)
    assert spec.locator_threshold == figures["threshold"]
    assert spec.card["locator"] == {"data": ["synthetic:300"], "accuracy": figures}
    model = onnx.load(onnx_file(tiny_model, "locator"))
    said = {p.key: p.value for p in model.metadata_props}
    assert said["edge_kp.network"] == "locator"
    assert json.loads(said["edge_kp.spec"])["size"] == 64
    assert [o.name for o in model.graph.output] == ["boxes", "score"]
    with np.load(tiny_run / "check_frames.npz") as file:
        pictures = file["locator"]
    out = OnnxRuntimeBackend(onnx_file(tiny_model, "locator")).run(pictures)
    assert out["boxes"].shape == (len(pictures), 64, 4)
    assert (out["boxes"][..., 2:] > out["boxes"][..., :2]).all()


def test_without_a_locator_the_whole_frame_is_the_box_and_it_says_so(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "locator.json").unlink()
    assert main(["--run", str(run), "--out", str(tmp_path / "model")]) == 0
    assert "--part locator" in capsys.readouterr().out
    spec = read_model(tmp_path / "model")
    assert (spec.locator, spec.locator_size) == ("image", 0)
    assert "locator.fp32.onnx" not in spec.files


def test_the_locator_of_another_run(tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    stages = Path(shutil.copytree(tiny_run, tmp_path / "stages"))
    for name in ("locator.json", "check_frames.npz"):
        (stages / name).unlink()
    shutil.rmtree(stages / "locator")
    kept = json.loads((stages / "looks.json").read_text())
    kept["rules"] |= {"doubted": 1.0, "certain": 0.75}
    (stages / "looks.json").write_text(json.dumps(kept))
    model = tmp_path / "model"
    assert main(["--run", str(stages), "--locator", str(tiny_run), "--out", str(model)]) == 0
    assert read_model(model).locator == "network"
    # What its own locator doubted says nothing of this one.
    assert (read_model(model).looks.doubted, read_model(model).looks.certain) == (0.98, 0.75)
    assert main(["--run", str(tiny_run), "--locator", str(stages), "--out", str(model)]) == 1
    assert "locator.json: the run is not finished" in capsys.readouterr().err
    assert read_model(model).locator == "network"


@pytest.mark.parametrize("compact", [False, True])
def test_the_locator_of_a_model(compact: bool, tiny_run: Path, copy: Path, tmp_path: Path) -> None:
    """As the model has it, compact or not, and with its weights in the file again."""
    if compact:
        compact_model(copy)
    stages = Path(shutil.copytree(tiny_run, tmp_path / "stages"))
    (stages / "locator.json").unlink()
    shutil.rmtree(stages / "locator")
    out = tmp_path / "borrower"
    command = ["--run", str(stages), "--locator", str(copy), "--out", str(out), "--precision", "fp16"]
    assert main(command) == 0
    lender, spec = read_model(copy), read_model(out)
    for name in ("locator", "locator_size", "locator_threshold"):
        assert getattr(spec, name) == getattr(lender, name)
    assert spec.card["locator"] == lender.card["locator"]
    assert {"locator.fp32.onnx", "locator.fp16.onnx"} <= set(spec.files)
    file = reference_arrays(out)
    pictures, expected = file["locator/image"], file["locator/score"]
    found, lent = (OnnxRuntimeBackend(onnx_file(folder, "locator")).run(pictures) for folder in (out, copy))
    np.testing.assert_allclose(found["score"], expected, atol=2e-5)
    np.testing.assert_allclose(found["boxes"], lent["boxes"], atol=2e-5)
    model = onnx.load(onnx_file(out, "locator"), load_external_data=False)
    assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert not any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    said = {p.key: p.value for p in model.metadata_props}
    assert json.loads(said["edge_kp.spec"])["name"] == "borrower"


def test_the_locator_of_another_object_is_refused(tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["--run", str(tiny_run), "--out", str(tmp_path / "model"), "--locator"]
    assert main([*command, "face68"]) == 1
    assert "--locator face68: finds face68, not " in capsys.readouterr().err
    assert main([*command, str(tmp_path / "nothing")]) == 1
    assert "no folder with a model.json there" in capsys.readouterr().err
    other = Path(shutil.copytree(tiny_run, tmp_path / "other"))
    figures = json.loads((other / "locator.json").read_text())
    (other / "locator.json").write_text(json.dumps({**figures, "object": "bicycle"}))
    assert main([*command, str(other)]) == 1
    assert f"--locator {other}: finds bicycle, not {figures['object']}" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_the_object_is_the_same_with_other_edges_and_another_reference(copy: Path) -> None:
    """COCO labels that name no reference have it measured, so that two sets of one object differ."""
    spec = read_model(copy)
    a, b = spec.schema.reference
    same = replace(spec.schema, reference=(b, a), edges=())
    assert lent_locator(copy, replace(spec, schema=same)) is not None
    name, points = spec.schema.name, spec.schema.keypoints
    renamed = replace(spec.schema, keypoints=("tip", *points[1:]))
    told = f"finds {name} with a keypoint '{points[0]}', where the run has 'tip'"
    with pytest.raises(ModelError, match=told):
        lent_locator(copy, replace(spec, schema=renamed))
    fewer = replace(spec.schema, keypoints=("a", "b"), flip_pairs=(), edges=(), reference=(0, 1))
    with pytest.raises(ModelError, match=f"finds {name} of {len(points)} keypoints, not of 2; name a model"):
        lent_locator(copy, replace(spec, schema=fewer, mean_shape=spec.mean_shape[:2]))


def test_the_locator_of_a_run_with_other_keypoints_is_refused(
    tiny_run: Path, tmp_path: Path, capsys: Any
) -> None:
    other = Path(shutil.copytree(tiny_run, tmp_path / "other"))
    bank = TemplateBank.load(other / "templates.npz")
    points = bank.schema.keypoints
    replace(bank, schema=replace(bank.schema, keypoints=("tip", *points[1:]))).save(other / "templates.npz")
    command = ["--run", str(tiny_run), "--locator", str(other), "--out", str(tmp_path / "model")]
    assert main(command) == 1
    assert f"with a keypoint 'tip', where the run has '{points[0]}'" in capsys.readouterr().err


def test_where_the_image_is_the_box_no_locator_is_taken(tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    recipe = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**recipe, "box_rule": "image"}))
    (run / "locator.json").unlink()
    assert main(["--run", str(run), "--locator", str(tiny_run), "--out", str(tmp_path / "model")]) == 1
    assert "nothing is to be located" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


# ---- exports that fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["{run}", "{run}/.", "{link}"])
def test_a_model_is_not_written_into_a_run(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (tmp_path / "link").symlink_to(run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert main(["--run", str(run), "--out", place.format(run=run, link=tmp_path / "link")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "is the folder of a run, and the model would replace its templates.npz; give another folder" in line
    )
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "missing", ["run.json", "templates.npz", "stage1/best.pt", "stage2/best.pt", "check_crops.npz"]
)
def test_an_unfinished_run_leaves_the_old_model_alone(
    tiny_run: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / missing).unlink()
    before = content(copy)
    assert main(["--run", str(run), "--out", str(copy)]) == 1
    out, error = capsys.readouterr()
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("error: ")
    assert Path(missing).name in error
    assert "wrote" not in out
    assert content(copy) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "run"]


@pytest.mark.parametrize("name", ["check_crops.npz", "stage2/best.pt", "templates.npz", "run.json"])
def test_a_damaged_run_is_told_in_one_line(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: len(data) // 2])
    assert main(["--run", str(run), "--out", str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert Path(name).name in error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("fault", ["points", "bank"])
def test_an_export_that_differs_leaves_the_old_model_alone(
    tiny_run: Path,
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    def faulty(stage: StageNet, path: Path, contract: Any) -> Path:
        """Files of a network whose points lie a little off, or with another bank inside."""
        model = onnx.load(copy / path.name)
        if fault == "points":
            onnx.save(model, path)
            for node in model.graph.node:
                for i, name in enumerate(node.output):
                    if name == "keypoints":
                        node.output[i] = "exact"
            model.graph.initializer.append(numpy_helper.from_array(np.float32(1e-3), "off"))
            model.graph.node.append(onnx.helper.make_node("Add", ["exact", "off"], ["keypoints"]))
        else:
            for constant in model.graph.initializer:
                if tuple(constant.dims) == (K, 2 * N):
                    moved = numpy_helper.to_array(constant) + np.float32(1e-5)
                    constant.CopyFrom(numpy_helper.from_array(moved, constant.name))
            onnx.save(model, path)
        plain = path.with_suffix(".plain.onnx")
        onnx.save(model, plain)
        return plain

    before = content(copy)
    monkeypatch.setattr(exporting, "export_network", faulty)
    assert main(["--run", str(tiny_run), "--out", str(copy)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    expected = {"points": "keypoints differs from PyTorch by 1.00e-03", "bank": "one MatMul, found 0"}
    assert expected[fault] in line
    assert content(copy) == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_export_leaves_no_network_of_an_older_model_behind(
    tiny_run: Path, tiny_model: Path, copy: Path
) -> None:
    for name in ("locator.int8.onnx", "stage1.fp16.onnx", "weights.bin", "stage1.fp32.engine", "notes.txt"):
        (copy / name).write_bytes(b"older")
    assert main(["--run", str(tiny_run), "--out", str(copy)]) == 0
    mine = {"stage1.fp32.engine", "notes.txt"}
    assert {p.name for p in copy.iterdir()} == {*(p.name for p in tiny_model.iterdir()), *mine}


@pytest.mark.parametrize(("differs", "code"), [("cascade", 0), ("stage1", 1)])
def test_a_cascade_beyond_tolerance_is_left_out_and_a_stage_is_not(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differs: str, code: int
) -> None:
    told = exporting.parity

    def strict(network: str, precision: str, *outputs: Any) -> list[Row]:
        rows = told(network, precision, *outputs)
        beyond = (network, precision) == (differs, "fp16")
        return [replace(row, worst=2 * row.allowed[1]) for row in rows] if beyond else rows

    monkeypatch.setattr(exporting, "parity", strict)
    out = tmp_path / "model"
    assert main(["--run", str(tiny_run), "--out", str(out), "--precision", "fp16"]) == code
    if code == 0:
        files = read_model(out).files
        assert {"stage1.fp16.onnx", "stage2.fp16.onnx"} <= set(files)
        assert "cascade.fp16.onnx" not in files
        assert {p.name for p in out.iterdir()} == {*files, "model.json"}
    else:
        assert not out.exists()


def test_a_full_disk_names_the_folder(
    tiny_run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporting, "save_references", full)
    out = tmp_path / "models" / "kite"
    assert main(["--run", str(tiny_run), "--out", str(out)]) == 1
    told = f"error: {out}: cannot be written (no space left on device); make room there, or give another"
    assert told in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


def test_a_model_in_the_folder_we_are_in_bears_its_name(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kite").mkdir()
    monkeypatch.chdir(tmp_path / "kite")
    assert main(["--run", str(tiny_run), "--out", "."]) == 0
    assert read_model(tmp_path / "kite").name == "kite"


def test_a_model_behind_a_link_bears_the_name_of_the_link(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "version7").mkdir()
    (tmp_path / "current").symlink_to("version7")
    assert main(["--run", str(tiny_run), "--out", str(tmp_path / "current")]) == 0
    assert read_model(tmp_path / "version7").name == "current"


def test_a_model_is_written_where_a_disk_is_mounted(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From beside that folder, which is another disk, nothing can be moved into it."""
    out = tmp_path / "mounted"
    out.mkdir()
    move = os.replace

    def within_a_disk(source: Any, target: Any) -> None:
        if Path(source).is_relative_to(out) != Path(target).is_relative_to(out):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(target))
        move(source, target)

    monkeypatch.setattr(os, "replace", within_a_disk)
    assert main(["--run", str(tiny_run), "--out", str(out)]) == 0
    assert read_model(out).name == "mounted"
    assert not list(out.glob(".*"))


def test_an_export_beside_other_files_removes_none(tiny_run: Path, tmp_path: Path) -> None:
    """Without a model.json they are no older model."""
    (tmp_path / "weights.bin").write_bytes(b"of somebody else")
    assert main(["--run", str(tiny_run), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "weights.bin").read_bytes() == b"of somebody else"


# ---- folders that are not what they were -------------------------------------------------------------------


def test_a_changed_file_is_refused(copy: Path) -> None:
    path = onnx_file(copy, "stage2")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"stage2\.fp32\.onnx: differs from the hash in model\.json"):
        Detector(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    onnx_file(copy, "stage1").unlink()
    with pytest.raises(ModelError, match=r"stage1\.fp32\.onnx: missing; copy the whole model folder"):
        Detector(copy)


def test_a_precision_that_was_not_exported_is_refused(copy: Path) -> None:
    with pytest.raises(BackendError, match="the model has no int8-cpu files for onnxruntime, only fp32"):
        Detector(copy, backend="onnxruntime", precision="int8")


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "list", "no sizes", "format", "nan", "two points", "auto"]
)
def test_a_damaged_description_is_refused(copy: Path, damage: str) -> None:
    path = copy / "model.json"
    text = path.read_text()
    data = json.loads(text)
    if damage == "no sizes":
        del data["stage2"]
    elif damage == "format":
        data["format"] = 99
    elif damage == "nan":
        data["mean_shape"][0][0] = float("nan")
    elif damage == "two points":
        data["mean_shape"] = data["mean_shape"][:2]
    elif damage == "auto":
        data["auto"] = {"onnxruntime": "fp99"}
    whole = json.dumps(data)
    path.write_text({"cut": text[: len(text) // 2], "empty": "", "list": "[]"}.get(damage, whole))
    with pytest.raises(ModelError, match=r"model\.json: not a usable model description .*; export the model"):
        Detector(copy)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(BackendError, match=r"x\.onnx: ONNX Runtime cannot load it") as caught:
        OnnxRuntimeBackend(tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)


def test_a_network_with_another_input_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1, 3])],
        [value("y", TensorProto.FLOAT, [1, 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(BackendError, match=r"expected one input image uint8"):
        OnnxRuntimeBackend(tmp_path / "other.onnx")


def test_an_unknown_model_lists_the_shipped_ones(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("skull", "face"):
        shutil.copytree(tiny_model, tmp_path / name)
    monkeypatch.setattr("edge_kp.modeldir.SHIPPED", tmp_path)
    with pytest.raises(ModelError, match=r"model 'hand': .*shipped model \(face, skull\)"):
        Detector("hand")
    with Detector("skull") as detector:
        assert detector.model_name == "tiny"


# ---- precisions --------------------------------------------------------------------------------------------


def test_the_one_graph_is_written_in_the_precisions_that_are_asked_for(
    tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    assert main(["--run", str(tiny_run), "--out", str(out), "--precision", "fp16"]) == 0
    networks = {name for name in read_model(out).files if name.endswith(".onnx")}
    both = {f"{name}.{p}.onnx" for name in ("locator", "stage1", "stage2") for p in ("fp32", "fp16")}
    assert networks == both | {"cascade.fp16.onnx"}
    with Detector(out, backend="onnxruntime", precision="fp16", cascade="fused") as detector:
        assert all(row.passed for row in detector.check())
    about = {p.key: p.value for p in onnx.load(out / "cascade.fp16.onnx").metadata_props}
    assert about["edge_kp.precision"] == "fp16"


def test_int8_asks_for_measured_ranges(
    tiny_run: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(copy)
    assert main(["--run", str(tiny_run), "--out", str(copy), "--precision", "int8"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "8-bit files need measured ranges; run python -m edge_kp.calibrate" in line
    assert content(copy) == before


# ---- what is exported of a network -----------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_settled_network_is_nearly_the_same_in_16_bits_and_without_batch_norms(
    tiny_run: Path, stage: str
) -> None:
    net = load_run(tiny_run)[2 + STAGES.index(stage)]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    done = settled(net)
    assert not [m for m in done.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(torch.equal(p.half().float(), p) for p in done.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    images = torch.from_numpy(crops(tiny_run, stage))
    with torch.no_grad():
        seen, expected = ExportNet(done)(images), ExportNet(net)(images)
    for name, a, b in zip(ExportNet.OUTPUTS, seen, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3, err_msg=name)
