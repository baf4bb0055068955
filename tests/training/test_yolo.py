"""YOLO pose data sets: read as the same labels are from a COCO file, and refused with the line at fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from refusal import problem, problems

from edge_kp.schema import FACE68
from edge_kp.training.datasets import Dataset, load_dataset

SIZE = (80, 60)
POINTS = ((10.0, 8.0, 2), (60.5, 12.0, 2), (58.0, 44.25, 1), (0.0, 0.0, 0))
EIGHTHS = st.integers(0, 400).map(lambda v: v / 8)
BOX = (5.0, 4.0, 60.0, 45.0)  # x, y, width, height


def write_picture(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.dstack([x * 3, y * 3, x + y]).astype(np.uint8)).save(path, exif=exif)


def row(points: Sequence[tuple[float, ...]] = POINTS, kind: int = 0, size: tuple[int, int] = SIZE) -> str:
    x, y, w, h = BOX
    box = [(x + w / 2) / size[0], (y + h / 2) / size[1], w / size[0], h / size[1]]
    values = [*box, *(v for p in points for v in (p[0] / size[0], p[1] / size[1], *p[2:]))]
    return " ".join([str(kind), *(f"{v:.9f}" for v in values)])


def write_set(root: Path, rows: Sequence[str] = (row(),), **fields: Any) -> str:
    """A data set of one picture a row, in ``train``."""
    for i, text in enumerate(rows):
        write_picture(root / "images" / "train" / f"{i}.jpg")
        label = root / "labels" / "train" / f"{i}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text + "\n")
    return write_yaml(root / "data.yaml", **fields)


def write_yaml(file: Path, **fields: Any) -> str:
    data = {"path": ".", "train": "images/train", "kpt_shape": [4, 3], "names": {0: "part"}, **fields}
    file.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}))
    return f"yolo:{file}"


# ---- what is read ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(EIGHTHS.map(lambda v: 4 + v), EIGHTHS, st.sampled_from([0, 1, 2])), min_size=4, max_size=4
    ).filter(lambda points: len({p[:2] for p in points if p[2]}) >= 2)
)
def test_labels_are_those_of_the_same_coco_file(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[float, float, int]]
) -> None:
    root = tmp_path_factory.mktemp("set")
    ours = load_dataset([write_set(root, [row(points)])])
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": list(BOX),
        "keypoints": [v for p in points for v in p],
    }
    data = {
        "images": [{"id": 1, "file_name": "train/0.jpg", "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "part", "keypoints": [f"point_{i}" for i in range(4)]}],
    }
    (root / "k.json").write_text(json.dumps(data))
    theirs = load_dataset([f"coco:{root / 'k.json'}"])
    one, other = ours.samples[0], theirs.samples[0]
    assert ours.schema == theirs.schema
    assert np.allclose(one.keypoints, other.keypoints, atol=1e-4, equal_nan=True)
    assert np.array_equal(one.visible, other.visible, equal_nan=True)
    assert one.image_size == other.image_size == SIZE
    assert one.picture == other.picture
    assert np.array_equal(one.read(), other.read())


def test_the_yaml_file_names_points_pairs_and_reference(tmp_path: Path) -> None:
    named = {"kpt_names": {0: ["nose", "left", "right", "tail"]}, "reference": [0, 3]}
    dataset = load_dataset([write_set(tmp_path / "set", flip_idx=[0, 2, 1, 3], **named)])
    schema = dataset.schema
    assert (schema.name, schema.keypoints) == ("part", ("nose", "left", "right", "tail"))
    assert (schema.flip_pairs, schema.reference) == (((1, 2),), (0, 3))
    assert (dataset.pairs_by_name, dataset.measured_reference) == ((), False)
    assert dataset.names == ("set/train",)
    assert dataset.samples[0].key == "set/images/train/0.jpg#1"
    by_name = load_dataset([write_set(tmp_path / "set", **named)])
    assert (by_name.pairs_by_name, by_name.measured_reference) == (((1, 2),), False)
    assert load_dataset([write_set(tmp_path / "set", flip_idx=[0, 1, 2, 3], **named)]).schema.flip_pairs == ()


def test_a_built_in_kind_is_known_by_its_name(tmp_path: Path) -> None:
    points = [(5.0 + i, 3.0 + i % 7, 2) for i in range(68)]
    spec = write_set(tmp_path, [row(points)], names=["face68"], kpt_shape=[68, 3])
    assert load_dataset([spec]).schema == FACE68


def test_without_flags_visibility_is_unknown(tmp_path: Path) -> None:
    points = [(10.0, 8.0), (60.5, 12.0), (-8.0, -6.0), (0.0, 0.0)]
    (sample,) = load_dataset([write_set(tmp_path, [row(points)], kpt_shape=[4, 2])]).samples
    assert np.allclose(sample.keypoints[:2], [[9.5, 7.5], [60, 11.5]], atol=1e-4)
    assert np.isnan(sample.keypoints[2:]).all()
    assert np.isnan(sample.visible).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_shares_are_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    spec = write_set(tmp_path)
    write_picture(tmp_path / "images" / "train" / "0.jpg", orientation=orientation)
    (sample,) = load_dataset([spec]).samples
    height, width = sample.read().shape[:2]
    assert (width, height) == (SIZE if orientation in (1, 3) else SIZE[::-1])
    assert np.allclose(sample.keypoints[0], [10 / 80 * width - 0.5, 8 / 60 * height - 0.5], atol=1e-4)


def test_objects_with_fewer_than_two_points_are_known_to_the_others(tmp_path: Path) -> None:
    bare = [(0.0, 0.0, 0)] * 3
    rows = "\n".join([row(), row([*bare, (30.0, 30.0, 2)]), "", row(), row([(3.0, 3.0, 2), *POINTS[1:]])])
    spec = write_set(tmp_path, [rows])
    first, second = load_dataset([spec]).samples
    assert (first.key[-2:], second.key[-2:]) == ("#1", "#5")  # the repeated line is one object
    x, y, w, h = BOX
    assert np.allclose(first.others[1], [x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5], atol=1e-4)
    assert np.allclose(first.others[0], second.box)
    assert first.use_background


# ---- where pictures and labels lie ----------------------------------------------------------------


def in_folder(root: Path) -> str:
    write_set(root)
    return f"yolo:{root}"


def listed(root: Path) -> str:
    write_set(root)
    (root / "train.txt").write_text("./images/train/0.jpg\n\n")
    return write_yaml(root / "data.yaml", train="train.txt")


def beside_the_folder_that_is_told(root: Path) -> str:
    """As Roboflow writes it: ../train/images, which starts from a folder within."""
    write_picture(root / "train" / "images" / "0.jpg")
    (root / "train" / "labels").mkdir()
    (root / "train" / "labels" / "0.txt").write_text(row())
    return write_yaml(root / "data.yaml", path=None, train="../train/images")


def of_another_machine(root: Path) -> str:
    write_set(root)
    return write_yaml(root / "data.yaml", path="/content/datasets/part")


def labels_beside_pictures(root: Path) -> str:
    write_picture(root / "photos" / "0.jpg")
    (root / "photos" / "0.txt").write_text(row())
    return write_yaml(root / "data.yaml", train=["photos"])


def split_of_another_name(root: Path) -> str:
    return write_set(root, val="images/train", train=None) + ",val"


@pytest.mark.parametrize(
    "lay_out",
    [
        in_folder,
        listed,
        beside_the_folder_that_is_told,
        of_another_machine,
        labels_beside_pictures,
        split_of_another_name,
    ],
)
def test_data_sets_are_laid_out_in_many_ways(tmp_path: Path, lay_out: Any) -> None:
    root = tmp_path / "set"
    root.mkdir()
    dataset: Dataset = load_dataset([lay_out(root)])
    assert [Path(s.picture).name for s in dataset.samples] == ["0.jpg"]
    assert dataset.samples[0].key.startswith("set/")
    assert dataset.samples[0].read().shape == (60, 80, 3)


def test_training_and_validation_splits_are_one_kind_of_object(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_picture(tmp_path / "images" / split / "0.jpg")
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "0.txt").write_text(row())
    spec = write_yaml(tmp_path / "data.yaml", val="images/val")
    train = load_dataset([spec])
    assert load_dataset([f"{spec},val"], train.schema).schema == train.schema


def test_pictures_without_labels_are_left_out(tmp_path: Path) -> None:
    spec = write_set(tmp_path, [row(), ""])
    write_picture(tmp_path / "images" / "train" / "new.jpg")
    assert len(load_dataset([spec])) == 1


def test_one_class_of_several_is_chosen_by_name(tmp_path: Path) -> None:
    rows = [row(), row(kind=1), row(kind=1)]
    spec = write_set(tmp_path, rows, names=["left hand", "right hand"])
    found = problem(lambda: load_dataset([spec]))
    assert "several classes (left hand, right hand), a model is of one; add e.g. ,only=left hand" in found
    dataset = load_dataset([f"{spec},only=right hand"])
    assert (len(dataset), dataset.schema.name) == (2, "right hand")
    found = problem(lambda: load_dataset([f"{spec},only=hand"]))
    assert "no class is called 'hand'; expected one of left hand, right hand" in found


def test_a_class_of_fewer_points_has_fewer_names(tmp_path: Path) -> None:
    """One kpt_shape holds for all classes of a file."""
    rows = [row(), row([*POINTS[:3], (0.0, 0.0, 0)], kind=1)]
    names = {0: list("abcd"), 1: list("xyz")}
    spec = write_set(tmp_path, rows, names=["four", "three"], kpt_names=names, flip_idx=[0, 1, 3, 2])
    three = load_dataset([f"{spec},only=three"])
    assert (three.schema.keypoints, three.schema.flip_pairs) == (("x", "y", "z"), ())
    assert three.samples[0].keypoints.shape == (3, 2)
    assert load_dataset([f"{spec},only=four"]).schema.flip_pairs == ((2, 3),)


def test_boxes_alone_of_another_class_are_passed_over(tmp_path: Path) -> None:
    spec = write_set(tmp_path, [f"{row()}\n1 0.5 0.5 0.1 0.1"], names=["part", "box"])
    assert "a box alone" in problem(lambda: load_dataset([spec]))
    assert len(load_dataset([f"{spec},only=part"])) == 1


def test_splits_in_one_folder_are_told_apart_by_lists(tmp_path: Path) -> None:
    write_set(tmp_path, [row()] * 4)
    (tmp_path / "train.txt").write_text("".join(f"images/train/{i}.jpg\n" for i in (0, 1, 2)))
    (tmp_path / "val.txt").write_text("images/train/3.jpg\n")
    spec = write_yaml(tmp_path / "data.yaml", train="train.txt", val="val.txt", flip_idx=[])
    assert [len(load_dataset([name])) for name in (spec, f"{spec},val")] == [3, 1]
    assert load_dataset([spec]).notes == ()


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    spec = write_set(tmp_path, [row()] * 3)
    assert load_dataset([spec]).notes == ()
    (tmp_path / "labels" / "train" / "1.txt").write_text("\n")
    (tmp_path / "images" / "train" / "2.jpg").unlink()
    write_picture(tmp_path / "images" / "train" / "new.jpg")
    left, lost = load_dataset([spec]).notes
    assert "train: 1 of 3 pictures have no label file, and 1 an empty one: left out" in left
    assert lost.endswith(
        f"train: 1 label files have no picture, e.g. {tmp_path / 'labels' / 'train' / '2.txt'}"
    )


# ---- what is refused ------------------------------------------------------------------------------

NUMBERS = row().split()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1", "expected 5 + 4 x 3 numbers (kpt_shape), got 5: a box alone, as for detection"),
        (row(POINTS[:3]), "expected 5 + 4 x 3 numbers (kpt_shape), got 14"),
        (row(kind=1), "class 1 is none of names"),
        (" ".join(["0.5", *NUMBERS[1:]]), "class 0.5 is none of names"),
        (" ".join([*NUMBERS[:5], "x", *NUMBERS[6:]]), "could not convert string to float: 'x'"),
        (" ".join([*NUMBERS[:5], "nan", *NUMBERS[6:]]), "a number is not finite"),
        (" ".join([*NUMBERS[:-1], "3"]), "a visibility flag is none of 0, 1, 2"),
        (row([(10.0, 10.0, 2)] * 4), "all points coincide"),
        (
            row([(1800.0, 1400.0, 2), *POINTS[1:]]),
            "shares of its sides from 0 to 1: are these pixels?",
        ),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    spec = write_set(tmp_path, [row(), f"{row()}\n{line}"])
    found = problem(lambda: load_dataset([spec]))
    assert found.startswith(f"{tmp_path / 'labels' / 'train' / '1.txt'}: line 2: ")
    assert message in found


def test_every_faulty_file_is_told(tmp_path: Path) -> None:
    spec = write_set(tmp_path, [row(), "x", "0 0.1", row()])
    (tmp_path / "images" / "train" / "3.jpg").write_bytes(b"no picture")
    assert [p.partition(":")[0].rpartition("/")[2] for p in problems(lambda: load_dataset([spec]))] == [
        "1.txt",
        "2.txt",
        "3.jpg",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kpt_shape": None}, "is no pose data set: kpt_shape, e.g. [17, 3], is missing"),
        ({"kpt_shape": [4]}, "kpt_shape: expected [N, 2] or [N, 3] with N from 2 to 4096, got [4]"),
        ({"kpt_shape": [4, 4]}, "got [4, 4]"),
        ({"kpt_shape": [1, 3]}, "got [1, 3]"),
        ({"names": None}, "names: expected the names of the classes"),
        ({"names": "part"}, "names: expected the names of the classes"),
        ({"train": None}, "names no pictures for 'train'; expected one of train, val"),
        ({"train": "images/trian"}, "train: 'images/trian' is not there, looked for "),
        ({"train": "labels"}, "train: no picture ("),
        ({"train": "data.yaml"}, "picture 'kpt_shape:' is not there, looked for "),
        ({"flip_idx": [0, 2, 1]}, "flip_idx: expected for each of 4 points, from 0"),
        ({"flip_idx": [1, 2, 0, 3]}, "flip_idx: expected for each of 4 points"),
        ({"kpt_names": ["a"]}, "kpt_names: expected 2 to 4 names for class 'part'"),
        ({"kpt_names": list("abcde")}, "kpt_names: expected 2 to 4 names for class 'part'"),
        (
            {"kpt_names": ["a", "b"]},
            "line 1: labels more points than the 2 that kpt_names names for class",
        ),
        ({"kpt_names": ["a", "b", "c", "a"]}, "expected a name of its own for each keypoint"),
        ({"reference": [0, 9]}, "reference (0, 9) is no pair of its 4 points"),
        ({"reference": "ab"}, "reference: expected the numbers of two points, from 0, got 'ab'"),
    ],
)
def test_a_faulty_description_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    spec = write_set(tmp_path, **fields)
    found = problems(lambda: load_dataset([spec]))
    assert any(message in line for line in found), found
    assert all(line.startswith(str(tmp_path)) for line in found)


@pytest.mark.parametrize(
    "content", [b"", b"[", b"a: b: c", b"\xff\xfe\x00", b"- 1", b"3", b"{}", b"!!python/x"]
)
def test_a_damaged_description_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.yaml"
    file.write_bytes(content)
    assert problem(lambda: load_dataset([f"yolo:{file}"])).startswith(str(file))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "no such file; give the data set's .yaml file" in problem(
        lambda: load_dataset([f"yolo:{tmp_path / 'data.yaml'}"])
    )
    assert "holds no .yaml file" in problem(lambda: load_dataset([f"yolo:{tmp_path}"]))
    write_picture(tmp_path / "images" / "train" / "0.jpg")
    spec = write_yaml(tmp_path / "data.yaml")
    looked = tmp_path / "labels" / "train" / "0.txt"
    assert f"train: none of its 1 pictures has labels, looked for {looked}" in problem(
        lambda: load_dataset([spec])
    )
    looked.parent.mkdir(parents=True)
    looked.write_text("\n")
    assert "no object with two labelled points in 1 label files" in problem(lambda: load_dataset([spec]))
