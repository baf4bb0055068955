"""Networks held against the results that a model folder carries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from reference_arrays import reference_arrays

from edge_kp import Detector
from edge_kp.backends import open_backend
from edge_kp.cascade import AT_ONCE
from edge_kp.errors import ModelError
from edge_kp.modeldir import PRECISIONS, SHIPPED, checked_file, file_digest, read_model, shipped_models
from edge_kp.parity import FILE, TOLERANCE, Row, compare, load_references, save_references, table
from edge_kp.run import main


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def trust(folder: Path, name: str) -> None:
    """Let model.json name the file as it is now."""
    data = json.loads((folder / "model.json").read_text())
    data["files"][name] = file_digest(folder / name)
    (folder / "model.json").write_text(json.dumps(data))


def write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Other references, trusted."""
    np.savez(folder / FILE, **arrays)
    trust(folder, FILE)


def test_every_precision_has_a_tolerance() -> None:
    assert tuple(TOLERANCE) == PRECISIONS


@pytest.mark.parametrize("model", [*shipped_models(), "tiny"])
def test_a_model_carries_pictures_and_results_of_every_network(model: str, tiny_model: Path) -> None:
    folder = tiny_model if model == "tiny" else SHIPPED / model
    spec = read_model(folder)
    references = load_references(folder, spec)
    sizes = dict(zip(("stage1", "stage2"), spec.sizes, strict=True))
    sizes |= {"cascade": spec.cascade_size, "locator": spec.locator_size}
    assert set(references) == set(sizes)
    for name, size in sizes.items():
        images = references[name].images
        assert images.dtype == np.uint8
        assert images.shape[1:] == (size, size, 3)
        assert images.std() > 10  # something is to be seen
        assert all(len(value) == len(images) for value in references[name].outputs.values())
    n = len(spec.schema)
    assert references["cascade"].outputs["keypoints"].shape[1:] == (n, 2)
    score = references["locator"].outputs["score"]
    if model != "tiny":
        assert score.max() > spec.locator_threshold
        scores = np.sort(references["stage2"].outputs["score"])
        assert scores[0] < 0.5  # a crop in which the face is hidden
        assert scores[1] > 0.9


@pytest.mark.parametrize("cascade", ["staged", "fused"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_backend_gives_the_stored_results(tiny_model: Path, backend: str, cascade: str) -> None:
    with Detector(tiny_model, backend=backend, cascade=cascade, precision="fp32") as detector:
        rows = detector.check()
    assert {row.network for row in rows} == {
        "stage2", "locator", "cascade" if cascade == "fused" else "stage1"
    }  # fmt: skip
    assert all(row.passed for row in rows), table(rows)
    assert max(row.worst for row in rows) > 0 or backend == "onnxruntime"


def test_boxes_of_several_batches_are_answered_as_alone_in_one_graph(tiny_model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    boxes = [np.array([i, i / 2, i + 40.0, i / 2 + 50]) for i in range(AT_ONCE + 3)]
    with Detector(tiny_model, cascade="fused", backend="onnxruntime", threads=1) as detector:
        assert detector.fused
        found = detector.cascade(image, boxes)
        for i in (0, AT_ONCE - 1, AT_ONCE, len(boxes) - 1):
            alone = detector.cascade(image, [boxes[i]])
            for name in ("keypoints", "stage1_keypoints", "score", "visibility", "transforms"):
                np.testing.assert_allclose(getattr(found, name)[i], getattr(alone, name)[0], atol=0.01)
            assert np.abs(found.crop(i).astype(int) - alone.crop(0)).mean() < 1


@pytest.mark.parametrize("model", [*shipped_models(), "tiny"])
def test_old_runtimes_can_read_the_format(model: str, tiny_model: Path) -> None:
    """An ONNX Runtime refuses what is of a newer IR version than its own, whatever is in it."""
    for path in sorted((tiny_model if model == "tiny" else SHIPPED / model).glob("*.onnx")):
        network = onnx.load(path, load_external_data=False)
        assert network.ir_version == onnx.helper.find_min_ir_version_for(network.opset_import), path
        assert network.ir_version <= 9, path
        # TensorRT's parser takes the bilinear GridSample of opset 20 for one of nearest neighbours.
        assert all(opset.version <= 19 for opset in network.opset_import), path


# OpenVINO is never given int8, TensorRT's: without 8-bit dot products (VNNI) its sums overflow there.
@pytest.mark.parametrize(
    ("precision", "backend"),
    [*((p, "onnxruntime") for p in PRECISIONS), *((p, "openvino") for p in PRECISIONS if p != "int8")],
)
@pytest.mark.parametrize("model", shipped_models())
def test_every_shipped_file_gives_what_pytorch_gave(model: str, precision: str, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    folder = SHIPPED / model
    spec = read_model(folder)
    references, networks = load_references(folder, spec), []
    for network, expected in references.items():
        if f"{network}.{precision}.onnx" in spec.files:
            networks.append(network)
            path = checked_file(folder, spec, f"{network}.{precision}.onnx")
            seen = open_backend(backend, path, precision, 1).run(expected.images)
            rows = compare(network, precision, seen, expected.outputs)
            assert all(row.passed for row in rows), table(rows)
    assert {"locator", "stage1", "stage2"} <= set(networks)
    assert ("cascade" in networks) == (precision in ("fp16", "int8"))


def numbers(**changes: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    expected = {"keypoints": np.full((2, 5, 2), 0.5, np.float32), "score": np.full(2, 0.9, np.float32)}
    seen = {name: value.copy() for name, value in expected.items()}
    for name, change in changes.items():
        seen[name].flat[0] += change
    return seen, expected


def test_a_difference_is_judged_by_its_mean_and_its_worst() -> None:
    rows = compare("stage2", "fp32", *numbers(keypoints=1e-4))
    assert rows[0].worst == pytest.approx(1e-4, rel=1e-3)
    assert rows[0].mean == pytest.approx(1e-4 / 20, rel=1e-3)
    assert [row.passed for row in rows] == [True, True]
    assert not compare("stage2", "fp32", *numbers(keypoints=3e-4))[0].passed
    assert compare("stage2", "int8", *numbers(keypoints=3e-4))[0].passed
    assert not compare("stage2", "fp32", *numbers(score=3e-3))[1].passed
    everywhere, expected = numbers()
    everywhere["keypoints"] += np.float32(5e-5)
    assert not compare("stage2", "fp32", everywhere, expected)[0].passed  # the mean gives it away


def test_what_is_not_a_number_never_passes() -> None:
    seen, expected = numbers(keypoints=np.nan)
    row = compare("stage1", "int8", seen, expected)[0]
    assert not row.passed
    assert "BEYOND TOLERANCE" in table([row])
    assert "BEYOND" not in table([Row("stage1", "score", 0.0, 0.0, (1e-3, 1e-3))])


def test_boxes_of_cells_without_an_object_mean_nothing() -> None:
    expected = {"boxes": np.zeros((1, 3, 4)), "score": np.array([[0.9, 0.2, 0.4]])}
    seen = {"boxes": expected["boxes"].copy(), "score": expected["score"]}
    seen["boxes"][0, 1] = 0.5
    assert compare("locator", "fp32", seen, expected)[0].passed
    seen["boxes"][0, 2] = 0.5
    assert not compare("locator", "fp32", seen, expected)[0].passed


def test_in_few_bits_points_of_a_crop_without_object_do_not_count() -> None:
    expected = {"keypoints": np.zeros((2, 5, 2)), "score": np.array([0.9, 0.01])}
    seen = {"keypoints": np.zeros((2, 5, 2)), "score": np.array([0.9, 0.02])}
    seen["keypoints"][1] = 0.2
    for precision, passes in (("fp32", False), ("fp16", True), ("int8", True), ("int8-cpu", True)):
        assert compare("stage2", precision, seen, expected)[0].passed is passes
    seen["keypoints"][0] = 0.2
    assert not compare("stage2", "int8", seen, expected)[0].passed
    seen["score"][1] = 0.9  # but that there is none does
    assert not compare("stage2", "int8", seen, expected)[1].passed


def test_a_missing_or_misshapen_output_is_an_error() -> None:
    seen, expected = numbers()
    with pytest.raises(ModelError, match=r"stage1: expected output score \(2,\), got nothing"):
        compare("stage1", "fp32", {"keypoints": seen["keypoints"]}, expected)
    with pytest.raises(ModelError, match=r"keypoints \(2, 5, 2\), got \(1, 5, 2\)"):
        compare("stage1", "fp32", {**seen, "keypoints": seen["keypoints"][:1]}, expected)


def test_damaged_references_are_refused(copy: Path) -> None:
    path = copy / FILE
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="differs from the hash"):
        load_references(copy, read_model(copy))
    trust(copy, FILE)
    with pytest.raises(ModelError, match=r"references\.npz: cannot be read"):
        load_references(copy, read_model(copy))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stage1/image", lambda images: images[:0]),
        ("stage1/image", lambda images: images[:, :5, :5]),
        ("stage1/image", lambda images: images.astype(float)),
        ("stage1/score", lambda score: score * np.nan),
        ("stage1/score", lambda score: score.astype("U9")),
        ("stage1/score", lambda score: np.zeros(99, np.float32)),
    ],
)
def test_references_that_would_compare_nothing_are_refused(
    copy: Path, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    arrays = reference_arrays(copy)  # the pictures bare, as they were kept in the beginning
    write(copy, arrays)
    with Detector(copy, backend="onnxruntime", threads=1) as detector:
        assert all(row.passed for row in detector.check())
    arrays[name] = change(arrays[name])
    write(copy, arrays)
    with pytest.raises(ModelError, match=r"references\.npz: cannot be read \(stage1: "):
        load_references(copy, read_model(copy))


def as_png(packed: np.ndarray) -> np.ndarray:
    return cv2.imencode(".png", cv2.imdecode(packed, cv2.IMREAD_COLOR))[1]


def test_pictures_come_back_as_they_were(copy: Path) -> None:
    rng, spec = np.random.default_rng(0), read_model(copy)
    references = load_references(copy, spec)
    images = rng.integers(0, 256, references["stage1"].images.shape, np.uint8)
    save_references(copy, {**references, "stage1": replace(references["stage1"], images=images)})
    trust(copy, FILE)
    again = load_references(copy, read_model(copy))
    assert again.keys() == references.keys()
    np.testing.assert_array_equal(again["stage1"].images, images)
    for name, reference in references.items():
        assert again[name].outputs.keys() == reference.outputs.keys()
        for output, value in reference.outputs.items():
            np.testing.assert_array_equal(again[name].outputs[output], value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda packed: packed[: len(packed) // 2], "an image that OpenCV .* cannot read as WebP"),
        (lambda packed: packed[:0], "an image that OpenCV .* cannot read as WebP"),
        (lambda packed: packed.astype(float), "an image that OpenCV .* cannot read as WebP"),
        (lambda packed: as_png(packed), "an image that OpenCV .* cannot read as WebP"),
        (lambda packed: None, "no images, or not all"),
    ],
)
def test_pictures_that_cannot_be_read_are_refused(
    copy: Path, change: Callable[[np.ndarray], np.ndarray | None], problem: str
) -> None:
    with np.load(copy / FILE) as file:
        arrays = {key: file[key] for key in file.files}
    changed = change(arrays.pop("stage1/image/0"))
    write(copy, arrays if changed is None else {**arrays, "stage1/image/0": changed})
    with pytest.raises(ModelError, match=rf"references\.npz: cannot be read \(stage1: {problem}"):
        load_references(copy, read_model(copy))


def test_check_from_the_command_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["--check", "--model", str(copy), "--backend", "onnxruntime"]
    assert main(check) == 0
    shown = capsys.readouterr().out
    assert "stage2       keypoints" in shown
    assert "fp32 in onnxruntime on CPU gives what the model was exported with" in shown

    spec = read_model(copy)
    checked_file(copy, spec, FILE)
    with np.load(copy / FILE) as file:
        arrays = dict(file)
    arrays["stage2/keypoints"] = arrays["stage2/keypoints"] + np.float32(0.01)
    np.savez_compressed(copy / FILE, **arrays)
    trust(copy, FILE)
    assert main(check) == 1
    captured = capsys.readouterr()
    assert captured.out.count("BEYOND TOLERANCE") == 1
    assert "does not give what the model was exported with; try another --backend" in captured.err
