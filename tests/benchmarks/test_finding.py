"""What makes objects harder to find leaves them where their box says, as small or covered as asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.finding import (
    HEIGHT,
    WIDTH,
    covered_photo,
    found_percent,
    small_in_frame,
    surface,
    turned_photo,
)
from edge_kp.geometry import tight_box
from edge_kp.training.samples import Sample
from edge_kp.types import Array, Detection


def rectangle() -> Array:
    """White, from (100, 50) to (160, 130), on black."""
    image = np.zeros((200, 240, 3), np.uint8)
    image[50:131, 100:161] = 255
    return image


SAMPLE = Sample(
    "rectangle", np.array([[100, 50], [160, 130]], np.float32), np.ones(2, np.float32), {}, rectangle
)


@pytest.mark.parametrize("width", [12, 40, 160, 320, 900])
@pytest.mark.parametrize("seed", range(3))
def test_the_object_is_where_its_box_says(width: int, seed: int) -> None:
    frame, keypoints = small_in_frame(SAMPLE, width, np.random.default_rng(seed))
    box = tight_box(keypoints)
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert box[2] - box[0] == pytest.approx(width)
    assert box[3] - box[1] == pytest.approx(width * 80 / 60)
    scale = width / 60
    # A margin inside is white, one around it black: neither moved nor larger than told.
    inside = np.clip(np.round([*(box[:2] + scale), *(box[2:] - scale)]).astype(int), 0, None)
    assert (frame[inside[1] : inside[3], inside[0] : inside[2]] > 200).all()
    x = np.clip(np.round([box[0] - 3 * scale, box[2] + 3 * scale]).astype(int), 0, WIDTH - 1)
    y = round(float(np.clip((box[1] + box[3]) / 2, 0, HEIGHT - 1)))
    shown = [column for column in x.tolist() if 0 < column < WIDTH - 1]
    assert shown
    assert (frame[y, shown] < 60).all()


def test_small_objects_lie_all_over_the_frame_and_whole() -> None:
    placed = (small_in_frame(SAMPLE, 40, np.random.default_rng(seed))[1] for seed in range(200))
    boxes = np.array([tight_box(keypoints) for keypoints in placed])
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, 2:] < (WIDTH, HEIGHT)).all()
    spread = boxes[:, :2].max(0) - boxes[:, :2].min(0)
    assert (spread > (0.9 * WIDTH - 80, 0.9 * HEIGHT - 120)).all()


def test_surfaces_differ_and_are_the_same_again() -> None:
    one, again, other = (surface(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_only_what_lies_on_the_object_and_as_it_does_counts_as_found() -> None:
    class Says:
        def __init__(self, shift: float, exchanged: bool) -> None:
            self.shift, self.exchanged = shift, exchanged

        def detect(self, frame: Array) -> list[Any]:
            rows, columns = np.nonzero((frame > 250).all(2))
            box = np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float32)
            found = Detection.__new__(Detection)
            object.__setattr__(found, "box", box + self.shift)
            points = box.reshape(2, 2)[:: -1 if self.exchanged else 1] + self.shift
            object.__setattr__(found, "keypoints", points)
            return [found]

    for shift, exchanged, share in ((0, False, 100.0), (100, False, 0.0), (0, True, 0.0)):
        says: Any = Says(shift, exchanged)
        assert found_percent(says, [SAMPLE] * 3, small_in_frame, 160) == share


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_a_turned_photo_is_whole_and_its_box_tight(degrees: int) -> None:
    for seed in range(4):
        picture, keypoints = turned_photo(SAMPLE, degrees, np.random.default_rng(seed))
        rows, columns = np.nonzero(picture[..., 0] > 127)
        assert len(rows) == pytest.approx(61 * 81, rel=0.04)
        if degrees % 90 == 0:  # two corners say where the other two are
            seen = [columns.min(), rows.min(), columns.max(), rows.max()]
            np.testing.assert_allclose(tight_box(keypoints), seen, atol=1)


def test_photos_turn_either_way() -> None:
    turned = [turned_photo(SAMPLE, 30, np.random.default_rng(seed))[1].round(3) for seed in range(9)]
    assert len({tuple(keypoints.ravel()) for keypoints in turned}) == 2


def test_a_covered_photo_keeps_its_keypoints() -> None:
    before = rectangle()
    picture, keypoints = covered_photo(SAMPLE, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(keypoints, SAMPLE.keypoints)
    changed = (picture != before).any(2)
    assert changed.sum() == pytest.approx(0.5 * 60 * 80, rel=0.1)
    changed[50:131, 100:161] = False
    assert not changed.any()
