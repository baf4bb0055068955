"""Label files of labelme: points by name and group, and refusals that name the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from refusal import problem, problems

from edge_kp.training.datasets import load_dataset

POINTS = {"p1": (10.0, 8.0), "p2": (60.5, 12.0), "p10": (58.0, 44.25)}


def point(label: str, x: float, y: float, group: int | None = None, **fields: Any) -> dict[str, Any]:
    return {"label": label, "points": [[x, y]], "group_id": group, "shape_type": "point", **fields}


def rectangle(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    return {"label": "part", "points": [[x0, y0], [x1, y1]], "group_id": None, "shape_type": "rectangle"}


def shapes(
    points: Mapping[str, tuple[float, float]] = POINTS, group: int | None = None
) -> list[dict[str, Any]]:
    return [point(label, x, y, group) for label, (x, y) in points.items()]


def write(folder: Path, name: str, content: Sequence[dict[str, Any]], **fields: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / f"{name}.jpg"), np.full((60, 80, 3), 90, np.uint8))
    data = {"imagePath": f"{name}.jpg", "imageHeight": 60, "imageWidth": 80, "shapes": content, **fields}
    (folder / f"{name}.json").write_text(json.dumps(data))
    return f"labelme:{folder}"


def test_points_are_known_by_their_labels(tmp_path: Path) -> None:
    write(tmp_path / "set", "a", shapes()[::-1])
    dataset = load_dataset([write(tmp_path / "set", "b", shapes({"p2": (5, 5), "p1": (9, 7)}))])
    first, second = dataset.samples
    assert dataset.schema.keypoints == ("p1", "p2", "p10")
    assert np.array_equal(first.keypoints, np.array([*POINTS.values()], np.float32) - 0.5)
    assert np.array_equal(second.keypoints[:2], np.array([[8.5, 6.5], [4.5, 4.5]], np.float32))
    assert np.isnan(second.keypoints[2]).all()
    assert np.isnan(first.visible).all()
    assert (first.key, first.image_size, dataset.names) == ("set/a.jpg#1", (80, 60), ("set",))
    assert first.read().shape == (60, 80, 3)


def test_groups_are_objects_and_empty_rectangles_are_known_to_them(tmp_path: Path) -> None:
    near = {label: (x / 4, y / 4) for label, (x, y) in POINTS.items()}
    content = [*shapes(near, 7), *shapes(group=3), rectangle(1, 1, 70, 50), rectangle(79, 59, 70, 55)]
    first, second = load_dataset([write(tmp_path, "a", content)]).samples
    assert np.allclose(first.keypoints, np.array([*near.values()]) - 0.5)
    assert np.array_equal(first.others[0], second.box)
    assert np.array_equal(first.others[1], [69.5, 54.5, 78.5, 58.5])
    assert len(first.others) == 2
    assert first.use_background


def test_of_an_object_with_one_point_nobody_knows_where_it_ends(tmp_path: Path) -> None:
    (sample,) = load_dataset([write(tmp_path, "a", [*shapes(), point("p1", 3, 3, 1)])]).samples
    assert not sample.use_background


@pytest.mark.parametrize(
    "mark", [{"difficult": True}, {"flags": {"occluded": True}}, {"flags": {"hidden": 1}}]
)
def test_flags_tell_what_is_hidden(tmp_path: Path, mark: dict[str, Any]) -> None:
    content = [*shapes()[:2], point("p10", 30, 30, **mark)]
    (sample,) = load_dataset([write(tmp_path, "a", content)]).samples
    assert sample.visible.tolist() == [1, 1, 0]


def test_a_list_of_names_gives_their_order(tmp_path: Path) -> None:
    spec = write(tmp_path, "a", [*shapes(), rectangle(1, 1, 70, 50)])
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\npart\np10\np2\np7\np1\n")
    dataset = load_dataset([spec])
    assert dataset.schema.keypoints == ("p10", "p2", "p7", "p1")
    assert np.isnan(dataset.samples[0].keypoints[2]).all()
    (tmp_path / "labels.txt").write_text("p10\np2\n")
    assert problem(lambda: load_dataset([spec])).startswith(
        f"{tmp_path / 'a.json'}: its label 'p1' is not in "
    )


def test_names_that_hardly_any_object_has_are_told(tmp_path: Path) -> None:
    for i in range(24):
        write(tmp_path, f"{i:02}", shapes())
    spec = write(tmp_path, "x", [*shapes(), point("scratch", 5, 5)])
    write(tmp_path, "y", [])
    odd, blank = load_dataset([spec]).notes
    assert f"'scratch' is labelled in 1 of 25 objects, e.g. in {tmp_path / 'x.json'}" in odd
    assert blank.endswith("1 of 26 files hold no point: left out")
    write(tmp_path, "x", [*shapes()[:2], point("P10", 30, 30)])
    found = problem(lambda: load_dataset([spec]))
    assert found == f"{tmp_path / 'x.json'}: its label 'P10' is 'p10' elsewhere; write it so"


def test_left_and_right_are_paired_by_name(tmp_path: Path) -> None:
    spec = write(tmp_path, "a", shapes({"left ear": (10, 10), "right ear": (40, 10), "nose": (25, 30)}))
    assert load_dataset([spec]).pairs_by_name == ((0, 2),)


@pytest.mark.parametrize(
    "name", ["..\\images\\a.jpg", "../images/a.jpg", "C:\\photos\\a.jpg", "/home/me/a.jpg"]
)
def test_pictures_are_found_in_the_folder_given_for_them(tmp_path: Path, name: str) -> None:
    labels, images = tmp_path / "labels", tmp_path / "images"
    write(images, "a", [])
    (images / "a.json").unlink()
    spec = write(labels, "a", shapes(), imagePath=name)
    (labels / "a.jpg").unlink()
    assert f"its picture 'a.jpg' is not in {labels}" in problem(lambda: load_dataset([spec]))
    (sample,) = load_dataset([f"{spec},{images}"]).samples
    assert Path(sample.picture) == images / "a.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [*shapes(), point("p1", 3, 3)],
            "the object without a group has two points 'p1'; give the",
        ),
        ([*shapes(group=2), point("p1", 3, 3, 2)], "group 2 has two points 'p1'"),
        ([{**point("p1", 3, 3), "points": [[3]]}], "shape 1 ('p1'): expected points of two finite numbers"),
        ([{**point("p1", 3, 3), "points": []}], "shape 1 ('p1'): expected points of two finite numbers"),
        ([point("p1", float("nan"), 3)], "shape 1 ('p1'): expected points of two finite numbers"),
        ([{"label": "p1"}], "shape 1 is none; expected label, shape_type and points"),
        (["p1"], "shape 1 is none"),
        ([{**point("p1", 3, 3), "points": "xy"}], "shape 1 is none"),
        ([{**point("p1", 3, 3), "flags": [1]}], "shape 1 is none"),
        ([{**point("p1", 3, 3), "label": 5}], "shape 1: expected a text as label"),
        (
            [{**point("p1", 3, 3), "group_id": []}],
            "shape 1: expected a text as label and a number as",
        ),
        ([point("p1", 3, 3), point("p2", 3, 3)], "all points of an object coincide"),
        (
            [point("p1", 3, 3), point("p2", 900, 3)],
            "keypoint 1 at (899.5, 2.5) lies far outside the 80x60",
        ),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, content: Any, message: str) -> None:
    write(tmp_path, "a", shapes())
    spec = write(tmp_path, "b", content)
    found = problem(lambda: load_dataset([spec]))
    assert found.startswith(f"{tmp_path / 'b.json'}: ")
    assert message in found


def test_every_faulty_file_is_told(tmp_path: Path) -> None:
    spec = write(tmp_path, "a", shapes())
    for name, content in (("b", "{"), ("c", "[]"), ("d", '{"shapes": [], "imagePath": null}'), ("e", "\xff")):
        (tmp_path / f"{name}.json").write_bytes(content.encode("latin-1"))
    found = problems(lambda: load_dataset([spec]))
    assert [line.partition(": ")[0][-6:] for line in found] == ["b.json", "c.json", "d.json", "e.json"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "no such folder" in problem(lambda: load_dataset([f"labelme:{tmp_path / 'x'}"]))
    assert "holds no .json file" in problem(lambda: load_dataset([f"labelme:{tmp_path}"]))
    spec = write(tmp_path, "a", [point("p1", 3, 3), rectangle(1, 1, 9, 9)])
    assert "no object with two labelled points in its 1 files" in problem(lambda: load_dataset([spec]))
    assert "no such folder as nowhere" in problem(lambda: load_dataset([f"{spec},nowhere"]))
