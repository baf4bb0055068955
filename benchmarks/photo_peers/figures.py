"""Errors and times of the systems that ``benchmarks.peer_photos`` compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.photo_peers.markup import PARTS
from benchmarks.photo_peers.pareto import CLOCKS
from benchmarks.workers import Answer
from edge_kp.errors import DataError
from edge_kp.metrics import failure_rate, nme
from edge_kp.schema import FACE68
from edge_kp.types import Array

DEFINED = {
    "nme": "mean distance of the 68 points from their labels, % of the outer eye distance, mean of photos",
    "fr10": "photos with an NME above 10 % or without an answer, %",
    "missed": "photos without an answer; they count in fr10 and in no mean",
    "ms": "wall time from the image and the box to the points in pixels, Python included",
    "network_ms": "wall time of all its networks on input that lies ready; null where it cannot be told",
    "cpu_ms": "processor time of all threads for what ms measures",
    "ratio": "median of a round by the median of edge_kp in that round; the median of rounds, and quartiles",
    "pareto": "systems that no other one is at least as good as in both NME and median time",
}


def figures(points: Array, labels: Array) -> dict[str, Any]:
    """NME %, FR@10 %, and NME % of the parts of a face; of found faces, but FR.

    Args:
        points, labels: (M, 68, 2).
    """
    errors = nme(points, labels, FACE68)
    counted = errors[~np.isnan(errors)]
    if not len(counted):
        raise DataError("no photo has labels of both outer eye corners; errors have no unit")
    unit = FACE68.reference_distance(labels)[:, None]
    far = 100 * np.linalg.norm(points - labels, axis=-1) / np.where(unit > 0, unit, np.nan)
    found = np.isfinite(counted)
    parts = {name: far[:, part][np.isfinite(far[:, part])] for name, part in PARTS.items()}
    return {
        "nme": round(100 * float(counted[found].mean()), 3) if found.any() else None,
        "fr10": round(100 * failure_rate(counted), 2),
        "by_part": {name: round(float(v.mean()), 3) if len(v) else None for name, v in parts.items()},
    }


def times(answers: Sequence[Answer], base: Sequence[Answer]) -> dict[str, Any]:
    """Median and p90 of a system's milliseconds, and their ratio to those of ``base``, round by round."""
    row: dict[str, Any] = {}
    for clock in (*CLOCKS, "cpu_ms"):
        every = np.concatenate([answer[clock] for answer in answers])
        if not len(every):
            row[clock] = None
            continue
        ratios = [np.median(a[clock]) / np.median(b[clock]) for a, b in zip(answers, base, strict=True)]
        low, half, high = (round(float(v), 3) for v in np.percentile(ratios, [25, 50, 75]))
        row[clock] = {
            "median": round(float(np.median(every)), 3),
            "p90": round(float(np.percentile(every, 90)), 3),
            "ratio": half,
            "ratio_quartiles": [low, high],
        }
    return row
