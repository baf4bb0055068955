"""The accuracy benchmark: photos are degraded as said, figures follow from errors, bad input is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import accuracy_parts
from benchmarks.accuracy import main
from benchmarks.accuracy_parts import by_attribute, by_degradation, by_point, by_precision, figures, overall
from benchmarks.clip import lag_shift
from benchmarks.degradations import DEGRADATIONS, FACE, degrade, jpeg_file, motion_blur
from benchmarks.occlusion import covered
from edge_kp.detector import Detector
from edge_kp.geometry import similarity, tight_box, transform_points
from edge_kp.schema import FACE68, FACE98
from edge_kp.training.datasets import Sample, load_dataset
from edge_kp.training.evaluation import Evaluation, evaluate
from edge_kp.types import Array

OFF = 3.0  # pixels by which the faces' labels are off from what the model finds
Faces = tuple[str, Detector, tuple[Sample, ...], Evaluation]


def _same(image: Array) -> Array:
    return image


def plain(image: Array, box: tuple[float, float, float, float], key: str = "plain/0.png") -> Sample:
    """A sample of two labelled corners."""
    points = np.array([box[:2], box[2:]], np.float32)
    return Sample(key, points, np.ones(2, np.float32), {}, partial(_same, image))


def at_level(sample: Sample, name: str, level: float | None, seed: int = 0) -> Sample:
    return degrade(sample, name, level, "keypoints", sample, seed)


def strict_json(path: Path) -> dict[str, Any]:
    """JSON as other programs read it: NaN and Infinity are no numbers there."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path.name} holds {name}")

    return dict(json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse))


@pytest.fixture(scope="module")
def faces(frames: list[Array], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    """Five frames of the shipped clip as a data set, the model, the samples and the model's evaluation.

    What the model finds in them, displaced at random, is their labels.
    """
    folder = tmp_path_factory.mktemp("data") / "clip"
    folder.mkdir()
    with Detector("face68", backend="onnxruntime", precision="fp32", threads=1) as detector:
        for i in (0, 20, 40, 60, 230):
            (found,) = detector.detect(frames[i])
            rng = np.random.default_rng(i)
            points = found.keypoints + OFF * rng.normal(0, 1, (68, 2)) + 1  # .pts files count from 1
            lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
            (folder / f"{i}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
            assert cv2.imwrite(str(folder / f"{i}.png"), frames[i])
        spec = f"ibug:{folder}"
        samples = load_dataset([spec], detector.schema).samples
        evaluation = evaluate(detector.cascade, samples, "jitter", progress=False)
        yield spec, detector, samples, evaluation


# ---- what is done to photos -----------------------------------------------------------------------


@pytest.mark.parametrize("longer", DEGRADATIONS["size"].levels)
@pytest.mark.parametrize("index", range(3))
def test_a_resized_box_measures_the_pixels_it_says_and_labels_stay_in_place(
    kites: Any, longer: float, index: int
) -> None:
    (sample,) = kites(1, index)
    small = at_level(sample, "size", longer)
    box = tight_box(small.keypoints)
    # The picture's sides are whole pixels, which of the smallest one is a hundredth.
    assert max(box[2:] - box[:2]) == pytest.approx(longer, rel=0.012)
    image = small.read()
    radius = 5 * longer / max(sample.box[2:] - sample.box[:2])
    for point, colour in zip(small.keypoints, kites.COLOURS, strict=True):
        if radius < 2:  # blurred away
            break
        x, y = np.round(point).astype(int)
        np.testing.assert_allclose(image[y, x], colour, atol=40)


def test_a_large_photo_is_cut_to_the_surroundings_of_its_object() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (900, 1200, 3)).astype(np.uint8)
    sample = plain(image, (500.0, 400.0, 600.0, 480.0))
    whole = at_level(sample, "size", 100)  # its own size: only cut
    assert whole.load().shape == (400, 400, 3)
    x, y = (sample.keypoints[0] - whole.keypoints[0]).round().astype(int)
    np.testing.assert_allclose(whole.keypoints, sample.keypoints - (x, y), atol=1e-3)
    np.testing.assert_array_equal(whole.load(), image[y : y + 400, x : x + 400])


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_no_level_is_the_very_photo(kites: Any, name: str) -> None:
    (sample,) = kites(1)
    assert at_level(sample, name, None) is sample


@pytest.mark.parametrize("name", sorted(set(DEGRADATIONS) - {"box_jitter"}))
def test_every_level_differs_and_follows_from_name_and_seed(kites: Any, name: str) -> None:
    (sample,) = kites(1)
    levels = DEGRADATIONS[name].levels
    pictures = [at_level(sample, name, level).read() for level in levels]
    for level, picture in zip(levels, pictures, strict=True):
        np.testing.assert_array_equal(picture, at_level(sample, name, level).read())
    assert len({picture.tobytes() for picture in pictures}) == len(levels)
    drawn = name in ("motion_blur", "noise", "cover")
    other_seed = at_level(sample, name, levels[-1], 1).read()
    other_name = at_level(replace(sample, key="kite/other.png"), name, levels[-1]).read()
    for other in (other_seed, other_name):
        assert (other.tobytes() != pictures[-1].tobytes()) == drawn


def test_blur_noise_and_jpeg_act_on_objects_of_one_size(kites: Any) -> None:
    (sample,) = kites(1)
    for name in ("gaussian_blur", "motion_blur", "jpeg", "noise"):
        box = at_level(sample, name, DEGRADATIONS[name].levels[0]).box
        assert max(box[2:] - box[:2]) == pytest.approx(FACE, rel=0.01)
    for name in ("brightness", "cover"):
        np.testing.assert_array_equal(
            at_level(sample, name, DEGRADATIONS[name].levels[0]).keypoints, sample.keypoints
        )


@pytest.mark.parametrize("sigma", DEGRADATIONS["gaussian_blur"].levels)
def test_gaussian_blur_spreads_a_point_by_its_sigma(sigma: float) -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[190:210, 190:210] = 255
    sample = plain(image, (100.0, 100.0, 100.0 + FACE, 100.0 + FACE))
    before, after = (
        s.load()[..., 0].astype(float).sum(0) for s in (sample, at_level(sample, "gaussian_blur", sigma))
    )
    at = np.arange(400)

    def variance(weights: Array) -> float:
        mean = (weights * at).sum() / weights.sum()
        return float((weights * (at - mean) ** 2).sum() / weights.sum())

    assert variance(after) - variance(before) == pytest.approx(sigma**2, rel=0.1)


@pytest.mark.parametrize("length", DEGRADATIONS["motion_blur"].levels)
def test_motion_blur_draws_a_point_out_to_its_length(length: float) -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[200, 200] = 255
    sample = plain(image, (100.0, 100.0, 100.0 + FACE, 100.0 + FACE))
    rows, columns = np.nonzero(at_level(sample, "motion_blur", length).load()[..., 0])
    assert np.hypot(np.ptp(rows), np.ptp(columns)) == pytest.approx(length, abs=3)


@pytest.mark.parametrize("gain", DEGRADATIONS["brightness"].levels)
def test_brightness_multiplies_grey_levels(gain: float) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (20, 1, 3))
    out = at_level(plain(ramp, (5.0, 5.0, 200.0, 15.0)), "brightness", gain).load()
    np.testing.assert_allclose(out, np.minimum(ramp * float(gain), 255), atol=0.5)


def test_jpeg_files_grow_and_errors_fall_with_quality(kites: Any) -> None:
    (sample,) = kites(1)
    clean = at_level(sample, "size", FACE).load()
    qualities = sorted(int(q) for q in DEGRADATIONS["jpeg"].levels)
    assert (qualities[0], qualities[-1]) == (5, 95)
    sizes = [len(jpeg_file(clean, q)) for q in qualities]
    assert sizes == sorted(set(sizes))
    errors = [np.abs(at_level(sample, "jpeg", q).load() - clean.astype(float)).mean() for q in qualities]
    assert errors == sorted(set(errors), reverse=True)


@pytest.mark.parametrize("sigma", DEGRADATIONS["noise"].levels)
def test_noise_has_its_standard_deviation(sigma: float) -> None:
    image = np.full((300, 300, 3), 128, np.uint8)
    noise = at_level(plain(image, (50.0, 50.0, 250.0, 250.0)), "noise", sigma).load() - 128.0
    assert noise.mean() == pytest.approx(0, abs=0.02 * sigma)
    # Black and white cut off what goes further than 128 grey levels.
    drawn = np.clip(np.random.default_rng(0).normal(0, sigma, 10**6), -128, 127)
    assert noise.std() == pytest.approx(drawn.std(), rel=0.01)
    # Each pixel and colour has noise of its own.
    for other in (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, 1, 2)):
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("share", DEGRADATIONS["cover"].levels)
def test_a_cover_hides_its_share_of_the_box_and_nothing_else(share: float) -> None:
    rng = np.random.default_rng(0)
    image, other = (rng.integers(0, 256, (300, 300, 3)).astype(np.uint8) for _ in range(2))
    sample = plain(image, (100.0, 80.0, 200.0, 200.0))
    beside = plain(other, (100.0, 80.0, 200.0, 200.0), "plain/1.png")
    for seed in range(8):
        out = degrade(sample, "cover", share, "keypoints", beside, seed).load()
        changed = (out != image).any(2)
        assert changed.sum() == pytest.approx(share / 100 * 100 * 120, abs=230)
        changed[80:201, 100:201] = False
        assert not changed.any()


def test_a_cover_is_not_drawn_with_the_numbers_of_the_jitter() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 300, 3)).astype(np.uint8)
    sample = plain(image, (100.0, 80.0, 200.0, 200.0))
    jittered = covered(sample, sample, 0.3, 0)  # by the sample's own key, as its box is
    assert (at_level(sample, "cover", 30).load() != jittered).any()


def test_motion_blur_darkens_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    for length in DEGRADATIONS["motion_blur"].levels:
        blurred = motion_blur(image, length, 0.3)[50:-50, 50:-50]
        assert blurred.mean() == pytest.approx(image[50:-50, 50:-50].mean(), abs=0.3)


# ---- what is told of them -------------------------------------------------------------------------


def test_levels_are_measured_as_evaluate_does(faces: Faces) -> None:
    _, detector, samples, evaluation = faces
    told = by_degradation(detector.cascade, samples, evaluation.errors, 0, ("box_jitter", "size"))
    at = {row["level"]: row for row in told["box_jitter"]["levels"]}
    assert list(at) == list(DEGRADATIONS["box_jitter"].levels)
    tight = evaluate(detector.cascade, samples, "tight", progress=False)
    loose = evaluate(detector.cascade, samples, "jitter", progress=False, jitter=0.3)
    for output in ("stage1", "cascade"):
        assert at[0][output] == figures(tight.errors[output])
        assert at[10][output] == figures(evaluation.errors[output])
        assert at[30][output] == figures(loose.errors[output])
    levels = told["size"]["levels"]
    assert [row["level"] for row in levels] == [None, *DEGRADATIONS["size"].levels]
    assert levels[0]["cascade"] == figures(evaluation.errors["cascade"])
    assert levels[-1]["cascade"]["nme"] > levels[1]["cascade"]["nme"]
    sides = np.array([max(s.box[2:] - s.box[:2]) for s in samples])
    for row in levels[1:]:
        assert row.get("enlarged", 0) == (row["level"] > 1.02 * sides).sum()


def test_the_same_seed_gives_the_same_figures_in_lots_of_any_size(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, detector, samples, evaluation = faces
    kinds = ("noise", "cover")

    def measure(seed: int) -> dict[str, Any]:
        return by_degradation(detector.cascade, samples, evaluation.errors, seed, kinds)

    told = measure(0)
    monkeypatch.setattr(accuracy_parts, "AT_ONCE", 2)
    assert measure(0) == told
    other = measure(1)
    for kind in kinds:
        assert other[kind]["levels"][0] == told[kind]["levels"][0]
        assert other[kind]["levels"][-1] != told[kind]["levels"][-1]


def test_figures_say_what_they_count() -> None:
    row = figures(np.array([0.02, 0.06, 0.09, 0.15, np.inf, np.nan]))
    assert row["nme"] == pytest.approx(8.0)
    assert row["standard_error"] == pytest.approx(
        100 * np.std([0.02, 0.06, 0.09, 0.15], ddof=1) / 2, abs=1e-3
    )
    assert row["fr8"] == pytest.approx(60.0)
    assert row["fr10"] == pytest.approx(40.0)
    assert row["auc8"] == pytest.approx(100 * (0.06 + 0.02) / 0.08 / 5)
    assert set(figures(np.array([np.nan])).values()) == {None}


def test_errors_by_pupils_are_those_by_the_eye_corners_rescaled(faces: Faces) -> None:
    _, _, samples, evaluation = faces
    told = overall(evaluation)
    assert told["left_out"] == {}
    expected = []
    for sample, points in zip(samples, evaluation.keypoints, strict=True):
        truth = sample.keypoints.astype(np.float64)
        pupils = truth[36:42].mean(0) - truth[42:48].mean(0)
        expected.append(np.linalg.norm(points - truth, axis=1).mean() / np.linalg.norm(pupils))
    assert told["by_pupil_distance"]["cascade"]["nme"] == pytest.approx(100 * np.mean(expected), abs=1e-3)
    reference = told["by_reference_distance"]
    assert reference["distance"] == "left_eye_0 to right_eye_3"
    assert reference["cascade"]["nme"] == pytest.approx(100 * evaluation.errors["cascade"].mean(), abs=1e-3)


def test_pupils_are_found_by_name(kites: Any) -> None:
    assert accuracy_parts.pupil_points(FACE68) == (list(range(36, 42)), list(range(42, 48)))
    assert accuracy_parts.pupil_points(FACE98) == ([96], [97])
    assert accuracy_parts.pupil_points(kites.schema) is None


def test_the_mean_over_the_points_is_the_nme(faces: Faces) -> None:
    evaluation = faces[3]
    told = by_point(evaluation)
    for output in ("stage1", "cascade"):
        assert list(told[output]) == list(FACE68.keypoints)
        mean = np.mean(list(told[output].values()))
        assert mean == pytest.approx(100 * evaluation.errors[output].mean(), abs=1e-3)
    assert told["parts_cascade"]["jaw"] == pytest.approx(
        np.mean([told["cascade"][f"jaw_{i}"] for i in range(17)]), abs=1e-3
    )


def test_a_point_that_is_far_off_stands_out(faces: Faces) -> None:
    evaluation = faces[3]
    moved = evaluation.keypoints.copy()
    moved[:, 30] += 50
    told, before = by_point(replace(evaluation, keypoints=moved)), by_point(evaluation)
    assert max(told["cascade"], key=told["cascade"].__getitem__) == "nose_bridge_3"
    assert told["cascade"]["jaw_0"] == before["cascade"]["jaw_0"]
    assert told["stage1"] == before["stage1"]


def test_attributes_are_read_off_the_labels(faces: Faces) -> None:
    _, detector, samples, evaluation = faces
    mean_shape = detector.cascade.mean_shape
    turned = []
    for sample, degrees in zip(samples, (0, 7, -25, 40, -100), strict=True):
        upright = 200 * mean_shape
        turned.append(
            replace(
                sample,
                keypoints=transform_points(similarity(np.radians(degrees), 1.0), upright).astype(np.float32),
                visible=np.where(np.arange(68) < 7, 0, 1).astype(np.float32),
            )
        )
    labels = [{"occlusion": float(i < 2), "hat": 1.0} if i else {"occlusion": 1.0} for i in range(5)]
    told = by_attribute(replace(evaluation, samples=turned), labels, mean_shape)
    assert {name: row["samples"] for name, row in told["roll_degrees"].items()} == dict.fromkeys(
        ("0 to 5", "5 to 10", "20 to 30", "30 to 45", "45 to 180"), 1
    )
    second = figures(evaluation.errors["cascade"][1:2])
    assert told["roll_degrees"]["5 to 10"]["cascade"] == second
    assert {name: row["samples"] for name, row in told["points_hidden_percent"].items()} == {"10 to 25": 5}
    answers = {n: {a: r["samples"] for a, r in rows.items()} for n, rows in told["attributes"].items()}
    assert answers == {"occlusion": {"yes": 2, "no": 3}, "hat": {"yes": 4}}
    assert sum(row["samples"] for row in told["yaw_degrees"].values()) == 5
    assert told["left_out"] == {}


def test_lag_is_the_shift_of_a_path() -> None:
    t = np.arange(120)
    truth = np.stack([80 * np.sin(t / 9), 60 * np.cos(t / 14)], -1)[:, None] + np.arange(6).reshape(3, 2)
    for k in (-4, -1, 0, 1, 3, 5):
        assert lag_shift(np.roll(truth, k, axis=0), truth) == pytest.approx(k)
    half = (truth + np.roll(truth, 1, axis=0)) / 2
    assert lag_shift(half, truth) == pytest.approx(0.5, abs=0.011)
    gaps = np.roll(truth, 2, axis=0)
    gaps[40:60] = np.nan
    assert lag_shift(gaps, truth) == pytest.approx(2)
    assert lag_shift(np.full_like(truth, np.nan), truth) is None
    assert lag_shift(truth[:1].repeat(120, 0), truth[:1].repeat(120, 0)) is None


def test_precisions_are_the_models_own_or_skipped_by_reason(faces: Faces) -> None:
    _, _, samples, evaluation = faces
    told = by_precision("face68", samples, 0, 1)
    ways = {*told["networks"], *told["skipped"]}
    assert {"onnxruntime fp32 staged", "onnxruntime int8 staged", "tensorrt fp16 fused"} <= ways
    assert "onnxruntime fp32 fused" not in ways  # the shipped folder has no such file
    row = told["networks"]["onnxruntime fp32 staged"]
    assert row["cascade"] == figures(evaluation.errors["cascade"])
    assert (row["files"], row["nme_minus_fp32"]) == ("fp32", 0)
    assert told["networks"]["onnxruntime int8 staged"]["files"] == "int8-cpu"
    assert all(reason and "\n" not in reason for reason in told["skipped"].values())


# ---- the command ----------------------------------------------------------------------------------


def test_a_run_writes_figures_and_pictures_but_no_photo(faces: Faces, tmp_path: Path) -> None:
    out, spec = tmp_path / "results", faces[0]
    wanted = ["--only", "errors", "attributes", "points", "degradations", "motion", "--kinds", "jpeg", "size"]
    model = ["--backend", "onnxruntime", "--precision", "fp32", "--threads", "1"]
    assert main(["--data", spec, *model, *wanted, "--out", str(out), "--name", "try"]) == 0
    pictures = [out / f"try-{part}.png" for part in ("degradations", "errors", "points")]
    assert sorted(out.iterdir()) == sorted([*pictures, out / "try.json"])
    for picture in pictures:
        image = cv2.imread(str(picture))
        assert image is not None
        assert image.std() > 5
    told = strict_json(out / "try.json")
    assert {"command", "date", "machine", "versions"} <= set(told)
    assert (told["model"], told["backend"], told["precision"]) == ("face68", "onnxruntime", "fp32")
    assert (told["data"], told["samples"], told["left_out"]) == (["clip"], 5, {})
    assert str(tmp_path) not in (out / "try.json").read_text()
    errors = faces[3].errors["cascade"]
    assert told["errors"]["by_reference_distance"]["cascade"] == figures(errors)
    assert set(told["degradations"]) == {"jpeg", "size"}
    assert "precisions" not in told
    smooth = told["motion"]["smooth"]
    assert set(smooth) == {"off", "light", "strong"}
    assert smooth["light"]["jitter_rms_percent"] < smooth["off"]["jitter_rms_percent"]
    assert all(abs(row["lag_shift_frames"]) < 1 for row in smooth.values())


def test_the_worst_photos_are_drawn_where_asked(faces: Faces, tmp_path: Path) -> None:
    out, worst = tmp_path / "results", tmp_path / "elsewhere" / "worst.jpg"
    arguments = ["--data", faces[0], "--backend", "onnxruntime", "--only", "errors", "--out", str(out)]
    assert main([*arguments, "--worst", str(worst)]) == 0
    assert cv2.imread(str(worst)).shape == (512, 1024, 3)  # five tiles in rows of four
    assert sorted(path.name for path in out.iterdir()) == ["accuracy-errors.png", "accuracy.json"]


def test_another_object_leaves_out_by_name_what_only_faces_have(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["--data", "synthetic:6,seed=3", "--model", str(tiny_model), "--backend", "onnxruntime"]
    assert main([*arguments, "--kinds", "cover", "--out", str(tmp_path)]) == 0
    told = strict_json(tmp_path / "accuracy.json")
    assert set(told["left_out"]) == {"motion"}
    assert set(told["errors"]["left_out"]) == {"by_pupil_distance"}
    assert told["errors"]["by_pupil_distance"] is None
    assert set(told["attributes"]["left_out"]) == {"yaw_degrees, pitch_degrees"}
    assert sum(row["samples"] for row in told["attributes"]["points_hidden_percent"].values()) == 6
    assert "occlusion" in told["attributes"]["attributes"]
    assert len(told["points"]["cascade"]) == 12
    assert "onnxruntime fp32 staged" in told["precisions"]["networks"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "ibug:nowhere"], "nowhere"),
        (["--data", "synthetic:4"], "not the expected schema"),
        (["--data", "synthetic:4", "--model", "nosuch"], "nosuch"),
        (["--data", "synthetic:4", "--name", "../up"], "expected a plain name"),
        (["--data", "synthetic:4", "--name", "accuracy-afw"], "call it accuracy_afw"),
        (["--data", "synthetic:4", "--worst", "worst.txt"], "expected a name that ends in"),
        (["--data", "synthetic:4", "--out", __file__], "file exists"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path)]
    assert main([*arguments, *out]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--only", "faces"], ["--kinds", "rain"], ["--seed", "-1"], []])
def test_wrong_usage_ends_with_two(arguments: list[str]) -> None:
    data = ["--data", "synthetic:4"] if arguments else []
    with pytest.raises(SystemExit) as ended:
        main([*data, *arguments])
    assert ended.value.code == 2
