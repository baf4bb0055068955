"""Fuzz cases of the networks of a model folder and of what describes them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.materials import (
    NETWORKS,
    Shipped,
    check_same,
    check_sound,
    model_folder,
)
from benchmarks.fuzzing.spoil import (
    OUTSIDE,
    Random,
    pick,
    spoil_bytes,
    spoil_json,
)
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong, each
from edge_kp import Detector
from edge_kp.compact import main as compact
from edge_kp.modeldir import read_model


def _use(shipped: Shipped, folder: Path, backend: str = "onnxruntime", same: bool = False) -> None:
    with Detector(folder, threads=1, backend=backend, precision="fp32") as detector:
        found = [*detector.detect(shipped.image, boxes=[shipped.box]), *detector.detect(shipped.image)]
    check_sound(found)
    if same:
        check_same(found, shipped.answer, 0.05)


def _described(change: Callable[[dict[str, Any]], Any], shipped: Shipped, folder: Path) -> None:
    described = json.loads(shipped.files["model.json"])
    change(described)
    _use(shipped, model_folder(folder, {"model.json": json.dumps(described).encode()}))


def _text(text: bytes, shipped: Shipped, folder: Path) -> None:
    _use(shipped, model_folder(folder, {"model.json": text}))


def _set(*where: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value: its path, then the value."""
    *steps, last, value = where

    def change(described: Any) -> None:
        for step in steps:
            described = described[step]
        described[last] = value

    return change


# The parts of model.json that the networks carry as well, and so must be those of the networks.
_CARRIED = ("schema", "attributes", "mean_shape", "stage1", "stage2", "bank_sha256")


def _random_description(shipped: Shipped, folder: Path, rng: Random) -> None:
    content = spoil_json(shipped.files["model.json"], rng)
    place = model_folder(folder, {"model.json": content})
    _use(shipped, place)
    seen, good = read_model(place).to_json(), json.loads(shipped.files["model.json"])
    for part in _CARRIED:
        if seen[part] != good[part]:
            raise Wrong(f"{part} are not those of the networks")


def _compact(name: str, shipped: Shipped, folder: Path) -> None:
    """Every file that model.json lists is copied: none may lie elsewhere."""
    path = Path("/etc/hostname") if name.startswith("/") else folder / "secret.png"
    path.name == "secret.png" and path.write_bytes(b"secret")
    described = json.loads(shipped.files["model.json"])
    described["files"] = {name: hashlib.sha256(path.read_bytes()).hexdigest()}
    place = model_folder(folder, {"model.json": json.dumps(described).encode()})
    if compact(["--model", str(place)]) == 0:
        raise Wrong("copied a file from elsewhere")
    read_model(place)


def _with(*where: Any) -> Callable[[Any], Case]:
    """Value → the case in which ``model.json`` has it in this place."""
    return lambda value: Case(partial(_described, _set(*where, value)), REFUSED)


def _refused(change: Callable[[dict[str, Any]], Any]) -> Case:
    return Case(partial(_described, change), REFUSED)


_INF, _NAN = math.inf, math.nan
_TEXTS = (
    *(b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"\0", b"[" * 200_000, b'{"a":' * 200_000),
    *(b'{"format": 2}', b'{"format": ' + b"9" * 5000 + b"}"),
)
_OUT_OF_IT = ("../secret.png", "/etc/hostname", "sub/../../secret.png")

DESCRIPTION = Kind(
    share=Shipped.read,
    fixed={
        "as it is": Case(partial(_described, lambda d: None), ANSWERED),
        "written otherwise": Case(
            lambda s, f: _text(json.dumps(json.loads(s.files["model.json"]), sort_keys=True).encode(), s, f),
            ANSWERED,
        ),
        **each("threshold", _with("score_threshold"), (_NAN, _INF, -1, 2, "x", None)),
        **each("locator's threshold", _with("locator", "threshold"), (_NAN, -_INF, 5)),
        **each(
            "size of stage 1",
            _with("stage1", "size"),
            (0, -96, 95, 128, 10**9, 10**18, _INF, _NAN, "96.5", None, [96]),
        ),
        **each("size of stage 2", _with("stage2", "size"), (0, 96, 10**9, _INF)),
        **each("size of the locator", _with("locator", "size"), (0, -1, 96, 10**9, _INF)),
        **each("scale", _with("stage1", "scale"), (0, -1, _NAN, _INF, 3.2, 1e308)),
        **each("mean shape with", _with("mean_shape", 5, 0), (_NAN, 1e39, 10**400, "x", 0.9, None)),
        "a shorter mean shape": _refused(lambda d: d["mean_shape"].pop()),
        "a point less": _refused(lambda d: d["schema"]["keypoints"].pop()),
        "another name of a point": _refused(_set("schema", "keypoints", 3, "tail")),
        **each("edge", _with("schema", "edges", 0), ([0, 99], [0, 0], [0, _INF], [0], "ab", None)),
        "an attribute less": _refused(lambda d: d["attributes"].pop()),
        "attributes in another order": _refused(lambda d: d["attributes"].reverse()),
        "attributes as a word": _refused(_set("attributes", "ab")),
        "another format": _refused(_set("format", 99)),
        "no files": _refused(_set("files", {})),
        "wrong hashes": _refused(lambda d: d["files"].update(dict.fromkeys(d["files"], "0" * 64))),
        "weights that are not listed": _refused(lambda d: d["files"].pop("weights.bin")),
        **each("file", lambda name: Case(partial(_compact, name), REFUSED), _OUT_OF_IT),
        **each("text", lambda text: Case(partial(_text, text), REFUSED), _TEXTS),
    },
    mutated=_random_description,
)


def _damaged(change: Callable[[bytes], bytes | None], name: str, shipped: Shipped, folder: Path) -> None:
    """A changed file whose hash does not fit any more."""
    _use(shipped, model_folder(folder, {name: change(shipped.files[name])}))


def _exchanged(files: Mapping[str, str], shipped: Shipped, folder: Path) -> None:
    """Files in place of others, with hashes that fit."""
    changed = {name: shipped.files[other] for name, other in files.items()}
    _use(shipped, model_folder(folder, changed, told=True))


def _graph(change: Callable[[Any], None], backend: str, file: str, shipped: Shipped, folder: Path) -> None:
    """A network that was changed on purpose, with a hash that fits."""
    import onnx

    model = onnx.load_from_string(shipped.files[file])
    change(model)
    place = model_folder(folder, {file: model.SerializeToString()}, told=True)
    (folder / "secret.png").write_bytes(shipped.files["weights.bin"])
    _use(shipped, place, backend)


def _elsewhere(place: str) -> Callable[[Any], None]:
    """Weights that are said to lie in another file."""

    def change(model: Any) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place

    return change


def _offset(value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "offset":
                    entry.value = str(value)

    return change


def _replaced_output(name: str, value: float, factor: float = 0.0) -> Callable[[Any], None]:
    """An output that is what it was, times ``factor``, plus ``value``."""

    def change(model: Any) -> None:
        import onnx

        for node in model.graph.node:
            for i, output in enumerate(node.output):
                if output == name:
                    node.output[i] = f"{name}_before"
        for number, what in (("factor", factor), ("value", value)):
            tensor = onnx.numpy_helper.from_array(np.array(what, np.float32), f"fuzz_{number}")
            model.graph.initializer.append(tensor)
        model.graph.node.append(
            onnx.helper.make_node("Mul", [f"{name}_before", "fuzz_factor"], ["fuzz_zero"])
        )
        model.graph.node.append(onnx.helper.make_node("Add", ["fuzz_zero", "fuzz_value"], [name]))

    return change


def _output_gone(name: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        kept = [output for output in model.graph.output if output.name != name]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    return change


def _random_network(shipped: Shipped, folder: Path, rng: Random) -> None:
    name = pick(rng, (*NETWORKS, "weights.bin"))
    changed = {name: spoil_bytes(shipped.files[name], rng)}
    if rng.random() < 0.4:
        _use(shipped, model_folder(folder, changed))
        raise Wrong(f"a change of {name} was not noticed")
    _use(shipped, model_folder(folder, changed, told=True))


_CUTS: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a byte flipped": lambda data: (
        bytes([*data[:99], data[99] ^ 1, *data[100:]])
        if len(data) < 10**6
        else data[:99] + bytes([data[99] ^ 1]) + data[100:]
    ),
    "a byte more": lambda data: data + b"\0",
}
_BACKENDS = ("onnxruntime", "openvino")


def _changed(change: Callable[[Any], None], file: str = "stage2.fp32.onnx") -> dict[str, Case]:
    """Backend → the case in which it is to run the changed network."""
    return {name: Case(partial(_graph, change, name, file), REFUSED) for name in _BACKENDS}


_OUTPUTS: dict[str, tuple[str, float, float]] = {
    **{f"{name} of {value}": (name, value, 0)
       for name in ("keypoints", "score", "visibility", "attributes") for value in (_NAN, _INF)},
    **{f"{name} of 7": (name, 7, 0) for name in ("score", "visibility", "attributes")},
    "keypoints at 3e38": ("keypoints", 0, 3e38),
}  # fmt: skip
_FOUND = {
    "score of nan": ("score", _NAN, 0),
    "score of 2": ("score", 2, 0),
    "boxes of nan": ("boxes", _NAN, 0),
    "boxes of inf": ("boxes", 0, _INF),
    "boxes turned round": ("boxes", 0, -1),
}
_CHANGES: dict[str, Callable[[Any], None]] = {
    **{f"weights in {place[:24]!r}": _elsewhere(place)
       for place in (*OUTSIDE, "", "no such file", "weights.bin/x")},
    **{f"weights from byte {at}": _offset(at) for at in (-1, 10**9, 2**63 - 1)},
    **{what: _replaced_output(*how) for what, how in _OUTPUTS.items()},
    **{f"no {name}": _output_gone(name) for name in ("keypoints", "prior_keypoints", "score")},
}  # fmt: skip
_SWAPS = {
    "stage 2 in place of stage 1": {"stage1.fp32.onnx": "stage2.fp32.onnx"},
    "stage 1 in place of stage 2": {"stage2.fp32.onnx": "stage1.fp32.onnx"},
    "a stage in place of the locator": {"locator.fp32.onnx": "stage1.fp32.onnx"},
    "the locator in place of a stage": {"stage2.fp32.onnx": "locator.fp32.onnx"},
    "int8 in place of fp32": {"stage2.fp32.onnx": "stage2.int8-cpu.onnx"},
}

NETWORK = Kind(
    share=Shipped.read,
    fixed={
        "as they are": Case(lambda s, f: _use(s, model_folder(f, {}), same=True), ANSWERED),
        "with hashes anew": Case(
            lambda s, f: _use(s, model_folder(f, {n: s.files[n] for n in NETWORKS}, told=True), same=True),
            ANSWERED,
        ),
        **{
            f"{name}, {how}": Case(partial(_damaged, change, name), REFUSED)
            for name in (*NETWORKS, "weights.bin")
            for how, change in _CUTS.items()
        },
        **{what: Case(partial(_exchanged, files), REFUSED) for what, files in _SWAPS.items()},
        **{
            f"{what}, {backend}": case
            for what, change in _CHANGES.items()
            for backend, case in _changed(change).items()
        },
        **{
            f"the locator's {what}": _changed(_replaced_output(*how), "locator.fp32.onnx")["onnxruntime"]
            for what, how in _FOUND.items()
        },
    },
    mutated=_random_network,
    weight=1.5,
)
