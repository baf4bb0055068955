"""A live source that comes back: unplugged, rebooted or silent, it is opened again until it delivers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import cv2

from edge_kp.errors import SourceError
from edge_kp.live.channel import Channel
from edge_kp.live.frames import Frame, Source

log = logging.getLogger(__name__)

STALL_S = 10.0  # without a frame for so long, a source counts as gone; drivers and streams give up earlier
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0  # between two tries to open it again, doubled from one to the next
# What a device, a network or a decoder that gives up can raise; anything else is a fault of the program.
_GONE = (SourceError, OSError, cv2.error)
MOST_STUCK = 3  # readers that hang in a driver, after which it makes no sense to start another


class Lasting:
    """Frames of a live source, over all the times that it goes and comes back.

    A thread reads the source, because a driver may never return from a read: then that thread is left behind
    and another opens the source anew. Numbers and times of the frames go on across a gap.

    Args:
        again: opens the source anew.
        source: it, opened.
        stall_s: so long without a frame, it counts as gone.
        give_up_s: end with an error once it has been gone so long; None never does.
    """

    live = True
    names_files = False

    def __init__(
        self,
        again: Callable[[], Source],
        source: Source,
        *,
        stall_s: float = STALL_S,
        give_up_s: float | None = None,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._again, self._stall_s, self._give_up_s, self._pause_s = again, stall_s, give_up_s, pause_s
        self.fps, self.size, self.name = source.fps, source.size, source.name
        self.returns = 0
        self._skipped = 0
        self._index = 0
        self._start: float | None = None
        self._stopped = threading.Event()
        self._stuck: list[_Reader] = []
        self._away = False
        self._reader = _Reader(source)

    @property
    def skipped(self) -> int:
        return self._skipped + (0 if self._away else self._reader.source.skipped)

    def read(self) -> Frame | None:
        """The next frame; None only after :meth:`stop`.

        Raises:
            SourceError: gone for longer than ``give_up_s``, or every try hangs in the driver.
        """
        frame = self._reader.frames.get(self._stall_s)
        if frame is None and not self._stopped.is_set():
            frame = self._come_back()
        if frame is None:
            return None
        if self._start is None:
            self._start = frame.captured
        frame = replace(frame, index=self._index, time_s=frame.captured - self._start)
        self._index += 1
        return frame

    def _come_back(self) -> Frame | None:
        gone = time.monotonic()
        why = self._why(f"{self.name} gave no frame for {self._stall_s:g} s")
        self._leave()
        log.warning("%s: trying again until it is back", why)
        pause = self._pause_s
        while not self._stopped.wait(pause):
            pause = min(2 * pause, LONGEST_PAUSE_S)
            if self._give_up_s is not None and time.monotonic() - gone > self._give_up_s:
                raise SourceError(f"{self.name} has been gone for {self._give_up_s:g} s: {why}")
            try:
                self._reader, self._away = _Reader(self._again()), False
            except _GONE as error:
                why = _line(error)
                continue
            if self._stopped.is_set():  # while it was being opened: nobody waits for its frames
                return None
            frame = self._reader.frames.get(self._stall_s)
            if frame is not None:
                self.returns += 1
                log.warning("%s is back after %.0f s", self.name, time.monotonic() - gone)
                return frame
            why = self._why(f"{self.name} was opened and gave no frame")
            self._leave()
        return None

    def _why(self, otherwise: str) -> str:
        """Why the reader gave no frame; what it did not foresee is raised here, in the thread that waits."""
        error = self._reader.error
        if error is not None and not isinstance(error, _GONE):
            raise error
        return otherwise if error is None else _line(error)

    def _leave(self) -> None:
        """Let the reader go; one that hangs closes its source whenever the driver lets it."""
        self._skipped += self._reader.source.skipped
        self._away = True
        self._reader.leave()
        self._stuck = [reader for reader in (*self._stuck, self._reader) if reader.thread.is_alive()]
        if len(self._stuck) > MOST_STUCK:
            raise SourceError(
                f"{self.name}: its driver hangs ({len(self._stuck)} times in a row): unplug it or restart "
                "the machine"
            )

    def stop(self) -> None:
        self._stopped.set()
        self._reader.frames.close()

    def close(self) -> None:
        self.stop()
        self._reader.leave()


class _Reader:
    """A thread that reads a source until the source ends or it is told to leave."""

    WAIT_S = 1.0  # for a read that is under way when the reader is told to leave

    def __init__(self, source: Source) -> None:
        self.source = source
        self.error: BaseException | None = None
        self.frames: Channel[Frame] = Channel(1)
        self.thread = threading.Thread(target=self._run, name=f"edge_kp read {source.name}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self.frames.ended:
                frame = self.source.read()
                if frame is None:
                    break
                self.frames.put(frame, wait=True)  # it is taken at once: the slot behind drops, and counts
        except BaseException as error:
            self.error = error
        finally:
            self.frames.end()
            with suppress(Exception):
                self.source.close()

    def leave(self) -> None:
        self.frames.close()
        self.thread.join(self.WAIT_S)


def _line(error: BaseException) -> str:
    """What an error says, on one line: those of OpenCV have several."""
    return " ".join(str(error).split())
