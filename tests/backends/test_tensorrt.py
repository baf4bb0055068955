"""Running an engine: batches, copies, graphs, errors and closing, on a GPU of numpy and ONNX Runtime."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time

import numpy as np
import pytest
from fake_gpu import SIZE, FakeDevice, FakeTensorRT, write_onnx

from edge_kp.backends import cuda, tensorrt
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.engines import build
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.backends.tensorrt import TensorRTBackend, open_tensorrt
from edge_kp.errors import BackendError

ORIN = Gpu("Orin", "8.7")


@pytest.fixture
def log():
    return []


@pytest.fixture
def trt(log, monkeypatch):
    """The fake TensorRT as the installed one, and its GPU; ``trt.gpu`` holds the GPU's settings."""
    fake = FakeTensorRT(log)
    fake.gpu = {"gpu": ORIN}
    monkeypatch.setitem(sys.modules, "tensorrt", fake)

    def open_device():
        fake.device = FakeDevice(log=log, **fake.gpu)
        return fake.device

    monkeypatch.setattr(cuda, "open_device", open_device)
    monkeypatch.setattr(tensorrt, "open_device", open_device)
    return fake


@pytest.fixture
def network(tmp_path):
    return write_onnx(tmp_path / "stage1.fp32.onnx")


@pytest.fixture
def engine(trt, network):
    """An engine beside the network, for batches of 1 and 4."""
    path = network.with_suffix(".engine")
    build(trt, network, path, "fp32", ORIN, (1, 4), progress=False)
    trt.log.clear()
    return path


@pytest.fixture
def backend(engine, network):
    with TensorRTBackend(engine, network, "fp32") as opened:
        yield opened


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- running --------------------------------------------------------------------------------------------


def test_it_says_what_it_is(backend, log):
    assert (backend.name, backend.device, backend.precision) == ("tensorrt", "Orin", "fp32")
    assert backend.batches == (1, 4)
    assert backend.graphs is True


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 11])
def test_any_number_of_images_gives_what_onnx_runtime_gives(backend, network, count):
    pictures = images(count)
    seen = backend.run(pictures)
    expected = OnnxRuntimeBackend(network).run(images(1) if count == 0 else pictures)
    assert seen.keys() == expected.keys()
    for name, values in seen.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name][:count], atol=1e-6)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (2, [4]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (10, [4, 4, 4])]
)
def test_the_smallest_batch_that_fits_is_run(backend, monkeypatch, count, sizes):
    seen = []
    upload = FakeDevice.upload

    def note(self, array, address):
        seen.append(len(array))
        upload(self, array, address)

    monkeypatch.setattr(FakeDevice, "upload", note)
    backend.run(images(count))
    assert seen == sizes


def test_results_are_not_overwritten_by_later_runs_or_by_closing(engine, network):
    with TensorRTBackend(engine, network, "fp32") as backend:
        first = backend.run(images(4))
        kept = {name: value.copy() for name, value in first.items()}
        second = backend.run(images(4, seed=1))
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])
        assert not np.array_equal(value, second[name])


def test_a_view_of_a_larger_picture_is_taken(backend, network):
    pictures = images(3)[:, ::-1, :, ::-1]
    expected = OnnxRuntimeBackend(network).run(pictures)
    np.testing.assert_allclose(backend.run(pictures)["keypoints"], expected["keypoints"], atol=1e-6)


def test_calls_of_several_threads_take_turns(backend, monkeypatch):
    upload = FakeDevice.upload

    def slow(self, array, address):
        time.sleep(1e-4)  # the images wait to be copied: here another thread may come between
        upload(self, array, address)

    monkeypatch.setattr(FakeDevice, "upload", slow)
    pictures = [images(3), images(3, seed=1)]
    expected = [backend.run(each) for each in pictures]
    same: list[bool] = []

    def work(number):
        for _ in range(50):
            seen = backend.run(pictures[number])["keypoints"]
            same.append(np.array_equal(seen, expected[number]["keypoints"]))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 100


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, 1, 1, 3), np.uint8),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
    ],
)
def test_an_image_of_another_form_is_refused(backend, wrong):
    with pytest.raises(ValueError, match=r"expected uint8 \(B, 16, 16, 3\), got"):
        backend.run(wrong)


def test_float16_outputs_come_as_float32(trt, tmp_path):
    network = write_onnx(tmp_path / "stage1.fp16.onnx", half=True)
    path = network.with_suffix(".engine")
    build(trt, network, path, "fp16", ORIN, (2,), progress=False)
    with TensorRTBackend(path, network, "fp16") as backend:
        seen = backend.run(images(3))
    expected = OnnxRuntimeBackend(network).run(images(3))
    for name, values in seen.items():
        assert expected[name].dtype == np.float16
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected[name].astype(np.float32))


# ---- graphs ---------------------------------------------------------------------------------------------


def test_each_profile_is_captured_once_after_a_run_and_replayed(backend, log):
    opened = ["device opened", *["enqueued", "synchronised", "captured", "enqueued"] * 2]
    assert [entry for entry in log if "freed" not in entry] == opened
    log.clear()
    backend.run(images(4))
    backend.run(images(9))
    assert log == ["graph launched", "synchronised"] * 4


def test_without_graphs_it_runs_all_the_same_and_says_so_once(trt, engine, network, log, caplog):
    trt.gpu["graphs"] = False
    with TensorRTBackend(engine, network, "fp32") as backend:
        assert backend.graphs is False
        log.clear()
        seen = backend.run(images(5))
        assert log == ["enqueued", "synchronised"] * 2
    expected = OnnxRuntimeBackend(network).run(images(5))
    np.testing.assert_allclose(seen["keypoints"], expected["keypoints"], atol=1e-6)
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["stage1.fp32.engine runs without CUDA graphs, so slower (no graphs here)"]


def test_a_batch_that_cannot_be_captured_leaves_the_others_their_graphs(
    trt, engine, network, log, caplog, monkeypatch
):
    capture, answers = FakeDevice.capture, iter([True, False])

    def once(self, work):
        if not next(answers):
            raise BackendError("not this one")
        return capture(self, work)

    monkeypatch.setattr(FakeDevice, "capture", once)
    with TensorRTBackend(engine, network, "fp32") as backend:
        assert (backend.graphs, backend.captured) == (False, (1,))
        log.clear()
        seen = backend.run(images(5))  # four, and one
        assert log == ["enqueued", "synchronised", "graph launched", "synchronised"]
    expected = OnnxRuntimeBackend(network).run(images(5))
    np.testing.assert_allclose(seen["keypoints"], expected["keypoints"], atol=1e-6)
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["stage1.fp32.engine runs batch 4 without CUDA graphs, so slower (not this one)"]


def test_graphs_that_are_not_wanted_are_not_tried(engine, network, log, caplog):
    with TensorRTBackend(engine, network, "fp32", graphs=False) as backend:
        assert backend.graphs is False
        backend.run(images(1))
    assert not {"captured", "graph launched"} & set(log)
    assert not caplog.records


@pytest.mark.parametrize("capturable", [True, False])
def test_the_library_is_asked_where_it_can_tell(trt, engine, network, log, caplog, monkeypatch, capturable):
    def is_stream_capturable(self, stream):
        assert stream == trt.device.stream
        return capturable

    monkeypatch.setattr(trt.Context.__func__, "is_stream_capturable", is_stream_capturable, raising=False)
    with TensorRTBackend(engine, network, "fp32") as backend:
        assert backend.graphs is capturable
        assert backend.run(images(1))["score"].shape == (1,)
    assert log.count("captured") == (2 if capturable else 0)
    assert ("cannot be captured" in caplog.text) is not capturable


def test_an_execution_that_fails_only_in_a_capture(trt, engine, network, caplog, monkeypatch):
    execute = trt.Context.__func__.execute_async_v3

    def fussy(self, stream):
        trt.no = {"run": "stream is capturing"} if trt.device._captured is not None else {}
        return execute(self, stream)

    monkeypatch.setattr(trt.Context.__func__, "execute_async_v3", fussy)
    with TensorRTBackend(engine, network, "fp32") as backend:
        assert backend.run(images(1))["score"].shape == (1,)
        assert "does not run it (stream is capturing)" in caplog.text
        monkeypatch.undo()
        trt.no = {"run": "something else"}
        with pytest.raises(BackendError, match=r"does not run it \(something else\)"):
            backend.run(images(1))


def test_rtx_compiles_its_kernels_before_they_are_captured(trt, engine, network, monkeypatch):
    configs = []

    class Strategy:
        EAGER = "eager"

    class RuntimeConfig:
        dynamic_shapes_kernel_specialization_strategy = "lazy"

    plain = trt.Engine.__func__.create_execution_context

    def create(self, config):
        configs.append(config.dynamic_shapes_kernel_specialization_strategy)
        return plain(self)

    trt.DynamicShapesKernelSpecializationStrategy = Strategy
    monkeypatch.setattr(trt.Engine.__func__, "create_execution_context", create)
    monkeypatch.setattr(
        trt.Engine.__func__, "create_runtime_config", lambda _: RuntimeConfig(), raising=False
    )
    TensorRTBackend(engine, network, "fp32").close()
    assert configs == ["eager", "eager"]


def test_time_on_the_gpu_leaves_the_copies_out(backend, log):
    backend.run(images(4))
    log.clear()
    seconds = backend.device_seconds(4, 3)
    assert seconds.shape == (3,)
    assert seconds.dtype == np.float64
    assert log == ["graph launched", "timed 1", "synchronised"] * 3
    with pytest.raises(ValueError, match="not in tuple"):
        backend.device_seconds(2, 1)


# ---- closing --------------------------------------------------------------------------------------------


def test_a_close_that_a_library_refuses_to_another_thread_loses_nothing(backend, trt, monkeypatch):
    def refuse():
        raise BackendError("belongs to another thread")

    with monkeypatch.context() as patch:
        patch.setattr(trt.device, "refuse_other_threads", refuse)
        with pytest.raises(BackendError, match="another thread"):
            backend.close()
    assert backend.run(images(1))["score"].shape == (1,)
    backend.close()
    assert trt.log[-1] == "device closed"


def test_closing_frees_from_the_last_to_the_first_and_once(engine, network, log):
    backend = TensorRTBackend(engine, network, "fp32")
    backend.run(images(1))
    log.clear()
    backend.close()
    gc.collect()
    of_profile = ["graph closed", "context freed"]
    assert log == ["synchronised", *of_profile, *of_profile, "engine freed", "runtime freed", "device closed"]
    backend.close()
    assert len(log) == 8
    for call in (lambda: backend.run(images(1)), lambda: backend.device_seconds(1, 1)):
        with pytest.raises(BackendError, match=r"stage1\.fp32\.engine is closed.*make a new Detector"):
            call()


@pytest.mark.parametrize("what", ["engine", "context", "run"])
def test_the_gpu_is_given_back_after_a_failure(trt, engine, network, log, what):
    trt.no[what] = "no"
    with pytest.raises(BackendError):
        TensorRTBackend(engine, network, "fp32")
    assert "device closed" in log


def test_closing_after_a_failed_run_frees_all_and_tells_nothing_new(engine, network, log, monkeypatch):
    backend = TensorRTBackend(engine, network, "fp32")

    def broken(self):
        raise BackendError("an illegal memory access")

    monkeypatch.setattr(FakeDevice, "synchronize", broken)
    with pytest.raises(BackendError, match="illegal memory"):
        backend.run(images(1))
    backend.close()
    assert log[-1] == "device closed"


# ---- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("engine", "cannot load it (magic tag does not match)"),
        ("context", "gives no execution context (magic tag does not match)"),
        ("run", "does not run it (magic tag does not match)"),
    ],
)
def test_a_no_of_tensorrt_is_one_line_with_its_cause(trt, engine, network, what, words):
    trt.no[what] = "magic tag does not match\n(more)"
    with pytest.raises(BackendError) as error:
        TensorRTBackend(engine, network, "fp32")
    text = one_line(error)
    assert text.startswith(f"{engine}: TensorRT {words}; build it again: python -m edge_kp.build_engine")


def test_too_little_memory_for_tensorrt_itself(trt, engine, network):
    trt.no["context"] = "Requested amount of GPU memory (9 bytes) could not be allocated: OutOfMemory"
    with pytest.raises(
        BackendError, match="close other programs on the GPU, or build it for smaller"
    ) as error:
        TensorRTBackend(engine, network, "fp32")
    assert "build it again" not in one_line(error)


def test_too_little_memory_for_the_buffers(trt, engine, network):
    trt.gpu["memory"] = SIZE * SIZE * 3 - 1
    with pytest.raises(BackendError, match=r"GPU out of memory, .* asked for: close other programs"):
        TensorRTBackend(engine, network, "fp32")
    assert not trt.device._open


def test_a_run_that_fails_later_tells_why(trt, engine, network):
    trt.gpu["graphs"] = False
    with TensorRTBackend(engine, network, "fp32") as backend:
        trt.no["run"] = "the GPU has fallen off the bus"
        with pytest.raises(BackendError, match=r"does not run it \(the GPU has fallen off the bus\)"):
            backend.run(images(1))


def test_a_runtime_that_does_not_start(trt, engine, network, monkeypatch):
    def start(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Runtime", start)
    with pytest.raises(BackendError, match="TensorRT does not start"):
        TensorRTBackend(engine, network, "fp32")


def test_an_engine_cut_off_is_refused_before_it_is_loaded(engine, network, log):
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(BackendError, match=r"cut off.*build it again: python -m edge_kp\.build_engine"):
        TensorRTBackend(engine, network, "fp32")
    assert "runtime freed" not in log
    assert log[-1] == "device closed"


def test_an_output_of_another_type_is_refused(trt, engine, network, monkeypatch):
    monkeypatch.setattr(trt.Engine.__func__, "get_tensor_dtype", lambda *_: "BF16")
    with pytest.raises(
        BackendError, match=r"has an output keypoints BF16 \(1, 5, 2\), expected float \(1, …\)"
    ):
        TensorRTBackend(engine, network, "fp32")


# ---- which engine ---------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_engine_beside_the_network_is_taken(engine, network, log, cache):
    with open_tensorrt(network, "fp32") as backend:
        assert backend.run(images(1))["score"].shape == (1,)
    assert "built" not in log
    assert not cache.exists()


def test_an_engine_beside_it_that_does_not_fit_is_refused(trt, engine, network, log, cache):
    trt.gpu["gpu"] = Gpu("Thor", "11.0")
    with pytest.raises(BackendError, match=r"built for Orin .*, this is Thor .*-m edge_kp\.build_engine"):
        open_tensorrt(network, "fp32")
    assert "built" not in log


def test_without_one_it_is_built_once_for_the_default_batches(trt, network, log, cache, capsys):
    for _ in range(2):
        with open_tensorrt(network, "fp32") as backend:
            assert backend.batches == (1, 4)
            assert backend.run(images(2))["score"].shape == (2,)
    assert log.count("built") == 1
    assert capsys.readouterr().err.count("building an engine of stage1.fp32.onnx for Orin") == 1
    assert [p.suffix for p in network.parent.glob("*.engine")] == []


def test_every_device_is_closed_that_was_opened(network, log, cache, trt):
    open_tensorrt(network, "fp32").close()
    assert log.count("device opened") == log.count("device closed") > 1
