"""Files spoilt at random: bytes, values of JSON, words of text, arrays of an ``.npz``."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from edge_kp.types import Array

Random = np.random.Generator

OUTSIDE = ("../secret.png", "../../etc/passwd", "/etc/passwd", "sub/../../secret.png", "..", "~", "C:\\x.png")
# What nobody expects in a file, yet every parser of JSON lets through.
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "0", "nan", "a\0b", "\ud800", "a\nb", "é🙂", "9" * 5000, "../" * 2000),
    *(-1, 0, 1, 2, 7, 10**6, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, 1e-300, 1e39, 1e308),
    *(math.nan, math.inf, -math.inf, [], [[]], {}, {"": 0}, [None], ["a", 1], [1e39] * 3, *OUTSIDE),
)
WORDS = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e39",
        "1e999",
        "-1",
        "0",
        "1_0",
        "0x10",
        "",
        "x",
        "9" * 500,
        "{",
        "}",
        ":",
        "#",
    ),
    *("n_points: 99999999999", "n_points: -1", "é", "\0", "\ufeff", "1e30", "٣", "1,5", *OUTSIDE),
)


def pick(rng: Random, things: Any) -> Any:
    """One of several things, as it is."""
    return things[int(rng.integers(len(things)))]


def spoil_bytes(data: bytes, rng: Random) -> bytes:
    """Cut off, or with some bytes changed, added, taken away or in another place."""
    at = int(rng.integers(len(data) + 1))
    end = min(len(data), at + int(rng.integers(1, 64)))

    def changed() -> bytes:
        spoilt = bytearray(data)
        for place in rng.integers(len(data), size=int(rng.integers(1, 9))) if data else ():
            spoilt[int(place)] ^= int(rng.integers(1, 256))
        return bytes(spoilt)

    how: tuple[Callable[[], bytes], ...] = (
        *(changed,) * 4,
        lambda: data[:at],
        lambda: data[:at] + rng.bytes(end - at) + data[end:],
        lambda: data[:at] + data[end:],
        lambda: data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:],
        lambda: data[:at] + data[at:end] + data[at:],
        lambda: data[:at] + bytes(len(data) - at),
        lambda: rng.bytes(int(rng.integers(0, 2000))),
    )
    spoilt: bytes = pick(rng, how)()
    return spoilt if spoilt != data else data + b"\0"


def spoil_json(data: bytes, rng: Random) -> bytes:
    """JSON with values exchanged, left out, nested or repeated; now and then no JSON any more."""
    if rng.random() < 0.15:
        return spoil_bytes(data, rng)
    content = [json.loads(data)]
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        _spoil_value(content, rng)
    text = json.dumps(content[0])
    if rng.random() < 0.05:
        at = text.find(":") + 1
        text = text[:at] + pick(rng, ("[", '{"a":')) * 100_000 + text[at:]
    return text.encode()


def _spoil_value(content: list[Any], rng: Random) -> None:
    """Change something inside of ``content[0]``, more likely near the top."""
    inner: Any = content
    key: Any = 0
    while isinstance(inner[key], (dict, list)) and inner[key] and rng.random() < 0.8:
        inner = inner[key]
        key = pick(rng, list(inner) if isinstance(inner, dict) else range(len(inner)))
    value = inner[key]
    how = rng.integers(10)
    if how == 0 and inner is not content:
        del inner[key]
    elif how == 1:
        inner[key] = [value]
    elif how == 2:
        inner[key] = str(value)
    elif how == 3 and isinstance(value, list):
        inner[key] = value * 1000 if len(value) < 100 else value[: len(value) // 2]
    elif how == 4 and inner is not content:
        other = pick(rng, list(inner) if isinstance(inner, dict) else range(len(inner)))
        inner[key] = deepcopy(inner[other])
    elif how == 5 and isinstance(value, (int, float)) and abs(value) < 1e200:
        inner[key] = value * pick(rng, (-1, 1000, 1e-9, 1e30))
    else:
        inner[key] = deepcopy(pick(rng, VALUES))  # what comes next may change it


def spoil_text(data: bytes, rng: Random) -> bytes:
    """Text with words exchanged, or lines left out or repeated; now and then no text any more."""
    if rng.random() < 0.2:
        return spoil_bytes(data, rng)
    lines = [line.split(" ") for line in data.decode().split("\n")]
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        number = int(rng.integers(len(lines)))
        how = rng.integers(6)
        if how == 0 and len(lines) > 1:
            del lines[number]
        elif how == 1:
            lines.insert(int(rng.integers(len(lines))), lines[number])
        else:
            words = list(lines[number])
            words[int(rng.integers(len(words)))] = pick(rng, WORDS)
            lines[number] = words
    return "\n".join(" ".join(words) for words in lines).encode("utf-8", "surrogatepass")


def npz(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as an ``.npz`` file."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def spoil_npz(data: bytes, rng: Random) -> bytes:
    """Arrays of another shape or type, without values, of objects or of a size that is not there."""
    with np.load(io.BytesIO(data)) as file:
        arrays = {name: file[name] for name in file.files}
    name = pick(rng, list(arrays))
    value = arrays[name]
    how: tuple[Callable[[], Any], ...] = (
        lambda: value[:0] if value.ndim else value[None],
        lambda: value.ravel(),
        lambda: value.astype(pick(rng, ("S8", "U8", bool))),
        lambda: np.full_like(value, math.nan) if value.dtype.kind == "f" else value,
        lambda: value * np.float32(1e30) if value.dtype.kind == "f" else value,
        lambda: np.array(str(value)[:1000]),
        lambda: np.array({"a": 1}, object),
        lambda: np.zeros(3),
        lambda: np.repeat(value[None], 3, 0),
        lambda: np.array(json.dumps(pick(rng, VALUES))),
        lambda: (
            np.array(spoil_json(str(value).encode(), rng).decode("utf-8", "replace"))
            if value.dtype.kind == "U" and not value.ndim  # a text of JSON
            else value[..., :1]
        ),
    )
    arrays[name] = np.asarray(pick(rng, how)())
    if rng.random() < 0.2:
        del arrays[pick(rng, list(arrays))]
    if rng.random() < 0.15:
        return claimed(pick(rng, (10**6, 10**12, 2**63)))
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


def claimed(count: int) -> bytes:
    """An ``.npz`` whose array says that it holds so many numbers, and holds none."""
    header = (
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, 2), }}".ljust(117).encode() + b"\n"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in ("templates", "mean_shape", "vertices", "stage1/image"):
            zipped.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


def bomb(name: str, size: int) -> bytes:
    """An ``.npz`` of a kilobyte for each megabyte that its array unpacks to."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}".ljust(117).encode() + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first, block = (packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for part in (start, bytes(2**20)))
    packed = first + block * (size >> 20) + packer.flush()
    # Names, sizes and so on: once before the entry, once at the end of the file. The check sum is none.
    more = struct.pack("<HHQQ", 1, 16, len(start) + size, len(packed))
    about = struct.pack("<HHHHHIIIHH", 45, 0, 8, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name) + 4, len(more))
    title = f"{name}.npy".encode()
    entry = b"PK\3\4" + about + title + more + packed
    listed = b"PK\1\2" + struct.pack("<H", 45) + about + struct.pack("<HHHII", 0, 0, 0, 0, 0) + title + more
    return entry + listed + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(listed), len(entry), 0)
