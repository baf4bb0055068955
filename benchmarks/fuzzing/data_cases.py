"""Fuzz cases of labelled data."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.fuzzing.materials import (
    POINTS,
    SIDE,
    picture,
    shape,
)
from benchmarks.fuzzing.spoil import (
    OUTSIDE,
    spoil_json,
    spoil_text,
)
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong, each
from edge_kp.types import Array


def lay_out(folder: Path) -> Path:
    """A folder of three pictures, with a picture beside it that is none of its business."""
    images = folder / "data"
    (images / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sub/c.png")):
        cv2.imwrite(str(images / name), picture(number))
    cv2.imwrite(str(folder / "secret.png"), picture(9))
    return images


def read_whole(spec: str, images: Path, count: int | None = None, points: int = POINTS) -> None:
    """Read a data set whole, and make sure that nothing but its own was read."""
    from edge_kp.training.datasets import load_dataset

    dataset = load_dataset([spec])
    for sample in dataset.samples:
        read: Any = sample.load
        if not Path(os.path.abspath(read.args[0])).is_relative_to(images.absolute()):
            raise Wrong(f"{read.args[0]} is none of its pictures")
        if sample.keypoints.shape != (len(dataset.schema), 2) or np.isinf(sample.keypoints).any():
            raise Wrong(f"keypoints {sample.keypoints.shape} that are not finite")
        sample.read()
        if not np.isfinite(sample.box).all():
            raise Wrong("a box that is not finite")
    if count is not None and (len(dataset), len(dataset.schema)) != (count, points):
        raise Wrong(f"{len(dataset)} samples of {len(dataset.schema)} points")


def _pts(points: Array, promised: Any = None) -> str:
    rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in points)
    return f"version: 1\nn_points: {len(points) if promised is None else promised}\n{{\n{rows}\n}}\n"


def _ibug(change: Callable[[bytes], bytes | None], folder: Path, count: int | None = None) -> None:
    images = lay_out(folder)
    for number, name in enumerate(("a", "b")):
        (images / f"{name}.pts").write_text(_pts(shape(number)))
    content = change((images / "b.pts").read_bytes())
    if content is not None:
        (images / "b.pts").write_bytes(content)
    read_whole(f"ibug:{images}", images, count)


def _pts_case(text: str, expected: str = REFUSED) -> Case:
    content = text.encode("utf-8", "surrogatepass")
    return Case(lambda _, folder: _ibug(lambda data: content, folder), expected)


def _pts_place(make: Callable[[Path], Any]) -> Case:
    """Something that is no file stands where a label file should."""

    def put(data: bytes) -> None:
        path = next(Path().absolute().glob("data")) / "b.pts"
        path.unlink()
        make(path)

    return Case(lambda _, folder: _ibug(put, folder), REFUSED)


_ROWS = "\n".join(f"{x} {y}" for x, y in shape(1))

_WORDS = (
    *(
        "nan 1",
        "1 nan",
        "inf 1",
        "1e39 1",
        "1e999 1",
        "1",
        "1 2 3",
        "x y",
        "1_0 2",
        "١ ٢",
        "1e6 1e6",
        "0x1 2",
        "\0 1",
    ),
)

PTS = Kind(
    fixed={
        "as it is": Case(lambda _, folder: _ibug(lambda data: data, folder, 2), ANSWERED),
        "without header": _pts_case(_ROWS, ANSWERED),
        **each("a point", lambda words: _pts_case(_ROWS.replace(_ROWS.split("\n")[2], words)), _WORDS),
        **each("n_points", lambda n: _pts_case(_pts(shape(1), n)), (4, 6, -1, 10**12, "x", "nan", "", "5.0")),
        "cut off": Case(lambda _, folder: _ibug(lambda data: data[:60], folder), REFUSED),
        "all in one place": _pts_case(_pts(np.full((POINTS, 2), 20.0))),
        "another count than the rest": _pts_case(_pts(shape(1, 7))),
        "no point": _pts_case(_pts(shape(1)[:0])),
        "200,000 points": _pts_case(_pts(shape(1, 200_000))),
        "braces the wrong way round": _pts_case("n_points: 0\n}\n{\n" + _ROWS),
        "empty": _pts_case(""),
        "a folder": _pts_place(lambda path: path.mkdir()),
        "a pipe": _pts_place(os.mkfifo),
        "a link to itself": _pts_place(lambda path: path.symlink_to(path)),
        "a link to nothing": _pts_place(lambda path: path.symlink_to("gone")),
        "a link to endless zeros": _pts_place(lambda path: path.symlink_to("/dev/zero")),
    },
    mutated=lambda _, folder, rng: _ibug(lambda data: spoil_text(data, rng), folder),
)


def coco() -> dict[str, Any]:
    """Two pictures with three objects."""
    rows = [[v for x, y in shape(i) for v in (float(x), float(y), 2)] for i in range(3)]
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE},
            {"id": 2, "file_name": "sub/c.png", "width": SIDE, "height": SIDE},
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1, "keypoints": rows[i], "num_keypoints": POINTS}
            for i, image in enumerate((1, 1, 2))
        ],
        "categories": [
            {
                "id": 1,
                "name": "ring",
                "keypoints": [f"p{i}" for i in range(POINTS)],
                "skeleton": [[1, 2], [2, 3]],
                "flip_pairs": [[0, 1]],
                "reference": [0, 2],
            }
        ],
    }


def _coco(content: bytes, folder: Path, count: int | None = None) -> None:
    images = lay_out(folder)
    (folder / "labels.json").write_bytes(content)
    read_whole(f"coco:{folder / 'labels.json'},{images}", images, count)


def _set(*where: Any, expected: str = REFUSED) -> Case:
    """A COCO file with one other value: its path, then the value."""
    *steps, last, value = where

    def run(_: Any, folder: Path) -> None:
        data: Any = coco()
        inner = data
        for step in steps:
            inner = inner[step]
        inner[last] = value
        _coco(json.dumps(data).encode(), folder)

    return Case(run, expected)


def _coco_text(content: bytes) -> Case:
    return Case(lambda _, folder: _coco(content, folder), REFUSED)


def _linked(_: Any, folder: Path) -> None:
    """Links to pictures elsewhere are how people put data sets together: their own doing."""
    data = coco()
    data["images"][0]["file_name"] = "linked.png"
    images = lay_out(folder)
    (images / "linked.png").symlink_to(folder / "secret.png")
    (folder / "labels.json").write_text(json.dumps(data))
    read_whole(f"coco:{folder / 'labels.json'},{images}", images, 3)


def _image_place(make: Callable[[Path], Any]) -> Case:
    def run(_: Any, folder: Path) -> None:
        images = lay_out(folder)
        (images / "a.png").unlink()
        make(images / "a.png")
        (folder / "labels.json").write_text(json.dumps(coco()))
        read_whole(f"coco:{folder / 'labels.json'},{images}", images)

    return Case(run, REFUSED)


def _with(*where: Any) -> Callable[[Any], Case]:
    """Value → the case in which the file has it in this place."""
    return lambda value: _set(*where, value)


_NAN, _INF, _HUGE = math.nan, math.inf, 10**400
_FILE_NAMES: tuple[Any, ...] = (
    *(
        *OUTSIDE,
        "sub/../../data/a.png",
        "a\0.png",
        "\ud800.png",
        "x" * 300,
        "../" * 2000,
        "",
        ".",
        None,
        7,
        [],
    ),
)
_KEYPOINTS: tuple[Any, ...] = (
    *([1, 2, 2], "abc", {"a": 1}, [_NAN] * 15, [_INF] * 15, [1e39] * 15, [_HUGE] * 15, [None] * 15, 7),
    *([[1, 2, 2]] * 5, ["x"] * 15, [[]] * 15, [1e6] * 15, [1, 2, 7] * 5, [20, 20, 2] * 5),
)
_NAMES = (
    *("abcde", 7, ["p"] * 5, [None] * 5, [1, 2, 3, 4, 5], {"a": 1}, [["p0"]] * 5, ["p"]),
    [f"p{i}" for i in range(10**5)],
)
_SKELETONS = ([[0, 1]], [[1, 99]], [[1, _INF]], [[1, 2, 3]], 7, [["a", "b"]], [[1, _HUGE]])
_PAIRS = ([[0, 0]], [[0, 99]], [[0, _INF]], [["p0", "x"]], 7, "ab", [[0, 1], [1, 2]], [[0, _HUGE]])
_TEXTS = (
    *(b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"\0", b"[" * 200_000, b'{"images":' * 100_000),
    b'{"images": ' + b"9" * 5000 + b"}",
)

COCO = Kind(
    fixed={
        "as it is": Case(lambda _, folder: _coco(json.dumps(coco()).encode(), folder, 3), ANSWERED),
        "a linked picture": Case(_linked, ANSWERED),
        "a picture that is a pipe": _image_place(os.mkfifo),
        "a picture that is a folder": _image_place(lambda path: path.mkdir()),
        "a picture of endless zeros": _image_place(lambda path: path.symlink_to("/dev/zero")),
        **each("picture", _with("images", 0, "file_name"), _FILE_NAMES),
        **each("width", _with("images", 0, "width"), (0, -64, 65, _NAN, _INF, _HUGE, "x", [64])),
        "width unknown": _set("images", 0, "width", None, expected=ANSWERED),
        **each("keypoints", _with("annotations", 0, "keypoints"), _KEYPOINTS),
        **each("the category's points", _with("categories", 0, "keypoints"), _NAMES),
        **each("skeleton", _with("categories", 0, "skeleton"), _SKELETONS),
        **each("flip pairs", _with("categories", 0, "flip_pairs"), _PAIRS),
        **each(
            "reference",
            _with("categories", 0, "reference"),
            ([0], [0, 0], [0, 99], 7, ["p0", "x"], [0, _NAN]),
        ),
        "a picture's number twice": _set("images", 1, "id", 1),
        "an object of no picture": _set("annotations", 0, "image_id", 99),
        "a number that is a list": _set("annotations", 0, "image_id", [1]),
        "another category": _set("annotations", 0, "category_id", _NAN, expected=ANSWERED),
        "no objects": _set("annotations", []),
        "no pictures": _set("images", []),
        "pictures as a number": _set("images", 10**18),
        **each("text", _coco_text, _TEXTS),
    },
    mutated=lambda _, folder, rng: _coco(spoil_json(json.dumps(coco()).encode(), rng), folder),
    weight=2.0,
)


def _wflw_line(number: int, name: str, attributes: str = "0 0 0 0 1 0") -> str:
    points = " ".join(f"{v:.3f}" for v in shape(number, 98).ravel())
    return f"{points} 5 5 50 50 {attributes} {name}"


def _wflw(content: bytes, folder: Path, count: int | None = None) -> None:
    images = lay_out(folder)
    (folder / "list.txt").write_bytes(content)
    read_whole(f"wflw:{folder / 'list.txt'},{images}", images, count, 98)


def _wflw_case(text: str, expected: str = REFUSED) -> Case:
    content = f"{_wflw_line(0, 'a.png')}\n{text}\n".encode("utf-8", "surrogatepass")
    return Case(lambda _, folder: _wflw(content, folder), expected)


_WFLW = f"{_wflw_line(0, 'a.png')}\n{_wflw_line(1, 'sub/c.png')}\n".encode()


def _wflw_number(word: str) -> Case:
    return _wflw_case(_wflw_line(1, "b.png").replace(f"{shape(1, 98)[0, 0]:.3f}", word, 1))


_NUMBERS = ("nan", "inf", "1e39", "1e999", "x", "1_0", "1e6", "\0", "9" * 500)
_ATTRIBUTES = ("0 0 0 0 2 0", "0 0 0 0 nan 0", "0 0 0 0 -1 0", "0 0 0 0 0", "a b c d e f")
_PICTURES = (*OUTSIDE, "a\0.png", "x" * 300, "../" * 2000, "gone.png")

WFLW = Kind(
    fixed={
        "as it is": Case(lambda _, folder: _wflw(_WFLW, folder, 2), ANSWERED),
        **each("picture", lambda name: _wflw_case(_wflw_line(1, name)), _PICTURES),
        **each("a number", _wflw_number, _NUMBERS),
        **each("attributes", lambda words: _wflw_case(_wflw_line(1, "b.png", words)), _ATTRIBUTES),
        "too few numbers": _wflw_case("1 2 3 b.png"),
        "empty": Case(lambda _, folder: _wflw(b"", folder), REFUSED),
        "no text": Case(lambda _, folder: _wflw(b"\xff\xfe\0\0", folder), REFUSED),
        "a line of ten million letters": _wflw_case("x" * 10**7),
    },
    mutated=lambda _, folder, rng: _wflw(spoil_text(_WFLW, rng), folder),
)
