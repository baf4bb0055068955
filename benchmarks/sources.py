"""What does a second source cost? ``python -m benchmarks.sources``: frames per second of the whole loop.

One source on one core, and two on two cores, turn by turn in processes of their own, so that a busy machine
slows both alike; told is the median of the ratios. The source is the shipped clip (640 × 480), read again and
again from its file: decoding, tracking and all, without outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from edge_kp import Detector, Tracker
from edge_kp.cli import positive, run_cli
from edge_kp.errors import BackendError
from edge_kp.live.following import Together, decoding_threads
from edge_kp.live.frames import CaptureOptions, Frame, Source
from edge_kp.live.parts import Worker
from edge_kp.live.pipeline import Pipeline
from edge_kp.live.source import open_source

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut.mp4"


class Again:
    """A clip that begins anew whenever it ends."""

    live = False
    skipped = returns = 0
    names_files = False

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._options = path, CaptureOptions(threads=threads)
        self._source: Source = open_source(str(path), self._options)
        self.fps, self.size, self.name = self._source.fps, self._source.size, self._source.name
        self._index = 0

    def read(self) -> Frame | None:
        frame = self._source.read()
        if frame is None:
            self._source.close()
            self._source = open_source(str(self._path), self._options)
            frame = self._source.read()
        assert frame is not None
        rate = self.fps or 25.0
        self._index += 1
        return replace(frame, index=self._index - 1, time_s=(self._index - 1) / rate)

    def stop(self) -> None:
        """A read never waits."""

    def close(self) -> None:
        self._source.close()


def measure(model: str, count: int, frames: int) -> float:
    """Frames per second of ``count`` sources together, each with a thread for its networks."""

    @contextmanager
    def worker() -> Iterator[Worker]:
        with Detector(model, threads=1) as detector:
            yield Together(detector, [Tracker(detector, max_objects=1) for _ in range(count)])

    sources = [Again(CLIP, decoding_threads(count)) for _ in range(count)]
    pipeline = Pipeline(sources, worker, lanes=count, max_frames=count * frames)
    pipeline.run()
    return pipeline.stats.summary().mean_fps


def _in_process(args: argparse.Namespace, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.sources", "--worker", str(count)]
    command += ["--model", args.model, "--frames", str(args.frames)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BackendError(f"{count} source(s): {done.stderr.strip().splitlines()[-1]}")
    return float(json.loads(done.stdout))


def _run(args: argparse.Namespace) -> None:
    if args.worker:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < args.worker:
            raise BackendError(f"{args.worker} cores are needed, there are {len(cores)}")
        os.sched_setaffinity(0, cores[: args.worker])
        print(measure(args.model, args.worker, args.frames))
        return
    rounds = [
        [_in_process(args, count) for count in (1, 2)]
        for _ in tqdm(range(args.rounds), "rounds", leave=False)
    ]
    one, two = np.array(rounds).T
    figures = {
        "model": args.model,
        "frames_a_source": args.frames,
        "rounds": args.rounds,
        "one_source_one_core_fps": [round(v, 1) for v in one.tolist()],
        "two_sources_two_cores_fps": [round(v, 1) for v in two.tolist()],
        "ratio": round(float(np.median(two / one)), 3),
    }
    write_result("sources", figures, args.out, ("openvino",))
    print(f"two sources on two cores: {figures['ratio']} times the frames of one on one core")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.sources", description=__doc__)
    parser.add_argument("--model", default="face68")
    parser.add_argument("--frames", type=positive, default=1500, help="of each source in a round")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--worker", type=positive, help=argparse.SUPPRESS)
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
