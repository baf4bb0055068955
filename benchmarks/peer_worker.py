"""One system of ``benchmarks.peers`` in a process of its own, under the Python that has it.

Imports nothing of the project but ``edge_kp``, and that only for ``--system edge_kp``. The frames lie in
memory, letterboxed: scaled to fit ``--size`` with nothing cut off, black bars at the sides that stay free.

The first line of output describes the system and its frames. Then every line of input ``N`` runs the next N
frames, round and round the clip, and is answered by one line of JSON with N entries in each list:

- ``ms``: wall time from the BGR frame to the keypoints as arrays of pixels, Python included; null for the
  first frames of the clip, where the tracker is a fresh one each time;
- ``cpu_ms``: processor time of all threads for the same;
- ``faces``: how many were found;
- ``points`` (with ``--points``): the first face's places that both systems have, null without a face.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

EYES = ("left_outer_eye", "left_inner_eye", "right_inner_eye", "right_outer_eye")
COMMON = (*EYES, "left_mouth", "right_mouth", "nose_tip")  # left and right in the image
UNTIMED = 5  # frames after the start of the clip, in which a system finds the faces and warms up
CELLS = 2  # rows and columns of cells that copies of a face are put into


class System(Protocol):
    """A tracker of faces; ``common`` are its indices of :data:`COMMON`."""

    common: tuple[int, ...]
    packages: tuple[str, ...]

    def reset(self) -> None:
        """Forget all faces."""

    def faces(self, image: Array) -> list[Array]:
        """Keypoints (N, 2) of each face of the next frame, uint8 BGR (H, W, 3), in frame pixels."""


class EdgeKp:
    common: tuple[int, ...] = (36, 39, 42, 45, 48, 54, 30)
    packages: tuple[str, ...] = ("edge-kp", "onnxruntime", "numpy")

    def __init__(self, options: dict[str, Any], detector_options: dict[str, Any]) -> None:
        from edge_kp import Detector
        from edge_kp.errors import EdgeKpError

        try:
            self.detector = Detector(**detector_options, threads=1)
        except EdgeKpError as error:
            sys.exit(str(error))
        if self.detector.backend_name == "openvino":
            self.packages = (*self.packages, "openvino")
        if len(self.detector.schema) != 68:
            sys.exit(
                f"{self.detector.model_name}: has {len(self.detector.schema)} points; the 68 of a face needed"
            )
        self.options = options
        self.reset()

    def reset(self) -> None:
        from edge_kp import Tracker

        self.tracker = Tracker(self.detector, **self.options)

    def faces(self, image: Array) -> list[Array]:
        return [face.keypoints for face in self.tracker.update(image)]


class MediaPipe:
    common: tuple[int, ...] = (33, 133, 362, 263, 61, 291, 1)
    packages: tuple[str, ...] = ("mediapipe", "numpy")

    def __init__(self, options: dict[str, Any]) -> None:
        try:
            import mediapipe
        except ImportError as error:
            sys.exit(f"{sys.executable}: mediapipe cannot be imported: {error}")
        self.mesh = mediapipe.solutions.face_mesh.FaceMesh(
            static_image_mode=False, refine_landmarks=False, **options
        )

    def reset(self) -> None:
        self.mesh.reset()

    def faces(self, image: Array) -> list[Array]:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        rgb.flags.writeable = False  # lets MediaPipe use it without a copy
        size = image.shape[1], image.shape[0]
        found = self.mesh.process(rgb).multi_face_landmarks or []
        return [np.array([(p.x, p.y) for p in face.landmark], np.float32) * size for face in found]


def read_frames(clip: Path, first: int, most: int | None) -> list[Array]:
    """Frames of a video or GIF from number ``first`` on, uint8 BGR (H, W, 3); at most so many."""
    video = cv2.VideoCapture(str(clip))
    if not video.isOpened():
        sys.exit(f"{clip}: cannot be opened as a video")
    frames: list[Array] = []
    for i in itertools.count():
        more, image = video.read()
        if not more or len(frames) == most:
            break
        if i >= first:
            frames.append(image)
    if not frames:
        sys.exit(f"{clip}: holds no frame {first}")
    return frames


def letterbox(image: Array, width: int, height: int) -> Array:
    """The whole picture as large as fits into ``width`` × ``height`` pixels, black bars around it."""
    scale = min(width / image.shape[1], height / image.shape[0])
    if scale != 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    x, y = (width - image.shape[1]) // 2, (height - image.shape[0]) // 2
    framed = np.zeros((height, width, 3), np.uint8)
    framed[y : y + image.shape[0], x : x + image.shape[1]] = image
    return framed


def copies(frame: Array, crop: Sequence[int], count: int) -> Array:
    """A frame of the same size, black but for ``count`` cells of a quarter of it, each showing ``crop``.

    Cells keep their size whatever the count, so that only the number of faces changes from count to count.

    Args:
        crop: ``[x0, y0, x1, y1]`` of the part of the frame to show, pixels.
    """
    x0, y0, x1, y1 = crop
    height, width = frame.shape[0] // CELLS, frame.shape[1] // CELLS
    cell = letterbox(frame[y0:y1, x0:x1], width, height)
    tiled = np.zeros_like(frame)
    for i in range(count):
        y, x = i // CELLS * height, i % CELLS * width
        tiled[y : y + height, x : x + width] = cell
    return tiled


def keywords(text: str) -> dict[str, Any]:
    """An argparse type: keyword arguments as a JSON object."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text!r}: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text!r}")
    return value


def pin(cpu: int) -> None:
    """Keep this process on one core: its threads so far (numpy has made some) and all to come."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {cpu})
    cv2.setNumThreads(1)


class Loop:
    """Runs a system round and round the frames."""

    def __init__(self, system: System, frames: list[Array], with_points: bool) -> None:
        self.system = system
        self.frames = frames
        self.with_points = with_points
        self._next = 0

    def run(self, count: int) -> dict[str, list[Any]]:
        """The lists of an answer (see the top of the file) for the next ``count`` frames."""
        answer: dict[str, list[Any]] = {"ms": [], "cpu_ms": [], "faces": []}
        if self.with_points:
            answer["points"] = []
        for _ in range(count):
            if self._next == len(self.frames):
                self._next = 0
                self.system.reset()
            image = self.frames[self._next]
            start, cpu_start = time.perf_counter(), time.process_time()
            faces = self.system.faces(image)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            timed = self._next >= UNTIMED
            answer["ms"].append(round(1e3 * wall, 4) if timed else None)
            answer["cpu_ms"].append(round(1e3 * cpu, 4) if timed else None)
            answer["faces"].append(len(faces))
            if self.with_points:
                first = faces[0][list(self.system.common)].astype(float).round(3).tolist() if faces else None
                answer["points"].append(first)
            self._next += 1
        return answer


def _say(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.peer_worker", description=__doc__)
    parser.add_argument("--system", choices=["edge_kp", "mediapipe"], required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--cpu", type=int, required=True, help="the only core to run on")
    parser.add_argument("--size", type=int, nargs=2, default=[640, 480], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--first", type=int, default=0, help="number of the first frame to take, from 0")
    parser.add_argument("--most", type=int, help="take so many frames")
    parser.add_argument("--copies", type=int, help=f"show the crop so many times, up to {CELLS**2}")
    parser.add_argument("--crop", type=int, nargs=4, metavar=("X0", "Y0", "X1", "Y1"))
    parser.add_argument("--points", action="store_true")
    parser.add_argument(
        "--options", type=keywords, default={}, help="JSON: keyword arguments of Tracker or FaceMesh"
    )
    parser.add_argument(
        "--detector-options", type=keywords, default={}, help="JSON: keyword arguments of Detector (edge_kp)"
    )
    args = parser.parse_args()
    if (args.copies is None) != (args.crop is None):
        parser.error("--copies and --crop go together")
    pin(args.cpu)
    frames = [letterbox(frame, *args.size) for frame in read_frames(args.clip, args.first, args.most)]
    if args.copies is not None:
        frames = [copies(frame, args.crop, args.copies) for frame in frames]
    system: System
    if args.system == "edge_kp":
        system = EdgeKp(args.options, args.detector_options)
    else:
        system = MediaPipe(args.options)
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.tobytes())
    _say(
        {
            "frames": len(frames),
            "digest": digest.hexdigest(),
            "versions": {"opencv": cv2.__version__, **{p: version(p) for p in system.packages}},
        }
    )
    loop = Loop(system, frames, args.points)
    for line in sys.stdin:
        _say(loop.run(int(line)))


if __name__ == "__main__":
    main()
