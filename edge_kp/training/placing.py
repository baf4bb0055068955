"""Finished files are put into the folder of a model."""

from __future__ import annotations

import os
from pathlib import Path

from edge_kp.modeldir import NETWORKS, PRECISIONS, WEIGHTS


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
