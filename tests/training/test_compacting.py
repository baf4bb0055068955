"""Networks that share their weights: every result as before, each tensor once, nothing half replaced."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_kp import Detector
from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.calibrate import main as calibrate
from edge_kp.compact import main
from edge_kp.errors import ModelError
from edge_kp.modeldir import WEIGHTS, file_digest, network_digest, read_model, write_model_json
from edge_kp.parity import load_references
from edge_kp.training.compacting import compact_model
from edge_kp.training.exporting import export_run
from edge_kp.training.quantise import fp32_files, to_int8
from edge_kp.training.ranges import STYLES, measure_ranges


def size(folder: Path) -> int:
    """Bytes of all files but the description."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "model.json")


@pytest.fixture(scope="module")
def loose(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose files hold their own weights."""
    out = tmp_path_factory.mktemp("loose") / "tiny"
    export_run(tiny_run, out, precisions=("fp32", "fp16"))
    spec = read_model(out)
    references = load_references(out, spec)
    for name, source in fp32_files(out).items():
        ranges = measure_ranges(source, references[name].images, "minmax")
        for style in STYLES:
            to_int8(source, out / f"{name}.{style}.onnx", style, ranges)
    files = {path.name: file_digest(path) for path in out.iterdir() if path.name != "model.json"}
    write_model_json(out, replace(spec, files=files))
    return out


@pytest.fixture(scope="module")
def tight(loose: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = Path(shutil.copytree(loose, tmp_path_factory.mktemp("tight") / "tiny"))
    assert compact_model(out) == (size(loose), size(out))
    return out


def test_every_network_gives_what_it_gave(loose: Path, tight: Path) -> None:
    references = load_references(loose, read_model(loose))
    names = sorted(path.name for path in loose.glob("*.onnx"))
    assert len(names) == 4 * len(references) - 2  # the cascade in two precisions, all others in four
    for name in names:
        images = references[name.split(".")[0]].images
        expected, seen = (OnnxRuntimeBackend(folder / name).run(images) for folder in (loose, tight))
        for output, value in expected.items():
            # Without the shapes in an FP32 file ONNX Runtime joins other nodes, and adds in another order.
            atol = 1e-6 if ".fp32." in name else 0
            np.testing.assert_allclose(seen[output], value, rtol=0, atol=atol, err_msg=f"{name} {output}")


def test_openvino_gives_the_very_same_in_8_bits(loose: Path, tight: Path) -> None:
    pytest.importorskip("openvino")
    from edge_kp.backends.openvino import OpenVinoBackend

    for network, reference in load_references(loose, read_model(loose)).items():
        if network != "cascade":
            paths = [folder / f"{network}.int8-cpu.onnx" for folder in (loose, tight)]
            expected, seen = (OpenVinoBackend(path, "int8-cpu", 1).run(reference.images) for path in paths)
            for output, value in expected.items():
                np.testing.assert_array_equal(seen[output], value, err_msg=f"{network} {output}")


def test_each_tensor_is_kept_once_and_in_16_bits(loose: Path, tight: Path) -> None:
    kept = (tight / WEIGHTS).stat().st_size
    networks = [path for path in loose.glob("*.fp16.onnx") if not path.name.startswith("cascade")]
    assert kept < sum(path.stat().st_size for path in networks)
    for path in tight.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        assert outside, path.name
        for tensor in outside:
            where = {entry.key: entry.value for entry in tensor.external_data}
            assert where["location"] == WEIGHTS
            assert int(where["offset"]) + int(where["length"]) <= kept
            assert not tensor.raw_data


def test_weights_of_8_bits_take_no_room(tight: Path) -> None:
    places = {}
    for precision in ("fp32", "int8-cpu"):
        graph = onnx.load(tight / f"stage2.{precision}.onnx", load_external_data=False).graph
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL and len(tensor.dims) == 4:
                where = {entry.key: entry.value for entry in tensor.external_data}
                assert tensor.data_type == onnx.TensorProto.FLOAT16
                places.setdefault(precision, set()).add(where["offset"])
    assert len(places["fp32"]) > 9
    assert places["int8-cpu"] == places["fp32"]
    roundings = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(roundings) > len(places["fp32"])


def test_the_description_lists_the_weights_and_once_more_changes_nothing(
    tight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = read_model(tight)
    assert {path.name for path in tight.iterdir()} == {*spec.files, "model.json"}
    again = Path(shutil.copytree(tight, tmp_path / "tiny"))
    assert main(["--model", str(again)]) == 0
    assert "MB before" in capsys.readouterr().out
    assert read_model(again).files == spec.files


def test_weights_that_changed_are_refused(tight: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tight, tmp_path / "tiny"))
    with Detector(folder, backend="onnxruntime", threads=1) as detector:
        assert all(row.passed for row in detector.check())
    before = network_digest(folder / "stage2.fp32.onnx")
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    assert network_digest(folder / "stage2.fp32.onnx") != before
    with pytest.raises(ModelError, match=r"weights\.bin: differs from the hash"):
        Detector(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"weights\.bin: missing"):
        Detector(folder)


def test_a_network_that_is_not_what_it_should_be_leaves_the_folder_as_it_is(
    loose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(loose, tmp_path / "tiny"))
    data = json.loads((folder / "model.json").read_text())
    shutil.copy(folder / "stage1.fp32.onnx", folder / "stage2.fp32.onnx")
    data["files"]["stage2.fp32.onnx"] = data["files"]["stage1.fp32.onnx"]
    (folder / "model.json").write_text(json.dumps(data))
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["--model", str(folder)]) == 1
    assert "differs from PyTorch beyond tolerance" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_model_on_a_disk_of_its_own_is_made_compact_there(
    loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(loose, tmp_path / "tiny"))
    move = os.replace

    def within_a_disk(source: str | Path, target: str | Path) -> None:
        if Path(source).is_relative_to(folder) != Path(target).is_relative_to(folder):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(target))
        move(source, target)

    monkeypatch.setattr(os, "replace", within_a_disk)
    assert main(["--model", str(folder)]) == 0
    assert not list(folder.glob(".*"))


def test_calibration_comes_before(tight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(tight), "--data", "synthetic:40", "--report", str(tmp_path / "report")]
    assert calibrate(arguments) == 1
    assert "was made compact, which is the last step" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
