"""Where objects are in a frame: tight keypoint boxes, before any keypoint is known."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import cv2
import numpy as np

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError
from edge_kp.geometry import Crop, box_iou, solid_boxes
from edge_kp.look_rules import LookRules
from edge_kp.types import Array

MOST = 300  # cells that are looked at; a crowd of 30 faces lights fewer
DOUBLE = 0.4  # IoU from which the less likely of two boxes shows the same object
SURER = LookRules().doubted  # score of the stages that leaves little doubt
DOUBTED = 0.45  # of the threshold: boxes down to that are looked at as well
MOST_TILES = 8  # along the longer side of a frame
SHARED = 0.25  # of a tile's side, that its neighbour has too: an object up to about that size is whole in one
CUT = 1 / 64  # of a tile's side: a box that ends nearer to its edge may be of an object that the edge cuts


class Located(NamedTuple):
    """Where objects may be in a frame, largest first.

    Attributes:
        boxes: (M, 4) float32 ``[x0, y0, x1, y1]``, frame pixels.
        least: (M,) float32 score that the stages must give to what lies in a box for it to count; 0 where the
            locator itself is sure, and the model's own threshold is enough.
    """

    boxes: Array
    least: Array


class Locator(ABC):
    """Finds boxes in a whole frame; as safe to call from several threads as its backend is."""

    @abstractmethod
    def __call__(self, image: Array, turn: int = 0) -> Located:
        """Where objects may be in a frame.

        Args:
            image: uint8 BGR (H, W, 3).
            turn: look at the frame turned by so many quarter turns, clockwise as one sees it; boxes are those
                of the frame as it is.
        """

    def close(self) -> None:  # noqa: B027 - the whole frame holds nothing
        """Free what the locator holds; it cannot search again."""


class ImageLocator(Locator):
    """The whole frame is the object's box, e.g. an X-ray of one skull."""

    def __call__(self, image: Array, turn: int = 0) -> Located:
        height, width = image.shape[:2]
        box = np.array([[-0.5, -0.5, width - 0.5, height - 0.5]], np.float32)
        return Located(box, np.zeros(1, np.float32))


class NetworkLocator(Locator):
    """The trained locator: one look at the frame, shrunk into a square, and where asked at parts of it.

    Args:
        backend: outputs ``boxes`` (B, M, 4) in coordinates of the square, [0, 1], and ``score`` (B, M).
        size: side of the square in pixels.
        threshold: score below which a box is dropped.
        tiles: from 2 on, so many overlapping squares along the frame's longer side are searched after the
            whole frame, for objects that are too small in it; no more than show all of its pixels.
        doubted: score that the stages must give to what lies in an unlikelier box; from 1 on there are none.
    """

    def __init__(
        self, backend: Backend, size: int, threshold: float, tiles: int = 1, doubted: float = SURER
    ) -> None:
        self.backend = backend
        self.size = size
        self.threshold = threshold
        self.tiles = tiles
        self.doubted = doubted

    def __call__(self, image: Array, turn: int = 0) -> Located:
        """Boxes that reach the threshold, and others of which the stages must be surer: unlikelier ones,
        covered, blurred or small objects among them, and those in parts of the frame, where more looks like
        one."""
        lowest = self.threshold * (DOUBTED if self.doubted < 1 else 1)
        boxes, score, in_part = self._search(_turned(image, turn), lowest)
        boxes = turned_back(boxes, turn, image.shape[1], image.shape[0])
        largest = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")
        # More looks like an object in parts of the frame; how much more, the rule was not measured by.
        least = np.where(in_part, min(self.doubted, SURER), 0.0)
        least = np.where(score < self.threshold, self.doubted, least)
        return Located(boxes[largest], least[largest].astype(np.float32))

    def search(self, image: Array) -> tuple[Array, Array]:
        """Boxes (M, 4) float32 in frame pixels that reach the threshold, and scores (M,), likeliest first.

        Raises:
            BackendError: the network gave something else.
        """
        boxes, score, _ = self._search(image, self.threshold)
        return boxes, score

    def _search(self, image: Array, threshold: float) -> tuple[Array, Array, Array]:
        """Boxes, scores, and which were seen in a part of the frame."""
        height, width = image.shape[:2]
        views = [View(0, 0, width, height)]
        if self.tiles > 1:
            views += tile(width, height, self.tiles, self.size)
        squares, crops = zip(*(fit_square(view.of(image), self.size) for view in views), strict=True)
        out = self.backend.run(np.stack(squares))
        looks = zip(views, crops, out["boxes"], out["score"], strict=True)
        found = [_whole_boxes(threshold, width, height, *look) for look in looks]
        boxes, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
        whole, sure = found[0]
        in_part = np.arange(len(score)) >= len(sure)
        for box in whole[sure >= self.threshold]:  # the whole frame shows these as well
            in_part &= [box_iou(box, other) <= DOUBLE for other in boxes]
        likely = np.argsort(-score, kind="stable")[:MOST]
        kept = likely[suppress(boxes[likely])]
        return boxes[kept], score[kept], in_part[kept]

    def close(self) -> None:
        self.backend.close()


def _whole_boxes(
    threshold: float, width: int, height: int, view: View, crop: Crop, boxes: Array, score: Array
) -> tuple[Array, Array]:
    """What the network gave for a view of a frame: boxes that the view does not cut, and their scores."""
    likely = np.flatnonzero(score >= threshold)
    likely = likely[np.argsort(-score[likely], kind="stable")][:MOST]
    found = boxes[likely]
    finite = np.isfinite(score).all() and np.isfinite(found).all()
    if not (finite and (found[:, :2] < found[:, 2:]).all()):
        raise BackendError("the locator gave a score or a box that is none; export the model again")
    in_frame = (crop.to_frame(found.reshape(-1, 2, 2)) + np.array([view.x, view.y])).reshape(-1, 4)
    kept = view.holds(in_frame, width, height)
    return in_frame[kept].astype(np.float32), score[likely][kept]


class View(NamedTuple):
    """A part of a frame: its first pixel, and its size in pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: Array) -> Array:
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def holds(self, boxes: Array, width: int, height: int) -> Array:
        """Which boxes (M, 4) of a frame of that size keep away from the view's edges, where these are not the
        frame's, and so show whole objects."""
        margin = CUT * max(self.width, self.height)
        ends = (self.x + self.width, width), (self.y + self.height, height)
        low = [start - 0.5 + margin if start > 0 else -np.inf for start in (self.x, self.y)]
        high = [end - 0.5 - margin if end < last else np.inf for end, last in ends]
        return np.asarray((boxes[:, :2] > low).all(1) & (boxes[:, 2:] < high).all(1))


def tile(width: int, height: int, count: int, least: int) -> list[View]:
    """Squares that cover a frame, ``count`` along its longer side, neighbours sharing :data:`SHARED` or more.

    They are squares because the network sees one: tiles of the frame's proportions would show no more detail.
    Nor would tiles below ``least``, the side of the network's input in pixels: where so many would be smaller
    there are fewer, and none where the network sees every pixel of the frame as it is.
    """
    longer = max(width, height)
    side = max(least, math.ceil(longer / (count - (count - 1) * SHARED)))
    if side >= longer:
        return []

    def starts(length: int) -> list[int]:
        number = 1 if length <= side else math.ceil((length - SHARED * side) / ((1 - SHARED) * side))
        return [round(start) for start in np.linspace(0, max(0, length - side), number)]

    return [View(x, y, min(side, width), min(side, height)) for y in starts(height) for x in starts(width)]


def _turned(image: Array, turn: int) -> Array:
    # Four of these are the frame itself, which need not be copied.
    return np.ascontiguousarray(np.rot90(image, -turn)) if turn % 4 else image


def turned_back(boxes: Array, turn: int, width: int, height: int) -> Array:
    """Boxes (M, 4) of a frame that was turned clockwise by so many quarter turns → those of the frame itself,
    ``width`` × ``height`` pixels."""
    for left in range(turn % 4, 0, -1):
        last = (height if left % 2 else width) - 1
        boxes = np.column_stack([boxes[:, 1], last - boxes[:, 2], boxes[:, 3], last - boxes[:, 0]])
    return boxes


def fit_square(image: Array, size: int) -> tuple[Array, Crop]:
    """The whole frame inside a square (size, size, 3), black below or beside it, and where it came from."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((size, size, 3), np.uint8)
    # Down to half the size, four pixels for each are enough; OpenCV's means of areas take far longer there.
    how = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR
    square[:h, :w] = cv2.resize(image, (w, h), interpolation=how)
    # OpenCV's resize takes (x + 0.5) / width to (x' + 0.5) / w.
    kx, ky = w / width / size, h / height / size
    return square, Crop(np.array([[kx, 0, 0.5 * kx], [0, ky, 0.5 * ky]]), size)


def suppress(boxes: Array) -> list[int]:
    """Which of the (M, 4) boxes, likeliest first, show an object that no earlier one shows."""
    kept: list[int] = []
    boxes = solid_boxes(boxes)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i, box in enumerate(boxes):
        others = boxes[kept]
        w = np.minimum(others[:, 2], box[2]) - np.maximum(others[:, 0], box[0])
        h = np.minimum(others[:, 3], box[3]) - np.maximum(others[:, 1], box[1])
        common = np.maximum(w, 0) * np.maximum(h, 0)
        if not (common > DOUBLE * (area[kept] + area[i] - common)).any():
            kept.append(i)
    return kept
