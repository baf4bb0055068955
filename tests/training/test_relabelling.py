"""Labels by a cascade: what is written, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edge_kp import relabel as command
from edge_kp.cascade import Cascade
from edge_kp.errors import DataError
from edge_kp.schema import FACE68, KeypointSchema
from edge_kp.training import relabelling
from edge_kp.training.datasets import load_dataset
from edge_kp.training.relabelling import relabel
from edge_kp.training.samples import Sample
from edge_kp.training.writing import file_names

WIDTH, HEIGHT = 120, 90


def face(index: int) -> np.ndarray:
    """(68, 2) points on no symmetric shape, frame pixels."""
    return np.random.default_rng(index).uniform((30, 20), (90, 70), (68, 2)).astype(np.float32)


def picture(index: int) -> np.ndarray:
    """A picture whose first pixels tell its number, and on which side it is: mirrored, they are elsewhere."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[:, :60] = 20 * index
    return image


def sample(index: int) -> Sample:
    return Sample(f"set/face_{index}.jpg", face(index), np.ones(68, np.float32), {}, lambda: picture(index))


class Oracle:
    """Finds the true points, each view wrong by an offset of its own; sees nothing in some pictures."""

    def __init__(
        self, blind: Sequence[int] = (), wrong: Sequence[int] = (), schema: Any = FACE68, lean: float = 0
    ) -> None:
        self.lean = lean  # it puts every point so far to the right, mirrored or not
        self.spec = SimpleNamespace(schema=schema, score_threshold=0.5)
        self.blind, self.wrong = blind, wrong
        self.views = 0

    def __call__(self, image: np.ndarray, boxes: Sequence[np.ndarray], turns: Sequence[int]) -> Any:
        mirrored = bool((image[0, -1] != 90).any())
        index = round(float(image[0, -1 if mirrored else 0, 0]) / 20)
        truth = face(index).astype(np.float64)
        if index in self.wrong:
            truth += 15
        truth[:, 0] += self.lean
        if mirrored:
            truth = truth[FACE68.flip_index] * (-1, 1) + (WIDTH - 1, 0)
        assert list(turns) == [0] * len(boxes)
        for box in boxes:
            self.views += 1
            low, high = truth.min(0), truth.max(0)
            if index not in self.wrong:
                assert np.abs(box - [*low, *high]).max() < 0.25 * (high - low).max()
        offsets = np.linspace(-1, 1, len(boxes))[:, None, None]
        scores = np.full(len(boxes), 0.9)
        scores[-1] = 0.2 if index in self.blind else 0.9
        return SimpleNamespace(keypoints=truth + offsets, score=scores)


def run(*cascades: Oracle, samples: Sequence[Sample], out: Path, limit: float = 0.15) -> Any:
    assert {"__call__"} <= set(vars(Cascade))  # what the oracle stands in for
    return relabel(cascades, samples, out, limit)  # type: ignore[arg-type]


def test_labels_are_the_mean_of_all_views_and_read_back(tmp_path: Path) -> None:
    cascade = Oracle()
    done = run(cascade, samples=[sample(1), sample(2)], out=tmp_path / "new")
    assert (done.written, done.unseen, done.disputed) == (2, 0, 0)
    assert cascade.views == 2 * 2 * relabelling.VIEWS
    read = load_dataset([f"ibug:{tmp_path / 'new'}"])
    assert read.schema == FACE68
    for index, back in zip((1, 2), read.samples, strict=True):
        np.testing.assert_allclose(back.keypoints, face(index), atol=2e-3)
        assert cv2.absdiff(back.load(), picture(index)).mean() < 1.5


def test_what_is_unseen_or_disputed_is_left_out(tmp_path: Path) -> None:
    done = run(Oracle(blind=[1], wrong=[3]), samples=[sample(i) for i in (1, 2, 3)], out=tmp_path)
    assert (done.written, done.unseen, done.disputed) == (1, 1, 1)
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["face_2.jpg", "face_2.pts"]


def test_several_runs_give_their_mean_and_each_must_see_the_object(tmp_path: Path) -> None:
    done = run(Oracle(lean=2), Oracle(lean=-1, blind=[2]), samples=[sample(1), sample(2)], out=tmp_path)
    assert (done.written, done.unseen, done.disputed) == (1, 1, 0)
    (back,) = load_dataset([f"ibug:{tmp_path}"]).samples
    np.testing.assert_allclose(back.keypoints, face(1) + np.array([0.5, 0]), atol=2e-3)


def test_points_without_a_label_are_no_dispute(tmp_path: Path) -> None:
    part = sample(1)
    points = part.keypoints.copy()
    points[:20] = np.nan
    done = run(Oracle(), samples=[replace(part, keypoints=points)], out=tmp_path)
    assert done.written == 1
    np.testing.assert_allclose(load_dataset([f"ibug:{tmp_path}"]).samples[0].keypoints, face(1), atol=2e-3)


@pytest.mark.parametrize(("wrong", "written"), [([], 1), ([1], 0)])
def test_labels_without_a_reference_point_are_compared_too(
    tmp_path: Path, wrong: list[int], written: int
) -> None:
    """In reference distances of what the run sees, for want of the label's own."""
    points = sample(1).keypoints.copy()
    points[FACE68.reference[0]] = np.nan
    done = run(Oracle(wrong=wrong), samples=[replace(sample(1), keypoints=points)], out=tmp_path)
    assert (done.written, done.disputed) == (written, 1 - written)


def test_one_name_for_two_photos_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    other = replace(sample(2), key=sample(1).key)
    with pytest.raises(DataError, match=r"two samples would be written as .*face_1"):
        run(Oracle(), samples=[sample(1), other], out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_name_is_as_long_as_it_must_be(tmp_path: Path) -> None:
    """The photo's; with the object's number where it shows several; with the folder where two have one."""

    def names(*keys: str) -> list[str]:
        return file_names([replace(sample(1), key=key) for key in keys])

    assert names("set/a.jpg#7", "set/b.v2.jpg#8", "set/c") == ["a", "b.v2", "c"]
    assert names("set/a.jpg#7", "set/a.jpg#12") == ["a_o7", "a_o12"]
    assert names("x/a.jpg", "y/a.jpg", "y/b.jpg#2") == ["x_a", "y_a", "y_b_o2"]


def test_what_an_earlier_run_wrote_of_a_photo_that_is_now_left_out_is_removed(tmp_path: Path) -> None:
    three = [sample(i) for i in (1, 2, 3)]
    assert run(Oracle(), samples=three, out=tmp_path).written == 3
    (tmp_path / "mine.txt").touch()
    assert run(Oracle(wrong=[3]), samples=three, out=tmp_path).written == 2
    left = ["face_1.jpg", "face_1.pts", "face_2.jpg", "face_2.pts", "mine.txt"]
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == left


def test_the_folder_of_the_photos_themselves_is_not_written_to(tmp_path: Path) -> None:
    assert run(Oracle(), samples=[sample(1)], out=tmp_path).written == 1
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (again,) = load_dataset([f"ibug:{tmp_path}"]).samples
    with pytest.raises(DataError, match="the photos come from this folder; write to another"):
        run(Oracle(), samples=[again], out=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_labels_of_somebody_else_are_neither_written_over_nor_removed(tmp_path: Path) -> None:
    """As in a folder of links to photos that lie elsewhere."""
    (tmp_path / "face_1.pts").write_text("mine")
    with pytest.raises(DataError, match="holds labels that this program did not write"):
        run(Oracle(wrong=[1]), samples=[sample(1)], out=tmp_path)
    assert (tmp_path / "face_1.pts").read_text() == "mine"


def test_other_objects_are_labelled_as_coco_keypoints(tmp_path: Path) -> None:
    """What is read back is what was written: names, pairs, skeleton, reference, hidden points, places."""
    names = tuple(f"p{i}" for i in range(68))
    schema = KeypointSchema("bone", names, FACE68.flip_pairs, ((0, 1), (1, 2)), (3, 9))
    hidden = np.ones(68, np.float32)
    hidden[[4, 11]] = 0, np.nan
    samples = [replace(sample(0), visible=hidden), sample(1), sample(2)]
    done = run(Oracle(schema=schema, wrong=[2]), samples=samples, out=tmp_path / "out")
    assert (done.written, done.disputed) == (2, 1)
    assert not list((tmp_path / "out").glob("*.pts"))
    dataset = load_dataset([f"coco:{tmp_path / 'out' / 'labels.json'}"])
    assert dataset.schema == schema
    for index, found in enumerate(dataset.samples):
        np.testing.assert_allclose(found.keypoints, face(index), atol=2e-3)
        assert found.read().shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(found.visible == 0, samples[index].visible == 0)
    # Labels of somebody else are left alone here, too.
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "labels.json").write_text("{}")
    with pytest.raises(DataError, match="labels that this program did not write"):
        run(Oracle(schema=schema), samples=samples, out=tmp_path / "own")
    assert (tmp_path / "own" / "labels.json").read_text() == "{}"


def test_what_else_is_in_a_picture_is_told_to_the_next_training(tmp_path: Path) -> None:
    """Of two objects in a photo one is disputed; a third photo shows more that nobody has labelled."""
    schema = KeypointSchema("bone", tuple(f"p{i}" for i in range(68)), FACE68.flip_pairs, (), (3, 9))
    away, line = np.array([2, 3, 20, 33], np.float32), np.array([100, 5, 100, 40], np.float32)
    samples = [
        replace(sample(0), others=(away, line)),
        sample(1),
        replace(sample(2), use_background=False, others=(away,)),
    ]
    assert run(Oracle(schema=schema), samples=samples, out=tmp_path / "out").written == 3
    first, second, third = load_dataset([f"coco:{tmp_path / 'out' / 'labels.json'}"]).samples
    np.testing.assert_allclose(first.others, [away, [99.5, 5, 100.5, 40]], atol=2e-3)
    np.testing.assert_allclose(third.others, [away], atol=2e-3)
    assert not second.others
    assert [s.use_background for s in (first, second, third)] == [True, True, False]


@pytest.mark.parametrize("fields", [{"others": (np.array([2, 3, 20, 33]),)}, {"use_background": False}])
def test_faces_of_pictures_that_show_more_are_read_without_their_background(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    assert run(Oracle(), samples=[sample(0), sample(1)], out=tmp_path / "a").alone
    assert not run(Oracle(), samples=[replace(sample(0), **fields), sample(1)], out=tmp_path / "b").alone
    # What is left out is in no picture that was written.
    left_out = [replace(sample(0), **fields), sample(1)]
    assert run(Oracle(wrong=[0]), samples=left_out, out=tmp_path / "c").alone


def test_labels_of_pictures_that_are_all_left_out_now_are_removed(tmp_path: Path) -> None:
    schema = KeypointSchema("bone", tuple(f"p{i}" for i in range(68)), FACE68.flip_pairs, (), (3, 9))
    run(Oracle(schema=schema), samples=[sample(0)], out=tmp_path / "out")
    assert run(Oracle(schema=schema, wrong=[0]), samples=[sample(0)], out=tmp_path / "out").written == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".edge_kp"]


def test_the_command_needs_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--run", str(tmp_path), "--data", "synthetic:4", "--out", str(tmp_path / "new")]
    assert command.main(arguments) == 1
    assert "run.json" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
