"""Fuzz cases of engines and of measured ranges."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.fuzzing.materials import (
    MODEL,
)
from benchmarks.fuzzing.spoil import (
    Random,
    spoil_bytes,
    spoil_json,
)
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong, each
from edge_kp.backends.cuda import Gpu
from edge_kp.backends.sidecar import EngineInfo, check_engine
from edge_kp.modeldir import network_digest

# ---- engines

SHIPPED_RANGES = Path(__file__).parents[2] / "calibration" / "face68" / "ranges.json"
_TENSORRT = SimpleNamespace(__name__="tensorrt", __version__="10.3.0")
_GPU = Gpu("Orin", "8.7")


def _engine(folder: Path) -> tuple[EngineInfo, bytes]:
    """A sidecar that fits ``stage1.fp32.onnx``, and its engine; no GPU is needed to refuse them."""
    plan = np.random.default_rng(0).bytes(5000)
    return EngineInfo(
        library="tensorrt",
        version="10.3.0",
        gpu="Orin",
        compute_capability="8.7",
        precision="fp32",
        onnx_sha256=network_digest(MODEL / "stage1.fp32.onnx"),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        batches=(1, 4),
        flags={},
        layers={"1": 50, "4": 50},
        seconds=1.0,
        date="2026-01-01T00:00:00+00:00",
    ), plan


def _check_engine(
    shared: tuple[EngineInfo, bytes], folder: Path, side: Callable[[bytes], bytes] | None, plan: bytes | None
) -> None:
    info, good = shared
    engine = folder / "stage1.fp32.engine"
    engine.write_bytes(good if plan is None else plan)
    path = folder / "stage1.fp32.engine.json"
    info.write(path)
    if side is not None:
        path.write_bytes(side(path.read_bytes()))
    found = check_engine(_TENSORRT, engine, MODEL / "stage1.fp32.onnx", "fp32", _GPU)
    if plan is not None:
        raise Wrong("another engine was accepted")
    batches = list(found.batches)
    if not batches or batches != sorted(set(batches)) or not all(type(b) is int and b > 0 for b in batches):
        raise Wrong(f"batches {batches[:5]} were accepted")


def _side(**values: Any) -> Case:
    def change(data: bytes) -> bytes:
        return json.dumps({**json.loads(data), **values}).encode()

    return Case(lambda shared, folder: _check_engine(shared, folder, change, None), REFUSED)


def _side_text(text: bytes) -> Case:
    return Case(lambda shared, folder: _check_engine(shared, folder, lambda data: text, None), REFUSED)


def _plan(change: Callable[[bytes], bytes]) -> Case:
    return Case(lambda shared, folder: _check_engine(shared, folder, None, change(shared[1])), REFUSED)


def _random_engine(shared: tuple[EngineInfo, bytes], folder: Path, rng: Random) -> None:
    if rng.random() < 0.25:
        _check_engine(shared, folder, None, spoil_bytes(shared[1], rng))
    _check_engine(shared, folder, lambda data: spoil_json(data, rng), None)


_BATCHES: tuple[Any, ...] = (
    [],
    4,
    "14",
    [0],
    [-1],
    [1.5],
    ["1"],
    [4, 1],
    [1, 1],
    [True],
    [None],
    {"1": 1},
    None,
)
_SIDECARS = (b"", b"{", b"[]", b"null", b'"format"', b"\xff", b"[" * 200_000, b'{"format": 1}')

ENGINE = Kind(
    share=_engine,
    fixed={
        "as it is": Case(lambda shared, folder: _check_engine(shared, folder, None, None), ANSWERED),
        "another engine": _plan(lambda plan: plan[::-1]),
        "half an engine": _plan(lambda plan: plan[:2500]),
        "an empty engine": _plan(lambda plan: b""),
        "a bit flipped": _plan(lambda plan: bytes([plan[0] ^ 1]) + plan[1:]),
        "another version": _side(version="8.6"),
        "another GPU": _side(gpu="Xavier"),
        "another precision": _side(precision="int8"),
        "another network": _side(onnx_sha256="0" * 64),
        "another format": _side(format=2),
        "a field more": _side(more=1),
        **each("batches", lambda batches: _side(batches=batches), _BATCHES),
        "a GPU with line ends": _side(gpu="a\nb"),
        "a version without end": _side(version="9" * 10**6),
        **each("text", _side_text, _SIDECARS),
    },
    mutated=_random_engine,
)


# ---- ranges


def _ranges(folder: Path) -> tuple[bytes, dict[str, Path]]:
    """The shipped ranges, said to be of the shipped FP32 files."""
    from edge_kp.training.quantise import fp32_files
    from edge_kp.training.ranges import graph_digest

    sources = fp32_files(MODEL)
    content = json.loads(SHIPPED_RANGES.read_text())
    for name, source in sources.items():
        content["networks"][name]["graph_sha256"] = graph_digest(source)
    return json.dumps(content).encode(), sources


def _read_ranges(content: bytes, shared: tuple[bytes, dict[str, Path]], folder: Path) -> None:
    from edge_kp.training.quantise import read_ranges

    (folder / "ranges.json").write_bytes(content)
    found = read_ranges(folder / "ranges.json", shared[1])
    for name in shared[1]:
        for style in ("int8", "int8-cpu"):
            chosen = found[name]["styles"][style]
            for low, high in found[name]["ranges"][chosen["method"]].values():
                if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                    raise Wrong(f"the range from {low} to {high} was accepted")
            if not all(isinstance(layer, str) for layer in chosen["kept"]):
                raise Wrong(f"the layers {chosen['kept']} were accepted")


def _ranges_case(value: Any, expected: str = REFUSED) -> Case:
    def run(shared: tuple[bytes, dict[str, Path]], folder: Path) -> None:
        content = json.loads(shared[0])
        plan = content["networks"]["stage1"]
        ends = plan["ranges"][plan["styles"]["int8"]["method"]]
        if value is not None:
            ends[next(iter(ends))] = value
        _read_ranges(json.dumps(content).encode(), shared, folder)

    return Case(run, expected)


def _ranges_text(text: bytes) -> Case:
    return Case(lambda shared, folder: _read_ranges(text, shared, folder), REFUSED)


_ENDS: tuple[Any, ...] = (
    *([math.nan, 1], [0, math.inf], [1, -1], ["a", "b"], ["1", "2"], [1], [1, 2, 3], 5, [10**400, 10**401]),
    *([[0], [1]], {}),
)
_TEXTS = (b"", b"{", b"[]", b"null", b"\xff", b"[" * 200_000, b'{"format": 1, "networks": []}')

RANGES = Kind(
    share=_ranges,
    fixed={
        "as they are": _ranges_case(None, ANSWERED),
        **each("ends", _ranges_case, _ENDS),
        **each("text", _ranges_text, _TEXTS),
        "of other networks": Case(
            lambda shared, f: _read_ranges(SHIPPED_RANGES.read_bytes(), shared, f), REFUSED
        ),
    },
    mutated=lambda shared, folder, rng: _read_ranges(spoil_json(shared[0], rng), shared, folder),
)
