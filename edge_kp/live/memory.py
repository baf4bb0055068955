"""Memory of a run of weeks."""

from __future__ import annotations

import ctypes
import sys

_M_ARENA_MAX = -8  # of glibc's malloc.h
ARENAS = 2


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
