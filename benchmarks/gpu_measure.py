"""What the GPU benchmarks share: taking turns, percentiles, goals, tables. It needs numpy alone."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

DEFINITIONS: Mapping[str, str] = {
    "stage1, stage2, cascade": "one network: uint8 images in, float32 results out, both in ordinary memory",
    "staged": "a frame and a box for each image of the batch in, keypoints in frame pixels out: crop on the"
    " host, stage 1, aligned crop on the host, stage 2",
    "fused": "the same by the cascade in one graph: one crop on the host",
    "batch": "images in one call; for staged and fused, boxes in one frame",
    "host_ms": "milliseconds of a call by the host's clock, copies both ways and Python included",
    "device_ms": "milliseconds on the GPU between two CUDA events, without copies; staged: the sum of both"
    " stages. Without graphs it includes the gaps in which the GPU waits for the host. null: not measured",
    "p50, p90, p99": "percentiles over all calls of all rounds",
    "rounds, calls": "in each round every candidate in turn makes one call that is not counted, then as many"
    " as calls; all of it first by the host's clock, then by events",
    "graphs": "true: replayed as a CUDA graph; false: kernel by kernel; null: left to the library",
    "parity": "mean and worst difference of an output from PyTorch's on the model's stored pictures, and what"
    " is allowed: coordinates in sides of the input, or probabilities",
    "kernels": "layers of the engine after fusion, by its sidecar: about as many as kernels are launched",
    "watts": "mean power while calls follow each other without a pause: of the whole board where nvidia-smi"
    " tells it, of the module's input (VDD_IN) where tegrastats does; rails_w: of each rail it names",
    "millijoule_per_image": "watts × seconds / images of that stretch",
}


@dataclass(frozen=True)
class Candidate:
    """One thing to time.

    Attributes:
        run: a call, host to host.
        device: seconds on the GPU of each of so many runs; None where nothing tells them.
        graphs, kernels: see :data:`DEFINITIONS`.
    """

    what: str
    by: str
    precision: str
    batch: int
    run: Callable[[], object]
    device: Callable[[int], Iterable[float]] | None = None
    graphs: bool | None = None
    kernels: int | None = None

    def __str__(self) -> str:
        graphs = {True: " with graphs", False: " without graphs", None: ""}[self.graphs]
        return f"{self.by} {self.precision} {self.what} batch {self.batch}{graphs}"


@dataclass(frozen=True)
class Notes:
    """What was not measured, and why: ``skipped`` is not there, ``failed`` should work and does not."""

    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """A median that is aimed at on an H100, milliseconds."""

    what: str
    precision: str
    batch: int
    figure: str
    at_most: float


GOALS = (Goal("cascade", "fp16", 1, "device_ms", 0.25), Goal("cascade", "fp16", 1, "host_ms", 0.40))


def warm_up(
    candidates: Iterable[Candidate], calls: int, notes: Notes, until: float = math.inf
) -> list[Candidate]:
    """Those that run. A rival that does not is left out by name, an engine that does not has failed.

    Args:
        until: ``time.monotonic()`` after which no further one is tried, lest nothing be measured at all.
    """
    able = []
    for candidate in candidates:
        if time.monotonic() >= until:
            _note(notes, candidate, "no time was left for it")
            continue
        try:
            _turn(candidate, calls)
        except Exception as error:  # each library has its own, and compilers fail in many ways
            _note(notes, candidate, one_line(error))
        else:
            able.append(candidate)
    return able


def _note(notes: Notes, candidate: Candidate, why: str) -> None:
    to = notes.failed if candidate.by.startswith("tensorrt") else notes.skipped
    to[str(candidate)] = why


def measure(
    candidates: Sequence[Candidate],
    rounds: int,
    calls: int,
    notes: Notes,
    until: float = math.inf,
    keep: Callable[[list[dict[str, Any]], int], None] = lambda rows, done: None,
) -> tuple[list[dict[str, Any]], int]:
    """Time all candidates in turns; :data:`DEFINITIONS` says what each figure is.

    One that fails on the way is named in ``notes``, and has no row; the others go on.

    Args:
        until: ``time.monotonic()`` after which no further round is begun.
        keep: is given the rows so far, and the rounds they are of, after each round.

    Returns:
        a row for each candidate, and the rounds there were.
    """
    going = list(candidates)
    times: dict[int, tuple[list[float], list[float]]] = {id(c): ([], []) for c in going}
    done = 0
    rows: list[dict[str, Any]] = []
    while done < rounds and (done == 0 or time.monotonic() < until):
        for candidate in list(going):
            try:
                on_host, on_device = _turn(candidate, calls)
            except Exception as error:  # as in the warm-up
                _note(notes, candidate, f"after {done} rounds: {one_line(error)}")
                going.remove(candidate)
                continue
            host, device = times[id(candidate)]
            host += on_host
            device += on_device
        done += 1
        rows = _rows(going, times)
        keep(rows, done)
    return rows, done


def _rows(
    candidates: Sequence[Candidate], times: Mapping[int, tuple[Sequence[float], Sequence[float]]]
) -> list[dict[str, Any]]:
    return [
        {
            "what": c.what,
            "by": c.by,
            "precision": c.precision,
            "batch": c.batch,
            "graphs": c.graphs,
            "host_ms": spread(times[id(c)][0]),
            "device_ms": spread(times[id(c)][1]) if times[id(c)][1] else None,
            "kernels": c.kernels,
        }
        for c in candidates
    ]


def _turn(candidate: Candidate, calls: int) -> tuple[list[float], list[float]]:
    """Seconds of each call by the host's clock, and of each run by events; the first ones left out."""
    times = [time.perf_counter()]
    for _ in range(calls + 1):
        candidate.run()
        times.append(time.perf_counter())
    host = [b - a for a, b in pairwise(times[1:])]
    return host, list(candidate.device(calls + 1))[1:] if candidate.device else []


def one_line(error: BaseException) -> str:
    """What an error says, cut to a line."""
    text = str(error).strip().partition("\n")[0][:300]
    return text or type(error).__name__


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    values = np.percentile(1e3 * np.asarray(seconds, np.float64), (50, 90, 99))
    return {name: round(float(v), 4) for name, v in zip(("p50", "p90", "p99"), values, strict=True)}


def slug(device: str) -> str:
    """``NVIDIA H100 80GB HBM3`` → ``nvidia-h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "gpu"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, for people."""
    lines = [
        f"{'':<9}{'by':<22}{'':<6}{'batch':>5}{'graphs':>7}"
        f"{'host ms p50':>13}{'p90':>8}{'p99':>8}{'device p50':>12}{'p90':>8}{'p99':>8}{'kernels':>9}"
    ]
    for row in rows:
        graphs = {True: "yes", False: "no", None: "-"}[row["graphs"]]
        host, device = row["host_ms"], row["device_ms"]
        on_gpu = (
            f"{device['p50']:12.3f}{device['p90']:8.3f}{device['p99']:8.3f}"
            if device
            else f"{'-':>12}{'-':>8}{'-':>8}"
        )
        kernels = "-" if row["kernels"] is None else row["kernels"]
        lines.append(
            f"{row['what']:<9}{row['by']:<22}{row['precision']:<6}{row['batch']:>5}{graphs:>7}"
            f"{host['p50']:13.3f}{host['p90']:8.3f}{host['p99']:8.3f}{on_gpu}{kernels:>9}"
        )
    return "\n".join(lines)


def against_goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each goal with the median of TensorRT with graphs; null where that was not measured."""
    found = []
    for goal in GOALS:
        wanted = (goal.what, goal.precision, goal.batch, True)
        times = [
            row[goal.figure]
            for row in rows
            if (row["what"], row["precision"], row["batch"], row["graphs"]) == wanted
            and row["by"].startswith("tensorrt")
        ]
        p50 = times[0]["p50"] if times and times[0] else None
        name = f"{goal.what} {goal.precision} batch {goal.batch} {goal.figure} p50"
        met = None if p50 is None else p50 <= goal.at_most
        found.append({"goal": name, "on": "H100", "at_most": goal.at_most, "measured": p50, "met": met})
    return found


def missed_goals(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Goals that were not measured although their engine runs, and why: it was not replayed as a graph."""
    there = {(r["what"], r["precision"], r["batch"]) for r in rows if r["by"].startswith("tensorrt")}
    return {
        f"goal {found['goal']}": "not measured: its engine ran, but not with CUDA graphs"
        for goal, found in zip(GOALS, against_goals(rows), strict=True)
        if found["measured"] is None and (goal.what, goal.precision, goal.batch) in there
    }


def goal_lines(goals: Sequence[Mapping[str, Any]]) -> str:
    """The goals as text, for people."""
    words = {True: "met", False: "NOT met", None: "not measured"}
    return "\n".join(
        f"{g['goal']}: {'-' if g['measured'] is None else format(g['measured'], '.3f')}"
        f" (goal on an {g['on']}: at most {g['at_most']:.2f}): {words[g['met']]}"
        for g in goals
    )
