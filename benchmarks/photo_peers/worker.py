"""One system of ``benchmarks.peer_photos`` in a process of its own, under the Python that has it.

The first line of output describes the system. A line of input is then

- the path, as a JSON text, of an ``.npz`` file with ``boxes`` (M, 4) and ``image_0`` … uint8 BGR (H, W, 3),
  and is answered by ``points``, for each photo [[x, y], …] in pixels, or null where there is no face; or
- a number ``N``, answered by the times of the next N photos of the last file, round and round it: ``ms`` wall
  time from the image and the box to the points, Python included, ``cpu_ms`` processor time of all threads for
  the same, and ``network_ms`` wall time of N runs of the networks alone (empty where that cannot be told).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

try:
    with redirect_stdout(sys.stderr):  # OpenCV prints what it lacks
        import cv2
        import numpy as np
except Exception as error:  # made for one another's other versions, they fail in any way
    print(
        f"{sys.executable}: {' '.join(str(error).split())}; install numpy and opencv-python", file=sys.stderr
    )
    sys.exit(3)  # not installed, as in benchmarks.photo_peers.base, which needs them

from benchmarks.peer_worker import keywords, pin
from benchmarks.photo_peers.base import Array, Peer, not_installed
from benchmarks.photo_peers.network import FacemarkLbf, NetworkPeer, NetworkSpec

SYSTEMS = ("edge_kp", "mediapipe", "mediapipe-attention", "network")


def make_peer(system: str, options: dict[str, Any]) -> Peer:
    """The system with its keyword arguments; ends the process where it cannot run."""
    if system == "edge_kp":
        from benchmarks.photo_peers.own import EdgeKp

        return EdgeKp(**options)
    if system == "network":
        told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        spec = NetworkSpec(**told)
        return FacemarkLbf(spec) if spec.runtime == "facemark-lbf" else NetworkPeer(spec)
    from benchmarks.photo_peers.facemesh import Attention, Base

    try:
        return (Base if system == "mediapipe" else Attention)(**options)
    except Exception as error:  # a package that is broken fails in any way
        not_installed(f"mediapipe is installed and does not run: {type(error).__name__}: {error}")


def version_of(package: str) -> str | None:
    """Of a distribution; None where there is none of that name, as of a library built from source."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Photos:
    """Runs a system over the photos of a file, and then times it on them."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._photos: list[tuple[Array, Array]] = []
        self._next = 0

    def points(self, path: str) -> dict[str, list[Any]]:
        """Points of every photo of a file, which is kept for :meth:`time`."""
        with np.load(path) as file:
            boxes = file["boxes"]
            self._photos = [(file[f"image_{i}"], box) for i, box in enumerate(boxes)]
        self._next = 0
        found = (self.peer.points(image, box) for image, box in self._photos)
        return {"points": [None if p is None else np.round(p, 3).tolist() for p in found]}

    def time(self, count: int) -> dict[str, list[Any]]:
        """Times of the next ``count`` photos, milliseconds."""
        answer: dict[str, list[Any]] = {"ms": [], "cpu_ms": [], "network_ms": []}
        for _ in range(count):
            image, box = self._photos[self._next]
            self._next = (self._next + 1) % len(self._photos)
            start, cpu_start = time.perf_counter(), time.process_time()
            self.peer.points(image, box)
            answer["ms"].append(round(1e3 * (time.perf_counter() - start), 4))
            answer["cpu_ms"].append(round(1e3 * (time.process_time() - cpu_start), 4))
        for _ in range(count if self.peer.network else 0):
            assert self.peer.network is not None
            start = time.perf_counter()
            self.peer.network()
            answer["network_ms"].append(round(1e3 * (time.perf_counter() - start), 4))
        return answer


def _answers() -> TextIO:
    """Standard output, for the answers alone: what libraries print there goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.photo_peers.worker", description=__doc__)
    parser.add_argument("--system", choices=SYSTEMS, required=True)
    parser.add_argument("--options", type=keywords, default={}, help="JSON: keyword arguments of the system")
    parser.add_argument("--cpu", type=int, required=True, help="the only core to run on")
    args = parser.parse_args()
    answers = _answers()

    def say(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    pin(args.cpu)
    peer = make_peer(args.system, args.options)
    versions = {"opencv": cv2.__version__, **{name: version_of(name) for name in peer.packages}}
    say({"about": peer.about, "versions": versions, "python": sys.version.split()[0]})
    photos = Photos(peer)
    for line in sys.stdin:
        request = json.loads(line)
        say(photos.time(request) if isinstance(request, int) else photos.points(request))


if __name__ == "__main__":
    main()
