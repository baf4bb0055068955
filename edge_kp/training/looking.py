"""How sure a trained model is of upright objects, turned ones and of what is none: its rules of looking."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from edge_kp.cascade import Cascade
from edge_kp.errors import ModelError
from edge_kp.files import parse_json, reason, replacing
from edge_kp.geometry import box_iou, jitter_box
from edge_kp.locator import ImageLocator, Locator
from edge_kp.look_rules import LookRules
from edge_kp.looks import LESS_DOUBT, off_place, settle
from edge_kp.modeldir import ModelSpec
from edge_kp.together import run_alone
from edge_kp.training.datasets import Sample
from edge_kp.training.regions import key_rng
from edge_kp.types import Array

LOOK_RULES = "looks.json"
MOST = 100  # objects that are looked at
EMPTY = 300  # boxes beside them that show none
APART = 0.1  # IoU with every object that such a box may have
IN_PLACE = 0.08  # mean distance of keypoints below that, longer sides of the box
FARTHEST = 2.0  # sides of the crop, more than any rule allows
FALSE = 1.0  # % of the looks at what is no object, or none that lies so, which a rule may take for one
FEW = 5.0  # % of the upright objects whose score may be below what is asked
ROOM = 4.5  # times what nearly all objects need to settle is allowed, for those that are covered or blurred
LOOKS = 100  # fewer looks at nothing do not show that an object may be taken for turned by a lower score
AT_ONCE = 16  # boxes
LOWEST = 0.9  # nothing below counts as hardly a doubt


class Networks(NamedTuple):
    """A cascade alone, as what looks at boxes; see :class:`edge_kp.together.Networks`."""

    spec: ModelSpec
    cascade: Cascade
    locator: Locator = ImageLocator()


class Seen(NamedTuple):
    """What looks at M boxes showed, (M, 4) each: as they are and by 1, 2 and 3 quarter turns.

    Attributes:
        score, off: of the first look, see :func:`edge_kp.looks.off_place`.
        settled_score, moved: of the last look, and by how much it moved the crop.
        in_place: did the last look find the object's keypoints, wherever the box lay?
    """

    score: Array
    off: Array
    settled_score: Array
    moved: Array
    in_place: Array

    def part(self, boxes: slice) -> Seen:
        return Seen(*(values[boxes] for values in self))


def measure_looks(
    cascade: Cascade, samples: Sequence[Sample], seed: int = 0
) -> tuple[LookRules, dict[str, float | int]]:
    """Rules for a trained cascade, and figures for people, from objects that it was not trained on.

    Raises:
        DataError: an unreadable image.
    """
    seen, networks = [], Networks(cascade.spec, cascade)
    spread = np.linspace(0, len(samples) - 1, min(len(samples), MOST)).astype(int)
    chosen = [samples[i] for i in spread.tolist()]
    beside = math.ceil(EMPTY / len(chosen))
    for sample in tqdm(chosen, "looking", unit="object", leave=False):
        rng = key_rng(sample.key, seed)
        image = sample.read()
        box = jitter_box(sample.box, rng, 0.1)
        boxes = [box]
        if sample.use_background:  # else there are others in it, nobody knows where
            boxes += boxes_beside(image.shape[1], image.shape[0], sample.box, sample.others, beside, rng)
        looks = [
            _look_at(networks, image, boxes[i : i + AT_ONCE], sample) for i in range(0, len(boxes), AT_ONCE)
        ]
        seen.append(_joined(looks))
    first, others = (_joined([looks.part(part) for looks in seen]) for part in (slice(1), slice(1, None)))
    threshold = cascade.spec.score_threshold
    rules = choose(first, others, threshold)
    return rules, figures(rules, first, threshold)


def write_look_rules(path: Path, cascade: Cascade, samples: Sequence[Sample]) -> None:
    """Measure the rules, keep them in a file with their figures, and tell what they are worth."""
    rules, told = measure_looks(cascade, samples)
    with replacing(path) as part:
        part.write_text(json.dumps({"rules": rules.to_json(), "figures": told}, indent=1) + "\n", "utf-8")
    if rules.turned < 1:
        print(
            f"turned by 90, 180 or 270 degrees, {told['turned_found_percent']:.0f} % of the held-back objects"
            f" are seen for what they are; a turned look counts from a score of {rules.turned:.5g}"
        )
    else:
        print("turned objects are not looked for: to this model they do not differ enough from upright ones")


def read_look_rules(path: Path) -> LookRules:
    """What :func:`write_look_rules` kept; the defaults for a run of an older version, which kept none.

    Raises:
        ModelError: the file cannot be read.
    """
    if not path.exists():
        return LookRules()
    try:
        return LookRules.from_json(parse_json(path.read_text(encoding="utf-8"))["rules"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: cannot be read ({reason(error)}); run the same python -m edge_kp.train again"
        ) from error


def choose(seen: Seen, empty: Seen, threshold: float) -> LookRules:
    """Rules by what looks at objects and beside them showed; :class:`LookRules` has the most that they ask.

    Args:
        threshold: score below which an object counts as absent.
    """
    most = LookRules()
    placed = _percentile(seen.off[:, 0], 100 - FEW)
    settled = ROOM * _percentile(seen.moved[:, 0], 100 - FEW)
    wrong = ~seen.in_place[:, 1:]
    first = np.where(wrong & (seen.off[:, 1:] <= placed), seen.score[:, 1:], 0)
    usual = min(most.certain, _percentile(seen.score[:, 0], FEW))
    certain = max(threshold, usual, _percentile(first, 100 - FALSE))

    false = [
        _percentile(_best_turned(looks, settled), 100 - FALSE) for looks in (seen, empty) if len(looks.score)
    ]
    usual = min(most.turned, _percentile(seen.settled_score[:, 0], FEW))
    turned = max(LOWEST, usual, *false)
    if len(empty.score) < LOOKS:
        turned = max(turned, most.turned)
    if turned > np.median(seen.settled_score[:, 0]):  # it would be seen in few of those that are turned
        turned = 1.0
    placed, settled = (min(math.ceil(1e7 * value) / 1e7, 1.0) for value in (placed, settled))
    return LookRules(round(certain, 7), placed, settled, round(turned, 7))


def _best_turned(seen: Seen, settled: float) -> Array:
    """(M,) score of the turned look that would be taken for right where an upright one is, 0 for none."""
    score = np.where(seen.moved <= settled, seen.settled_score, seen.score)
    less = 1 - score[:, 1:] < LESS_DOUBT * (1 - score[:, :1])
    wrong = ~seen.in_place[:, 1:] & (seen.moved[:, 1:] <= settled)
    return np.asarray(np.where(wrong & less, score[:, 1:], 0).max(1))


def figures(rules: LookRules, seen: Seen, threshold: float) -> dict[str, float | int]:
    """How the rules do on what they were chosen by, %."""
    settled = seen.moved <= rules.settled
    doubt = 1 - np.where(settled, seen.settled_score, seen.score)
    counts = settled & (seen.settled_score >= rules.turned)
    sure = (seen.score >= rules.certain) & (seen.off <= rules.placed)
    # An object turned by k looks to a look turned by j as an upright one does to a look turned by j - k.
    there = seen.in_place[:, 1:] & (doubt[:, 1:] <= 1 - threshold)
    told = counts[:, :1] & ~sure[:, 1:] & (doubt[:, :1] < LESS_DOUBT * doubt[:, 1:])
    wrong = ~sure[:, 0] & (_best_turned(seen, rules.settled) >= rules.turned)
    return {
        "objects": len(seen.score),
        "upright_at_first_look_percent": _share(sure[:, 0]),
        "turned_found_percent": _share(told | there),
        "upright_taken_for_turned_percent": _share(wrong),
    }


def boxes_beside(
    width: int, height: int, box: Array, others: Sequence[Array], count: int, rng: np.random.Generator
) -> list[Array]:
    """Up to ``count`` boxes (4,) of the size of ``box`` in an image, that show neither it nor the others."""
    size = box[2:] - box[:2]
    room = np.array([width, height]) - 0.5 - size
    if (room <= -0.5).any():
        return []
    starts = rng.uniform(-0.5, room, (4 * count, 2))
    boxes = [np.concatenate([start, start + size]).astype(np.float32) for start in starts]
    return [b for b in boxes if all(box_iou(b, other) <= APART for other in (box, *others))][:count]


def _look_at(networks: Networks, image: Array, boxes: Sequence[Array], sample: Sample) -> Seen:
    """What is seen in boxes of a frame, and where it is the sample's object."""
    count = 4 * len(boxes)
    first = networks.cascade(image, np.repeat(boxes, 4, axis=0), [0, 1, 2, 3] * len(boxes))
    # Stage 2 cannot look at points in one place.
    rows = np.flatnonzero(np.ptp(first.keypoints, axis=1).any(1))
    last, _ = run_alone(networks, settle(networks, image, list(first.keypoints[rows])))
    score, moved, in_place = np.zeros(count), np.full(count, FARTHEST), np.zeros(count, bool)
    score[rows], moved[rows] = last.score, off_place(networks, last)
    distance = np.nanmean(np.linalg.norm(last.keypoints - sample.keypoints, axis=2), axis=1)
    in_place[rows] = distance < IN_PLACE * np.ptp(sample.box.reshape(2, 2), axis=0).max()
    columns = (first.score, off_place(networks, first), score, moved, in_place)
    return Seen(*(values.reshape(-1, 4) for values in columns))


def _joined(seen: Sequence[Seen]) -> Seen:
    return Seen(*(np.concatenate(parts) for parts in zip(*seen, strict=True)))


def _percentile(values: Array, percent: float) -> float:
    return float(np.percentile(values, percent))


def _share(which: Array) -> float:
    return round(100 * float(which.mean()), 1)
