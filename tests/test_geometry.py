import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.geometry import (
    Crop,
    ShapeAlignment,
    aligned_crop,
    as_complex,
    box_iou,
    compose,
    decompose_similarity,
    estimate_similarity,
    from_complex,
    invert,
    jitter_box,
    quarter_turns,
    similarity,
    solid_box,
    solid_boxes,
    square_crop,
    tight_box,
    transform_points,
    widened_box,
)

angles = st.floats(-math.pi, math.pi)
scales = st.floats(0.05, 20)
shifts = st.tuples(st.floats(-500, 500), st.floats(-500, 500))
seeds = st.integers(0, 2**32 - 1)


def points(seed: int, count: int = 9):
    return np.random.default_rng(seed).uniform(-100, 700, (count, 2))


@given(angles, scales, shifts, seeds)
def test_crop_maps_there_and_back(angle, scale, shift, seed):
    crop = Crop(similarity(angle, scale, shift), 64)
    frame = points(seed)
    np.testing.assert_allclose(crop.to_frame(crop.to_crop(frame)), frame, atol=1e-6)
    np.testing.assert_allclose(crop.to_crop(crop.to_frame(frame)), frame, atol=1e-6)


@given(seeds)
def test_two_similarities_differ_by_how_far_they_move_the_shape(seed):
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0, 1, (9, 2))
    first, second = (
        similarity(rng.uniform(-3, 3), rng.uniform(0.1, 3), rng.normal(0, 9, 2)) for _ in range(2)
    )
    moved = transform_points(compose(second, invert(first)), shape) - shape
    expected = math.sqrt((moved**2).sum(1).mean())
    assert ShapeAlignment(shape).distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert ShapeAlignment(shape).distance(first, first) == pytest.approx(0, abs=1e-9)


@given(angles, scales, shifts)
def test_similarity_decomposes_into_its_parts(angle, scale, shift):
    turned, scaled, x, y = decompose_similarity(similarity(angle, scale, shift))
    assert math.cos(turned - angle) == pytest.approx(1)
    assert (scaled, x, y) == pytest.approx((scale, *shift))


@pytest.mark.parametrize(
    ("degrees", "turns"),
    [(0, 0), (44, 0), (46, 1), (91, 1), (180, 2), (-180, 2), (-90, 3), (-46, 3), (-44, 0)],
)
def test_quarter_turns_are_the_nearest(degrees, turns):
    assert quarter_turns(similarity(math.radians(degrees), 0.3, (4, 5))) == turns


def test_similarity_turns_x_towards_y():
    moved = transform_points(similarity(math.pi / 2, 2, (10, 20)), np.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(moved, [[10, 22], [8, 20]], atol=1e-12)


@given(seeds)
def test_invert_and_compose_agree_with_3x3_matrices(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(-3, 3, (2, 2, 3))
    first[:, :2] += 5 * np.eye(2)  # well away from singular
    full = [np.vstack([m, [0, 0, 1]]) for m in (first, second)]
    np.testing.assert_allclose(compose(second, first), (full[1] @ full[0])[:2], atol=1e-12)
    np.testing.assert_allclose(invert(first), np.linalg.inv(full[0])[:2], atol=1e-9)


def test_transform_points_keeps_leading_axes():
    batch = points(0, 24).reshape(2, 3, 4, 2)
    matrix = similarity(0.3, 2, (1, 2))
    moved = transform_points(matrix, batch)
    assert moved.shape == batch.shape
    np.testing.assert_allclose(moved[1, 2], transform_points(matrix, batch[1, 2]))
    assert transform_points(matrix, np.zeros((0, 2))).shape == (0, 2)


@given(angles, scales, shifts, seeds)
def test_estimate_finds_the_similarity_that_moved_the_points(angle, scale, shift, seed):
    source = points(seed)
    truth = similarity(angle, scale, shift)
    found = estimate_similarity(source, transform_points(truth, source))
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-6)


@settings(max_examples=50)
@given(seeds, st.booleans())
def test_estimate_equals_linear_least_squares(seed, weighted):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(0, 50, (2, 7, 2))
    weights = rng.uniform(0, 2, 7) if weighted else None
    found = estimate_similarity(source, target, weights)
    # The slow way: unknowns a, b, tx, ty with x' = ax - by + tx and y' = bx + ay + ty.
    zero, one = np.zeros(7), np.ones(7)
    rows_x = np.stack([source[:, 0], -source[:, 1], one, zero], 1)
    rows_y = np.stack([source[:, 1], source[:, 0], zero, one], 1)
    root = np.sqrt(np.tile(one if weights is None else weights, 2))
    system, wanted = np.concatenate([rows_x, rows_y]), np.concatenate([target[:, 0], target[:, 1]])
    a, b, tx, ty = np.linalg.lstsq(system * root[:, None], wanted * root, rcond=None)[0]
    np.testing.assert_allclose(found, [[a, -b, tx], [b, a, ty]], atol=1e-7)


def test_estimate_ignores_points_of_weight_zero():
    source = points(1)
    target = transform_points(similarity(0.4, 1.5, (3, 4)), source)
    target[0] += 1000
    weights = np.ones(len(source))
    weights[0] = 0
    found = estimate_similarity(source, target, weights)
    np.testing.assert_allclose(found, similarity(0.4, 1.5, (3, 4)), atol=1e-9)


def test_estimate_does_not_reflect():
    source = points(2)
    found = estimate_similarity(source, source * [-1, 1])
    assert np.linalg.det(found[:, :2]) >= 0


@given(angles, scales, shifts, seeds)
def test_alignment_to_one_shape_equals_the_general_estimate(angle, scale, shift, seed):
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0, 1, (7, 2))
    points = transform_points(similarity(angle, scale, shift), shape) + rng.normal(0, 0.1 * scale, (7, 2))
    alignment = ShapeAlignment(shape)
    np.testing.assert_allclose(
        alignment.to_shape(points), estimate_similarity(points, shape), rtol=1e-6, atol=1e-6
    )
    factor, offset = alignment.from_shape(as_complex(points))
    expected = estimate_similarity(shape, points)
    np.testing.assert_allclose([factor.real, factor.imag], expected[:, 0], rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose([offset.real, offset.imag], expected[:, 2], rtol=1e-6, atol=1e-5 * scale)
    np.testing.assert_array_equal(from_complex(as_complex(points)), points)


@pytest.mark.parametrize("points", [np.full((7, 2), 3.0), np.full((7, 2), np.nan), np.full((7, 2), np.inf)])
def test_alignment_refuses_points_without_extent(points):
    with pytest.raises(ValueError, match="no similarity"):
        ShapeAlignment(np.random.default_rng(0).random((7, 2))).to_shape(points)


def test_refusals():
    with pytest.raises(ValueError, match="coincide"):
        estimate_similarity(np.ones((3, 2)), points(0, 3))
    with pytest.raises(ValueError, match=r"expected two \(N, 2\)"):
        estimate_similarity(points(0, 3), points(0, 4))
    with pytest.raises(ValueError, match="singular"):
        invert(np.array([[1.0, 2, 0], [2, 4, 0]]))
    with pytest.raises(ValueError, match="singular"):
        invert(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="no labelled keypoint"):
        tight_box(np.full((4, 2), np.nan))


@pytest.mark.parametrize(
    "box",
    [
        *([5, 5, 5, 5], [10, 0, 0, 10], [0, 10, 10, 0], [0, 0, math.inf, 1]),
        *([math.nan, 0, 1, 1], [0, math.nan, 1, 1], [0, 0, math.nan, 1], [0, 0, 1, math.nan]),
    ],
)
def test_square_crop_refuses_bad_boxes(box):
    with pytest.raises(ValueError, match="expected a box"):
        square_crop(np.array(box, np.float32), 64, 1.2)


def test_tight_box_skips_unlabelled_points():
    keypoints = np.array([[3, 9], [np.nan, 100], [-1, 4], [200, np.nan]])
    np.testing.assert_array_equal(tight_box(keypoints), [-1, 4, 3, 9])
    assert tight_box(keypoints).dtype == np.float32


def test_box_iou():
    a = np.array([0.0, 0, 10, 10])
    assert box_iou(a, a) == 1
    assert box_iou(a, a + 5) == pytest.approx(25 / 175)
    assert box_iou(a, a + 10) == 0
    assert box_iou(a, np.array([30, -30, 40, -20])) == 0
    assert box_iou(np.zeros(4), np.zeros(4)) == 0


@pytest.mark.parametrize("upright", [False, True])
def test_box_iou_of_points_in_a_row(upright):
    """Their box is a line, which shares no area with anything."""

    def box(*sides):
        return np.array(sides, float)[[1, 0, 3, 2] if upright else [0, 1, 2, 3]]

    row = box(100, 50, 300, 50)
    assert box_iou(row, row) == 1
    assert box_iou(row, box(100, 53, 300, 53)) == pytest.approx(17 / 23)
    assert box_iou(row, box(200, 50, 400, 50)) == pytest.approx(1 / 3)
    assert box_iou(row, box(100, 90, 300, 90)) == 0
    assert box_iou(row, box(100, 40, 300, 60)) == 1
    assert box_iou(row, box(100, 49, 300, 52)) > 0.9


@given(seeds, st.floats(0, 50))
def test_solid_boxes_are_none_other_than_boxes_that_are_not_thin(seed, height):
    corners = np.random.default_rng(seed).uniform(0, 1, (5, 2, 2)) * [50, height]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    solid = solid_boxes(boxes)
    size, before = solid[:, 2:] - solid[:, :2], boxes[:, 2:] - boxes[:, :2]
    assert (size.min(1) >= 0.0999 * size.max(1)).all()
    np.testing.assert_allclose(solid[:, :2] + solid[:, 2:], boxes[:, :2] + boxes[:, 2:], atol=1e-9)
    thick = before.min(1) >= 0.1 * before.max(1)
    np.testing.assert_array_equal(solid[thick], boxes[thick])
    np.testing.assert_allclose(solid, [solid_box(box) for box in boxes], atol=1e-12)


@given(seeds, st.floats(0.01, 0.4))
def test_jitter_box_stays_within_its_amount(seed, amount):
    box = np.array([10, 20, 110, 70], np.float32)
    x0, y0, x1, y1 = jitter_box(box, np.random.default_rng(seed), amount)
    assert abs((x0 + x1) / 2 - 60) <= amount * 100 + 1e-3
    assert abs((y0 + y1) / 2 - 45) <= amount * 50 + 1e-3
    assert (x1 - x0) / 100 == pytest.approx((y1 - y0) / 50, rel=1e-4)
    assert 1 - amount - 1e-4 <= (x1 - x0) / 100 <= 1 + amount + 1e-4


def test_square_crop_puts_the_box_in_the_middle():
    crop = square_crop(np.array([100, 50, 140, 130]), 96, 1.25)  # side 1.25 * 80 = 100
    np.testing.assert_allclose(
        crop.to_frame(np.array([[0.5, 0.5], [0, 0], [1, 1]])), [[120, 90], [70, 40], [170, 140]]
    )


def test_square_crop_turns_about_the_middle():
    crop = square_crop(np.array([0, 0, 100, 100]), 96, 1, angle=math.pi / 2)
    np.testing.assert_allclose(
        crop.to_crop(np.array([[50, 50], [100, 50]])), [[0.5, 0.5], [0.5, 1]], atol=1e-12
    )


@given(angles, scales, shifts)
def test_aligned_crop_lands_a_moved_shape_on_the_mean(angle, scale, shift):
    mean = np.random.default_rng(3).uniform(0.2, 0.8, (6, 2))
    crop = aligned_crop(transform_points(similarity(angle, 100 * scale, shift), mean), mean, 128)
    keypoints = crop.to_frame(mean)
    np.testing.assert_allclose(crop.to_crop(keypoints), mean, atol=1e-9)
    np.testing.assert_allclose(
        keypoints, transform_points(similarity(angle, 100 * scale, shift), mean), atol=1e-6
    )


def ramp(side: int):
    """uint8 image whose channels are 2x, 2y and 2(side - x): averages over whole blocks are whole numbers."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    return (2 * np.stack([x, y, side - x], -1)).astype(np.uint8)


def pixel_centres(crop: Crop):
    """(size, size, 2) frame position of the centre of each crop pixel."""
    u = (np.arange(crop.size) + 0.5) / crop.size
    return crop.to_frame(np.stack(np.meshgrid(u, u), -1))


@pytest.mark.parametrize("size", [90, 60, 37, 30, 20, 13, 6])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.5])
def test_extract_samples_where_the_transform_says(size, angle):
    """On a linear ramp neither bilinear sampling nor averaging over blocks changes a value."""
    image = ramp(120)
    crop = square_crop(np.array([31.3, 29.6, 91.3, 89.6]), size, 1.0, angle)
    centres = pixel_centres(crop)
    expected = 2 * np.stack([centres[..., 0], centres[..., 1], 120 - centres[..., 0]], -1)
    found = crop.extract(image)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    # Rounding to a grey level, and the 1/32 pixel steps of the warp in pixels of up to 60 / size.
    np.testing.assert_allclose(found, expected, atol=0.55 + 2 * max(60 / size, 1) / 32)


def test_extract_at_full_size_copies_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    crop = square_crop(np.array([9.5, 4.5, 41.5, 36.5]), 32, 1.0)  # pixel edges lie at half numbers
    np.testing.assert_array_equal(crop.extract(image), image[5:37, 10:42])


def test_extract_averages_whole_blocks():
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    crop = square_crop(np.array([-0.5, -0.5, 63.5, 63.5]), 16, 1.0)
    blocks = image.reshape(16, 4, 16, 4, 3).mean((1, 3))
    np.testing.assert_allclose(crop.extract(image), blocks, atol=1)


def test_extract_does_not_alias():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    found = square_crop(np.array([-0.5, -0.5, 127.5, 127.5]), 16, 1.0).extract(stripes)
    np.testing.assert_array_equal(found, 100)


def test_extract_is_black_outside_the_frame_and_white_to_its_rim():
    white = np.full((101, 103, 3), 255, np.uint8)  # whole blocks do not fill it
    for size in (200, 50, 25, 13):
        crop = square_crop(np.array([-50, -50, 150, 150]), size, 1.0)
        found = crop.extract(white)[..., 0]
        centres = pixel_centres(crop)
        reach = 200 / size  # a crop pixel mixes frame pixels this far apart
        inside = ((centres > -0.5 + reach) & (centres < np.array([102.5, 100.5]) - reach)).all(-1)
        outside = ((centres < -0.5 - reach) | (centres > np.array([102.5, 100.5]) + reach)).any(-1)
        assert (found[inside] == 255).all(), size
        assert (found[outside] == 0).all(), size


def test_extract_far_outside_the_frame_is_black():
    image = np.full((40, 40, 3), 255, np.uint8)
    for size in (8, 400):
        assert not square_crop(np.array([500, 500, 600, 600]), size, 1.0).extract(image).any()


@pytest.mark.parametrize("shape", [(1, 40_000), (40_000, 1), (3, 40_000)])
def test_extract_from_a_frame_longer_than_opencv_warps(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    start = (np.array(shape) > 1000) * 19_500
    part = image[start[0] : start[0] + 1000, start[1] : start[1] + 1000]
    x, y = (np.array(shape[::-1]) // 2).tolist()
    for reach in (5.5, 60):
        box = np.array([x - reach, y - reach, x + reach, y + reach])
        moved = box - np.tile(start[::-1], 2)
        near, expected = (square_crop(b, 16, 1.0).extract(i) for b, i in ((box, image), (moved, part)))
        assert expected.max() > 50 or reach > 10  # between the samples of a coarse crop a thin frame is lost
        np.testing.assert_allclose(near.astype(int), expected, atol=1)
    assert not square_crop(np.array([-90, -90, -50, -50]), 16, 1.0).extract(image).any()


@given(st.tuples(*[st.floats(-1000, 1000, width=32)] * 2), st.tuples(*[st.floats(0, 500, width=32)] * 2))
def test_a_widened_box_keeps_its_middle_and_covers_a_pixel(corner, sides):
    box = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]])
    wide = widened_box(box)
    np.testing.assert_allclose(wide[:2] + wide[2:], box[:2] + box[2:], atol=1e-3)
    np.testing.assert_allclose(wide[2:] - wide[:2], np.maximum(sides, 1), atol=1e-3)
