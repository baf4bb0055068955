"""The overlay: what is drawn where, and that nothing a detector may deliver breaks it."""

from dataclasses import replace

import numpy as np
import pytest

from edge_kp.overlay import draw_detections
from edge_kp.schema import FACE68, KeypointSchema
from edge_kp.types import Detection, HeadPose

PAIR = KeypointSchema("pair", ("a", "b"), (), (), (0, 1))
GRAY = np.full((240, 320, 3), 128, np.uint8)


def found(points, visibility=None, box=None):
    points = np.asarray(points, np.float32)
    box = np.concatenate([points.min(0), points.max(0)]) if box is None else np.asarray(box, np.float32)
    visibility = np.ones(len(points)) if visibility is None else visibility
    return Detection(1, box.astype(np.float32), 0.9, points, np.asarray(visibility, np.float32))


def test_visible_points_are_green_and_covered_ones_red_rings():
    drawn = draw_detections(GRAY, [found([[100, 100], [200, 150]], [1.0, 0.0], [20, 30, 300, 220])], PAIR)
    blue, green, red = (int(v) for v in drawn[100, 100])
    assert green > 200 > max(blue, red)
    assert tuple(drawn[150, 200]) == (128, 128, 128)  # hollow: the picture shows through
    ring = drawn[140:161, 190:211].astype(int)
    assert ((ring[..., 2] > 200) & (ring[..., 1] < 120)).any()


def test_an_unsure_point_lies_between_green_and_red():
    drawn = draw_detections(GRAY, [found([[100, 100], [200, 150]], [0.55, 1.0], [20, 30, 300, 220])], PAIR)
    assert drawn[100, 100, 2] > drawn[150, 200, 2] + 80


def test_edges_join_points():
    joined = KeypointSchema("pair", ("a", "b"), (), ((0, 1),), (0, 1))
    one = found([[100, 100], [200, 100]], box=[20, 30, 300, 220])
    without, drawn = draw_detections(GRAY, [one], PAIR), draw_detections(GRAY, [one], joined)
    assert (without[100, 150] == 128).all()
    assert (drawn[100, 150] != 128).any()


def test_the_image_stays_as_it_is_unless_asked():
    image = GRAY.copy()
    drawn = draw_detections(image, [found([[100, 100], [200, 150]])], PAIR, text="12 fps")
    assert (image == GRAY).all()
    assert (drawn != GRAY).any()
    assert (
        draw_detections(image, [found([[100, 100], [200, 150]])], PAIR, text="12 fps", in_place=True) is image
    )
    assert (image == drawn).all()


def test_the_pose_is_drawn_as_axes_out_of_the_middle_of_the_box():
    one = found([[100, 100], [200, 150]], box=[40, 60, 240, 220])
    turned = replace(one, pose=HeadPose(yaw=0, pitch=0, roll=0))
    without, drawn = draw_detections(GRAY, [one], PAIR), draw_detections(GRAY, [turned], PAIR)
    red, green = drawn[140, 175].astype(int), drawn[175, 140].astype(int)  # to its left, to its chin
    assert red[2] > 180 > max(red[0], red[1])
    assert green[1] > 150 > max(green[0], green[2])
    assert (without[140, 175] == 128).all()
    away = draw_detections(GRAY, [replace(one, pose=HeadPose(yaw=0, pitch=0, roll=90))], PAIR)
    assert away[175, 140, 2] > 180  # clockwise by a quarter: its left is below


@pytest.mark.parametrize("turned", [False, True])
def test_the_far_end_of_a_very_large_picture_is_drawn_as_any_other_part(turned):
    points, box = np.array([[100, 100], [200, 150]]), np.array([40, 60, 240, 220])
    joined = KeypointSchema("pair", ("a", "b"), (), ((0, 1),), (0, 1))
    large = np.full((24000, 320, 3) if turned else (240, 24000, 3), 128, np.uint8)
    part = large[-320:] if turned else large[:, -320:]
    away = [0, 24000 - 320] if turned else [24000 - 320, 0]
    pose = HeadPose(yaw=20, pitch=-10, roll=5)
    expected = draw_detections(part, [replace(found(points, box=box), pose=pose)], joined)
    one = replace(found(points + away, box=np.tile(away, 2) + box), pose=pose)
    draw_detections(large, [one], joined, in_place=True)
    np.testing.assert_array_equal(part, expected)


def test_nothing_found_draws_nothing():
    assert (draw_detections(GRAY, [], FACE68) == GRAY).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (8, 2000, 3), (2000, 8, 3), (1080, 1920, 3)])
@pytest.mark.parametrize(
    "points",
    [
        [[np.nan, np.nan], [3, 4]],
        [[-1e30, 1e30], [np.inf, 5]],
        [[-50, -60], [-10, -20]],
        [[5000, 5000], [9000, 9000]],
        [[3, 3], [3, 3]],
    ],
)
def test_whatever_the_points_the_drawing_goes_on(shape, points):
    image = np.zeros(shape, np.uint8)
    drawn = draw_detections(image, [found(points)], PAIR, text="a long line of status text")
    assert drawn.shape == shape


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected 68 keypoints, got 2"):
        draw_detections(GRAY, [found([[1, 2], [3, 4]])], FACE68)
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        draw_detections(GRAY[..., 0], [], FACE68)
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        draw_detections(GRAY.astype(np.float32), [], FACE68)


VIEWS = {
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "RGB": lambda image: image[..., ::-1],
    "every second pixel": lambda image: image[:, ::2],
    "turned": lambda image: image.swapaxes(0, 1),
    "a part": lambda image: image[10:200, 20:300],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_drawn_on_as_any_picture(view):
    whole = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    before, seen = whole.copy(), VIEWS[view](whole)
    one = replace(found([[30, 30], [90, 80]], [1.0, 0.0]), pose=HeadPose(10, 20, 30))
    expected = draw_detections(np.ascontiguousarray(seen), [one], PAIR, text="12 fps")
    np.testing.assert_array_equal(draw_detections(seen, [one], PAIR, text="12 fps"), expected)
    np.testing.assert_array_equal(whole, before)
    assert draw_detections(seen, [one], PAIR, text="12 fps", in_place=True) is seen
    np.testing.assert_array_equal(seen, expected)
    assert not np.array_equal(whole, before)


def test_a_read_only_picture_is_copied_but_not_drawn_on_in_place():
    image = GRAY.copy()
    image.flags.writeable = False
    one = found([[30, 30], [90, 80]])
    np.testing.assert_array_equal(draw_detections(image, [one], PAIR), draw_detections(GRAY, [one], PAIR))
    with pytest.raises(ValueError, match=r"image: it is read-only.*leave in_place out"):
        draw_detections(image, [one], PAIR, in_place=True)


@pytest.mark.parametrize("image", [None, "photo.jpg", GRAY[:0], GRAY[:, :0], GRAY.tolist()])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_is_no_picture_is_refused(image, in_place):
    with pytest.raises(ValueError, match="image: expected "):
        draw_detections(image, [found([[30, 30], [90, 80]])], PAIR, text="12 fps", in_place=in_place)


def test_a_detection_that_does_not_fit_leaves_the_picture_as_it_is():
    image = GRAY.copy()
    with pytest.raises(ValueError, match="expected 2 keypoints, got 3"):
        draw_detections(
            image, [found([[30, 30], [90, 80]]), found([[1, 2], [3, 4], [5, 6]])], PAIR, in_place=True
        )
    np.testing.assert_array_equal(image, GRAY)


def test_a_pose_that_is_not_finite_is_not_drawn():
    one = found([[100, 100], [200, 150]], box=[40, 60, 240, 220])
    drawn = draw_detections(GRAY, [replace(one, pose=HeadPose(np.nan, 0, 0))], PAIR)
    np.testing.assert_array_equal(drawn[80:], draw_detections(GRAY, [one], PAIR)[80:])  # below the label
