"""From a file of settings to a measured model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_kp.errors import ConfigError
from edge_kp.recipe import STEPS, commands, main

SHIPPED = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
TINY = """
[train]
data = "{data}:48"
part = "stages"
epochs = [1, 1]
k = 8
sizes = [32, 32]
widths = [8, 8]
readings = [1, 1]
batch = 16
workers = 0
[export]
terms = "none"
[evaluate]
data = ["{data}:6,seed=1", "{data}:5,seed=2"]
boxes = "tight"
pixel-mm = 0.1
within = [1, 2]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_understood(path: Path, tmp_path: Path) -> None:
    steps = commands(path, "pictures", tmp_path)
    assert [name for name, _ in steps][:2] == ["train", "export"]
    for name, arguments in steps:
        args = STEPS[name].make_parser().parse_args(arguments)
        if name == "train":
            assert all("pictures/" in data for data in args.data)
            assert (args.out, len(args.sizes)) == (tmp_path / "run", 2)


@pytest.mark.usefixtures("export_cache", "short_measuring")
def test_one_command_gives_a_measured_model(tmp_path: Path, capsys: Any) -> None:
    command = [str(written(tmp_path, TINY)), "--data", "synthetic", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert {"run", "model", "evaluation.json", "plots"} <= {p.name for p in (tmp_path / "out").iterdir()}
    first = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert first["samples"] == 11
    assert set(first["millimetres"]["points"]["all points"]["within_mm_percent"]) == {"1", "2"}
    told = json.loads((tmp_path / "out" / "model" / "model.json").read_text())
    assert told["card"]["terms"] == "none"
    log = (tmp_path / "out" / "run" / "stage2" / "log.csv").read_text()
    assert main(command) == 0  # finds the run finished
    assert (tmp_path / "out" / "run" / "stage2" / "log.csv").read_text() == log
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["summary"] == first["summary"]


def test_a_step_that_fails_is_the_last(tmp_path: Path, capsys: Any) -> None:
    path = written(tmp_path, TINY)
    assert main([str(path), "--data", "nothing", "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "unknown kind 'nothing'" in lines[0]
    assert lines[-1] == "error: train failed; the same command goes on once its cause is mended"
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[export]", "[exports]"), "exports: expected the tables train, export, calibrate, evaluate"),
        (("[train]", "speed = 3\n[train]"), "speed: expected the tables train"),
        (("[export]\nterms", "[train.more]\nterms"), "more: no such setting"),
        (("epochs =", "epoch ="), "epoch: no such setting; is it epochs?"),
        (("k = 8", "out = 'x'"), "out of train is made under --out; leave it out"),
        (("k = 8", "k = [8, 9]"), "k: expected one value, got a list of 2"),
        (("k = 8", "k = "), "not TOML"),
        (('part = "stages"', 'part = "stage"'), "recipe.toml: [train]: part: invalid choice: 'stage'"),
        (("epochs = [1, 1]", "epochs = 3"), "recipe.toml: [train]: epochs: expected 2 values"),
        (("epochs = [1, 1]", "epochs = [0, 1]"), "[train]: epochs: expected a whole number of at least 1"),
        (('data = "{data}:48"', ""), "[train]: the following arguments are required: --data"),
        (("[export]", "[export]\nprecision = []"), "[export]: precision: expected at least one value"),
        (('boxes = "tight"', 'boxes = "loose"'), "recipe.toml: [evaluate]: boxes: "),
    ],
)
def test_recipes_that_cannot_be_followed_are_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        commands(written(tmp_path, TINY.replace(*change)), "synthetic", tmp_path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_step_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the table \[evaluate\] is missing"):
        commands(written(tmp_path, TINY.partition("[evaluate]")[0]), "synthetic", tmp_path)
