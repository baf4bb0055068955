"""Fuzz cases of files of arrays: template banks, references, face models."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.materials import (
    MODEL,
    Shipped,
    model_folder,
)
from benchmarks.fuzzing.spoil import (
    Random,
    bomb,
    claimed,
    npz,
    pick,
    spoil_bytes,
    spoil_npz,
)
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong, each
from edge_kp import Detector
from edge_kp.modeldir import read_model
from edge_kp.parity import load_references
from edge_kp.templates import TemplateBank
from edge_kp.types import Array


def _bank(content: bytes, shipped: Shipped, folder: Path) -> TemplateBank:
    (folder / "bank.npz").write_bytes(content)
    return TemplateBank.load(folder / "bank.npz")


def _bank_case(content: bytes | Callable[[], bytes], expected: str) -> Case:
    def run(shipped: Shipped, folder: Path) -> None:
        _bank(content if isinstance(content, bytes) else content(), shipped, folder)

    return Case(run, expected)


def _random_bank(shipped: Shipped, folder: Path, rng: Random) -> None:
    good = shipped.files["templates.npz"]
    if rng.random() < 0.5:
        _bank(spoil_npz(good, rng), shipped, folder)
        return
    bank, expected = (_bank(c, shipped, folder) for c in (spoil_bytes(good, rng), good))
    if (bank.digest, bank.schema) != (expected.digest, expected.schema):
        raise Wrong("a change was not noticed")


_SCHEMA = np.array(
    json.dumps({"name": "s", "keypoints": ["a", "b"], "flip_pairs": [], "edges": [], "reference": [0, 1]})
)
_CLAIMS = (10**6, 10**12, 2**63)
_TWO = np.zeros((1, 2, 2), np.float32)


def _bank_of(**changed: Array) -> Case:
    arrays = {"schema": _SCHEMA, "templates": _TWO, "mean_shape": _TWO[0], **changed}
    return _bank_case(lambda: npz(arrays), REFUSED if changed else ANSWERED)


BANK = Kind(
    share=Shipped.read,
    fixed={
        "two points": _bank_of(),
        "not finite": _bank_of(templates=_TWO + math.nan),
        "64 bit": _bank_of(templates=_TWO.astype(float)),
        "no templates": _bank_of(templates=_TWO[:0]),
        "a schema too deep": _bank_of(schema=np.array("[" * 200_000)),
        "schema as numbers": _bank_of(schema=_TWO),
        "nothing in it": _bank_case(lambda: npz({}), REFUSED),
        "no file of arrays": _bank_case(lambda: b"PK\x05\x06" + bytes(18), REFUSED),
        "text": _bank_case(lambda: b"templates", REFUSED),
        **each("claimed numbers:", lambda count: _bank_case(lambda: claimed(count), REFUSED), _CLAIMS),
        "4 GiB unpacked": _bank_case(lambda: bomb("templates", 4 * 2**30), REFUSED),
    },
    mutated=_random_bank,
)


def _check(content: bytes, shipped: Shipped, folder: Path) -> None:
    """``--check`` with other references, whose hash fits."""
    place = model_folder(folder, {"references.npz": content}, told=True)
    with Detector(place, threads=1, backend="onnxruntime", precision="fp32") as detector:
        rows = detector.check()
    if not rows:
        raise Wrong("nothing was compared")


def _references(change: Callable[[dict[str, Array]], Any]) -> Case:
    def run(shipped: Shipped, folder: Path) -> None:
        arrays = {}  # the pictures bare, as they were kept in the beginning
        for network, reference in load_references(MODEL, read_model(MODEL)).items():
            arrays[f"{network}/image"] = reference.images
            arrays.update({f"{network}/{name}": value for name, value in reference.outputs.items()})
        change(arrays)
        _check(npz(arrays), shipped, folder)

    return Case(run, REFUSED)


def _packed(change: Callable[[Array], Array]) -> Case:
    def run(shipped: Shipped, folder: Path) -> None:
        with np.load(MODEL / "references.npz") as file:
            arrays = {name: file[name] for name in file.files}
        arrays["stage1/image/0"] = change(arrays["stage1/image/0"])
        _check(npz(arrays), shipped, folder)

    return Case(run, REFUSED)


def _random_references(shipped: Shipped, folder: Path, rng: Random) -> None:
    content = pick(rng, (spoil_npz, spoil_bytes))(shipped.files["references.npz"], rng)
    if rng.random() < 0.3:
        place = model_folder(folder, {"references.npz": content})
        with Detector(place, threads=1, backend="onnxruntime", precision="fp32") as detector:
            detector.check()
        raise Wrong("a change was not noticed")
    _check(content, shipped, folder)


def _image(make: Callable[[Array], Array]) -> Case:
    return _references(lambda arrays: arrays.update({"stage1/image": make(arrays["stage1/image"])}))


def _score(make: Callable[[Array], Array]) -> Case:
    return _references(lambda arrays: arrays.update({"stage1/score": make(arrays["stage1/score"])}))


def _without_results(arrays: dict[str, Array]) -> None:
    for name in list(arrays):
        if name.startswith("stage1/") and name != "stage1/image":
            del arrays[name]


REFERENCES = Kind(
    share=Shipped.read,
    fixed={
        "as they are": Case(lambda s, f: _check(s.files["references.npz"], s, f), ANSWERED),
        "images of another size": _image(lambda images: images[:, :5, :5]),
        "images of another type": _image(lambda images: images.astype(float)),
        "no images": _image(lambda images: images[:0]),
        "images of no axis": _image(lambda images: np.array(0, np.uint8)),
        "half a picture": _packed(lambda packed: packed[: len(packed) // 2]),
        "a picture that is none": _packed(lambda packed: packed[::-1].copy()),
        "no stage 2": _references(lambda arrays: arrays.pop("stage2/image")),
        "results of another shape": _score(lambda score: np.zeros(99, np.float32)),
        "results that are text": _score(lambda score: score.astype("U9")),
        "results that are not finite": _score(lambda score: score * math.nan),
        "boxes without scores": _references(lambda arrays: arrays.pop("locator/score")),
        "no results": _references(_without_results),
        "4 GiB unpacked": Case(lambda s, f: _check(bomb("stage1/image", 4 * 2**30), s, f), REFUSED),
    },
    mutated=_random_references,
    weight=0.5,
)


# ---- face


def _head(folder: Path) -> bytes:
    """A small file in the format of face models."""
    from edge_kp.training.rendering.model import PARTS

    rng = np.random.default_rng(0)
    parts = {name: [0, 200] if name == "face" else [200, 200] for name in PARTS}
    return npz({
        "vertices": rng.normal(size=(200, 3)).astype(np.float32),
        "triangles": rng.integers(0, 200, (100, 3), np.int32),
        "identity": rng.normal(size=(3, 200, 3)).astype(np.float32),
        "expression": rng.normal(size=(2, 200, 3)).astype(np.float32),
        "expression_names": np.array(["jawOpen", "mouthSmile_L"]),
        "landmarks68": np.arange(68),
        "parts": np.array(json.dumps(parts)),
    })  # fmt: skip


def _face_model(content: bytes, folder: Path, good: bytes | None = None) -> None:
    from edge_kp.training.rendering.model import load_face_model

    path = folder / "head.npz"
    found = []
    for data in (content, good):
        if data is not None:
            path.write_bytes(data)
            load_face_model.cache_clear()
            found.append(load_face_model(str(path)))
    if not all(np.isfinite(a).all() for a in (found[0].vertices, found[0].identity, found[0].expression)):
        raise Wrong("a face that is not finite")
    if good is not None and any(
        not np.array_equal(getattr(found[0], name), getattr(found[1], name))
        for name in ("vertices", "triangles", "identity", "expression", "landmarks", "part")
    ):
        raise Wrong("a change was not noticed")


def _random_face_model(good: bytes, folder: Path, rng: Random) -> None:
    if rng.random() < 0.5:
        _face_model(spoil_npz(good, rng), folder)
    else:
        _face_model(spoil_bytes(good, rng), folder, good)


def _face_array(name: str, value: Any) -> Case:
    def run(good: bytes, folder: Path) -> None:
        with np.load(io.BytesIO(good)) as file:
            arrays = {key: file[key] for key in file.files}
        _face_model(npz({**arrays, name: np.asarray(value)}), folder)

    return Case(run, REFUSED)


def _file(make: Callable[[], bytes]) -> Case:
    return Case(lambda good, folder: _face_model(make(), folder), REFUSED)


FACE_MODEL = Kind(
    share=_head,
    fixed={
        "as it is": Case(lambda good, folder: _face_model(good, folder), ANSWERED),
        "4 GiB unpacked": _file(lambda: bomb("vertices", 4 * 2**30)),
        **each("claimed numbers:", lambda count: _file(lambda: claimed(count)), _CLAIMS),
        "nothing in it": _file(lambda: npz({})),
        "no person": _face_array("identity", np.zeros((0, 200, 3), np.float32)),
        "vertices that are not finite": _face_array("vertices", np.full((200, 3), math.nan, np.float32)),
        "vertices beyond float32": _face_array("vertices", np.full((200, 3), 1e300)),
        "triangles of other vertices": _face_array("triangles", np.full((4, 3), 10**9)),
        "parts too deep": _face_array("parts", "[" * 200_000),
        "parts that end nowhere": _face_array("parts", json.dumps({"face": [0, math.inf]})),
    },
    mutated=_random_face_model,
)
