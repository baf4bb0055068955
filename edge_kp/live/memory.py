"""Memory of a run of weeks."""

from __future__ import annotations

import ctypes
import sys
import time

_M_ARENA_MAX = -8  # of glibc's malloc.h
ARENAS = 2
EVERY_S = 10.0


def few_arenas() -> None:
    """Let all threads share :data:`ARENAS` pools of memory, where the system's malloc is glibc's.

    By default each new thread may get a pool of its own, eight for each core, and what it frees there is of
    use to no other thread: with cameras and clients that come and go memory grows for hours. To be called
    before threads are started.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


class GiveBack:
    """Called again and again, gives memory that is free back to the system every ten seconds.

    Frames wait in the queues of slow outputs, now of this one and now of that; glibc keeps what they took in
    pieces, so that each worst moment of a run would raise its memory for good.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._next = time.monotonic() + every_s
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def __call__(self) -> None:
        if self._trim is not None and time.monotonic() >= self._next:
            self._trim(ctypes.c_size_t(0))
            self._next = time.monotonic() + self._every_s
