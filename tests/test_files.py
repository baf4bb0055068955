"""Files that may be damaged are read whole or refused with one line, whatever they claim to hold."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge_kp import files
from edge_kp.files import clear_abandoned, parse_json, read_arrays, replacing


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def claimed(count: int) -> bytes:
    """An array whose header promises so many numbers, with none behind it."""
    file = io.BytesIO()
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},), }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is looked at by the tests
        read_arrays(path)
    assert str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array("text")}
    (tmp_path / "x.npz").write_bytes(npz(**arrays))
    found = read_arrays(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)


def test_what_a_killed_program_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    target = tmp_path / "a[1].bin"
    old, new, other = (tmp_path / f".{pid}.part.{name}" for pid, name in
                       ((11, "a[1].bin"), (12, "a[1].bin"), (11, "b.bin")))  # fmt: skip
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    clear_abandoned(target)
    with replacing(target) as part:
        part.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert sorted(tmp_path.iterdir()) == sorted([target, new, other]), "one may be at work on the second now"


def test_any_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    arrays = {"a": np.arange(40, dtype=np.float32), "b": np.arange(12).reshape(3, 4)}
    data = npz(**arrays)
    path, noticed = tmp_path / "x.npz", 0
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            found = read_arrays(path)
        except ValueError:
            noticed += 1
            continue
        for name in found.keys() & arrays.keys():
            np.testing.assert_array_equal(found[name], arrays[name], err_msg=f"byte {at}")
            assert found[name].dtype == arrays[name].dtype
    assert noticed > len(data) // 7 // 2


def test_a_shape_that_leaves_numbers_out_is_noticed(tmp_path: Path) -> None:
    data = npz(a=np.arange(64, dtype=np.float32))
    assert data.count(b"(64,)") == 1
    assert "check sum" in refusal(tmp_path / "x.npz", data.replace(b"(64,)", b"(63,)"))


@pytest.mark.parametrize("count", [10**6, 10**12, 2**63])
def test_numbers_that_are_not_there_are_refused(tmp_path: Path, count: int) -> None:
    refusal(tmp_path / "x.npz", claimed(count))


def test_no_more_is_unpacked_than_a_file_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 10_000)
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros(100_000))
    assert len(packed.getvalue()) < 10_000
    assert "more than 10000" in refusal(tmp_path / "x.npz", packed.getvalue())


def test_code_is_not_run_and_other_files_are_refused(tmp_path: Path) -> None:
    objects = io.BytesIO()
    np.savez(objects, allow_pickle=True, a=np.array([{}], object))
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as zipped:
        zipped.writestr("a", "no array")
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    for content in (objects.getvalue(), text.getvalue(), single.getvalue(), b"", b"PK", b"text"):
        refusal(tmp_path / "x.npz", content)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "gone.npz")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "", "{", "9" * 5000 + "x"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        parse_json(text)
    assert parse_json('{"a": [1]}') == {"a": [1]}
