"""Signals that ask a program to end, turned into an orderly end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def caught_signals(note: Callable[[int], None]) -> Iterator[None]:
    """Call ``note`` with the number of each SIGINT, SIGTERM and SIGHUP instead of what they did before.

    It is called between any two steps of the main thread, so it must take no lock. Further signals change
    nothing else, so an impatient second Ctrl-C harms no file. In another thread than the main one, where
    Python allows no handlers, nothing is caught.
    """

    def handler(number: int, _frame: FrameType | None) -> None:
        note(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:  # nohup ignores it
        numbers.append(hang_up)
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
