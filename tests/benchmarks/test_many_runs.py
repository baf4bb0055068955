"""Runs of a comparison: trained once, and never taken for those of other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.many_runs import train_all
from edge_kp.errors import BackendError

TINY = ["--k", "4", "--sizes", "32", "32", "--widths", "8", "8", "--epochs", "1", "1", "--batch", "32"]


def test_a_run_is_trained_once_and_one_of_other_settings_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "plain-0"
    train_all({out: ["--data", "synthetic:40", *TINY]}, 1)
    told = (out / "evaluation.json").stat().st_mtime_ns
    assert json.loads((out / "arguments.json").read_text()) == ["--data", "synthetic:40", *TINY]
    train_all({out: ["--data", "synthetic:40", *TINY]}, 1)
    assert (out / "evaluation.json").stat().st_mtime_ns == told
    with pytest.raises(BackendError, match="plain-0: holds a run of other settings; choose another --runs"):
        train_all({out: ["--data", "synthetic:41", *TINY]}, 1)
    (out / "arguments.json").unlink()  # of an older version: edge_kp.train itself compares
    with pytest.raises(BackendError, match="holds a run of other settings"):
        train_all({out: ["--data", "synthetic:41", *TINY]}, 1)
