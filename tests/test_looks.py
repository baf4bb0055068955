"""Searching a frame: objects that lie on their side or stand on their head, and what is looked at again."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_kp import Detector
from edge_kp.each_frame import EachFrame
from edge_kp.geometry import box_iou, tight_box
from edge_kp.locator import Located
from edge_kp.looks import look, search, search_all_turns
from edge_kp.modeldir import SHIPPED
from edge_kp.together import Detect, Locate, run_alone, run_together
from edge_kp.tracker import Tracker
from edge_kp.training.textures import random_texture

CLIP = SHIPPED.parent / "assets" / "astronaut.mp4"
TURNS = (1, 2, 3)


@pytest.fixture(scope="module", params=["staged", "fused"])
def detector(request):
    with Detector(
        "face68", backend="onnxruntime", precision="fp16", cascade=request.param, threads=1
    ) as made:
        yield made


@pytest.fixture(scope="module")
def frames():
    capture = cv2.VideoCapture(str(CLIP))
    return [capture.read()[1] for _ in range(40)]


def turned(image, quarters):
    """The image turned against the clock."""
    return np.ascontiguousarray(np.rot90(image, quarters))


def turned_points(points, quarters, image):
    """Points of an image, where they lie once it is turned against the clock."""
    height, width = image.shape[:2]
    for _ in range(quarters):
        points = np.stack([points[:, 1], width - 1 - points[:, 0]], 1)
        width, height = height, width
    return points


def off(found, expected):
    """Mean distance, share of the box."""
    x0, y0, x1, y1 = tight_box(expected)
    return np.linalg.norm(found - expected, axis=1).mean() / max(x1 - x0, y1 - y0)


def requests(detector, work):
    """What a work asks of the networks, and what it returns."""
    asked = []

    def watched():
        answer = None
        try:
            while True:
                asked.append(work.send(answer))
                answer = yield asked[-1]
        except StopIteration as end:
            return end.value

    return run_alone(detector, watched()), asked


@pytest.mark.parametrize("quarters", TURNS)
def test_a_face_is_found_however_the_picture_is_turned(detector, frames, quarters):
    (upright,) = detector.detect(frames[0])
    image = turned(frames[0], quarters)
    (found,) = detector.detect(image)
    expected = turned_points(upright.keypoints, quarters, frames[0])
    assert off(found.keypoints, expected) < 0.03
    assert found.score > 0.99
    (each,) = EachFrame(detector).update(image)
    np.testing.assert_array_equal(each.keypoints, found.keypoints)


@pytest.mark.parametrize("quarters", TURNS)
def test_a_box_that_is_given_may_hold_a_turned_face(detector, frames, quarters):
    (upright,) = detector.detect(frames[0])
    expected = turned_points(upright.keypoints, quarters, frames[0])
    (found,) = detector.detect(turned(frames[0], quarters), [tight_box(expected)])
    assert off(found.keypoints, expected) < 0.03


def test_what_is_seen_beyond_doubt_is_looked_at_once(detector, frames):
    looks, asked = requests(detector, search_all_turns(detector, frames[0]))
    assert [type(request) for request in asked] == [Locate, Detect]
    assert detector.found(looks.result, looks.least) == [0]


def test_only_where_nothing_is_found_the_frame_is_turned(detector):
    frame = cv2.resize(random_texture(64, np.random.default_rng(1)), (320, 240))
    looks, asked = requests(detector, search_all_turns(detector, frame))
    assert [request.turn for request in asked if isinstance(request, Locate)] == [0, 1, 2, 3]
    assert detector.found(looks.result, looks.least) == []
    assert looks.seconds["locate"] > 0


def test_two_searches_together_are_those_of_each_alone(detector, frames):
    images = [turned(frames[0], 2), frames[5]]
    together = run_together(detector, [search(detector, image) for image in images])
    for looks, image in zip(together, images, strict=True):
        alone = run_alone(detector, search(detector, image))
        np.testing.assert_allclose(looks.result.keypoints, alone.result.keypoints, atol=0.02)
        np.testing.assert_array_equal(looks.least, alone.least)


class Shaken:
    """A cascade whose first look is in doubt, and whose stage 2 finds its objects elsewhere each time."""

    def __init__(self, cascade, shift):
        self.alignment = cascade.alignment
        self._cascade, self._shift = cascade, shift

    def detect_each(self, images, boxes, turns):
        result = self._cascade.detect_each(images, boxes, turns)
        upright = np.array(turns) == 0
        return replace(result, score=np.where(upright, np.minimum(result.score, 0.99), 0).astype(np.float32))

    def refine_each(self, images, keypoints):
        result = self._cascade.refine_each(images, keypoints)
        wanted = result.wanted.copy()
        wanted[:, :, 2] += self._shift
        return replace(result, wanted=wanted)


@pytest.mark.parametrize(
    ("shift", "least", "told"), [(0.0, 0.98, 1), (0.03, 0.98, 0), (0.03, 0.0, 1), (0.0, 0.0, 1)]
)
def test_what_the_locator_doubts_must_stay_in_its_place(detector, frames, monkeypatch, shift, least, told):
    """What the locator is sure of counts all the same."""
    (face,) = detector.detect(frames[0])
    monkeypatch.setattr(detector, "cascade", Shaken(detector.cascade, shift))
    located = Located(face.box[None], np.float32([least]))
    monkeypatch.setattr(detector, "locator", lambda *_: located)
    looks = run_alone(detector, search(detector, frames[0]))
    assert len(detector.found(looks.result, looks.least)) == told


def test_what_is_found_in_a_turned_frame_must_be_right_beyond_doubt(detector, frames):
    """The locator's box of an upright face in a frame that is looked at upside down leads to it, upright."""
    (face,) = detector.detect(frames[0])
    looks = run_alone(detector, look(detector, frames[0], [face.box], np.zeros(1), [2]))
    (row,) = detector.found(looks.result, looks.least)
    assert off(looks.result.keypoints[row], face.keypoints) < 0.03
    nothing = np.full_like(frames[0], 90)
    looks = run_alone(detector, look(detector, nothing, [face.box], np.zeros(1), [2]))
    assert detector.found(looks.result, looks.least) == []
    assert np.isinf(looks.least).all()


@pytest.mark.parametrize("track", ["fast", "full"])
def test_a_video_upside_down_is_followed(detector, frames, track):
    """Within a few frames, also where the astronaut's suit looks like a face that stands upright."""
    tracker = Tracker(detector, track=track, smooth="off")
    found = [tracker.update(turned(frame, 2)) for frame in frames]
    ids = set()
    for frame, told in zip(frames[10:], found[10:], strict=True):
        (upright,) = detector.detect(frame)
        expected = turned_points(upright.keypoints, 2, frame)
        (face,) = (d for d in told if box_iou(d.box, tight_box(expected)) > 0.5)
        assert off(face.keypoints, expected) < 0.04
        ids.add(face.id)
    assert len(ids) == 1


def test_a_video_on_its_side_is_followed(detector, frames):
    tracker = Tracker(detector, smooth="off")
    found = [tracker.update(turned(frame, 1)) for frame in frames]
    assert {d.id for told in found for d in told} == {1}
    assert all(found[9:])


def test_a_locator_looks_at_the_frame_turned_and_tells_of_it_as_it_is(detector, frames):
    frame = frames[0][:, :500]  # no square
    boxes = detector.locator(frame).boxes
    assert len(boxes)
    for quarters in TURNS:
        located = detector.locator(turned(frame, quarters), quarters).boxes
        corners = boxes.reshape(-1, 2)
        expected = turned_points(corners, quarters, frame).reshape(-1, 2, 2)
        expected = np.concatenate([expected.min(1), expected.max(1)], 1)
        np.testing.assert_allclose(located, expected, atol=1e-3)
    assert box_iou(boxes[0], detector.detect(frame)[0].box) > 0.5
