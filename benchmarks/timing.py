"""What benchmarks of time share: taking turns, percentiles, quartiles, slopes. It needs numpy alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm


def measure(
    candidates: Mapping[str, Callable[[], object]], rounds: int, chunk: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of a call of each candidate. They take turns, ``chunk`` calls each in every round.

    The first tenth of the rounds is left out. So is the first call of a turn where there are more: it finds
    the caches full of what the candidate before left there, as no program does that runs one of them.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in candidates}
    for _ in tqdm(range(rounds + rounds // 10), "measuring", leave=False):
        for name, call in candidates.items():
            turn = []
            for _ in range(chunk):
                start = time.perf_counter()
                call()
                turn.append(1e3 * (time.perf_counter() - start))
            times[name].append(turn[1:] or turn)
    kept = {name: np.array(turns[rounds // 10 :]) for name, turns in times.items()}
    return {
        name: {"median_ms": round(float(np.median(v)), 3), "p95_ms": round(float(np.percentile(v, 95)), 3)}
        for name, v in kept.items()
    }


def median_ms(call: Callable[[], object], rounds: int) -> float:
    """Milliseconds of a call, the median of so many."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99, in the unit of the values."""
    found = np.percentile(np.asarray(values, np.float64), (50, 90, 99))
    return {name: round(float(v), 4) for name, v in zip(("p50", "p90", "p99"), found, strict=True)}


def quartiles(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """The median, and between which two values the middle half lies."""
    low, half, high = (round(float(v), digits) for v in np.percentile(values, (25, 50, 75)))
    return {"median": half, "quartiles": [low, high]}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line through the points that errs least (squares), in units of y for each of x.

    Raises:
        ValueError: fewer than two different x.
    """
    if len(set(x)) < 2:
        raise ValueError("a line needs two different x")
    return float(np.polyfit(np.asarray(x, np.float64), np.asarray(y, np.float64), 1)[0])
