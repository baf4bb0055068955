"""Whether 8 bits make a model faster in ONNX Runtime: that goes by its layers, so it is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.types import Array

ROUNDS, CHUNK = 40, 5  # the files take turns, so that a machine that slows down slows both


def seconds(folders: Mapping[str, Path], images: Mapping[str, Array]) -> dict[str, float]:
    """Precision → median time of both stages on one image and one thread.

    Args:
        folders: precision → folder of its files ``NAME.PRECISION.onnx``.
        images: network → uint8 (M, S, S, 3); the first is taken.
    """
    stages = ("stage1", "stage2")
    with ExitStack() as opened:
        loaded = {
            precision: [
                opened.enter_context(
                    OnnxRuntimeBackend(folder / f"{name}.{precision}.onnx", precision, threads=1)
                )
                for name in stages
            ]
            for precision, folder in folders.items()
        }
        taken: dict[str, list[float]] = {precision: [] for precision in loaded}
        for _ in range(ROUNDS):
            for precision, networks in loaded.items():
                start = time.perf_counter()
                for _ in range(CHUNK):
                    for name, network in zip(stages, networks, strict=True):
                        network.run(images[name][:1])
                taken[precision].append((time.perf_counter() - start) / CHUNK)
    return {precision: float(np.median(rounds)) for precision, rounds in taken.items()}
