"""Reading, checking and merging data sets, on small folders written here."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import problem, problems

from edge_kp.errors import DataError
from edge_kp.live.pictures import read_picture
from edge_kp.schema import FACE68, FACE98
from edge_kp.training.datasets import Dataset, load_dataset, parse_spec, read_image
from edge_kp.training.regions import cut_regions
from edge_kp.training.samples import farthest_pair
from edge_kp.training.synthetic import SYNTHETIC

SQUARE = [(10.0, 10.0), (30.0, 12.0), (31.5, 40.25), (9.0, 38.0), (20.0, 25.0)]


def write_image(path: Path, width: int = 48, height: int = 56) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:height, :width]
    assert cv2.imwrite(str(path), np.dstack([x * 5, y * 4, x + y]).astype(np.uint8))


def write_pts(path: Path, points: list[tuple[float, float]], header: bool = True) -> None:
    lines = [f"{x:.3f} {y:.3f}" for x, y in points]
    if header:
        lines = ["version: 1", f"n_points: {len(points)}", "{", *lines, "}"]
    path.write_text("\n".join(lines) + "\n")


def add(folder: Path, stem: str, points: list[tuple[float, float]] = SQUARE, suffix: str = ".jpg") -> None:
    write_image(folder / (stem + suffix))
    write_pts(folder / (stem + ".pts"), points)


def ring(n: int, radius: float = 15) -> list[tuple[float, float]]:
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return [(25 + radius * float(np.cos(t)), 25 + radius * float(np.sin(t))) for t in angle]


# ---- iBUG -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [True, False])
def test_pts_are_one_based(tmp_path: Path, header: bool) -> None:
    write_image(tmp_path / "set" / "a.png")
    write_pts(tmp_path / "set" / "a.pts", SQUARE, header)
    (sample,) = load_dataset([f"ibug:{tmp_path / 'set'}"]).samples
    assert np.array_equal(sample.keypoints, np.array(SQUARE, np.float32) - 1)
    assert sample.keypoints.dtype == np.float32
    assert sample.visible.shape == (5,)
    assert np.isnan(sample.visible).all()
    assert sample.attributes == {}
    assert np.array_equal(sample.box, np.array([8, 9, 30.5, 39.25], np.float32))
    assert sample.key == "set/a.png"


def test_pts_with_carriage_returns_mark_and_blank_lines(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    text = "\ufeffversion: 1\r\nn_points:  2\r\n{\r\n 1 2\r\n\r\n3.5\t4 \r\n}\r\n\r\n"
    (tmp_path / "a.pts").write_bytes(text.encode())
    assert load_dataset([f"ibug:{tmp_path}"]).samples[0].keypoints.tolist() == [[0, 1], [2.5, 3]]


def test_folder_is_read_in_order_and_extra_files_are_left_out(tmp_path: Path) -> None:
    for stem in ("b", "a", "c"):
        add(tmp_path, stem)
    write_image(tmp_path / "unlabelled.jpg")
    (tmp_path / "._a.pts").write_bytes(b"\x00\xff")
    (tmp_path / "notes.txt").write_text("hello")
    dataset = load_dataset([f"ibug:{tmp_path}"])
    assert [s.key.split("/")[1] for s in dataset.samples] == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(("n", "schema"), [(68, FACE68), (98, FACE98)])
def test_face_layouts_are_known_by_their_count(tmp_path: Path, n: int, schema: object) -> None:
    add(tmp_path, "a", ring(n))
    assert load_dataset([f"ibug:{tmp_path}"]).schema is schema


def test_other_counts_get_an_anonymous_schema(tmp_path: Path) -> None:
    add(tmp_path, "a")
    schema = load_dataset([f"ibug:{tmp_path}"]).schema
    assert (schema.name, len(schema), schema.can_flip, schema.edges) == ("points5", 5, False, ())
    assert schema.reference == (0, 2)


def test_loading_gives_the_stored_pixels(tmp_path: Path) -> None:
    add(tmp_path, "a", suffix=".png")
    sample = load_dataset([f"ibug:{tmp_path}"]).samples[0]
    image = pickle.loads(pickle.dumps(sample)).load()
    assert np.array_equal(image, cv2.imread(str(tmp_path / "a.png")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nn_points: 3\n{\n1 2\n3 4\n}\n", "the header says n_points: 3, but 2 points follow"),
        ("version: 1\nn_points: 2\n{\n1 2\n3 4\n", "is cut off"),
        ("version: 1\nn_points: 2\n", "is cut off"),
        ("1 2\nnan 4\n", "line 2: the point 'nan 4' is not finite"),
        ("{\n1 2\n-inf 4\n}", "line 3: the point '-inf 4' is not finite"),
        ("1 2\n3 four\n", "line 2: expected two numbers, got '3 four'"),
        ("1 2\n3\n", "line 2: expected two numbers, got '3'"),
        ("1 2 3\n", "line 1: expected two numbers, got '1 2 3'"),
        ("", "holds no points"),
        ("{\n}\n", "holds no points"),
        ("4 4\n4 4\n", "all points coincide"),
    ],
)
def test_damaged_pts_is_named(tmp_path: Path, text: str, message: str) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "a.pts").write_text(text)
    found = problem(lambda: load_dataset([f"ibug:{tmp_path}"]))
    assert found.startswith(f"{tmp_path / 'a.pts'}: ")
    assert message in found


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, make: Callable[[Path], object]) -> None:
    add(tmp_path, "a")
    write_image(tmp_path / "b.jpg")
    make(tmp_path / "b.pts")
    assert "b.pts" in problem(lambda: load_dataset([f"ibug:{tmp_path}"]))


def test_too_many_points_are_refused(tmp_path: Path) -> None:
    add(tmp_path, "a", ring(5000))
    assert "holds 5000 points, more than 4096" in problem(lambda: load_dataset([f"ibug:{tmp_path}"]))


def test_every_problem_of_every_set_is_reported_at_once(tmp_path: Path) -> None:
    for stem in ("a", "b", "c", "d", "e"):
        add(tmp_path / "one", stem)
    (tmp_path / "one" / "b.jpg").unlink()
    write_pts(tmp_path / "one" / "c.pts", SQUARE[:4])
    (tmp_path / "one" / "d.pts").write_bytes(b"\xff\xfe\x00")
    write_image(tmp_path / "one" / "e.png")
    specs = [f"ibug:{tmp_path / 'one'}", "ibug:", f"coco:{tmp_path / 'no.json'}", "voc:x"]
    found = "\n".join(problems(lambda: load_dataset(specs)))
    assert found.count("\n") == 6
    for message in (
        "b.pts: no image beside it",
        "c.pts: has 4 points, most files of its folder have 5",
        "d.pts: is no text file",
        "e.pts: 2 images beside it",
        "'ibug:': expected ibug:DIR",
        "no.json: no such file",
        "unknown kind 'voc'",
    ):
        assert message in found


def test_empty_or_missing_folder_names_the_next_step(tmp_path: Path) -> None:
    assert "holds no .pts file; give the folder" in problem(lambda: load_dataset([f"ibug:{tmp_path}"]))
    assert "no such folder; give" in problem(lambda: load_dataset([f"ibug:{tmp_path / 'x'}"]))


# ---- COCO -----------------------------------------------------------------------------------------

NAMES = ["nose", "left_ear", "right_ear", "tail"]


def coco_data(**category: Any) -> dict[str, Any]:
    """Two images; the first holds two animals, and one crowd and one unlabelled object to leave out."""
    first = [10.5, 20.5, 2, 15, 12.25, 1, 0, 0, 0, 40, 30, 2]
    second = [11, 21, 2, 16, 12, 2, 20, 12, 2, 41, 31, 2]
    marks = [(7, 1, first, 3), (8, 1, second, 4), (9, 2, second, 4), (10, 2, [0] * 12, 0)]
    annotations = [
        {"id": i, "image_id": image, "category_id": 3, "keypoints": k, "num_keypoints": n, "iscrowd": 0}
        for i, image, k, n in marks
    ]
    annotations.append({"id": 11, "image_id": 2, "category_id": 3, "keypoints": second, "iscrowd": 1})
    annotations.append({"id": 12, "image_id": 2, "category_id": 4, "bbox": [0, 0, 3, 3]})
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 48, "height": 56},
            {"id": 2, "file_name": "sub/b.png"},
        ],
        "annotations": annotations,
        "categories": [
            {"id": 3, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]], **category},
            {"id": 4, "name": "box"},
        ],
    }


def write_coco(file: Path, data: object, images: str = "images") -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))
    write_image(file.parent / images / "a.png")
    write_image(file.parent / images / "sub" / "b.png")
    return f"coco:{file}"


def test_a_skeleton_may_name_its_points_and_a_size_be_unknown(tmp_path: Path) -> None:
    plain = load_dataset([write_coco(tmp_path / "a" / "train.json", coco_data())])
    data = coco_data(skeleton=[[NAMES[0], NAMES[1]], [NAMES[0], NAMES[2]]])
    data["images"][0] |= {"width": None, "height": None}
    named = load_dataset([write_coco(tmp_path / "b" / "train.json", data)])
    assert named.schema == plain.schema
    assert named.samples[0].image_size is None


def test_coordinates_that_are_shares_of_the_sides_are_refused(tmp_path: Path) -> None:
    data = coco_data()
    for annotation in data["annotations"]:
        points = annotation.get("keypoints", [])
        points[0::3] = [x / 48 for x in points[0::3]]
        points[1::3] = [y / 56 for y in points[1::3]]
    with pytest.raises(DataError, match="are they shares of the sides"):
        load_dataset([write_coco(tmp_path / "pets" / "train.json", data)])


def clip_of(folder: Path, side: int, factor: float, pictures: int = 9, sizes: bool = False) -> str:
    """Rings all over pictures of ``side`` pixels, labelled in pixels times ``factor``."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    images, annotations = [], []
    for i in range(pictures):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((side, side, 3), np.uint8))
        size = {"width": side, "height": side} if sizes else {}
        images.append({"id": i, "file_name": f"{i}.png", **size})
        points = (np.array(ring(4)) / 50 * 0.4 + rng.uniform(0.1, 0.6, 2)) * side * factor
        keypoints = [v for x, y in points.tolist() for v in (x, y, 2)]
        annotations.append({"id": i, "image_id": i, "category_id": 3, "keypoints": keypoints})
    data = {**coco_data(), "images": images, "annotations": annotations}
    (folder / "k.json").write_text(json.dumps(data))
    return f"coco:{folder / 'k.json'}"


@pytest.mark.parametrize(
    ("side", "factor", "message"),
    [
        (
            500,
            1 / 5,
            "lie within 100 x 100 of the upper left corner of pictures of 500x500: are they percent",
        ),
        (500, 1, None),
        (120, 0.8, None),
        (300, 1 / 3, None),  # may be small things
        (500, 1.9, "most keypoints lie beyond the edges of their pictures, e.g. "),
    ],
)
@pytest.mark.parametrize("sizes", [False, True])
def test_coordinates_of_another_unit_are_refused(
    tmp_path: Path, side: int, factor: float, message: str | None, sizes: bool
) -> None:
    spec = clip_of(tmp_path / "many", side, factor, sizes=sizes)
    if message is None or (sizes and factor > 1):  # the file vouches for the size, which is compared later
        assert len(load_dataset([spec])) == 9
    else:
        assert message in problem(lambda: load_dataset([spec]))
    assert len(load_dataset([clip_of(tmp_path / "few", side, factor, pictures=3)])) == 3


def test_a_small_thing_in_the_corner_of_large_pictures_is_no_percentage(tmp_path: Path) -> None:
    spec = clip_of(tmp_path / "dial", 500, 1)
    data = json.loads((tmp_path / "dial" / "k.json").read_text())
    for i, annotation in enumerate(data["annotations"]):
        annotation["keypoints"] = [v for x, y in ring(4) for v in (30 + x / 4 + i, 50 + y / 4, 2)]
    (tmp_path / "dial" / "k.json").write_text(json.dumps(data))
    assert len(load_dataset([spec])) == 9


def test_names_of_pictures_that_nothing_is_labelled_in_do_not_matter(tmp_path: Path) -> None:
    data = coco_data()
    data["images"] += [
        {"id": 3, "file_name": "/data/job/c.png"},
        {"id": 4, "file_name": "../d.png"},
        {"id": 5},
    ]
    data["annotations"].append({"id": 20, "image_id": 3, "category_id": 4, "bbox": [0, 0, 3, 3]})
    data["annotations"].append({"id": 21, "image_id": 4, "category_id": 3, "keypoints": [], "iscrowd": 0})
    assert len(load_dataset([write_coco(tmp_path / "k.json", data)])) == 3


def test_coco_is_edge_based_with_three_kinds_of_visibility(tmp_path: Path) -> None:
    dataset = load_dataset([write_coco(tmp_path / "pets" / "train.json", coco_data())])
    assert [s.key for s in dataset.samples] == ["pets/a.png#7", "pets/a.png#8", "pets/sub/b.png#9"]
    assert dataset.names == ("pets/train.json",)
    sample = dataset.samples[0]
    expected = np.array([[10, 20], [14.5, 11.75], [np.nan, np.nan], [39.5, 29.5]], np.float32)
    np.testing.assert_array_equal(sample.keypoints, expected)
    np.testing.assert_array_equal(sample.visible, np.array([1, 0, np.nan, 1], np.float32))
    assert sample.image_size == (48, 56)
    assert dataset.samples[2].image_size is None
    assert sample.load().shape == (56, 48, 3)


@pytest.mark.parametrize("images", ["images", ".", "elsewhere"])
def test_coco_images_are_found(tmp_path: Path, images: str) -> None:
    spec = write_coco(tmp_path / "k.json", coco_data(), images)
    if images == "elsewhere":
        assert "none of its 2 images is in" in problem(lambda: load_dataset([spec]))
        spec += f",{tmp_path / images}"
    check_images(load_dataset([spec]))


def test_coco_objects_know_what_else_is_in_their_picture(tmp_path: Path) -> None:
    data = coco_data()
    data["annotations"][3]["bbox"] = [4, 6, 10, 20]  # unlabelled
    first, second, third = load_dataset([write_coco(tmp_path / "k.json", data)]).samples
    np.testing.assert_array_equal(first.others, [second.box])
    np.testing.assert_array_equal(second.others, [first.box])
    np.testing.assert_array_equal(third.others, [[3.5, 5.5, 13.5, 25.5]])
    assert first.use_background
    assert not third.use_background, "nobody knows where the crowd is"
    data["annotations"][4]["bbox"] = [0, 0, 3, 3]
    spec = write_coco(tmp_path / "k.json", data)
    third = load_dataset([spec]).samples[2]
    assert third.use_background
    assert len(third.others) == 2
    (one,) = load_dataset([f"{spec},take=1,seed=3"]).samples
    assert len(one.others) == (2 if one.key == third.key else 1), "those that were not drawn are still there"


def test_samples_are_called_by_the_file_they_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = load_dataset([write_coco(tmp_path / "k.json", coco_data())]).samples
    assert samples[0].shown == f"{tmp_path.resolve() / 'images' / 'a.png'}#7"
    monkeypatch.chdir(tmp_path)
    assert [s.shown for s in samples] == ["images/a.png#7", "images/a.png#8", "images/sub/b.png#9"]
    assert load_dataset(["synthetic:1"]).samples[0].shown == "synthetic/seed0/0"


def test_coco_numbers_are_each_one_annotations(tmp_path: Path) -> None:
    data = coco_data()
    data["annotations"][1]["id"] = 7
    spec = write_coco(tmp_path / "k.json", data)
    assert "two annotations have the id 7; give each its own" in problem(lambda: load_dataset([spec]))


def test_coco_schema_follows_the_category(tmp_path: Path) -> None:
    schema = load_dataset([write_coco(tmp_path / "k.json", coco_data())]).schema
    assert (schema.name, schema.keypoints) == ("cat", tuple(NAMES))
    assert schema.edges == ((0, 1), (0, 2))
    assert schema.flip_pairs == ((1, 2),)
    assert schema.reference == (0, 3)
    extended = coco_data(flip_pairs=[["nose", "tail"], [1, 2]], reference=["left_ear", "right_ear"])
    schema = load_dataset([write_coco(tmp_path / "e.json", extended)]).schema
    assert schema.flip_pairs == ((0, 3), (1, 2))
    assert schema.reference == (1, 2)


def test_coco_face68_is_the_built_in(tmp_path: Path) -> None:
    data = coco_data(name="face68", keypoints=[str(i) for i in range(68)], skeleton=[])
    del data["annotations"][1:]
    data["annotations"][0]["keypoints"] = [v for x, y in ring(68) for v in (x, y, 2)]
    assert load_dataset([write_coco(tmp_path / "k.json", data)]).schema is FACE68


def _edit(data: dict[str, Any], where: list[Any], value: object) -> dict[str, Any]:
    inner: Any = data
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    return data


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["categories", 1], {"id": 4, "name": "dog", "keypoints": ["a", "b"]}, None),
        (["categories"], [{"id": 3, "name": "cat"}], "no category names keypoints"),
        (["annotations", 0, "keypoints"], [1, 2, 2], "annotation 7: expected 12 keypoint numbers, got 3"),
        (["annotations", 0, "keypoints", 2], 5, "annotation 7: a visibility flag is none of 0, 1, 2"),
        (["annotations", 0, "keypoints", 0], float("nan"), "annotation 7: a keypoint is not finite"),
        (["annotations", 0, "keypoints", 0], 5000, "annotation 7: keypoint 0 at (4999.5, 20.0) lies far"),
        (["annotations", 0, "keypoints"], [5, 5, 2] * 4, "annotation 7: all points coincide"),
        (["annotations", 0, "image_id"], 99, "annotation 7: no image 99"),
        (["annotations", 0, "image_id"], "a\nb", "annotation 7: no image a b"),
        (["annotations", 0, "image_id"], "1", "have image_id '1', the image has id 1; write both alike"),
        (["images", 1, "id"], "2", "have image_id 2, the image has id '2'; write both alike"),
        (["images", 1], {"file_name": "sub/b.png"}, "number 2 of its images has no id; give it one"),
        (["images", 1], {"id": 2}, "number 2 of its images has no file_name; give it one"),
        (["annotations", 5], {"id": 12}, "number 6 of its annotations has no category_id; give it one"),
        (["annotations", 0, "id"], None, "number 1 of its annotations has no id, others have; give it one"),
        (["annotations", 0, "keypoints", 0], None, "annotation 7: a keypoint is not finite"),
        (["annotations", 0, "keypoints", 2], None, "annotation 7: a visibility flag is none of 0, 1, 2"),
        (["annotations", 0, "keypoints", 3], [15, 12], "annotation 7: a keypoint is no number"),
        (["images", 1, "file_name"], "c.png", "image 'c.png' is not in"),
        (["images", 0, "file_name"], "../a.png", "expected a name within the folder of images"),
        (["images", 0, "file_name"], "/etc/hostname", "expected a name within the folder of images"),
        (["images", 0, "file_name"], "x/../../a.png", "expected a name within the folder of images"),
        (["images", 0, "file_name"], "x" * 300, "' is not in"),
        (["images", 1, "id"], 1, "two images have the same id"),
        (["annotations", 0, "keypoints", 0], 10**400, "annotation 7: "),
        (["categories", 0, "keypoints"], [str(i) for i in range(10**5)], "4096"),
        (["annotations"], [], "holds no annotation with keypoints"),
        (["images"], 3, "is no COCO keypoints file (TypeError"),
        (["categories", 0, "flip_pairs"], [["nose", "wing"]], "'cat': 'wing' is none of its keypoints"),
        (["categories", 0, "reference"], [0, 9], "'cat': schema 'cat': reference (0, 9)"),
        (
            ["categories", 0, "skeleton"],
            [[0, 1]],
            "'cat': skeleton [0, 1]: COCO counts its keypoints from 1 to 4",
        ),
        (
            ["categories", 0, "skeleton"],
            [[1, 5]],
            "'cat': skeleton [1, 5]: COCO counts its keypoints from 1 to 4",
        ),
        (["categories", 0, "skeleton"], [["tail", "x"]], "'cat': 'x' is none of its keypoints"),
    ],
)
def test_coco_refusals(tmp_path: Path, where: list[Any], value: object, message: str | None) -> None:
    spec = write_coco(tmp_path / "k.json", _edit(coco_data(), where, value))
    if message is None:  # a second keypoint category that nothing uses does no harm
        assert len(load_dataset([spec])) == 3
    else:
        assert message in problem(lambda: load_dataset([spec]))


def test_annotations_without_ids_are_numbered_by_their_place(tmp_path: Path) -> None:
    data = coco_data()
    numbered = load_dataset([write_coco(tmp_path / "a" / "k.json", data)])
    data["annotations"].insert(0, data["annotations"].pop())  # one of another category, which keeps its id
    for annotation in data["annotations"][1:]:
        del annotation["id"]
    plain = load_dataset([write_coco(tmp_path / "b" / "k.json", data)])
    assert [s.key for s in plain.samples] == ["b/a.png#2", "b/a.png#3", "b/sub/b.png#4"]
    for sample, other in zip(plain.samples, numbered.samples, strict=True):
        assert np.array_equal(sample.keypoints, other.keypoints, equal_nan=True)


@pytest.mark.parametrize("written", [None, float("nan"), "", 1e300, [], 10**400])
def test_what_stands_for_an_unlabelled_point_does_not_matter(tmp_path: Path, written: object) -> None:
    data = coco_data()
    data["annotations"][0]["keypoints"][6:8] = [written, written]
    sample = load_dataset([write_coco(tmp_path / "k.json", data)]).samples[0]
    assert np.isnan(sample.keypoints).all(1).tolist() == [False, False, True, False]
    assert sample.keypoints[3].tolist() == [39.5, 29.5]


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("sub/b c.png", "sub/b%20c.png"),
        ("sub/b.png", "sub\\b.png"),
        ("sub/b c.png", "sub\\b%20c.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
    ],
)
@pytest.mark.parametrize("all_so", [False, True])
def test_a_name_that_is_written_in_another_way_is_told(
    tmp_path: Path, stored: str, written: str, all_so: bool
) -> None:
    data = coco_data()
    data["images"][1]["file_name"] = written
    if all_so:
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] == 2]
    spec = write_coco(tmp_path / "k.json", data)
    write_image(tmp_path / "images" / stored)
    found = problem(lambda: load_dataset([spec]))
    assert found.endswith(
        f"; {str(tmp_path / 'images' / stored)!r} is there: write its name as the file system has it"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"category_id": "3"}, ": they have category_id '3', the category has id 3; write both alike"),
        ({"keypoints": []}, ": its 5 annotations have none; export keypoints, not boxes"),
        ({"num_keypoints": 0}, ": num_keypoints is 0 in 4 annotations that have labelled points; write how"),
        ({"iscrowd": "0"}, ": 4 annotations with labelled points have iscrowd '0'; write the number 0 for"),
        ({"keypoints": [9, 9, 0] * 4}, ": in none of its 5 annotations two points are labelled"),
    ],
)
def test_a_file_without_labels_says_why(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    data = coco_data()
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 3]
    for annotation in data["annotations"]:
        annotation.update(fields)
    spec = write_coco(tmp_path / "k.json", data)
    assert f"holds no annotation with keypoints{message}" in problem(lambda: load_dataset([spec]))


def test_of_two_kinds_of_objects_in_coco_one_is_chosen(tmp_path: Path) -> None:
    data = coco_data()
    data["categories"][1]["keypoints"] = ["a", "b"]
    data["annotations"][5]["keypoints"] = [1, 1, 2, 5, 5, 2]
    spec = write_coco(tmp_path / "k.json", data)
    found = problem(lambda: load_dataset([spec]))
    assert "several categories with keypoints (cat, box), a model is of one; add e.g. ,only=cat" in found
    box = load_dataset([f"{spec},only=box"])
    assert (box.schema.name, box.schema.keypoints, len(box)) == ("box", ("a", "b"), 1)
    assert load_dataset([f"{spec},only=cat"]).schema.name == "cat"
    found = problem(lambda: load_dataset([f"{spec},only=dog"]))
    assert "no category with keypoints is called 'dog'; expected one of cat, box" in found


@pytest.mark.parametrize("content", [b"", b"{", b'{"images": [', b"\xff\xfe", b"[]", b"3", b"{}"])
def test_damaged_json_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "k.json"
    file.write_bytes(content)
    assert problem(lambda: load_dataset([f"coco:{file}"])).startswith(str(file))


# ---- WFLW -----------------------------------------------------------------------------------------


def wflw_line(name: str, attributes: str = "1 0 0 0 1 0", points: int = 98) -> str:
    numbers = " ".join(f"{v:.4f}" for p in ring(points) for v in p)
    return f"{numbers} 5 5 40 40 {attributes} {name}"


def test_wflw_is_zero_based_with_attributes(tmp_path: Path) -> None:
    write_image(tmp_path / "img" / "0--Parade" / "a.jpg")
    lines = [wflw_line("0--Parade/a.jpg"), wflw_line("0--Parade/a.jpg", "0 1 0 0 0 1")]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    dataset = load_dataset([f"wflw:{tmp_path / 'list.txt'},{tmp_path / 'img'}"])
    assert dataset.schema is FACE98
    assert [s.key for s in dataset.samples] == ["img/0--Parade/a.jpg#1", "img/0--Parade/a.jpg#2"]
    first, second = dataset.samples
    assert first.keypoints[0].tolist() == [40, 25]
    assert first.attributes["pose"] == first.attributes["occlusion"] == 1
    assert second.attributes == {
        "pose": 0, "expression": 1, "illumination": 0, "make_up": 0, "occlusion": 0, "blur": 1
    }  # fmt: skip
    check_images(dataset)


def test_wflw_reports_every_bad_line(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    lines = [
        wflw_line("a.jpg"),
        wflw_line("a.jpg", points=97),
        wflw_line("a.jpg", "1 0 0 0 2 0"),
        wflw_line("gone.jpg"),
        wflw_line("a.jpg").replace("40.0000", "nan", 1),
    ]
    (tmp_path / "l.txt").write_text("\n".join(lines))
    found = problems(lambda: load_dataset([f"wflw:{tmp_path / 'l.txt'},{tmp_path}"]))
    assert [p.partition("l.txt: ")[2].split(":")[0] for p in found[:3]] == ["line 2", "line 3", "line 5"]
    assert "image 'gone.jpg' is not in" in found[3]
    assert len(found) == 4


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/hostname", "sub/../../a.jpg", "x" * 300])
def test_a_list_names_no_image_elsewhere(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "img" / "b.jpg")
    lines = [wflw_line("b.jpg"), wflw_line(name)]
    (tmp_path / "l.txt").write_text("\n".join(lines))
    message = problem(lambda: load_dataset([f"wflw:{tmp_path / 'l.txt'},{tmp_path / 'img'}"]))
    assert ("is not in" if len(name) > 200 else "expected a name within the folder of images") in message


# ---- specs and merging ----------------------------------------------------------------------------

words = st.text(st.characters(exclude_characters=",=\n", codec="utf-8"), min_size=1, max_size=12)


@given(
    kind=st.sampled_from(["ibug", "coco"]),
    path=words,
    options=st.fixed_dictionaries(
        {},
        optional={
            "repeat": st.integers(1, 9999).map(str),
            "until": st.sampled_from(["0.5", ".25", "0.9999"]),
            "background": st.sampled_from(["yes", "no"]),
        },
    ),
)
def test_a_spec_reads_back(kind: str, path: str, options: dict[str, str]) -> None:
    text = ",".join([f"{kind}:{path}", *(f"{k}={v}" for k, v in options.items())])
    spec = parse_spec(text)
    assert (spec.kind, spec.args, dict(spec.options)) == (kind, (path,), options)
    assert str(spec) == text
    assert spec.repeat == int(options.get("repeat", 1))
    assert spec.until == float(options.get("until", 1))
    assert spec.use_background == (options.get("background") != "no")


@given(st.text(max_size=30) | st.builds("synthetic:{}".format, st.text(max_size=10)))
def test_any_text_is_a_spec_or_one_line(text: str) -> None:
    try:
        found = (str(parse_spec(text)),)
    except DataError as error:
        found = error.problems
    assert len(found) == 1
    assert len(found[0].splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faces", "unknown kind 'faces'; expected one of ibug:DIR, coco:"),
        ("ibug", "unknown kind"),
        ("ibug:", "expected ibug:DIR"),
        ("ibug:a,b", "expected ibug:DIR"),
        ("wflw:list.txt", "expected wflw:LIST,IMAGES_DIR"),
        ("ibug:a,repeat=0", "repeat='0'; expected a number from 1"),
        ("ibug:a,repeat=2.5", "expected a number from 1"),
        ("ibug:a,background=maybe", "expected yes or no"),
        ("ibug:a,until=1.5", "until='1.5'; expected a share of training such as 0.8"),
        ("ibug:a,until=half", "expected a share of training"),
        ("ibug:a,seed=3", "nothing is drawn at random; it goes with take=100"),
        (
            "ibug:a,sead=3",
            "unknown option 'sead'; expected one of repeat, until, background, take, seed, only",
        ),
        ("ibug:a,only=hand", "only: ibug knows no classes; leave it out"),
        ("coco:a,only=", "only=''; expected the name of a class"),
        ("yolo:a,b,c", "expected yolo:FILE.yaml[,SPLIT]"),
        ("ibug:a,take=0", "expected a number from 1 to 9999999"),
        ("ibug:a,repeats=3", "unknown option 'repeats'"),
        ("ibug:a,repeat=3,repeat=4", "repeat is given twice"),
        ("coco:a,repeat=3,b", "'b' follows the options"),
        ("synthetic:0", "N from 1"),
        ("synthetic:ten", "N from 1"),
        ("synthetic:-3", "N from 1"),
        ("synthetic:5,seed=-1", "expected a whole number"),
        ("rendered:5", "expected rendered:N,MODEL.npz[,PHOTOS_DIR]"),
        ("rendered:none,m.npz", "with N from 1 to 9999999, got 'none'"),
        ("rendered:5,m.npz,a,b", "expected rendered:N,MODEL.npz[,PHOTOS_DIR]"),
        ("rendered:5,nowhere/m.npz", "no such file; give the .npz file of a face model"),
    ],
)
def test_bad_specs(text: str, message: str) -> None:
    assert message in problem(lambda: load_dataset([text]))


def test_no_spec_is_refused() -> None:
    assert "no data set given" in problem(lambda: load_dataset([]))


def test_sets_are_mixed_with_their_own_options(tmp_path: Path) -> None:
    add(tmp_path / "one", "a", ring(68))
    add(tmp_path / "two", "a", ring(68))
    dataset = load_dataset(
        [f"ibug:{tmp_path / 'one'},repeat=3", f"ibug:{tmp_path / 'two'},background=no,until=0.6"]
    )
    assert [(s.key, s.repeat, s.until, s.use_background) for s in dataset.samples] == [
        ("one/a.jpg", 3, 1.0, True),
        ("two/a.jpg", 1, 0.6, False),
    ]
    assert dataset.names == ("one", "two")
    assert len(dataset) == 2


def test_different_schemas_are_not_mixed(tmp_path: Path) -> None:
    add(tmp_path / "one", "a", ring(68))
    add(tmp_path / "two", "a")
    specs = [f"ibug:{tmp_path / 'one'}", f"ibug:{tmp_path / 'two'}", "synthetic:2"]
    found = problems(lambda: load_dataset(specs))
    assert len(found) == 2
    assert (
        "data set two: its schema 'points5' (5 points) is not that of one, 'face68' (68 points)" in found[0]
    )
    assert "'mask12'" in found[1]


def test_the_same_sample_twice_is_refused() -> None:
    assert "'synthetic/seed0/0' comes twice" in problem(lambda: load_dataset(["synthetic:2", "synthetic:3"]))
    assert len(load_dataset(["synthetic:2", "synthetic:3,seed=1"])) == 5


def test_measured_reference_points_are_shared(tmp_path: Path) -> None:
    """Two halves of one set may measure different farthest pairs; together they have one."""
    add(tmp_path / "one", "a", [(5, 5), (40, 5), (20, 9)])
    add(tmp_path / "two", "a", [(5, 5), (9, 7), (20, 40)])
    one, two = (f"ibug:{tmp_path / name}" for name in ("one", "two"))
    train, other = load_dataset([one]).schema, load_dataset([two]).schema
    assert train.reference == (0, 1)
    assert other.reference == (0, 2)
    assert load_dataset([one, two]).schema == load_dataset([two, one]).schema
    assert load_dataset([two], schema=train).schema == train
    assert "is not the expected schema" in problem(lambda: load_dataset([two], schema=SYNTHETIC))


def test_farthest_pair_leaves_out_points_seldom_labelled() -> None:
    shapes = [np.array([(0, 0), (4, 0), (1, 1), (np.nan, np.nan)]) for _ in range(5)]
    shapes.append(np.array([(0, 0), (4, 0), (1, 1), (100, 100)]))
    assert farthest_pair(shapes) == (0, 1)


def test_farthest_pair_is_rather_one_that_is_nearly_always_labelled() -> None:
    whole = [np.array([(0, 0), (9, 0), (10, 0)], float) for _ in range(6)]
    shapes = [*whole, *(np.array([(0, 0), (9, 0), (np.nan, np.nan)]) for _ in range(4))]
    assert farthest_pair(whole) == (0, 2)
    assert farthest_pair(shapes) == (0, 1)


# ---- images ---------------------------------------------------------------------------------------


def folder_set(tmp_path: Path, suffix: str) -> tuple[Path, Dataset]:
    add(tmp_path, "a", suffix=suffix)
    return tmp_path / f"a{suffix}", load_dataset([f"ibug:{tmp_path}"])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_truncated_images_are_found(tmp_path: Path, suffix: str, share: float) -> None:
    path, dataset = folder_set(tmp_path, suffix)
    check_images(dataset)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "a" + suffix + ": the image is truncated" in problem(lambda: check_images(dataset))


def test_thumbnail_hides_no_cut_and_trailing_data_is_no_cut(tmp_path: Path) -> None:
    path, _ = folder_set(tmp_path, ".jpg")
    data = path.read_bytes()
    thumbnail = b"Exif\x00\x00" + data[:600] + b"\xff\xd9"
    whole = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    path.write_bytes(whole + b"appended clip" * 5000)
    assert read_image(str(path)).shape == (56, 48, 3)
    path.write_bytes(whole[:-20])
    assert "truncated" in problem(lambda: read_image(str(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_exif_says_and_as_a_run_turns_them(tmp_path: Path, orientation: int) -> None:
    path, _ = folder_set(tmp_path, ".jpg")
    jpeg = path.read_bytes()
    turn = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00" + bytes([orientation]) + b"\x00\x00"
    exif = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01" + turn + b"\x00\x00\x00\x00"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    (tmp_path / "images").mkdir()
    shutil.copy(path, tmp_path / "images")
    upright, stored = (
        read_picture(path),
        cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION),
    )
    assert upright is not None
    assert stored.shape == (56, 48, 3)
    assert upright.shape == ((48, 56, 3) if orientation > 4 else stored.shape)
    np.testing.assert_array_equal(read_image(str(path)), upright)
    height, width = upright.shape[:2]
    np.testing.assert_array_equal(read_image(str(path), (width, height)), upright)
    # Labels of a size that only the stored picture has were made on that.
    for size, shown in (((width, height), upright), ((48, 56), stored if orientation > 4 else upright)):
        data = coco_data()
        data["images"][0] |= {"file_name": path.name, "width": size[0], "height": size[1]}
        dataset = load_dataset([write_coco(tmp_path / "k.json", data)])
        np.testing.assert_array_equal(dataset.samples[0].read(), shown)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_twelve_bits_in_sixteen_are_refused_as_they_come_out_black(tmp_path: Path, suffix: str) -> None:
    path, values = tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 4096, (40, 40, 3), np.uint16)
    cv2.imwrite(str(path), values)
    assert "its 16-bit values end at 40" in problem(lambda: read_image(str(path)))
    # Sixteen bits, a black picture, and a dark one of eight are what they are.
    for whole in (16 * values, 0 * values, (values / 400).astype(np.uint8)):
        cv2.imwrite(str(path), whole)
        assert read_image(str(path)).shape == (40, 40, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff\xd9"])
def test_undecodable_images_are_found(tmp_path: Path, content: bytes) -> None:
    path, dataset = folder_set(tmp_path, ".jpg")
    path.write_bytes(content)
    assert "cannot be decoded" in problem(dataset.samples[0].load)


def check_images(dataset: Dataset) -> None:
    """What training does first."""
    cut_regions(dataset.samples, 64, "keypoints", progress=False)


def test_every_problem_with_images_is_collected(tmp_path: Path) -> None:
    for stem in ("a", "b", "c", "d"):
        add(tmp_path, stem)
    write_pts(tmp_path / "d.pts", [(-500, 10), *SQUARE[1:]])
    dataset = load_dataset([f"ibug:{tmp_path}"])
    (tmp_path / "a.jpg").unlink()
    write_image(tmp_path / "b.jpg", 7, 30)
    found = problems(lambda: check_images(dataset))
    assert len(found) == 3
    assert "a.jpg: No such file" in found[0]
    assert "b.jpg: image of 7x30 pixels, expected at least 8" in found[1]
    assert f"{tmp_path.name}/d.jpg: keypoint 0 at (-501.0, 9.0) lies far outside the 48x56 image" in found[2]


def test_the_stated_size_is_compared(tmp_path: Path) -> None:
    dataset = load_dataset([write_coco(tmp_path / "k.json", coco_data())])
    write_image(tmp_path / "images" / "a.png", 60, 56)
    found = problems(lambda: check_images(dataset))
    assert len(found) == 2
    assert "the label file says 48x56, the image is 60x56" in found[0]


def test_colour_order_and_grey_images(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((20, 30), 90, np.uint8))
    image = read_image(str(path))
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert (image == 90).all()


def test_some_samples_are_drawn() -> None:
    def keys(options: str) -> list[str]:
        return [s.key for s in load_dataset([f"synthetic:40{options}"]).samples]

    ten, twenty = keys(",take=10"), keys(",take=20")
    assert len(ten) == 10
    assert set(ten) < set(twenty) < set(keys(""))
    assert ten == sorted(ten, key=keys("").index)


def test_another_seed_draws_other_samples(tmp_path: Path) -> None:
    for name in "abcdefghij":
        add(tmp_path / "one", name, ring(68))

    def keys(options: str) -> set[str]:
        return {s.key for s in load_dataset([f"ibug:{tmp_path / 'one'}{options}"]).samples}

    draws = {frozenset(keys(f",take=5,seed={seed}")) for seed in range(4)}
    assert len(draws) > 1
    assert {len(draw) for draw in draws} == {5}
    assert "it holds 10 samples; take no more" in problem(lambda: keys(",take=11"))
