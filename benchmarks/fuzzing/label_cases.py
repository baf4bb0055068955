"""Fuzz cases of the labels that labelling tools write a file a picture: YOLO's and labelme's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.data_cases import lay_out, read_whole
from benchmarks.fuzzing.materials import POINTS, SIDE, shape
from benchmarks.fuzzing.spoil import OUTSIDE, spoil_json, spoil_text
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, each

# ---- YOLO -----------------------------------------------------------------------------------------

_YAML = f"train: data\nkpt_shape: [{POINTS}, 3]\nnames: [ring]\n"


def _row(number: int) -> str:
    points = " ".join(f"{(x + 0.5) / SIDE:.6f} {(y + 0.5) / SIDE:.6f} 2" for x, y in shape(number))
    return f"0 0.5 0.5 0.4 0.4 {points}"


def _yolo(description: bytes, label: bytes, folder: Path, count: int | None = None) -> None:
    images = lay_out(folder)
    (images / "a.txt").write_text(f"{_row(0)}\n{_row(1)}\n")
    (images / "sub" / "c.txt").write_bytes(label)
    (folder / "data.yaml").write_bytes(description)
    read_whole(f"yolo:{folder / 'data.yaml'}", images, count)


def _described(text: str, expected: str = REFUSED) -> Case:
    content = text.encode("utf-8", "surrogatepass")
    return Case(lambda _, folder: _yolo(content, _row(2).encode(), folder), expected)


def _line(text: str, expected: str = REFUSED) -> Case:
    content = text.encode("utf-8", "surrogatepass")
    return Case(lambda _, folder: _yolo(_YAML.encode(), content, folder), expected)


def _instead(name: str) -> Callable[[str], Case]:
    """Value → the case in which the YAML file says it under this name."""
    kept = "".join(line + "\n" for line in _YAML.splitlines() if not line.startswith(f"{name}:"))
    return lambda value: _described(f"{kept}{name}: {value}\n")


def _nested(name: str) -> Case:
    kept = "".join(line + "\n" for line in _YAML.splitlines() if not line.startswith(f"{name}:"))
    return _described(f"{_NESTED}{kept}{name}: *a39\n")


_VALUES = ("", "7", "[]", "{}", "[1, 2]", "[[0]]", ".nan", "[.inf, 3]", "1e999", "9" * 500, "!!python/none x")
_WORDS = ("nan", "inf", "1e39", "1e999", "x", "1_0", "9" * 500, "\0", "٣")
_FIELDS = ("kpt_shape", "names", "train", "flip_idx", "kpt_names", "reference")
# Each entry holds the one before twice: 2^40 in all.
_NESTED = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))

YOLO = Kind(
    fixed={
        "as it is": Case(lambda _, folder: _yolo(_YAML.encode(), _row(2).encode(), folder, 3), ANSWERED),
        "an empty label file": _line("", ANSWERED),
        **each("kpt_shape", _instead("kpt_shape"), (*_VALUES, "[5, 4]", "[1, 3]", "[-5, 3]", "[99999, 3]")),
        **each("names", _instead("names"), (*_VALUES[:3], "{}", ".nan", "[]", "{x: y}")),
        **each(
            "train", _instead("train"), (*_VALUES, "gone", "data/a.png", "/dev/zero", *map(repr, OUTSIDE[:2]))
        ),
        **each("flip_idx", _instead("flip_idx"), (*_VALUES[3:], "[0, 1, 2, 3, 9]", "[1, 2, 3, 4, 0]", "ab")),
        **each("kpt_names", _instead("kpt_names"), (*_VALUES[1:3], "[a, a, b, c, d]", "ab", "{0: [a]}")),
        **each(
            "reference", _instead("reference"), (*_VALUES[1:4], *_VALUES[5:], "[0, 0]", "[0, 99]", "[0, -1]")
        ),
        **each("text", _described, ("", "[", "- 1", "a: b: c", "\0", "&a [*a]", "[" * 5000, "? [x]\n: y")),
        "endless nesting beside": _described(_NESTED + _YAML, ANSWERED),
        **each("endless nesting as", _nested, _FIELDS),
        **each("a number", lambda word: _line(_row(2).replace(" 0.4 ", f" {word} ", 1)), _WORDS),
        **each("a flag", lambda flag: _line(f"{_row(2)[:-1]}{flag}"), ("3", "-1", "0.5", "nan", "x", "")),
        **each(
            "a line", _line, ("0", "0 0.5 0.5 0.1 0.1", "1" + _row(2)[1:], "0.5" + _row(2)[1:], "\ufeffx")
        ),
        "pixels": _line("0 " + " ".join(["300"] * (4 + 3 * POINTS))),
        "one place": _line("0 0.5 0.5 0.4 0.4" + " 0.5 0.5 2" * POINTS),
    },
    mutated=lambda _, folder, rng: (
        _yolo(_YAML.encode(), spoil_text(_row(2).encode(), rng), folder)
        if rng.random() < 0.5
        else _yolo(spoil_text(_YAML.encode(), rng), _row(2).encode(), folder)
    ),
)

# ---- labelme --------------------------------------------------------------------------------------


def _labelled(number: int, name: str) -> dict[str, Any]:
    shapes: list[dict[str, Any]] = [
        {"label": f"p{i}", "points": [[float(x), float(y)]], "group_id": None, "shape_type": "point"}
        for i, (x, y) in enumerate(shape(number))
    ]
    shapes.append({"label": "ring", "points": [[1, 1], [9, 9]], "group_id": 4, "shape_type": "rectangle"})
    return {"shapes": shapes, "imagePath": name, "imageHeight": SIDE, "imageWidth": SIDE}


def _as_it_is() -> bytes:
    return json.dumps(_labelled(1, "b.png")).encode()


def _labelme(content: bytes, folder: Path, count: int | None = None) -> None:
    images = lay_out(folder)
    (images / "a.json").write_text(json.dumps(_labelled(0, "a.png")))
    (images / "b.json").write_bytes(content)
    read_whole(f"labelme:{images}", images, count)


def _file(value: Any, expected: str = REFUSED) -> Case:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Case(lambda _, folder: _labelme(content, folder), expected)


def _of_shape(name: str) -> Callable[[Any], Case]:
    """Value → the case in which the first shape has it under this name."""

    def changed(value: Any) -> Case:
        data = _labelled(1, "b.png")
        data["shapes"][0][name] = value
        return _file(data)

    return changed


def _of_file(change: Mapping[str, Any], expected: str = REFUSED) -> Case:
    return _file({**_labelled(1, "b.png"), **change}, expected)


_POSITIONS: tuple[Any, ...] = (
    *([], [[]], [[1]], [1, 2], "xy", None, 7, [[math.nan, 1]], [[math.inf, 1]], [[1e39, 1]], [[10**400, 1]]),
    *([[1e6, 1]], [["x", "y"]], [[None, 1]], {"x": 1}),
)
_NO_PICTURES: tuple[Any, ...] = (
    None,
    "",
    ".",
    "..",
    "gone.png",
    "a\0.png",
    "x" * 300,
    7,
    [],
    "/etc/passwd",
    "sub",
)
_TEXTS = (b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"[" * 200_000, b'{"shapes": {}}', b'{"shapes": [7]}')

LABELME = Kind(
    fixed={
        "as it is": Case(
            lambda _, folder: _labelme(json.dumps(_labelled(1, "b.png")).encode(), folder, 2), ANSWERED
        ),
        "a picture's path elsewhere": _of_file({"imagePath": "..\\photos\\b.png"}, ANSWERED),
        "size unknown": _of_file({"imageHeight": None}, ANSWERED),
        "no shapes": _of_file({"shapes": []}, ANSWERED),
        **each("points", _of_shape("points"), _POSITIONS),
        **each("label", _of_shape("label"), (None, 7, [], {}, "p1")),
        **each("group", _of_shape("group_id"), ([], {}, [1])),
        **each("picture", lambda name: _of_file({"imagePath": name}), _NO_PICTURES),
        **each("width", lambda width: _of_file({"imageWidth": width}), (0, -64, SIDE + 1, 10**400)),
        **each("text", _file, _TEXTS),
    },
    mutated=lambda _, folder, rng: _labelme(spoil_json(_as_it_is(), rng), folder),
)
