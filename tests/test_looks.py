"""Searching a frame: objects that lie on their side or stand on their head, and what is looked at again."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_kp import Detector
from edge_kp.each_frame import EachFrame
from edge_kp.geometry import box_iou, tight_box
from edge_kp.locator import ImageLocator, Located
from edge_kp.looks import Looks, look, search, search_all_turns
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
    assert detector.found(looks) == [0]


def test_only_where_nothing_is_found_the_frame_is_turned(detector):
    frame = cv2.resize(random_texture(64, np.random.default_rng(1)), (320, 240))
    looks, asked = requests(detector, search_all_turns(detector, frame))
    assert [request.turn for request in asked if isinstance(request, Locate)] == [0, 1, 2, 3]
    assert detector.found(looks) == []
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
    assert len(detector.found(looks)) == told


def test_what_is_found_in_a_turned_frame_must_be_right_beyond_doubt(detector, frames):
    """The locator's box of an upright face in a frame that is looked at upside down leads to it, upright."""
    (face,) = detector.detect(frames[0])
    looks = run_alone(detector, look(detector, frames[0], [face.box], np.zeros(1), [2]))
    (row,) = detector.found(looks)
    assert off(looks.result.keypoints[row], face.keypoints) < 0.03
    nothing = np.full_like(frames[0], 90)
    looks = run_alone(detector, look(detector, nothing, [face.box], np.zeros(1), [2]))
    assert detector.found(looks) == []
    assert np.isinf(looks.least).all()


def test_many_boxes_are_looked_at_in_lots(detector, frames, monkeypatch):
    """So that no more looks than those of a lot are kept at once; none of them sees another result."""
    (face,) = detector.detect(frames[0])
    image = turned(frames[0], 1)
    shifts = np.float32([[0, 0], [4, 4], [200, 0], [-8, 2], [0, 90]])
    box = tight_box(turned_points(face.keypoints, 1, frames[0]))
    boxes = box + np.tile(shifts, 2)
    whole, asked = requests(detector, look(detector, image, boxes))
    monkeypatch.setattr("edge_kp.looks.AT_ONCE", 2)
    lots, asked_in_lots = requests(detector, look(detector, image, boxes))
    assert max(len(r.boxes) for r in asked if isinstance(r, Detect)) >= 5
    assert max(len(r.boxes) for r in asked_in_lots if isinstance(r, Detect)) <= 6  # three turns of two
    np.testing.assert_allclose(lots.result.keypoints, whole.result.keypoints, atol=0.02)
    np.testing.assert_array_equal(lots.least, whole.least)
    np.testing.assert_array_equal(lots.turned, whole.turned)
    assert lots.turned.any()


def test_points_in_one_place_cost_the_other_boxes_nothing(detector, frames, monkeypatch):
    (face,) = detector.detect(frames[0])
    detect_each = detector.cascade.detect_each

    def collapsed(images, boxes, turns):
        result = detect_each(images, boxes, turns)
        points, score = result.keypoints.copy(), result.score.copy()
        points[1:], score[1:] = 50, 0
        return replace(result, keypoints=points, score=score)

    monkeypatch.setattr(detector.cascade, "detect_each", collapsed)
    found = detector.detect(frames[0], [face.box, [10, 10, 60, 60]])
    assert [d.score > 0.9 for d in found] == [True, False]


@pytest.mark.parametrize(("later", "told"), [(0.9, 0.3), (0.99, 0.99)])
def test_what_stage_1_denies_stage_2_must_be_sure_of(detector, frames, monkeypatch, later, told):
    class Denied(Shaken):
        def detect_each(self, images, boxes, turns):
            result = super().detect_each(images, boxes, turns)
            return replace(result, score=np.minimum(result.score, np.float32(0.3)))

        def refine_each(self, images, keypoints):
            result = super().refine_each(images, keypoints)
            return replace(result, score=np.full_like(result.score, later))

    (face,) = detector.detect(frames[0])
    monkeypatch.setattr(detector, "cascade", Denied(detector.cascade, 0))
    (found,) = detector.detect(frames[0], [face.box])
    assert found.score == pytest.approx(told)


def test_beside_a_turned_object_nothing_else_is_in_its_place(detector, frames):
    (face,) = detector.detect(frames[0])
    result = detector.cascade(frames[0], [face.box] * 2)
    part = result.keypoints.copy()
    part[1] = part[1].mean(0) + 0.5 * (part[1] - part[1].mean(0))
    result = replace(result, keypoints=part, score=np.float32([0.99995, 0.99]))
    least = np.zeros(2, np.float32)
    assert detector.found(Looks(result, least, np.array([False, False]), least > 0, {})) == [0, 1]
    assert detector.found(Looks(result, least, np.array([True, False]), least > 0, {})) == [0]
    least = np.float32([0.98, 0])  # that the locator doubts the other does not matter
    assert detector.found(Looks(result, least, np.array([False, False]), least > 0, {})) == [0, 1]


def asked_of(detector, frames, monkeypatch):
    """Quarter turns of each look of both stages, frame by frame."""
    turned_looks, detect_each = [], detector.cascade.detect_each

    def watched(images, boxes, turns):
        turned_looks[-1] += list(turns or [0] * len(boxes))
        return detect_each(images, boxes, turns)

    monkeypatch.setattr(detector.cascade, "detect_each", watched)
    tracker = Tracker(detector)
    for frame in frames:
        turned_looks.append([])
        tracker.update(frame)
    return turned_looks


def test_with_nothing_in_sight_turned_looks_are_taken_in_every_third_frame(detector, frames, monkeypatch):
    frame = cv2.resize(random_texture(64, np.random.default_rng(1)), (320, 240))
    located = Located(np.float32([[40, 40, 200, 200]]), np.float32([0.9]))
    monkeypatch.setattr(detector, "locator", lambda *_: located)
    monkeypatch.setattr(detector, "cascade", Half(detector.cascade))
    looks = asked_of(detector, [frame] * 7, monkeypatch)
    assert [any(turns) for turns in looks] == [True, False, False, True, False, False, True]


class Half(Shaken):
    """Nothing that it sees is quite an object."""

    def __init__(self, cascade):
        super().__init__(cascade, 0)
        self.mean_shape = cascade.mean_shape

    def detect_each(self, images, boxes, turns):
        result = self._cascade.detect_each(images, boxes, turns)
        return replace(result, score=np.full_like(result.score, 0.5))

    def refine_each(self, images, keypoints):
        result = self._cascade.refine_each(images, keypoints)
        return replace(result, score=np.full_like(result.score, 0.5))


def test_a_model_without_a_locator_looks_at_no_frame_turned(detector, frames, monkeypatch):
    spec = replace(detector.spec, locator="image", locator_size=0, locator_threshold=0.0)
    monkeypatch.setattr(detector, "spec", spec)
    monkeypatch.setattr(detector, "locator", ImageLocator())
    looks = asked_of(detector, [np.zeros_like(frames[0])] * 7, monkeypatch)
    assert [turns for turns in looks if turns] == [[0]] * 7


def test_a_turned_object_that_is_followed_needs_the_threshold_alone(detector, frames, monkeypatch):
    tracker = Tracker(detector, track="full", smooth="off", locate_every=1000)
    for frame in frames[:20]:
        before = tracker.update(turned(frame, 1))
    assert len(before) == 1

    class Less(Shaken):
        def detect_each(self, images, boxes, turns):
            result = self._cascade.detect_each(images, boxes, turns)
            return replace(result, score=np.float32(0.9) * result.score)

    monkeypatch.setattr(detector, "cascade", Less(detector.cascade, 0))
    nothing = Located(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    monkeypatch.setattr(detector, "locator", lambda *_: nothing)
    for frame in frames[20:]:
        assert [d.id for d in tracker.update(turned(frame, 1))] == [before[0].id]


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
    assert [[d.id for d in told] for told in found] == [[1]] * len(frames)


def test_photos_of_different_sizes_are_searched_turned_at_once(detector, frames):
    tracker = Tracker(detector)
    for i, quarters in enumerate((0, 1, 2, 3)):
        photo = frames[0][: 460 - 10 * i]
        assert len(tracker.update(turned(photo, quarters))) == 1


def test_who_turns_up_lying_is_found_within_nine_frames(detector, frames):
    lying = turned(frames[0], 1)
    tracker = Tracker(detector)
    found = [tracker.update(image) for image in [np.zeros_like(lying)] * 4 + [lying] * 9]
    assert not any(found[:4])
    assert any(found[4:])


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


def test_what_the_whole_frame_shows_for_sure_parts_of_it_do_not_put_in_doubt(frames):
    frame = cv2.resize(frames[0], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    scores = []
    for tiles in (1, 3):
        with Detector("face68", backend="onnxruntime", precision="fp16", threads=1, tiles=tiles) as detector:
            (box,), (score,) = detector.locator.search(frame)
            located = detector.locator(frame)
        overlap = [box_iou(box, other) for other in located.boxes]
        assert located.least[int(np.argmax(overlap))] == 0
        scores.append(score)
    assert scores[1] > scores[0]  # it is a part's box that is told
