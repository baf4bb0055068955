"""Stage 1 on the box, an aligned crop from its keypoints, stage 2 for the result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError
from edge_kp.geometry import Crop, aligned_crop, square_crop
from edge_kp.modeldir import ModelSpec
from edge_kp.types import Array


@dataclass(frozen=True, eq=False)
class CascadeResult:
    """What the cascade found in M boxes of one frame; keypoints in frame pixels.

    Attributes:
        keypoints: (M, N, 2) result of stage 2.
        prior_keypoints: (M, N, 2) template mixture of stage 2.
        stage1_keypoints, stage1_prior_keypoints: (M, N, 2) the same of stage 1.
        score: (M,) probability that the object is there: the lower of both stages.
        visibility: (M, N) of stage 2.
        attributes: (M, A) of stage 2 (rotation in the plane is that seen by stage 1).
        seconds: time of ``stage1`` and ``stage2``, crops included.
    """

    keypoints: Array
    prior_keypoints: Array
    stage1_keypoints: Array
    stage1_prior_keypoints: Array
    score: Array
    visibility: Array
    attributes: Array
    seconds: dict[str, float]


class Cascade:
    """Both stages over two backends that are made, used and closed in one thread."""

    def __init__(self, spec: ModelSpec, stage1: Backend, stage2: Backend) -> None:
        self.spec = spec
        self.stage1 = stage1
        self.stage2 = stage2
        self._mean_shape = spec.mean_shape.astype(np.float64)
        # The aligned crop of stage 2 is upright by construction: only stage 1 sees the turn of the object.
        self._from_stage1 = [i for i, name in enumerate(spec.attributes) if name == "rotation_in_plane"]

    def __call__(self, image: Array, boxes: Sequence[Array] | Array) -> CascadeResult:
        """
        Args:
            image: uint8 BGR (H, W, 3).
            boxes: M boxes ``[x0, y0, x1, y1]``, tight around the object's keypoints, frame pixels.

        Raises:
            ValueError: an empty or non-finite box.
        """
        start = time.perf_counter()
        size1, size2 = self.spec.sizes
        first_crops = [square_crop(box, size1, self.spec.scale) for box in boxes]
        if not first_crops:
            return self._nothing()
        first = _run(self.stage1, image, first_crops)
        first_keypoints = _to_frame(first_crops, first["keypoints"])
        middle = time.perf_counter()
        second_crops = [aligned_crop(points, self._mean_shape, size2) for points in first_keypoints]
        second = _run(self.stage2, image, second_crops)
        attributes = second["attributes"].copy()
        attributes[:, self._from_stage1] = first["attributes"][:, self._from_stage1]
        return CascadeResult(
            keypoints=_to_frame(second_crops, second["keypoints"]),
            prior_keypoints=_to_frame(second_crops, second["prior_keypoints"]),
            stage1_keypoints=first_keypoints,
            stage1_prior_keypoints=_to_frame(first_crops, first["prior_keypoints"]),
            score=np.minimum(first["score"], second["score"]),
            visibility=second["visibility"],
            attributes=attributes,
            seconds={"stage1": middle - start, "stage2": time.perf_counter() - middle},
        )

    def _nothing(self) -> CascadeResult:
        n = len(self.spec.schema)
        points = np.zeros((0, n, 2), np.float32)
        return CascadeResult(
            points,
            points,
            points,
            points,
            np.zeros(0, np.float32),
            np.zeros((0, n), np.float32),
            np.zeros((0, len(self.spec.attributes)), np.float32),
            {"stage1": 0.0, "stage2": 0.0},
        )

    def close(self) -> None:
        self.stage1.close()
        self.stage2.close()


def _run(backend: Backend, image: Array, crops: Sequence[Crop]) -> dict[str, Array]:
    out = backend.run(np.stack([crop.extract(image) for crop in crops]))
    if not (np.isfinite(out["keypoints"]).all() and np.isfinite(out["score"]).all()):
        raise BackendError(f"{backend.name} gave values that are not finite; export the model again")
    return out


def _to_frame(crops: Sequence[Crop], points: Array) -> Array:
    return np.stack([crop.to_frame(p) for crop, p in zip(crops, points, strict=True)]).astype(np.float32)
