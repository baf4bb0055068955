"""How sure a model is of what it sees in a picture, and from which pictures it would learn most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_kp.cascade import Cascade
from edge_kp.detector import Detector
from edge_kp.geometry import jitter_box, quarter_turns, tight_box
from edge_kp.templates.clustering import kmeans, principal_components
from edge_kp.training.regions import key_rng, sample_box
from edge_kp.training.views import look_again
from edge_kp.types import Array, Detection

VIEWS = 4  # boxes that an object is looked at in, as it is and mirrored
JITTER = 0.1  # of the box
JITTER_OF_IMAGE = 0.03  # of one that is the whole picture
SHARE = 0.99  # of the variance of shapes, in which they are put into clusters
DIRECTIONS = 10  # at most


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


def choose(shapes: Sequence[Array], count: int, seed: int = 0) -> list[int]:
    """Which of many pictures to label: those that stand for most others.

    Their shapes are put into as many clusters as pictures are wanted, and of each the one nearest to its
    middle is taken, of the largest clusters first. On photos that all differ this teaches a model as much as
    pictures at random do, and what it doubts most teaches it less while little is labelled: measured by
    ``benchmarks.next_labels``, and known of classification (Hacohen, Dekel and Weinshall 2022, "Active
    learning on a budget: opposite strategies suit high and low budgets"). Of frames much alike it takes one.

    Args:
        shapes: of each picture, (N, 2) keypoints in any frame and size.
        count: how many are wanted.
    """
    if len(shapes) <= count:
        return list(range(len(shapes)))
    rows = np.array([_plain(shape) for shape in shapes])
    rows -= rows.mean(0)
    points = rows @ principal_components(rows, SHARE, DIRECTIONS)
    labels = kmeans(points, np.ones(len(points)), count, np.random.default_rng(seed))
    members = [np.flatnonzero(labels == cluster) for cluster in range(count)]
    members.sort(key=len, reverse=True)
    middles = [points[part].mean(0) for part in members]
    nearest = [
        np.linalg.norm(points[part] - m, axis=1).argmin() for part, m in zip(members, middles, strict=True)
    ]
    return [int(part[i]) for part, i in zip(members, nearest, strict=True)]


def _plain(shape: Array) -> Array:
    """(2 N,) the shape about its middle, in the same size as any other."""
    centred = (shape - shape.mean(0)).ravel()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-9))
