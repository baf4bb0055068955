"""Photos: the objects of every frame on its own."""

from __future__ import annotations

from edge_kp.arguments import as_count, check_image
from edge_kp.detector import Detector, check_detector
from edge_kp.looks import search_all_turns
from edge_kp.together import Steps, run_alone
from edge_kp.types import Array, Detection


class EachFrame:
    """Detects in every frame on its own, for photos that have nothing to do with each other.

    As safe to call from several threads as the detector.

    Args:
        max_objects: the largest so many of each frame; None gives all.

    Attributes:
        last_timings: seconds of ``locate``, ``stage1`` and ``stage2`` in the last update.

    Raises:
        ValueError: an argument of another kind.
    """

    def __init__(self, detector: Detector, max_objects: int | None = None) -> None:
        check_detector(detector)
        self.detector = detector
        self.max_objects = None if max_objects is None else as_count("max_objects", max_objects)
        self.last_timings: dict[str, float] = {}

    def update(self, image: Array, time_s: float | None = None) -> list[Detection]:
        """Objects of a frame, uint8 BGR (H, W, 3), numbered from 0; when it was taken does not matter."""
        return run_alone(self.detector, self.steps(image, time_s))

    def steps(self, image: Array, time_s: float | None = None) -> Steps:
        """:meth:`update` up to each call of a network, see :mod:`edge_kp.together`."""
        self.detector.refuse_if_closed()
        check_image(image)
        looks = yield from search_all_turns(self.detector, image)
        self.last_timings = looks.seconds
        found = self.detector.found(looks)[: self.max_objects]
        return [self.detector.detection(looks.result, i, number) for number, i in enumerate(found)]
