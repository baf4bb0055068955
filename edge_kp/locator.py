"""Where objects are in a frame: tight keypoint boxes, before any keypoint is known."""

from __future__ import annotations

from abc import ABC, abstractmethod

import cv2
import numpy as np

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError
from edge_kp.geometry import Crop
from edge_kp.types import Array

MOST = 300  # cells that are looked at; a crowd of 30 faces lights fewer
DOUBLE = 0.4  # IoU from which the less likely of two boxes shows the same object


class Locator(ABC):
    """Finds boxes in a whole frame. Used and closed in the thread that made it."""

    @abstractmethod
    def __call__(self, image: Array) -> list[Array]:
        """uint8 BGR (H, W, 3) → boxes (4,) float32 ``[x0, y0, x1, y1]``, frame pixels, largest first."""

    def close(self) -> None:  # noqa: B027 - the whole frame holds nothing
        """Free what the locator holds; it cannot search again."""


class ImageLocator(Locator):
    """The whole frame is the object's box, e.g. an X-ray of one skull."""

    def __call__(self, image: Array) -> list[Array]:
        height, width = image.shape[:2]
        return [np.array([-0.5, -0.5, width - 0.5, height - 0.5], np.float32)]


class NetworkLocator(Locator):
    """The trained locator: one look at the frame, shrunk into a square.

    Args:
        backend: outputs ``boxes`` (B, M, 4) in coordinates of the square, [0, 1], and ``score`` (B, M).
        size: side of the square in pixels.
        threshold: score below which a box is dropped.
    """

    def __init__(self, backend: Backend, size: int, threshold: float) -> None:
        self.backend = backend
        self.size = size
        self.threshold = threshold

    def __call__(self, image: Array) -> list[Array]:
        boxes, _ = self.search(image)
        return sorted(boxes, key=lambda box: -float((box[2] - box[0]) * (box[3] - box[1])))

    def search(self, image: Array) -> tuple[Array, Array]:
        """Boxes (M, 4) float32 in frame pixels and scores (M,), likeliest first.

        Raises:
            BackendError: the network gave something else.
        """
        square, crop = fit_square(image, self.size)
        out = self.backend.run(square[None])
        score = out["score"][0]
        likely = np.flatnonzero(score >= self.threshold)
        likely = likely[np.argsort(-score[likely], kind="stable")][:MOST]
        found = out["boxes"][0][likely]
        finite = np.isfinite(score).all() and np.isfinite(found).all()
        if not (finite and (found[:, :2] < found[:, 2:]).all()):
            raise BackendError("the locator gave a score or a box that is none; export the model again")
        boxes = crop.to_frame(found.reshape(-1, 2, 2)).reshape(-1, 4).astype(np.float32)
        kept = suppress(boxes)
        return boxes[kept], score[likely][kept]

    def close(self) -> None:
        self.backend.close()


def fit_square(image: Array, size: int) -> tuple[Array, Crop]:
    """The whole frame inside a square (size, size, 3), black below or beside it, and where it came from."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((size, size, 3), np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square[:h, :w] = cv2.resize(image, (w, h), interpolation=how)
    # OpenCV's resize takes (x + 0.5) / width to (x' + 0.5) / w.
    kx, ky = w / width / size, h / height / size
    return square, Crop(np.array([[kx, 0, 0.5 * kx], [0, ky, 0.5 * ky]]), size)


def suppress(boxes: Array) -> list[int]:
    """Which of the (M, 4) boxes, likeliest first, show an object that no earlier one shows."""
    kept: list[int] = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i, box in enumerate(boxes):
        others = boxes[kept]
        w = np.minimum(others[:, 2], box[2]) - np.maximum(others[:, 0], box[0])
        h = np.minimum(others[:, 3], box[3]) - np.maximum(others[:, 1], box[1])
        common = np.maximum(w, 0) * np.maximum(h, 0)
        if not (common > DOUBLE * (area[kept] + area[i] - common)).any():
            kept.append(i)
    return kept
