"""What locator and stages find together in whole photos, and when what the locator doubts may count."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from edge_kp.backends.base import Backend
from edge_kp.cascade import Cascade
from edge_kp.errors import ModelError
from edge_kp.files import parse_json, reason, replacing
from edge_kp.geometry import box_iou, tight_box
from edge_kp.locator import NetworkLocator
from edge_kp.look_rules import LookRules
from edge_kp.looks import found, search_all_turns
from edge_kp.metrics import match_boxes
from edge_kp.together import run_alone
from edge_kp.training.looking import Networks
from edge_kp.training.photos import Photo
from edge_kp.types import Array

MOST = 100  # photos
BOXES = 3000  # that are looked at in all; a locator that is sure of nothing gives hundreds a photo
OVERLAP = 0.2  # IoU with a labelled box from which an object is found, as in evaluation
UNKNOWN = 0.2  # IoU with what may be an object without label, from which nothing is said of what is found
HIGHEST = 1 - 1e-7  # rule below 1
WRONG = 0.5  # false ones for each right one, at most, among what the locator doubts
MARK = 1e-6  # asked of what the locator doubts: passed by all, and tells which it is


class Told(NamedTuple):
    """What was told of some photos, (K,) each.

    Attributes:
        score: of what was told.
        doubted: did the locator doubt it?
        right: is it a labelled object?
        objects: how many were labelled in those photos.
        photos: how many there were.
    """

    score: Array
    doubted: Array
    right: Array
    objects: int
    photos: int


def look_at_photos(
    cascade: Cascade,
    backend: Backend,
    size: int,
    threshold: float,
    photos: Sequence[Photo],
    doubted: float = MARK,
) -> Told:
    """Everything that both networks and the locator find in some of the photos, chosen at random.

    What lies where the data do not say what there is counts neither way.

    Args:
        cascade: with the rules of looking in its ``spec``.
        backend: the locator's network.
        size, threshold: of the locator.
        doubted: the rule for what the locator doubts; as it is, everything counts.
    """
    rules = replace(cascade.spec.looks, doubted=doubted)
    spec = replace(
        cascade.spec, looks=rules, locator="network", locator_size=size, locator_threshold=threshold
    )
    locator = NetworkLocator(backend, size, threshold, doubted=doubted)
    networks = Networks(spec, Cascade(spec, cascade.stage1, cascade.stage2), locator)
    rows: list[tuple[float, bool, bool]] = []
    objects = boxes = seen = 0
    # At random: photos come set by set, and those without any object last.
    order = np.random.default_rng(0).permutation(len(photos))[:MOST]
    for photo in tqdm([photos[i] for i in order], "looking", unit="photo", leave=False):
        looks = run_alone(networks, search_all_turns(networks, photo.levels[0]))
        there = sorted(found(spec, looks), key=lambda i: -float(looks.result.score[i]))
        truth = np.array([tight_box(points) for points in photo.objects]).reshape(-1, 4)
        at = np.array([tight_box(looks.result.keypoints[i]) for i in there]).reshape(-1, 4)
        match, _ = match_boxes(at, truth, OVERLAP)
        for i, box, is_object in zip(there, at, match >= 0, strict=True):
            if is_object or (photo.complete and all(box_iou(box, b) < UNKNOWN for b in photo.unlabelled)):
                rows.append((float(looks.result.score[i]), bool(looks.doubted[i]), is_object))
        objects, boxes, seen = objects + len(truth), boxes + len(looks.least), seen + 1
        if boxes >= BOXES:
            break
    score, doubts, right = np.array(rows, np.float64).reshape(-1, 3).T
    return Told(score, doubts > 0, right > 0, objects, seen)


def choose(told: Told) -> float:
    """The score from which what the locator doubts counts: at least that of the default, and such that few of
    these are false; 1 where no score parts them."""
    least = LookRules().doubted
    part = told.doubted & (told.score >= least)
    score, right = told.score[part], told.right[part]
    if not len(score):
        return least
    steps, ranks = np.unique(score, return_inverse=True)  # those of one score pass together
    passing = [
        np.cumsum(np.bincount(ranks[kind], minlength=len(steps))[::-1])[::-1] for kind in (right, ~right)
    ]
    good = np.flatnonzero(passing[1] <= WRONG * passing[0])
    if not len(good):
        return 1.0
    return least if good[0] == 0 else min(max(least, math.floor(1e7 * steps[good[0]]) / 1e7), HIGHEST)


def figures(told: Told) -> dict[str, float | int]:
    """What was told, for people."""
    return {
        "whole_photos": told.photos,
        "whole_found_percent": round(100 * float(told.right.sum()) / max(told.objects, 1), 1),
        "whole_false_a_photo": round(float((~told.right).sum()) / max(told.photos, 1), 3),
    }


def add_doubted(path: Path, doubted: float, told: Told) -> None:
    """Add the rule, and what is found by it, to what :func:`edge_kp.training.looking.write_look_rules` kept.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        kept = parse_json(path.read_text(encoding="utf-8"))
        rules = replace(LookRules.from_json(kept["rules"]), doubted=doubted)
        shown = figures(told)
        content = {"rules": rules.to_json(), "figures": {**kept["figures"], **shown}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: cannot be read ({reason(error)}); run the same python -m edge_kp.train again"
        ) from error
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    counts = (
        f"what the locator doubts counts from a score of {doubted:.7g}"
        if doubted < 1
        else "what the locator doubts is not looked at, as scores do not tell it from what is none"
    )
    share, false = shown["whole_found_percent"], shown["whole_false_a_photo"]
    print(
        f"locator and stages together find {share:.0f} % of the objects in {told.photos} held-back photos,"
        f" and {false:.2f} false ones a photo; {counts}"
    )
