"""Are the labels of a data set pixels of its pictures?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_kp.errors import DataError
from edge_kp.training.samples import Sample

LOOKED_AT = 8  # pictures, spread over the set; fewer tell nothing
PERCENT_SIDE = 400  # pixels: where both sides are longer, labels within 100 x 100 are hardly pixels
PERCENT_SPAN = 50  # how far such labels spread along both axes, so that they are no small thing in the corner


def unit_problem(samples: Sequence[Sample]) -> str | None:
    """What is beyond doubt wrong with the unit of all labels: shares, percent, or pixels of larger pictures.

    Decodes some pictures where the data set does not tell their sizes.
    """
    points = np.concatenate([s.keypoints for s in samples])
    largest = np.nanmax(points)
    if largest <= 1:
        return (
            "all keypoints lie within a pixel of the upper left corner: are they shares of the"
            " sides? COCO tells pixels; multiply them by width and height"
        )
    chosen = list({s.picture: s for s in samples}.values())
    if len(chosen) < LOOKED_AT:
        return None
    chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, LOOKED_AT).astype(int)]
    spread = float(np.ptp(points[~np.isnan(points).any(1)], axis=0).min())
    percent = largest <= 100 and spread > PERCENT_SPAN
    if not percent and all(s.image_size for s in chosen):
        return None
    try:
        sizes = [s.image_size or _size(s) for s in chosen]
    except DataError:  # told with all others when the pictures are read
        return None
    if percent and min(min(size) for size in sizes) > PERCENT_SIDE:
        return (
            f"all keypoints lie within 100 x 100 of the upper left corner of pictures of {_told(sizes[0])}:"
            " are they percent? COCO tells pixels; multiply them by width / 100 and height / 100. If they are"
            " pixels, cut the pictures around the objects"
        )
    beyond = [_beyond(s, size) for s, size in zip(chosen, sizes, strict=True)]
    if np.median(beyond) > 0.5:
        worst = int(np.argmax(beyond))
        return (
            "most keypoints lie beyond the edges of their pictures, e.g."
            f" {chosen[worst].shown} of {_told(sizes[worst])}: were they labelled in larger ones? Give those"
        )
    return None


def _beyond(sample: Sample, size: tuple[int, int]) -> float:
    """The share of the labelled points that lie to the right of the picture or below it."""
    points = sample.keypoints[~np.isnan(sample.keypoints).any(1)]
    return float((points >= size).any(1).mean())


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample.load().shape[:2]
    return width, height


def _told(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
