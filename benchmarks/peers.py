"""edge_kp beside MediaPipe Face Mesh on the same frames and the same core: ``python -m benchmarks.peers``.

MediaPipe needs an environment of its own, whose Python is ``--peer-python``; without it edge_kp runs alone:

    python3.11 -m venv peers
    peers/bin/pip install mediapipe==0.10.14
    python -m benchmarks.peers --clip clip.mp4 --peer-python peers/bin/python

Accuracy on labelled photos, and other networks, are in ``benchmarks.peer_photos``.

Each system is a process of its own (``benchmarks.peer_worker``), pinned to one core, one thread. Three parts:

1. One pass over the whole clip: in how many frames a face is found, and how steady its points are.
2. Time: the systems take turns, ``--chunk`` frames each, so that other work on the machine meets both; the
   figure to compare is the ratio of their medians, taken round by round. Rounds go on through the clip and
   start over at its end; the first tenth of them is left out, and so are the first frames of each pass.
3. Cost per further face: the same, with 1 to 4 copies of the face in a frame of the same size, once with
   systems that look for as many faces as there are, once with such that always look for four.

In parts 1 and 2 both systems follow one face (Tracker ``max_objects=1``, FaceMesh ``max_num_faces=1``), so
that neither looks for a second one; ``--options`` can say otherwise for edge_kp.

Steadiness is taken over the points that both have (eye corners, mouth corners, tip of the nose) and over the
frames t where every system has the face, and the same one, in t-1, t and t+1. The second difference
``s_t = p_{t+1} - 2 p_t + p_{t-1}`` is zero for points that rest or move evenly; the figure is the root of the
mean of |s_t|² over frames and points, in % of the distance between the outer eye corners in frame t (mean of
the systems, so that both are measured with one rule). The first difference ``p_{t+1} - p_t`` holds the face's
own motion as well, and is given to compare with. The stillest window is the ``--window`` frames in a row, all
with a face, in which the points stray least from their mean place (root mean square, mean of the systems).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import write_result
from benchmarks.peer_worker import CELLS, COMMON, UNTIMED, keywords
from benchmarks.workers import Answer, Worker, take_turns
from edge_kp.cli import natural, positive, run_cli
from edge_kp.errors import EdgeKpError, SourceError
from edge_kp.types import Array

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "edge_kp" / "assets" / "astronaut.mp4"
OWN, PEER = "edge_kp", "mediapipe"
COPY_FRAMES = 50  # frames of the clip in which faces are copied: the stillest, so that little room is needed
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
    """First and second differences as the top of this file defines them; None without three frames in a row.

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
                ms, faces = timed(answers[name, _limit(rule, n), n])
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


def _limit(rule: str, copies: int) -> int:
    """How many faces a system looks for under one of :data:`LIMITS`."""
    return copies if rule == "as_many_as_copies" else CELLS**2


def _pythons(args: argparse.Namespace) -> dict[str, str]:
    """Each system's Python.

    Raises:
        EdgeKpError: there is no such program.
    """
    if args.peer_python is None:
        return {OWN: sys.executable}
    if shutil.which(args.peer_python) is None:
        raise EdgeKpError(f"{args.peer_python}: no such Python; make one as `--help` says, or leave it out")
    return {OWN: sys.executable, PEER: args.peer_python}


def _start(
    stack: ExitStack, args: argparse.Namespace, name: str, options: dict[str, Any], *more: object
) -> Worker:
    """A worker with keyword arguments of its tracker, closed with the stack."""
    arguments = ["--system", name, "--clip", args.clip, "--cpu", args.cpu, "--size", *args.size, *more]
    arguments += ["--options", json.dumps(options)]
    if name == OWN:
        arguments += ["--detector-options", json.dumps(args.detector_options)]
    return stack.enter_context(Worker(_pythons(args)[name], arguments))


def one_face(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Array]]:
    """Parts 1 and 2: figures, and each system's points of one pass over the clip, where both show one face.

    Raises:
        EdgeKpError: a worker ended, the systems did not get the same frames, or left is right for one.
    """
    with ExitStack() as stack:
        workers = {
            name: _start(stack, args, name, {"max_objects": 1, **args.options}, "--points")
            if name == OWN
            else _start(stack, args, name, {"max_num_faces": 1}, "--points")
            for name in _pythons(args)
        }
        about = {name: worker.about for name, worker in workers.items()}
        if len({row["digest"] for row in about.values()}) > 1:
            raise SourceError(f"{args.clip}: the OpenCVs of the two Pythons read different frames from it")
        count = about[OWN]["frames"]
        if count <= UNTIMED:
            raise SourceError(f"{args.clip}: holds {count} frames; more than {UNTIMED} needed")
        tracks = {name: as_track(worker.run(count)) for name, worker in workers.items()}
        answers = take_turns(workers, args.rounds, args.chunk, args.clip.name)
    face = {name: presence(track) for name, track in tracks.items()}
    tracks, agreement = agree(tracks) if PEER in tracks else (tracks, {})
    return {
        "frames": count,
        "versions_of_systems": {name: row["versions"] for name, row in about.items()},
        "face": face,
        **agreement,
        "time": time_figures(answers),
        "steadiness": {"clip": steadiness(tracks), "stillest_window": stillest(tracks, args.window)},
    }, tracks


def further_faces(args: argparse.Namespace, tracks: Mapping[str, Array]) -> dict[str, Any] | None:
    """Part 3's figures; None where no :data:`COPY_FRAMES` frames in a row have a face in every system."""
    still = stillest(tracks, COPY_FRAMES)
    if still is None:
        return None
    first = still["first_frame"]
    crop = copy_crop({name: track[first : first + COPY_FRAMES] for name, track in tracks.items()}, args.size)
    with ExitStack() as stack:
        workers = {
            (name, limit, n): _start(
                stack,
                args,
                name,
                {**args.options, "max_objects": limit} if name == OWN else {"max_num_faces": limit},
                *("--first", first, "--most", COPY_FRAMES, "--copies", n, "--crop", *crop),
            )
            for n in range(1, CELLS**2 + 1)
            for limit in sorted({_limit(rule, n) for rule in LIMITS})
            for name in tracks
        }
        answers = take_turns(workers, args.copy_rounds, args.chunk, "further faces")
    return {
        "first_frame": first,
        "frames": COPY_FRAMES,
        "crop": crop,
        **copy_figures(answers, list(tracks)),
    }


def _run(args: argparse.Namespace) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise EdgeKpError("keeping a process on one core needs Linux")
    cores = os.sched_getaffinity(0)
    args.cpu = max(cores) if args.cpu is None else args.cpu
    if args.cpu not in cores:
        raise EdgeKpError(f"--cpu {args.cpu}: this process may use {', '.join(map(str, sorted(cores)))}")
    if args.chunk <= UNTIMED:
        raise EdgeKpError(f"--chunk {args.chunk}: more than {UNTIMED} needed, so many frames are not timed")
    figures, tracks = one_face(args)
    figures["further_faces"] = further_faces(args, tracks) if args.copy_rounds else None
    _print(figures, args)
    settings = {
        "clip": args.clip.name,
        **{name: getattr(args, name) for name in ("size", "cpu", "rounds", "chunk", "copy_rounds")},
        "tracker_options": {"max_objects": 1, **args.options},
        "detector_options": args.detector_options,
    }
    write_result(f"peers-{args.clip.stem}", {**settings, "figures": figures})


def _print(figures: dict[str, Any], args: argparse.Namespace) -> None:
    names = list(figures["face"])
    columns = ("median_ms", "p95_ms", "with_face_median_ms", "without_face_median_ms")
    print(f"{'ms a frame':<24}{'median':>10}{'p95':>10}{'with':>10}{'without':>10} a face; face in")
    for name in names:
        row, face = figures["time"][name], figures["face"][name]
        times = "".join(_cell(row[column]) for column in columns)
        lost = f" (not in {', '.join(face['frames_without'])})" if face["frames_without"] else ""
        print(f"{name:<24}{times}{face['percent']:9.1f} %{lost}")
    if PEER in names:
        ratio, cpu = figures["time"]["ratio"], figures["time"]["cpu_ratio"]["median"]
        low, high = ratio["quartiles"]
        print(
            f"{OWN} takes {ratio['median']:.2f} × the time of {PEER} (half of the rounds {low:.2f} to "
            f"{high:.2f}; processor time {cpu:.2f} ×)"
        )
        distance, other = figures["points_apart_percent"], figures["frames_on_different_faces_percent"]
        print(f"% of frames in which they are on different faces: {other}")
        if distance is not None:
            print(f"% of the eye distance that their points are apart: {distance}")
    for title, row in figures["steadiness"].items():
        if row is None:
            print(f"steadiness, {title.replace('_', ' ')}: not long enough with the face in every system")
            continue
        where = f", {row['window']} frames from frame {row['first_frame']}" if "window" in row else ""
        print(f"% of the eye distance ({title.replace('_', ' ')}{where}): second, first difference")
        for name in names:
            second, first = (row[name][f"{which}_difference_percent"] for which in ("second", "first"))
            points = ", ".join(f"{v:.2f}" for v in row[name]["second_difference_by_point"].values())
            print(f"  {name:<22}{second:10.3f}{first:10.3f}   second by point: {points}")
    further = figures["further_faces"]
    if further is None:
        why = f"no {COPY_FRAMES} frames in a row with the face" if args.copy_rounds else "left out"
        print(f"cost per further face: {why}")
        return
    for rule in LIMITS:
        print(f"1, 2, 3, 4 faces, ms a frame (looking for {rule.replace('_', ' ')}); frames with all found")
        for name in names:
            row = further[rule][name]
            times = "".join(_cell(ms) for ms in row["median_ms"])
            shares = ", ".join(f"{share:.0f}" for share in row["frames_with_all_percent"])
            print(f"  {name:<22}{times}{_cell(row['ms_per_further_face'])} ms per further face; {shares} %")


def _cell(value: float | None) -> str:
    return f"{'–':>10}" if value is None else f"{value:10.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clip", type=Path, default=CLIP, help="a video or GIF")
    parser.add_argument("--peer-python", help="the Python that has MediaPipe; without it edge_kp runs alone")
    parser.add_argument("--rounds", type=positive, default=30)
    parser.add_argument("--chunk", type=positive, default=20, help="frames of a round")
    parser.add_argument("--copy-rounds", type=natural, default=30, help="rounds of part 3; 0 leaves it out")
    parser.add_argument("--window", type=positive, default=200, help="frames of the stillest window")
    parser.add_argument("--cpu", type=natural, help="the core to run on (default: the last one)")
    size = parser.add_argument("--size", type=positive, nargs=2, default=[640, 480])
    size.metavar, size.help = ("WIDTH", "HEIGHT"), "frames are scaled to fit, black bars around"
    parser.add_argument(
        "--options", type=keywords, default={}, help="JSON: more keyword arguments of Tracker"
    )
    parser.add_argument(
        "--detector-options", type=keywords, default={}, help='JSON: of Detector, e.g. {"model": "face68"}'
    )
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
