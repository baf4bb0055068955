"""Several videos at once: what their trackers ask of the networks is answered in common batches.

A tracker's work on a frame is a generator that stops wherever it needs a network, so that the requests of all
trackers can be gathered, answered by one call, and handed back.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from edge_kp.detector import Detector
from edge_kp.types import Array, Detection


class Locate(NamedTuple):
    """Boxes of a frame, as a locator gives them."""

    image: Array


class Detect(NamedTuple):
    """Both stages on boxes of a frame, as a cascade gives them."""

    image: Array
    boxes: Sequence[Array]


class Refine(NamedTuple):
    """Stage 2 on keypoints in a frame, as a cascade gives them."""

    image: Array
    keypoints: Sequence[Array] | Array


Request = Locate | Detect | Refine
T = TypeVar("T")
Work = Generator[Request, Any, T]
Steps = Work[list[Detection]]


def run_together(detector: Detector, works: Sequence[Work[T]]) -> list[T]:
    """What each work returns, its requests answered in batches with those of the others."""
    done: dict[int, T] = {}
    asked: dict[int, Request] = {}

    def go_on(number: int, answer: Any) -> None:
        try:
            asked[number] = works[number].send(answer)
        except StopIteration as end:
            done[number] = end.value

    for number in range(len(works)):
        go_on(number, None)
    while asked:
        waiting, asked = asked, {}
        for number, answer in _answers(detector, waiting):
            go_on(number, answer)
    return [done[number] for number in range(len(works))]


def _answers(detector: Detector, asked: dict[int, Request]) -> list[tuple[int, Any]]:
    """Number of a work → the answer to its request."""
    answers: list[tuple[int, Any]] = []
    detect: dict[int, Detect] = {}
    refine: dict[int, Refine] = {}
    for number, request in asked.items():
        if isinstance(request, Locate):
            answers.append((number, detector.locator(request.image)))
        elif isinstance(request, Detect):
            detect[number] = request
        else:
            refine[number] = request
    for group, each in ((detect, detector.cascade.detect_each), (refine, detector.cascade.refine_each)):
        if not group:
            continue
        images, objects, ends = [], [], []
        for image, what in group.values():
            images += [image] * len(what)
            objects += list(what)
            ends.append(len(objects))
        result = each(images, objects)
        starts = [0, *ends[:-1]]
        answers += [
            (number, result if len(group) == 1 else result.part(start, end))
            for number, start, end in zip(group, starts, ends, strict=True)
        ]
    return answers
