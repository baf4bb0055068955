"""Recording that is started and stopped while the run goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

import cv2

from edge_kp.errors import SinkError
from edge_kp.live.lines import JsonlSink
from edge_kp.live.sinks import Draw, VideoSink
from edge_kp.live.statistics import Result

log = logging.getLogger(__name__)

# What a disk, a codec or a folder that went away can raise; anything else is a fault of the program.
_DISK = (SinkError, OSError, cv2.error)


class Recorder(Protocol):
    """What the record button of the page works on; called from a thread of its own."""

    @property
    def recording(self) -> str | None:
        """Name of the file being written; None while nothing is recorded."""

    @property
    def problem(self) -> str | None:
        """Why the last recording ended early, or is not whole; None where there is nothing to say."""

    def start(self) -> str:
        """Begin a new file and return its name.

        Raises:
            SinkError: it cannot be written, or a recording is going on.
        """

    def stop(self) -> None:
        """Finish the file; nothing happens where nothing is recorded.

        Raises:
            SinkError: the file could not be finished.
        """


class Paced(Protocol):
    """What a recording must know of a source: how its frames follow each other."""

    fps: float | None
    live: bool


class Recording:
    """A sink that writes video and JSON lines while it is told to: ``FOLDER/edge_kp-20250131-154500.mp4``.

    With several sources each has files of its own, whose names end in ``-source0``, ``-source1``, … A disk
    that fills up ends the recording and not the run; :attr:`problem` then says so.

    Args:
        folder: for the files; made with the first of them.
        draw: makes the picture of a result; called in the sink's thread.
        sources: those of the run, in the order of ``frame.source``.
    """

    def __init__(self, folder: str | Path, draw: Draw, sources: Sequence[Paced]) -> None:
        self._folder = Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise SinkError(f"{folder}: recordings go into a folder and this is a file: name another place")
        self.name = str(self._folder / "edge_kp-*.mp4")
        self.source = None
        self.written = 0
        self._draw, self._sources = draw, tuple(sources)
        self._lock = threading.Lock()
        self._stem: str | None = None
        self._recording: str | None = None
        self._problem: str | None = None
        self._open: dict[int, tuple[VideoSink, JsonlSink]] = {}
        self._closed = False

    @property
    def recording(self) -> str | None:
        """Name of the file being written, ``*`` for the sources of several; None while nothing is."""
        return self._recording

    @property
    def problem(self) -> str | None:
        """Why the last recording ended early, or is not whole; None where there is nothing to say."""
        return self._problem

    def start(self) -> str:
        """Begin new files and return their name.

        Raises:
            SinkError: they cannot be written, a recording is going on, or the run has ended.
        """
        with self._lock:
            if self._closed:
                raise SinkError("the run has ended: nothing more can be recorded")
            if self._recording is not None:
                raise SinkError(f"already recording to {self._recording}: stop that first")
            self._problem = None
            self._stem = self._free_stem()
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                # Made here, so that what can be known about the place is said to whoever pressed the button.
                self._open = {number: self._sinks(number) for number in range(len(self._sources))}
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise SinkError(f"{self._folder}: {reason}: choose another folder for recordings") from error
            many = "-source*" if len(self._sources) > 1 else ""
            self._recording = f"{self._stem}{many}.mp4"
            return self._recording

    def stop(self) -> None:
        """Finish the files; nothing happens where nothing is recorded.

        Raises:
            SinkError: a file could not be finished.
        """
        with self._lock:
            self._finish()

    def write(self, result: Result) -> None:
        """Record a result, if anything is recorded; a file that fails ends the recording alone."""
        if self._recording is None:
            return
        with self._lock:
            if self._recording is None:
                return
            name = self._recording
            try:
                for sink in self._open[result.frame.source]:
                    sink.write(result)
                self.written += 1
                return
            except _DISK as error:
                said = str(error)
            try:
                self._finish()
            except SinkError as error:
                said = f"{said}; {error}"
            self._problem = f"the recording ended early: {said}"
        log.warning("%s: %s", name, self._problem)

    def close(self) -> None:
        """Finish what is being recorded.

        Raises:
            SinkError: it could not be finished.
        """
        with self._lock:
            self._closed = True
            self._finish()

    def _free_stem(self) -> str:
        """A name by the clock that no file has yet: nothing is ever recorded over."""
        stamp = time.strftime("edge_kp-%Y%m%d-%H%M%S")
        stems = (f"{stamp}-{again}" if again else stamp for again in count())
        return next(s for s in stems if not any(self._folder.glob(f"{s}[.-]*")))

    def _sinks(self, number: int) -> tuple[VideoSink, JsonlSink]:
        source = self._sources[number]
        name = f"{self._stem}-source{number}" if len(self._sources) > 1 else f"{self._stem}"
        video = VideoSink(self._folder / f"{name}.mp4", self._draw, fps=source.fps, live=source.live)
        return video, JsonlSink(self._folder / f"{name}.jsonl")

    def _finish(self) -> None:
        """Close every file, whatever the others do; called with the lock held."""
        if self._recording is None:
            return
        sinks = [sink for pair in self._open.values() for sink in pair]
        self._recording, self._open = None, {}
        said = []
        for sink in sinks:
            try:
                sink.close()
            except _DISK as error:
                said.append(str(error))
        if said:
            self._problem = "; ".join(said)
            raise SinkError(self._problem)
        if not any(sink.written for sink in sinks):
            self._problem = "nothing was recorded: no frame came in that time"
