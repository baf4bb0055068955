"""How sure a model is of what it sees in a picture: by how far its points move when it looks again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edge_kp.detector import Detector
from edge_kp.geometry import jitter_box, quarter_turns, tight_box
from edge_kp.training.regions import key_rng, sample_box
from edge_kp.training.views import look_again
from edge_kp.types import Array, Detection

VIEWS = 4  # boxes that an object is looked at in, as it is and mirrored
JITTER = 0.1  # of the box
JITTER_OF_IMAGE = 0.03  # of one that is the whole picture


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model sees in a picture.

    Attributes:
        objects: with keypoints that are the medians over all looks.
        doubt: of each, how far its points lie from those medians on average, in longer sides of its box.
    """

    objects: tuple[Detection, ...]
    doubt: tuple[float, ...]


def see(detector: Detector, image: Array, key: str) -> Seen:
    """Find objects and look at each again, in boxes that differ a little and in the mirror.

    Args:
        image: uint8 BGR (H, W, 3).
        key: name of the picture; it decides the boxes.
    """
    objects, doubt = [], []
    rng = key_rng(key, 0)
    for found in detector.detect(image):
        box, turn, jitter = found.box, 0, JITTER
        if detector.spec.box_rule == "image":
            box, jitter = (
                sample_box(found.keypoints, (image.shape[1], image.shape[0]), "image"),
                JITTER_OF_IMAGE,
            )
        else:
            turn = quarter_turns(detector.cascade.alignment.to_shape(found.keypoints))
        boxes = [jitter_box(box, rng, jitter) for _ in range(VIEWS)]
        looks, _ = look_again(detector.cascade, image, boxes, turn)
        middle = np.median(looks, axis=0).astype(np.float32)
        side = max((found.box[2:] - found.box[:2]).tolist())
        away = float(np.linalg.norm(looks - middle, axis=-1).mean())
        objects.append(replace(found, keypoints=middle, box=tight_box(middle)))
        doubt.append(away / side if side > 0 else math.inf)
    return Seen(tuple(objects), tuple(doubt))
