"""Pictures without any object: they are split, cut, shown as background, and what is found there is false."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_kp.errors import DataError
from edge_kp.files import IMAGE_SUFFIXES
from edge_kp.train import main
from edge_kp.training.augment import Augmentation
from edge_kp.training.datasets import load_dataset
from edge_kp.training.empty import PATCHES, empty_patches, empty_photos, split_empty
from edge_kp.training.photos import mark_unlabelled, read_photos
from edge_kp.training.regions import PATCH
from edge_kp.training.scenes import SceneDataset

GREEN = (40, 200, 60)


@pytest.fixture
def belt(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder of green pictures of different sizes."""

    def make(count: int) -> Path:
        folder = tmp_path / "belt"
        folder.mkdir()
        for i in range(count):
            cv2.imwrite(str(folder / f"{i}.png"), np.full((120 + i, 200, 3), GREEN, np.uint8))
        (folder / "notes.txt").write_text("no picture")
        return folder

    return make


def is_green(image: np.ndarray) -> bool:
    return bool((np.abs(image.astype(int) - GREEN) < 3).all())


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (10, 1), (40, 4)])
def test_a_tenth_of_few_is_held_back_and_a_single_one_is_trained_on(belt: Any, count: int, held: int) -> None:
    train, back = split_empty((str(belt(count)),), 0.0)
    assert (len(train), len(back)) == (count - held, held)
    assert not set(train) & set(back)
    assert split_empty((), 0.05) == ([], [])


def test_pictures_that_would_all_be_held_back_are_trained_on(belt: Any, tmp_path: Path) -> None:
    """Several of one name count as one subject."""
    folder = belt(1)
    other = tmp_path / "more"
    other.mkdir()
    (other / "0.png").write_bytes((folder / "0.png").read_bytes())
    train, back = split_empty((str(folder), str(other)), 0.05)
    assert (len(train), back) == (2, [])


def test_the_stages_see_squares_of_them_or_the_whole_where_that_is_the_box(belt: Any) -> None:
    paths, _ = split_empty((str(belt(4)),), 0.0)
    squares = empty_patches(paths, "keypoints", 1.6, False)
    assert len(squares) == PATCHES * len(paths)
    assert all(patch.shape == (PATCH, PATCH, 3) and is_green(patch) for patch in squares)
    again = empty_patches(paths, "keypoints", 1.6, False)
    np.testing.assert_array_equal(squares, again)
    wholes = empty_patches(paths, "image", 1.0, False)
    assert len(wholes) == len(paths)
    # The crop around the whole picture, with black above and below it.
    assert all(is_green(patch[PATCH // 2]) and not patch[0].any() for patch in wholes)


def test_the_locator_sees_them_as_background_and_never_alone(belt: Any, kites: Any) -> None:
    photos = read_photos(kites(3), progress=False)
    empty = empty_photos(split_empty((str(belt(12)),), 0.0)[0], False)
    data = SceneDataset([*photos, *empty], 96, 0, Augmentation(turn=0), False)
    assert len(data) == len(photos)
    shown = [data._background(64, np.random.default_rng(i)) for i in range(200)]
    assert np.mean([is_green(image) for image in shown]) > 0.3
    assert all(len(data.picture(i)[1].unlabelled) == 0 for i in range(len(data)))


def test_what_a_first_locator_finds_in_them_is_no_object(belt: Any, kites: Any) -> None:
    photos = read_photos(kites(2), progress=False)
    empty = empty_photos(split_empty((str(belt(2)),), 0.0)[0], False)
    box = np.array([1, 1, 9, 9], np.float32)
    marked = mark_unlabelled([*photos, *empty], lambda _: [box])
    assert [len(photo.unlabelled) for photo in marked] == [1, 1, *[0] * len(empty)]


@pytest.mark.usefixtures("short_measuring")
def test_a_training_uses_them_and_knows_them_again(
    belt: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = belt(12), tmp_path / "run"
    tiny = "--epochs 1 1 --k 4 --sizes 32 32 --widths 8 8 --batch 8 --workers 0 --locator-size 64"
    tiny += " --locator-width 8 --locator-epochs 1 --locator-pictures 1 --validation synthetic:4,seed=1"
    command = ["--data", "synthetic:24", *tiny.split(), "--out", str(out)]
    assert main([*command, "--empty", str(folder)]) == 0
    assert json.loads((out / "run.json").read_text())["empty"] == [str(folder)]
    assert json.loads((out / "locator.json").read_text())["photos"] == 4 + 2
    assert main(command) == 1
    assert "holds a run of other settings (empty)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere", "No such file or directory"), ("hollow", "holds no picture")]
)
def test_a_folder_that_gives_none_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "hollow").mkdir()
    with pytest.raises(DataError, match=f"--empty .*{name}: {said}"):
        split_empty((str(tmp_path / name),), 0.05)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_pictures_may_be_of_every_kind_that_can_be_run_on(tmp_path: Path, suffix: str) -> None:
    """In a folder of empty places, and beside labels."""
    cv2.imwrite(str(tmp_path / f"a{suffix}"), np.full((60, 60, 3), 90, np.uint8))
    assert split_empty((str(tmp_path),), 0.05)[0] == [tmp_path / f"a{suffix}"]
    (tmp_path / "a.pts").write_text("5 5\n40 5\n20 9\n")
    (sample,) = load_dataset([f"ibug:{tmp_path}"]).samples
    assert sample.read().shape == (60, 60, 3)


def test_damaged_pictures_are_all_told(belt: Any) -> None:
    folder = belt(3)
    for name in ("0.png", "2.png"):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        empty_photos(split_empty((str(folder),), 0.0)[0], False)
    assert [line.split(":")[0] for line in caught.value.problems] == [
        str(folder / name) for name in ("0.png", "2.png")
    ]
