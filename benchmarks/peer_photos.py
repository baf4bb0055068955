"""edge_kp beside other face landmark detectors, on the same photos: ``python -m benchmarks.peer_photos``.

Each system is a process of its own, under the Python that has it, pinned to one core, one thread. One that is
not installed or broken is left out by name. MediaPipe needs an environment of its own:

    python3.11 -m venv peers
    peers/bin/pip install mediapipe==0.10.14 tflite-runtime==2.14.0
    python -m benchmarks.peer_photos --data ibug:helen_val --fit-data ibug:helen_train \\
        --peer-python peers/bin/python --network pfld.toml

``--network`` is any landmark network that you have, as ONNX or for OpenCV's FacemarkLBF, described by a TOML
file: ``benchmarks/photo_peers/spec.py`` shows one.

Every system gets the same part of each photo, and the same box around the face, jittered as
``edge_kp.evaluate --boxes jitter`` jitters it. Errors are told twice: unfitted, with the points that a table
names for the 68 of the labels, and fitted, by a linear map that is learnt on ``--fit-data``
(``benchmarks.photo_peers.markup``); photos that come in both sets are refused. Times are of the whole call,
from the image and the box to the points in pixels, and of the networks alone, on input that lies ready. The
systems take turns, ``--chunk`` photos each; the figure to compare is the ratio of medians, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, write_result
from benchmarks.photo_peers.figures import DEFINED, figures, times
from benchmarks.photo_peers.markup import (
    FIT,
    LEAST,
    MEDIAPIPE,
    MEDIAPIPE_SOURCE,
    PARTS,
    fit_linear,
    picked,
)
from benchmarks.photo_peers.pareto import CLOCKS, coordinates, draw, front
from benchmarks.photo_peers.photos import BATCH, BOX_SIDE, batches, check_apart, collect
from benchmarks.photo_peers.spec import read_spec
from benchmarks.workers import PeerMissing, Worker, take_turns
from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import natural, number, positive, run_cli
from edge_kp.errors import ConfigError, DataError, EdgeKpError
from edge_kp.schema import FACE68
from edge_kp.training.datasets import DATA_HELP, load_dataset
from edge_kp.types import Array

WORKER = "benchmarks.photo_peers.worker"
OWN = "edge_kp"
FACEMARK = "opencv-facemark-lbf"
SAME = tuple(range(68))  # the markup of a system whose points are those of the labels


@dataclass(frozen=True)
class Candidate:
    """A system to be started.

    Attributes:
        system, options: what the worker is told.
        python: what it runs under.
        table: for each of the 68 points, which of the system's; None where that is not known.
        source: where the table is from.
    """

    system: str
    options: Mapping[str, Any]
    python: str
    table: tuple[int, ...] | None
    source: str


def candidates(args: argparse.Namespace) -> dict[str, Candidate]:
    """All systems that were asked for, by name.

    Raises:
        ConfigError: two of one name, a way twice, or a network's file that cannot be used.
    """
    labels = "its 68 points are those of the labels"
    found: dict[str, Candidate] = {}
    for way in args.ways:
        if args.ways.count(way) > 1:
            raise ConfigError(f"--ways: names {way} {args.ways.count(way)} times; name it once")
        name = OWN if way == args.ways[0] else f"{OWN} {way}"
        options = {"name": name, "model": args.model, "way": way}
        found[name] = Candidate("edge_kp", options, sys.executable, SAME, labels)
    for system in ("mediapipe", "mediapipe-attention"):
        for passes in (1, 2):
            name = system if passes == 1 else f"{system} x2"
            options = {"name": name, "passes": passes}
            found[name] = Candidate(system, options, args.peer_python, MEDIAPIPE, MEDIAPIPE_SOURCE)
    for path in args.network:
        spec = read_spec(path)
        if spec.name in found:
            raise ConfigError(f"{path}: name: there is a system {spec.name!r} already; give another")
        python = spec.python or sys.executable
        found[spec.name] = Candidate("network", asdict(spec), python, spec.markup, f"{path.name}")
    return found


def start(
    stack: ExitStack, wanted: Mapping[str, Candidate], cpu: int
) -> tuple[dict[str, Worker], dict[str, str]]:
    """The workers, closed with the stack, and why each of the others is missing.

    Raises:
        EdgeKpError: a system is installed and does not run, or edge_kp is missing.
    """
    workers: dict[str, Worker] = {}
    skipped: dict[str, str] = {}
    for name, candidate in wanted.items():
        arguments = ["--system", candidate.system, "--cpu", cpu, "--options", json.dumps(candidate.options)]
        try:
            workers[name] = stack.enter_context(Worker(candidate.python, arguments, WORKER, name))
        except PeerMissing as error:
            if name == OWN:
                raise
            skipped[name] = str(error)
    if not any(c.options.get("runtime") == "facemark-lbf" for c in wanted.values()):
        skipped[FACEMARK] = "OpenCV brings no model file for it; give one by --network"
    if not any(c.system == "network" for c in wanted.values()):
        skipped["other networks"] = "none was given by --network"
    return workers, skipped


def blind(points: Mapping[str, Array]) -> list[str]:
    """Systems beside edge_kp that found no face in any photo: they have no points to compare."""
    return [name for name, found in points.items() if name != OWN and np.isnan(found).all()]


def without_folders(reason: str) -> str:
    """A reason without the folders of this machine, which belong into no result."""
    return re.sub(r"[^\s'\"(]*/", "", reason)


def unfitted(
    points: Mapping[str, Array], labels: Array, wanted: Mapping[str, Candidate]
) -> dict[str, dict[str, Any]]:
    """Each system's markup and its errors without a fit; None of a system whose markup is not known.

    Raises:
        DataError: a table names points that the system does not have.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, found in points.items():
        table = wanted[name].table
        if table is None and found.shape[1] == 68:
            table = SAME
        rows[name] = {
            "points": found.shape[1],
            "missed": int(np.isnan(found).any(axis=(1, 2)).sum()),
            "markup": {"table": table and list(table), "source": wanted[name].source},
            "unfitted": None if table is None else figures(picked(found, table), labels),
            "fitted": None,
        }
    return rows


def fitted(
    name: str, fit_points: Array, fit_labels: Array, points: Array, labels: Array
) -> dict[str, Any] | None:
    """A system's errors after a fit; None, and said, where it found too few faces of the fit photos."""
    try:
        fit = fit_linear(fit_points, fit_labels)
    except DataError as error:
        print(f"not fitted: {name}: {error}")
        return None
    return {**figures(fit(points), labels), "ridge": fit.ridge}


def _core(args: argparse.Namespace) -> int:
    if not hasattr(os, "sched_setaffinity"):
        raise EdgeKpError("keeping a process on one core needs Linux")
    cores = os.sched_getaffinity(0)
    cpu = max(cores) if args.cpu is None else args.cpu
    if cpu not in cores:
        raise EdgeKpError(f"--cpu {cpu}: this process may use {', '.join(map(str, sorted(cores)))}")
    return int(cpu)


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """The result's figures.

    Raises:
        EdgeKpError: data, a network's file or a system that cannot be used.
    """
    cpu, wanted = _core(args), candidates(args)
    test = load_dataset(args.data, FACE68)
    fit = load_dataset(args.fit_data, FACE68) if args.fit_data else None
    if fit:
        check_apart(fit.samples, test.samples)
        if len(fit) < LEAST:
            raise DataError(f"--fit-data: holds {len(fit)} photos; at least {LEAST} needed to fit a map")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge_kp_photos_")))
        workers, skipped = start(stack, wanted, cpu)
        for name, why in skipped.items():
            print(f"left out: {name}: {why}")
        seen: dict[bytes, str] = {}
        files = partial(batches, jitter=args.jitter, seed=args.seed, folder=folder, seen=seen)
        points, labels = collect(workers, files(test.samples))
        for name in blind(points):
            skipped[name] = "finds no face in any photo"
            print(f"left out: {name}: {skipped[name]}")
            del points[name], workers[name]
        systems = unfitted(points, labels, wanted)
        if fit:
            fit_points, fit_labels = collect(workers, files(fit.samples, forbid=True))
            for name, row in systems.items():
                row["fitted"] = fitted(name, fit_points[name], fit_labels, points[name], labels)
        collect(workers, files(test.samples[:BATCH]))  # times are taken on the last file
        answers = take_turns(workers, args.rounds, args.chunk, "times")
        for name, worker in workers.items():
            systems[name] = {**worker.about, **systems[name], "time": times(answers[name], answers[OWN])}
    return {
        "data": list(test.names),
        "photos": len(test),
        "fit_data": list(fit.names) if fit else None,
        "fit_photos": len(fit) if fit else None,
        "settings": {
            **{key: getattr(args, key) for key in ("jitter", "seed", "rounds", "chunk")},
            "cpu": cpu,
            "box_side_px": BOX_SIDE,
            "photos_timed": min(BATCH, len(test)),
        },
        "defined": {**DEFINED, "fitted": FIT},
        "systems": systems,
        "skipped": {name: without_folders(why) for name, why in skipped.items()},
        "pareto": {
            markup: {clock: front(coordinates(systems, clock, markup)) for clock in CLOCKS}
            for markup in ("unfitted", "fitted")
        },
    }


def _run(args: argparse.Namespace) -> None:
    result = compare(args)
    _print(result["systems"], result["pareto"])
    draw(
        result["systems"],
        args.out / f"{args.name}.png",
        f"{', '.join(result['data'])}, {result['photos']} photos",
    )
    write_result(args.name, result, args.out)


def _print(systems: Mapping[str, Any], fronts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    head = ("NME %", "FR@10 %", *PARTS)
    for markup in ("unfitted", "fitted"):
        print(f"{markup:<26}" + "".join(f"{title:>9}" for title in head))
        for name, row in systems.items():
            if (found := row[markup]) is not None:
                values = (found["nme"], found["fr10"], *found["by_part"].values())
                print(f"{name:<26}" + "".join(_cell(v) for v in values))
    print(f"{'median ms':<26}{'call':>9}{'ratio':>9}{'network':>9}{'ratio':>9}{'cpu':>9}{'ratio':>9}")
    for name, row in systems.items():
        clocks = [row["time"][clock] for clock in (*CLOCKS, "cpu_ms")]
        cells = [v for c in clocks for v in ((c["median"], c["ratio"]) if c else (None, None))]
        print(f"{name:<26}" + "".join(_cell(v) for v in cells) + f"   {row['about']}")
    for markup, by_clock in fronts.items():
        for clock, names in by_clock.items():
            if names:
                print(
                    f"nothing is better in both error ({markup}) and time ({clock}) than: {', '.join(names)}"
                )


def _cell(value: float | None) -> str:
    return f"{'–':>9}" if value is None else f"{value:9.2f}"


def _way(text: str) -> str:
    """An argparse type: ``BACKEND:PRECISION``."""
    backend, _, precision = text.partition(":")
    if backend not in BACKENDS or precision not in PRECISIONS:
        known = f"BACKEND of {', '.join(BACKENDS)}, PRECISION of {', '.join(PRECISIONS)}"
        raise argparse.ArgumentTypeError(f"expected BACKEND:PRECISION ({known}), got {text!r}")
    return text


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.peer_photos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="SPEC", help=f"photos to test on: {DATA_HELP}")
    add("--fit-data", action="append", default=[], metavar="SPEC", help="other photos, to fit the maps on")
    add("--model", default="face68")
    add(
        "--ways",
        type=_way,
        nargs="+",
        default=["auto:auto"],
        metavar="BACKEND:PRECISION",
        help="how to run edge_kp",
    )
    add("--peer-python", default=sys.executable, help="Python with MediaPipe (default: this one)")
    add(
        "--network",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.toml",
        help="another landmark network; repeatable",
    )
    add("--jitter", type=number(0, 0.5), default=0.1, help="of the boxes, share of their sides (default 0.1)")
    add("--seed", type=natural, default=0, help="of the jitter")
    add("--rounds", type=positive, default=30)
    add("--chunk", type=positive, default=16, help="photos of a system in a round (default 16)")
    add("--cpu", type=natural, help="the core to run on (default: the last one)")
    add("--name", default="peers-photos", help="of the result's files")
    add("--out", type=Path, default=RESULTS, metavar="DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
