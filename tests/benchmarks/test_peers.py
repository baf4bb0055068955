"""edge_kp beside other landmark detectors: markups, fits, crops, and what is left out or refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import peer_photos
from benchmarks.peer_photos import candidates, fitted, main, start, unfitted
from benchmarks.photo_peers import facemesh
from benchmarks.photo_peers.figures import figures, times
from benchmarks.photo_peers.markup import LEAST, MEDIAPIPE, PARTS, RIDGES, fit_linear, picked
from benchmarks.photo_peers.network import FacemarkLbf, NetworkPeer, NetworkSpec
from benchmarks.photo_peers.pareto import coordinates, draw, front
from benchmarks.photo_peers.photos import as_array
from benchmarks.photo_peers.worker import version_of
from edge_kp import Detector
from edge_kp.errors import DataError, EdgeKpError
from edge_kp.schema import FACE68

# ---- markups and fits -----------------------------------------------------------------------------------


def meshes(count: int, seed: int) -> np.ndarray:
    """(M, 30, 2) shapes of one family, wherever and however large."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(0).normal(size=(30, 2)) + 0.1 * rng.normal(size=(count, 30, 2))
    turns = np.eye(2) + 0.2 * rng.normal(size=(count, 2, 2))
    return shapes @ turns * rng.uniform(20, 200, (count, 1, 1)) + rng.uniform(0, 1000, (count, 1, 2))


def weights() -> np.ndarray:
    """(30, 68) of a known map; the weights of each point sum to 1."""
    w = np.random.default_rng(1).uniform(0, 1, (30, 68))
    return w / w.sum(axis=0)


def test_the_fit_finds_a_linear_map() -> None:
    train, test, w = meshes(60, 2), meshes(20, 3), weights()
    fit = fit_linear(train, w.T @ train)
    apart = np.linalg.norm(fit(test) - w.T @ test, axis=-1) / np.ptp(test, axis=1).max(1)[:, None]
    assert apart.max() < 1e-4
    assert fit.ridge == min(RIDGES)  # without noise the least penalty is the best


def test_the_fit_shrinks_the_more_the_labels_scatter() -> None:
    train, w, rng = meshes(20, 2), weights(), np.random.default_rng(4)
    noise = rng.normal(size=(20, 68, 2)) * 0.5 * np.ptp(train, axis=1).max(1)[:, None, None]
    assert fit_linear(train, w.T @ train + noise).ridge > min(RIDGES)


def test_the_fit_goes_with_any_affine_change() -> None:
    train, test = meshes(20, 5), meshes(4, 6)
    fit = fit_linear(train, weights().T @ train)
    change, shift = np.array([[0.3, -1.2], [0.9, 0.4]]), (40, -7)
    np.testing.assert_allclose(fit(test @ change + shift), fit(test) @ change + shift, atol=1e-6)


def test_the_fit_leaves_out_photos_without_a_face_or_a_label() -> None:
    train = meshes(40, 7)
    labels = weights().T @ train
    missed, unlabelled = train.copy(), labels.copy()
    missed[3] = np.nan
    unlabelled[5, 2] = np.nan
    rest = np.delete(np.arange(40), [3, 5])
    np.testing.assert_array_equal(
        fit_linear(missed, unlabelled).weights, fit_linear(train[rest], labels[rest]).weights
    )
    with pytest.raises(DataError, match=f"at least {LEAST}"):
        fit_linear(train[: LEAST - 1], labels[: LEAST - 1])


def test_a_system_that_finds_too_few_faces_has_no_fitted_figures(capsys: Any) -> None:
    points = np.full((LEAST, 30, 2), np.nan)
    assert fitted("blind", points, np.zeros((LEAST, 68, 2)), points, np.zeros((LEAST, 68, 2))) is None
    assert "not fitted: blind: 0 photos" in capsys.readouterr().out


def test_the_markup_of_mediapipe_names_68_points_of_its_mesh() -> None:
    assert len(MEDIAPIPE) == len(set(MEDIAPIPE)) == 68
    assert min(MEDIAPIPE) >= 0
    assert max(MEDIAPIPE) < 468
    assert (MEDIAPIPE[36], MEDIAPIPE[45]) == facemesh.EYES
    assert sum(len(range(68)[part]) for part in PARTS.values()) == 68


def test_a_table_picks_its_points_or_is_refused() -> None:
    mesh = np.arange(2 * 468 * 2, dtype=float).reshape(2, 468, 2)
    np.testing.assert_array_equal(picked(mesh, MEDIAPIPE)[1, 8], mesh[1, 152])
    with pytest.raises(DataError, match=r"names point 454 of a system with 98 points"):
        picked(mesh[:, :98], MEDIAPIPE)


def test_a_missing_face_is_a_failure_and_leaves_the_mean_alone() -> None:
    truth = np.random.default_rng(0).uniform(0, 200, (4, 68, 2))
    truth[:, 36], truth[:, 45] = (60, 100), (160, 100)  # 100 pixels from eye to eye
    found = truth.copy()
    found[0, PARTS["mouth"]] += (3, 4)
    found[1] += (0, 20)
    found[2] = np.nan
    row = figures(found, truth)
    assert row["nme"] == pytest.approx((5 * 20 / 68 + 20) / 3, abs=1e-3)
    assert row["fr10"] == 50
    assert row["by_part"]["mouth"] == pytest.approx(25 / 3, abs=1e-3)
    assert row["by_part"]["jaw"] == pytest.approx(20 / 3, abs=1e-3)


def test_points_of_missing_faces_are_no_numbers() -> None:
    points = as_array([None, [[1, 2], [3, 4]], None])
    assert points.shape == (3, 2, 2)
    assert np.isnan(points[[0, 2]]).all()
    assert as_array([None]).shape == (1, 1, 2)


# ---- the crops of MediaPipe -----------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2])
def test_the_second_crop_is_level_and_half_as_large_again(angle: float) -> None:
    mesh = np.random.default_rng(0).uniform(-40, 40, (468, 2))
    mesh[33], mesh[263] = (-30, -10), (30, -10)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mesh = mesh @ turn.T + (300, 200)
    square = facemesh.around_points(mesh)
    matrix = square.matrix
    in_crop = (mesh - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    assert in_crop[33, 1] == pytest.approx(in_crop[263, 1])
    assert in_crop[33, 0] < in_crop[263, 0]
    assert square.side == pytest.approx(1.5 * np.ptp(mesh, axis=0).max())
    corner = matrix @ [facemesh.SIZE / 2, facemesh.SIZE / 2, 1]
    np.testing.assert_allclose(corner, (mesh.min(0) + mesh.max(0)) / 2)


# ---- networks of the user's -----------------------------------------------------------------------------

RED, BLUE = 0, 2  # channels in RGB


def spots_network(path: Path, spec: NetworkSpec) -> None:
    """A network that takes inputs as the spec says and finds the centres of a red and of a blue spot."""
    width, height = spec.size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if spec.coordinates != "pixels":
        x, y = (x + 0.5) / width, (y + 0.5) / height
    if spec.coordinates == "centred":
        x, y = 2 * x - 1, 2 * y - 1
    grid = np.stack([x.ravel(), y.ravel(), np.ones(x.size, np.float32)], 1).astype(np.float32)
    shape = (1, 3, height, width) if spec.layout == "nchw" else (1, height, width, 3)
    order = [RED, BLUE] if spec.colour == "rgb" else [2 - RED, 2 - BLUE]
    selects = np.zeros((2, 3), np.float32)
    selects[[0, 1], order] = 1

    def constant(name: str, value: Any) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value), name)

    per_channel = (1, 3, 1, 1)
    mean, std = (np.broadcast_to(np.float32(v), 3).reshape(per_channel) for v in (spec.mean, spec.std))
    plain = spec.dtype == "uint8"
    initializers = [
        constant("std", np.ones(per_channel, np.float32) if plain else std),
        constant("mean", np.zeros(per_channel, np.float32) if plain else mean),
        constant("scale", np.float32([1 if plain else spec.scale])),
        constant("grid", grid),
        constant("selects", selects),
        constant("flat", np.int64([3, width * height])),
        constant("place", np.float32([[1, 0], [0, 1], [0, 0]])),
        constant("mass", np.float32([[0, 0], [0, 0], [1, 1]])),
        constant("answer", np.int64([1, 4])),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT)
        if plain
        else helper.make_node("Identity", ["image"], ["values"]),
        helper.make_node("Transpose", ["values"], ["planes"], perm=[0, 3, 1, 2])
        if spec.layout == "nhwc"
        else helper.make_node("Identity", ["values"], ["planes"]),
        helper.make_node("Mul", ["planes", "std"], ["spread"]),
        helper.make_node("Add", ["spread", "mean"], ["moved"]),
        helper.make_node("Div", ["moved", "scale"], ["pixels"]),
        helper.make_node("Reshape", ["pixels", "flat"], ["rows"]),
        helper.make_node("MatMul", ["selects", "rows"], ["spots"]),
        helper.make_node("MatMul", ["spots", "grid"], ["sums"]),
        helper.make_node("MatMul", ["sums", "place"], ["places"]),
        helper.make_node("MatMul", ["sums", "mass"], ["masses"]),
        helper.make_node("Div", ["places", "masses"], ["centres"]),
        helper.make_node("Reshape", ["centres", "answer"], ["points"]),
    ]
    kind = TensorProto.UINT8 if plain else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, (1, 4))],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def spots_picture(red: Sequence[float], blue: Sequence[float]) -> np.ndarray:
    """uint8 BGR (240, 320, 3), black but for two round spots."""
    y, x = np.mgrid[:240, :320]
    image = np.zeros((240, 320, 3), np.uint8)
    for channel, centre in ((2 - RED, red), (2 - BLUE, blue)):
        distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        image[..., channel] = np.round(250 * np.exp(-distance / (2 * 5**2)))
    return image


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SPECS = [
    {},
    {"layout": "nhwc", "coordinates": "pixels"},
    {"colour": "bgr", "coordinates": "centred", **IMAGENET},
    {"colour": "bgr", "layout": "nhwc", "dtype": "uint8"},
    {"scale": 1.0, "mean": (127.5,), "std": (128.0,), "coordinates": "pixels", "output": "points"},
    {"runtime": "opencv", **IMAGENET},
    {"runtime": "opencv", "colour": "bgr", "coordinates": "centred"},
]
BOXES = [
    ((100.0, 60.0, 220.0, 180.0), (150.3, 110.8), (180.6, 135.2)),
    ((81.3, 40.7, 170.9, 150.2), (110.4, 90.1), (140.7, 98.6)),
    ((-30.0, 110.0, 90.0, 250.0), (40.2, 190.5), (25.9, 170.3)),  # reaches out of the picture
]


@pytest.mark.parametrize("told", SPECS, ids=lambda told: "-".join(map(str, told.values())) or "defaults")
def test_points_of_a_network_come_back_where_they_are(told: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "spots.onnx"
    spec = NetworkSpec("spots", str(file), size=(96, 72), box_scale=1.5, box_shift=(0.04, -0.05), **told)
    spots_network(file, spec)
    peer = NetworkPeer(spec)
    for box, red, blue in BOXES:
        x0, y0, x1, y1 = box
        side = max(x1 - x0, y1 - y0)
        corner = peer.crop(np.array(box)) @ (-0.5, -0.5, 1)  # the outer edge of the first pixel
        middle = (x0 + x1) / 2 + 0.04 * side, (y0 + y1) / 2 - 0.05 * side
        np.testing.assert_allclose(corner, middle - 1.5 * side * np.array([0.5, 0.5 * 72 / 96]))
        found = peer.points(spots_picture(red, blue), np.array(box))
        np.testing.assert_allclose(found, [red, blue], atol=0.15)
    assert peer.network is not None
    peer.network()


def test_a_grey_network_sees_one_channel(tmp_path: Path) -> None:
    spec = NetworkSpec("spots", str(tmp_path / "spots.onnx"), size=(96, 72))
    spots_network(tmp_path / "spots.onnx", spec)
    peer = NetworkPeer(spec)
    crop = np.full((72, 96, 3), (10, 20, 30), np.uint8)
    assert peer.tensor(crop)[0, :, 0, 0] == pytest.approx([30 / 255, 20 / 255, 10 / 255])
    peer._spec = NetworkSpec("grey", "", size=(96, 72), colour="grey", layout="nhwc")
    assert peer.tensor(crop).shape == (1, 72, 96, 1)
    assert peer.tensor(crop)[0, 0, 0, 0] == pytest.approx(
        (0.114 * 10 + 0.587 * 20 + 0.299 * 30) / 255, abs=3e-3
    )


def test_a_network_that_is_not_as_told_ends_in_one_line(tmp_path: Path) -> None:
    spec = NetworkSpec("spots", str(tmp_path / "spots.onnx"), size=(96, 72))
    spots_network(tmp_path / "spots.onnx", spec)
    for told, said in (
        ({"size": (64, 64)}, "refuses an input"),
        ({"layout": "nhwc"}, "refuses an input"),
        ({"output": "landmarks"}, "has no output 'landmarks'; there are points"),
        ({"columns": 3}, "no multiple of 3"),
    ):
        with pytest.raises(SystemExit, match=said) as ended:
            NetworkPeer(NetworkSpec("spots", spec.file, **{"size": (96, 72), **told}))
        assert "\n" not in str(ended.value)
    (tmp_path / "spots.onnx").write_bytes(b"no network")
    for runtime in ("onnxruntime", "opencv"):
        with pytest.raises(SystemExit, match="cannot load it"):
            NetworkPeer(NetworkSpec("spots", spec.file, runtime=runtime))


@pytest.mark.skipif(not hasattr(cv2, "face"), reason="OpenCV has no contributed modules here")
def test_facemark_starts_in_the_box_that_it_is_told(tmp_path: Path) -> None:
    # A model without a stage answers its mean shape, which is told from -1 to 1 of the box.
    shape = np.random.default_rng(0).uniform(-0.9, 0.9, (68, 2))
    file = cv2.FileStorage(str(tmp_path / "lbf.yaml"), cv2.FILE_STORAGE_WRITE)
    for key, value in (("stages_n", 0), ("tree_n", 1), ("tree_depth", 1), ("n_landmarks", 68)):
        file.write(key, value)
    file.write("regressor_meanshape", shape)
    file.release()
    spec = NetworkSpec("lbf", str(tmp_path / "lbf.yaml"), "facemark-lbf", box_scale=1.5, box_shift=(0, 0.1))
    found = FacemarkLbf(spec).points(np.zeros((240, 320, 3), np.uint8), np.array([100.0, 80, 180, 140]))
    np.testing.assert_allclose(found, (140, 118) + shape * 60, atol=1.5)  # rounded to whole pixels


@pytest.mark.skipif(hasattr(cv2, "face"), reason="OpenCV has its contributed modules here")
def test_facemark_without_its_module_is_missing(tmp_path: Path) -> None:
    (tmp_path / "lbf.yaml").write_text("%YAML:1.0\n")
    (tmp_path / "lbf.toml").write_text('file = "lbf.yaml"\nruntime = "facemark-lbf"\n')
    wanted = candidates(arguments_of("--network", str(tmp_path / "lbf.toml")))
    with ExitStack() as stack:
        workers, skipped = start(stack, {"lbf": wanted["lbf"]}, min(os.sched_getaffinity(0)))
    assert workers == {}
    assert list(skipped) == ["lbf"]
    assert "opencv-contrib-python" in skipped["lbf"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("size = 112", "size: expected [width, height]"),
        ("size = [112, 4]", "size: expected [width, height]"),
        ('colour = "hsv"', "colour: expected one of rgb, bgr, grey"),
        ("colour = []", "colour: expected one of"),
        ("std = [1, 0, 1]", "std: expected numbers above 0"),
        ("mean = [0.5, 0.5]", "mean: expected 1 or 3 numbers, got 2"),
        ("scale = nan", "scale: expected a number above 0"),
        ("box_scale = true", "box_scale: expected a number above 0"),
        ("columns = 1", "columns: expected a whole number from 2"),
        ("markup = [1, 2]", "markup: expected 68 indices"),
        ("box_shift = [1]", "box_shift: expected [x, y]"),
        ('output = ""', "output: expected a text"),
        ('color = "rgb"', "color: no such key; is it colour?"),
        ("size = [", "not TOML"),
    ],
)
def test_a_bad_description_is_refused_in_one_line(line: str, said: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "net.toml").write_text(f'file = "net.onnx"\n{line}\n')
    assert main(["--data", "ibug:nowhere", "--network", str(tmp_path / "net.toml")]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert "net.toml: " in told
    assert said in told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("size = [8, 8]", "file: is missing"),
        ('file = "other.onnx"', "file: there is no"),
        ('file = "net.toml"\nname = "edge_kp"', "there is a system 'edge_kp' already"),
    ],
)
def test_a_description_without_its_file_is_refused(
    content: str | None, said: str, tmp_path: Path, capsys: Any
) -> None:
    if content is not None:
        (tmp_path / "net.toml").write_text(content)
    assert main(["--data", "ibug:nowhere", "--network", str(tmp_path / "net.toml")]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert said in told


# ---- Pareto front ---------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_else_beats() -> None:
    points = {
        "slow": (9.0, 1.0),
        "worse": (9.0, 2.0),
        "fast": (1.0, 5.0),
        "both": (3.0, 3.0),
        "off": (4.0, 3.0),
    }
    assert front(points) == ["fast", "both", "slow"]
    assert front({**points, "best": (0.5, 0.5)}) == ["best"]
    assert set(front({"a": (1.0, 1.0), "b": (1.0, 1.0)})) == {"a", "b"}
    assert front({}) == []


def row(ms: float, network_ms: float | None, plain: float | None, fit: float | None) -> dict[str, Any]:
    return {
        "time": {"ms": {"median": ms}, "network_ms": network_ms and {"median": network_ms}},
        "unfitted": plain and {"nme": plain},
        "fitted": fit and {"nme": fit},
    }


def test_systems_without_a_figure_are_left_out_of_the_front_and_the_picture(tmp_path: Path) -> None:
    systems = {"a": row(1, 0.5, 5, 4), "b": row(2, None, 6, 3), "c": row(0.5, 0.4, None, 5)}
    assert coordinates(systems, "ms", "unfitted") == {"a": (1, 5), "b": (2, 6)}
    assert coordinates(systems, "network_ms", "fitted") == {"a": (0.5, 4), "c": (0.4, 5)}
    draw(systems, tmp_path / "plot.png", "three")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None
    assert picture.std() > 5
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


# ---- the whole comparison -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(frames: list[np.ndarray], tmp_path_factory: Any) -> Path:
    """Folders ``test`` (3 photos) and ``fit`` (10): frames of the clip, labelled by the shipped model."""
    root: Path = tmp_path_factory.mktemp("faces")
    with Detector(threads=1) as detector:
        seen = ((image, detector.detect(image)) for image in frames[::7])
        faces = [(image, found[0].keypoints) for image, found in seen if found]
    assert len(faces) >= 13
    for i, (image, keypoints) in enumerate(faces[:13]):
        folder = root / ("test" if i < 3 else "fit")
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        points = "\n".join(f"{x:.3f} {y:.3f}" for x, y in keypoints + 1)
        (folder / f"{i}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{points}\n}}\n")
    return root


def mean_face_network(folder: Path, name: str = "mean_face", size: float = 1.0) -> Path:
    """A description of a network that answers one face, whatever it is shown; none where ``size`` is NaN."""
    face = (np.load(Path(peer_photos.__file__).parents[1] / "edge_kp/models/face68/templates.npz"))[
        "mean_shape"
    ]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["grey", "nothing"], ["zero"]),
            helper.make_node("Add", ["zero", "face"], ["points"]),
        ],
        "mean_face",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 64, 64))],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, (136,))],
        [
            numpy_helper.from_array(np.float32([0]), "nothing"),
            numpy_helper.from_array(size * face.astype(np.float32).ravel(), "face"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / f"{name}.onnx")
    path = folder / f"{name}.toml"
    path.write_text(f'file = "{name}.onnx"\nsize = [64, 64]\nbox_scale = 1.6\n')
    return path


@pytest.fixture
def without_mediapipe(tmp_path: Path, monkeypatch: Any) -> None:
    """Workers find a file of MediaPipe's name that is no MediaPipe, whatever is installed here."""
    (tmp_path / "hides").mkdir()
    (tmp_path / "hides" / "mediapipe.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hides"))


def test_systems_that_are_missing_are_left_out_by_name(
    labelled: Path, tmp_path: Path, without_mediapipe: None, capsys: Any
) -> None:
    arguments = ["--data", f"ibug:{labelled / 'test'}", "--fit-data", f"ibug:{labelled / 'fit'}"]
    arguments += ["--ways", "onnxruntime:fp32", "--network", str(mean_face_network(tmp_path))]
    arguments += ["--network", str(mean_face_network(tmp_path, "blind", np.nan))]
    arguments += ["--rounds", "2", "--chunk", "3", "--out", str(tmp_path / "out"), "--name", "trial"]
    assert main(arguments) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "out" / "trial.json").read_text())
    names = ["mediapipe", "mediapipe x2", "mediapipe-attention", "mediapipe-attention x2"]
    assert list(result["skipped"]) == [*names, "opencv-facemark-lbf", "blind"]
    assert result["skipped"]["blind"] == "finds no face in any photo"
    out = capsys.readouterr().out
    for name in names:
        assert "mediapipe" in result["skipped"][name]
        assert f"left out: {name}: " in out
    own, other = result["systems"]["edge_kp"], result["systems"]["mean_face"]
    assert list(result["systems"]) == ["edge_kp", "mean_face"]
    assert own["unfitted"]["nme"] < 2 < other["unfitted"]["nme"]
    assert own["unfitted"]["fr10"] == 0
    assert own["missed"] == other["missed"] == 0
    assert own["fitted"]["ridge"] in RIDGES
    assert own["markup"]["table"] == other["markup"]["table"] == list(range(68))
    for system in (own, other):
        assert system["time"]["ms"]["median"] > 0
        assert system["time"]["network_ms"]["median"] > 0
    assert own["time"]["ms"]["ratio"] == own["time"]["cpu_ms"]["ratio"] == 1
    assert "edge_kp" in result["pareto"]["unfitted"]["ms"]
    assert "edge_kp" in result["pareto"]["fitted"]["network_ms"]
    assert result["fit_photos"] == 10
    assert not any("/" in why for why in result["skipped"].values())
    assert (tmp_path / "out" / "trial.png").stat().st_size > 10_000


def test_no_folder_of_the_machine_is_in_a_reason() -> None:
    for told, kept in (
        ("/nowhere/python: no such Python", "python: no such Python"),
        ("no 'x' from 'tf' (/a b/tf/__init__.py)", "no 'x' from 'tf' (a __init__.py)"),
        ("see '/home/me/x.toml'", "see 'x.toml'"),
        ("finds no face", "finds no face"),
    ):
        assert peer_photos.without_folders(told) == kept


def test_mediapipes_graph_has_no_network_to_time_alone(capsys: Any) -> None:
    assert facemesh.Attention.network is None
    own: Any = {"ms": [2.0, 2.0], "cpu_ms": [2.0, 2.0], "network_ms": [1.0, 1.0]}
    other: Any = {"ms": [4.0, 4.0], "cpu_ms": [4.0, 4.0], "network_ms": []}
    told = times([other], [own])
    assert told["network_ms"] is None
    assert told["ms"]["ratio"] == 2
    error = {"nme": 1.0, "fr10": 0.0, "by_part": dict.fromkeys(PARTS, 1.0)}
    peer_photos._print({"graph": {"time": told, "unfitted": error, "fitted": None, "about": "a graph"}}, {})
    assert "–        –" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    "content",
    [
        "raise TypeError('made for\\nanother protobuf')",
        "raise AttributeError('gone')",
        "raise ImportError('not here')",
    ],
)
def test_a_broken_package_is_left_out_with_its_reason(content: str, tmp_path: Path, monkeypatch: Any) -> None:
    for package in ("mediapipe", "numpy"):
        hides = tmp_path / package
        hides.mkdir()
        (hides / f"{package}.py").write_text(f"{content}\n")
        monkeypatch.setenv("PYTHONPATH", str(hides))
        wanted = {"peer": candidates(arguments_of())["mediapipe-attention"]}
        with ExitStack() as stack:
            workers, skipped = start(stack, wanted, min(os.sched_getaffinity(0)))
        assert workers == {}
        assert any(word in skipped["peer"] for word in ("made for another protobuf", "gone", "not here"))


def test_a_graph_that_cannot_be_built_is_left_out(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("mediapipe", "python", "calculators", "calculators/util", "framework", "framework/formats"):
        folder = tmp_path / "mediapipe" / name.replace("mediapipe", "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    package = tmp_path / "mediapipe"
    (package / "calculators/util/thresholding_calculator_pb2.py").touch()
    (package / "framework/formats/rect_pb2.py").write_text("NormalizedRect = dict\n")
    (package / "python/solution_base.py").write_text(
        "def SolutionBase(**told): raise RuntimeError('no graph')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    wanted = {"peer": candidates(arguments_of())["mediapipe-attention"]}
    with ExitStack() as stack:
        workers, skipped = start(stack, wanted, min(os.sched_getaffinity(0)))
    assert workers == {}
    assert skipped["peer"].endswith("mediapipe is installed and does not run: RuntimeError: no graph")


def test_a_system_that_finds_no_face_has_nothing_to_compare() -> None:
    found = {
        "edge_kp": np.zeros((2, 68, 2)),
        "some": as_array([None, [[1, 2]]]),
        "none": as_array([None, None]),
    }
    assert peer_photos.blind(found) == ["none"]


def test_a_package_of_another_name_has_no_version() -> None:
    assert version_of("numpy") == np.__version__
    assert version_of("no-such-distribution") is None


@pytest.mark.parametrize("way", ["onnxruntime:fp23", "onnx:fp32", "onnxruntime", "fp32", ""])
def test_a_way_that_there_is_not_is_wrong_usage(way: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--data", "ibug:nowhere", "--ways", way])
    assert ended.value.code == 2
    assert "expected BACKEND:PRECISION" in capsys.readouterr().err


def test_a_way_that_is_named_twice_is_refused(capsys: Any) -> None:
    assert (
        main(["--data", "ibug:nowhere", "--ways", "onnxruntime:fp32", "auto:auto", "onnxruntime:fp32"]) == 1
    )
    (told,) = capsys.readouterr().err.splitlines()
    assert told == "error: --ways: names onnxruntime:fp32 2 times; name it once"


def test_a_missing_python_is_told_and_edge_kp_is_needed() -> None:
    args = arguments_of("--peer-python", "/nowhere/python")
    wanted = {name: c for name, c in candidates(args).items() if c.system != "edge_kp"}
    with ExitStack() as stack:
        workers, skipped = start(stack, wanted, 0)
    assert workers == {}
    assert skipped["mediapipe-attention x2"] == "/nowhere/python: no such Python"
    own = candidates(arguments_of("--ways", "onnxruntime:fp32", "--model", "nowhere"))["edge_kp"]
    with ExitStack() as stack, pytest.raises(EdgeKpError, match="nowhere"):
        start(stack, {"edge_kp": own}, min(os.sched_getaffinity(0)))


def arguments_of(*more: str) -> Any:
    return peer_photos.make_parser().parse_args(["--data", "ibug:nowhere", *more])


def test_photos_of_the_test_are_no_photos_to_fit_on(labelled: Path, tmp_path: Path, capsys: Any) -> None:
    test = f"ibug:{labelled / 'test'}"
    assert main(["--data", test, "--fit-data", test]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert "in --data and in --fit-data (3 photos are)" in told
    # The same picture in another folder, under another name and format, among others.
    shutil.copytree(labelled / "fit", tmp_path / "copies")
    image = cv2.imread(str(labelled / "test" / "1.png"))
    cv2.imwrite(str(tmp_path / "copies" / "renamed.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    shutil.copy(labelled / "test" / "1.pts", tmp_path / "copies" / "renamed.pts")
    arguments = ["--data", test, "--fit-data", f"ibug:{tmp_path / 'copies'}", "--ways", "onnxruntime:fp32"]
    arguments += ["--peer-python", "/nowhere/python", "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "copies/renamed.png: shows the same picture as test/1.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_few_photos_to_fit_on_are_told_before_anything_runs(labelled: Path, capsys: Any) -> None:
    data = ["--data", f"ibug:{labelled / 'test'}", "--fit-data", f"ibug:{labelled / 'fit'},take=4"]
    assert main(data) == 1
    assert f"holds 4 photos; at least {LEAST} needed" in capsys.readouterr().err


def test_a_system_without_a_known_markup_has_fitted_figures_alone() -> None:
    truth = meshes(3, 8)[:, :1] + np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
    wanted = {name: candidate("network") for name in ("of98", "of68")}
    rows = unfitted({"of98": np.zeros((3, 98, 2)), "of68": truth}, truth, wanted)
    assert rows["of98"]["unfitted"] is None
    assert rows["of98"]["markup"]["table"] is None
    assert rows["of68"]["unfitted"]["nme"] == 0
    assert len(FACE68) == 68


def candidate(system: str) -> peer_photos.Candidate:
    return peer_photos.Candidate(system, {}, sys.executable, None, "none")
