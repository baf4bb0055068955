"""Photos that are called alike in folders that are called alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_kp.errors import DataError
from edge_kp.training.datasets import load_dataset
from edge_kp.training.split import training_samples

KEYS = [f"annotations/frame_{i:06}.jpg#{i + 1}" for i in range(12)]


def download(folder: Path, seed: int) -> str:
    """A labelling tool's export of a video: labels and frames have the same names for each."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for directory in ("annotations", "images"):
        (folder / directory).mkdir(parents=True)
    for i in range(12):
        name = f"frame_{i:06}.jpg"
        cv2.imwrite(str(folder / "images" / name), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        images.append({"id": i, "file_name": name})
        keypoints = np.column_stack([rng.uniform(5, 35, (3, 2)), [2, 2, 2]]).ravel().tolist()
        annotations.append({"id": i + 1, "image_id": i, "category_id": 1, "keypoints": keypoints})
    category = {"id": 1, "name": "thing", "keypoints": ["a", "b", "c"], "reference": [0, 1]}
    path = folder / "annotations" / "person_keypoints_default.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return f"coco:{path},{folder / 'images'}"


def keys(samples: object) -> list[str]:
    return [sample.key for sample in samples]  # type: ignore[attr-defined]


def test_downloads_of_several_videos_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    one, two, third = (download(tmp_path / name, i) for i, name in enumerate(("x/belt", "y/belt", "press")))
    assert keys(load_dataset([one]).samples) == KEYS
    # The first keeps its names, so that its photos stay on their side of the split.
    dataset = load_dataset([third, one, two])
    belt = [f"belt/{key}" for key in KEYS]
    assert keys(dataset.samples) == [*KEYS, *belt, *(f"y/{key}" for key in belt)]
    for sample in dataset.samples:
        sample.read()
    alone = [s.key for s in training_samples((third,), (), 0.3)[1]]
    both = [s.key for s in training_samples((third, one), (), 0.3)[1]]
    assert set(alone) <= {key.removeprefix("belt/") for key in both}
    assert len(both) == 2 * len({key.removeprefix("belt/") for key in both})


def test_a_video_to_train_on_and_another_to_validate_on(tmp_path: Path) -> None:
    one, two = (download(tmp_path / name, i) for i, name in enumerate(("belt", "press")))
    train, held = training_samples((one,), (two,), 0.05)
    assert keys(train.samples) == KEYS
    assert keys(held) == [f"press/{key}" for key in KEYS]


def test_a_copy_of_a_set_is_no_other_set(tmp_path: Path) -> None:
    one = download(tmp_path / "belt", 0)
    shutil.copytree(tmp_path / "belt", tmp_path / "copy")
    two = one.replace("belt", "copy")
    with pytest.raises(DataError, match=r"frame_000000.jpg#1' comes twice"):
        load_dataset([one, two])
    with pytest.raises(
        DataError, match="12 of the 12 samples of --validation are in pictures of --data, too"
    ):
        training_samples((one,), (two,), 0.05)
    with pytest.raises(
        DataError, match="12 of the 12 samples of --validation are in pictures of --data, too"
    ):
        training_samples((one,), (one,), 0.05)
