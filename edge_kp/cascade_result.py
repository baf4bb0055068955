"""What the cascade found in the boxes of a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from edge_kp.types import Array


@dataclass(frozen=True, eq=False)
class CascadeResult:
    """What the cascade found in M boxes of one frame; keypoints in frame pixels.

    Attributes:
        keypoints: (M, N, 2) result of stage 2.
        prior_keypoints: (M, N, 2) template mixture of stage 2.
        stage1_keypoints, stage1_prior_keypoints: (M, N, 2) the same of stage 1; where stage 1 was left out,
            the keypoints that stage 2 started from.
        score: (M,) probability that the object is there: the lowest of the stages that ran.
        visibility: (M, N) of stage 2.
        attributes: (M, A) of stage 2, but the rotation in the plane, which the aligned crop takes away: that
            one is read off the keypoints.
        crop: number of a result → uint8 (S, S, 3), the aligned crop that stage 2 saw.
        transforms: (M, 2, 3) frame pixels → coordinates of those crops.
        wanted: (M, 2, 3) the transforms that ``keypoints`` would have asked for; where they coincide (their
            score is 0 then), those of the crops.
        seconds: time of ``stage1`` and ``stage2``, crops included.
    """

    keypoints: Array
    prior_keypoints: Array
    stage1_keypoints: Array
    stage1_prior_keypoints: Array
    score: Array
    visibility: Array
    attributes: Array
    crop: Callable[[int], Array]
    transforms: Array
    wanted: Array
    seconds: dict[str, float]

    def part(self, start: int, stop: int) -> CascadeResult:
        """Results ``start`` to ``stop``; the time is that of all, since each waits for all."""
        rows = {name: getattr(self, name)[start:stop] for name in _ARRAYS}
        return replace(self, **rows, crop=lambda i: self.crop(start + i))

    def take(self, rows: Sequence[int] | Array) -> CascadeResult:
        """These results, in this order."""
        chosen = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **chosen, crop=lambda i: self.crop(int(rows[i])))


_ARRAYS = tuple(field.name for field in fields(CascadeResult) if field.name not in ("crop", "seconds"))


def joined(parts: Sequence[CascadeResult]) -> CascadeResult:
    """The results of one or more batches as one; the times add up."""
    owners = [(part, i) for part in parts for i in range(len(part.score))]

    def crop(number: int) -> Array:
        part, i = owners[number]
        return part.crop(i)

    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    seconds = {stage: sum(part.seconds[stage] for part in parts) for stage in parts[0].seconds}
    return CascadeResult(**whole, crop=crop, seconds=seconds)


def empty_result(points: int, attributes: int, size: int) -> CascadeResult:
    """No object at all: ``points`` keypoints of each, crops of ``size`` pixels."""
    keypoints = np.zeros((0, points, 2), np.float32)
    transforms = np.zeros((0, 2, 3))
    return CascadeResult(
        keypoints,
        keypoints,
        keypoints,
        keypoints,
        score=np.zeros(0, np.float32),
        visibility=np.zeros((0, points), np.float32),
        attributes=np.zeros((0, attributes), np.float32),
        crop=np.zeros((0, size, size, 3), np.uint8).__getitem__,
        transforms=transforms,
        wanted=transforms,
        seconds={"stage1": 0.0, "stage2": 0.0},
    )
