"""What a frame shows: located boxes seen by both stages, and seen again where these leave a doubt.

An object that lies on its side or stands on its head looks like nothing, or like an upright one in another
pose, to networks that were taught upright ones. So what is not seen beyond doubt is looked at turned as well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge_kp.cascade_result import CascadeResult, joined
from edge_kp.geometry import box_area, box_iou, tight_box
from edge_kp.identity import same_place
from edge_kp.locator import SURER
from edge_kp.modeldir import ModelSpec
from edge_kp.together import Detect, Locate, Networks, Refine, Work
from edge_kp.types import Array

HOPELESS = 0.1  # score below which nobody looks again, unless the box is sure to hold an object
MOVED = 0.4  # of the distance at which a look counts as settled: beyond, there is a third
DOUBTLESS = 0.9999  # score that leaves hardly a doubt, even where the locator has one
LESS_DOUBT = 0.1  # how much a turned look may leave of the doubt, 1 - score, that the upright one leaves
TURNS = (1, 2, 3)  # quarter turns clockwise
AT_ONCE = 256  # boxes
DOUBLE = 0.6  # IoU of two results, above which they show the same object


def present(spec: ModelSpec, result: CascadeResult) -> list[int]:
    """Which results of a cascade reach the model's score threshold."""
    return [i for i, score in enumerate(result.score) if score >= spec.score_threshold]


def looks_turned(spec: ModelSpec) -> bool:
    """Are boxes and frames looked at turned as well?"""
    return spec.locator == "network" and spec.looks.turned < 1


class Looks(NamedTuple):
    """What both stages saw in M boxes of a frame.

    Attributes:
        result: of M rows.
        least: (M,) float32 score that each must reach for an object to be there, besides the model's
            threshold.
        turned: (M,) bool: is it not upright, or was it not found upright?
        doubted: (M,) bool: did the locator doubt the box?
        seconds: time of ``locate``, ``stage1`` and ``stage2``.
    """

    result: CascadeResult
    least: Array
    turned: Array
    doubted: Array
    seconds: dict[str, float]


def found(spec: ModelSpec, looks: Looks) -> list[int]:
    """Which results are objects of a frame, largest first: those that reach the model's score threshold and
    what is asked of each besides, and of several on the same object the one with the highest score. One of
    which more is asked must neither lie in another object nor hold one, and so must one beside an object that
    is turned.
    """
    result, least = looks.result, looks.least
    boxes: dict[int, Array] = {}
    there = [i for i in present(spec, result) if result.score[i] >= least[i]]
    for i in sorted(there, key=lambda i: -float(result.score[i])):
        box = tight_box(result.keypoints[i])
        if not any(
            box_iou(box, other) > DOUBLE or ((least[i] > 0 or looks.turned[k]) and same_place(box, other))
            for k, other in boxes.items()
        ):
            boxes[i] = box
    return sorted(boxes, key=lambda i: -box_area(boxes[i]))


def search(networks: Networks, image: Array, turn: int = 0) -> Work[Looks]:
    """What the locator finds in a frame, uint8 BGR (H, W, 3), seen by the stages.

    Args:
        turn: look at the frame turned by so many quarter turns, clockwise.
    """
    start = time.perf_counter()
    located = yield Locate(image, turn)
    seconds = time.perf_counter() - start
    turns = [turn] * len(located.boxes)
    looks = yield from look(networks, image, located.boxes, located.least, turns)
    return looks._replace(seconds={"locate": seconds, **looks.seconds})


def search_all_turns(networks: Networks, image: Array) -> Work[Looks]:
    """:func:`search` in the frame as it is, and until that shows an object for sure, in the frame turned."""
    seen = [(yield from search(networks, image))]
    if looks_turned(networks.spec):
        for turn in TURNS:
            if _is_sure(networks, seen[-1]):
                break
            seen.append((yield from search(networks, image, turn)))
    return _joined(seen)


def _joined(seen: Sequence[Looks]) -> Looks:
    """Several looks at a frame as one; the times add up."""
    seconds = {stage: sum(looks.seconds[stage] for looks in seen) for stage in seen[0].seconds}
    arrays = zip(*((looks.least, looks.turned, looks.doubted) for looks in seen), strict=True)
    least, turned, doubted = (np.concatenate(parts) for parts in arrays)
    return Looks(joined([looks.result for looks in seen]), least, turned, doubted, seconds)


def _is_sure(networks: Networks, looks: Looks) -> bool:
    """Is an object there that the locator does not doubt, or that leaves hardly a doubt?"""
    there = found(networks.spec, looks)
    return any(looks.least[i] == 0 or looks.turned[i] or looks.result.score[i] >= DOUBTLESS for i in there)


def look(
    networks: Networks,
    image: Array,
    boxes: Sequence[Array] | Array,
    least: Array | None = None,
    turns: Sequence[int] | None = None,
    around: bool = True,
) -> Work[Looks]:
    """Both stages on boxes of a frame, and again where these leave a doubt.

    What is not seen beyond doubt is looked at in the other turns; one of these counts where it leaves far
    less doubt. What the locator doubts, or what was found turned, must besides stay in its place when stage 2
    looks again: things of another kind lead it elsewhere.

    Args:
        least: (M,) score that each box asks for, see :class:`edge_kp.locator.Located`; None asks for none.
        turns: how each is looked at first, see :class:`edge_kp.together.Detect`.
        around: look in the other turns at what the locator doubts as well.
    """
    least = np.zeros(len(boxes), np.float32) if least is None else np.asarray(least, np.float32)
    turns = [0] * len(boxes) if turns is None else turns
    seen = []
    for start in range(0, max(1, len(boxes)), AT_ONCE):
        lot = slice(start, start + AT_ONCE)
        seen.append((yield from _look_at(networks, image, boxes[lot], least[lot], turns[lot], around)))
    return seen[0] if len(seen) == 1 else _joined(seen)


def _look_at(
    networks: Networks,
    image: Array,
    boxes: Sequence[Array] | Array,
    least: Array,
    turns: Sequence[int],
    around: bool,
) -> Work[Looks]:
    """:func:`look` at so many boxes that all looks at them can be kept."""
    result: CascadeResult = yield Detect(image, boxes, turns)
    rules, threshold = networks.spec.looks, networks.spec.score_threshold
    if networks.spec.locator != "network":  # the whole frame is the object, and upright
        return Looks(result, least, np.zeros(len(boxes), bool), least > 0, result.seconds)
    at = np.array(turns, int)
    is_turned = at != 0
    enough = np.where(is_turned, rules.turned, rules.certain)
    sure = (result.score >= enough) & (off_place(networks, result) <= rules.placed)
    # Stage 2 cannot look at points in one place.
    worth = ((result.score >= HOPELESS) | (least == 0)) & np.ptp(result.keypoints, axis=1).any(1)
    doubtful = np.flatnonzero(~sure & worth).tolist()
    asks = np.where(is_turned, np.maximum(least, np.float32(rules.turned)), least)
    surer = np.where(least > 0, np.float32(rules.doubted), np.float32(SURER))
    if not doubtful:
        return Looks(result, asks, is_turned, least > 0, result.seconds)
    worth_turning = [i for i in doubtful if looks_turned(networks.spec) and (around or least[i] == 0)]
    others = [(i, int(at[i] + turn) % 4) for i in worth_turning for turn in TURNS]
    turned: CascadeResult = yield Detect(image, [boxes[i] for i, _ in others], [turn for _, turn in others])
    promising = np.flatnonzero(turned.score >= HOPELESS).tolist()
    keypoints = [*result.keypoints[doubtful], *turned.keypoints[promising]]
    again, settled = yield from settle(networks, image, keypoints)

    rows = np.arange(len(at))
    candidates: dict[int, list[int]] = {i: [] for i in doubtful}
    for k, other in enumerate(promising, len(doubtful)):
        if settled[k]:
            candidates[others[other][0]].append(k)
    for own, i in enumerate(doubtful):
        best = max(candidates[i], key=again.score.__getitem__, default=None)
        doubt = 1 - (again.score[own] if settled[own] else result.score[i])
        if best is not None and 1 - again.score[best] < min(LESS_DOUBT * doubt, 1 - rules.turned):
            rows[i], is_turned[i] = len(at) + best, True
            asks[i] = max(asks[i], np.float32(rules.turned))
        elif settled[own] and (result.score[i] >= threshold or again.score[own] >= surer[i]):
            rows[i] = len(at) + own
        elif asks[i] > 0:
            asks[i] = np.inf
    spent = {stage: sum(part.seconds[stage] for part in (result, turned, again)) for stage in result.seconds}
    return Looks(joined([result, again]).take(rows), asks, is_turned, least > 0, spent)


def settle(networks: Networks, image: Array, keypoints: Sequence[Array]) -> Work[tuple[CascadeResult, Array]]:
    """Stage 2 on (N, 2) keypoints of M objects, once more on those that it moves, and (M,) bool: did it leave
    them in their place at last?"""
    settled = networks.spec.looks.settled
    first: CascadeResult = yield Refine(image, keypoints)
    off = off_place(networks, first)
    moved = np.flatnonzero(off > MOVED * settled)
    second: CascadeResult = yield Refine(image, first.keypoints[moved])
    off[moved] = off_place(networks, second)
    rows = np.arange(len(off))
    rows[moved] = len(off) + np.arange(len(moved))
    return joined([first, second]).take(rows), off <= settled


def off_place(networks: Networks, result: CascadeResult) -> Array:
    """(M,) how far the crops that stage 2 saw were off those that its keypoints ask for: root mean square of
    the canonical points, sides of the crop."""
    distance = networks.cascade.alignment.distance
    return np.array([distance(*pair) for pair in zip(result.transforms, result.wanted, strict=True)])
