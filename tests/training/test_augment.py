"""Covers mark what they paint, transforms are similarities, colours leave the form alone."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.geometry import compose, decompose_similarity, similarity, transform_points
from edge_kp.training.augment import (
    MIRROR,
    Augmentation,
    about_middle,
    random_bend,
    random_colour,
    random_cover,
    random_transform,
)

SIZE = 64
seeds = st.integers(0, 2**32 - 1)


def keypoints(seed: int, count: int = 20, spread: float = 0.3) -> np.ndarray:
    return np.random.default_rng([seed, 1]).uniform(0.5 - spread, 0.5 + spread, (count, 2))


def texture(seed: int) -> np.ndarray | None:
    rng = np.random.default_rng([seed, 2])
    return None if seed % 2 else rng.integers(0, 256, (40, 50, 3), np.uint8)


def opacity(seed: int, points: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(SIZE, SIZE) how much of the cover shows at each pixel, and the marks of the points.

    The same lots drawn over black and over white differ by what shines through, whatever was painted.
    """
    shown = []
    for grey in (0, 255):
        image = np.full((SIZE, SIZE, 3), grey, np.uint8)
        out, under = random_cover(image, points, np.random.default_rng(seed), share, texture(seed))
        assert (image == grey).all(), "the image given was painted over"
        assert out.shape == image.shape
        assert out.dtype == np.uint8
        shown.append(out.astype(float))
    return 1 - (shown[1] - shown[0]).mean(2) / 255, under


@settings(max_examples=300, deadline=None)
@given(seeds, st.floats(0.1, 0.6))
def test_a_cover_marks_exactly_the_points_it_hides(seed: int, share: float) -> None:
    points = keypoints(seed, spread=0.45)
    hidden, under = opacity(seed, points, share)
    assert under.shape == (20,)
    assert under.dtype == bool
    at = np.clip(np.round(points * SIZE - 0.5).astype(int), 0, SIZE - 1)
    over = hidden[at[:, 1], at[:, 0]]
    if set(np.unique(hidden)) <= {0.0, 1.0}:
        np.testing.assert_array_equal(under, over == 1)
    else:  # a blurred edge: half hidden on a straight edge, about a quarter at a corner
        assert (over[under] > 0.15).all()
        assert (over[~under] < 0.6).all()


def test_both_hard_and_soft_covers_come_and_most_hide_a_point() -> None:
    drawn = [opacity(seed, keypoints(seed), 0.4) for seed in range(60)]
    hard = [set(np.unique(hidden)) <= {0.0, 1.0} for hidden, _ in drawn]
    assert 20 < sum(hard) < 60
    assert np.mean([under.any() for _, under in drawn]) > 0.6
    assert len({hidden.tobytes() for hidden, _ in drawn}) == 60


@settings(max_examples=150, deadline=None)
@given(seeds, st.floats(0.1, 0.6))
def test_the_covered_share_is_bounded(seed: int, share: float) -> None:
    """Of the object's box for a patch; of its points for a cover that comes from one side."""
    points = keypoints(seed)
    hidden, under = opacity(seed, points, share)
    low, high = points.min(0) * SIZE, points.max(0) * SIZE
    area = hidden.sum() / np.prod(high - low)
    rim = 3 * 2 * math.sqrt(math.pi * max(area, 0.05)) / SIZE  # whole pixels and blur at the edge
    assert area <= share + rim or under.mean() <= share + 3 / len(points)


def test_points_outside_the_crop_and_unlabelled_points_are_not_marked() -> None:
    points = keypoints(0)
    points[:5] = [[1.4, 0.5], [-0.2, 0.5], [0.5, 1.1], [0.5, -0.6], [1.2, 1.2]]
    points[5:8] = np.nan
    marked = np.zeros(20, int)
    for seed in range(200):
        _, under = random_cover(
            np.zeros((SIZE, SIZE, 3), np.uint8), points, np.random.default_rng(seed), 0.4, texture(seed)
        )
        marked += under
    assert not marked[:8].any()
    assert marked[8:].all()


def test_the_same_lots_give_the_same_cover_and_colours() -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    points = keypoints(0)
    for seed in range(20):
        first, second = (
            random_cover(image, points, np.random.default_rng(seed), 0.4, texture(seed)) for _ in range(2)
        )
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        one, two = (random_colour(image, np.random.default_rng(seed), 1.0) for _ in range(2))
        np.testing.assert_array_equal(one, two)


@settings(max_examples=100, deadline=None)
@given(seeds, st.floats(0, 1), st.sampled_from([16, 33, 64]))
def test_colours_keep_the_form(seed: int, strength: float, size: int) -> None:
    image = np.random.default_rng([seed, 1]).integers(0, 256, (size, size, 3), np.uint8)
    before = image.copy()
    out = random_colour(image, np.random.default_rng(seed), strength)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_colours_change_the_picture_and_strength_zero_does_not() -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    checks = 60 + 120 * ((x // 16 + y // 16) % 2)
    image = np.dstack([checks, checks, checks // 2]).astype(np.uint8)
    assert all((random_colour(image, np.random.default_rng(s), 0.0) == image).all() for s in range(20))
    changed = [(random_colour(image, np.random.default_rng(s), 1.0) != image).any() for s in range(20)]
    assert all(changed)
    # Nothing moves: the picture still looks like itself.
    for seed in range(200):
        grey = random_colour(image, np.random.default_rng(seed), 0.8).astype(float).mean(2)
        assert np.corrcoef(grey.ravel(), checks.ravel())[0, 1] > 0.5


@given(seeds, st.floats(0, 80), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(1, 2))
def test_transforms_are_similarities_within_their_limits(
    seed: int, turn: float, shift: float, zoom: float, scale: float
) -> None:
    wanted = Augmentation(turn=turn, shift=shift, zoom=zoom)
    if turn == 0:
        wanted = Augmentation(turn=1e-9, shift=shift, zoom=zoom)
    matrix = random_transform(np.random.default_rng(seed), wanted, scale)
    angle, factor, _, _ = decompose_similarity(matrix)
    np.testing.assert_allclose(matrix[:, :2], similarity(angle, factor)[:, :2], atol=1e-12)
    assert abs(math.degrees(angle)) <= turn + 1e-6
    assert abs(math.log(factor)) <= zoom + 1e-9
    moved = transform_points(matrix, np.array([0.5, 0.5])) - 0.5
    assert (np.abs(moved) <= shift / scale + 1e-9).all()
    again = random_transform(np.random.default_rng(seed), wanted, scale)
    np.testing.assert_array_equal(matrix, again)


def test_no_turn_is_a_setting() -> None:
    matrix = random_transform(np.random.default_rng(0), Augmentation(turn=0), 1.6)
    assert decompose_similarity(matrix)[0] == pytest.approx(0, abs=1e-12)


@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-1, 1), st.floats(-1, 1))
def test_about_middle_turns_about_the_middle(angle: float, scale: float, du: float, dv: float) -> None:
    matrix = about_middle(angle, scale, np.array([du, dv]))
    np.testing.assert_allclose(
        transform_points(matrix, np.array([0.5, 0.5])), [0.5 + du, 0.5 + dv], atol=1e-12
    )
    right = transform_points(matrix, np.array([1.5, 0.5])) - [0.5 + du, 0.5 + dv]
    np.testing.assert_allclose(right, [scale * math.cos(angle), scale * math.sin(angle)], atol=1e-12)


def test_mirroring_twice_changes_nothing() -> None:
    np.testing.assert_array_equal(transform_points(MIRROR, np.array([[0.2, 0.7]])), [[0.8, 0.7]])
    np.testing.assert_array_equal(compose(MIRROR, MIRROR), np.eye(2, 3))


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_a_bend_takes_the_points_along(seed: int) -> None:
    """Dots drawn at the points lie where the bent points say."""
    size, points = 128, np.array([[0.2, 0.25], [0.5, 0.5], [0.75, 0.3], [0.3, 0.8], [0.8, 0.75]])
    bent = []
    for point in points:  # one by one, so that each dot can be told
        image = np.zeros((size, size, 3), np.uint8)
        centre = np.round((point * size - 0.5) * 16).astype(int).tolist()
        cv2.circle(image, centre, 4 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
        out, moved = random_bend(image, points, np.random.default_rng(seed), 0.03)
        y, x = np.mgrid[0:size, 0:size]
        weight = out[..., 0] / out[..., 0].sum(dtype=float)
        bent.append([((x + 0.5) * weight).sum() / size, ((y + 0.5) * weight).sum() / size])
    np.testing.assert_allclose(bent, moved, atol=0.6 / size)
    assert 0 < np.abs(moved - points).max() <= 0.03


def test_unlabelled_points_stay_so_when_bent() -> None:
    points = np.array([[0.5, 0.5], [np.nan, np.nan]])
    _, moved = random_bend(np.zeros((32, 32, 3), np.uint8), points, np.random.default_rng(0), 0.05)
    assert np.isfinite(moved[0]).all()
    assert np.isnan(moved[1]).all()
