"""What the page shows, as plain numbers: the newest result of each source and some minutes of figures."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edge_kp.live.page.recording import Recorder
from edge_kp.live.statistics import Result, Spread, Summary
from edge_kp.types import Detection

# The curves reach back so many points, one a second.
HISTORY = 300


class Board:
    """Filled by the sink's thread, read by the page's; holds one result per source and no more."""

    def __init__(
        self, sources: Sequence[str], summary: Callable[[], Summary], recorder: Recorder | None
    ) -> None:
        self.sources = tuple(sources)
        self._summary, self._recorder = summary, recorder
        self._lock = threading.Lock()
        # number of the result from 1 on, the result, when it came
        self._newest: list[tuple[int, Result | None, float]] = [(0, None, 0.0)] * len(self.sources)
        self._history: deque[list[float | None]] = deque(maxlen=HISTORY)
        self._samples = 0
        self._started = time.monotonic()
        self._run = secrets.token_hex(8)

    def put(self, result: Result) -> int:
        """Take a result in; returns which source it is of."""
        source = result.frame.source
        if not 0 <= source < len(self.sources):
            raise ValueError(f"source of a frame: expected less than {len(self.sources)}, got {source}")
        with self._lock:
            self._newest[source] = (self._newest[source][0] + 1, result, time.monotonic())
        return source

    def newest(self, source: int) -> tuple[int, Result | None]:
        """The number of the newest result and the result; (0, None) before the first."""
        with self._lock:
            return self._newest[source][:2]

    def sample(self) -> None:
        """Add a point to the curves: number, seconds, fps, total p50 and p95, age p50 and p95."""
        summary = self._summary()
        if not summary.frames:
            return
        elapsed = time.monotonic() - self._started
        figures = [summary.fps, *_pair(summary.stages.get("total")), *_pair(summary.age)]
        with self._lock:
            self._samples += 1
            self._history.append([self._samples, round(elapsed, 1), *(_plain(v, 2) for v in figures)])

    def state(self, since: int = 0, run: str = "") -> dict[str, Any]:
        """All that the page shows except pictures.

        Args:
            since: number of the last point of the curves that the page has,
            run: and of which run; the points of an earlier one count for nothing.
        """
        summary = self._summary()
        since = since if run == self._run else 0
        with self._lock:
            newest = list(self._newest)
            points = [point for point in self._history if (point[0] or 0) > since]
        now = time.monotonic()
        return {
            "run": self._run,
            "sources": [
                _source(name, result, now - came)
                for name, (_, result, came) in zip(self.sources, newest, strict=True)
            ],
            "summary": {
                "frames": summary.frames,
                "with_objects": summary.with_objects,
                "fps": _plain(summary.fps, 1),
                "dropped": summary.dropped,
                "failed": summary.failed,
                "unsaved": dict(summary.sink_dropped),
                "stages": {
                    name: [_plain(v, 1) for v in _pair(spread)] for name, spread in summary.stages.items()
                },
                "age": [_plain(v, 1) for v in _pair(summary.age)] if summary.age is not None else None,
            },
            "points": points,
            "recording": self.recording(),
        }

    def recording(self) -> dict[str, str | None] | None:
        """None where this run has nothing to record with."""
        if self._recorder is None:
            return None
        return {"file": self._recorder.recording, "problem": self._recorder.problem}


def _source(name: str, result: Result | None, quiet_s: float) -> dict[str, Any]:
    if result is None:
        return {"name": name, "frame": None, "size": None, "quiet_s": None, "objects": []}
    height, width = result.frame.image.shape[:2]
    return {
        "name": name,
        "frame": result.frame.index,
        "size": [width, height],
        "quiet_s": round(quiet_s, 1),
        "objects": [_object(detection) for detection in result.detections],
    }


def _object(detection: Detection) -> dict[str, Any]:
    pose = detection.pose
    visibility = float(detection.visibility.mean()) if len(detection.visibility) else None
    return {
        "id": int(detection.id),
        "score": _plain(detection.score, 3),
        "visibility": _plain(visibility, 3),
        "pose": None
        if pose is None
        else {name: _plain(getattr(pose, name), 1) for name in ("yaw", "pitch", "roll")},
        "attributes": {name: _plain(v, 3) for name, v in detection.attributes.items()},
    }


def _pair(spread: Spread | None) -> tuple[float | None, float | None]:
    return (spread.p50, spread.p95) if spread is not None else (None, None)


def _plain(value: float | None, digits: int) -> float | None:
    """Rounded; None for what JSON has no number for, or no browser could read the rest."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None
