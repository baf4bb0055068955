"""The evaluation command: figures that can be recomputed, pictures, and refusals in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_kp.cascade_result import CascadeResult
from edge_kp.detector import Detector
from edge_kp.evaluate import _millimetres, main
from edge_kp.look_rules import LookRules
from edge_kp.looks import search_all_turns
from edge_kp.metrics import auc, failure_rate
from edge_kp.modeldir import read_model, write_model_json
from edge_kp.training import evaluation as evaluation_module
from edge_kp.training import plots
from edge_kp.training.datasets import load_dataset
from edge_kp.training.evaluation import (
    OUTPUTS,
    Evaluation,
    best_overlap,
    detection_rates,
    evaluate,
    summary_table,
)
from edge_kp.training.plots import drawable
from edge_kp.training.samples import Sample
from edge_kp.types import Array

DATA = "synthetic:24,seed=1"
Report = dict[str, Any]


def strict_json(path: Path) -> Report:
    """JSON as other programs read it: NaN and Infinity are no numbers there."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path.name} holds {name}")

    return dict(json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse))


def report(model: Path, folder: Path, *arguments: str, data: str = DATA) -> Report:
    path = folder / f"report{len(list(folder.iterdir()))}.json"
    assert main(["--data", data, "--model", str(model), "--json", str(path), *arguments]) == 0
    return strict_json(path)


def table(text: str) -> dict[str, list[float]]:
    """Rows of the printed table: output name → its four figures."""
    rows = re.findall(r"^(\w+) +(-?[\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
    return {name: [float(v) for v in values] for name, *values in rows}


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A report with its pictures, and their folder."""
    folder = tmp_path_factory.mktemp("evaluation")
    return report(tiny_model, folder, "--plots", str(folder / "plots")), folder / "plots"


def test_limits_in_millimetres_want_the_size_of_a_pixel(capsys: Any) -> None:
    assert main(["--data", "synthetic:4", "--within", "3"]) == 1
    assert "--within: in millimetres of what? it goes with --pixel-mm" in capsys.readouterr().err


def test_the_table_says_what_the_report_says(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(tiny_model, tmp_path)
    text = capsys.readouterr().out
    title = text.splitlines()[0]
    assert title == found["title"]
    assert re.fullmatch(r"tiny fp32 \(\w+\) on synthetic:24,seed=1: 24 samples, jitter boxes", title)
    rows = table(text)
    assert tuple(rows) == OUTPUTS
    for name, figures in rows.items():
        expected = [found["summary"][name][key] for key in ("nme", "fr10", "auc8", "mean_radial_px")]
        np.testing.assert_allclose(figures, expected, atol=0.006)


def test_the_summary_follows_from_the_errors_of_the_samples(whole: tuple[Report, Path]) -> None:
    found, _ = whole
    assert found["samples"] == len(found["errors_percent"]) == 24
    assert found["missed"] == 0
    assert set(found["errors_percent"]) == {f"synthetic/seed1/{i}" for i in range(24)}
    for name in OUTPUTS:
        errors = np.array([row[name] for row in found["errors_percent"].values()])
        summary = found["summary"][name]
        assert summary["nme"] == pytest.approx(errors.mean(), abs=1e-3)
        assert summary["fr10"] == pytest.approx(100 * (errors > 10).mean(), abs=1e-9)
        assert summary["auc8"] == pytest.approx(100 * np.clip(8 - errors, 0, None).mean() / 8, abs=1e-2)


def test_errors_are_those_of_the_detector(whole: tuple[Report, Path], tiny_model: Path) -> None:
    """From the very boxes, one photo at a time, in plain numpy."""
    found, _ = whole
    samples = load_dataset([DATA]).samples
    with Detector(tiny_model) as detector:
        evaluation = evaluate(detector.cascade, samples, "jitter", progress=False)
        a, b = detector.schema.reference
        for i, sample in enumerate(samples):
            distance = np.linalg.norm(evaluation.keypoints[i] - sample.keypoints, axis=1).mean()
            unit = np.linalg.norm(sample.keypoints[a] - sample.keypoints[b])
            expected = found["errors_percent"][sample.key]["cascade"]
            assert 100 * distance / unit == pytest.approx(expected, abs=1e-3)
        tight = evaluate(detector.cascade, samples[:3], "tight", progress=False)
        detector.spec = replace(detector.spec, looks=LookRules(certain=0, placed=1))  # one look is enough
        for i, sample in enumerate(samples[:3]):
            (detection,) = detector.detect(sample.load(), [sample.box])
            np.testing.assert_allclose(tight.keypoints[i], detection.keypoints, atol=1e-4)
            assert tight.scores[i] == pytest.approx(detection.score, abs=1e-6)


def test_figures_say_where_they_are_from(whole: tuple[Report, Path], tiny_model: Path) -> None:
    found, _ = whole
    assert list(found)[:5] == ["command", "date", "commit", "machine", "versions"]
    assert found["command"].startswith(f"python -m edge_kp.evaluate --data {DATA} --model {tiny_model.name} ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert set(found["machine"]) == {"cpu", "system"}
    assert found["versions"]["edge-kp"]


def test_groups_by_attribute(whole: tuple[Report, Path]) -> None:
    found, _ = whole
    covered = {s.key for s in load_dataset([DATA]).samples if s.attributes["occlusion"] == 1}
    groups = found["by_attribute"]
    assert set(groups) == {"occlusion", "rotation_in_plane", "rotation_out_of_plane"}
    assert groups["occlusion"]["samples"] == len(covered) > 0
    errors = [found["errors_percent"][key]["cascade"] for key in covered]
    assert groups["occlusion"]["cascade"]["nme"] == pytest.approx(np.mean(errors), abs=1e-3)


def test_pictures_can_be_looked_at(whole: tuple[Report, Path]) -> None:
    found, folder = whole
    assert {p.name for p in folder.iterdir()} == {"errors.png", "worst.png"}
    curve, worst = cv2.imread(str(folder / "errors.png")), cv2.imread(str(folder / "worst.png"))
    assert curve.shape[0] > 200
    assert curve.std() > 5
    assert worst.shape == (3 * 256, 4 * 256, 3)  # twelve tiles
    assert all(worst[y : y + 256, x : x + 256].std() > 5 for y in (0, 256, 512) for x in (0, 256, 512, 768))
    assert found["samples"] >= 12


@pytest.mark.parametrize(
    ("name", "drawn"), [("w_009 (1) \u00fc\u00c9.jpg", "w_009 (1) uE.jpg"), ("\u732b\n\u00df.png", "___.png")]
)
def test_a_name_is_drawn_in_letters_that_opencv_has(name: str, drawn: str) -> None:
    assert drawable(name) == drawn


def test_the_jitter_follows_from_seed_and_file_name_alone(
    whole: tuple[Report, Path], tiny_model: Path, tmp_path: Path
) -> None:
    errors = whole[0]["errors_percent"]
    assert report(tiny_model, tmp_path)["errors_percent"] == errors
    fewer = report(tiny_model, tmp_path, data="synthetic:9,seed=1")["errors_percent"]
    assert fewer == {key: errors[key] for key in list(errors)[:9]}
    other = report(tiny_model, tmp_path, "--seed", "5")["errors_percent"]
    assert all(other[key] != errors[key] for key in errors)
    tight = report(tiny_model, tmp_path, "--boxes", "tight")["errors_percent"]
    assert all(tight[key] != errors[key] for key in errors)


def test_each_file_has_a_jitter_of_its_own(tiny_model: Path) -> None:
    (sample,) = load_dataset(["synthetic:1,seed=1"]).samples
    samples = [sample, replace(sample, key="b"), replace(sample, key="c"), sample]
    with Detector(tiny_model) as detector:
        first, second, third, again = evaluate(detector.cascade, samples, progress=False).errors["stage1"]
    assert first == again
    assert len({first, second, third}) == 3


class KnownErrors:
    """Stands where a cascade does: every output lies its own number of pixels beside the labels."""

    def __init__(self, spec: Any, samples: Sequence[Any]) -> None:
        self.spec = spec
        self.labels = iter([s.keypoints for s in samples])

    def __call__(self, image: Any, boxes: Any) -> CascadeResult:
        truth = next(self.labels)[None]
        beside = {
            name: truth + np.float32([pixels, 0])
            for pixels, name in enumerate(
                ("stage1_prior_keypoints", "stage1_keypoints", "prior_keypoints", "keypoints"), start=1
            )
        }
        return CascadeResult(
            **beside,
            score=np.float32([0.75]),
            visibility=np.ones((1, 12), np.float32),
            attributes=np.float32([[0.1, 0.2, 0.3]]),
            crop=lambda i: np.zeros((8, 8, 3), np.uint8),
            transforms=np.eye(2, 3)[None],
            wanted=np.eye(2, 3)[None],
            seconds={},
        )


def test_every_output_is_measured_by_itself(tiny_model: Path) -> None:
    samples = load_dataset(["synthetic:4,seed=1"]).samples
    spec = read_model(tiny_model)
    cascade: Any = KnownErrors(spec, samples)
    found = evaluate(cascade, samples, progress=False)
    for pixels, name in enumerate(OUTPUTS, start=1):
        np.testing.assert_allclose(found.radial[name], pixels, atol=1e-4)
        units = [spec.schema.reference_distance(s.keypoints) for s in samples]
        np.testing.assert_allclose(found.errors[name], pixels / np.array(units), rtol=1e-4)
        assert found.summary()[name]["mean_radial_px"] == pytest.approx(pixels, abs=1e-4)
    np.testing.assert_allclose(found.distances, 4, atol=1e-4)
    np.testing.assert_allclose(found.scores, 0.75)
    np.testing.assert_allclose(found.attributes, [[0.1, 0.2, 0.3]] * 4)


def test_shares_within_limits() -> None:
    distances = np.array([[1.0, 2.0], [np.nan, np.inf]])
    rates = detection_rates(distances, (0.5, 1, 2.5))
    assert rates == {"0.5": 0, "1": pytest.approx(100 / 3), "2.5": pytest.approx(200 / 3)}


def test_distances_in_millimetres(tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    found = report(tiny_model, tmp_path, "--boxes", "tight", "--pixel-mm", "0.5", "--within", "1", "100")
    rows = found["millimetres"]["points"]
    whole = rows.pop("all points")
    assert whole["mean_mm"] == pytest.approx(0.5 * found["summary"]["cascade"]["mean_radial_px"], abs=2e-3)
    assert whole["mean_mm"] == pytest.approx(np.mean([row["mean_mm"] for row in rows.values()]), abs=2e-3)
    assert len(rows) == 12
    assert whole["within_mm_percent"]["100"] == 100
    assert 0 <= whole["within_mm_percent"]["1"] < 100
    told = capsys.readouterr().out
    assert "≤ 1 mm" in told
    assert all(name in told for name in rows)


def test_what_is_left_without_the_mean_offset_of_each_point(tiny_model: Path) -> None:
    """Labels that are shifted, each point by its own way, change the offsets and nothing else."""
    samples = load_dataset(["synthetic:8,seed=3"]).samples
    with Detector(tiny_model) as detector:
        run = evaluate(detector.cascade, samples, "tight", progress=False)
    ways = 3 * np.stack([np.arange(12.0), -np.ones(12)], 1)
    moved = [replace(s, keypoints=(s.keypoints + ways).astype(np.float32)) for s in samples]
    plain, shifted = (_millimetres(r, 0.5, (1.0,)) for r in (run, replace(run, samples=moved)))
    left = [found["less_mean_offsets"] for found in (plain, shifted)]
    assert left[0]["mean_mm"] == pytest.approx(left[1]["mean_mm"], abs=2e-3)
    assert left[0]["mean_mm"] < plain["points"].pop("all points")["mean_mm"]
    assert shifted["points"].pop("all points")["mean_mm"] > left[1]["mean_mm"] + 3
    for i, name in enumerate(plain["points"]):
        difference = np.subtract(shifted["points"][name]["offset_mm"], plain["points"][name]["offset_mm"])
        np.testing.assert_allclose(difference, [-0.5 * 3 * i, 0.5 * 3], atol=5e-3)


# ---- located boxes -----------------------------------------------------------------------------------------


def test_objects_that_are_not_located_count_as_failures_but_not_in_the_means(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model without a locator takes the whole frame as its box, which fits some objects too badly."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    write_model_json(model, replace(read_model(model), locator="image", locator_size=0))
    found = report(model, tmp_path, "--boxes", "located")
    told = f"not located: {found['missed']} of 24; false: {found['false']['objects']} in 24 photos"
    assert told in capsys.readouterr().out
    assert 0 < found["missed"] < 24
    errors = [row["cascade"] for row in found["errors_percent"].values()]
    known = [e for e in errors if e is not None]
    assert len(known) == 24 - found["missed"]
    summary = found["summary"]["cascade"]
    assert summary["nme"] == pytest.approx(np.mean(known), abs=1e-3)
    failures = sum(e > 10 for e in known) + found["missed"]
    assert summary["fr10"] == pytest.approx(100 * failures / 24)
    assert np.isfinite(summary["mean_radial_px"])


def test_pictures_where_objects_were_missed(tiny_model: Path, tmp_path: Path) -> None:
    command = ["--data", "synthetic:6,seed=1", "--model", str(tiny_model), "--boxes", "located"]
    assert main([*command, "--plots", str(tmp_path / "plots")]) == 0
    assert cv2.imread(str(tmp_path / "plots" / "worst.png")).shape == (2 * 256, 4 * 256, 3)
    assert cv2.imread(str(tmp_path / "plots" / "errors.png")) is not None


def test_located_is_what_the_detector_tells(frames: list[Array]) -> None:
    """Upside down as well, where one upright look in the labelled box shows something else."""
    with Detector("face68", backend="onnxruntime", precision="fp16", threads=1) as detector:
        samples = []
        for i in range(3):
            image = np.ascontiguousarray(frames[i][::-1, ::-1])
            (face,) = detector.detect(image)
            visible = np.ones(68, np.float32)
            samples.append(Sample(f"clip/{i}.png", face.keypoints, visible, {}, image.copy))
        located = evaluate(detector.cascade, samples, "located", detector, progress=False)
        once = evaluate(detector.cascade, samples, "tight", progress=False)
    assert located.missed == 0
    assert located.errors["cascade"].max() == 0
    np.testing.assert_array_equal(located.keypoints, [s.keypoints for s in samples])
    assert once.errors["cascade"].min() > 0.3


def test_what_is_told_beside_the_labels_is_false(frames: list[Array]) -> None:
    """Where the data name all that is in a photo; a face that they name elsewhere is not."""
    with Detector("face68", backend="onnxruntime", threads=1) as detector:
        (found,) = detector.detect(frames[0])
        here = Sample(
            "a.png", found.keypoints, np.ones(68, np.float32), {}, lambda: frames[0], picture="a.png"
        )
        away = replace(here, key="a.png#2", keypoints=found.keypoints + 150)
        cases = {
            "right": ([here], {"a.png": 0}),
            "false": ([away], {"a.png": 1}),
            "named": ([replace(away, others=(found.box,)), replace(here, others=(away.box,))], {"a.png": 0}),
            "unknown": ([replace(away, use_background=False)], {}),
        }
        for name, (samples, expected) in cases.items():
            seen = evaluate(detector.cascade, samples, "located", detector, progress=False)
            assert {photo: len(false) for photo, false in seen.false.items()} == expected, name
            drawn = plots.draw_false(seen)
            assert (drawn is None) == (seen.false_count == 0), name
        assert not evaluate(detector.cascade, [away], "jitter", progress=False).false


def test_pictures_of_what_is_false(frames: list[Array], tmp_path: Path) -> None:
    with Detector("face68", backend="onnxruntime", threads=1) as detector:
        (found,) = detector.detect(frames[0])
        away = found.keypoints + 150
        sample = Sample("a.png", away, np.ones(68, np.float32), {}, lambda: frames[0])
        seen = evaluate(detector.cascade, [sample], "located", detector, progress=False)
    assert seen.false["a.png"][0].score == pytest.approx(found.score)
    names = [path.name for path in plots.write_plots(seen, tmp_path, "")]
    assert names == ["errors.png", "worst.png", "false.png"]
    tile = cv2.imread(str(tmp_path / "false.png"))
    assert tile.shape == (256, 256, 3)
    red = (tile.astype(int) - plots.RESULT == 0).all(-1)
    assert red.sum() > 68  # the points, on the picture
    right = replace(seen, false={})
    assert [path.name for path in plots.write_plots(right, tmp_path, "")] == ["errors.png", "worst.png"]
    assert not (tmp_path / "false.png").exists()


def test_a_photo_is_searched_once_for_all_its_objects(
    frames: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def counted(detector: Detector, image: Array) -> Any:
        searched.append(image)
        return search_all_turns(detector, image)

    monkeypatch.setattr(evaluation_module, "search_all_turns", counted)
    with Detector("face68", backend="onnxruntime", threads=1) as detector:
        faces = [detector.detect(frames[i])[0].keypoints for i in (0, 5)]
        samples = []
        for n, k in enumerate((0, 1, 0, 1, 0)):
            labels, load = faces[k] + 2 * n, frames[5 * k].copy
            samples.append(Sample(f"{k}#{n}", labels, np.ones(68, np.float32), {}, load, picture=str(k)))
        seen = evaluate(detector.cascade, samples, "located", detector, progress=False)
    assert len(searched) == 2
    for points, k in zip(seen.keypoints, (0, 1, 0, 1, 0), strict=True):
        np.testing.assert_allclose(points, faces[k], atol=1e-3)


def test_tiles_go_with_located_boxes(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", DATA, "--model", str(tiny_model), "--tiles", "2"]) == 1
    assert "--tiles: nothing is searched for" in capsys.readouterr().err


def test_the_best_overlapping_box_is_taken() -> None:
    box = np.array([0.0, 0, 10, 10])
    near, far = box + 1, box + 4
    assert best_overlap(box, [far, near]) == 1
    assert best_overlap(box, [box + 8]) is None
    assert best_overlap(box, []) is None


def evaluation(errors: list[float], located: list[bool]) -> Evaluation:
    values = np.array(errors)
    samples = load_dataset([f"synthetic:{len(errors)}"]).samples
    return Evaluation(
        load_dataset(["synthetic:1"]).schema,
        samples,
        dict.fromkeys(OUTPUTS, values),
        dict.fromkeys(OUTPUTS, np.where(located, 3.0, np.nan)),
        np.zeros((len(errors), 12, 2)),
        np.zeros((len(errors), 12, 2)),
        np.zeros((len(errors), 3)),
        np.where(located, 0.9, np.nan),
        len(located) - sum(located),
    )


def test_a_sample_without_a_unit_is_left_out_of_every_figure() -> None:
    """Its reference points are not labelled: found, yet without an error; no failure either."""
    rows = evaluation([0.02, 0.04, np.nan], [True, True, True]).summary()["cascade"]
    assert rows["nme"] == pytest.approx(3)
    assert rows["fr10"] == 0
    assert rows["auc8"] == pytest.approx(100 * auc(np.array([0.02, 0.04])))
    assert rows["fr10"] == 100 * failure_rate(np.array([0.02, 0.04]))


def test_samples_without_a_unit_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluation([0.02, np.nan, np.inf, np.nan], [True, True, False, True])
    assert found.unmeasured.tolist() == [False, True, False, True]
    names = [found.schema.keypoints[i] for i in found.schema.reference]
    last = summary_table(found, "title").splitlines()[-1]
    said = f"2 of 4 count in pixels alone, as {names[0]} and {names[1]} are not both labelled"
    assert last.startswith(said)
    assert "in pixels alone" not in summary_table(evaluation([0.02], [True]), "title")


def test_samples_without_a_unit_are_neither_failures_nor_the_worst() -> None:
    found = evaluation([0.02, np.nan, 0.05, np.nan], [True] * 4)
    for line in plots.draw_curves(found, "title").axes[0].lines:
        x, y = line.get_data()
        assert y[-1] == 100  # of those that have an error
        assert y[np.searchsorted(x, 3)] == 50
    tiles = np.hsplit(plots.draw_worst(found), 4)
    expected = [plots._tile(found, i) for i in (2, 0, 1, 3)]
    for tile, at in zip(tiles, expected, strict=True):
        np.testing.assert_array_equal(tile, at)
    assert plots.draw_worst(evaluation([np.nan, np.nan], [True] * 2)).shape == (256, 2 * 256, 3)
    plots.draw_curves(evaluation([np.nan, np.nan], [True] * 2), "title")


def test_an_unlabelled_reference_point_costs_one_error_only(tiny_model: Path) -> None:
    samples = list(load_dataset(["synthetic:3,seed=1"]).samples)
    keypoints = samples[1].keypoints.copy()
    with Detector(tiny_model) as detector:
        keypoints[detector.schema.reference[0]] = np.nan
        samples[1] = replace(samples[1], keypoints=keypoints)
        found = evaluate(detector.cascade, samples, "tight", progress=False)
    assert np.isnan(found.errors["cascade"]).tolist() == [False, True, False]
    assert np.isfinite(found.radial["cascade"]).all()
    assert found.missed == 0


# ---- refusals --------------------------------------------------------------------------------------------


def write_other_data(folder: Path) -> str:
    """Two photos of an object of five points."""
    folder.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((40, 40, 3), 90, np.uint8))
        points = "\n".join(f"{5 + 6 * i} {8 + 5 * i * i}" for i in range(5))
        (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 5\n{{\n{points}\n}}\n")
    return f"ibug:{folder}"


def test_data_of_another_object_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_other_data(tmp_path / "other")
    assert main(["--data", data, "--model", str(tiny_model), "--json", str(tmp_path / "x.json")]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.strip().splitlines()
    assert line.startswith("error: data set other: ")
    assert "'mask12' (12 points)" in line
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "synthetic:3", "--model", "no-such-model"], "model 'no-such-model'"),
        (["--data", "nothing:3"], "unknown kind 'nothing'"),
        (["--data", "synthetic:3", "--precision", "int8"], "no int8-cpu files"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--model", str(tiny_model), *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("option", ["--json", "--plots"])
def test_a_place_that_cannot_be_written_is_told(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    place = str(tmp_path / "file" / "x")
    assert main(["--data", "synthetic:2", "--model", str(tiny_model), option, place]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"give another {option}" in errors[0]


@pytest.mark.parametrize("boxes", ["haar", "", "Tight"])
def test_unknown_boxes_end_with_2(tiny_model: Path, boxes: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--data", DATA, "--model", str(tiny_model), "--boxes", boxes])
    assert ended.value.code == 2


def test_located_boxes_need_a_detector(tiny_model: Path) -> None:
    samples = load_dataset(["synthetic:1"]).samples
    with Detector(tiny_model) as detector:
        with pytest.raises(ValueError, match="need a detector"):
            evaluate(detector.cascade, samples, "located", progress=False)
        with pytest.raises(ValueError, match="no samples"):
            evaluate(detector.cascade, [], progress=False)
