"""What a frame shows: located boxes seen by both stages, and seen again where these leave a doubt.

An object that lies on its side or stands on its head looks like nothing, or like an upright one in another
pose, to networks that were taught upright ones. So what is not seen beyond doubt is looked at turned as well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edge_kp.cascade_result import CascadeResult, joined
from edge_kp.locator import SURER
from edge_kp.together import Detect, Locate, Refine, Work
from edge_kp.types import Array

if TYPE_CHECKING:
    from edge_kp.detector import Detector

CERTAIN = 0.995  # score from which the first look is enough, if it moved the crop by no more than
PLACED = 0.018  # root mean square of the canonical points, sides of the crop
HOPELESS = 0.1  # score below which nobody looks again, unless the box is sure to hold an object
MOVED = 0.006  # by how much, measured likewise, a second look moves the crop for there to be a third
SETTLED = 0.015  # and by how much the last one may move it
SURE_TURNED = 0.9999  # score that an object must reach that is not upright, or was not found upright,
LESS_DOUBT = 0.1  # and how much it may leave of the doubt, 1 - score, that the upright look leaves
TURNS = (1, 2, 3)  # quarter turns clockwise


class Looks(NamedTuple):
    """What both stages saw in M boxes of a frame.

    Attributes:
        result: of M rows.
        least: (M,) score that each must reach for an object to be there, besides the model's threshold.
        seconds: time of ``locate``, ``stage1`` and ``stage2``.
    """

    result: CascadeResult
    least: Array
    seconds: dict[str, float]


def search(detector: Detector, image: Array, turn: int = 0) -> Work[Looks]:
    """What the locator finds in a frame, uint8 BGR (H, W, 3), seen by the stages.

    Args:
        turn: look at the frame turned by so many quarter turns, clockwise.
    """
    start = time.perf_counter()
    located = yield Locate(image, turn)
    seconds = time.perf_counter() - start
    turns = [turn] * len(located.boxes)
    looks = yield from look(detector, image, located.boxes, located.least, turns)
    return looks._replace(seconds={"locate": seconds, **looks.seconds})


def search_all_turns(detector: Detector, image: Array) -> Work[Looks]:
    """:func:`search` in the frame as it is, and until that shows an object for sure, in the frame turned."""
    seen = [(yield from search(detector, image))]
    if detector.spec.locator == "network":
        for turn in TURNS:
            if _is_sure(detector, seen[-1]):
                break
            seen.append((yield from search(detector, image, turn)))
    seconds = {stage: sum(looks.seconds[stage] for looks in seen) for stage in seen[0].seconds}
    least = np.concatenate([looks.least for looks in seen])
    return Looks(joined([looks.result for looks in seen]), least, seconds)


def _is_sure(detector: Detector, looks: Looks) -> bool:
    """Is an object there that the locator does not doubt, or that leaves hardly a doubt?"""
    score, least = looks.result.score, looks.least
    found = detector.found(looks.result, least)
    return any(least[i] == 0 or score[i] >= SURE_TURNED for i in found)


def look(
    detector: Detector,
    image: Array,
    boxes: Sequence[Array] | Array,
    least: Array | None = None,
    turns: Sequence[int] | None = None,
) -> Work[Looks]:
    """Both stages on boxes of a frame, and again where these leave a doubt.

    What is not seen beyond doubt is looked at in the other turns; one of these counts where it leaves far
    less doubt. What the locator doubts, or what was found turned, must besides stay in its place when stage 2
    looks again: things of another kind lead it elsewhere.

    Args:
        least: (M,) score that each box asks for, see :class:`edge_kp.locator.Located`; None asks for none.
        turns: how each is looked at first, see :class:`edge_kp.together.Detect`.
    """
    least = np.zeros(len(boxes)) if least is None else least
    turns = [0] * len(boxes) if turns is None else turns
    result: CascadeResult = yield Detect(image, boxes, turns)
    if detector.spec.locator != "network":  # the whole frame is the object, and upright
        return Looks(result, least, result.seconds)
    at = np.array(turns, int)
    enough = np.where(at == 0, CERTAIN, SURE_TURNED)
    sure = (result.score >= enough) & (_off(detector, result) <= PLACED)
    worth = (result.score >= HOPELESS) | (least == 0)
    doubtful = np.flatnonzero(~sure & worth).tolist()
    asks = np.where(at == 0, least, SURE_TURNED)
    if not doubtful:
        return Looks(result, asks, result.seconds)
    others = [(i, int(at[i] + turn) % 4) for i in doubtful for turn in TURNS]
    turned: CascadeResult = yield Detect(image, [boxes[i] for i, _ in others], [turn for _, turn in others])
    promising = np.flatnonzero(turned.score >= HOPELESS).tolist()
    keypoints = [*result.keypoints[doubtful], *turned.keypoints[promising]]
    again, settled = yield from _settle(detector, image, keypoints)

    rows = np.arange(len(at))
    candidates: dict[int, list[int]] = {i: [] for i in doubtful}
    for k, other in enumerate(promising, len(doubtful)):
        if settled[k]:
            candidates[others[other][0]].append(k)
    for own, i in enumerate(doubtful):
        best = max(candidates[i], key=again.score.__getitem__, default=None)
        doubt = 1 - (again.score[own] if settled[own] else result.score[i])
        if best is not None and 1 - again.score[best] < min(LESS_DOUBT * doubt, 1 - SURE_TURNED):
            rows[i], asks[i] = len(at) + best, SURE_TURNED
        elif settled[own]:
            rows[i] = len(at) + own
            if result.score[i] < detector.spec.score_threshold:  # which it did not reach at first
                asks[i] = max(asks[i], SURER)
        elif asks[i] > 0:
            asks[i] = np.inf
    spent = {stage: sum(part.seconds[stage] for part in (result, turned, again)) for stage in result.seconds}
    return Looks(joined([result, again]).take(rows), asks.astype(np.float32), spent)


def _settle(
    detector: Detector, image: Array, keypoints: Sequence[Array]
) -> Work[tuple[CascadeResult, Array]]:
    """Stage 2 on (N, 2) keypoints of M objects, once more on those that it moves, and (M,) bool: did it leave
    them in their place at last?"""
    first: CascadeResult = yield Refine(image, keypoints)
    off = _off(detector, first)
    moved = np.flatnonzero(off > MOVED)
    second: CascadeResult = yield Refine(image, first.keypoints[moved])
    off[moved] = _off(detector, second)
    rows = np.arange(len(off))
    rows[moved] = len(off) + np.arange(len(moved))
    return joined([first, second]).take(rows), off <= SETTLED


def _off(detector: Detector, result: CascadeResult) -> Array:
    """(M,) how far the crops that stage 2 saw were off those that its keypoints ask for, see PLACED."""
    distance = detector.cascade.alignment.distance
    return np.array([distance(*pair) for pair in zip(result.transforms, result.wanted, strict=True)])
