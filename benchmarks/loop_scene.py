"""Videos for ``benchmarks.loop``: copies of the shipped clip's face in a frame, from memory, at any pace."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np

import edge_kp
from edge_kp import Detector, Tracker
from edge_kp.backends import choose_backend
from edge_kp.errors import BackendError, SourceError
from edge_kp.live.following import Together, share_cores
from edge_kp.live.frames import Frame, clock
from edge_kp.live.parts import Worker
from edge_kp.live.pipeline import Pipeline
from edge_kp.live.statistics import Result, Summary
from edge_kp.types import Array

CLIP = Path(edge_kp.__file__).parent / "assets" / "astronaut"
COLUMNS, ROWS = 4, 2  # of cells, a copy in each
MOST_OBJECTS = COLUMNS * ROWS
PATCH = (160, 240)  # width and height of a copy, pixels, whatever the frame's size
CLIP_FRAMES = 16  # from the clip's start, in which nothing covers the face
FOLLOWED = 0.7  # share of the face's way that its patch goes along; the rest is its motion in the frame
GREY = 60  # of the frame around the copies
FPS = 30.0  # of a camera; at full speed what the tracker takes for the time between frames
WARM_UP = 30  # frames of each source that do not count: found, and the networks warm

Row = tuple[float, float, int, int, int]  # see Shown


@dataclass(frozen=True)
class Scene:
    """What one run of the loop looks at.

    Attributes:
        width, height: of the frames, pixels.
        objects: in each frame.
        sources: at once.
    """

    width: int
    height: int
    objects: int
    sources: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.objects} object(s), {self.sources} source(s)"

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


def patches() -> list[Array]:
    """The clip's face, cut out of each of its first frames, uint8 BGR (240, 160, 3).

    Raises:
        SourceError: the clip is gone.
    """
    about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
    middle = np.array(about["reference_box"]).reshape(2, 2).mean(axis=0)
    clip = cv2.VideoCapture(str(CLIP.with_suffix(".mp4")))
    found: list[Array] = []
    start = None
    for frame in about["frames"][:CLIP_FRAMES]:
        read, image = clip.read()
        if not read:
            raise SourceError(f"{CLIP}.mp4: cannot be read; install the package again")
        matrix = np.array(frame["matrix"])
        at = matrix[:, :2] @ middle + matrix[:, 2]
        start = at if start is None else start
        seen = start + FOLLOWED * (at - start)
        x, y = np.round(seen).astype(int) - np.array(PATCH) // 2  # whole pixels: nothing is interpolated
        found.append(np.ascontiguousarray(image[y : y + PATCH[1], x : x + PATCH[0]]))
    return found


def frames(scene: Scene) -> list[Array]:
    """One after the other and then backwards, they are a video without a jump; not to be written to."""
    width, height = scene.width // COLUMNS, scene.height // ROWS
    pictures = []
    for patch in patches():
        picture = np.full((scene.height, scene.width, 3), GREY, np.uint8)
        for i in range(scene.objects):
            x = i % COLUMNS * width + (width - PATCH[0]) // 2
            y = i // COLUMNS * height + (height - PATCH[1]) // 2
            picture[y : y + PATCH[1], x : x + PATCH[0]] = patch
        picture.flags.writeable = False
        pictures.append(picture)
    return [*pictures, *pictures[-2:0:-1]]


class Memory:
    """A source of ``count`` frames from memory: as fast as they are taken, or by the clock as a camera's.

    Args:
        ready: no frame is given before it is set.
        live: by the clock.
        first: number of the picture to begin with, so that sources differ.

    Attributes:
        made: frames given so far.
    """

    skipped = returns = 0
    names_files = False

    def __init__(
        self, pictures: Sequence[Array], count: int, live: bool, ready: threading.Event, first: int, name: str
    ) -> None:
        self.live, self.name = live, name
        self.fps: float | None = FPS
        self.size = (pictures[0].shape[1], pictures[0].shape[0])
        self.made = 0
        self._pictures, self._count, self._first = pictures, count, first
        self._ready, self._stopped = ready, threading.Event()
        self._start = 0.0

    def read(self) -> Frame | None:
        while not self._ready.wait(0.05):
            if self._stopped.is_set():
                return None
        if self._stopped.is_set() or self.made == self._count:
            return None
        if self.made == 0:
            self._start = clock()
        due = self._start + self.made / FPS
        if self.live and self._stopped.wait(max(0.0, due - clock())):
            return None
        image = self._pictures[(self._first + self.made) % len(self._pictures)]
        # A camera that is read late has taken its picture in time nevertheless.
        captured = due if self.live else clock()
        self.made += 1
        return Frame(self.made - 1, (self.made - 1) / FPS, captured, image)

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        """There is nothing to give back."""


@dataclass
class Shown:
    """An output that keeps when each result came, how old it was, and how many objects it held.

    Attributes:
        rows: :func:`clock`, age in seconds, objects, number of the frame in its source, number of
            the source.
    """

    name: str = "shown"
    source: int | None = None
    rows: list[Row] = field(default_factory=list)

    def write(self, result: Result) -> None:
        now = clock()
        frame = result.frame
        self.rows.append((now, now - frame.captured, len(result.detections), frame.index, frame.source))

    def close(self) -> None:
        """There is nothing to finish."""


@dataclass(frozen=True)
class Run:
    """What one run of the loop gave.

    Attributes:
        made: frames of all sources.
        rows: see :class:`Shown`.
        about: backend, precision, inference threads.
    """

    made: int
    summary: Summary
    rows: Sequence[Row]
    about: dict[str, object]


def run(
    scene: Scene, count: int, live: bool, model: str, backend: str, precision: str, threads: int | None
) -> Run:
    """The threaded loop as ``python -m edge_kp.run`` builds it, over ``count`` frames of each source.

    Raises:
        BackendError, ModelError: the model cannot be run.
    """
    pictures = frames(scene)
    lanes, each = share_cores(choose_backend(backend), scene.sources, threads)
    ready, waiting = threading.Event(), threading.Semaphore(lanes - 1)
    about: dict[str, object] = {}

    @contextmanager
    def worker() -> Iterator[Worker]:
        with Detector(model, backend=backend, precision=precision, threads=each) as detector:
            about.update(backend=detector.backend_name, precision=detector.precision, device=detector.device)
            # One more than are ever there, so that the search for newcomers goes on whatever their number.
            trackers = [Tracker(detector, max_objects=MOST_OBJECTS + 1) for _ in range(scene.sources)]
            if not waiting.acquire(blocking=False):  # the last of the threads
                ready.set()
            yield Together(detector, trackers)

    make = partial(Memory, pictures, count, live, ready)
    sources = [make(i * len(pictures) // scene.sources, f"memory {i}") for i in range(scene.sources)]
    shown = Shown()
    pipeline = Pipeline(sources, worker, [shown], lanes=lanes)
    reason = pipeline.run()
    if reason != "end":
        raise BackendError(f"{scene}: the loop ended early ({reason})")
    about |= {"inference_threads": lanes, "threads_each": each}
    return Run(sum(source.made for source in sources), pipeline.stats.summary(), shown.rows, about)
