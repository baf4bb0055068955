"""The candidates of ``benchmarks.speed``: which there are, their processes, and the turns they take."""

from __future__ import annotations

import importlib.util
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.workers import Worker
from edge_kp.backends import BACKENDS, choose_precision, open_backend
from edge_kp.errors import BackendError, EdgeKpError
from edge_kp.modeldir import NETWORKS, ModelSpec, checked_file

WORKER = "benchmarks.speed_worker"
YARDSTICK = "mobilenet_v2"
CASCADE = "cascade"
SPARE_MB = 500  # of memory that must be left for a further candidate


@dataclass(frozen=True)
class Key:
    """A candidate: one process, which runs all batches."""

    network: str
    backend: str
    precision: str
    threads: int

    def __str__(self) -> str:
        return f"{self.backend} {self.precision} {self.network}, {self.threads} thread(s)"


@dataclass(frozen=True)
class Notes:
    """What was not measured, and why: ``skipped`` is not there, ``failed`` should work and does not."""

    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def installed(wanted: Sequence[str] | None) -> list[str]:
    """The backends that can run here, of those that are wanted; None takes whatever is there.

    Raises:
        BackendError: one that is wanted cannot run, or none can.
    """
    found = []
    for name in wanted or [b for b in BACKENDS if b != "auto"]:
        try:
            _demand(name)
        except BackendError:
            if wanted:
                raise
        else:
            found.append(name)
    if not found:
        raise BackendError("no backend is installed: pip install onnxruntime")
    return found


def _demand(backend: str) -> None:
    if backend == "tensorrt":
        from edge_kp.backends.cuda import find_gpu
        from edge_kp.backends.tensorrt import load_tensorrt

        load_tensorrt()
        find_gpu()
    elif importlib.util.find_spec(backend) is None:
        raise BackendError(f"backend {backend}: not installed; pip install {backend}")


def plan(
    spec: ModelSpec,
    networks: Sequence[str],
    backends: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    notes: Notes,
) -> Iterator[Key]:
    """Every candidate that the model has files for; the others are noted."""
    for backend in backends:
        for wanted in precisions:
            try:
                precision = choose_precision(backend, wanted, spec.files)
            except BackendError as error:
                notes.skipped[f"{backend} {wanted}"] = str(error)
                continue
            for network in networks:
                needed = "stage2" if network == CASCADE else network
                if network == YARDSTICK:
                    continue
                if f"{needed}.{precision}.onnx" not in spec.files:
                    notes.skipped[f"{backend} {precision} {network}"] = f"the model has no {needed} in it"
                    continue
                for n in threads[:1] if backend == "tensorrt" else threads:  # a GPU asks for no more
                    yield Key(network, backend, precision, n)
    if YARDSTICK in networks:
        yield from (Key(YARDSTICK, "onnxruntime", "fp32", n) for n in threads)


def build_engines(folder: Path, spec: ModelSpec, precisions: Iterable[str]) -> None:
    """Engines that TensorRT would build when it is first asked, which is no part of a start.

    Raises:
        BackendError: one cannot be built.
    """

    for network in NETWORKS:
        for precision in precisions:
            if f"{network}.{precision}.onnx" in spec.files:
                path = checked_file(folder, spec, f"{network}.{precision}.onnx")
                open_backend("tensorrt", path, precision, None).close()


def start(
    keys: Sequence[Key], args: Namespace, work: Path, keep: ExitStack, notes: Notes
) -> dict[Key, Worker]:
    """A running process for each candidate, opened in the order given; one that cannot is noted.

    Raises:
        EdgeKpError: memory does not suffice for all of them.
    """
    cores = sorted(os.sched_getaffinity(0))
    workers: dict[Key, Worker] = {}
    for key in tqdm(keys, "starting", unit="candidate", leave=False):
        free = _free_mb()
        if free is not None and free < SPARE_MB:
            raise EdgeKpError(
                f"{free:.0f} MB of memory left with {len(workers)} of {len(keys)} candidates open; measure"
                " fewer at once (--networks, --backends, --precisions, --threads)"
            )
        arguments: list[object] = ["--network", key.network, "--model", args.model, "--backend", key.backend]
        arguments += ["--precision", key.precision, "--turn-ms", args.turn_ms, "--batches", *args.batches]
        arguments += ["--cpus", *cores[-key.threads :]]
        if key.network == YARDSTICK:
            arguments += ["--file", work / f"{YARDSTICK}.onnx"]
        try:
            workers[key] = keep.enter_context(Worker(sys.executable, arguments, WORKER))
        except EdgeKpError as error:
            notes.failed[str(key)] = str(error)
    return workers


def _free_mb() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable")), None)


Turns = dict[tuple[Key, int], list[dict[str, Any]]]


def take_turns(workers: dict[Key, Worker], rounds: int, rng: np.random.Generator) -> Turns:
    """Answers of each candidate and batch, one a round, in an order drawn anew for each round."""
    pairs = [(key, i) for key, worker in workers.items() for i in range(len(worker.about["batches"]))]
    turns: Turns = {(key, workers[key].about["batches"][i]): [] for key, i in pairs}
    for _ in tqdm(range(rounds), "measuring", unit="round", leave=False):
        for at in rng.permutation(len(pairs)):
            key, i = pairs[at]
            turns[key, workers[key].about["batches"][i]].append(workers[key].run(i))
    return turns
