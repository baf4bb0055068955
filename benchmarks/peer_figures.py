"""The figures of ``benchmarks.peers``: of tracks and of the answers of workers, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.peer_worker import CELLS, COMMON
from benchmarks.workers import Answer
from edge_kp.errors import EdgeKpError
from edge_kp.types import Array

OWN, PEER = "edge_kp", "mediapipe"
LIMITS = ("as_many_as_copies", "always_four")  # how many faces the systems look for in part 3
MARGIN = 1.3  # outer eye distances between the common points and the border of a copy
OTHER_FACE = 0.5  # mean distance of two systems' points in eye distances, above which they show two faces
LEFT_EYE, RIGHT_EYE = COMMON.index("left_outer_eye"), COMMON.index("right_outer_eye")


def timed(answers: Sequence[Answer], clock: str = "ms") -> tuple[Array, Array]:
    """Milliseconds and numbers of faces of the frames that were timed."""
    rows = [row for answer in answers for row in zip(answer[clock], answer["faces"], strict=True)]
    kept = np.array([row for row in rows if row[0] is not None], float).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]


def middle(values: Array, digits: int = 3) -> float | None:
    """The median; None of nothing."""
    return round(float(np.median(values)), digits) if len(values) else None


def time_figures(answers: Mapping[str, list[Answer]]) -> dict[str, Any]:
    """Milliseconds a frame of each system, and of two systems the ratio of their medians."""
    figures: dict[str, Any] = {}
    for name, rounds in answers.items():
        ms, faces = timed(rounds)
        figures[name] = {
            "median_ms": middle(ms),
            "p95_ms": round(float(np.percentile(ms, 95)), 3),
            "with_face_median_ms": middle(ms[faces > 0]),
            "without_face_median_ms": middle(ms[faces == 0]),
            "cpu_median_ms": middle(timed(rounds, "cpu_ms")[0]),
        }
    if PEER in answers:
        for key, clock in (("ratio", "ms"), ("cpu_ratio", "cpu_ms")):
            ratios = [
                np.median(timed([own], clock)[0]) / np.median(timed([peer], clock)[0])
                for own, peer in zip(answers[OWN], answers[PEER], strict=True)
            ]
            low, half, high = (round(float(v), 3) for v in np.percentile(ratios, [25, 50, 75]))
            figures[key] = {"median": half, "quartiles": [low, high]}
    return figures


def as_track(answer: Answer) -> Array:
    """(T, P, 2) common points of T frames in pixels, NaN where there is no face."""
    missing = np.full((len(COMMON), 2), np.nan)
    return np.array([missing if points is None else points for points in answer["points"]])


def eye_distance(tracks: Mapping[str, Array]) -> Array:
    """(T,) distance of the outer eye corners in pixels, mean of the systems; NaN where one has no face."""
    each = [np.linalg.norm(track[:, LEFT_EYE] - track[:, RIGHT_EYE], axis=-1) for track in tracks.values()]
    return np.asarray(np.mean(each, axis=0))


def steadiness(tracks: Mapping[str, Array]) -> dict[str, Any] | None:
    """First and second differences as ``benchmarks.peers`` defines them; None without three frames in a row.

    Args:
        tracks: each system's (T, P, 2) common points in pixels, NaN without a face.
    """
    unit = eye_distance(tracks)
    seen = ~np.isnan(unit)
    inner = np.flatnonzero(seen[:-2] & seen[1:-1] & seen[2:]) + 1
    if not len(inner):
        return None

    def percent(vectors: Array) -> float:
        return round(100 * float(np.sqrt(np.mean(np.sum(vectors**2, axis=-1)))), 4)

    figures: dict[str, Any] = {"frames": len(inner), "eye_distance_px": middle(unit[inner], 1)}
    for name, p in tracks.items():
        first = (p[inner + 1] - p[inner]) / unit[inner, None, None]
        second = (p[inner + 1] - 2 * p[inner] + p[inner - 1]) / unit[inner, None, None]
        figures[name] = {
            "second_difference_percent": percent(second),
            "first_difference_percent": percent(first),
            "second_difference_by_point": {point: percent(second[:, i]) for i, point in enumerate(COMMON)},
        }
    return figures


def stillest(tracks: Mapping[str, Array], window: int) -> dict[str, Any] | None:
    """Steadiness in the window of least motion; None where no window has the face in each frame."""
    unit = eye_distance(tracks)
    best, start = np.inf, None
    for first in range(len(unit) - window + 1):
        part = slice(first, first + window)
        if np.isnan(unit[part]).any():
            continue
        strays = [
            np.sqrt(np.mean(np.sum((p[part] - p[part].mean(axis=0)) ** 2, axis=-1))) for p in tracks.values()
        ]
        stray = float(np.mean(strays) / unit[part].mean())
        if stray < best:
            best, start = stray, first
    if start is None:
        return None
    figures = steadiness({name: p[start : start + window] for name, p in tracks.items()})
    if figures is None:
        return None
    return {"first_frame": start, "window": window, "stray_percent": round(100 * best, 3), **figures}


def agree(tracks: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tracks, NaN where the two systems are on different faces, and figures of how far they agree.

    Raises:
        EdgeKpError: one system's left is the other's right.
    """
    for name, track in tracks.items():
        wide = track[:, RIGHT_EYE, 0] - track[:, LEFT_EYE, 0]
        if (wide < 0).sum() > (wide > 0).sum():
            raise EdgeKpError(f"{name}: its left eye lies to the right; its points are not the other's")
    distance = np.linalg.norm(tracks[OWN] - tracks[PEER], axis=-1).mean(axis=-1) / eye_distance(tracks)
    other = distance > OTHER_FACE
    same = distance[distance <= OTHER_FACE]
    both = {name: np.where(other[:, None, None], np.nan, track) for name, track in tracks.items()}
    return both, {
        "points_apart_percent": round(100 * float(same.mean()), 2) if len(same) else None,
        "frames_on_different_faces_percent": round(100 * float(other.mean()), 2),
    }


def presence(track: Array) -> dict[str, Any]:
    """Share of frames with a face, and the frames without, e.g. ``["3", "7-9"]``."""
    seen = ~np.isnan(track[:, 0, 0])
    without = np.flatnonzero(~seen)
    runs = np.split(without, np.flatnonzero(np.diff(without) > 1) + 1)
    return {
        "percent": round(100 * float(seen.mean()), 2),
        "frames_without": [
            f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs if len(run)
        ],
    }


def copy_crop(tracks: Mapping[str, Array], size: Sequence[int]) -> list[int]:
    """``[x0, y0, x1, y1]`` that holds the face in all frames of the tracks, which have it in each."""
    points = np.concatenate([track.reshape(-1, 2) for track in tracks.values()])
    margin = MARGIN * np.max(eye_distance(tracks))
    low = np.maximum(points.min(axis=0) - margin, 0)
    high = np.minimum(points.max(axis=0) + margin, size)
    return [int(v) for v in (*low, *np.ceil(high))]


def copy_figures(
    answers: Mapping[tuple[str, int, int], list[Answer]], systems: Sequence[str]
) -> dict[str, Any]:
    """Median time with 1 to 4 faces, of the frames in which all were found, and the slope of a line.

    Args:
        answers: of each system, limit of faces and number of copies.
    """
    counts = range(1, CELLS**2 + 1)
    figures: dict[str, Any] = {"faces": list(counts)}
    for rule in LIMITS:
        figures[rule] = {}
        for name in systems:
            medians, shares = [], []
            for n in counts:
                ms, faces = timed(answers[name, limit_of(rule, n), n])
                medians.append(middle(ms[faces == n]))
                shares.append(round(100 * float(np.mean(faces == n)), 1))
            known = np.array([row for row in zip(counts, medians, strict=True) if row[1] is not None], float)
            figures[rule][name] = {
                "median_ms": medians,
                "frames_with_all_percent": shares,
                "ms_per_further_face": round(float(np.polyfit(known[:, 0], known[:, 1], 1)[0]), 3)
                if len(known) > 1
                else None,
            }
    return figures


def limit_of(rule: str, copies: int) -> int:
    """How many faces a system looks for under one of :data:`LIMITS`."""
    return copies if rule == "as_many_as_copies" else CELLS**2
