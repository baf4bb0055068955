"""What the GPU benchmarks compute, skip and write, over a GPU of numpy; and gpu_check.sh without a GPU."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from by_path import load

from edge_kp import parity
from edge_kp.backends import cuda, tensorrt
from edge_kp.backends.cuda import Gpu
from edge_kp.errors import BackendError
from edge_kp.modeldir import read_model

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "benchmarks" / "gpu_check.sh"
if str(ROOT) not in sys.path:  # the benchmarks are not installed
    sys.path.append(str(ROOT))

from benchmarks import (  # noqa: E402
    gpu,
    gpu_candidates,
    gpu_measure,
    gpu_power,
    legacy_trt86,
    speed_candidates,
    speed_worker,
)
from benchmarks.common import write_result  # noqa: E402
from benchmarks.gpu_measure import Candidate, Notes  # noqa: E402

fake_gpu = load(ROOT / "tests" / "backends" / "fake_gpu.py")
build_engine = load(ROOT / "build_engine.py")


# ---- figures --------------------------------------------------------------------------------------------


def test_percentiles_are_in_milliseconds():
    assert gpu_measure.spread([i / 1e3 for i in range(101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert gpu_measure.spread([0.00025]) == {"p50": 0.25, "p90": 0.25, "p99": 0.25}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("Orin", "orin"),
        ("NVIDIA Thor (x)", "nvidia-thor-x"),
    ],
)
def test_a_device_names_its_file(name, file):
    assert gpu_measure.slug(name) == file


def counted(log, name, device=True, fails=None, by="tensorrt"):
    def run():
        if fails:
            raise fails
        log.append(name)

    def seconds(count):
        log.append(f"{name} on the GPU")
        return np.arange(count) / 1e3

    return Candidate(name, by, "fp16", 1, run, seconds if device else None, True, 7)


def test_candidates_take_turns_and_the_first_call_of_each_turn_does_not_count():
    log = []
    rows, rounds = gpu_measure.measure([counted(log, "a"), counted(log, "b", device=False)], 2, 3, Notes())
    turn = [*["a"] * 4, "a on the GPU", *["b"] * 4]
    assert log == turn * 2
    assert rounds == 2
    assert rows[0]["device_ms"] == {"p50": 2.0, "p90": 3.0, "p99": 3.0}  # 0 is left out
    assert rows[1]["device_ms"] is None
    assert rows[0]["kernels"] == 7
    assert set(rows[0]["host_ms"]) == {"p50", "p90", "p99"}


def test_one_round_is_made_however_little_time_there_is():
    assert gpu_measure.measure([counted([], "a")], 5, 1, Notes(), until=0.0)[1] == 1


def test_one_that_fails_on_the_way_costs_the_others_nothing():
    log, notes, kept = [], Notes(), []
    calls = iter(range(5))

    def lost():
        if next(calls, None) is None:
            raise BackendError("the GPU is lost")

    fails = dataclasses.replace(counted(log, "b"), run=lost)
    rows, rounds = gpu_measure.measure(
        [counted(log, "a"), fails], 3, 2, notes, keep=lambda rows, done: kept.append((len(rows), done))
    )
    assert rounds == 3
    assert [row["what"] for row in rows] == ["a"]
    assert kept == [(2, 1), (1, 2), (1, 3)]  # what there is after each round
    assert notes.failed == {str(fails): "after 1 rounds: the GPU is lost"}


def test_what_there_is_no_time_for_is_named():
    notes = Notes()
    theirs, ours = counted([], "a", by="torch eager"), counted([], "b")
    assert gpu_measure.warm_up([theirs, ours], 1, notes, until=0.0) == []
    assert notes.skipped == {str(theirs): "no time was left for it"}
    assert notes.failed == {str(ours): "no time was left for it"}


def test_what_does_not_run_is_left_out_by_name():
    notes = Notes()
    able = gpu_measure.warm_up(
        [
            counted([], "a"),
            counted([], "b", fails=ValueError("no\nkernel"), by="torch compile"),
            counted([], "c", fails=BackendError("lost")),
        ],
        1,
        notes,
    )
    assert [c.what for c in able] == ["a"]
    assert notes.skipped == {"torch compile fp16 b batch 1 with graphs": "no"}
    assert notes.failed == {"tensorrt fp16 c batch 1 with graphs": "lost"}


def row(what="cascade", by="tensorrt", precision="fp16", batch=1, graphs=True, host=0.3, device=0.2):
    figures = [None if v is None else dict.fromkeys(("p50", "p90", "p99"), v) for v in (host, device)]
    keys = ("what", "by", "precision", "batch", "graphs", "host_ms", "device_ms", "kernels")
    return dict(zip(keys, (what, by, precision, batch, graphs, *figures, None), strict=True))


def test_goals_are_for_the_cascade_with_graphs():
    others = [row(graphs=False), row(by="torch eager"), row(batch=4), row(precision="fp32")]
    for goal in gpu_measure.against_goals(others):
        assert (goal["measured"], goal["met"]) == (None, None)
    goals = gpu_measure.against_goals([*others, row(host=0.41, device=0.25)])
    assert [(g["at_most"], g["measured"], g["met"]) for g in goals] == [
        (0.25, 0.25, True),
        (0.4, 0.41, False),
    ]
    told = gpu_measure.goal_lines(goals).splitlines()
    assert told[0] == "cascade fp16 batch 1 device_ms p50: 0.250 (goal on an H100: at most 0.25): met"
    assert told[1].endswith("NOT met")


def test_a_goal_whose_engine_ran_without_graphs_alone_has_failed():
    missed = gpu_measure.missed_goals([row(graphs=False)])
    assert list(missed) == [f"goal cascade fp16 batch 1 {of} p50" for of in ("device_ms", "host_ms")]
    assert set(missed.values()) == {"not measured: its engine ran, but not with CUDA graphs"}
    for others in ([], [row()], [row(graphs=False), row()], [row(by="torch eager"), row(batch=4)]):
        assert gpu_measure.missed_goals(others) == {}


def test_the_table_has_a_line_for_each_row_and_equal_columns():
    rows = [row(), row(graphs=None, by="onnxruntime cuda", device=None), row(graphs=False, host=12.3456)]
    lines = gpu_measure.table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 4
    assert " 12.346 " in lines[3]
    assert lines[2].split()[-4:] == ["-"] * 4


# ---- power ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("97.45, 1980\n98.55, 1965\n70.", {"watts": 98.0, "clock_mhz": 1972.5}),
        ("[N/A], 612\n[N/A], 612\n", {"clock_mhz": 612.0}),
        ("[Not Supported], [Not Supported]\n", {}),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the"
         " latest NVIDIA driver is installed and running.\n\n", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_lines_of_nvidia_smi(text, found):
    assert gpu_power.parse_nvidia_smi(text) == found


ORIN_NANO = (
    "03-12-2024 10:18:23 RAM 2841/7620MB (lfb 7x4MB) SWAP 0/3810MB (cached 0MB) CPU [3%@729,0%@729,off]"
    " EMC_FREQ 0%@2133 GR3D_FREQ 61%@[624] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@47.5C soc2@46.968C"
    " gpu@47.187C tj@48C VDD_IN {0}mW/4876mW VDD_CPU_GPU_CV 739mW/739mW VDD_SOC 1438mW/1438mW\n"
)
AGX_ORIN = (
    "RAM 2765/30536MB (lfb 6378x4MB) SWAP 0/15268MB (cached 0MB) CPU [5%@729,0%@729] EMC_FREQ 0%@2133"
    " GR3D_FREQ 5%@[1300,1296] GPU@44C VDD_GPU_SOC 3205mW/3205mW VDD_CPU_CV 801mW/801mW"
    " VIN_SYS_5V0 4435mW/4435mW VDDQ_VDD2_1V8AO 705mW/705mW\n"
)
XAVIER = "RAM 951/7764MB (lfb 1x1MB) GR3D_FREQ 0%@114 thermal@33.4C VDD_IN 4050/4050 VDD_CPU_GPU_CV 530/530\n"


def test_lines_of_tegrastats():
    found = gpu_power.parse_tegrastats(ORIN_NANO.format(4800) + ORIN_NANO.format(5000) + "03-12-2024 10:")
    assert found == {
        "watts": 4.9,
        "clock_mhz": 624.0,
        "rails_w": {"VDD_IN": 4.9, "VDD_CPU_GPU_CV": 0.739, "VDD_SOC": 1.438},
    }
    found = gpu_power.parse_tegrastats(AGX_ORIN)  # no rail is the whole module's
    assert "watts" not in found
    assert found["clock_mhz"] == 1300.0
    assert found["rails_w"]["VIN_SYS_5V0"] == 4.435
    assert gpu_power.parse_tegrastats(XAVIER)["watts"] == 4.05
    assert gpu_power.parse_tegrastats("") == {}


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_power_is_read_while_the_calls_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    program(tmp_path, "nvidia-smi", f'echo "$@" >{tmp_path}/asked; echo "120.0, 1980"; exec sleep 60')
    calls = []
    found = gpu_power.power(lambda: calls.append(0), 4, 0.2)
    assert (found["watts"], found["clock_mhz"], found["source"]) == (120.0, 1980.0, "nvidia-smi")
    assert found["calls"] < len(calls)  # the load came first
    assert found["millijoule_per_image"] == pytest.approx(
        120e3 * found["seconds"] / found["calls"] / 4, rel=0.1, abs=1e-3
    )
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:2] == ["--id=3", "--query-gpu=power.draw,clocks.sm"]


def test_on_a_jetson_tegrastats_tells_what_nvidia_smi_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, "nvidia-smi", 'echo "[N/A], [N/A]"')
    program(tmp_path, "tegrastats", f'echo "{ORIN_NANO.format(5000).strip()}"; exec sleep 60')
    found = gpu_power.power(lambda: None, 1, 0.2)
    assert (found["watts"], found["source"]) == (5.0, "tegrastats")


def test_power_that_nothing_tells_is_said_to_be_unreadable(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_power.power(lambda: None, 1, 0.05) == {"watts": "not readable"}
    assert gpu_power.gpu_state() == "not readable"


def test_the_state_of_the_gpu_has_a_value_for_each_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(
        tmp_path,
        "nvidia-smi",
        'echo "NVIDIA H100 80GB HBM3, 550.90.07, P0, Enabled, 700.00, 1980, 345, 2619, 31, 4, 0"',
    )
    state = gpu_power.gpu_state()
    assert (state["driver_version"], state["power.limit"], state["utilization.gpu"]) == (
        "550.90.07",
        "700.00",
        "0",
    )


# ---- the whole, over a GPU of numpy ---------------------------------------------------------------------


class OneGpu(fake_gpu.FakeDevice):
    """A GPU that several engines use at once: it stays until the last of them is closed."""

    users = 0

    def close(self):
        self.users -= 1
        if self.users == 0:
            super().close()


@pytest.fixture
def trt(monkeypatch):
    """The fake TensorRT as the installed one; ``trt.gpu`` holds the GPU's settings."""
    fake = fake_gpu.FakeTensorRT([])
    fake.gpu = {}

    def open_device():
        if fake.device is None or not fake.device.users:
            fake.device = OneGpu(Gpu("Orin", "8.7"), fake.log, **fake.gpu)
        fake.device.users += 1
        return fake.device

    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    for module in (cuda, tensorrt, gpu):
        monkeypatch.setattr(module, "open_device", open_device)
    return fake


@pytest.fixture
def built(trt, tiny_model, tmp_path, capsys):
    """The tiny model with engines in FP32 for batches of 1 and 2."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    assert build_engine.main(["--model", str(folder), "--precision", "fp32", "--batch", "1", "2"]) == 0
    capsys.readouterr()
    return folder


def measured(folder, *more, code=0):
    out = folder.parent / "figures"
    arguments = [
        "--model",
        str(folder),
        "--rounds",
        "2",
        "--calls",
        "2",
        "--power-seconds",
        "0",
        "--out",
        str(out),
    ]
    assert gpu.main([*arguments, *map(str, more)]) == code
    return json.loads((out / "gpu-orin.json").read_text())


def test_every_engine_is_measured_alone_and_in_the_whole(built, capsys):
    result = measured(built, "--batch", 1, 2, 3)
    rows = {(r["what"], r["batch"], r["graphs"]): r for r in result["rows"] if r["by"] == "tensorrt"}
    whats = ("stage1", "stage2", "cascade", "staged", "fused")
    assert set(rows) == {
        (what, batch, graphs) for what in whats for batch in (1, 2) for graphs in (True, False)
    }
    for one in rows.values():
        assert one["precision"] == "fp32"
        assert set(one) == set(row())
        assert one["host_ms"]["p50"] > 0
        # The fake's events tell a millisecond for each engine.
        assert one["device_ms"]["p50"] == (2.0 if one["what"] == "staged" else 1.0)
    compared = {(r["network"], r["output"]) for r in result["parity"]}
    assert {("stage1", "keypoints"), ("stage2", "score"), ("cascade", "keypoints")} <= compared
    assert all(r["passed"] and r["worst"] <= r["allowed"][1] for r in result["parity"])
    assert rows["stage1", 1, True]["kernels"] == 2
    assert rows["staged", 2, True]["kernels"] == 6
    skipped = result["skipped"]
    assert "the model has no cascade in fp16" in skipped["tensorrt fp16 cascade"]
    assert skipped["tensorrt fp32 cascade batch 3"] == "its engine is for batches 1, 2"
    assert skipped["torch"] == "no --run: a model folder holds no weights for PyTorch"
    assert "onnxruntime cuda" in skipped
    assert result["failed"] == {}
    assert [g["met"] for g in result["goals"]] == [None, None]  # they are for FP16
    told = capsys.readouterr().out
    assert "skipped torch: no --run" in told
    assert "device_ms p50: - (goal on an H100: at most 0.25): not measured" in told


def test_the_result_says_on_what_it_was_measured(built, trt):
    result = measured(built, "--batch", 1)
    machine = result["gpu"]
    assert (machine["name"], machine["compute_capability"], machine["tensorrt"]) == (
        "Orin",
        "8.7",
        "tensorrt 10.3.0",
    )
    assert machine["driver_cuda"] == "12.6"
    assert (result["rounds"], result["calls"], result["model"]) == (2, 2, "tiny")
    for key in ("command", "date", "machine", "versions", "definitions"):
        assert result[key]
    assert set(result["versions"]) >= {"numpy", "tensorrt", "cuda-bindings", "pycuda"}
    keys = {word.strip() for name in result["definitions"] for word in name.split(",")}
    assert keys >= {"host_ms", "device_ms", "kernels", "graphs", "batch", "p50", "rounds", "staged", "fused"}
    assert trt.log.count("device opened") == trt.log.count("device closed")


def test_the_speed_benchmark_tells_the_engines_time_of_those_batches_they_are_for(built):
    spec = read_model(built)
    speed_candidates.build_engines(built, spec, ["fp32"])  # which are all there
    alone = speed_worker.open_network(str(built), "stage1", "tensorrt", "fp32", 1, 2)
    whole = speed_worker.open_cascade(str(built), "tensorrt", "fp32", 1, 2)
    assert tuple(alone.batches) == tuple(whole.batches) == (1, 2)
    assert (alone.about["device"], whole.about["cascade"]) == ("Orin", "fused")
    for opened in (alone, whole):
        answer = speed_worker.turn(opened, 2, 3)
        assert len(answer["ms"]) == 3
        assert answer["compute_ms"] == [1.0] * 3  # the fake's events tell a millisecond for each engine


def test_a_library_without_graphs_is_measured_without_them(built, trt):
    trt.gpu["graphs"] = False
    result = measured(built, "--batch", 1)
    assert {r["graphs"] for r in result["rows"]} == {False}
    assert result["skipped"]["tensorrt fp32 stage1 with graphs"] == "batch 1, 2 cannot be captured here"


def test_a_batch_that_cannot_be_captured_is_named_and_the_others_are_measured_with_graphs(built, monkeypatch):
    capture = tensorrt._Profile.capture

    def not_two(self):
        if self.batch == 2:
            raise BackendError("not this one")
        capture(self)

    monkeypatch.setattr(tensorrt._Profile, "capture", not_two)
    result = measured(built, "--batch", 1, 2)
    assert {(r["batch"], r["graphs"]) for r in result["rows"]} == {(1, True), (1, False), (2, False)}
    assert result["skipped"]["tensorrt fp32 stage1 with graphs"] == "batch 2 cannot be captured here"


def test_parity_is_on_disk_before_anything_is_measured(built, monkeypatch):
    def lost(*_):
        raise BackendError("the GPU is lost")

    monkeypatch.setattr(gpu, "measure", lost)
    result = measured(built, "--batch", 1, code=1)
    assert result["rows"] == []
    assert {r["network"] for r in result["parity"]} == {"stage1", "stage2", "cascade"}


def test_power_that_cannot_be_measured_costs_no_figure():
    notes = Notes()
    lost = dataclasses.replace(
        counted([], "cascade", fails=BackendError("the GPU is lost")), precision="int8"
    )
    found = gpu._power([lost, counted([], "cascade")], 0.05, notes)
    assert [f["of"] for f in found] == ["tensorrt fp16 cascade batch 1 with graphs"]
    assert notes.failed == {f"power of {lost}": "the GPU is lost"}


def test_an_engine_that_does_not_fit_fails_and_the_others_are_measured(built, capsys):
    engine = built / "cascade.fp32.engine"
    engine.write_bytes(engine.read_bytes()[:-1])
    result = measured(built, "--batch", 1, code=1)
    assert "cut off" in result["failed"]["tensorrt fp32 cascade, graphs True"]
    assert {r["what"] for r in result["rows"]} == {"stage1", "stage2", "staged"}
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: 2 not measured that should be")


def test_an_engine_that_fails_while_it_is_measured_leaves_the_figures_of_the_others(built, monkeypatch):
    run, calls = tensorrt.TensorRTBackend.run, []

    def sometimes(self, image):
        calls.append(self)
        if calls.count(calls[0]) > 20 and self is calls[0]:  # stage 1 with graphs
            raise BackendError("the GPU is lost")
        return run(self, image)

    monkeypatch.setattr(tensorrt.TensorRTBackend, "run", sometimes)
    result = measured(built, "--batch", 1, "--rounds", 9, code=1)
    rows = {(r["what"], r["graphs"]) for r in result["rows"]}
    assert rows >= {("stage1", False), ("stage2", True), ("cascade", True), ("fused", True)}
    assert not rows & {("stage1", True), ("staged", True)}
    assert "the GPU is lost" in result["failed"]["tensorrt fp32 stage1 batch 1 with graphs"]


def test_without_tensorrt_the_others_are_measured(built, monkeypatch):
    def no_tensorrt():
        raise BackendError("no TensorRT here")

    monkeypatch.setattr(gpu, "load_tensorrt", no_tensorrt)
    monkeypatch.setattr(gpu, "onnx_runtime", lambda job: iter([counted([], "stage1")]))
    result = measured(built, "--batch", 1, code=1)
    assert [r["what"] for r in result["rows"]] == ["stage1"]
    assert result["failed"]["tensorrt"] == "no TensorRT here"
    assert result["gpu"]["tensorrt"] == "none"


def test_without_engines_there_is_one_line_and_no_file(trt, tiny_model, tmp_path, capsys):
    assert gpu.main(["--model", str(tiny_model), "--out", str(tmp_path / "none")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "nothing can be measured (no engine yet: python -m edge_kp.build_engine" in lines[0]
    assert not (tmp_path / "none").exists()


def test_pytorch_without_a_gpu_is_left_out_by_name(tiny_model, tiny_run):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    job = gpu_candidates.prepare(str(tiny_model), ("fp32",), (1,))
    assert list(gpu_candidates.pytorch(job, tiny_run)) == []
    assert job.notes.skipped == {"torch": "this PyTorch finds no GPU"}


def test_pytorch_that_is_not_installed_is_left_out_by_name(tiny_model, tiny_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    job = gpu_candidates.prepare(str(tiny_model), ("fp32",), (1,))
    assert list(gpu_candidates.pytorch(job, tiny_run)) == []
    assert "torch" in job.notes.skipped["torch"]


def test_results_go_where_they_are_wanted_and_old_callers_need_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", "--data", "ibug:/home/me/helen"])
    path = write_result("x", {"figure": 1}, tmp_path / "deep" / "down", ["no-such-package"])
    result = json.loads(path.read_text())
    assert (result["figure"], result["command"]) == (1, "python -m benchmarks.x --data ibug:helen")
    assert result["versions"]["no-such-package"] is None
    assert write_result.__defaults__ == (ROOT / "benchmarks" / "results", (), None)


# ---- TensorRT 8.6 ---------------------------------------------------------------------------------------


def refused(capsys, *arguments):
    assert legacy_trt86.main([str(a) for a in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_the_legacy_benchmark_asks_for_tensorrt_8(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert refused(capsys, "--model", tmp_path).startswith("error: tensorrt cannot be loaded")
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.3.0"))
    assert "this is tensorrt 10.3.0: use python -m benchmarks.gpu" in refused(capsys, "--model", tmp_path)


def test_the_legacy_benchmark_needs_numpy_alone():
    code = (
        "import sys, benchmarks.legacy_trt86\n"
        "print(*(m for m in ('edge_kp', 'cv2', 'onnxruntime', 'tqdm', 'torch', 'cuda') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


def test_the_legacy_benchmark_reads_the_pictures_of_a_model(monkeypatch, tmp_path):
    folder, notes = ROOT / "edge_kp" / "models" / "face68", gpu_measure.Notes()
    found = legacy_trt86.references(folder, notes)
    assert {name: kept["image"].shape[1:] for name, kept in found.items()} == {
        "stage1": (64, 64, 3),
        "stage2": (160, 160, 3),
        "cascade": (272, 272, 3),
        "locator": (320, 320, 3),
    }
    assert found["stage2"]["keypoints"].shape == (len(found["stage2"]["image"]), 68, 2)
    assert notes.failed == {}
    assert legacy_trt86.references(tmp_path, notes) == {}
    assert "model.json" in notes.failed.pop("parity")
    monkeypatch.setitem(sys.modules, "edge_kp.parity", None)
    assert legacy_trt86.references(folder, notes) == {}
    assert "pip install opencv-python" in notes.skipped["parity"]
    assert notes.failed == {}  # what is not installed is no failure


def test_the_legacy_benchmark_takes_the_fp16_file_where_there_is_no_fp32_one(monkeypatch, tmp_path):
    tried, notes = [], Notes()
    for name in ("cascade.fp16.onnx", "stage1.fp16.onnx", "stage1.fp32.onnx"):
        (tmp_path / name).touch()

    def build(trt, log, onnx, *_):
        tried.append(onnx.name)
        raise legacy_trt86.Refused("no GPU")

    monkeypatch.setattr(legacy_trt86, "build", build)
    args = argparse.Namespace(model=tmp_path, precision=("fp32", "fp16"), batch=(1,))
    trt = types.SimpleNamespace(__version__="8.6.1", ILogger=object)
    assert list(legacy_trt86.candidates(trt, None, args, float("inf"), {}, notes)) == []
    assert tried == ["stage1.fp32.onnx", "cascade.fp16.onnx", "stage1.fp32.onnx"]
    assert notes.skipped["tensorrt 8.6.1 fp32 cascade"] == "the model has no cascade.fp32.onnx"
    told = notes.skipped["tensorrt 8.6.1 fp16 stage2"]
    assert told == "the model has no stage2.fp32.onnx or stage2.fp16.onnx"


# ---- gpu_check.sh ---------------------------------------------------------------------------------------


def check(path=None, **environment):
    """The script with an interpreter (here the one that runs the tests, or a stand-in)."""
    return subprocess.run(
        ["bash", str(CHECK)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": str(path or sys.executable), **environment},
    )


def test_the_script_is_bash():
    subprocess.run(["bash", "-n", str(CHECK)], check=True)
    assert os.access(CHECK, os.X_OK)


def test_without_a_gpu_the_script_says_so_in_one_line(tmp_path):
    done = check(CUDA_VISIBLE_DEVICES="", OUT=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("gpu_check: no GPU: ")
    assert list(tmp_path.iterdir()) == []


def test_a_model_or_interpreter_that_is_not_there_is_named():
    assert "no model.json in" in check(MODEL="face69").stderr
    assert "set PYTHON" in check("/no/such/python").stderr


@pytest.fixture
def stand_in(tmp_path):
    """An interpreter that writes down what it is asked to run, and fails where told."""
    path = tmp_path / "python"
    program(
        tmp_path,
        "python",
        f"""
        if [ "$1" = --version ]; then echo Python 3.12; exit; fi
        if [ "$1" = - ]; then  # the two questions: is there a GPU, and which TensorRT
            grep -q libcuda && exit 0
            echo "${{LIBRARY:-tensorrt 10.3.0}}"; exit
        fi
        echo "$*" >>{tmp_path}/asked
        case "$*" in *${{FAILS:-nothing}}*) echo "it fails"; exit 3;; esac
        """,
    )
    return path


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "kite"
    folder.mkdir()
    for name in ("model.json", "references.npz"):
        (folder / name).touch()
    return folder


def asked(tmp_path):
    return (tmp_path / "asked").read_text().splitlines()


def test_the_script_builds_checks_and_measures(stand_in, model, tmp_path):
    done = check(stand_in, MODEL=str(model), OUT=str(tmp_path / "out"), RUN="runs/kite", ROUNDS="9")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = asked(tmp_path)
    assert [line.split()[0:2] for line in lines[:3]] == [[str(ROOT / "build_engine.py"), "--model"]] * 3
    for line, precision in zip(lines, ("fp16", "fp32", "int8"), strict=False):
        assert f"--precision {precision} --batch 1 4 16 --timing-cache" in line
        assert line.endswith("--verify")
        assert str(model) not in line  # the checkout stays clean
    for line, cascade in zip(lines[3:5], ("fused", "staged"), strict=True):
        assert line.startswith(f"-m edge_kp.run --check --backend tensorrt --cascade {cascade} --model ")
    assert lines[5].startswith("-m benchmarks.gpu --model ")
    assert "--run runs/kite --precision fp16 fp32 int8 --batch 1 4 16 --rounds 9 --seconds " in lines[5]
    assert lines[5].endswith(f"--out {tmp_path / 'out'}")
    assert len(lines) == 6
    assert done.stdout.count(": passed in ") == 6
    assert sorted(p.name for p in model.iterdir()) == ["model.json", "references.npz"]


def test_a_failing_step_is_told_and_the_others_still_run(stand_in, model, tmp_path):
    done = check(stand_in, MODEL=str(model), FAILS="fp32 --batch")
    assert done.returncode == 1
    assert "== build fp32: FAILED in " in done.stdout
    assert done.stdout.count(": passed in ") == 5
    assert "gpu_check: 1 failed after " in done.stdout.splitlines()[-1]
    assert done.stdout.splitlines()[-1].endswith(": build fp32")


def test_without_references_it_measures_and_fails(stand_in, model, tmp_path):
    (model / "references.npz").unlink()
    done = check(stand_in, MODEL=str(model), QUICK="1", LIBRARY="tensorrt_rtx_bindings 1.7.1.116")
    assert done.returncode == 1
    lines = asked(tmp_path)
    assert len(lines) == 4  # FP16 alone
    assert lines[0].endswith("--precision fp16 --batch 1")
    assert "--batch 1 --rounds 5 " in lines[3]
    assert done.stdout.splitlines()[-1].endswith(": verify")


def test_a_folder_called_like_the_library_is_none(tmp_path):
    """As one of engines may be called; the question is put to Python itself, with the folder in its way."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        (tmp_path / "found" / name).mkdir(parents=True)
    program(
        tmp_path,
        "python",
        f"""
        cat >{tmp_path}/question
        grep -q libcuda {tmp_path}/question && exit 0
        exec {sys.executable} -S {tmp_path}/question
        """,
    )
    done = check(tmp_path / "python", PYTHONPATH=str(tmp_path / "found"))
    assert done.returncode == 1
    assert "gpu_check: no TensorRT in " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_score_from_which_boxes_count_is_that_of_the_other_check():
    assert legacy_trt86.LIKELY == parity.LIKELY


def test_tensorrt_8_has_a_benchmark_of_its_own(stand_in, model, tmp_path):
    done = check(stand_in, MODEL=str(model), LIBRARY="tensorrt 8.6.0")
    assert done.returncode == 0
    (line,) = asked(tmp_path)
    assert line.startswith(f"-m benchmarks.legacy_trt86 --model {model} --precision fp16 fp32 int8")


def test_what_the_time_does_not_suffice_for_is_not_run(stand_in, model, tmp_path):
    done = check(stand_in, MODEL=str(model), BUDGET="100")
    assert done.returncode == 1
    assert done.stdout.count("NOT RUN, the time is spent (BUDGET=100)") == 5
    assert [line.split()[1] for line in asked(tmp_path)] == ["benchmarks.gpu"]
