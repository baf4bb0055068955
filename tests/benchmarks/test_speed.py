"""What the speed benchmark counts, plans and writes; the times themselves are not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="files are counted by it")

from benchmarks import speed, speed_candidates, speed_worker
from benchmarks.speed_candidates import Key, Notes, installed, plan, start, take_turns
from benchmarks.timing import measure, percentiles, quartiles, slope
from edge_kp.errors import BackendError, EdgeKpError
from edge_kp.modeldir import SHIPPED, read_model

FACE = read_model(SHIPPED / "face68")
TINY = ["--backends", "onnxruntime", "--rounds", "2", "--turn-ms", "1", "--threads", "1"]


# ---- figures --------------------------------------------------------------------------------------------


def test_percentiles_quartiles_and_slopes():
    assert percentiles([float(i) for i in range(101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert percentiles([0.25]) == {"p50": 0.25, "p90": 0.25, "p99": 0.25}
    assert quartiles([1, 2, 3, 4, 5]) == {"median": 3.0, "quartiles": [2.0, 4.0]}
    assert slope([1, 2, 4], [5.0, 7.0, 11.0]) == pytest.approx(2)
    assert slope([0, 1, 2, 3], [0.0, 2.0, 1.0, 3.0]) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="two different x"):
        slope([2, 2], [1.0, 3.0])


def test_measuring_in_turns_calls_all_alike():
    log: list[str] = []
    found = measure({"a": lambda: log.append("a"), "b": lambda: log.append("b")}, 20, 3)
    assert log == [*"aaabbb"] * 22  # a tenth more, which does not count
    assert set(found["a"]) == {"median_ms", "p95_ms"}


class Scripted:
    """A candidate's process that answers with what it is told."""

    def __init__(self, log, name, batches, ms, compute=None):
        self.log, self.name, self.ms, self.compute = log, name, ms, compute
        self.about = {
            "batches": batches,
            "warm": [{"calls": 2, "peak_mb": 100.0 + b} for b in batches],
            "start": {"import_ms": 1.0, "load_ms": 2.0, "first_call_ms": 3.0},
            "input": "96x96",
            "device": "CPU",
        }

    def run(self, i):
        self.log.append((self.name, self.about["batches"][i]))
        ms = self.ms.pop(0) if isinstance(self.ms[0], list) else self.ms
        return {"ms": ms, "compute_ms": self.compute}


def test_every_candidate_has_one_turn_a_round_in_an_order_drawn_anew():
    log: list[tuple[str, int]] = []
    a, b = Key("stage1", "onnxruntime", "fp32", 1), Key("stage2", "openvino", "fp32", 2)
    workers = {a: Scripted(log, "a", [1, 4], [2.0, 4.0]), b: Scripted(log, "b", [1], [5.0], [0.5])}
    turns = take_turns(workers, 20, np.random.default_rng(0))
    rounds = [tuple(log[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(r) == [("a", 1), ("a", 4), ("b", 1)] for r in rounds)
    assert len(set(rounds)) > 3
    again: list[tuple[str, int]] = []
    same = {a: Scripted(again, "a", [1, 4], [2.0]), b: Scripted(again, "b", [1], [5.0])}
    take_turns(same, 20, np.random.default_rng(0))
    assert again == log
    rows = {(r["network"], r["batch"]): r for r in speed.rows(turns, workers)}
    assert rows["stage1", 4]["calls"] == 40
    assert rows["stage1", 4]["ms"]["p50"] == 3.0
    assert rows["stage1", 4]["images_per_s"] == pytest.approx(4 / 3e-3, rel=1e-3)
    assert (rows["stage1", 4]["peak_mb"], rows["stage1", 1]["peak_mb"]) == (104.0, 101.0)
    assert rows["stage1", 1]["compute_ms"] is None
    assert rows["stage2", 1]["compute_ms"]["p99"] == 0.5
    lines = speed.table(list(rows.values())).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 4


def test_the_ratio_is_taken_round_by_round():
    own, base = Key("cascade", "onnxruntime", "fp32", 1), Key("mobilenet_v2", "onnxruntime", "fp32", 1)
    workers = {
        own: Scripted([], "own", [1], [[1.0, 1.0], [40.0, 40.0], [3.0, 3.0]]),
        base: Scripted([], "base", [1], [[2.0, 2.0], [40.0, 40.0], [2.0, 2.0]]),
    }
    turns = take_turns(workers, 3, np.random.default_rng(1))
    assert speed.ratio(turns) == {"median": 1.0, "quartiles": [0.75, 1.25]}  # of 0.5, 1, 1.5
    assert speed.ratio({(own, 1): turns[own, 1]}) is None


def test_a_turn_leaves_its_first_call_out_and_tells_the_devices_time_where_it_can():
    calls: list[int] = []
    compute = [9.0, 1.0, 2.0, 3.0]
    opened = speed_worker.Opened(calls.append, lambda batch, count: compute[:count], None, {})
    answer = speed_worker.turn(opened, 4, 3)
    assert calls == [4] * 4
    assert len(answer["ms"]) == 3
    assert answer["compute_ms"] == [1.0, 2.0, 3.0]
    plain = speed_worker.Opened(calls.append, None, None, {})
    assert speed_worker.turn(plain, 1, 2)["compute_ms"] is None


# ---- what is measured -----------------------------------------------------------------------------------


def test_the_plan_is_all_that_the_model_has():
    notes = Notes()
    networks = ("locator", "stage1", "stage2", "cascade", "mobilenet_v2")
    keys = list(plan(FACE, networks, ["onnxruntime", "openvino"], ["fp32", "int8"], [1, 2], notes))
    assert len(keys) == len(set(keys)) == 2 * 2 * 2 * 4 + 2
    assert {k.precision for k in keys} == {"fp32", "int8-cpu"}
    assert sum(k.network == "mobilenet_v2" for k in keys) == 2
    assert notes.skipped == {}
    (gpu,) = plan(FACE, ["stage1"], ["tensorrt"], ["int8"], [1, 2], notes)
    assert gpu == Key("stage1", "tensorrt", "int8", 1)


def test_what_the_model_has_not_is_left_out_by_name():
    notes = Notes()
    files = {name: "" for name in FACE.files if "fp16" not in name and not name.startswith("locator")}
    spec = Namespace(files=files)
    keys = list(plan(spec, ["locator", "stage1"], ["onnxruntime"], ["fp32", "fp16"], [1], notes))
    assert keys == [Key("stage1", "onnxruntime", "fp32", 1)]
    assert set(notes.skipped) == {"onnxruntime fp16", "onnxruntime fp32 locator"}


def test_a_backend_that_is_wanted_and_not_there_is_told(monkeypatch):
    monkeypatch.setattr(speed_candidates.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="openvino: not installed; pip install openvino"):
        installed(["openvino"])


def arguments(model):
    return Namespace(model=str(model), turn_ms=1.0, batches=[1])


def test_a_candidate_that_cannot_start_has_failed_by_name(tmp_path):
    notes, key = Notes(), Key("stage1", "onnxruntime", "fp32", 1)
    with ExitStack() as keep:
        assert start([key], arguments(tmp_path / "none"), tmp_path, keep, notes) == {}
    assert "no folder with a model.json" in notes.failed[str(key)]


def test_too_little_memory_is_told_before_it_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(speed_candidates, "_free_mb", lambda: 20.0)
    key = Key("stage1", "onnxruntime", "fp32", 1)
    with ExitStack() as keep, pytest.raises(EdgeKpError, match=r"20 MB of memory left .* measure fewer"):
        start([key], arguments("face68"), tmp_path, keep, Notes())


def test_kernels_are_those_of_the_same_file():
    digest = FACE.files["stage1.fp32.onnx"]
    known = {"stage1.fp32": {"sha256": digest, "kernels": 3}, "stage1.fp16": {"sha256": "0", "kernels": 4}}
    found = speed.files(SHIPPED / "face68", FACE, ["stage1"], {**known, "stage1.int8": {"kernels": 5}})
    assert {name: cost["kernels"] for name, cost in found.items() if cost["kernels"]} == {"stage1.fp32": 3}
    assert {"stage1.fp16", "stage1.int8"} < set(found)


def test_kernels_are_those_of_the_same_model(tmp_path):
    assert speed.known_kernels(tmp_path, "face68") == ({}, None)
    told = {"model": "face68", "library": "x 1", "date": "2000-01-01", "networks": {"a": {"kernels": 3}}}
    (tmp_path / "kernels.json").write_text(json.dumps(told))
    assert speed.known_kernels(tmp_path, "face68") == ({"a": {"kernels": 3}}, "x 1 on 2000-01-01")
    assert speed.known_kernels(tmp_path, "kite") == ({}, None)
    (tmp_path / "kernels.json").write_text("{")
    with pytest.raises(EdgeKpError, match="not a result of"):
        speed.known_kernels(tmp_path, "face68")


# ---- the whole ------------------------------------------------------------------------------------------


def test_a_short_run_writes_every_entry(tmp_path, capsys):
    more = ["--networks", "stage1", "cascade", "--precisions", "fp32", "int8", "--batches", "2", "1"]
    assert speed.main([*TINY, *more, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    rows = {(r["network"], r["precision"], r["batch"]): r for r in result["rows"]}
    assert set(rows) == {
        (n, p, b) for n in ("stage1", "cascade") for p in ("fp32", "int8-cpu") for b in (1, 2)
    }
    for row in rows.values():
        assert (row["backend"], row["threads"], row["device"]) == ("onnxruntime", 1, "CPU")
        assert 0 < row["ms"]["p50"] <= row["ms"]["p90"] <= row["ms"]["p99"]
        assert row["compute_ms"] is None
        assert row["calls"] >= 2
        assert row["images_per_s"] > 0
        assert set(row["start"]) == {"import_ms", "load_ms", "first_call_ms"}
        assert row["peak_mb"] > 20
    assert rows["stage1", "fp32", 1]["input"] == f"{FACE.sizes[0]}x{FACE.sizes[0]}"
    assert rows["cascade", "fp32", 1]["input"] == "640x480"
    for p in ("fp32", "int8-cpu"):
        assert rows["cascade", p, 1]["peak_mb"] <= rows["cascade", p, 2]["peak_mb"]
    assert (rows["stage1", "fp32", 1]["cascade"], rows["cascade", "fp32", 1]["cascade"]) == (None, "staged")
    assert set(result["files"]) == {
        name.removesuffix(".onnx")
        for name in FACE.files
        if name.endswith(".onnx") and name.startswith(("stage1", "cascade"))
    }
    assert result["files"]["stage1.fp32"]["macs"] > 1e6
    assert result["ratio_to_mobilenet_v2"] is None  # which was not asked for
    assert (result["failed"], result["skipped"]) == ({}, {})
    defined = {word.strip() for name in result["definitions"] for word in name.split(",")}
    assert set(rows["stage1", "fp32", 1]) - {"network", "backend", "device", "input"} <= defined
    assert set(result["files"]["stage1.fp32"]) - {"by_kind"} <= defined
    assert "stage1       onnxruntime fp32" in capsys.readouterr().out


def test_the_yardstick_gives_the_ratio(tmp_path):
    pytest.importorskip("torch")
    more = ["--networks", "cascade", "mobilenet_v2", "--precisions", "fp32", "--batches", "1"]
    assert speed.main([*TINY, *more, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    low, high = result["ratio_to_mobilenet_v2_quartiles"]
    assert 0 < low <= result["ratio_to_mobilenet_v2"] <= high
    assert result["files"]["mobilenet_v2"]["macs"] == 300_774_272


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--threads", "99999"], "--threads 99999: there are "),
        (["--model", "no such model"], "no folder with a model.json"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(options, told, tmp_path, capsys):
    assert speed.main([*options, "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [["--networks", "stage3"], ["--batches", "0"], ["--rounds", "x"], ["--turn-ms", "nan"]]
)
def test_wrong_usage_is_refused(options, capsys):
    with pytest.raises(SystemExit) as ended:
        speed.main(options)
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err.splitlines()[-1]


def test_a_worker_loads_no_training_library():
    code = (
        "import sys, benchmarks.speed_worker as w\n"
        "w.open_network('face68', 'stage1', 'onnxruntime', 'fp32', 1, 1).run(1)\n"
        "w.open_cascade('face68', 'onnxruntime', 'fp32', 1, 1).run(1)\n"
        "print(*(m for m in ('torch', 'onnx', 'matplotlib') if m in sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.split() == []  # they would be counted as its memory
