"""Something made of every sample of a data set, by all cores where there are many samples."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import cv2
from tqdm import tqdm

from edge_kp.errors import DataError
from edge_kp.training.samples import Sample

T = TypeVar("T")
MANY = 256  # samples from which on it pays to start processes
CHUNK = 8  # samples that a process takes at a time


def of_each(function: Callable[[Sample], T], samples: Sequence[Sample], progress: bool = True) -> list[T]:
    """What a function makes of every sample, in their order.

    Args:
        function: can be pickled, and so can what it returns.
        progress: show it.

    Raises:
        DataError: what the function raised for any sample, each line once.
    """
    found: list[T] = []
    problems: list[str] = []
    with ExitStack() as stack:
        results: Iterable[tuple[T | None, tuple[str, ...]]]
        if len(samples) < MANY or _cores() == 1:
            results = map(partial(_attempt, function), samples)
        else:
            pool = stack.enter_context(ProcessPoolExecutor(_cores(), initializer=_settle))
            results = pool.map(partial(_attempt, function), samples, chunksize=CHUNK)
        shown = tqdm(results, "reading photos", len(samples), unit="photo", disable=not progress, leave=False)
        try:
            for result, unusable in shown:
                problems += unusable
                if result is not None:
                    found.append(result)
        except BrokenProcessPool:
            raise DataError(
                "a process that read photos was ended, likely for want of memory; close other programs, or"
                " use fewer photos (take=N)"
            ) from None
    if problems:
        raise DataError(*dict.fromkeys(problems))
    return found


def _attempt(function: Callable[[Sample], T], sample: Sample) -> tuple[T | None, tuple[str, ...]]:
    try:
        return function(sample), ()
    except DataError as error:
        return None, error.problems


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _settle() -> None:
    """In a process of its own: one core, and the end comes from the process that started it."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
