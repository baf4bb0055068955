"""The running loop: capture thread → newest frame → inference thread → bounded queues → sink threads.

A live source is never queued: the newest frame wins, and what is lost is counted. A file or folder is handed
over frame by frame, so nothing is lost. The main thread shows the preview, because windows demand it, and
waits; whatever goes wrong in any thread stops all of them and is raised there.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Protocol

from edge_kp.live.channel import Channel
from edge_kp.live.source import Frame, Source
from edge_kp.live.statistics import Result, Statistics, Summary
from edge_kp.types import Array, Detection

log = logging.getLogger(__name__)


SINK_QUEUE = 8
_SINK_THREAD = "edge_kp sink "
# After a signal: so long may sinks go on writing what is finished, then so long may threads take to end.
DRAIN_S = 1.0
GRACE_S = 1.5


class Worker(Protocol):
    """What runs in the inference thread; a tracker is one.

    Attributes:
        last_timings: seconds of the last update by stage; 0 for a stage that did not run.
    """

    last_timings: dict[str, float]

    def update(self, image: Array, time_s: float | None = None) -> list[Detection]: ...


class Sink(Protocol):
    """An output with a thread of its own.

    Attributes:
        name: what to call it, usually its path.
    """

    name: str

    def write(self, result: Result) -> None: ...

    def close(self) -> None: ...


class Window(Protocol):
    """The preview; called from the main thread only."""

    def show(self, result: Result) -> None: ...

    def wants_to_quit(self) -> bool:
        """Handle window events for a few milliseconds; True once the user wants to end."""

    def close(self) -> None: ...


class Pipeline:
    """One run over a source.

    Args:
        source: closed by the run, in the thread that reads it.
        worker: called in the inference thread, where the context it returns is also entered and left, so
            that whatever the worker holds (a CUDA context, an engine) lives in that thread alone.
        sinks: each is written to and closed in a thread of its own. With a live source a slow sink loses
            results, which are counted; otherwise inference waits for it.
        window: the preview, shown from the thread that calls :meth:`run`.
        hold: keep the window open on the last result until the user closes it.
        max_frames: end after so many results.
        on_tick: called from :meth:`run` once a second with the state of the run.
    """

    def __init__(
        self,
        source: Source,
        worker: Callable[[], AbstractContextManager[Worker]],
        sinks: Sequence[Sink] = (),
        *,
        window: Window | None = None,
        hold: bool = False,
        max_frames: int | None = None,
        on_tick: Callable[[Summary], None] | None = None,
        tick_s: float = 1.0,
    ) -> None:
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames: expected at least 1, got {max_frames}")
        self.stats = Statistics()
        self._source, self._worker, self._sinks = source, worker, tuple(sinks)
        self._window, self._hold, self._max_frames = window, hold, max_frames
        self._on_tick, self._tick_s = on_tick, tick_s
        self._frames: Channel[Frame] = Channel(1)
        self._outputs = [Channel[Result](SINK_QUEUE) for _ in self._sinks]
        self._shown: Channel[Result] = Channel(1)
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._signal: int | None = None
        self._give_up_at = float("inf")
        self._reason = ""
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self) -> str:
        """Run to the end; finished results are written and sinks closed when this returns or raises.

        Returns:
            Why it ended: ``end`` of the source, ``limit`` of frames, ``quit`` by the user or by
            :meth:`stop`, ``signal`` (SIGINT, SIGTERM, SIGHUP).

        Raises:
            SourceError, SinkError, …: the first error of any thread.
        """
        capture = threading.Thread(target=self._capture, name="edge_kp capture", daemon=True)
        workers = [threading.Thread(target=self._infer, name="edge_kp inference", daemon=True)]
        for sink, output in zip(self._sinks, self._outputs, strict=True):
            name = _SINK_THREAD + sink.name
            workers.append(threading.Thread(target=self._sink, args=(sink, output), name=name, daemon=True))
        with self._catch_signals():
            for thread in (capture, *workers):
                thread.start()
            try:
                self._wait(workers)
            finally:
                self._stop("quit")
                self._join([capture, *workers])
                if self._window is not None:
                    self._window.close()
        if self._error is not None:
            raise self._error
        return self._reason

    def stop(self) -> None:
        """End the run soon, from any thread; results that are finished are still written."""
        self._stop("quit")

    def _stop(self, reason: str) -> None:
        with self._lock:
            self._reason = self._reason or reason
        self._stopping.set()
        self._frames.close()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
        self._stop("error")

    def _capture(self) -> None:
        live = self._source.live
        try:
            while not self._stopping.is_set():
                frame = self._source.read()
                if frame is None:
                    break
                displaced = self._frames.put(frame, wait=not live)
                # While the model is still loading, frames are read only to keep the camera's buffer fresh.
                if displaced and self._ready.is_set():
                    self.stats.drop(displaced)
        except BaseException as error:
            self._fail(error)
        finally:
            self._frames.end()
            with suppress(Exception):
                self._source.close()

    def _infer(self) -> None:
        live = self._source.live
        done = 0
        reason = "end"
        try:
            with self._worker() as worker:
                self._ready.set()
                while (frame := self._frames.get()) is not None:
                    start = time.perf_counter()
                    detections = worker.update(frame.image, frame.time_s)
                    total = time.perf_counter() - start
                    result = Result(frame, detections, {"total": total, **worker.last_timings})
                    self.stats.add(result, live)
                    for sink, output in zip(self._sinks, self._outputs, strict=True):
                        self.stats.sink_drop(sink.name, output.put(result, wait=not live))
                    if self._window is not None:
                        self._shown.put(result, wait=False)
                    done += 1
                    if done == self._max_frames:
                        reason = "limit"
                        break
        except BaseException as error:
            self._fail(error)
        finally:
            self._stop(reason)
            for output in self._outputs:
                output.end()

    def _sink(self, sink: Sink, output: Channel[Result]) -> None:
        try:
            while (result := output.get()) is not None:
                if time.monotonic() > self._give_up_at:
                    self.stats.sink_drop(sink.name, 1 + output.close())
                    break
                sink.write(result)
        except BaseException as error:
            self._fail(error)
            output.close()
        try:
            sink.close()
        except BaseException as error:
            self._fail(error)

    def _wait(self, workers: Sequence[threading.Thread]) -> None:
        """Show, tick and watch for signals until inference and sinks have ended."""
        deadline = float("inf")
        next_tick = time.monotonic() + self._tick_s
        while alive := [thread for thread in workers if thread.is_alive()]:
            now = time.monotonic()
            if self._signal is not None and deadline == float("inf"):
                deadline, self._give_up_at = now + GRACE_S, now + DRAIN_S
                self._reason = "signal"
                self._stop("signal")
            if now >= deadline:
                return
            if self._on_tick is not None and now >= next_tick:
                next_tick = now + self._tick_s
                self._on_tick(self.stats.summary())
            if self._window is None or self._stopping.is_set():
                alive[0].join(0.05)
                continue
            if (result := self._shown.take()) is not None:
                self._window.show(result)
            if self._window.wants_to_quit():
                self._stop("quit")
        if self._window is not None and self._error is None and self._reason in ("end", "limit"):
            if (result := self._shown.take()) is not None:
                self._window.show(result)
            while self._hold and self._signal is None and not self._window.wants_to_quit():
                pass

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for the threads, but not for ever: one may hang in a driver or on a dead disk."""
        deadline = time.monotonic() + (GRACE_S if self._signal is None else 0.3)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread in threads:
            if thread.is_alive() and thread.name.startswith(_SINK_THREAD):
                log.warning("%s did not finish in time: its file may be incomplete", thread.name)
            elif thread.is_alive():
                log.debug("%s did not end in time and was left behind", thread.name)

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """Turn signals into an orderly end.

        The handler only leaves a mark, which the waiting loop sees: taking a lock in it could deadlock with
        the code it interrupts. Further signals change nothing, so an impatient second Ctrl-C harms no file.
        """

        def note(number: int, _frame: FrameType | None) -> None:
            self._signal = number

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        hang_up = getattr(signal, "SIGHUP", None)
        if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:  # nohup ignores it
            numbers.append(hang_up)
        previous = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
