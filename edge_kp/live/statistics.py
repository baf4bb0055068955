"""Results of the loop, and counts and times of a run."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_kp.live.frames import Frame, clock
from edge_kp.types import Detection


@dataclass(frozen=True, eq=False)
class Result:
    """A frame, what was found in it, and the seconds each stage took (``total`` among them)."""

    frame: Frame
    detections: list[Detection]
    timings: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """Median and 95th percentile, milliseconds."""

    p50: float
    p95: float


@dataclass(frozen=True)
class Summary:
    """The run so far.

    Attributes:
        frames: results delivered.
        with_objects: those with at least one detection.
        elapsed_s: from the start of the first frame's inference to the last result.
        fps: results per second of late.
        mean_fps: results per second of the whole run.
        searches: frames in which the locator looked for objects.
        stages: stage → its times over the last frames in which it ran.
        age: time from capture to result over the last frames; None unless the source is live.
        captured: frames taken from the sources: ``frames + dropped + failed``, once the run has ended.
        dropped: those that a newer one replaced before inference, or that the end of the run left behind.
        failed: those that could not be inferred.
        delivered: sink name → results it has taken.
        sink_dropped: sink name → results it was too slow for, or that came after it had failed.
    """

    frames: int = 0
    with_objects: int = 0
    searches: int = 0
    elapsed_s: float = 0.0
    fps: float = 0.0
    mean_fps: float = 0.0
    stages: Mapping[str, Spread] = field(default_factory=dict)
    age: Spread | None = None
    captured: int = 0
    dropped: int = 0
    failed: int = 0
    delivered: Mapping[str, int] = field(default_factory=dict)
    sink_dropped: Mapping[str, int] = field(default_factory=dict)


class Statistics:
    """Counts and times of a run; safe to use from any thread.

    Counts cover the whole run. Times cover the last ``window`` frames, so that memory stays bounded.
    """

    FPS_WINDOW_S = 2.0

    def __init__(self, window: int = 600) -> None:
        self._lock = threading.Lock()
        self._window = window
        self._stages: dict[str, deque[float]] = {}
        self._ages: deque[float] = deque(maxlen=window)
        self._recent: deque[float] = deque(maxlen=window)
        self._first: float | None = None
        self._last = 0.0
        self._frames = self._with_objects = self._searches = 0
        self._captured = self._dropped = self._failed = 0
        self._delivered: dict[str, int] = {}
        self._sink_dropped: dict[str, int] = {}

    def add(self, result: Result, live: bool) -> None:
        """A frame was inferred; ``live`` says that its age means something."""
        now = clock()
        with self._lock:
            if self._first is None:
                self._first = now - result.timings.get("total", 0.0)
            self._last = now
            self._frames += 1
            self._with_objects += bool(result.detections)
            self._searches += result.timings.get("locate", 0.0) > 0
            self._recent.append(now)
            for stage, seconds in result.timings.items():
                if seconds <= 0:  # the stage did not run on this frame
                    continue
                self._stages.setdefault(stage, deque(maxlen=self._window)).append(seconds)
            if live:
                self._ages.append(now - result.frame.captured)

    def capture(self, count: int, dropped: int) -> None:
        """So many frames were taken, and so many were dropped for them."""
        with self._lock:
            self._captured += count
            self._dropped += dropped

    def drop(self, count: int) -> None:
        """So many frames are left behind before inference."""
        with self._lock:
            self._dropped += count

    def fail(self, count: int) -> None:
        """So many frames could not be inferred."""
        with self._lock:
            self._failed += count

    def deliver(self, name: str) -> None:
        """The sink of this name has taken a result."""
        with self._lock:
            self._delivered[name] = self._delivered.get(name, 0) + 1

    def sink_drop(self, name: str, count: int) -> None:
        """So many results never reached the sink of this name."""
        if count:
            with self._lock:
                self._sink_dropped[name] = self._sink_dropped.get(name, 0) + count

    def summary(self) -> Summary:
        """The run so far."""
        now = clock()
        with self._lock:
            stages = {name: list(seconds) for name, seconds in self._stages.items()}
            ages, recent = list(self._ages), list(self._recent)
            frames, with_objects, searches = self._frames, self._with_objects, self._searches
            captured, dropped, failed = self._captured, self._dropped, self._failed
            delivered, sink_dropped = dict(self._delivered), dict(self._sink_dropped)
            first, last = self._first, self._last
        elapsed = last - first if first is not None else 0.0
        span = min(self.FPS_WINDOW_S, now - first) if first is not None else 0.0
        # A full window of a fast run may not reach back so far.
        if len(recent) == self._window:
            span = min(span, now - recent[0])
        late = sum(t > now - span for t in recent)
        return Summary(
            frames=frames,
            with_objects=with_objects,
            searches=searches,
            elapsed_s=elapsed,
            fps=late / span if span > 0 else 0.0,
            mean_fps=frames / elapsed if elapsed > 0 else 0.0,
            stages={name: _spread(seconds) for name, seconds in stages.items()},
            age=_spread(ages) if ages else None,
            captured=captured,
            dropped=dropped,
            failed=failed,
            delivered=delivered,
            sink_dropped=sink_dropped,
        )


def _spread(seconds: Sequence[float]) -> Spread:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return Spread(float(p50), float(p95))
