"""A model's files are written beside its folder and put there when all of them are right."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_kp.files import room_for
from edge_kp.modeldir import NETWORKS, PRECISIONS, WEIGHTS


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A folder on the disk of ``out`` to write in: in it, if it is there, since a disk may be mounted at it.

    Raises:
        ModelError: that disk is full.
    """
    with room_for(out):
        around = out if out.exists() else out.parent
        around.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=around) as temporary:
            yield Path(temporary)


def move_into(folder: Path, out: Path) -> None:
    """Put the finished files in place, ``model.json`` last, so that no reader sees half a model.

    Networks of an older model in ``out`` that the new one does not have are removed; nothing else is.
    """
    out.mkdir(parents=True, exist_ok=True)
    older = (out / "model.json").exists()
    names = sorted((p.name for p in folder.iterdir()), key=lambda n: n == "model.json")
    for name in names:
        os.replace(folder / name, out / name)
    if older:
        ours = {WEIGHTS, *(f"{network}.{p}.onnx" for network in NETWORKS for p in PRECISIONS)}
        for name in ours.difference(names):
            (out / name).unlink(missing_ok=True)
