"""The fuzz run: that it finds defects where there are some, and none here in a few cases of every kind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzzing.cases import KINDS

PLANTED = "planted_defects"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process that tries cases find the planted ones."""
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    kept = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *([kept] if kept else [])]))


def test_every_planted_defect_is_found_and_told_apart(planted: None) -> None:
    found = fuzz.fuzz(PLANTED, 2, 0, deadline_s=5, progress=False)
    defects = {defect["case"]: (defect["defect"], defect["said"]) for defect in found["defects"]}
    assert {case: name for case, (name, _) in defects.items()} == {
        "raises": "crash",
        "dies": "crash",
        "takes all memory": "crash",
        "never ends": "hang",
        "takes what it should refuse": "silent",
        "answers wrongly": "silent",
        "refuses what is good": "denied",
        "says two lines": "unclear",
        "says nothing": "unclear",
    }
    assert "ZeroDivisionError in planted_defects.py" in defects["raises"][1]
    assert "Aborted" in defects["dies"][1]
    assert defects["answers wrongly"][1] == "2 instead of 1"
    assert found["kinds"]["good"] == {
        **{"cases": 6, "answered": 3, "refused": 3},
        **dict.fromkeys(("crash", "hang", "silent", "denied", "unclear"), 0),
    }
    assert found["kinds"]["bad"]["answered"] == 1  # the one after all of them


def test_the_command_fails_with_a_defect_and_keeps_the_figures(
    planted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "CASES", PLANTED)
    arguments = ["--mutations", "1", "--deadline", "2", "--out", str(tmp_path)]
    assert fuzz.main([*arguments, "--kind", "bad"]) == 1
    assert "bad, answers wrongly: silent: 2 instead of 1" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "fuzz.json").read_text())["defects"]) == 9
    assert fuzz.main([*arguments, "--kind", "good"]) == 0
    assert json.loads((tmp_path / "fuzz.json").read_text())["kinds"]["good"]["cases"] == 5
    assert fuzz.main([*arguments, "--kind", "none"]) == 1
    assert "--kind none: expected one of good, bad" in capsys.readouterr().err


def test_a_seed_makes_the_same_cases() -> None:
    first, again, other = (list(fuzz.plan(KINDS, 3, seed)) for seed in (0, 0, 1))
    assert first == again != other
    alone = list(fuzz.plan({".pts": KINDS[".pts"]}, 3, 0))
    assert [case for case in first if case[0] == ".pts"] == alone


def test_a_few_cases_of_files_are_answered_or_refused() -> None:
    kinds = [kind for kind in KINDS if kind not in ("boxes", "network")]  # whose cases take long
    found = fuzz.fuzz(fuzz.CASES, 2, 1, only=kinds, progress=False)
    assert found["defects"] == []
    assert all(found["kinds"][kind]["refused"] > 5 for kind in kinds)
