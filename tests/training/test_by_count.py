"""Settings that follow from the number of photos: few are shown more often, in smaller steps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_kp.train import main
from edge_kp.training.by_count import LEAST_CROPS, LEAST_EPOCHS, about_settled, settled, templates_for
from edge_kp.training.recipe import Recipe
from edge_kp.training.samples import Sample

OPEN = Recipe(data=("ibug:photos",))
SHAPE = np.array([[1, 2], [9, 3], [5, 8]], np.float32)


def photos(count: int, repeat: int = 1) -> list[Sample]:
    sample = Sample("a.jpg", SHAPE, np.ones(3, np.float32), {}, lambda: np.zeros((9, 9, 3), np.uint8))
    return [replace(sample, key=f"{i}.jpg", repeat=repeat) for i in range(count)]


@given(st.integers(2, 5000), st.integers(1, 3))
def test_every_number_of_photos_gets_enough_crops_and_a_batch_that_it_fills(count: int, repeat: int) -> None:
    recipe = settled(OPEN, photos(count, repeat))
    for stage in (0, 1):
        crops = recipe.epochs[stage] * count * repeat
        assert crops >= LEAST_CROPS[stage]
        assert recipe.epochs[stage] == LEAST_EPOCHS[stage] or crops - count * repeat < LEAST_CROPS[stage]
    assert 2 <= recipe.batch <= min(64, max(2, count * repeat))
    assert 1 <= recipe.k <= min(64, count)


@pytest.mark.parametrize(
    ("count", "epochs", "batch", "k"),
    [
        (10, (2000, 3000), 10, 2),
        (100, (200, 300), 16, 25),
        (500, (40, 60), 16, 64),
        (762, (40, 60), 32, 64),
        (4000, (40, 60), 64, 64),
    ],
)
def test_what_is_chosen(count: int, epochs: tuple[int, int], batch: int, k: int) -> None:
    recipe = settled(OPEN, photos(count))
    assert (recipe.epochs, recipe.batch, recipe.k) == (epochs, batch, k)


def test_what_is_not_used_is_not_chosen() -> None:
    for bank in ({"templates": "bank.npz"}, {"stage1": "runs/one"}):
        assert settled(replace(OPEN, **bank), photos(100)).k == 0


def test_what_is_given_stays() -> None:
    given_all = replace(OPEN, epochs=(3, 4), batch=8, k=5)
    assert settled(given_all, photos(100)) == given_all
    assert about_settled(given_all, settled(given_all, photos(100)), photos(100)) is None


def test_what_is_chosen_is_told_by_the_flags_that_change_it() -> None:
    told = about_settled(OPEN, settled(OPEN, photos(100)), photos(100))
    assert told == (
        "for 100 samples an epoch: 25 templates (--k), 200 and 300 epochs (--epochs),"
        " 16 samples a step (--batch)"
    )
    some = replace(OPEN, epochs=(3, 4), templates="bank.npz")
    assert (
        about_settled(some, settled(some, photos(100)), photos(100))
        == "for 100 samples an epoch: 16 samples a step (--batch)"
    )


def test_shapes_with_few_labels_are_no_templates() -> None:
    part = SHAPE.copy()
    part[:2] = np.nan
    assert templates_for([SHAPE] * 40) == 10
    assert templates_for([SHAPE] * 40 + [part] * 40) == 10
    assert templates_for([SHAPE]) == 1


def test_a_run_keeps_what_was_chosen_and_goes_on_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_kp.training.by_count.LEAST_EPOCHS", (1, 1))
    monkeypatch.setattr("edge_kp.training.by_count.LEAST_CROPS", (50, 50))
    command = ["--data", "synthetic:24", "--out", str(tmp_path / "run"), "--part", "stages", "--workers", "0"]
    command += ["--sizes", "32", "32", "--widths", "8", "8", "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.search(r"for 21 samples an epoch: 5 templates .*, 3 and 3 epochs .*, 16 samples a step", said)
    kept = Recipe.read(tmp_path / "run" / "run.json")
    assert (kept.epochs, kept.batch, kept.k) == ((3, 3), 16, 5)
    assert main(command) == 0
    assert main([*command, "--batch", "8"]) == 1
    assert "holds a run of other settings (batch: 16 there, 8 now)" in capsys.readouterr().err
