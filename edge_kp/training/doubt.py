"""How sure a model is of what it sees in a picture, and from which pictures it would learn most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_kp.cascade import Cascade
from edge_kp.detector import Detector
from edge_kp.geometry import jitter_box, quarter_turns, tight_box
from edge_kp.training.regions import key_rng, sample_box
from edge_kp.training.views import look_again
from edge_kp.types import Array, Detection

VIEWS = 4  # boxes that an object is looked at in, as it is and mirrored
JITTER = 0.1  # of the box
JITTER_OF_IMAGE = 0.03  # of one that is the whole picture
POOL = 3  # so many times the pictures that are wanted are the doubtful ones


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model sees in a picture.

    Attributes:
        objects: with keypoints that are the medians over all looks.
        doubt: of each, see :func:`doubt_of`.
    """

    objects: tuple[Detection, ...]
    doubt: tuple[float, ...]


def see(detector: Detector, image: Array, key: str) -> Seen:
    """Find the objects of a picture, and look at each again.

    Args:
        image: uint8 BGR (H, W, 3).
        key: name of the picture; it decides how.
    """
    objects, doubt = [], []
    whole = detector.spec.box_rule == "image"
    for number, found in enumerate(detector.detect(image)):
        box = sample_box(found.keypoints, (image.shape[1], image.shape[0]), detector.spec.box_rule)
        turn = 0 if whole else quarter_turns(detector.cascade.alignment.to_shape(found.keypoints))
        keypoints, moved = doubt_of(
            detector.cascade, image, box, f"{key}#{number}", turn, JITTER_OF_IMAGE if whole else JITTER
        )
        objects.append(replace(found, keypoints=keypoints, box=tight_box(keypoints)))
        doubt.append(moved)
    return Seen(tuple(objects), tuple(doubt))


def doubt_of(
    cascade: Cascade, image: Array, box: Array, key: str, turn: int = 0, jitter: float = JITTER
) -> tuple[Array, float]:
    """Median keypoints (N, 2) float32 over several looks at an object, in boxes that differ a little and in
    the mirror, and how far the looks lie from them on average, in longer sides of the tight box around them.

    Args:
        box: (4,) around the object.
        key: decides the boxes.
        turn: by how many quarter turns, clockwise, it is turned to stand upright.
        jitter: of the box.
    """
    rng = key_rng(key, 0)
    looks, _ = look_again(cascade, image, [jitter_box(box, rng, jitter) for _ in range(VIEWS)], turn)
    middle = np.median(looks, axis=0).astype(np.float32)
    side = float(np.ptp(middle, axis=0).max())
    away = float(np.linalg.norm(looks - middle, axis=-1).mean())
    return middle, away / side if side > 0 else math.inf


def choose(
    doubts: Sequence[float], shapes: Sequence[Array], count: int, pool: int | None = None
) -> list[int]:
    """Which of many pictures to label: doubtful ones that differ from each other.

    The most doubtful alone are much alike, and teach a model less (``benchmarks.next_labels``). So of these
    the most doubtful comes first, then always the one whose shape is farthest from those of all before it:
    any number of them from the first on is a good choice.

    Args:
        doubts: of each picture, see :func:`doubt_of`.
        shapes: of each picture, (N, 2) keypoints in any frame and size.
        count: how many are wanted.
        pool: how many of the most doubtful to choose from; None for :data:`POOL` times as many.
    """
    doubtful = np.argsort(-np.asarray(doubts), kind="stable")[: POOL * count if pool is None else pool]
    rows: Array = np.array([_plain(shapes[i]) for i in doubtful])
    chosen: list[int] = []
    away = np.full(len(doubtful), np.inf)
    while len(chosen) < min(count, len(doubtful)):
        chosen.append(int(np.argmax(away)))  # the most doubtful of those that are as far
        away = np.minimum(away, np.linalg.norm(rows - rows[chosen[-1]], axis=1))
        away[chosen] = -1
    return [int(doubtful[i]) for i in chosen]


def _plain(shape: Array) -> Array:
    """(2 N,) the shape about its middle, in the same size as any other."""
    centred = (shape - shape.mean(0)).ravel()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-9))
