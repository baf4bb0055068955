"""FPS and age of the shown result through the real threaded loop: ``python -m benchmarks.loop``.

The loop is built as ``python -m edge_kp.run`` builds it (capture threads, inference threads, a tracker for
each source, an output), over frames that lie in memory: 1 to 8 copies of the shipped clip's face, as large
whatever the frame, in 1 to 4 sources at once. Each scene is run twice in a round: at full speed, which tells
what the loop can do, and paced as a camera of 30 frames a second, which tells how old what is shown is. All
take turns in an order drawn anew in each round, so that a change of the machine's speed meets all of them.

Objects are varied with the fewest sources, sources with the fewest objects, both at every size. ``loop.png``
shows how the cost grows, ``loop.json`` says what each figure is (``definitions``).
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from benchmarks.loop_plot import plot
from benchmarks.loop_scene import COLUMNS, FPS, MOST_OBJECTS, PATCH, ROWS, WARM_UP, Row, Run, Scene, run
from benchmarks.timing import percentiles, quartiles, slope
from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import natural, number, positive, run_cli
from edge_kp.errors import BackendError
from edge_kp.live.memory import few_arenas

SIZES = ((640, 480), (1280, 720), (1920, 1080))
MODES = ("full_speed", "paced")
DEFINITIONS = {
    "objects": f"copies of the clip's face in every frame, each in a patch of {PATCH[0]} x {PATCH[1]} pixels."
    " The trackers follow one more than the most there can be, so that the search for newcomers goes on",
    "sources": "videos followed at once; on a CPU by as many inference threads as there are cores, at most"
    " (inference_threads)",
    "median, quartiles": "of the rounds: a run each, or the figure of one",
    "fps": "full speed: results of all sources together for each second, until the first source has ended:"
    " after it, fewer share the machine",
    "ms": "full speed: milliseconds until each source has had a result, 1000 x sources / fps",
    "age_ms": f"paced at {FPS:g} frames a second: milliseconds from a frame's capture to its result at the"
    " output, half of the frames of a run being younger. age_p90_ms, age_p99_ms: of the frames of all rounds",
    "dropped_percent": f"paced: frames after the first {WARM_UP} of each source that were replaced by a newer"
    " one before they could be inferred",
    "all_found_percent": "frames in which as many objects were found as there are, in both modes",
    "frames": f"of both modes and all rounds, the first {WARM_UP} of each source in a run, which count for"
    " nothing else, among them: made by the sources = inferred + dropped + failed; shown by the output",
    "ms_per_further_object": "slope of the straight line through ms over objects (least squares)",
    "ms_per_megapixel": "the same over million pixels of a frame, with the fewest objects and sources",
    "ms_per_further_source": "the same over sources. With a core for each, what the sources cost each other",
}
Runs = Mapping[tuple[Scene, str], Sequence[Run]]


def scenes(sizes: Sequence[tuple[int, int]], objects: Sequence[int], sources: Sequence[int]) -> list[Scene]:
    """All objects with the fewest sources, and all sources with the fewest objects, at every size."""
    pairs = [(n, min(sources)) for n in objects] + [(min(objects), n) for n in sources]
    return [Scene(*size, *pair) for size in sizes for pair in dict.fromkeys(pairs)]


def counted(one: Run, until: float = math.inf) -> list[Row]:
    """The rows of a run after its warm-up, up to a moment.

    Raises:
        BackendError: there are none to speak of.
    """
    rows = [row for row in one.rows if row[3] >= WARM_UP and row[0] <= until]
    if len(rows) < 2:
        raise BackendError(
            f"{len(rows)} result(s) after the first {WARM_UP} frames: give a run more of them"
            " (--frames, --seconds)"
        )
    return rows


def fps(one: Run) -> float:
    """Results for each second, of all sources together, until the first of them has ended."""
    ends = {row[4]: row[0] for row in sorted(one.rows)}
    times = sorted(row[0] for row in counted(one, min(ends.values(), default=math.inf)))
    return (len(times) - 1) / (times[-1] - times[0])


def scene_figures(scene: Scene, full: Sequence[Run], paced: Sequence[Run]) -> dict[str, Any]:
    """What :data:`DEFINITIONS` names, of the runs of one scene."""
    speeds = [fps(one) for one in full]
    ages = [[1e3 * row[1] for row in counted(one)] for one in paced]
    every = percentiles([age for run_ages in ages for age in run_ages])
    found = [row[2] == scene.objects for one in (*full, *paced) for row in counted(one)]
    both = [one.summary for one in (*full, *paced)]
    expected = sum(one.made - scene.sources * WARM_UP for one in paced)
    inferred = sum(len(run_ages) for run_ages in ages)
    dropped = expected - inferred - sum(one.summary.failed for one in paced)
    return {
        "width": scene.width,
        "height": scene.height,
        "objects": scene.objects,
        "sources": scene.sources,
        "inference_threads": full[0].about["inference_threads"],
        "fps": quartiles(speeds, 1),
        "ms": quartiles([1e3 * scene.sources / v for v in speeds]),
        "age_ms": quartiles([float(np.median(run_ages)) for run_ages in ages]),
        "age_p90_ms": every["p90"],
        "age_p99_ms": every["p99"],
        "dropped_percent": _percent(dropped, expected),
        "all_found_percent": _percent(sum(found), len(found)),
        "frames": {
            "made": sum(one.made for one in (*full, *paced)),
            "inferred": sum(s.frames for s in both),
            "dropped": sum(s.dropped for s in both),
            "failed": sum(s.failed for s in both),
            "shown": sum(len(one.rows) for one in (*full, *paced)),
        },
    }


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2)


def growth(runs: Runs, sizes: Sequence[tuple[int, int]], objects: int, sources: int) -> dict[str, Any]:
    """How the cost grows, see :data:`DEFINITIONS`; None where only one number of something was measured.

    Args:
        objects, sources: the fewest.
    """
    full = {scene: [1e3 * scene.sources / fps(one) for one in runs[scene, MODES[0]]] for scene, _ in runs}

    def line(chosen: Sequence[Scene], x: Callable[[Scene], float]) -> dict[str, Any] | None:
        """A slope for each round."""
        at = [x(scene) for scene in chosen]
        if len(set(at)) < 2:
            return None
        return quartiles([slope(at, ms) for ms in zip(*(full[scene] for scene in chosen), strict=True)])

    alone = [scene for scene in full if scene.sources == sources]
    simplest = [scene for scene in full if scene.objects == objects]
    return {
        "ms_per_further_object": {
            _name(size): line([s for s in alone if (s.width, s.height) == size], lambda s: s.objects)
            for size in sizes
        },
        "ms_per_megapixel": line([s for s in alone if s.objects == objects], lambda s: s.megapixels),
        "ms_per_further_source": {
            _name(size): line([s for s in simplest if (s.width, s.height) == size], lambda s: s.sources)
            for size in sizes
        },
    }


def _name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def check(scene: Scene, one: Run) -> None:
    """
    Raises:
        BackendError: frames went astray.
    """
    s = one.summary
    if not (one.made == s.captured == s.frames + s.dropped + s.failed and len(one.rows) == s.frames):
        raise BackendError(
            f"{scene}: {one.made} frames made, {s.captured} captured, {s.frames} inferred, {s.dropped}"
            f" dropped, {s.failed} failed, {len(one.rows)} shown: they do not add up"
        )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The scenes as text, for people."""
    lines = [f"{'':<11}{'objects':>8}{'sources':>8}{'fps':>8}{'quartiles':>16}{'ms':>8}{'age ms':>8}"
             f"{'p90':>8}{'dropped %':>11}{'all found %':>13}"]  # fmt: skip
    for row in rows:
        low, high = row["fps"]["quartiles"]
        lines.append(
            f"{_name((row['width'], row['height'])):<11}{row['objects']:>8}{row['sources']:>8}"
            f"{row['fps']['median']:8.1f}{f'{low:.1f} to {high:.1f}':>16}{row['ms']['median']:8.2f}"
            f"{row['age_ms']['median']:8.2f}{row['age_p90_ms']:8.2f}{row['dropped_percent']:11.1f}"
            f"{row['all_found_percent']:13.1f}"
        )
    return "\n".join(lines)


def growth_lines(found: Mapping[str, Any]) -> str:
    """The slopes as text, for people."""
    lines = []
    for name, what in found.items():
        by_size = what if what is None or "median" not in what else {"": what}
        for size, one in (by_size or {}).items():
            if one is not None:
                low, high = one["quartiles"]
                where = f", {size}" if size else ""
                lines.append(
                    f"{name.replace('_', ' ')}{where}: {one['median']:.2f} ({low:.2f} to {high:.2f})"
                )
    return "\n".join(lines)


def _run(args: argparse.Namespace) -> None:
    few_arenas()  # as edge_kp.run does
    sizes, objects, sources = (sorted(set(v)) for v in (args.sizes, args.objects, args.sources))
    wanted = list(itertools.product(scenes(sizes, objects, sources), MODES))
    runs: dict[tuple[Scene, str], list[Run]] = {key: [] for key in wanted}
    rng = np.random.default_rng(args.seed)
    counts = {"full_speed": args.frames, "paced": round(args.seconds * FPS)}
    how = (args.model, args.backend, args.precision, args.threads)
    with tqdm(total=args.rounds * len(wanted), unit="run", leave=False) as bar:
        for _ in range(args.rounds):
            for i in rng.permutation(len(wanted)):
                scene, mode = wanted[i]
                one = run(scene, counts[mode], mode == "paced", *how)
                check(scene, one)
                fps(one)  # refuses a run that is too short, before all others are made
                runs[scene, mode].append(one)
                bar.update()
    rows = [
        scene_figures(scene, runs[scene, MODES[0]], runs[scene, MODES[1]])
        for scene in dict.fromkeys(s for s, _ in wanted)
    ]
    grown = growth(runs, sizes, min(objects), min(sources))
    about = runs[wanted[0]][0].about
    args.out.mkdir(parents=True, exist_ok=True)
    plot(rows, grown, args.out / "loop.png")
    print(f"{table(rows)}\n\n{growth_lines(grown)}")
    figures = {
        "model": Path(args.model).name,
        **{name: about[name] for name in ("backend", "precision", "device")},
        "cores": len(os.sched_getaffinity(0)),
        "threads": args.threads,
        "rounds": args.rounds,
        "frames_a_source": counts,
        "seed": args.seed,
        "definitions": DEFINITIONS,
        "scenes": rows,
        **grown,
    }
    write_result("loop", figures, args.out, ("openvino", "tensorrt", "tensorrt-rtx-cu13-bindings"))


def _size(text: str) -> tuple[int, int]:
    least = (COLUMNS * PATCH[0], ROWS * PATCH[1])
    if match := re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text):
        size = int(match[1]), int(match[2])
        if size[0] >= least[0] and size[1] >= least[1]:
            return size
    raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT of at least {_name(least)}, got {text!r}")


def _objects(text: str) -> int:
    count = positive(text)
    if count > MOST_OBJECTS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_OBJECTS}, got {text!r}")
    return count


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="face68", help="a model of faces: shipped, or a folder")
    add("--backend", choices=BACKENDS, default="auto")
    add("--precision", choices=PRECISIONS, default="auto")
    add("--threads", type=positive, help="CPU threads for the networks")
    add("--sizes", type=_size, nargs="+", default=SIZES, metavar="WxH")
    add("--objects", type=_objects, nargs="+", default=range(1, MOST_OBJECTS + 1), metavar="N")
    add("--sources", type=positive, nargs="+", default=range(1, 5), metavar="N")
    add("--rounds", type=positive, default=5)
    add("--frames", type=positive, default=300, help="of each source at full speed (default 300)")
    add("--seconds", type=number(0.1, 1e4), default=3.0, help="of a paced run (default 3)")
    add("--seed", type=natural, default=0, help="of the order of turns")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="for loop.json and loop.png")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
