"""Attributes read off shapes, and weights from how rare they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_kp.geometry import similarity, transform_points
from edge_kp.schema import KeypointSchema
from edge_kp.templates import TemplateBank, build_bank
from edge_kp.training.attributes import (
    IN_PLANE,
    OUT_OF_PLANE,
    OWN_ATTRIBUTES,
    AttributeWeights,
    ShapeAttributes,
    attribute_names,
)
from edge_kp.training.synthetic import SYNTHETIC, make_scene

SHAPES = np.stack([make_scene(0, i).keypoints for i in range(300)])


@pytest.fixture(scope="module")
def bank() -> TemplateBank:
    return build_bank(SYNTHETIC, SHAPES, 16)


@pytest.fixture(scope="module")
def attributes(bank: TemplateBank) -> ShapeAttributes:
    return ShapeAttributes(bank)


@pytest.mark.parametrize(
    ("degrees", "turned"), [(0, 0), (14, 0), (-14, 0), (16, 1), (30, 1), (-30, 1), (179, 1)]
)
def test_a_turn_in_the_plane(
    bank: TemplateBank, attributes: ShapeAttributes, degrees: float, turned: int
) -> None:
    shape = bank.mean_shape.astype(np.float64)
    moved = transform_points(similarity(math.radians(degrees), 70, (300, 20)), shape)
    found = attributes(moved)
    assert found[IN_PLANE] == turned
    assert found[OUT_OF_PLANE] == 0


def test_position_size_and_turn_do_not_show_out_of_the_plane(attributes: ShapeAttributes) -> None:
    seen = set()
    for shape in SHAPES[:100]:
        moved = transform_points(similarity(0.3, 0.02, (-4, 9)), shape)
        assert attributes(moved)[OUT_OF_PLANE] == attributes(shape)[OUT_OF_PLANE]
        seen.add(attributes(shape)[OUT_OF_PLANE])
    assert seen == {0.0, 1.0}


def test_a_head_turned_aside_shows_out_of_the_plane(bank: TemplateBank, attributes: ShapeAttributes) -> None:
    """The mask looks left, ahead or right by 38 degrees: the nose moves between the temples."""
    left, right, nose = (SYNTHETIC.keypoints.index(n) for n in ("left_temple", "right_temple", "nose"))
    axis = SHAPES[:, right] - SHAPES[:, left]
    along = ((SHAPES[:, nose] - SHAPES[:, left]) * axis).sum(1) / (axis**2).sum(1)
    aside, ahead = np.abs(along - 0.5) > 0.5, np.abs(along - 0.5) < 0.2
    assert aside.sum() > 30
    assert ahead.sum() > 50
    found = np.array([attributes(shape)[OUT_OF_PLANE] for shape in SHAPES])
    assert found[aside].mean() > 0.9
    assert found[ahead].mean() == 0


def test_a_mirrored_shape_has_the_same_attributes(attributes: ShapeAttributes) -> None:
    for shape in SHAPES[:150]:
        mirrored = (shape * [-1, 1])[SYNTHETIC.flip_index]
        assert attributes(mirrored) == attributes(shape)


def test_unlabelled_points_are_left_out(bank: TemplateBank, attributes: ShapeAttributes) -> None:
    shape = transform_points(similarity(math.radians(30), 70, (300, 20)), bank.mean_shape.astype(np.float64))
    shape[[2, 5]] = np.nan
    assert attributes(shape) == {IN_PLANE: 1.0, OUT_OF_PLANE: 0.0}
    shape[1:] = np.nan
    assert attributes(shape) == {}


def test_names_start_with_our_own() -> None:
    assert attribute_names([{}, {"makeup": 1.0, "occlusion": 0.0}, {"blur": 0.0}]) == (
        *OWN_ATTRIBUTES,
        "blur",
        "makeup",
    )


# ---- weights ---------------------------------------------------------------------------------------

labels = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 60), st.integers(1, 4)),
    elements=st.sampled_from([0.0, 1.0, 1.0, 0.0, 0.0, math.nan]),
)


@given(labels)
def test_weights_average_one_and_forget_the_unknown(rows: np.ndarray) -> None:
    weights = AttributeWeights.measure(rows)
    low, high = AttributeWeights.LIMITS
    for side in (weights.positive, weights.negative):
        assert ((side >= low) & (side <= high)).all()
    classes = weights.classes(rows)
    assert classes.shape == rows.shape
    assert ((classes > 0) == ~np.isnan(rows)).all()
    samples = weights.samples(rows)
    assert samples.shape == (len(rows),)
    assert (samples > 0).all()
    assert samples.mean() == pytest.approx(1, rel=1e-4)


@given(st.integers(1, 199))
def test_the_rarer_class_weighs_more(count: int) -> None:
    rows = np.zeros((200, 1))
    rows[:count] = 1
    weights = AttributeWeights.measure(rows)
    assert np.sign(weights.positive[0] - weights.negative[0]) == np.sign(100 - count)
    # Between the limits both classes count alike in sum.
    if 25 <= count <= 175:
        assert weights.positive[0] * count == pytest.approx(weights.negative[0] * (200 - count), rel=1e-4)
    samples = weights.samples(rows)
    assert np.sign(samples[0] - samples[-1]) == np.sign(100 - count)


def test_weights_are_clamped() -> None:
    rows = np.zeros((1000, 2))
    rows[0, 0] = 1
    weights = AttributeWeights.measure(rows)
    assert weights.positive.tolist() == [4.0, 1.0]  # nobody has the second
    assert weights.negative[1] == 1
    assert weights.negative[0] == pytest.approx(0.5, rel=1e-2)


def test_no_label_at_all_weighs_one() -> None:
    weights = AttributeWeights.measure(np.full((5, 2), np.nan))
    np.testing.assert_array_equal(weights.samples(np.full((3, 2), np.nan)), 1)
    np.testing.assert_array_equal(weights.classes(np.full((3, 2), np.nan)), 0)


@pytest.mark.parametrize("shape", [[(0, 0), (40, 3)], [(0, 0), (30, 0), (30, 20), (0, 20), (15, 9)]])
def test_out_of_the_plane_is_not_told_of_what_cannot_show_it(shape: list[tuple[float, float]]) -> None:
    """Two points, or a rigid object seen from one side: the templates differ by rounding alone."""
    rng = np.random.default_rng(0)
    moves = [(rng.uniform(-3, 3), rng.uniform(0.3, 4), rng.uniform(-90, 90, 2)) for _ in range(40)]
    shapes = np.stack([transform_points(similarity(*move), np.array(shape, float)) for move in moves])
    schema = KeypointSchema("part", tuple("abcde"[: len(shape)]), (), (), (0, 1))
    attributes = ShapeAttributes(build_bank(schema, shapes.astype(np.float32), 4))
    found = [attributes(one) for one in shapes]
    assert {name for one in found for name in one} == {IN_PLANE}
    assert {one[IN_PLANE] for one in found} == {0.0, 1.0}


def test_a_single_template_tells_nothing_of_turns_out_of_the_plane() -> None:
    assert set(ShapeAttributes(build_bank(SYNTHETIC, SHAPES, 1))(SHAPES[0])) == {IN_PLANE}
