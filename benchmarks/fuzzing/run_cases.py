"""Fuzz cases of training runs and of settings."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.fuzzing.materials import (
    POINTS,
    picture,
    shape,
)
from benchmarks.fuzzing.spoil import (
    Random,
    pick,
    spoil_bytes,
    spoil_json,
    spoil_text,
)
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong, each
from edge_kp import run
from edge_kp.errors import ConfigError
from edge_kp.templates import build_bank


def _make_run(folder: Path) -> Path:
    """A finished run of two tiny stages, untrained."""
    import torch

    from edge_kp.schema import KeypointSchema
    from edge_kp.training.checkpoints import save_checkpoint
    from edge_kp.training.network import NetworkConfig, StageNet
    from edge_kp.training.recipe import Recipe

    out = folder / "run"
    names = tuple(f"p{i}" for i in range(POINTS))
    shapes = np.stack([shape(i) for i in range(12)])
    bank = build_bank(KeypointSchema("ring", names, (), (), (0, 2)), shapes, 4)
    recipe = Recipe(("synthetic:10",), k=4, sizes=(48, 64), widths=(8, 8), trunks=("plain", "plain"))
    out.mkdir()
    bank.save(out / "templates.npz")
    (out / "run.json").write_text(json.dumps(asdict(recipe)))
    torch.manual_seed(0)
    for stage, name in enumerate(("stage1", "stage2")):
        config = NetworkConfig(recipe.sizes[stage], 8, stage == 0, ("occlusion",), hidden=8)
        net = StageNet(config, bank.templates)
        save_checkpoint(out / name / "best.pt", {"net": net.state_dict(), "config": asdict(config)})
    return out


def _load(out: Path, folder: Path, changed: Mapping[str, bytes | None]) -> None:
    """Load a copy of a run with some files changed, and look with it."""
    import torch

    from edge_kp.training.recipe import load_cascade

    copy = folder / "run"
    shutil.copytree(out, copy)
    for name, content in changed.items():
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
    cascade = load_cascade(copy, torch.device("cpu"))
    result = cascade(picture(0), [np.array([5, 5, 60, 60], np.float32)])
    if not np.isfinite(result.keypoints).all():
        raise Wrong("keypoints that are not finite")
    good = load_cascade(out, torch.device("cpu"))
    for stage in ("stage1", "stage2"):
        seen, expected = (getattr(c, stage)._net.state_dict() for c in (cascade, good))
        if not all(torch.equal(seen[key], value) for key, value in expected.items()):
            raise Wrong(f"other weights in {stage}")


def _recipe(change: Mapping[str, Any]) -> Case:
    def run(out: Path, folder: Path) -> None:
        content = {**json.loads((out / "run.json").read_text()), **change}
        _load(out, folder, {"run.json": json.dumps(content).encode()})

    return Case(run, REFUSED)


def _recipe_text(text: bytes) -> Case:
    return Case(lambda out, folder: _load(out, folder, {"run.json": text}), REFUSED)


def _random_recipe(out: Path, folder: Path, rng: Random) -> None:
    _load(out, folder, {"run.json": spoil_json((out / "run.json").read_bytes(), rng)})


_SIZES = ("ab", 7, None, [48], [64, 48], [48, math.inf], [48, "64"], [0, 0], [10**9, 10**9], [48.5, 64])
_SCALES = (math.nan, math.inf, 0, -1, "x", None, [1.6], 10**400)
_RECIPES = (b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 200_000, b'{"data":' * 100_000)

RUN = Kind(
    share=_make_run,
    fixed={
        "as it is": Case(lambda out, folder: _load(out, folder, {}), ANSWERED),
        "gone": Case(lambda out, folder: _load(out, folder, {"run.json": None}), REFUSED),
        **each("sizes", lambda sizes: _recipe({"sizes": sizes}), _SIZES),
        **each("scale", lambda scale: _recipe({"scale": scale}), _SCALES),
        **each("box rule", lambda rule: _recipe({"box_rule": rule}), ("x", None, 7, ["keypoints"])),
        **each("data", lambda data: _recipe({"data": data}), (None, 7, [7], "synthetic:10", {})),
        **each("text", _recipe_text, _RECIPES),
    },
    mutated=_random_recipe,
    weight=0.5,
)


def _checkpoint(make: Callable[[dict[str, Any]], Any]) -> Case:
    """``best.pt`` of stage 1 with other content."""

    def run(out: Path, folder: Path) -> None:
        import torch

        file = io.BytesIO()
        torch.save(make(torch.load(out / "stage1" / "best.pt", weights_only=True)), file)
        _load(out, folder, {"stage1/best.pt": file.getvalue()})

    return Case(run, REFUSED)


def _configured(values: Mapping[str, Any]) -> Case:
    return _checkpoint(lambda saved: {**saved, "config": {**saved["config"], **values}})


def _with_weight(saved: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    name = next(n for n, value in saved["net"].items() if value.ndim == 4)
    return {**saved, "net": {**saved["net"], name: change(saved["net"][name])}}


def _flipped(out: Path, folder: Path) -> None:
    """A byte in the middle of the weights."""
    data = bytearray((out / "stage1" / "best.pt").read_bytes())
    data[len(data) // 2] ^= 0x40
    _load(out, folder, {"stage1/best.pt": bytes(data)})


def _random_checkpoint(out: Path, folder: Path, rng: Random) -> None:
    name = pick(rng, ("stage1", "stage2"))
    data = (out / name / "best.pt").read_bytes()
    _load(out, folder, {f"{name}/best.pt": spoil_bytes(data, rng)})


class Harmful:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def _unpickled(out: Path, folder: Path) -> None:
    import torch

    file = io.BytesIO()
    torch.save({"net": Harmful(), "config": {}}, file)
    try:
        _load(out, folder, {"stage1/best.pt": file.getvalue()})
    finally:
        if Path("unpickled").exists():
            raise Wrong("code in a checkpoint was run")


_SHAPES = (
    *({"width": 10**7}, {"width": -8}, {"width": "8"}, {"width": math.nan}, {"size": 10**9}, {"size": 64}),
    *(
        {"size": None},
        {"readings": 10**9},
        {"hidden": 0},
        {"trunk": "x"},
        {"attributes": 7},
        {"attributes": "abc"},
    ),
    *({"taught": -1}, {"more": 1}, {"bank": False}),
)

CHECKPOINT = Kind(
    share=_make_run,
    fixed={
        "gone": Case(lambda out, folder: _load(out, folder, {"stage2/best.pt": None}), REFUSED),
        "empty": Case(lambda out, folder: _load(out, folder, {"stage2/best.pt": b""}), REFUSED),
        "that of the other stage": Case(
            lambda out, folder: _load(out, folder, {"stage2/best.pt": (out / "stage1/best.pt").read_bytes()}),
            REFUSED,
        ),
        "a bit flipped": Case(_flipped, REFUSED),
        "code": Case(_unpickled, REFUSED),
        "a list": _checkpoint(lambda saved: [saved]),
        "no weights": _checkpoint(lambda saved: {**saved, "net": {}}),
        "weights as a number": _checkpoint(lambda saved: {**saved, "net": 7}),
        "no shape": _checkpoint(lambda saved: {"net": saved["net"]}),
        "a weight of another size": _checkpoint(lambda saved: _with_weight(saved, lambda w: w[:, :, :1])),
        "a weight that is not finite": _checkpoint(lambda saved: _with_weight(saved, lambda w: w * math.nan)),
        "a weight that is text": _checkpoint(lambda saved: _with_weight(saved, lambda w: "x")),
        **each("shape", _configured, _SHAPES),
    },
    mutated=_random_checkpoint,
    weight=0.5,
)


# ---- settings

_SETTINGS = b"""source = "photo.png"
json = "out.jsonl"
csv = "out.csv"
model = "face68"
backend = "onnxruntime"
precision = "fp32"
track = "off"
threads = 1
max_objects = 3
locate_every = 15
rotate = 0
mirror = false
headless = true
"""


def _settings(content: bytes, folder: Path) -> None:
    """``edge_kp.run --config``, with a picture as its source; wrong usage counts as refused."""
    cv2.imwrite("photo.png", picture(0))
    Path("run.toml").write_bytes(content)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = run.main(["--config", "run.toml", "--headless", "--max-frames", "2"])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
    lines = said.getvalue().strip().splitlines()
    if "Traceback" in said.getvalue():
        raise RuntimeError(lines[-1])
    if code in (1, 2):
        raise ConfigError(lines[-1] if lines else "")
    if code != 0:
        raise RuntimeError(f"exit code {code}: {lines[-1:]}")
    for path in Path().glob("*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)
    for path in Path().glob("*.csv"):
        list(csv.reader(path.read_text().splitlines()))


def _setting(line: str, expected: str = REFUSED) -> Case:
    """Settings with one line more, in place of that of the same key."""
    key = line.partition("=")[0].strip()
    kept = [old for old in _SETTINGS.decode().splitlines() if old.partition("=")[0].strip() != key]
    content = "\n".join([line, *kept]).encode("utf-8", "surrogatepass")
    return Case(lambda _, folder: _settings(content, folder), expected)


def _settings_text(text: bytes) -> Case:
    return Case(lambda _, folder: _settings(text, folder), REFUSED)


def _random_settings(_: Any, folder: Path, rng: Random) -> None:
    spoilt = spoil_text(_SETTINGS, rng)
    # Settings are the user's own word: an output that they name is written, so none may be named by chance.
    _settings(spoilt.replace(b"/etc", b"/nowhere"), folder)


_LINES = (
    *("threads = 0", "threads = -1", "threads = 1e3", "threads = nan", "threads = inf", "threads = true"),
    *(f"threads = {'9' * 4000}", f"threads = {'9' * 5000}", "threads = 99999999999", "threads = [1]"),
    *("threads = {a = 1}", "max_objects = 0", "max_objects = 1979-05-27", "rotate = 45", "mirror = 1"),
    *("no_such = 1", "help = true", "config = 'x'", 'source = "a\\u0000b"', 'source = ""', "source = []"),
    *("source = [[]]", 'source = "../gone.png"', 'source = "\\u001b[2J"', f'source = "{"x" * 5000}"'),
    *('source = "http://127.0.0.1:1/x"', 'source = "csi://x"', 'source = "a ! b"', "source = 99"),
    *('json = "a\\u0000b.jsonl"', 'json = ""', 'json = "gone/out.jsonl"', 'json = "photo.png"', 'json = "."'),
    *('csv = "a\\u0000b.csv"', 'save = "a\\u0000b.png"', 'save = "out.exe"', 'model = "../x"'),
    *('model = "a\\u0000b"', f'model = "{"x" * 5000}"', 'backend = "abacus"', 'precision = "int3"'),
    *('udp = "udp://x"', 'udp = "udp://127.0.0.1:99999"', 'udp = "udp://[::1"', 'mqtt = "mqtt://"'),
    *('mqtt = "mqtt://[::1/a"', "serve = 0", "serve = 65536", "fps = 1", "width = 5", "give_up = -1"),
)
_NO_TOML = (
    *(b"\xff\xfe", b"\0", b"= 1", b"a = ", b"[", b"x = " + b"[" * 100_000, b"x = " + b"{a=" * 100_000),
    *(b"a.b.c = 1", b"a = 1\na = 2", b"[[a]]\n" * 10, b'"" = 1'),
)

SETTINGS = Kind(
    fixed={
        "as they are": Case(lambda _, folder: _settings(_SETTINGS, folder), ANSWERED),
        "nothing": _settings_text(b""),
        **each("line", _setting, _LINES),
        **each("text", _settings_text, _NO_TOML),
    },
    mutated=_random_settings,
    weight=0.5,
)
