"""What the benchmark of visibility and score asks is what it says it asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.occlusion import cover
from benchmarks.reliability import SIZES, SLIVER, background_boxes
from edge_kp.geometry import box_iou


@pytest.mark.parametrize("index", range(4))
def test_points_are_under_the_cover_where_the_picture_changed(kites: Any, index: int) -> None:
    sample, other = kites(2, index)
    image = sample.load()
    covered = 0
    for seed in range(12):
        picture, under = cover(sample, other, 1 / 3, seed)
        changed = (picture != image).any(2)
        at = np.round(sample.keypoints).astype(int)
        inside = (at >= 0).all(1) & (at < (image.shape[1], image.shape[0])).all(1)
        x, y = at[inside].T
        # A cover may happen to have a pixel's own colour, but no pixel beside it changes.
        assert not (changed[y, x] & ~under[inside]).any()
        if under[inside].any():
            assert changed[y, x][under[inside]].mean() > 0.9
        covered += int(under.sum())
    assert 0.1 < covered / (12 * len(sample.keypoints)) < 0.6


def test_places_beside_the_object_do_not_show_it(kites: Any) -> None:
    (sample,) = kites(1)
    shape = (400, 600, 3)
    boxes = background_boxes(sample, shape, 20, 0)
    side = max(sample.box[2:] - sample.box[:2])
    assert len(boxes) == 20
    for box in boxes:
        assert (box[:2] >= 0).all()
        assert box[2] <= 600
        assert box[3] <= 400
        assert SIZES[0] - 1e-3 <= (box[2] - box[0]) / side <= SIZES[1] + 1e-3
        assert box_iou(sample.box, box) <= SLIVER
    again = background_boxes(sample, shape, 20, 0)
    assert np.array_equal(boxes, again)
    assert not np.array_equal(boxes, background_boxes(sample, shape, 20, 1))


def test_places_beside_the_object_show_no_other_either(kites: Any) -> None:
    (sample,) = kites(1)
    other = np.array([300, 100, 420, 300], np.float32)
    assert max(box_iou(other, box) for box in background_boxes(sample, (400, 600, 3), 60, 0)) > 0.1
    boxes = background_boxes(replace(sample, others=(other,)), (400, 600, 3), 60, 0)
    assert len(boxes) == 60
    assert max(box_iou(other, box) for box in boxes) <= SLIVER


def test_a_picture_that_the_object_fills_has_no_place(kites: Any) -> None:
    (sample,) = kites(1)
    width, height = (int(v) + 1 for v in np.ceil(sample.box[2:]))
    points = sample.keypoints.copy()
    points[0] = 0
    filled = replace(sample, keypoints=points)
    assert background_boxes(filled, (height, width, 3), 3, 0) == []
