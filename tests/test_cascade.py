"""The cascade with two small detectors that read pictures made for them."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp import cascade as cascade_module
from edge_kp.backends.base import Backend
from edge_kp.cascade import Cascade
from edge_kp.errors import BackendError
from edge_kp.geometry import (
    aligned_crop,
    decompose_similarity,
    estimate_similarity,
    similarity,
    square_crop,
    tight_box,
    transform_points,
)
from edge_kp.modeldir import ModelSpec
from edge_kp.schema import KeypointSchema

SCHEMA = KeypointSchema("five", ("a", "b", "c", "d", "e"), (), (), (0, 1))
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
MEAN = np.array([[0.2, 0.3], [0.8, 0.25], [0.5, 0.5], [0.3, 0.8], [0.75, 0.7]])
SIZES = (96, 128)
LEVELS = 3  # grey levels per pixel of the map; rounding to half a level is all that blurs its readings


def spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        **{"name": "five", "schema": SCHEMA, "attributes": ("rotation_in_plane", "occlusion")},
        **{"mean_shape": MEAN.astype(np.float32), "sizes": SIZES, "scale": 1.6, "box_rule": "keypoints"},
        **{"locator": "image", "score_threshold": 0.5, "bank_digest": ""},
    }
    return ModelSpec(**{**values, **changes})


class Reader(Backend):
    """A detector that reads keypoints off its crop, and may be wrong by a transform of the crop."""

    name, device, precision = "reader", "CPU", "fp32"

    def __init__(
        self, score: float = 0.9, attributes: tuple[float, float] = (0, 0), wrong: Any = None
    ) -> None:
        self.score = score
        self.attributes = attributes
        self.wrong = np.eye(2, 3) if wrong is None else wrong
        self.batches: list[tuple[int, ...]] = []
        self.closed = 0

    def find(self, crop: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        assert image.dtype == np.uint8
        self.batches.append(image.shape)
        found = np.stack([self.find(crop) for crop in image])
        keypoints = transform_points(self.wrong, found).astype(np.float32)
        count = len(image)
        return {
            "keypoints": keypoints,
            "prior_keypoints": keypoints + np.float32(0.01),
            "score": np.full(count, self.score, np.float32),
            "visibility": np.full((count, 5), self.score / 2, np.float32),
            "attributes": np.tile(np.float32(self.attributes), (count, 1)),
        }

    def close(self) -> None:
        self.closed += 1


class DotReader(Reader):
    """Finds a dot of each colour."""

    def find(self, crop: np.ndarray) -> np.ndarray:
        found = []
        for colour in COLOURS:
            near = np.clip(110 - np.abs(crop.astype(float) - colour).max(2), 0, 60)
            assert near.sum() > 0, f"the dot {colour} is not in the crop"
            y, x = np.indices(near.shape)
            found.append([(near * x).sum() / near.sum(), (near * y).sum() / near.sum()])
        return (np.array(found) + 0.5) / len(crop)


class MapReader(Reader):
    """Knows the keypoints in the frame; reads off the crop which part of the frame it shows.

    For frames from :func:`draw_map`, whose colours say where each pixel lies.
    """

    def __init__(self, keypoints: np.ndarray, **options: Any) -> None:
        super().__init__(**options)
        self.keypoints = keypoints

    def find(self, crop: np.ndarray) -> np.ndarray:
        x, y, inside = crop[..., 0] / LEVELS, crop[..., 1] / LEVELS, crop[..., 2]
        kernel = np.ones((3, 3), np.uint8)
        rows, columns = np.nonzero(cv2.erode((inside == 255).astype(np.uint8), kernel, borderValue=0))
        known = np.column_stack([x[rows, columns], y[rows, columns], np.ones(len(rows))])
        where = (np.column_stack([columns, rows]) + 0.5) / len(crop)
        to_crop = np.linalg.lstsq(known, where, rcond=None)[0]
        return np.column_stack([self.keypoints, np.ones(5)]) @ to_crop


def draw_map() -> np.ndarray:
    """uint8 (85, 85, 3): blue is 3x, green is 3y, red is 255 in the frame."""
    x, y = np.meshgrid(np.arange(255 // LEVELS), np.arange(255 // LEVELS))
    return np.dstack([LEVELS * x, LEVELS * y, np.full_like(x, 255)]).astype(np.uint8)


def place(angle: float, side: float, x: float, y: float) -> np.ndarray:
    """The mean shape in the frame: turned, ``side`` pixels for a whole crop, its middle at (x, y)."""
    turn = similarity(angle, side)
    turn[:, 2] = np.array([x, y]) - turn[:, :2] @ [0.5, 0.5]
    return transform_points(turn, MEAN)


def draw_dots(keypoints: np.ndarray, radius: float) -> np.ndarray:
    image = np.zeros((480, 640, 3), np.uint8)
    for point, colour in zip(keypoints, COLOURS, strict=True):
        at = np.round(point * 16).astype(int).tolist()
        cv2.circle(image, at, round(radius * 16), colour, -1, cv2.LINE_AA, 4)
    return image


@pytest.mark.parametrize("angle", [0, 30, -75, 90, 180])
@pytest.mark.parametrize("side", [110, 300])
def test_dots_are_found_where_they_are(angle: float, side: float) -> None:
    """Stage 1 is wrong by a turn, scale and shift; stage 2 sees the dots again and puts them right."""
    keypoints = place(math.radians(angle), side, 300.3, 220.8)
    image = draw_dots(keypoints, 0.04 * side)
    wrong = similarity(0.1, 0.95, (0.05, -0.01))
    result = Cascade(spec(), DotReader(wrong=wrong), DotReader())(image, [tight_box(keypoints)])
    np.testing.assert_allclose(result.keypoints[0], keypoints, atol=0.5)
    assert np.abs(result.stage1_keypoints[0] - keypoints).max() > 0.02 * side


@settings(max_examples=60, deadline=None)
@given(st.floats(-math.pi, math.pi), st.floats(20, 60), st.floats(32, 52), st.floats(32, 52), st.booleans())
def test_crop_coordinates_map_back_to_frame_pixels(
    angle: float, side: float, x: float, y: float, far: bool
) -> None:
    keypoints = place(angle, side, x, y) + np.random.default_rng(0).uniform(-2, 2, (5, 2))
    wrong = similarity(0.2, 1.1, (-0.1, 0.03)) if far else None
    stages = MapReader(keypoints, wrong=wrong), MapReader(keypoints)
    result = Cascade(spec(), *stages)(draw_map(), [tight_box(keypoints)])
    np.testing.assert_allclose(result.keypoints[0], keypoints, atol=0.2)
    if wrong is None:
        np.testing.assert_allclose(result.stage1_keypoints[0], keypoints, atol=0.2)
    else:
        crop = square_crop(tight_box(keypoints), SIZES[0], 1.6)
        expected = crop.to_frame(transform_points(wrong, crop.to_crop(keypoints)))
        np.testing.assert_allclose(result.stage1_keypoints[0], expected, atol=0.2)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_stage_1_sees_an_object_turned_as_told(turn: int) -> None:
    """And what it says of it is told where the object is in the frame."""
    keypoints = place(-turn * math.pi / 2, 110, 300.3, 220.8)
    seen = Watched()
    image, box = draw_dots(keypoints, 5), tight_box(keypoints)
    result = Cascade(spec(), seen, DotReader())(image, [box, box], [turn, 0])
    np.testing.assert_allclose(result.keypoints, [keypoints] * 2, atol=0.5)
    upright, as_it_is = seen.found
    assert estimate_turn(upright) == pytest.approx(0, abs=0.05)
    assert abs(math.remainder(estimate_turn(as_it_is) + turn * math.pi / 2, 2 * math.pi)) < 0.05


class Watched(DotReader):
    """Keeps what it found in each crop."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[np.ndarray] = []

    def find(self, crop: np.ndarray) -> np.ndarray:
        self.found.append(super().find(crop))
        return self.found[-1]


def estimate_turn(keypoints: np.ndarray) -> float:
    """By how many radians the mean shape was turned to become these."""
    return decompose_similarity(estimate_similarity(MEAN, keypoints))[0]


def test_the_second_crop_is_aligned_by_the_first_keypoints() -> None:
    """In it the keypoints of stage 1 lie on the mean shape, so that the prior's shift is one of that crop."""
    keypoints = place(0.7, 30, 43, 40)
    result = Cascade(spec(), MapReader(keypoints), MapReader(keypoints))(draw_map(), [tight_box(keypoints)])
    crop = aligned_crop(result.stage1_keypoints[0].astype(float), MEAN, SIZES[1])
    np.testing.assert_allclose(crop.to_crop(result.keypoints[0]), MEAN, atol=0.005)
    np.testing.assert_allclose(crop.to_crop(result.prior_keypoints[0]), MEAN + 0.01, atol=0.005)
    first = square_crop(tight_box(keypoints), SIZES[0], 1.6)
    np.testing.assert_allclose(
        first.to_crop(result.stage1_prior_keypoints[0] - result.stage1_keypoints[0])
        - first.to_crop(np.zeros(2)),
        0.01,
        atol=1e-4,
    )


def test_several_objects_go_through_in_one_batch() -> None:
    shapes = [place(0.3, 20, 23, 27), place(-1, 30, 57, 50), place(2, 15, 20, 63)]

    class Nearest(MapReader):
        """Answers with the object whose middle is nearest to the middle of the crop."""

        def find(self, crop: np.ndarray) -> np.ndarray:
            best = []
            for self.keypoints in shapes:
                best.append(super().find(crop))
            return min(best, key=lambda found: np.abs(found.mean(0) - 0.5).sum())

    stage1, stage2 = Nearest(shapes[0]), Nearest(shapes[0])
    result = Cascade(spec(), stage1, stage2)(draw_map(), [tight_box(s) for s in shapes])
    np.testing.assert_allclose(result.keypoints, shapes, atol=0.2)
    assert stage1.batches == [(3, 96, 96, 3)]
    assert stage2.batches == [(3, 128, 128, 3)]
    for name in ("keypoints", "prior_keypoints", "stage1_keypoints", "stage1_prior_keypoints"):
        value = getattr(result, name)
        assert value.shape == (3, 5, 2)
        assert value.dtype == np.float32
    assert set(result.seconds) == {"stage1", "stage2"}


def test_many_objects_go_through_in_several_batches_and_come_out_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keypoints = place(0.3, 30, 43, 40)
    boxes = [tight_box(keypoints) + shift for shift in range(-4, 6)]
    whole = Cascade(spec(), MapReader(keypoints), MapReader(keypoints))(draw_map(), boxes)
    monkeypatch.setattr(cascade_module, "AT_ONCE", 4)
    stage1, stage2 = MapReader(keypoints), MapReader(keypoints)
    cascade = Cascade(spec(), stage1, stage2)
    parts = cascade(draw_map(), boxes)
    assert [shape[0] for shape in stage1.batches] == [shape[0] for shape in stage2.batches] == [4, 4, 2]
    for name in (
        *("keypoints", "prior_keypoints", "stage1_keypoints", "stage1_prior_keypoints", "score"),
        *("visibility", "attributes", "transforms", "wanted"),
    ):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)
    for i in range(len(boxes)):
        np.testing.assert_array_equal(parts.crop(i), whole.crop(i))
    assert set(parts.seconds) == set(whole.seconds)
    refined = cascade.refine(draw_map(), [keypoints + shift for shift in range(5)])
    assert [shape[0] for shape in stage2.batches[3:]] == [4, 1]
    assert refined.keypoints.shape == (5, 5, 2)


def test_no_box_asks_no_network() -> None:
    stage1, stage2 = DotReader(), DotReader()
    for boxes in ([], np.zeros((0, 4), np.float32)):
        result = Cascade(spec(), stage1, stage2)(np.zeros((50, 60, 3), np.uint8), boxes)
        for name in ("keypoints", "prior_keypoints", "stage1_keypoints", "stage1_prior_keypoints"):
            assert getattr(result, name).shape == (0, 5, 2)
        assert result.score.shape == (0,)
        assert result.visibility.shape == (0, 5)
        assert result.attributes.shape == (0, 2)
        assert result.seconds == {"stage1": 0, "stage2": 0}
    assert stage1.batches == stage2.batches == []


@pytest.mark.parametrize(("first", "second"), [(0.9, 0.4), (0.3, 0.8)])
def test_the_score_is_the_lower_one_and_the_rest_comes_from_stage_2(first: float, second: float) -> None:
    keypoints = place(0, 30, 43, 40)
    stages = (
        MapReader(keypoints, score=first, attributes=(0.7, 0.1)),
        MapReader(keypoints, score=second, attributes=(0.2, 0.6)),
    )
    result = Cascade(spec(), *stages)(draw_map(), [tight_box(keypoints)])
    assert result.score[0] == pytest.approx(min(first, second))
    np.testing.assert_allclose(result.visibility[0], second / 2)
    assert result.attributes[0, 1] == pytest.approx(0.6)


@pytest.mark.parametrize("names", [("rotation_in_plane", "occlusion"), ("occlusion", "rotation_in_plane")])
@pytest.mark.parametrize(("degrees", "turned"), [(0, 0), (-9, 0), (15, 0.5), (-15, 0.5), (21, 1), (-90, 1)])
def test_the_turn_in_the_plane_is_read_off_the_keypoints(
    names: tuple[str, str], degrees: float, turned: float
) -> None:
    """The aligned crop is upright, so stage 2 cannot see it."""
    keypoints = place(math.radians(degrees), 30, 43, 40)
    stages = [MapReader(keypoints, attributes=(0.3, 0.3)) for _ in range(2)]
    result = Cascade(spec(attributes=names), *stages)(draw_map(), [tight_box(keypoints)])
    found = dict(zip(names, result.attributes[0].tolist(), strict=True))
    assert found["rotation_in_plane"] == pytest.approx(turned, abs=0.07)
    assert found["occlusion"] == pytest.approx(0.3)


def test_refining_starts_from_the_keypoints_and_asks_stage_2_alone() -> None:
    keypoints = place(0.3, 30, 43, 40)
    start = place(0.2, 33, 42, 41)
    stage1, stage2 = MapReader(keypoints, score=0.1), MapReader(keypoints, score=0.8)
    cascade = Cascade(spec(), stage1, stage2)
    result = cascade.refine(draw_map(), [start, keypoints])
    assert stage1.batches == []
    assert [batch[0] for batch in stage2.batches] == [2]
    np.testing.assert_allclose(result.keypoints, [keypoints, keypoints], atol=0.2)
    np.testing.assert_allclose(result.score, 0.8)
    np.testing.assert_array_equal(result.stage1_keypoints[0], start)
    assert result.seconds["stage1"] == 0
    # The crop was cut for the start; the result asks for another one.
    np.testing.assert_allclose(transform_points(result.transforms[0], start), MEAN, atol=1e-6)
    np.testing.assert_allclose(transform_points(result.wanted[0], keypoints), MEAN, atol=0.01)
    assert len(cascade.refine(draw_map(), []).keypoints) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("stage", [0, 1])
def test_keypoints_that_are_no_numbers_are_refused(stage: int, bad: float) -> None:
    keypoints = place(0, 30, 43, 40)
    stages = [MapReader(keypoints), MapReader(keypoints)]
    stages[stage].wrong = similarity(0, 1, (bad, 0))
    with pytest.raises(BackendError, match="reader gave values that are not finite"):
        Cascade(spec(), *stages)(draw_map(), [tight_box(keypoints)])


def test_keypoints_beyond_any_frame_are_refused() -> None:
    keypoints = place(0, 30, 43, 40)
    stage2 = MapReader(keypoints, wrong=similarity(0, 1, (1e37, 0)))
    with pytest.raises(BackendError, match="beyond any frame"):
        Cascade(spec(), MapReader(keypoints), stage2)(draw_map(), [tight_box(keypoints)])


def test_keypoints_in_one_place_are_no_object() -> None:
    keypoints = place(0, 30, 43, 40)
    stage2 = MapReader(keypoints, wrong=similarity(0, 0, (0.5, 0.5)))
    result = Cascade(spec(), MapReader(keypoints), stage2)(draw_map(), [tight_box(keypoints)])
    assert result.score[0] == 0


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [9, 9, 1, 1], [0, 0, np.nan, 5]])
def test_empty_boxes_are_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="expected a box"):
        Cascade(spec(), DotReader(), DotReader())(draw_map(), [np.array(box)])


def test_a_box_that_leaves_the_frame_is_no_obstacle() -> None:
    keypoints = place(0.4, 50, 10, 76)
    assert keypoints.min() < -3
    assert keypoints.max() > 88
    result = Cascade(spec(), MapReader(keypoints), MapReader(keypoints))(draw_map(), [tight_box(keypoints)])
    np.testing.assert_allclose(result.keypoints[0], keypoints, atol=0.2)


def test_closing_closes_both() -> None:
    stage1, stage2 = DotReader(), DotReader()
    Cascade(spec(), stage1, stage2).close()
    assert (stage1.closed, stage2.closed) == (1, 1)
    with DotReader() as reader:
        assert reader.closed == 0
    assert reader.closed == 1
