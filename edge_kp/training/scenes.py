"""Training pictures of the locator: photos and mosaics of photos, with the boxes of the objects in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edge_kp.geometry import Crop, box_area, similarity, tight_box, widened_box
from edge_kp.training.augment import Augmentation, random_colour, random_cover
from edge_kp.training.photos import Photo
from edge_kp.training.textures import random_texture
from edge_kp.types import Array

STRIDE = 8  # pixels of the picture per cell of the locator's map
SMALLEST = 7.0  # longer side of a box, below which an object is neither taught nor denied, pixels
LEAST_SEEN = 0.6  # share of a box inside its tile, below which the same holds
SPREAD = 0.1  # standard deviation of the heat around an object's middle, in sides of its box

# Tiles a side of a mosaic, and how often; 1 is a single photo.
_GRIDS = ((1, 0.40), (2, 0.25), (3, 0.12), (4, 0.10), (6, 0.08), (8, 0.05))
_BACKGROUND = 0.2  # share of tiles without an object
_DRAWN = 0.4  # share of those that are drawn, not part of a photo
_EMPTY = 0.15  # share of pictures of such tiles only
_LOWEST, _HIGHEST = 8.0, 0.95  # longer side of a shown object: pixels, and sides of its tile


@dataclass(eq=False)
class _Labels:
    """What a picture shows: boxes (4,) in its pixels, and where nothing may be taught.

    Attributes:
        boxes: objects to find.
        unknown: boxes of objects that are too small or cut off.
        unlabelled: tiles of photos whose objects are not all labelled.
    """

    boxes: list[Array]
    unknown: list[Array]
    unlabelled: list[Array]


@dataclass(eq=False)
class _Tile:
    """A square view of a photo: image, keypoints of its objects and of what may be one, in its pixels.

    Attributes:
        complete: are all objects among them?
    """

    image: Array
    objects: list[Array]
    unknown: list[Array]
    complete: bool


class SceneDataset:
    """Map-style data set of pictures; each depends on ``(seed, epoch, index)`` alone.

    Args:
        least: pictures an epoch at least: each is new, however few the photos.

    An item: ``image`` uint8 (S, S, 3); on the map of G = S / 8 cells a side ``heat`` (G, G), 1 in the cell
    of an object's middle and falling around it, ``taught`` (G, G) 0 where nothing may be taught, ``box``
    (G, G, 4) the box of the nearest object in pixels, ``share`` (G, G) its weight there.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        size: int,
        seed: int,
        augmentation: Augmentation,
        mirror: bool,
        least: int = 0,
    ) -> None:
        self.photos = photos
        self.size = size
        self.seed = seed
        self.augmentation = augmentation
        self.mirror = mirror
        index = np.repeat(np.arange(len(photos)), [photo.repeat for photo in photos])
        self.index = np.tile(index, max(1, -(-least // len(index))))
        self.complete = [i for i, photo in enumerate(photos) if photo.complete]
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> dict[str, Any]:
        image, labels = self.picture(at)
        return {"image": image, **targets(labels, self.size)}

    def picture(self, at: int) -> tuple[Array, _Labels]:
        rng = np.random.default_rng([self.seed, self.epoch, at])
        grid = int(rng.choice([n for n, _ in _GRIDS], p=[p for _, p in _GRIDS]))
        side = -(-self.size // grid)
        empty = rng.random() < _EMPTY
        # Tiles start outside of the picture, so that their borders may lie anywhere in it.
        start = rng.integers(0, side, 2) if grid > 1 else np.zeros(2, int)
        image = np.zeros((self.size, self.size, 3), np.uint8)
        labels = _Labels([], [], [])
        first = True
        for y in range(-int(start[1]), self.size, side):
            for x in range(-int(start[0]), self.size, side):
                photo = self.photos[self.index[at if first else rng.integers(len(self.index))]]
                tile = self._tile(photo, side, empty or rng.random() < _BACKGROUND, rng)
                self._place(image, labels, tile, x, y)
                first = False
        return random_colour(image, rng, self.augmentation.colour), labels

    def _place(self, image: Array, labels: _Labels, view: _Tile, x: int, y: int) -> None:
        """Put a tile with its upper left corner at (x, y)."""
        tile = view.image
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + len(tile), self.size), min(y + len(tile), self.size)
        image[y0:y1, x0:x1] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        shown = np.array([x0, y0, x1, y1]) - 0.5
        at = np.array([x, y, x, y], np.float64)
        for points in view.unknown:
            box = tight_box(points) + at
            if _share_inside(box, shown) > 0:
                labels.unknown.append(_clipped(box, shown))
        for points in view.objects:
            box = tight_box(points) + at
            seen = _share_inside(box, shown)
            if seen <= 0:
                continue
            large_enough = max(box[2] - box[0], box[3] - box[1]) >= SMALLEST
            if seen >= LEAST_SEEN and large_enough:
                labels.boxes.append(box)
            else:
                labels.unknown.append(_clipped(box, shown))
        if not view.complete:
            labels.unlabelled.append(shown)

    def _tile(self, photo: Photo, side: int, background: bool, rng: np.random.Generator) -> _Tile:
        """A square view of a photo, with one of its objects in it or without any."""
        if background:
            return _Tile(self._background(side, rng), [], [], True)
        points = photo.objects[rng.integers(len(photo.objects))]
        box = tight_box(points)
        extent = max(float(max(box[2] - box[0], box[3] - box[1])), 1.0)
        height, width = photo.levels[0].shape[:2]
        # At its smallest the photo still fills most of the tile; at its largest it is twice enlarged.
        low = max(_LOWEST, 0.7 * side * extent / max(height, width))
        high = max(low, min(_HIGHEST * side, 2 * extent))
        wanted = math.exp(rng.uniform(math.log(low), math.log(high)))
        angle = math.radians(self.augmentation.turn) * rng.triangular(-1, 0, 1)
        scale = wanted / extent
        turn = similarity(angle, scale)
        if self.mirror and rng.random() < 0.5:
            turn[:, 0] *= -1
        middle = (box[:2] + box[2:]) / 2
        # Objects stand anywhere, but not where most of them would be cut off.
        margin = min(0.4 * wanted, 0.5 * side)
        turn[:, 2] = rng.uniform(margin, side - margin, 2) - turn[:, :2] @ middle
        image, to_tile = _view(photo, turn, side, rng)
        objects, unknown = (
            [to_tile.to_crop(keypoints) * side - 0.5 for keypoints in shapes]
            for shapes in (photo.objects, [_corners(box) for box in photo.unlabelled])
        )
        if len(objects) == 1 and rng.random() < self.augmentation.cover * 0.6:
            image = self._covered(image, objects[0], rng)
        return _Tile(image, objects, unknown, photo.complete)

    def _covered(self, image: Array, points: Array, rng: np.random.Generator) -> Array:
        other = self.photos[int(rng.integers(len(self.photos)))]
        texture = other.levels[min(1, len(other.levels) - 1)] if rng.random() < 0.5 else None
        crop_points = (points + 0.5) / len(image)
        return random_cover(image, crop_points, rng, self.augmentation.cover_share, texture)[0]

    def _background(self, side: int, rng: np.random.Generator) -> Array:
        """A part of a photo without its objects, or a drawn surface."""
        if rng.random() < _DRAWN:
            return random_texture(side, rng)
        for _ in range(20 if self.complete else 0):
            photo = self.photos[self.complete[rng.integers(len(self.complete))]]
            height, width = photo.levels[0].shape[:2]
            extent = rng.uniform(0.12, 0.6) * min(height, width)
            if extent < 16:
                continue
            x, y = rng.uniform(0, width - extent), rng.uniform(0, height - extent)
            part = np.array([x, y, x + extent, y + extent])
            boxes = [*(tight_box(points) for points in photo.objects), *photo.unlabelled]
            if all(_share_inside(part, b) < 0.02 and _share_inside(b, part) < 0.1 for b in boxes):
                scale = side / extent
                turn = similarity(0, scale, (-x * scale, -y * scale))
                if rng.random() < 0.5:
                    turn[0] = -turn[0] + np.array([0, 0, side - 1])
                return _view(photo, turn, side, rng)[0]
        return random_texture(side, rng)


def _corners(box: Array) -> Array:
    return np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]], np.float64)


def _view(photo: Photo, to_tile: Array, side: int, rng: np.random.Generator) -> tuple[Array, Crop]:
    """The photo under a (2, 3) transform to tile pixels, and the crop that maps its points."""
    scale = math.sqrt(abs(float(np.linalg.det(to_tile[:, :2]))))
    level = min(len(photo.levels) - 1, max(0, int(-math.log2(max(scale, 1e-6)))))
    small = photo.levels[level]
    ratio = np.array([small.shape[1], small.shape[0]]) / np.array(photo.levels[0].shape[1::-1])
    matrix = to_tile.copy()
    matrix[:, 2] += 0.5
    crop = Crop(matrix / side, side)
    # x of the small picture is (x + 0.5) * ratio - 0.5 of the large one.
    at_level = crop.matrix.copy()
    at_level[:, :2] = crop.matrix[:, :2] / ratio
    at_level[:, 2] = crop.matrix[:, 2] + at_level[:, :2] @ (0.5 - 0.5 * ratio)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    return Crop(at_level, side).extract(small, border), crop


def _share_inside(box: Array, area: Array) -> float:
    """Share of a box (4,) that lies inside of another; a line counts as a pixel wide."""
    box, area = widened_box(box), widened_box(area)
    w = min(box[2], area[2]) - max(box[0], area[0])
    h = min(box[3], area[3]) - max(box[1], area[1])
    return max(float(w), 0.0) * max(float(h), 0.0) / box_area(box)


def _clipped(box: Array, area: Array) -> Array:
    """The part of a box (4,) that lies inside of another; they overlap."""
    return np.concatenate([np.maximum(box[:2], area[:2]), np.minimum(box[2:], area[2:])])


def targets(labels: _Labels, size: int) -> dict[str, Array]:
    """Maps of a picture's labels, see :class:`SceneDataset`."""
    cells = size // STRIDE
    centres = (np.arange(cells) + 0.5) * STRIDE - 0.5
    x, y = centres[None, :], centres[:, None]
    heat = np.zeros((cells, cells), np.float32)
    box_map = np.zeros((cells, cells, 4), np.float32)
    taught = np.ones((cells, cells), np.float32)

    def within(box: Array) -> Array:
        return np.asarray((x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3]))

    for area in (*labels.unlabelled, *labels.unknown):
        taught[within(area)] = 0
    for box in labels.boxes:
        middle = (box[:2] + box[2:]) / 2
        spread = np.maximum(SPREAD * (box[2:] - box[:2]), 0.45 * STRIDE)
        own = np.exp(
            -((x - middle[0]) ** 2) / (2 * spread[0] ** 2) - (y - middle[1]) ** 2 / (2 * spread[1] ** 2)
        )
        column, row = np.clip(((middle + 0.5) // STRIDE).astype(int), 0, cells - 1)
        own[row, column] = 1.0
        nearer = own > heat
        heat[nearer] = own[nearer]
        box_map[nearer] = box
        taught[within(box) | (own > 0.05)] = 1
    share = np.where(heat > 0.3, heat, 0).astype(np.float32)
    return {"heat": heat, "taught": taught, "box": box_map, "share": share}
