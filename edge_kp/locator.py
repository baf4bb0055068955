"""Where objects are in a frame: tight keypoint boxes, before any keypoint is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np

from edge_kp.errors import ModelError
from edge_kp.types import Array


class Locator(ABC):
    """Finds boxes in a whole frame."""

    @abstractmethod
    def __call__(self, image: Array) -> list[Array]:
        """uint8 BGR (H, W, 3) → boxes (4,) float32 ``[x0, y0, x1, y1]``, frame pixels, largest first."""


class ImageLocator(Locator):
    """The whole frame is the object's box, e.g. an X-ray of one skull."""

    def __call__(self, image: Array) -> list[Array]:
        height, width = image.shape[:2]
        return [np.array([-0.5, -0.5, width - 0.5, height - 0.5], np.float32)]


class HaarFaceLocator(Locator):
    """Frontal faces by OpenCV's boosted cascade (Viola and Jones 2001; Lienhart and Maydt 2002).

    Args:
        longest_side: the frame is shrunk to this for the search, pixels; faces below about a tenth of it
            are not found.

    Raises:
        ModelError: this OpenCV carries no cascade file.
    """

    # Box of the 68 points in the square that the cascade finds: centre and size in sides of the square;
    # medians over 235 AFW and 250 HELEN faces.
    CENTRE = np.array([0.50, 0.64], np.float32)
    SIZE = np.array([0.85, 0.83], np.float32)

    def __init__(self, longest_side: int = 400) -> None:
        self.longest_side = longest_side
        folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
        path = Path(folder) / "haarcascade_frontalface_default.xml"
        if not path.is_file():
            raise ModelError(f"{path}: no such cascade; install opencv-python>=4.10,<5")
        self._cascade = cv2.CascadeClassifier(str(path))

    def __call__(self, image: Array) -> list[Array]:
        height, width = image.shape[:2]
        shrink = min(1.0, self.longest_side / max(height, width))
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        if shrink < 1:
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        least = max(20, min(grey.shape) // 12)
        found = self._cascade.detectMultiScale(grey, 1.1, 3, minSize=(least, least))
        boxes = []
        for x, y, side, _ in sorted((tuple(map(float, f)) for f in found), key=lambda f: -f[2]):
            centre = (np.array([x, y]) + self.CENTRE * side) / shrink - 0.5
            half = self.SIZE * side / shrink / 2
            boxes.append(np.concatenate([centre - half, centre + half]).astype(np.float32))
        return boxes


def make_locator(kind: str) -> Locator:
    """The locator that ``model.json`` names."""
    return HaarFaceLocator() if kind == "haar-face" else ImageLocator()
