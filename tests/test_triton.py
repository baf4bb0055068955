"""Model repositories for Triton: configs by Triton's own schema, networks that give the same results."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from by_path import load
from hypothesis import given
from hypothesis import strategies as st

from edge_kp import build_engine, export
from edge_kp.backends import cuda, tensorrt
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.engines import build
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.modeldir import NETWORKS, SHIPPED, ModelSpec, file_digest, read_model, write_model_json
from edge_kp.parity import load_references
from edge_kp.schema import KeypointSchema
from edge_kp.triton import PARAMETER, pbtxt

pytest.importorskip("tritonclient.grpc")
from fake_triton import onnx_of, read_config
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

ROOT = Path(__file__).parents[1]
GPU = Gpu("L4", "8.9")
FACE = SHIPPED / "face68"


fake_gpu = load(ROOT / "tests" / "backends" / "fake_gpu.py")


def written(out: Path, *arguments: object) -> dict[str, tuple[Path, schema.ModelConfig]]:
    """Name of a network → folder and config of its model, in a repository that the command line wrote."""
    assert export.main(["--triton", str(out), *map(str, arguments)]) == 0
    models = sorted(out.iterdir())
    return {model.name.rpartition("_")[2]: (model, read_config(model)) for model in models}


def refused(capsys, *arguments: object) -> str:
    assert export.main(["--triton", *map(str, arguments)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def kite(tmp_path):
    """A model of two stages in FP32 and FP16, each network with weights of its own."""
    folder = tmp_path / "kite"
    folder.mkdir()
    for seed, network in enumerate(("stage1", "stage2")):
        fake_gpu.write_onnx(folder / f"{network}.fp32.onnx", seed=seed)
        fake_gpu.write_onnx(folder / f"{network}.fp16.onnx", seed=seed, half=True)
    return describe(folder)


def describe(folder: Path, name: str = "kite") -> Path:
    spec = ModelSpec(
        name=name,
        schema=KeypointSchema("kite", tuple("abcde"), (), (), (0, 1)),
        attributes=(),
        mean_shape=np.zeros((5, 2), np.float32),
        sizes=(16, 16),
        scale=1.6,
        box_rule="keypoints",
        locator="image",
        score_threshold=0.5,
        bank_digest="0" * 64,
        files={p.name: file_digest(p) for p in folder.glob("*.onnx")},
    )
    write_model_json(folder, spec)
    return folder


# ---- ONNX Runtime ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_network_of_a_compact_model_gives_the_same_from_the_repository(tmp_path, precision):
    """On other pictures than zeros, and all of its outputs as the config tells them."""
    models = written(tmp_path / "repository", "--model", "face68", "--precision", precision)
    files = {"fp16": "fp16", "int8": "int8-cpu"}[precision]
    has = [n for n in NETWORKS if (FACE / f"{n}.{files}.onnx").exists()]
    assert sorted(models) == sorted(has)
    assert ("cascade" in has) == (precision == "fp16")
    pictures = load_references(FACE, read_model(FACE))
    for network, (model, config) in models.items():
        images = pictures[network].images[:2]
        theirs = OnnxRuntimeBackend(onnx_of(model)).run(images)
        ours = OnnxRuntimeBackend(FACE / f"{network}.{files}.onnx").run(images)
        assert [output.name for output in config.output] == list(ours)
        for output in config.output:
            np.testing.assert_array_equal(theirs[output.name], ours[output.name])
            assert output.data_type == schema.TYPE_FP32
            sides = list(ours[output.name].shape[1:])
            assert list(output.dims) == (sides or [1])
            assert output.HasField("reshape") == (not sides)
        (image,) = config.input
        assert (image.name, image.data_type) == ("image", schema.TYPE_UINT8)
        assert list(image.dims) == list(images.shape[1:])
        assert not image.HasField("reshape")


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "KIND_AUTO"), ("int8", "KIND_CPU")])
def test_what_the_config_says_besides(tmp_path, precision, kind):
    models = written(tmp_path / "repository", "--model", "face68", "--precision", precision)
    for network, (model, config) in models.items():
        assert config.name == model.name == f"face68_{network}"
        assert config.backend == "onnxruntime"
        assert config.max_batch_size == 16
        assert config.HasField("dynamic_batching")
        assert list(config.dynamic_batching.preferred_batch_size) == [4, 8, 16]
        assert 0 < config.dynamic_batching.max_queue_delay_microseconds <= 5000
        (group,) = config.instance_group
        assert (group.count, group.kind) == (1, schema.ModelInstanceGroup.Kind.Value(kind))
        assert not group.profile
        told = ModelSpec.from_json(json.loads(config.parameters[PARAMETER].string_value))
        spec = read_model(FACE)
        assert (told.schema, told.attributes, told.sizes) == (spec.schema, spec.attributes, spec.sizes)
        assert (told.cascade_size, told.cascade_scale) == (spec.cascade_size, spec.cascade_scale)
        np.testing.assert_array_equal(told.mean_shape, spec.mean_shape)
        assert not told.card


def test_a_network_with_weights_of_its_own_is_one_file(kite, tmp_path, capsys):
    models = written(tmp_path / "deep" / "repository", "--model", kite, "--precision", "fp32")
    assert sorted(models) == ["stage1", "stage2"]
    for network, (model, _) in models.items():
        files = [p.relative_to(model).as_posix() for p in sorted(model.rglob("*")) if p.is_file()]
        assert files == ["1/model.onnx", "config.pbtxt"]
        assert (model / "1" / "model.onnx").read_bytes() == (kite / f"{network}.fp32.onnx").read_bytes()
    told = capsys.readouterr().out
    assert "kite_stage1: onnxruntime fp32, batches of up to 16" in told
    assert "no one-graph cascade" in told


def test_half_precision_is_what_is_served_where_nothing_is_said(kite, tmp_path):
    models = written(tmp_path / "half", "--model", kite)
    for network, (model, config) in models.items():
        assert (model / "1" / "model.onnx").read_bytes() == (kite / f"{network}.fp16.onnx").read_bytes()
        assert {output.data_type for output in config.output} == {schema.TYPE_FP16}
    for path in kite.glob("*.fp16.onnx"):
        path.unlink()
    for _, config in written(tmp_path / "whole", "--model", describe(kite)).values():
        assert {output.data_type for output in config.output} == {schema.TYPE_FP32}


@given(st.text())
def test_any_text_comes_through_the_text_format(text):
    message = {"name": text, "parameters": [{"key": "k", "value": {"string_value": text}}]}
    config = text_format.Parse(pbtxt(message), schema.ModelConfig())
    assert (config.name, config.parameters["k"].string_value) == (text, text)


# ---- TensorRT --------------------------------------------------------------------------------------------


@pytest.fixture
def trt(monkeypatch):
    """TensorRT and a GPU, both made of numpy."""
    fake = fake_gpu.FakeTensorRT([])

    def open_device():
        fake.device = fake_gpu.FakeDevice(GPU, fake.log)
        return fake.device

    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(cuda, "open_device", open_device)
    monkeypatch.setattr(tensorrt, "open_device", open_device)
    return fake


def engines(trt, folder: Path, batches=(1, 2, 3, 4, 5, 6), precision: str = "fp16") -> None:
    for network in ("stage1", "stage2"):
        onnx = folder / f"{network}.{precision}.onnx"
        build(trt, onnx, onnx.with_suffix(".engine"), precision, GPU, batches, progress=False)


def test_an_engine_for_every_batch_size_is_served_as_a_plan(trt, kite, tmp_path, capsys):
    engines(trt, kite)
    models = written(tmp_path / "repository", "--model", kite, "--backend", "tensorrt")
    assert sorted(models) == ["stage1", "stage2"]
    for network, (model, config) in models.items():
        assert [p.name for p in (model / "1").iterdir()] == ["model.plan"]
        engine = kite / f"{network}.fp16.engine"
        assert (model / "1" / "model.plan").read_bytes() == engine.read_bytes()
        assert (config.backend, config.max_batch_size) == ("tensorrt", 6)
        assert list(config.dynamic_batching.preferred_batch_size) == [4, 6]
        (group,) = config.instance_group
        assert group.kind == schema.ModelInstanceGroup.KIND_GPU
        # Position of a size among the engine's batches is the number of its profile.
        assert list(group.profile) == ["0", "1", "2", "3", "4", "5"]
        assert {output.data_type for output in config.output} == {schema.TYPE_FP16}
    told = capsys.readouterr().out
    assert "kite_stage2: tensorrt fp16, TensorRT 10.3.0 for L4, batches of up to 6" in told


def test_the_smallest_engine_is_served_one_by_one(trt, kite, tmp_path):
    engines(trt, kite, batches=(1,))
    for _, config in written(tmp_path / "r", "--model", kite, "--backend", "tensorrt").values():
        assert config.max_batch_size == 1
        assert list(config.dynamic_batching.preferred_batch_size) == [1]


def spoil_nothing(trt, kite):
    """No engine at all."""


def spoil_gaps(trt, kite):
    engines(trt, kite, batches=(1, 4))


def spoil_library(trt, kite):
    engines(trt, kite)
    sidecar = kite / "stage1.fp16.engine.json"
    sidecar.write_text(sidecar.read_text().replace('"tensorrt"', '"tensorrt_rtx"'))


def spoil_onnx(trt, kite):
    engines(trt, kite)
    fake_gpu.write_onnx(kite / "stage1.fp16.onnx", seed=7, half=True)
    describe(kite)


def spoil_engine(trt, kite):
    engines(trt, kite)
    engine = kite / "stage1.fp16.engine"
    engine.write_bytes(engine.read_bytes()[:-9])


def spoil_batches(trt, kite):
    engines(trt, kite)
    sidecar = kite / "stage1.fp16.engine.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "batches": []}))


@pytest.mark.parametrize(
    ("spoil", "words", "most"),
    [
        (spoil_nothing, "no stage1.fp16.engine.json beside it", 8),
        (spoil_gaps, "runs batches of 1, 4 alone", 4),
        (spoil_library, "built with tensorrt_rtx, a server needs TensorRT's own", 6),
        (spoil_onnx, "built from another stage1.fp16.onnx", 6),
        (spoil_engine, "cut off, changed or half replaced", 6),
        (spoil_batches, "stage1.fp16.engine.json is damaged", 8),
    ],
)
def test_an_engine_that_cannot_be_served_is_refused_with_the_command_that_mends_it(
    trt, kite, tmp_path, monkeypatch, capsys, spoil, words, most
):
    spoil(trt, kite)
    wanted = [tmp_path / "r", "--model", kite, "--backend", "tensorrt"]
    line = refused(capsys, *wanted)
    assert words in line
    assert not (tmp_path / "r").exists()
    command = shlex.split(line.partition("build it again: ")[2])
    monkeypatch.setattr(build_engine, "load_tensorrt", lambda: trt)
    monkeypatch.setattr(build_engine, "find_gpu", lambda: GPU)
    assert command[:3] == ["python", "-m", "edge_kp.build_engine"]
    assert build_engine.main(command[3:]) == 0
    _, config = written(*wanted)["stage1"]
    assert config.max_batch_size == most


def test_files_for_cpus_are_no_files_for_tensorrt(kite, tmp_path, capsys):
    for path in list(kite.glob("*.fp16.onnx")):
        shutil.copy(path, kite / path.name.replace("fp16", "int8-cpu"))
    describe(kite)
    wanted = [tmp_path / "r", "--model", kite, "--precision", "int8", "--backend", "tensorrt"]
    assert "the model has no int8 files for tensorrt" in refused(capsys, *wanted)


# ---- whole or not there ----------------------------------------------------------------------------------


def test_a_folder_in_use_stays_as_it_is(kite, tmp_path, capsys):
    out = tmp_path / "repository"
    (out / "mine").mkdir(parents=True)
    assert "is there already and not empty" in refused(capsys, out, "--model", kite)
    assert [p.name for p in out.rglob("*")] == ["mine"]
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is there already" in refused(capsys, file, "--model", kite)
    assert file.read_text() == "mine"


def test_an_empty_folder_is_taken_and_everyone_may_read_it(kite, tmp_path):
    out = tmp_path / "repository"
    out.mkdir()
    before = os.umask(0o022)  # Triton's container runs as a user of its own
    try:
        written(out, "--model", kite)
    finally:
        os.umask(before)
    for path in (out, *out.rglob("*")):
        assert path.stat().st_mode & stat.S_IROTH, path
        assert path.is_file() or path.stat().st_mode & stat.S_IXOTH, path


def test_the_folder_we_are_in_and_one_that_a_disk_is_mounted_at_are_filled(kite, tmp_path, monkeypatch):
    """Neither can be replaced by another folder."""
    out = tmp_path / "repository"
    out.mkdir()
    number = out.stat().st_ino
    monkeypatch.chdir(out)
    assert export.main(["--triton", ".", "--model", str(kite)]) == 0
    assert out.stat().st_ino == number
    assert sorted(p.name for p in out.iterdir()) == ["kite_stage1", "kite_stage2"]


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "kite/stage2.fp16.onnx")


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_names_the_repository_and_leaves_nothing(kite, tmp_path, capsys, monkeypatch, there):
    out = tmp_path / "new" / "repository"
    out.parent.mkdir()
    if there:
        out.mkdir()
    monkeypatch.setattr(shutil, "copyfile", full)
    line = refused(capsys, out, "--model", kite)
    assert line == (
        f"error: {out}: cannot be written (no space left on device); make room there, or give another folder"
    )
    assert [p.name for p in out.parent.rglob("*")] == ["repository"] * there


def test_a_move_that_fails_takes_back_what_it_moved(kite, tmp_path, monkeypatch):
    out, moves = tmp_path / "repository", []
    out.mkdir()

    def stopped(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise KeyboardInterrupt
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    assert export.main(["--triton", str(out), "--model", str(kite)]) == 130
    assert len(moves) == 2
    assert list(out.iterdir()) == []


def test_a_failure_leaves_nothing_behind(kite, tmp_path, capsys):
    """The second network is damaged; the first was written by then."""
    fake_gpu.write_onnx(kite / "stage2.fp16.onnx", seed=9)
    out = tmp_path / "new" / "repository"
    assert "stage2.fp16.onnx: differs from the hash in model.json" in refused(capsys, out, "--model", kite)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_file_that_cannot_be_served_in_batches(kite, tmp_path, capsys):
    import onnx

    path = kite / "stage1.fp16.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    line = refused(capsys, tmp_path / "r", "--model", describe(kite))
    assert "image: uint8 [1, 16, 16, 3] cannot be served in batches" in line


def test_a_name_that_leads_elsewhere_is_refused(kite, tmp_path, capsys):
    describe(kite, name="../kite")
    assert "'../kite' in model.json cannot name a folder" in refused(capsys, tmp_path / "r", "--model", kite)


def test_a_missing_model_or_precision_is_one_line(kite, tmp_path, capsys):
    assert "no folder with a model.json" in refused(capsys, tmp_path / "r", "--model", tmp_path / "none")
    line = refused(capsys, tmp_path / "r", "--model", kite, "--precision", "int8")
    assert "the model has no int8-cpu files" in line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--triton", "r"],
        ["--triton", "r", "--model", "face68", "--run", "run"],
        ["--triton", "r", "--model", "face68", "--out", "x"],
        ["--triton", "r", "--model", "face68", "--terms", "free"],
        ["--triton", "r", "--model", "face68", "--ranges", "x.json"],
        ["--triton", "r", "--model", "face68", "--locator", "run"],
        ["--triton", "r", "--model", "face68", "--precision", "fp16", "fp32"],
        ["--triton", "r", "--model", "face68", "--backend", "openvino"],
        ["--run", "run"],
        ["--run", "run", "--out", "x", "--model", "face68"],
        ["--run", "run", "--out", "x", "--backend", "tensorrt"],
        ["--run", "run", "--out", "x", "--ranges", "x.json"],
        ["--run", "run", "--out", "x", "--ranges", "x.json", "--precision", "fp16"],
        ["--model", "face68"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        export.main(arguments)
    assert stopped.value.code == 2
    assert list(tmp_path.iterdir()) == []
