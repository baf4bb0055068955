"""Choosing photos to label next, as the benchmark compares it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from benchmarks.next_labels import WAYS, arguments, chosen, drawn, main, write
from edge_kp.train import make_parser
from edge_kp.training.datasets import load_dataset


@pytest.mark.parametrize("way", WAYS)
def test_every_way_chooses_as_many(way: str) -> None:
    rng = np.random.default_rng(0)
    doubts, shapes = rng.random(30).tolist(), list(rng.normal(0, 1, (30, 5, 2)))
    found = chosen(way, doubts, shapes, 8)
    assert len(set(found)) == 8
    if way == "most doubtful":
        assert sorted(found) == sorted(np.argsort(doubts)[-8:].tolist())


def test_samples_are_written_as_they_are(tmp_path: Path) -> None:
    data = load_dataset(["synthetic:4"])
    samples = [replace(data.samples[0], use_background=False), *data.samples[1:]]
    folder = write(data.schema, samples, tmp_path / "set")
    back = load_dataset([f"coco:{folder / 'labels.json'}"])
    assert back.schema.keypoints == data.schema.keypoints
    for sample, read in zip(samples, back.samples, strict=True):
        np.testing.assert_allclose(read.keypoints, sample.keypoints, atol=1e-3)
        np.testing.assert_array_equal(read.visible, sample.visible)
        assert read.use_background == sample.use_background
        assert np.abs(read.read().astype(int) - sample.read()).mean() < 6
    args = make_parser().parse_args([*arguments(folder, 4, 1), "--out", str(tmp_path / "run")])
    assert args.data == [f"coco:{folder / 'labels.json'},repeat=200"]


def test_photos_are_drawn_anew_with_each_seed() -> None:
    samples = load_dataset(["synthetic:20"]).samples
    first, again, other = ([s.key for s in drawn(samples, seed)] for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(first) == sorted(other) == sorted(s.key for s in samples)


def test_too_few_photos_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "synthetic:20", "--test", "synthetic:5,seed=1"]) == 1
    assert "fewer than --start and --more together" in capsys.readouterr().err
