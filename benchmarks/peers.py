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

from benchmarks.common import write_result
from benchmarks.peer_figures import (
    LIMITS,
    OWN,
    PEER,
    agree,
    as_track,
    copy_crop,
    copy_figures,
    limit_of,
    presence,
    steadiness,
    stillest,
    time_figures,
)
from benchmarks.peer_worker import CELLS, UNTIMED, keywords
from benchmarks.workers import Worker, take_turns
from edge_kp.cli import natural, positive, run_cli
from edge_kp.errors import EdgeKpError, SourceError
from edge_kp.types import Array

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "edge_kp" / "assets" / "astronaut.mp4"
COPY_FRAMES = 50  # frames of the clip in which faces are copied: the stillest, so that little room is needed


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
            for limit in sorted({limit_of(rule, n) for rule in LIMITS})
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
