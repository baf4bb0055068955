"""Several looks of a cascade at one object: their mean is better than one, their spread says how sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_kp.cascade import Cascade
from edge_kp.types import Array


def look_again(cascade: Cascade, image: Array, boxes: Sequence[Array], turn: int = 0) -> tuple[Array, Array]:
    """Keypoints (V, N, 2), frame pixels, and scores (V,) of an object: in each of its boxes and, where the
    schema can flip, in each once more in the mirrored image.

    Args:
        image: uint8 BGR (H, W, 3).
        boxes: (4,) boxes around the object, that differ a little.
        turn: by how many quarter turns, clockwise, it is turned to stand upright.
    """
    schema = cascade.spec.schema
    result = cascade(image, boxes, [turn] * len(boxes))
    found, scores = [result.keypoints], [result.score]
    if schema.can_flip:
        last = image.shape[1] - 1
        mirrored = [np.array([last - b[2], b[1], last - b[0], b[3]], np.float32) for b in boxes]
        result = cascade(np.ascontiguousarray(image[:, ::-1]), mirrored, [-turn % 4] * len(boxes))
        back = result.keypoints[:, schema.flip_index] * np.array([-1.0, 1.0]) + np.array([last, 0.0])
        found, scores = [*found, back], [*scores, result.score]
    return np.concatenate(found), np.concatenate(scores)
