"""Both stages beside MediaPipe's face network, networks only: ``python -m benchmarks.networks``.

The network is the file that MediaPipe's package brings, run by the library that it is made for:

    python3.11 -m venv peers
    peers/bin/pip install mediapipe==0.10.14 tflite-runtime==2.14.0
    python -m benchmarks.networks --peer-python peers/bin/python

Each side is a process of its own, pinned to the same core with one thread; they take turns, ``--chunk`` runs
each. The figure to compare is the ratio of the medians, taken round by round. What a video needs a frame,
crops and Python included, is in ``benchmarks.peers``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.common import write_result
from benchmarks.workers import Worker, take_turns
from edge_kp.cli import natural, positive, run_cli
from edge_kp.errors import EdgeKpError

PEER_FILE = "modules/face_landmark/face_landmark.tflite"
WORKER = "benchmarks.network_worker"


def _peer_file(python: str) -> Path:
    """Raises: EdgeKpError: that Python has no MediaPipe."""
    find = "import importlib.util as u; print(u.find_spec('mediapipe').submodule_search_locations[0])"
    done = subprocess.run([python, "-c", find], capture_output=True, text=True)
    path = Path(done.stdout.strip(), PEER_FILE)
    if done.returncode or not path.is_file():
        raise EdgeKpError(f"{python}: has no mediapipe with {PEER_FILE}; see --help for how to install it")
    return path


def _run(args: argparse.Namespace) -> None:
    cpu = min(os.sched_getaffinity(0)) if args.cpu is None else args.cpu
    with ExitStack() as stack:
        workers = {
            "mediapipe": stack.enter_context(
                Worker(
                    args.peer_python,
                    ["--system", "tflite", "--file", _peer_file(args.peer_python), "--cpu", cpu],
                    WORKER,
                )
            )
        }
        for name in args.ways:
            backend, precision = name.split(":")
            arguments = ["--system", "edge_kp", "--model", args.model, "--cpu", cpu]
            arguments += ["--backend", backend, "--precision", precision]
            workers[name] = stack.enter_context(Worker(sys.executable, arguments, WORKER))
        answers = take_turns(workers, args.rounds, args.chunk, "networks")
        about = {name: worker.about for name, worker in workers.items()}
    base = [np.median(answer["ms"]) for answer in answers["mediapipe"]]
    figures = {}
    for name, rounds in answers.items():
        every = np.concatenate([answer["ms"] for answer in rounds])
        ratios = [np.median(answer["ms"]) / b for answer, b in zip(rounds, base, strict=True)]
        low, half, high = (round(float(v), 3) for v in np.percentile(ratios, [25, 50, 75]))
        ms = round(float(np.median(every)), 3)
        figures[name] = {**about[name], "median_ms": ms, "ratio": half, "ratio_quartiles": [low, high]}
        print(f"{name:<24}{ms:8.3f} ms   {half:.2f} × mediapipe   {about[name]['what']}")
    write_result(args.name, {"rounds": args.rounds, "chunk": args.chunk, "networks": figures})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.networks", description=__doc__)
    add = parser.add_argument
    add("--peer-python", required=True, help="Python of an environment with mediapipe and tflite-runtime")
    add("--model", default="face68")
    add(
        "--ways",
        nargs="+",
        default=["openvino:int8", "onnxruntime:int8", "onnxruntime:fp32"],
        metavar="BACKEND:PRECISION",
        help="how to run the stages",
    )
    add("--rounds", type=positive, default=40)
    add("--chunk", type=positive, default=50, help="runs of a side in a round (default 50)")
    add("--cpu", type=natural, help="core to run on (default: the first one allowed)")
    add("--name", default="networks", help="of the result file")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
