"""Fuzz cases of a program with known defects."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong
from edge_kp.errors import DataError


def _raise(error: Exception) -> Any:
    raise error


def _random(shared: Any, folder: Path, rng: np.random.Generator) -> None:
    """Refuses by a message of its own for each seed."""
    raise DataError(f"number {rng.integers(10**9)}")


KINDS = {
    "good": Kind(
        share=lambda folder: (folder / "made").write_text("once"),
        fixed={
            "answered": Case(lambda shared, folder: None, ANSWERED),
            "refused": Case(lambda shared, folder: _raise(DataError("no such file")), REFUSED),
            "in an empty folder": Case(
                lambda shared, folder: Path("x").mkdir() if not list(folder.iterdir()) else _raise(Wrong())
            ),
            "in an empty folder again": Case(
                lambda shared, folder: None if not list(folder.iterdir()) else _raise(Wrong())
            ),
        },
        mutated=_random,
    ),
    "bad": Kind(
        fixed={
            "raises": Case(lambda shared, folder: _raise(ZeroDivisionError("one"))),
            "dies": Case(lambda shared, folder: os.abort()),
            "takes all memory": Case(lambda shared, folder: np.ones(2**33)),
            "never ends": Case(lambda shared, folder: time.sleep(1000)),
            "takes what it should refuse": Case(lambda shared, folder: None, REFUSED),
            "answers wrongly": Case(lambda shared, folder: _raise(Wrong("2 instead of 1"))),
            "refuses what is good": Case(lambda shared, folder: _raise(DataError("no")), ANSWERED),
            "says two lines": Case(lambda shared, folder: _raise(DataError("a\nb"))),
            "says nothing": Case(lambda shared, folder: _raise(DataError(""))),
            "goes on": Case(lambda shared, folder: None, ANSWERED),
        },
    ),
}
