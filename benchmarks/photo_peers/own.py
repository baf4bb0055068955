"""edge_kp as a system of ``benchmarks.peer_photos``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from benchmarks.photo_peers.base import Array, not_installed
from edge_kp import Detector
from edge_kp.errors import BackendError, EdgeKpError


class EdgeKp:
    """Both stages of a model; boxes go in as they are.

    Args:
        way: ``BACKEND:PRECISION``.
    """

    def __init__(self, name: str, model: str, way: str) -> None:
        backend, _, precision = way.partition(":")
        try:
            # One graph of both stages would leave no network of its own to time; on a CPU it is slower.
            detector = Detector(model, backend=backend, precision=precision, cascade="staged", threads=1)
        except BackendError as error:
            not_installed(str(error))
        except EdgeKpError as error:
            sys.exit(str(error))
        if len(detector.schema) != 68:
            sys.exit(f"{detector.model_name}: has {len(detector.schema)} points; the 68 of a face needed")
        self.name = name
        self.about = f"{detector.model_name} {detector.precision} on {detector.backend_name}"
        self.packages: tuple[str, ...] = ("edge-kp", detector.backend_name, "numpy")
        self.network: Callable[[], object] | None = self._networks
        self._detector = detector
        rng = np.random.default_rng(0)
        cascade = detector.cascade
        self._inputs = [
            (stage, rng.integers(0, 256, (1, size, size, 3), np.uint8))
            for stage, size in zip((cascade.stage1, cascade.stage2), cascade.spec.sizes, strict=True)
        ]

    def points(self, image: Array, box: Array) -> Array:
        (found,) = self._detector.detect(image, boxes=[box])
        return found.keypoints

    def _networks(self) -> None:
        for stage, image in self._inputs:
            stage.run(image)
