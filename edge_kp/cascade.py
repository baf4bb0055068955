"""Stage 1 on the box, an aligned crop from its keypoints, stage 2 for the result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_kp.backends.base import Backend
from edge_kp.cascade_result import CascadeResult, empty_result, joined
from edge_kp.errors import BackendError
from edge_kp.geometry import Crop, ShapeAlignment, compose, invert, square_crop
from edge_kp.modeldir import ModelSpec
from edge_kp.types import Array

IN_PLANE = "rotation_in_plane"
IN_PLANE_LIMIT = math.radians(15)  # turn from which an object has that attribute
# Objects that go through a network at once: a picture of thousands of boxes must not take gigabytes.
AT_ONCE = 64
_FARTHEST = 2.0**100  # pixels; float32 ends not far beyond
_CHECKED = ("keypoints", "prior_keypoints", "score", "visibility", "attributes")


class Cascade:
    """Both stages over two backends; as safe to call from several threads as these are."""

    def __init__(self, spec: ModelSpec, stage1: Backend, stage2: Backend) -> None:
        self.spec = spec
        self.stage1 = stage1
        self.stage2 = stage2
        self.mean_shape = spec.mean_shape.astype(np.float64)
        self.alignment = ShapeAlignment(self.mean_shape)
        self._in_plane = [i for i, name in enumerate(spec.attributes) if name == IN_PLANE]

    def __call__(
        self, image: Array, boxes: Sequence[Array] | Array, turns: Sequence[int] | None = None
    ) -> CascadeResult:
        """Both stages.

        Args:
            image: uint8 BGR (H, W, 3).
            boxes: M boxes ``[x0, y0, x1, y1]``, tight around the object's keypoints, frame pixels.
            turns: by how many quarter turns, clockwise as one sees it, each object is turned before stage 1
                sees it, so that one that lies on its side stands upright there; None turns none.

        Raises:
            ValueError: an empty or non-finite box.
        """
        return self.detect_each([image] * len(boxes), boxes, turns)

    def detect_each(
        self,
        images: Sequence[Array],
        boxes: Sequence[Array] | Array,
        turns: Sequence[int] | None = None,
    ) -> CascadeResult:
        """Both stages on M objects of one or more frames, in batches of up to :data:`AT_ONCE`.

        Args:
            images: the frame of each object.
            boxes: the box of each, see :meth:`__call__`.
            turns: of each, see :meth:`__call__`.
        """
        turned = [0] * len(boxes) if turns is None else turns
        return self._in_batches(self._detect_batch, images, list(zip(boxes, turned, strict=True)))

    def _detect_batch(self, images: Sequence[Array], objects: Sequence[tuple[Array, int]]) -> CascadeResult:
        start = time.perf_counter()
        crops = _squares(objects, self.spec.sizes[0], self.spec.scale)
        first = _run(self.stage1, _extract(crops, images))
        keypoints, prior = _to_frame(crops, first["keypoints"], first["prior_keypoints"])
        return self._second(images, keypoints, prior, first["score"], start, time.perf_counter())

    def refine(self, image: Array, keypoints: Sequence[Array] | Array) -> CascadeResult:
        """Stage 2 alone, from keypoints that are nearly right, such as those of the frame before.

        Args:
            image: uint8 BGR (H, W, 3).
            keypoints: M times (N, 2), frame pixels.

        Raises:
            ValueError: the keypoints of an object coincide.
        """
        return self.refine_each([image] * len(keypoints), keypoints)

    def refine_each(self, images: Sequence[Array], keypoints: Sequence[Array] | Array) -> CascadeResult:
        """Stage 2 alone on M objects of one or more frames; ``images``: the frame of each."""
        return self._in_batches(self._refine_batch, images, keypoints)

    def _refine_batch(self, images: Sequence[Array], keypoints: Sequence[Array] | Array) -> CascadeResult:
        start = time.perf_counter()
        points = np.array(keypoints)
        return self._second(images, points, points, np.ones(len(points), np.float32), start, start)

    def _second(
        self,
        images: Sequence[Array],
        keypoints: Array,
        prior: Array,
        score: Array,
        start: float,
        middle: float,
    ) -> CascadeResult:
        crops = [Crop(self.alignment.to_shape(points), self.spec.sizes[1]) for points in keypoints]
        pictures = _extract(crops, images)
        second = _run(self.stage2, pictures)
        found, found_prior = _to_frame(crops, second["keypoints"], second["prior_keypoints"])
        return self._result(
            found,
            found_prior,
            keypoints,
            prior,
            np.minimum(score, second["score"]),
            second,
            pictures.__getitem__,
            np.array([crop.matrix for crop in crops]),
            {"stage1": middle - start, "stage2": time.perf_counter() - middle},
        )

    def _result(
        self,
        keypoints: Array,
        prior: Array,
        stage1_keypoints: Array,
        stage1_prior: Array,
        score: Array,
        second: Mapping[str, Array],
        crop: Callable[[int], Array],
        transforms: Array,
        seconds: dict[str, float],
    ) -> CascadeResult:
        """Add what is read off the keypoints: the crops they ask for, and the turn in the plane."""
        wanted = transforms.copy()
        for i, points in enumerate(keypoints):
            try:
                wanted[i] = self.alignment.to_shape(points)
            except ValueError:  # points in one place are no object, whatever the score says
                score[i] = 0.0
        attributes = second["attributes"].copy()
        for i in self._in_plane:
            attributes[:, i] = [_turned(matrix) for matrix in wanted]
        return CascadeResult(
            keypoints,
            prior,
            stage1_keypoints,
            stage1_prior,
            score,
            second["visibility"],
            attributes,
            crop,
            transforms,
            wanted,
            seconds,
        )

    def _in_batches(
        self,
        work: Callable[[Sequence[Array], Any], CascadeResult],
        images: Sequence[Array],
        objects: Sequence[Any] | Array,
    ) -> CascadeResult:
        if not len(objects):
            return empty_result(len(self.spec.schema), len(self.spec.attributes), self.spec.sizes[1])
        if len(objects) <= AT_ONCE:
            return work(images, objects)
        parts = []
        for start in range(0, len(objects), AT_ONCE):
            batch = slice(start, start + AT_ONCE)
            part = work(images[batch], objects[batch])
            # Crops are cut again when they are asked for: to keep those of all batches takes too much memory.
            parts.append(replace(part, crop=self._cutter(images[batch], part.transforms)))
        return joined(parts)

    def _cutter(self, images: Sequence[Array], transforms: Array) -> Callable[[int], Array]:
        """Number of an object → the crop of it that stage 2 sees."""
        return lambda i: Crop(transforms[i], self.spec.sizes[1]).extract(images[i])

    def close(self) -> None:
        self.stage1.close()
        self.stage2.close()


class FusedCascade(Cascade):
    """Both stages and the crop between them as one graph: one call, no crop on the host.

    Stage 2 sees the region of interest around the box instead of the frame, so results differ from
    :class:`Cascade` by what resampling twice does.

    Args:
        fused: the one-graph cascade; ``stage2`` alone serves :meth:`refine`.
    """

    def __init__(self, spec: ModelSpec, fused: Backend, stage2: Backend) -> None:
        super().__init__(spec, fused, stage2)

    def _detect_batch(self, images: Sequence[Array], objects: Sequence[tuple[Array, int]]) -> CascadeResult:
        """Both stages; the time of both is told as that of ``stage1``."""
        start = time.perf_counter()
        size = self.spec.cascade_size
        regions = _squares(objects, size, self.spec.cascade_scale)
        out = _run(self.stage1, _extract(regions, images))
        # The graph tells crop of stage 2 → region; with frame → region this gives frame → crop.
        transforms = np.stack(
            [
                compose(invert(matrix), region.matrix)
                for matrix, region in zip(out["alignment"], regions, strict=True)
            ]
        )
        names = ("keypoints", "prior_keypoints", "stage1_keypoints", "stage1_prior_keypoints")
        points = _to_frame(regions, *(out[name] for name in names))
        return self._result(
            points[0],
            points[1],
            points[2],
            points[3],
            out["score"].copy(),
            out,
            self._cutter(images, transforms),
            transforms,
            {"stage1": time.perf_counter() - start, "stage2": 0.0},
        )


def _turned(to_shape: Array) -> float:
    """1 for an object turned in the plane beyond the limit, 0 for others, a slope of some degrees between."""
    a, b = to_shape[:, 0].tolist()
    return 1 / (1 + math.exp((IN_PLANE_LIMIT - abs(math.atan2(b, a))) / math.radians(2)))


def _squares(objects: Sequence[tuple[Array, int]], size: int, scale: float) -> list[Crop]:
    """Squares around boxes, each turned by so many quarter turns."""
    return [square_crop(box, size, scale, turn * math.pi / 2) for box, turn in objects]


def _extract(crops: Sequence[Crop], images: Sequence[Array]) -> Array:
    pictures = [crop.extract(image) for crop, image in zip(crops, images, strict=True)]
    return pictures[0][None] if len(pictures) == 1 else np.stack(pictures)


def _run(backend: Backend, pictures: Array) -> dict[str, Array]:
    out = backend.run(pictures)
    # A sum is finite only where all of its parts are, and taken in a fraction of the time.
    if not math.isfinite(np.concatenate([out[name] for name in _CHECKED], axis=None).sum()):
        raise BackendError(f"{backend.name} gave values that are not finite; export the model again")
    return out


def _to_frame(crops: Sequence[Crop], *outputs: Array) -> list[Array]:
    """Each (M, N, 2) output, crop coordinates → frame pixels, float32; all in one move, which is quicker."""
    points = np.stack(outputs, axis=1)
    moved = [crop.to_frame(p) for crop, p in zip(crops, points, strict=True)]
    in_frame = moved[0][None] if len(moved) == 1 else np.stack(moved)
    if not np.vdot(in_frame, in_frame) < _FARTHEST**2:
        raise BackendError("a network gave keypoints beyond any frame; export the model again")
    in_frame = in_frame.astype(np.float32)
    return [in_frame[:, i] for i in range(len(outputs))]
