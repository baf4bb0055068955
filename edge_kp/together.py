"""Several videos at once: what their trackers ask of the networks is answered in common batches.

A tracker's work on a frame is a generator that stops wherever it needs a network, so that the requests of all
trackers can be gathered, answered by one call, and handed back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from edge_kp.cascade import Cascade
from edge_kp.cascade_result import CascadeResult
from edge_kp.locator import Locator
from edge_kp.modeldir import ModelSpec
from edge_kp.types import Array, Detection


class Networks(Protocol):
    """What answers requests: a detector, or what else runs the networks of one."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def cascade(self) -> Cascade: ...

    @property
    def locator(self) -> Locator: ...


class Locate(NamedTuple):
    """Boxes of a frame, as a locator gives them; ``turn``: of the frame, quarter turns clockwise."""

    image: Array
    turn: int = 0


class Detect(NamedTuple):
    """Both stages on boxes of a frame, as a cascade gives them; ``turns``: of each, None for none."""

    image: Array
    boxes: Sequence[Array] | Array
    turns: Sequence[int] | None = None


class Refine(NamedTuple):
    """Stage 2 on keypoints in a frame, as a cascade gives them."""

    image: Array
    keypoints: Sequence[Array] | Array


Request = Locate | Detect | Refine
T = TypeVar("T")
Work = Generator[Request, Any, T]
Steps = Work[list[Detection]]


def run_together(networks: Networks, works: Sequence[Work[T]]) -> list[T | Exception]:
    """What each work returns, its requests answered in batches with those of the others.

    A work that fails, or whose requests cannot be answered, gives its exception instead; the others go on.
    """
    done: dict[int, T | Exception] = {}
    asked: dict[int, Request] = {}

    def go_on(number: int, answer: Any) -> None:
        try:
            if isinstance(answer, Exception):
                asked[number] = works[number].throw(answer)
            else:
                asked[number] = works[number].send(answer)
        except StopIteration as end:
            done[number] = end.value
        except Exception as error:
            done[number] = error

    for number in range(len(works)):
        go_on(number, None)
    while asked:
        waiting, asked = asked, {}
        for number, answer in _answers(networks, waiting).items():
            go_on(number, answer)
    return [done[number] for number in range(len(works))]


def run_alone(networks: Networks, work: Work[T]) -> T:
    """What one work returns; what it raises is raised."""
    (found,) = run_together(networks, [work])
    if isinstance(found, Exception):
        raise found
    return found


def _answers(networks: Networks, asked: dict[int, Request]) -> dict[int, Any]:
    """Number of a work → the answer to its request, or what kept it from one."""
    answers: dict[int, Any] = {}
    groups: dict[type, dict[int, Any]] = {Locate: {}, Detect: {}, Refine: {}}
    for number, request in asked.items():
        groups[type(request)][number] = request
    for number, request in groups[Locate].items():
        answers |= _asked(partial(_located, networks), {number: request})
    answers |= _asked(partial(_detected, networks), groups[Detect])
    answers |= _asked(partial(_refined, networks), groups[Refine])
    return answers


def _asked(ask: Callable[[dict[int, Any]], dict[int, Any]], group: dict[int, Any]) -> dict[int, Any]:
    """Answers to a group; where it cannot be answered, each alone, so that one does not spoil the others."""
    try:
        return ask(group) if group else {}
    except Exception as error:
        if len(group) == 1:
            return dict.fromkeys(group, error)
    answers: dict[int, Any] = {}
    for number, request in group.items():
        answers |= _asked(ask, {number: request})
    return answers


def _located(networks: Networks, group: dict[int, Any]) -> dict[int, Any]:
    return {number: networks.locator(*request) for number, request in group.items()}


def _detected(networks: Networks, group: dict[int, Detect]) -> dict[int, Any]:
    boxes = [box for request in group.values() for box in request.boxes]
    turns = [turn for request in group.values() for turn in request.turns or [0] * len(request.boxes)]
    counts = [len(request.boxes) for request in group.values()]
    return _parts(networks.cascade.detect_each(_frames(group, counts), boxes, turns), group, counts)


def _refined(networks: Networks, group: dict[int, Refine]) -> dict[int, Any]:
    keypoints = [points for request in group.values() for points in request.keypoints]
    counts = [len(request.keypoints) for request in group.values()]
    return _parts(networks.cascade.refine_each(_frames(group, counts), keypoints), group, counts)


def _frames(group: Mapping[int, Detect | Refine], counts: Sequence[int]) -> list[Array]:
    """The frame of each object of a group."""
    return [r.image for r, count in zip(group.values(), counts, strict=True) for _ in range(count)]


def _parts(result: CascadeResult, group: Mapping[int, Any], counts: Sequence[int]) -> dict[int, Any]:
    """Number → its part of what the cascade gave for all objects of a group."""
    if len(group) == 1:
        return dict.fromkeys(group, result)
    ends = np.cumsum(counts).tolist()
    return {
        number: result.part(start, end)
        for number, start, end in zip(group, [0, *ends[:-1]], ends, strict=True)
    }
