"""The running loop: capture threads → newest frames → inference threads → bounded queues → sink threads.

A live source is never queued: the newest frame wins, and what is lost is counted. A file or folder is handed
over frame by frame, so nothing is lost. Frames of several sources that wait for the same inference thread are
inferred together. The main thread shows the preview, because windows demand it, and waits.

A frame that cannot be inferred is counted and left out, and an output that fails is closed and left behind,
as long as there is another; any other error of a thread stops all of them and is raised in the main one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from edge_kp.errors import SinkError
from edge_kp.live.channel import Channel, Inbox
from edge_kp.live.frames import Frame, Source
from edge_kp.live.parts import Sink, Window, Worker
from edge_kp.live.signals import caught_signals
from edge_kp.live.statistics import Result, Statistics, Summary

log = logging.getLogger(__name__)


SINK_QUEUE = 8
_SINK_THREAD = "edge_kp sink "
# After a signal: so long may sinks go on writing what is finished, then so long may threads take to end.
DRAIN_S = 1.0
GRACE_S = 1.5
FAILED_IN_A_ROW = 30  # frames; then it is no matter of a frame


class _Lane:
    """What one inference thread works on: the newest frames of ``count`` sources."""

    def __init__(self, count: int) -> None:
        self.frames: Inbox[Frame] = Inbox(count)
        self.ready = threading.Event()
        self.count = count
        self.failed = 0  # calls of the worker in a row that found nothing but errors
        self.failing: set[int] = set()  # sources whose last frame could not be inferred
        self.ended: set[int] = set()


class Pipeline:
    """One run over one or more sources.

    Args:
        sources: each is read and closed in a thread of its own.
        worker: called in each inference thread, where the context it returns is also entered and left, so
            that whatever the worker holds (a CUDA context, an engine) lives in that thread alone.
        lanes: inference threads; source number i is inferred in thread i modulo ``lanes``.
        sinks: each is written to and closed in a thread of its own. With a live source a slow sink loses
            results, which are counted; otherwise inference waits for it.
        stats: counts and times go there; by default into :attr:`stats` of its own.
        window: the preview, shown from the thread that calls :meth:`run`.
        hold: keep the window open on the last result until the user closes it.
        max_frames: end after so many results.
        on_tick: called from :meth:`run` once a second with the state of the run.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        worker: Callable[[], AbstractContextManager[Worker]],
        sinks: Sequence[Sink] = (),
        *,
        lanes: int = 1,
        stats: Statistics | None = None,
        window: Window | None = None,
        hold: bool = False,
        max_frames: int | None = None,
        on_tick: Callable[[Summary], None] | None = None,
        tick_s: float = 1.0,
    ) -> None:
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames: expected at least 1, got {max_frames}")
        if not 1 <= lanes <= len(sources):
            raise ValueError(f"lanes: expected 1 to {len(sources)}, one for each source, got {lanes}")
        self.stats = stats or Statistics()
        self._sources, self._worker, self._sinks = tuple(sources), worker, tuple(sinks)
        self._window, self._hold, self._frames_left = window, hold, max_frames
        self._on_tick, self._tick_s = on_tick, tick_s
        self._lanes = [_Lane(len(self._sources[i::lanes])) for i in range(lanes)]
        self._inferring = lanes  # lanes whose threads have not ended
        self._outputs = [Channel[Result](SINK_QUEUE) for _ in self._sinks]
        self._shown = [Channel[Result](1) for _ in self._sources]
        self._stopping = threading.Event()
        self._signal: int | None = None
        self._give_up_at = float("inf")
        self._reason = ""
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._working = set(self._outputs)  # those of the sinks that have not failed
        self._delivered = False  # has there been a result?
        self._begun: set[threading.Thread] = set()  # those of the sinks that were given one

    def run(self) -> str:
        """Run to the end; finished results are written and sinks closed when this returns or raises.

        Returns:
            Why it ended: ``end`` of the source, ``limit`` of frames, ``quit`` by the user or by
            :meth:`stop`, ``signal`` (SIGINT, SIGTERM, SIGHUP).

        Raises:
            SourceError, SinkError, …: the first error of any thread.
        """
        captures = [
            threading.Thread(target=self._capture, args=(i,), name=f"edge_kp capture {i}", daemon=True)
            for i in range(len(self._sources))
        ]
        workers = [
            threading.Thread(target=self._infer, args=(lane,), name=f"edge_kp inference {i}", daemon=True)
            for i, lane in enumerate(self._lanes)
        ]
        for sink, output in zip(self._sinks, self._outputs, strict=True):
            name = _SINK_THREAD + sink.name
            workers.append(threading.Thread(target=self._sink, args=(sink, output), name=name, daemon=True))
        with caught_signals(self._note_signal):
            for thread in (*captures, *workers):
                thread.start()
            try:
                self._wait(workers)
            finally:
                self._stop("quit")
                self._join([*captures, *workers])
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
        for lane in self._lanes:
            self.stats.drop(lane.frames.close())
        for source in self._sources:
            source.stop()

    def _note_signal(self, number: int) -> None:
        """Leave a mark for the waiting loop: to take a lock here could deadlock with what is interrupted."""
        self._signal = number

    def _fail(self, error: BaseException) -> None:
        self._note(error)
        self._stop("error")

    def _note(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error

    def _capture(self, number: int) -> None:
        source = self._sources[number]
        slot, which = divmod(number, len(self._lanes))
        lane = self._lanes[which]
        try:
            while not self._stopping.is_set():
                frame = source.read()
                if frame is None:
                    break
                lost = lane.frames.put(slot, replace(frame, source=number), wait=not source.live)
                # While the model is still loading, frames are read only to keep the camera's buffer fresh.
                loading = not lane.ready.is_set() and not self._stopping.is_set()
                if loading:
                    self.stats.capture(1 - lost, 0)
                else:
                    self.stats.capture(1, lost)
        except BaseException as error:
            self._fail(error)
        finally:
            lane.frames.end(slot)
            lane.ended.add(number)
            with suppress(Exception):
                source.close()

    def _infer(self, lane: _Lane) -> None:
        try:
            with self._worker() as worker:
                lane.ready.set()
                while frames := lane.frames.take():
                    frames, last = self._within_limit(frames)
                    for result in self._results(worker, lane, frames):
                        self._deliver(result)
                    if last:
                        self._stop("limit")
        except BaseException as error:
            self._fail(error)
        with self._lock:
            self._inferring -= 1
            ended = self._inferring == 0
        if ended:
            self._stop("end")
            for output in self._outputs:
                output.end()

    def _within_limit(self, frames: list[Frame]) -> tuple[list[Frame], bool]:
        """Those of the frames that may still be inferred, and whether they are the last."""
        with self._lock:
            if self._frames_left is None:
                return frames, False
            allowed = frames[: self._frames_left]
            self._frames_left -= len(allowed)
            last = self._frames_left == 0
        self.stats.drop(len(frames) - len(allowed))
        return allowed, last

    def _results(self, worker: Worker, lane: _Lane, frames: Sequence[Frame]) -> list[Result]:
        """What the worker finds in the frames; those where it fails are left out, unless it always does."""
        if not frames:
            return []
        start = time.perf_counter()
        try:
            found = worker.update(frames)
        except Exception as error:
            found = [error] * len(frames)
        total = time.perf_counter() - start
        results = []
        for frame, what in zip(frames, found, strict=True):
            if isinstance(what, Exception):
                self._failed(lane, frame.source, what)
                continue
            lane.failing.discard(frame.source)
            detections, timings = what
            results.append(Result(frame, detections, {"total": total, **timings}))
            self.stats.add(results[-1], self._sources[frame.source].live)
        if results:
            lane.failed = 0
            return results
        lane.failed += 1
        if lane.failed >= FAILED_IN_A_ROW and len(lane.failing | lane.ended) == lane.count:
            raise next(what for what in found if isinstance(what, Exception))
        return []

    def _failed(self, lane: _Lane, source: int, error: Exception) -> None:
        """A frame is left out; why is said of the first of a row."""
        self.stats.fail(1)
        if source not in lane.failing:
            lane.failing.add(source)
            log.warning("a frame could not be inferred and is left out: %s", error)
            log.debug("cause", exc_info=error)

    def _deliver(self, result: Result) -> None:
        self._delivered = True
        live = self._sources[result.frame.source].live
        for sink, output in zip(self._sinks, self._outputs, strict=True):
            if sink.source in (None, result.frame.source):
                self.stats.sink_drop(sink.name, output.put(result, wait=not live))
        if self._window is not None:
            self._shown[result.frame.source].put(result, wait=False)

    def _sink(self, sink: Sink, output: Channel[Result]) -> None:
        try:
            while (result := output.get()) is not None:
                if time.monotonic() > self._give_up_at:
                    self.stats.sink_drop(sink.name, 1 + output.close())
                    break
                self._begun.add(threading.current_thread())
                try:
                    sink.write(result)
                except BaseException:
                    self.stats.sink_drop(sink.name, 1)
                    raise
                self.stats.deliver(sink.name)
        except BaseException as error:
            self.stats.sink_drop(sink.name, output.close())
            self._sink_failed(output, error)
        try:
            sink.close()
        except BaseException as error:
            self._sink_failed(output, error)

    def _sink_failed(self, output: Channel[Result], error: BaseException) -> None:
        """Go on without an output, if it is one of several; its error is told now, and raised at the end."""
        with self._lock:
            self._working.discard(output)  # one that cannot be closed either fails twice
            last = not self._working and self._window is None
        if last or not isinstance(error, SinkError):
            self._fail(error)
            return
        self._note(error)
        if not self._stopping.is_set():
            log.error("%s; going on without it", error)

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
                if not self._delivered:  # the model still loads: nothing cuts that short, nothing is written
                    for output in self._outputs:
                        output.close()
                    workers = [thread for thread in workers if thread.name.startswith(_SINK_THREAD)]
                    continue
            if now >= deadline:
                return
            if self._on_tick is not None and now >= next_tick:
                next_tick = now + self._tick_s
                self._on_tick(self.stats.summary())
            if self._window is None or self._stopping.is_set():
                alive[0].join(0.05)
                continue
            self._show(self._window)
            if self._window.wants_to_quit():
                self._stop("quit")
        if self._window is not None and self._error is None and self._reason in ("end", "limit"):
            self._show(self._window)
            while self._hold and self._signal is None and not self._window.wants_to_quit():
                pass

    def _show(self, window: Window) -> None:
        for shown in self._shown:
            if (result := shown.take()) is not None:
                window.show(result)

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for the threads, but not for ever: one may hang in a driver or on a dead disk."""
        deadline = time.monotonic() + (GRACE_S if self._signal is None else 0.3)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread in threads:
            if thread.is_alive() and thread in self._begun:
                log.warning("%s did not finish in time: its file may be incomplete", thread.name)
            elif thread.is_alive():
                log.debug("%s did not end in time and was left behind", thread.name)
