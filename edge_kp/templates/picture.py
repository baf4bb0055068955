"""Pictures of a template bank, to judge it by eye."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_kp.templates import TemplateBank
from edge_kp.types import Array

_CELL, _CAPTION = 150, 20  # pixels
_INK, _FAINT, _PAPER = (60, 40, 20), (205, 205, 205), (255, 255, 255)  # BGR


def draw_shape(image: Array, bank: TemplateBank, shape: Array, colour: tuple[int, int, int]) -> None:
    """Draw an (N, 2) shape in crop coordinates over a square image, in place: edges and points."""
    points = np.round((shape * len(image) - 0.5) * 16).astype(int).tolist()  # 4 bits below the pixel
    for a, b in bank.schema.edges:
        cv2.line(image, points[a], points[b], colour, 1, cv2.LINE_AA, 4)
    for point in points:
        cv2.circle(image, point, len(image) // 9, colour, -1, cv2.LINE_AA, 4)


def draw_mean_shape(bank: TemplateBank, size: int = 480) -> Array:
    """uint8 (size, size, 3) BGR: the mean shape over all templates in grey."""
    image = np.full((size, size, 3), _PAPER, np.uint8)
    for template in bank.templates:
        draw_shape(image, bank, template, _FAINT)
    draw_shape(image, bank, bank.mean_shape, _INK)
    return image


def draw_bank(bank: TemplateBank, shares: Array) -> Array:
    """uint8 BGR grid of all templates, each over the mean shape in grey, with the share of data it serves.

    Args:
        shares: (K,) fractions of the data.

    Raises:
        ValueError: not one share for each template.
    """
    if shares.shape != (len(bank),):
        raise ValueError(f"shares: expected shape ({len(bank)},), got {shares.shape}")
    columns = math.ceil(math.sqrt(len(bank)))
    rows = math.ceil(len(bank) / columns)
    image = np.full((rows * (_CELL + _CAPTION), columns * _CELL, 3), _PAPER, np.uint8)
    zoom = 0.4 / float(np.abs(bank.templates - 0.5).max())  # the largest leaves some room around it
    for i, (template, share) in enumerate(zip(bank.templates, shares, strict=True)):
        y, x = (i // columns) * (_CELL + _CAPTION), (i % columns) * _CELL
        cell = image[y : y + _CELL, x : x + _CELL]
        draw_shape(cell, bank, 0.5 + zoom * (bank.mean_shape - 0.5), _FAINT)
        draw_shape(cell, bank, 0.5 + zoom * (template - 0.5), _INK)
        text, where = f"{i}: {100 * share:.1f} %", (x + 8, y + _CELL + 13)
        cv2.putText(image, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return image
