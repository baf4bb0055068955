"""Which method wins, which layers stay as they are, and how files are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_kp.errors import DataError
from edge_kp.modeldir import ModelSpec, read_model
from edge_kp.training.calibration import search
from edge_kp.training.calibration.inputs import Held, held_out
from edge_kp.training.calibration.search import Judge, best_methods, layer_shifts, layers_to_keep
from edge_kp.training.datasets import load_dataset
from edge_kp.training.quantise import fp32_files, layer_names
from edge_kp.training.ranges import measure_ranges


def figures(nme: float, shift: float, agreement: float | None = None) -> dict[str, Any]:
    stages = {"stages": {"nme": nme, "shift": shift}}
    return stages if agreement is None else {**stages, "locator": {"agreement": agreement}}


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ({"minmax": figures(3.6, 0.1), "entropy": figures(3.5, 0.9)}, "entropy"),
        ({"minmax": figures(3.51, 0.1), "entropy": figures(3.5, 0.9)}, "minmax"),
    ],
)
def test_the_smallest_error_wins_and_shift_decides_between_equals(rows: dict[str, Any], best: str) -> None:
    assert best_methods(rows) == {"stage1": best, "stage2": best}


def test_the_locator_takes_the_most_like_boxes() -> None:
    rows = {"minmax": figures(3.5, 0.1, 0.9), "percentile": figures(3.9, 0.9, 0.95)}
    assert best_methods(rows) == {"stage1": "minmax", "stage2": "minmax", "locator": "percentile"}


def test_a_layer_is_kept_that_stands_out_and_matters() -> None:
    usual = dict.fromkeys("abcdefgh", 4e-4)
    assert layers_to_keep({**usual, "x": 2.1e-3, "y": 3e-3}) == ["y", "x"]
    assert layers_to_keep({**usual, "x": 1.9e-3}) == [], "not five times the median"
    assert layers_to_keep({**dict.fromkeys("abcdefgh", 1e-5), "x": 9e-4}) == [], "too small to matter"


@pytest.fixture(scope="module")
def spec(tiny_model: Path) -> ModelSpec:
    return read_model(tiny_model)


@pytest.fixture(scope="module")
def held(spec: ModelSpec) -> Held:
    return held_out(spec, load_dataset(["synthetic:10,seed=8"], spec.schema).samples)


def test_a_judge_finds_fp32_like_itself(tiny_model: Path, spec: ModelSpec, held: Held) -> None:
    sources = fp32_files(tiny_model)
    judge = Judge(spec, sources, held)
    figures = judge.stages(sources)
    assert figures["shift"] == 0
    assert figures["nme"] > 0


def test_boxes_are_counted_on_both_sides(tiny_model: Path, spec: ModelSpec, held: Held) -> None:
    judge = Judge(spec, fp32_files(tiny_model), held)
    one, far = np.array([0, 0, 10, 10.0]), np.array([50, 50, 60, 60.0])
    half = np.array([0, 0, 10, 5.0])
    judge._boxes = [[one], [one], [], [one, far]]
    seen = [[one], [half], [far], [far]]
    judge._run_locator = lambda files: seen  # type: ignore[method-assign]
    figures = judge.locator({})
    assert figures == pytest.approx({"recall": 3 / 4, "iou": 2.5 / 3, "extra": 1 / 4, "agreement": 2.5 / 5})


def test_a_judge_needs_reference_points(tiny_model: Path, spec: ModelSpec, held: Held) -> None:
    blind = []
    for sample in held.samples:
        points = sample.keypoints.copy()
        points[spec.schema.reference[0]] = np.nan
        blind.append(type(sample)(**{**vars(sample), "keypoints": points}))
    with pytest.raises(DataError, match="no validation sample has both reference points labelled"):
        Judge(spec, fp32_files(tiny_model), Held(blind, held.frames))


@pytest.mark.parametrize(("network", "least"), [("stage2", 1e-5), ("locator", search.LEAST)])
def test_a_layer_with_a_wrong_range_stands_out(
    tiny_model: Path,
    tiny_run: Path,
    network: str,
    least: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the search is for: one tensor's range is useless, and the layer that reads it is found."""
    monkeypatch.setattr(search, "LEAST", least)  # after so short a training, stage 2 looks at little
    monkeypatch.setattr(search, "layer_names", lambda *args: layer_names(*args)[:6])
    with np.load(tiny_run / ("check_crops.npz" if network == "stage2" else "check_frames.npz")) as file:
        images = file[network]
    source = fp32_files(tiny_model)[network]
    ranges = dict(measure_ranges(source, images, "minmax"))
    before = layer_shifts(source, images, "int8", ranges, tmp_path)
    assert list(before) == layer_names(source, "int8")[:6]
    assert not layers_to_keep(before)
    first = next(name for name in ranges if name.startswith("div"))  # the image, read by the first layer
    ranges[first] = (ranges[first][0] * 300, ranges[first][1] * 300)
    after = layer_shifts(source, images, "int8", ranges, tmp_path)
    stem = next(layer for layer in after if layer.endswith("stem.0.0"))
    assert layers_to_keep(after) == [stem]
    assert {n: v for n, v in after.items() if n != stem} == {n: v for n, v in before.items() if n != stem}
