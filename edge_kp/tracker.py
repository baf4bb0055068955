"""Objects over the frames of a clip: ids that stay, boxes from the last keypoints, a locator when needed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_kp.detector import Detector, check_image
from edge_kp.geometry import box_iou
from edge_kp.types import Array, Detection

SAME_OBJECT = 0.3  # IoU of a located box and a tracked one, above which they show the same object
DOUBLE = 0.6  # IoU of two tracks, above which the younger one is dropped
DRIFT = 0.03  # sides that a lost object may move in a frame


@dataclass
class _Lost:
    id: int
    box: Array
    frame: int


class EachFrame:
    """Detects in every frame on its own, for photos that have nothing to do with each other.

    Attributes:
        last_timings: seconds of ``locate``, ``stage1`` and ``stage2`` in the last update.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.last_timings: dict[str, float] = {}

    def update(self, image: Array) -> list[Detection]:
        """Objects of a frame, uint8 BGR (H, W, 3), numbered from 0."""
        found = self.detector.detect(image)
        self.last_timings = self.detector.last_seconds
        return found


class Tracker:
    """Follows the objects of one video. Use it in the detector's thread.

    Args:
        max_objects: at most so many at once.
        locate_every: while fewer objects are followed than ``max_objects``, look for newcomers in every
            so-manieth frame; with none in sight, in every frame.
        remember: frames for which a lost object's id waits for it to come back near its last place.

    Attributes:
        last_timings: seconds of ``locate``, ``stage1`` and ``stage2`` in the last update.
    """

    def __init__(
        self, detector: Detector, max_objects: int = 8, locate_every: int = 15, remember: int = 50
    ) -> None:
        self.detector = detector
        self.max_objects = max_objects
        self.locate_every = locate_every
        self.remember = remember
        self.last_timings: dict[str, float] = {}
        self._objects: list[Detection] = []
        self._lost: list[_Lost] = []
        self._next_id = 1
        self._frame = -1
        self._shape: tuple[int, ...] = ()

    def update(self, image: Array) -> list[Detection]:
        """Objects of the next frame, uint8 BGR (H, W, 3); oldest first.

        Raises:
            ValueError: an image of another form.
        """
        check_image(image)
        if image.shape != self._shape:
            # Another photo, or a camera that changed its mode: nothing carries over.
            self._shape, self._objects, self._lost = image.shape, [], []
        self._frame += 1
        self.last_timings = {"locate": 0.0, "stage1": 0.0, "stage2": 0.0}
        if self.detector.spec.box_rule == "image":
            self._objects = self._follow(image, [(1, self.detector.locator(image)[0])])
            return list(self._objects)
        self._lost = [lost for lost in self._lost if self._frame - lost.frame <= self.remember]
        before = self._objects
        self._objects = _distinct(self._follow(image, [(o.id, o.box) for o in before]))
        self._remember_lost(before)
        due = self._frame % self.locate_every == 0 and len(self._objects) < self.max_objects
        if due or not self._objects:
            self._objects += self._newcomers(image)
            self._objects.sort(key=lambda o: o.id)
        return list(self._objects)

    def _follow(self, image: Array, wanted: list[tuple[int, Array]]) -> list[Detection]:
        """Run the cascade on boxes and keep what is present."""
        result = self.detector.cascade(image, [box for _, box in wanted])
        for stage, seconds in result.seconds.items():
            self.last_timings[stage] += seconds
        return [self.detector.detection(result, i, wanted[i][0]) for i in self.detector.present(result)]

    def _newcomers(self, image: Array) -> list[Detection]:
        start = time.perf_counter()
        boxes = self.detector.locator(image)
        self.last_timings["locate"] = time.perf_counter() - start
        new = [b for b in boxes if all(box_iou(b, o.box) < SAME_OBJECT for o in self._objects)]
        new = new[: self.max_objects - len(self._objects)]
        # A sloppy box can lead to an object that is followed already; it must not take an id.
        found = _distinct(self._follow(image, [(-1, box) for box in new]), self._objects)
        return [self._with_id(detection) for detection in found]

    def _with_id(self, found: Detection) -> Detection:
        """The id of a lost object that was last seen here, or a new one."""
        back = min(self._lost, key=lambda lost: self._reach(lost, found.box), default=None)
        if back is not None and self._reach(back, found.box) < 1:
            self._lost.remove(back)
            number = back.id
        else:
            number = self._next_id
            self._next_id += 1
        return Detection(number, found.box, found.score, found.keypoints, found.visibility, found.attributes)

    def _reach(self, lost: _Lost, box: Array) -> float:
        """How far a box lies from a lost object's last one, below 1 where it can be the same object.

        An object may have moved on unseen: half its side at once, and ``DRIFT`` sides more each frame.
        """
        side = max(lost.box[2] - lost.box[0], lost.box[3] - lost.box[1], box[2] - box[0], box[3] - box[1])
        moved = np.hypot(*((box[:2] + box[2:]) / 2 - (lost.box[:2] + lost.box[2:]) / 2)) / side
        return float(moved / (0.5 + DRIFT * (self._frame - lost.frame)))

    def _remember_lost(self, before: list[Detection]) -> None:
        held = {o.id for o in self._objects}
        self._lost += [_Lost(o.id, o.box, self._frame) for o in before if o.id not in held]


def _distinct(candidates: Iterable[Detection], others: Sequence[Detection] = ()) -> list[Detection]:
    """The candidates that show neither one of ``others`` nor an earlier candidate."""
    kept: list[Detection] = []
    for candidate in candidates:
        if all(box_iou(candidate.box, other.box) < DOUBLE for other in (*others, *kept)):
            kept.append(candidate)
    return kept
