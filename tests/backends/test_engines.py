"""Engines: built whole or not at all, described truly, kept, and refused where they do not fit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path

import onnx
import pytest
from fake_gpu import FakeTensorRT, write_onnx

from edge_kp.backends import building, engines
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.engines import build, cached_engine
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.backends.sidecar import EngineInfo, build_command, check_engine
from edge_kp.backends.tensorrt import load_tensorrt
from edge_kp.errors import BackendError
from edge_kp.modeldir import SHIPPED

AMPERE = Gpu(None, "8.6")
ORIN = Gpu("Orin", "8.7")
KIND = ("engine", "engine.json", "engine.layers.json")


@pytest.fixture(scope="module")
def rtx():
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)):
        pytest.skip("TensorRT-RTX has wheels for Linux x86-64 up to Python 3.12 only")
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


@pytest.fixture
def trt():
    return FakeTensorRT([])


@pytest.fixture
def network(tmp_path):
    return write_onnx(tmp_path / "stage1.fp32.onnx")


def make(trt, network, gpu=ORIN, precision="fp32", batches=(1, 4), **settings):
    engine = network.with_suffix(".engine")
    return engine, build(trt, network, engine, precision, gpu, batches, progress=False, **settings)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- with TensorRT-RTX itself ---------------------------------------------------------------------------


def test_an_engine_and_what_its_sidecar_says(rtx, network):
    engine, info = make(rtx, network, AMPERE, batches=(4, 1, 4))
    assert {p.name for p in engine.parent.iterdir()} == {network.name, *(f"stage1.fp32.{k}" for k in KIND)}
    assert EngineInfo.read(engine) == info
    assert (info.library, info.version) == ("tensorrt_rtx", rtx.__version__)
    assert (info.gpu, info.compute_capability, info.precision) == (None, "8.6", "fp32")
    assert (info.onnx_sha256, info.engine_sha256) == (digest(network), digest(engine))
    assert info.batches == (1, 4)
    flags = {"strongly_typed": True, "tf32": False, "workspace": 2**30, "timing_cache": False}
    assert info.flags == {**flags, "user_allocation": True}
    assert info.seconds > 0
    assert datetime.fromisoformat(info.date).tzinfo is not None
    check_engine(rtx, engine, network, "fp32", Gpu("RTX 3060", "8.6"))


def test_the_layers_are_listed_without_a_gpu(rtx, network):
    engine, info = make(rtx, network, AMPERE)
    listed = json.loads(engine.with_name(f"{engine.name}.layers.json").read_text())
    assert listed["source"] == "builder log"
    first = [layer for layer in listed["layers"] if "myl0" in layer.split(",")[0]]
    assert info.layers == {"1": len(first), "4": len(listed["layers"]) - len(first)}
    assert all(3 <= count <= 10 for count in info.layers.values())


@pytest.mark.parametrize(("precision", "how"), [("fp16", {"half": True}), ("int8", {"zero_point": 0})])
def test_reduced_precisions_build(rtx, tmp_path, precision, how):
    network = write_onnx(tmp_path / f"stage1.{precision}.onnx", **how)
    engine, info = make(rtx, network, AMPERE, precision)
    assert info.precision == precision
    kind = {"fp16": "Half", "int8": "Int8"}[precision]
    assert f"Datatype: {kind}" in engine.with_name(f"{engine.name}.layers.json").read_text()


def test_a_zero_point_that_is_not_zero_is_refused(rtx, tmp_path):
    network = write_onnx(tmp_path / "stage2.renamed.onnx", zero_point=3)
    with pytest.raises(
        BackendError, match=r"zero points other than 0.*build from stage2\.int8\.onnx"
    ) as error:
        make(rtx, network, AMPERE)
    one_line(error)


def test_a_file_made_for_cpus_is_refused_by_its_name(trt, tmp_path):
    network = tmp_path / "stage1.int8-cpu.onnx"
    network.touch()
    with pytest.raises(BackendError, match=r"quantised for CPUs.*build from stage1\.int8\.onnx"):
        make(trt, network, precision="int8-cpu")


def test_a_failed_build_leaves_the_old_engine(rtx, network):
    make(rtx, network, AMPERE)
    network.write_bytes(network.read_bytes()[:300])
    before = content(network.parent)
    with pytest.raises(BackendError, match=r"stage1\.fp32\.onnx: TensorRT cannot read it \(.+\)") as error:
        make(rtx, network, AMPERE)
    one_line(error)
    assert content(network.parent) == before


PROGRAM = """
import os, pathlib, signal, sys
import tensorrt_rtx_bindings as trt
from edge_kp.backends import building, engines
from edge_kp.backends.cuda import Gpu

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

where, onnx = sys.argv[1], pathlib.Path(sys.argv[2])
if where == "step":
    monitor = building._monitor
    def deadly(trt, bar):
        made = monitor(trt, bar)
        type(made).step_complete = lambda self, phase, step: kill()
        return made
    building._monitor = deadly
else:
    replace, left = os.replace, [int(where)]
    def replace_some(*args):
        if not left[0]:
            kill()
        left[0] -= 1
        replace(*args)
    os.replace = replace_some
engines.build(trt, onnx, onnx.with_suffix(".engine"), "fp32", Gpu(None, "8.6"), [2], progress=False)
"""


@pytest.mark.parametrize("where", ["step", "0", "2"])
def test_a_killed_build_leaves_an_old_engine_or_one_that_is_refused(rtx, network, where):
    engine, _ = make(rtx, network, AMPERE)
    before = {kind: (network.parent / f"stage1.fp32.{kind}").read_bytes() for kind in KIND}
    root = Path(engines.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM, where, str(network)], cwd=root, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    after = {kind: (network.parent / f"stage1.fp32.{kind}").read_bytes() for kind in KIND}
    if where == "2":  # all but the sidecar were renamed
        assert after["engine"] != before["engine"]
        with pytest.raises(BackendError, match=r"not the file that its sidecar describes.*build_engine"):
            check_engine(rtx, engine, network, "fp32", AMPERE)
    else:
        assert after == before
        check_engine(rtx, engine, network, "fp32", AMPERE)
    make(rtx, network, AMPERE)
    check_engine(rtx, engine, network, "fp32", AMPERE)


def test_ctrl_c_ends_a_build(rtx, network, monkeypatch):
    steps = []
    original = building._monitor

    def monitor(trt, bar):
        made = original(trt, bar)
        step_complete = type(made).step_complete

        def step(self, phase, number):
            steps.append(phase)
            if len(steps) == 3:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(200):
                    if self.go_on:
                        time.sleep(0.05)
            return step_complete(self, phase, number)

        type(made).step_complete = step
        return made

    monkeypatch.setattr(building, "_monitor", monitor)
    with pytest.raises(KeyboardInterrupt):
        make(rtx, network, AMPERE)
    assert len(steps) < 20, "it went on building"
    assert [p.name for p in network.parent.iterdir()] == [network.name]


LEAVING = """
import pathlib, sys, threading, time
import tensorrt_rtx_bindings as trt
from edge_kp.backends import building, engines
from edge_kp.backends.cuda import Gpu

begun, monitor, onnx = threading.Event(), building._monitor, pathlib.Path(sys.argv[1])

def slow(trt, bar):
    made = monitor(trt, bar)
    step = type(made).step_complete
    def step_complete(self, *args):
        begun.set()
        time.sleep(0.002)
        return step(self, *args)
    type(made).step_complete = step_complete
    return made

building._monitor = slow
settings = (trt, onnx, onnx.with_suffix(".engine"), "fp32", Gpu(None, "8.6"), range(1, 40))
threading.Thread(target=engines.build, args=settings, kwargs={"progress": False}, daemon=True).start()
begun.wait()
"""


def test_a_program_that_ends_during_a_build_ends_well(rtx, network):
    root = Path(engines.__file__).parents[2]
    run = [sys.executable, "-c", LEAVING, str(network)]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FATAL" not in done.stderr
    assert [p.name for p in network.parent.iterdir()] == [network.name]


def test_rtx_keeps_no_timing_cache_and_says_so(rtx, network, tmp_path, caplog):
    timings = tmp_path / "timings"
    timings.write_bytes(b"of something else")
    _, info = make(rtx, network, AMPERE, timing_cache=timings)
    assert timings.read_bytes() == b"of something else"
    assert info.flags["timing_cache"] is False
    assert "TensorRT-RTX has no timing cache" in caplog.text


def test_a_compute_capability_that_rtx_does_not_know(rtx, network):
    with pytest.raises(BackendError, match=r"compute capability 5\.2: it knows 7\.5, 8\.0, 8\.6, .*12\.0"):
        make(rtx, network, Gpu(None, "5.2"))


@pytest.mark.parametrize("change", ["name", "type", "batch", "sides"])
def test_a_network_of_another_contract_is_refused(rtx, network, change):
    model = onnx.load(network)
    image = model.graph.input[0]
    if change == "name":
        image.name = model.graph.node[0].input[0] = "picture"
    elif change == "type":
        image.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    elif change == "batch":
        image.type.tensor_type.shape.dim[0].dim_value = 3
    else:
        for dim, side in zip(image.type.tensor_type.shape.dim[1:3], ("height", "width"), strict=True):
            dim.dim_param = side
    onnx.save(model, network)
    with pytest.raises(
        BackendError, match=r"expected one input image uint8 \(B, S, S, 3\), got (image|picture)"
    ):
        make(rtx, network, AMPERE)


@pytest.mark.parametrize("shape", [[], None])
def test_a_network_whose_input_has_no_sides_is_refused(rtx, tmp_path, shape):
    helper = onnx.helper
    kinds = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", kinds[:1], kinds[1:])
    network = tmp_path / "stage1.fp32.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), network)
    with pytest.raises(BackendError, match=r"expected one input image uint8 .*, got x .*\(\)"):
        make(rtx, network, AMPERE)


def test_a_file_that_is_no_network_is_refused(rtx, network):
    network.write_bytes(b"")
    with pytest.raises(BackendError, match=r"expected one input image uint8 .*, got none"):
        make(rtx, network, AMPERE)


def test_a_network_without_its_weights_is_refused_by_every_backend(rtx, tmp_path):
    openvino = pytest.importorskip("edge_kp.backends.openvino", exc_type=ImportError)
    network = Path(shutil.copy(SHIPPED / "face68" / "stage1.fp32.onnx", tmp_path))
    for run in (partial(make, rtx, gpu=AMPERE), OnnxRuntimeBackend, openvino.OpenVinoBackend):
        with pytest.raises(BackendError, match=r"its weights are in weights\.bin, which is missing"):
            run(network)


# ---- as with the whole TensorRT, on a GPU ---------------------------------------------------------------


def test_how_an_engine_is_built(trt, network):
    _, info = make(trt, network, batches=(4, 1), workspace=2**20)
    assert trt.BuilderFlag.TF32 not in trt.built["on"]
    assert trt.built["pools"] == {"WORKSPACE": 2**20}
    assert trt.built["profiling_verbosity"] is trt.ProfilingVerbosity.DETAILED
    assert trt.built["profiles"] == [((b, 16, 16, 3),) * 3 for b in (1, 4)]
    assert (info.library, info.version, info.gpu) == ("tensorrt", "10.3.0", "Orin")
    assert info.flags["workspace"] == 2**20


def test_an_engine_of_rtx_is_built_for_capture(rtx, trt, network):
    """What has the flag captures a CUDA graph only with it."""
    _, info = make(rtx, network, AMPERE)
    assert info.flags["user_allocation"] is True
    listener = building.listen(rtx)
    builder = rtx.Builder(listener)
    config = building.configure(rtx, builder, building.parse(rtx, builder, listener, network), (1,), 2**20)
    assert config.get_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    _, info = make(trt, network)
    assert "user_allocation" not in info.flags


@pytest.mark.parametrize(
    ("gpu", "name"), [(Gpu("H100", "9.0"), "CURRENT"), (Gpu("A10", "8.6"), "SM86"), (AMPERE, "SM86")]
)
def test_rtx_is_told_the_gpu_that_is_here_where_its_list_lacks_it(rtx, gpu, name):
    config = rtx.Builder(building.listen(rtx)).create_builder_config()
    building.aim(rtx, config, gpu)
    assert config.num_compute_capabilities == 1
    assert config.get_compute_capability(0) == getattr(rtx.ComputeCapability, name)


def test_layers_come_from_the_inspector_where_there_is_a_gpu(trt, network):
    engine, info = make(trt, network, batches=(1, 4, 16))
    assert info.layers == {"1": 2, "4": 3, "16": 3}
    listed = json.loads(engine.with_name(f"{engine.name}.layers.json").read_text())
    assert listed["source"] == "inspector"
    assert listed["layers"][2] == {"Name": "layer0 [profile 1]"}


def test_the_timing_cache_is_written_read_and_replaced(trt, network, tmp_path, caplog):
    timings = tmp_path / "cache" / "timings"
    _, info = make(trt, network, timing_cache=timings)
    assert info.flags["timing_cache"] is True
    assert timings.read_bytes() == b"+timed"
    make(trt, network, timing_cache=timings)
    assert timings.read_bytes() == b"+timed+timed"
    assert caplog.text == ""
    timings.write_bytes(b"another GPU's")
    make(trt, network, timing_cache=timings)
    assert timings.read_bytes() == b"+timed"
    assert "a new one is begun" in caplog.text


def test_progress_is_shown_on_request(trt, network, capsys):
    make(trt, network)
    assert capsys.readouterr().err == ""
    build(trt, network, network.with_suffix(".engine"), "fp32", ORIN)
    assert "building stage1.fp32.onnx" in capsys.readouterr().err


def test_a_library_without_progress_builds_all_the_same(trt, network, monkeypatch):
    monkeypatch.setattr(trt.Builder.__func__, "build_serialized_network", lambda *_: b'{"batches": [1]}\n')
    monkeypatch.setattr(engines, "engine_layers", lambda *_: ([], ""))
    del trt.IProgressMonitor
    engine, _ = make(trt, network)
    assert engine.read_bytes() == b'{"batches": [1]}\n'


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("build", r"tensorrt 10\.3\.0 cannot build it \(no tactic\); close other programs"),
        ("builder", r"TensorRT does not start \(no tactic\): try nvidia-smi$"),
        ("engine", r"cannot be loaded \(no tactic\)"),
    ],
)
def test_the_first_error_of_tensorrt_is_the_cause(trt, network, what, words):
    make(trt, network)
    before = content(network.parent)
    trt.no[what] = "no tactic\n  at line 5"
    with pytest.raises(BackendError, match=words) as error:
        make(trt, network)
    one_line(error)
    assert content(network.parent) == before


def test_tensorrt_builds_for_no_other_gpu(trt, network):
    with pytest.raises(BackendError, match=r"tensorrt builds only for the GPU it runs on.*TensorRT-RTX"):
        make(trt, network, AMPERE)


def test_an_error_in_the_building_thread_comes_out(trt, network, monkeypatch):
    monkeypatch.setattr(trt.Builder.__func__, "build_serialized_network", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        make(trt, network)


def test_a_place_that_cannot_be_written_is_told_before_the_build(trt, network, tmp_path):
    (tmp_path / "file").touch()
    engine, timings = tmp_path / "file" / "a.engine", tmp_path / "file" / "timings"
    for where, told in (
        ({"engine": engine}, f"{engine}: cannot be written \\(.+\\); .*or give another --engine"),
        ({"engine": tmp_path}, f"{tmp_path}: cannot be written \\(is a directory\\); make room there"),
        ({"timing_cache": timings}, f"{timings}: cannot be written \\(.+\\).* give another --timing-cache"),
    ):
        settings = {"engine": tmp_path / "a.engine", **where}
        with pytest.raises(BackendError, match=told) as error:
            build(trt, network, precision="fp32", gpu=ORIN, progress=False, **settings)
        one_line(error)
    assert trt.built == {}
    assert {path.name for path in tmp_path.iterdir()} == {"file", network.name}, "something was left behind"


def test_a_disk_that_is_full_at_the_end_names_the_engine(trt, network, monkeypatch):
    """Writing into an open file fails without the file's name."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(engines.EngineInfo, "write", full)
    with pytest.raises(BackendError, match=r"\.engine: cannot be written \(no space left") as error:
        make(trt, network)
    one_line(error)
    assert list(network.parent.iterdir()) == [network]


# ---- does it fit? ---------------------------------------------------------------------------------------


def change_sidecar(engine, **fields):
    path = engine.with_name(f"{engine.name}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": "10.2.0"}, "built with tensorrt 10.2.0, this is tensorrt 10.3.0"),
        ({"library": "tensorrt_rtx"}, "built with tensorrt_rtx 10.3.0, this is tensorrt 10.3.0"),
        ({"gpu": "Xavier"}, "built for Xavier of compute capability 8.7, this is Orin of"),
        ({"compute_capability": "8.6"}, "built for Orin of compute capability 8.6, this is Orin of"),
        ({"gpu": None, "compute_capability": "8.6"}, "built for any GPU of compute capability 8.6, this is"),
        ({"precision": "fp16"}, "built in fp16, asked for fp32"),
        ({"onnx_sha256": "0"}, "built from another stage1.fp32.onnx"),
        ({"engine_sha256": "0"}, "not the file that its sidecar describes"),
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"more": 1}, "stage1.fp32.engine.json is damaged"),
        ({"batches": 4}, "stage1.fp32.engine.json is damaged"),
        ({"batches": []}, "stage1.fp32.engine.json is damaged"),
        ({"batches": [0, 4]}, "stage1.fp32.engine.json is damaged"),
        ({"layers": None}, "layers: expected names with a value each"),
        ({"flags": []}, "flags: expected names with a value each"),
        ({"version": "9" * 10**6}, "version: expected a short text"),
        ({"gpu": "a\nb"}, "gpu: expected a short text"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_with_the_command(trt, network, fields, words):
    engine, _ = make(trt, network)
    check_engine(trt, engine, network, "fp32", ORIN)
    change_sidecar(engine, **fields)
    with pytest.raises(BackendError) as error:
        check_engine(trt, engine, network, "fp32", ORIN)
    text = one_line(error)
    assert text.startswith(f"{engine}: {words}") or words in text
    assert text.endswith(build_command(engine, network, "fp32", (1, 4)))


def test_an_engine_for_any_gpu_of_the_capability_fits(trt, network):
    engine, _ = make(trt, network)
    change_sidecar(engine, gpu=None)
    assert check_engine(trt, engine, network, "fp32", ORIN).gpu is None


def test_all_that_is_wrong_is_told_at_once(trt, network):
    engine, _ = make(trt, network, batches=(2,))
    write_onnx(network, seed=1)
    engine.write_bytes(engine.read_bytes()[:-10])
    trt.__version__ = "10.13.3"
    with pytest.raises(BackendError) as error:
        check_engine(trt, engine, network, "fp16", ORIN)
    text = one_line(error)
    assert all(part in text for part in ("10.13.3", "asked for fp16", "another stage1", "cut off"))
    assert text.endswith(" --batch 2")


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', "[" * 200_000])
def test_a_damaged_sidecar(trt, network, damage):
    engine, _ = make(trt, network)
    engine.with_name(f"{engine.name}.json").write_text(damage)
    with pytest.raises(BackendError, match=r"engine\.json is damaged .*build_engine") as error:
        check_engine(trt, engine, network, "fp32", ORIN)
    one_line(error)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("stage1.fp32.engine.json", "no stage1.fp32.engine.json beside it"),
        ("stage1.fp32.engine", "stage1.fp32.engine cannot be read"),
        ("stage1.fp32.onnx", "stage1.fp32.onnx cannot be read"),
    ],
)
def test_a_missing_file(trt, network, gone, words):
    engine, _ = make(trt, network)
    (network.parent / gone).unlink()
    with pytest.raises(BackendError) as error:
        check_engine(trt, engine, network, "fp32", ORIN)
    assert words in one_line(error)


def test_the_command_builds_the_model_or_the_single_file(tmp_path):
    network = tmp_path / "my model" / "stage1.int8.onnx"
    network.parent.mkdir()
    engine = network.with_suffix(".engine")
    start = ["python", "-m", "edge_kp.build_engine"]
    end = ["--precision", "int8", "--batch", "1", "16"]
    single = ["--onnx", str(network), "--engine", str(engine)]
    assert shlex.split(build_command(engine, network, "int8", (1, 16))) == [*start, *single, *end]
    (network.parent / "model.json").touch()
    model = ["--model", str(network.parent)]
    assert shlex.split(build_command(engine, network, "int8", (1, 16))) == [*start, *model, *end]
    elsewhere = ["--onnx", str(network), "--engine", str(tmp_path / "a.engine")]
    command = build_command(tmp_path / "a.engine", network, "int8", (1, 16))
    assert shlex.split(command) == [*start, *elsewhere, *end]


# ---- the cache ------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge_kp" / "engines"


def test_an_engine_is_built_once_and_kept(trt, network, cache, capsys):
    engine = cached_engine(trt, network, "fp32", ORIN)
    assert engine.parent == cache
    assert engine.name.startswith("stage1.fp32-")
    told = capsys.readouterr().err
    assert f"building an engine of stage1.fp32.onnx for {ORIN}, once; kept in {cache}" in told
    assert cached_engine(trt, network, "fp32", ORIN) == engine
    assert capsys.readouterr().err == ""
    assert trt.log.count("built") == 1
    assert check_engine(trt, engine, network, "fp32", ORIN).batches == (1, 4)


def test_a_damaged_engine_in_the_cache_is_built_again(trt, network, cache, capsys):
    engine = cached_engine(trt, network, "fp32", ORIN)
    whole = engine.read_bytes()
    engine.write_bytes(whole[:100])
    assert cached_engine(trt, network, "fp32", ORIN) == engine
    assert engine.read_bytes() == whole


def test_what_an_engine_depends_on_is_in_its_name(trt, network, cache, tmp_path):
    for folder in ("other", "moved"):
        (tmp_path / folder).mkdir()
    other = write_onnx(tmp_path / "other" / network.name, seed=1)
    engine = cached_engine(trt, network, "fp32", ORIN)
    others = {
        cached_engine(trt, other, "fp32", ORIN),
        cached_engine(trt, network, "fp32", Gpu("Orin", "8.6")),
        cached_engine(trt, network, "fp32", Gpu("Xavier", "8.7")),
        cached_engine(trt, network, "fp32", ORIN, (1,)),
        cached_engine(FakeTensorRT([], "10.13.3"), network, "fp32", ORIN),
    }
    assert len(others | {engine}) == 6
    moved = Path(shutil.copy(network, tmp_path / "moved"))
    assert cached_engine(trt, moved, "fp32", ORIN) == engine


def test_the_cache_is_in_the_home_folder_by_default(trt, network, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    engine = cached_engine(trt, network, "fp32", ORIN)
    assert engine.parent == tmp_path / "home" / ".cache" / "edge_kp" / "engines"


def test_without_a_home_the_variable_is_named(trt, network, monkeypatch):
    def nobody(name):
        raise KeyError(name)

    pwd = pytest.importorskip("pwd")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(BackendError, match=r"no home directory .*: set XDG_CACHE_HOME"):
        cached_engine(trt, network, "fp32", ORIN)


def test_a_cache_that_cannot_be_written_names_the_variable(trt, network, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BackendError, match=r"\.engine: cannot be written .*set XDG_CACHE_HOME") as error:
        cached_engine(trt, network, "fp32", ORIN)
    assert "--engine" not in one_line(error)


# ---- the library ----------------------------------------------------------------------------------------


@pytest.fixture
def nothing(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


def test_tensorrt_comes_before_rtx(nothing, trt, monkeypatch):
    other = FakeTensorRT([])
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", other)
    assert load_tensorrt() is other
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    assert load_tensorrt() is trt
    third = FakeTensorRT([])
    monkeypatch.setitem(sys.modules, "tensorrt", third)
    assert load_tensorrt() is third


def test_no_tensorrt_says_what_to_install(nothing):
    with pytest.raises(BackendError, match=r"not installed: pip install tensorrt .*JetPack.*tensorrt-rtx"):
        load_tensorrt()


def test_a_tensorrt_that_does_not_load_is_not_passed_over(nothing, trt, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("import ctypes\nctypes.CDLL('libnvinfer_is_gone.so.10')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        BackendError, match=r"tensorrt cannot be loaded \(libnvinfer_is_gone.*install it again"
    ):
        load_tensorrt()


def test_an_old_tensorrt_is_refused(nothing, trt, monkeypatch):
    trt.__version__ = "8.6.1"
    trt.NetworkDefinitionCreationFlag = type("Flag", (), {"EXPLICIT_BATCH": 0})
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    with pytest.raises(BackendError, match=r"tensorrt 8\.6\.1 is too old: update it"):
        load_tensorrt()
