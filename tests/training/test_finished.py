"""What a finished run tells of itself, and what is said where it tells too little."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_kp.errors import ModelError
from edge_kp.training.finished import read_figures, threshold_of


@pytest.mark.parametrize("content", [None, "", "{", "[" * 100_000])
def test_figures_that_cannot_be_read_name_the_next_step(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "locator.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=r"is not finished .*; run the same python -m edge_kp.train"):
        read_figures(path)


@pytest.mark.parametrize("figures", [{}, [], None, *({"threshold": v} for v in (None, "x", 1.5))])
def test_figures_without_a_threshold_name_the_next_step(figures: object) -> None:
    with pytest.raises(ModelError, match=r"locator.json: tells no threshold \(.*\); train the locator again"):
        threshold_of(Path("locator.json"), figures)


def test_the_threshold_is_what_the_figures_say(tmp_path: Path) -> None:
    path = tmp_path / "locator.json"
    path.write_text('{"threshold": 0.25}')
    assert threshold_of(path, read_figures(path)) == 0.25
