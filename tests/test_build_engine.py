"""The command line that builds engines: which files, which GPU, exit codes, and the check against PyTorch."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from by_path import load
from reference_arrays import reference_arrays

from edge_kp import build_engine as cli
from edge_kp.backends import cuda, tensorrt
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.backends.sidecar import EngineInfo, build_command
from edge_kp.errors import BackendError
from edge_kp.modeldir import ModelSpec, file_digest, write_model_json
from edge_kp.parity import References, save_references
from edge_kp.schema import KeypointSchema

ROOT = Path(__file__).parents[1]
NO_GPU = "the driver finds no GPU"


fake_gpu = load(ROOT / "tests" / "backends" / "fake_gpu.py")


@pytest.fixture
def rtx(monkeypatch):
    """TensorRT-RTX, on a machine without a GPU."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)):
        pytest.skip("TensorRT-RTX has wheels for Linux x86-64 up to Python 3.12 only")
    import tensorrt_rtx_bindings

    monkeypatch.setattr(cli, "load_tensorrt", lambda: tensorrt_rtx_bindings)
    no_gpu(monkeypatch)
    return tensorrt_rtx_bindings


def no_gpu(monkeypatch):
    def find():
        raise BackendError(NO_GPU)

    monkeypatch.setattr(cli, "find_gpu", find)


@pytest.fixture
def trt(monkeypatch):
    """The whole TensorRT with a GPU, both made of numpy."""
    fake = fake_gpu.FakeTensorRT([])

    def open_device():
        fake.device = fake_gpu.FakeDevice(Gpu("Orin", "8.7"), fake.log)
        return fake.device

    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(cuda, "open_device", open_device)
    monkeypatch.setattr(tensorrt, "open_device", open_device)
    return fake


@pytest.fixture
def folder(tmp_path):
    """A model of two stages in FP32, the first of them in FP16, too."""
    folder = tmp_path / "kite"
    folder.mkdir()
    references = {}
    for seed, network in enumerate(("stage1", "stage2")):
        path = fake_gpu.write_onnx(folder / f"{network}.fp32.onnx", seed=seed)
        images = np.random.default_rng(seed).integers(0, 256, (3, 16, 16, 3), np.uint8)
        references[network] = References(images, OnnxRuntimeBackend(path).run(images))
    fake_gpu.write_onnx(folder / "stage1.fp16.onnx", half=True)
    save(folder, references)
    return folder


def save(folder, references):
    save_references(folder, references)
    spec = ModelSpec(
        name="kite",
        schema=KeypointSchema("kite", tuple("abcde"), (), (), (0, 1)),
        attributes=(),
        mean_shape=np.zeros((5, 2), np.float32),
        sizes=(16, 16),
        scale=1.6,
        box_rule="keypoints",
        locator="image",
        score_threshold=0.5,
        bank_digest="0" * 64,
        files={p.name: file_digest(p) for p in folder.iterdir() if p.suffix in (".onnx", ".npz")},
    )
    write_model_json(folder, spec)


def engines(folder):
    return sorted(p.name for p in folder.glob("*.engine"))


def test_a_model_that_cannot_be_written_into_names_the_ways_out(trt, folder, capsys, monkeypatch):
    monkeypatch.setattr(cli, "find_gpu", lambda: Gpu("Orin", "8.7"))
    (folder / "stage1.fp32.engine").mkdir()
    assert cli.main(["--model", str(folder), "--precision", "fp32"]) == 1
    told = capsys.readouterr().err
    assert "stage1.fp32.engine: cannot be written (is a directory); make room there, or copy" in told
    assert "--onnx F --engine G" in told
    assert "XDG_CACHE_HOME" not in told


# ---- building -------------------------------------------------------------------------------------------


def test_all_networks_of_the_precisions_are_built(rtx, folder, capsys):
    where = ["--model", str(folder), "--compute-capability", "8.6", "--batch", "2", "1"]
    assert cli.main([*where, "--precision", "fp32", "fp16"]) == 0
    assert engines(folder) == ["stage1.fp16.engine", "stage1.fp32.engine", "stage2.fp32.engine"]
    info = EngineInfo.read(folder / "stage1.fp16.engine")
    assert (info.precision, info.batches, info.gpu) == ("fp16", (1, 2), None)
    told = capsys.readouterr().out
    assert f"tensorrt_rtx {rtx.__version__} for any GPU of compute capability 8.6" in told
    assert str(folder / "stage2.fp32.engine") in told
    assert told.count("at batch 2") == 3


def test_a_single_file_beside_itself_or_elsewhere(rtx, folder):
    network = folder / "stage1.fp16.onnx"
    assert cli.main(["--onnx", str(network), "--compute-capability", "8.9"]) == 0
    assert EngineInfo.read(folder / "stage1.fp16.engine").precision == "fp16"
    other = folder / "deep" / "mine.engine"
    named = ["--precision", "fp16", "--engine", str(other), "--batch", "3"]
    assert cli.main(["--onnx", str(network), "--compute-capability", "8.9", *named]) == 0
    assert (EngineInfo.read(other).precision, EngineInfo.read(other).batches) == ("fp16", (3,))


def test_the_settings_reach_the_builder(trt, folder, tmp_path, capsys):
    timings = tmp_path / "timings"
    settings = ["--workspace-gib", "0.5", "--timing-cache", str(timings), "--precision", "fp16"]
    assert cli.main(["--model", str(folder), *settings]) == 0
    assert trt.built["pools"] == {"WORKSPACE": 2**29}
    assert timings.exists()
    info = EngineInfo.read(folder / "stage1.fp16.engine")
    assert (info.gpu, info.compute_capability, info.batches) == ("Orin", "8.7", (1, 4))
    shown = capsys.readouterr()
    assert "tensorrt 10.3.0 for Orin of compute capability 8.7" in shown.out
    assert "building stage1.fp16.onnx" in shown.err


def test_the_command_that_a_refusal_names_is_understood(rtx, folder, tmp_path):
    network = folder / "stage1.fp16.onnx"
    for engine in (folder / "stage1.fp16.engine", tmp_path / "a folder" / "x.engine"):
        command = shlex.split(build_command(engine, network, "fp16", (1, 3)))
        assert command[:3] == ["python", "-m", "edge_kp.build_engine"]
        assert cli.main([*command[3:], "--compute-capability", "8.6"]) == 0
        assert EngineInfo.read(engine).batches == (1, 3)


def test_it_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, str(ROOT / "build_engine.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: python -m edge_kp.build_engine" in done.stdout


# ---- what it refuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model", "face68"],
        ["--model", "face68", "--onnx", "stage1.fp32.onnx", "--precision", "fp32"],
        ["--model", "face68", "--engine", "x.engine", "--precision", "fp32"],
        ["--model", "face68", "--precision", "fp64"],
        ["--model", "face68", "--precision", "fp32", "--batch", "0"],
        ["--model", "face68", "--precision", "fp32", "--workspace-gib", "0"],
        ["--model", "face68", "--precision", "fp32", "--compute-capability", "86"],
        ["--model", "face68", "--precision", "fp32", "--compute-capability", "8.6", "--verify"],
        ["--onnx", "stage1.fp32.onnx", "--verify"],
        ["--onnx", "stage1.onnx"],
        ["--onnx", "stage1.fp32.onnx", "--precision", "fp32", "fp16"],
        ["--onnx", "stage1.fp32.onnx", "--precision", "fp16"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert list(tmp_path.iterdir()) == []


def refused(capsys, *arguments):
    assert cli.main([str(a) for a in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_without_a_gpu_rtx_needs_a_compute_capability(rtx, folder, capsys):
    line = refused(capsys, "--model", folder, "--precision", "fp32")
    assert NO_GPU in line
    assert "--compute-capability builds without one" in line
    assert engines(folder) == []


def test_without_a_gpu_tensorrt_cannot_build(trt, folder, capsys, monkeypatch):
    no_gpu(monkeypatch)
    line = refused(capsys, "--model", folder, "--precision", "fp32")
    assert f"{NO_GPU} (TensorRT needs one)" in line
    line = refused(capsys, "--model", folder, "--precision", "fp32", "--compute-capability", "8.6")
    assert "leave --compute-capability out" in line


def test_a_precision_that_the_model_does_not_have(trt, folder, capsys):
    line = refused(capsys, "--model", folder, "--precision", "int8")
    assert "has no int8 files, only fp16, fp32" in line


def test_a_changed_file_is_not_built(trt, folder, capsys):
    fake_gpu.write_onnx(folder / "stage2.fp32.onnx", seed=9)
    line = refused(capsys, "--model", folder, "--precision", "fp32")
    assert "stage2.fp32.onnx: differs from the hash in model.json" in line
    assert engines(folder) == []


def test_a_file_that_is_not_there(trt, tmp_path, capsys):
    assert "stage1.fp32.onnx: no such file" in refused(capsys, "--onnx", tmp_path / "stage1.fp32.onnx")


# ---- --verify -------------------------------------------------------------------------------------------


def test_engines_like_pytorch_pass(trt, folder, capsys):
    assert cli.main(["--model", str(folder), "--precision", "fp32", "--verify"]) == 0
    told = capsys.readouterr().out
    engine_table, onnx_table = told.split("beside PyTorch")[1:]
    for network in ("stage1", "stage2"):
        for output in ("keypoints", "score"):
            for batch in (1, 4):
                assert f"{f'{network} ×{batch}':<13}{output}" in engine_table
            assert f"{network:<13}{output}" in onnx_table
    assert "BEYOND" not in told


def test_a_network_that_cannot_be_built_costs_the_others_nothing(trt, folder, capsys, monkeypatch):
    """Nor does an engine that does not run cost the others their comparison."""
    build, run = cli.build, tensorrt.TensorRTBackend.run

    def not_stage1(trt, onnx, *more, **settings):
        if onnx.name.startswith("stage1"):
            raise BackendError("no tactic")
        return build(trt, onnx, *more, **settings)

    def never(self, image):
        raise BackendError("the GPU is lost")

    monkeypatch.setattr(cli, "build", not_stage1)
    assert cli.main(["--model", str(folder), "--precision", "fp32", "--verify"]) == 1
    shown = capsys.readouterr()
    assert engines(folder) == ["stage2.fp32.engine"]
    assert shown.err.splitlines()[-1] == "error: 1 of 2 failed: stage1.fp32.onnx: no tactic"
    assert "engines beside PyTorch" in shown.out
    monkeypatch.setattr(cli, "build", build)
    lost = chain([never], repeat(run))
    monkeypatch.setattr(tensorrt.TensorRTBackend, "run", lambda self, image: next(lost)(self, image))
    assert cli.main(["--model", str(folder), "--precision", "fp32", "--verify"]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == "error: 1 of 2 failed: stage2.fp32.onnx: the GPU is lost"
    assert "stage1" in shown.out.partition("engines beside PyTorch")[2]


def test_an_engine_passes_where_onnx_runtime_cannot_run_its_file(trt, folder, capsys, monkeypatch):
    """As on ARM, where ONNX Runtime makes layers of 8 and 16 bits that it then refuses."""

    def refuses(name, path, *more):
        raise BackendError(f"{path.name}: ONNX Runtime cannot load it")

    monkeypatch.setattr(cli, "open_backend", refuses)
    assert cli.main(["--model", str(folder), "--precision", "fp32", "--verify"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.endswith("cannot load it")]
    assert sorted(told) == [f"{name}.fp32.onnx: ONNX Runtime cannot load it" for name in ("stage1", "stage2")]


def test_an_engine_beyond_tolerance_fails_and_names_the_output(trt, folder, capsys):
    references = {}
    file = reference_arrays(folder)
    for network in ("stage1", "stage2"):
        outputs = {name: file[f"{network}/{name}"] for name in ("keypoints", "score")}
        references[network] = References(file[f"{network}/image"], outputs)
    references["stage2"].outputs["keypoints"][1, 0, 0] += 0.01
    save(folder, references)
    assert cli.main(["--model", str(folder), "--precision", "fp32", "--verify"]) == 1
    shown = capsys.readouterr()
    error = shown.err.splitlines()[-1]
    assert "stage2.fp32.onnx: beyond tolerance: keypoints; do not use this engine" in error
    # In both batches, and ONNX Runtime differs from the changed reference, too.
    assert shown.out.count("BEYOND TOLERANCE") == 3


def test_every_batch_size_is_compared(trt, folder, capsys):
    """Each has kernels of its own: one may be right and the other wrong."""
    trt.off[1] = 0.1
    assert cli.main(["--model", str(folder), "--precision", "fp32", "--batch", "1", "4", "--verify"]) == 1
    shown = capsys.readouterr()
    wrong = [line for line in shown.out.splitlines() if line.endswith("BEYOND TOLERANCE")]
    assert {line.split()[1] for line in wrong} == {"×1"}
    assert "2 of 2 failed" in shown.err
    assert not any(EngineInfo.read(folder / name).verified for name in engines(folder))


def test_an_engine_remembers_that_it_was_verified(trt, folder):
    command = ["--model", str(folder), "--precision", "fp32"]
    for extra, verified in (([], False), (["--verify"], True), ([], False)):
        assert cli.main([*command, *extra]) == 0
        assert {EngineInfo.read(folder / name).verified for name in engines(folder)} == {verified}


@pytest.mark.parametrize("gone", ["file", "network"])
def test_without_references_nothing_is_built(trt, folder, capsys, gone):
    if gone == "file":
        (folder / "references.npz").unlink()
    else:
        file = reference_arrays(folder)
        outputs = {"score": file["stage1/score"]}
        save(folder, {"stage1": References(file["stage1/image"], outputs)})
    line = refused(capsys, "--model", folder, "--precision", "fp32", "--verify")
    assert ("references.npz" if gone == "file" else "no reference outputs of stage2") in line
    assert engines(folder) == []
