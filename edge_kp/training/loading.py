"""Something made of every sample of a data set, by all cores where there are many samples."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import cv2
from tqdm import tqdm

from edge_kp.cores import usable_cores
from edge_kp.errors import DataError

S = TypeVar("S")
T = TypeVar("T")
MANY = 256  # samples from which on it pays to start processes
CHUNK = 8  # samples that a process takes at a time
_MOST = 61  # processes, all that Windows can wait for


def of_each(
    function: Callable[[S], T], samples: Sequence[S], progress: bool = True
) -> Generator[T, None, None]:
    """What a function makes of every sample, in their order.

    Close it where it may not be read to its end, so that its processes end at once.

    Args:
        function: can be pickled, and so can what it returns.
        progress: show it.

    Raises:
        DataError: at the end, what the function raised for any sample, each line once; nothing is given out
            any more from the first of them on.
    """
    problems: list[str] = []
    with ExitStack() as stack:
        results: Iterable[tuple[T | None, tuple[str, ...]]]
        processes = _processes()
        if len(samples) < MANY or processes == 1:
            results = map(partial(_attempt, function), samples)
        else:
            pool = ProcessPoolExecutor(processes, initializer=_settle)
            stack.callback(pool.shutdown, cancel_futures=True)
            results = pool.map(partial(_attempt, function), samples, chunksize=CHUNK)
        hidden = not (progress and samples)
        shown = tqdm(results, "reading photos", len(samples), unit="photo", disable=hidden, leave=False)
        try:
            for result, unusable in shown:
                problems += unusable
                if result is not None and not problems:
                    yield result
        except BrokenProcessPool:
            raise DataError(
                "a process that read photos was ended, likely for want of memory: close other programs, or"
                " use fewer photos (take=N)"
            ) from None
    if problems:
        raise DataError(*dict.fromkeys(problems))


def _attempt(function: Callable[[S], T], sample: S) -> tuple[T | None, tuple[str, ...]]:
    try:
        return function(sample), ()
    except DataError as error:
        return None, error.problems


def _processes() -> int:
    """How many to start: this process' share of the cores, where torchrun started several."""
    return min(_MOST, max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _settle() -> None:
    """In a process of its own: no more threads than one, and no life beyond that of who started it."""
    cv2.setNumThreads(0)  # 1 would wait for ever where OpenCV had threads before the fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
