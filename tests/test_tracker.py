"""Ids and boxes over the frames of the shipped clip, with the shipped model."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_kp import Detector, Tracker
from edge_kp import tracker as tracker_module
from edge_kp.each_frame import EachFrame
from edge_kp.errors import BackendError
from edge_kp.geometry import box_iou, invert, transform_points
from edge_kp.identity import Sight, same_place
from edge_kp.live.following import Together
from edge_kp.live.frames import Frame
from edge_kp.locator import Located
from edge_kp.search import worth_a_look
from edge_kp.together import run_alone

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut.mp4"
ROWS = json.loads(CLIP.with_suffix(".json").read_text())["frames"]


@pytest.fixture(scope="module")
def detector():
    with Detector("face68", threads=1) as detector:
        yield detector


@pytest.fixture(scope="module")
def tracked(detector, frames):
    tracker = Tracker(detector)
    return [tracker.update(image) for image in frames]


def test_one_face_keeps_its_id_over_the_whole_clip(tracked):
    assert {d.id for detections in tracked for d in detections} == {1}


def test_the_face_is_there_when_visible_and_gone_when_hidden(tracked):
    clear = [bool(d) for d, row in zip(tracked, ROWS, strict=True) if not row["cover"]]
    hidden = [bool(d) for d, row in zip(tracked, ROWS, strict=True) if not row["face_visible"]]
    assert np.mean(clear) > 0.97
    assert np.mean(hidden) < 0.5


def test_keypoints_follow_the_known_motion(tracked):
    """Moved back into the photo, the keypoints of every clear frame agree."""
    back = [
        transform_points(invert(np.array(row["matrix"])), found[0].keypoints)
        for found, row in zip(tracked, ROWS, strict=True)
        if found and not row["cover"]
    ]
    middle = np.median(back, axis=0)
    unit = np.linalg.norm(middle[36] - middle[45])
    errors = [np.linalg.norm(points - middle, axis=1).mean() / unit for points in back]
    assert np.mean(errors) < 0.02
    assert np.max(errors) < 0.08


def test_two_faces_have_two_ids_that_hold(detector, frames):
    tracker = Tracker(detector)
    for image in frames[:20]:
        found = tracker.update(np.hstack([image, image[:, ::-1]]))
        assert len(found) == 2
        left, right = sorted(found, key=lambda d: d.box[0])
        if image is frames[0]:
            ids = left.id, right.id
        assert (left.id, right.id) == ids
    assert sorted(ids) == [1, 2]


def test_at_most_so_many_objects(detector, frames):
    tracker = Tracker(detector, max_objects=1)
    assert len(tracker.update(np.hstack([frames[0], frames[0]]))) == 1


def test_the_locator_rests_while_tracking(detector, frames):
    tracker = Tracker(detector, locate_every=10)
    located = []
    for image in frames[20:41]:
        tracker.update(image)
        located.append(tracker.last_timings["locate"] > 0)
    assert [i for i, ran in enumerate(located) if ran] == [0, 10, 20]


def test_nobody_is_looked_for_beyond_the_limit(detector, frames):
    tracker = Tracker(detector, max_objects=1, locate_every=2)
    for image in frames[20:40]:
        found = tracker.update(image)
        located = tracker.last_timings["locate"] > 0
    assert found
    assert not located


def test_a_lost_object_is_looked_for_at_once_and_not_in_every_frame(detector, frames):
    both = [np.hstack([image, image[:, ::-1]]) for image in frames[20:30]]
    tracker = Tracker(detector, locate_every=1000)
    assert len(tracker.update(both[0])) == 2
    located = []
    for image in both[1:]:
        one = image.copy()
        one[:, 640:] = 0
        tracker.update(one)
        located.append(tracker.last_timings["locate"] > 0)
    assert 2 <= sum(located) <= 4


def test_an_object_that_comes_back_nearby_keeps_its_id(detector, frames):
    tracker = Tracker(detector)
    assert [d.id for d in tracker.update(frames[0])] == [1]
    for _ in range(5):
        assert tracker.update(np.zeros_like(frames[0])) == []
    assert [d.id for d in tracker.update(frames[1])] == [1]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_is_found_again_hardly_seen_counts_as_where_it_was_seen_clearly(detector, frames, share):
    tracker = Tracker(detector)
    (face,) = tracker.update(frames[0])
    (known,) = tracker._tracks
    for _ in range(3):
        assert tracker.update(np.zeros_like(frames[0])) == []
    result = detector.cascade(frames[0], [face.box + 10])
    sight = Sight(replace(result, visibility=result.visibility * share), 0)
    found = tracker._new(sight)
    assert (found.id, sight.clear) == (face.id, share == 1.0)
    assert (found.time == known.time) is not sight.clear
    assert np.array_equal(found.box, known.box) is not sight.clear


def test_a_forgotten_object_gets_a_new_id(detector, frames):
    tracker = Tracker(detector, remember=0.1)
    tracker.update(frames[0])
    for _ in range(6):
        tracker.update(np.zeros_like(frames[0]))
    assert [d.id for d in tracker.update(frames[1])] == [2]


def test_another_frame_size_starts_afresh(detector, frames):
    tracker = Tracker(detector)
    tracker.update(frames[0])
    found = tracker.update(frames[0][:, 60:].copy())
    assert [d.id for d in found] == [2]


# ---- fast and full, smooth and raw -----------------------------------------------------------------------


def test_fast_leaves_stage_1_out_while_tracking_is_good(detector, frames):
    for track, least, most in (("full", 20, 20), ("fast", 1, 3)):
        tracker = Tracker(detector, track=track)
        ran = 0
        for image in frames[20:40]:
            tracker.update(image)
            ran += tracker.last_timings["stage1"] > 0
        assert least <= ran <= most


def test_fast_agrees_with_full(detector, frames):
    trackers = [Tracker(detector, track=track, smooth="off") for track in ("fast", "full")]
    apart = []
    for image in frames[20:70]:
        (fast,), (full,) = (tracker.update(image) for tracker in trackers)
        unit = np.linalg.norm(full.keypoints[36] - full.keypoints[45])
        apart.append(np.linalg.norm(fast.keypoints - full.keypoints, axis=1).mean() / unit)
    assert np.mean(apart) < 0.01


def test_fast_finds_back_after_a_jump(detector, frames):
    """A jump that stage 2 alone cannot follow is seen as such, and both stages run."""
    tracker = Tracker(detector)
    for image in frames[20:26]:
        (before,) = tracker.update(image)
    jumped = np.roll(frames[26], 30, axis=1)
    (after,) = tracker.update(jumped)
    assert tracker.last_timings["stage1"] > 0
    assert after.id == before.id
    assert after.box[0] - before.box[0] == pytest.approx(30, abs=6)


def test_smoothing_calms_a_still_face(detector, frames):
    """The same picture with fresh noise: whatever moves is jitter."""
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 6, frames[60].shape) for _ in range(16)]
    images = [np.clip(frames[60] + n, 0, 255).astype(np.uint8) for n in noise]
    jitter = {}
    for smooth in ("off", "light", "strong"):
        tracker = Tracker(detector, smooth=smooth)
        points = np.stack([tracker.update(image)[0].keypoints for image in images])[4:]
        jitter[smooth] = np.sqrt(np.mean(np.square(np.diff(points, axis=0))))
    assert jitter["strong"] < jitter["light"] < 0.6 * jitter["off"]


def test_every_face_is_smoothed(detector, frames):
    rng = np.random.default_rng(0)
    both = np.hstack([frames[60], frames[60][:, ::-1]])
    images = [np.clip(both + rng.normal(0, 6, both.shape), 0, 255).astype(np.uint8) for _ in range(12)]
    jitter = {}
    for smooth in ("off", "light"):
        tracker = Tracker(detector, smooth=smooth)
        rows = [tracker.update(image) for image in images]
        assert all(len(row) == 2 for row in rows)
        points = np.array([[d.keypoints for d in row] for row in rows])[4:]
        jitter[smooth] = np.sqrt(np.mean(np.square(np.diff(points, axis=0)), axis=(0, 2, 3)))
    assert (jitter["light"] < 0.6 * jitter["off"]).all()


def test_detections_agree_with_their_keypoints(tracked):
    for detections in tracked:
        for found in detections:
            np.testing.assert_allclose(found.box[:2], found.keypoints.min(0))
            np.testing.assert_allclose(found.box[2:], found.keypoints.max(0))


def test_a_clock_that_stands_still_or_goes_back_is_survived(detector, frames):
    tracker = Tracker(detector)
    for image, time_s in zip(frames[20:26], (0.0, 0.1, 0.1, 0.05, 900.0, 900.04), strict=True):
        (found,) = tracker.update(image, time_s)
        assert np.isfinite(found.keypoints).all()
        assert found.id == (1 if time_s < 1 else 2), "a jump cannot be told from a camera that was unplugged"


def test_after_a_gap_without_frames_an_object_is_found_again_like_any_lost_one(detector, frames):
    for gap, number in ((2.0, 1), (3600.0, 2)):
        tracker = Tracker(detector, remember=4.0)
        for i in range(20, 30):
            (before,) = tracker.update(frames[i], i / 30)
        assert before.id == 1
        (after,) = tracker.update(frames[30], 30 / 30 + gap)
        assert tracker.last_timings["locate"] > 0
        assert after.id == number, f"after {gap} s"
        (later,) = tracker.update(frames[31], 31 / 30 + gap)
        assert later.id == number
        assert tracker.last_timings["locate"] == 0


def test_pictures_taken_far_apart_are_followed_once_that_is_known(detector, frames):
    tracker = Tracker(detector, remember=4.0)
    ids = [tracker.update(frames[20 + i], 60.0 * i)[0].id for i in range(6)]
    assert ids == [1, 2, 2, 2, 2, 2], "the first gap might have been an interruption"


def test_what_is_done_with_a_detection_does_not_move_the_track(detector, frames):
    tracker, careless = Tracker(detector), Tracker(detector)
    for i in range(20, 50):
        (found,) = tracker.update(frames[i], i / 30)
        (other,) = careless.update(frames[i], i / 30)
        np.testing.assert_array_equal(other.box, found.box)
        np.testing.assert_array_equal(other.keypoints, found.keypoints)
        assert other.id == found.id
        other.box[:] *= 0.5
        other.keypoints[:] = 0


@pytest.mark.parametrize("gaps", [(0.002, 0.065), (0.0, 0.067), (0.001, 0.001, 0.098)])
def test_frames_that_arrive_in_bursts_are_followed_as_well(detector, frames, gaps):
    """As network cameras deliver them; the object itself moves evenly."""
    tracker, time_s, again = Tracker(detector), 0.0, 0
    for i, image in enumerate(frames[20:80]):
        time_s += gaps[i % len(gaps)]
        (found,) = tracker.update(image, time_s)
        assert found.id == 1
        again += tracker.last_timings["stage1"] > 0
    assert again < 12


@pytest.mark.parametrize("step", [6, 10])
def test_a_slow_camera_keeps_the_id(detector, frames, step):
    """At 5 and 3 frames a second an object moves further between two frames, and may do so."""
    tracker = Tracker(detector)
    for i in range(0, 165, step):
        found = tracker.update(frames[i], i / 30)
        assert [d.id for d in found] == [1]


def test_a_stamp_that_is_no_number_is_no_stamp(detector, frames):
    tracker = Tracker(detector)
    for image, time_s in zip(frames[20:25], (0.0, 0.033, float("nan"), 0.1, float("inf")), strict=True):
        (found,) = tracker.update(image, time_s)
        assert np.isfinite(found.keypoints).all()


class TwoBoxes:
    """A locator whose largest box shows nothing."""

    def __init__(self, real):
        self.real = real

    def __call__(self, image, turn=0):
        boxes, least = self.real(image, turn)
        return Located(
            np.concatenate([np.float32([[0, 0, 250, 250]]), boxes]), np.append(np.float32(0), least)
        )

    def close(self):
        pass


def test_a_false_box_takes_no_place(detector, frames, monkeypatch):
    monkeypatch.setattr(detector, "locator", TwoBoxes(detector.locator))
    image = frames[40].copy()
    image[:250, :250] = 90
    assert len(Tracker(detector, max_objects=1).update(image)) == 1


def test_a_newcomer_that_the_locator_doubts_must_be_surer(detector, frames, monkeypatch):
    boxes, _ = detector.locator(frames[40])
    nothing = Located(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    (score,) = (found.score for found in detector.detect(frames[40]))
    for least, count in ((0.0, 1), (score - 1e-3, 1), (1.001, 0)):
        located = Located(boxes, np.full(len(boxes), least, np.float32))
        monkeypatch.setattr(
            detector, "locator", lambda _, turn=0, located=located: nothing if turn else located
        )
        for follower in (Tracker(detector), EachFrame(detector)):
            assert len(follower.update(frames[40])) == count


@pytest.mark.parametrize("step", [1, 3, 10])
def test_nothing_but_the_face_is_told_in_any_frame(frames, step):
    """In single frames a space shuttle and the collar of a suit look like a covered face."""
    with Detector("face68", backend="onnxruntime", precision="fp32", threads=1) as detector:
        tracker = Tracker(detector)
        told = {d.id for i in range(0, 170, step) for d in tracker.update(frames[i], i / 30)}
    assert told == {1}


@pytest.mark.parametrize(
    ("least", "counts"), [(0.98, [0, 1]), (0.0, [1, 1])], ids=["doubted", "sure"]
)  # objects told in the first two frames that show it
def test_what_the_locator_doubts_must_be_seen_in_two_frames_running(
    detector, frames, monkeypatch, least, counts
):
    """Unless the stages leave hardly a doubt, or it is a first frame, which may be a photo."""
    (face,) = detector.detect(frames[0])
    located = Located(face.box[None], np.float32([least]))
    monkeypatch.setattr(detector, "locator", lambda *_: located)
    monkeypatch.setattr(tracker_module, "DOUBTLESS", 1.1)
    empty, shown = np.full_like(frames[0], 90), frames[0]
    assert len(Tracker(detector).update(shown)) == 1
    tracker = Tracker(detector)
    assert [len(tracker.update(image)) for image in (empty, shown, shown)] == [0, *counts]
    tracker = Tracker(detector)
    assert [len(tracker.update(image)) for image in (empty, shown, empty, shown)] == [
        0,
        counts[0],
        0,
        counts[0],
    ]
    monkeypatch.undo()
    monkeypatch.setattr(detector, "locator", lambda *_: located)
    tracker = Tracker(detector)
    assert [len(tracker.update(image)) for image in (empty, shown)] == [0, 1]


def test_a_doubted_newcomer_is_looked_for_in_the_next_frame(detector, frames, monkeypatch):
    """However seldom the locator is asked while another is followed."""
    both = [np.hstack([image, image[:, ::-1]]) for image in frames[20:26]]
    one = [np.hstack([image, np.zeros_like(image)]) for image in frames[20:26]]
    tracker = Tracker(detector, locate_every=3)
    locate = detector.locator

    def doubting(image, turn=0):
        boxes, least = locate(image, turn)
        return Located(boxes, np.where(boxes[:, 0] > 640, np.float32(0.98), least))

    monkeypatch.setattr(detector, "locator", doubting)
    monkeypatch.setattr(tracker_module, "DOUBTLESS", 1.1)
    found = [len(tracker.update(image)) for image in [*one[:3], *both[3:]]]
    assert found == [1, 1, 1, 1, 2, 2]


def test_what_was_found_turned_is_told_at_once_by_its_own_rule(detector, frames, monkeypatch):
    """Whatever its model asks of a turned look: the frame is turned otherwise in the next frames."""
    spec = replace(detector.spec, looks=replace(detector.spec.looks, turned=0.9))
    monkeypatch.setattr(detector, "spec", spec)
    monkeypatch.setattr(tracker_module, "DOUBTLESS", 1.1)
    lying = np.ascontiguousarray(np.rot90(frames[0]))
    tracker = Tracker(detector)
    found = [len(tracker.update(image)) for image in [np.zeros_like(lying)] * 2 + [lying] * 9]
    assert found[-1] == 1


def test_a_doubted_box_that_leads_to_who_is_followed_asks_for_no_search(detector, frames, monkeypatch):
    (face,) = detector.detect(frames[0])
    width = face.box[2] - face.box[0]
    shifted = Located(face.box[None] + np.float32([0.55, 0, 0.55, 0]) * width, np.float32([0.98]))
    sure = Located(face.box[None], np.zeros(1, np.float32))
    asked = []
    monkeypatch.setattr(detector, "locator", lambda *_: asked.append(1) or (shifted if asked[1:] else sure))
    monkeypatch.setattr(tracker_module, "DOUBTLESS", 1.1)
    (own,) = detector.detect(frames[0], shifted.boxes)
    assert same_place(own.box, face.box)
    tracker = Tracker(detector, locate_every=10)
    for _ in range(31):
        assert len(tracker.update(frames[0])) == 1
    assert len(asked) == 4


def test_a_gap_makes_no_two_frames_running(detector, frames, monkeypatch):
    (face,) = detector.detect(frames[0])
    monkeypatch.setattr(detector, "locator", lambda *_: Located(face.box[None], np.float32([0.98])))
    monkeypatch.setattr(tracker_module, "DOUBTLESS", 1.1)
    tracker = Tracker(detector)
    empty, shown = np.full_like(frames[0], 90), frames[0]
    clips = [(empty, 0.0), (empty, 0.1), (shown, 0.2), (shown, 60.0), (shown, 60.1)]
    assert [len(tracker.update(image, time_s)) for image, time_s in clips] == [0, 0, 0, 0, 1]


def test_who_comes_out_of_a_cover_is_nobody_new(detector, frames, monkeypatch):
    """Half a face in a box that the locator doubts may be the lost one: it is known once it is clear."""
    half = frames[60].copy()
    half[185:] = 90  # below the nose
    (seen,) = detector.detect(frames[60])
    (found,) = detector.detect(half, [seen.box])
    assert found.score > 0.9
    assert found.visibility.mean() < 0.8
    located = Located(seen.box[None], np.float32([0.9]))
    nothing = Located(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    locate, black = detector.locator, np.zeros_like(half)
    say = {id(half): located, id(black): nothing}
    monkeypatch.setattr(detector, "locator", lambda image, turn=0: say.get(id(image)) or locate(image, turn))
    assert len(Tracker(detector).update(half)) == 1  # nobody is lost whom it could be
    tracker = Tracker(detector)
    assert [d.id for d in tracker.update(frames[60])] == [1]
    assert tracker.update(black) == []
    assert tracker.update(half) == []
    assert [d.id for d in tracker.update(frames[60])] == [1]


def test_boxes_in_doubt_crowd_out_none_that_is_sure(detector, frames, monkeypatch):
    sure, _ = detector.locator(frames[40])
    doubted = np.tile(np.float32([0, 0, 300, 300]), (20, 1)) + np.float32(7 * np.arange(20)[:, None])
    image = np.full_like(frames[40], 90)
    x0, y0, x1, y1 = np.round(sure[0] + [-60, -60, 60, 60]).astype(int).tolist()
    image[y0:y1, x0:x1] = frames[40][y0:y1, x0:x1]
    located = Located(np.concatenate([doubted, sure]), np.float32([0.9999] * 20 + [0]))
    monkeypatch.setattr(detector, "locator", lambda *_: located)
    assert len(Tracker(detector, max_objects=1).update(image)) == 1


def test_doubt_is_looked_into_for_a_second_only(detector, frames):
    """A face that stays half covered is no reason to search in every third frame for ever."""
    tracker = Tracker(detector, max_objects=1, locate_every=15)
    tracker.update(frames[60])
    half = frames[60].copy()
    half[185:] = 90  # below the nose
    searched = []
    for _ in range(75):
        assert tracker.update(half)
        searched.append(tracker.last_timings["locate"] > 0)
    assert sum(searched[:30]) >= 5
    assert sum(searched[45:]) <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"track": "slow"}, "track: expected one of fast, full, got 'slow'"),
        ({"smooth": "very"}, "smooth: expected one of off, light, strong, got 'very'"),
        ({"max_objects": 0}, "max_objects: expected at least 1, got 0"),
        ({"locate_every": 0}, "locate_every: expected at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(detector, options, message):
    with pytest.raises(ValueError, match=message):
        Tracker(detector, **options)


@pytest.mark.parametrize("kind", [Tracker, EachFrame])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("face68", "detector: expected a Detector, got 'face68'; pass Detector('face68')"),
        (Path("models/cat"), "detector: expected a Detector, got 'models/cat'; pass Detector('models/cat')"),
        (None, "detector: expected a Detector, got a NoneType; pass Detector('face68')"),
    ],
)
def test_what_is_no_detector_is_refused_with_the_call_that_makes_one(kind, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(given)


def test_the_head_pose_comes_with_a_face(tracked):
    first = tracked[60][0]
    assert abs(first.pose.yaw) < 25
    assert abs(first.pose.pitch) < 25
    assert set(first.to_json()["pose"]) == {"yaw", "pitch", "roll"}


# ---- two faces that meet ---------------------------------------------------------------------------------


class Head:
    """A head to move about, cut out of a frame by an ellipse."""

    def __init__(self, frame, scale, other):
        cut = frame[40:275, 300:496]
        if other:  # mirrored, in other colours
            cut = cv2.convertScaleAbs(cut[:, ::-1, ::-1], alpha=0.75, beta=30)
        self.image = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = self.image.shape[:2]
        self.mask = np.zeros((height, width), np.uint8)
        middle, axes = (width // 2, height // 2), (int(width * 0.46), int(height * 0.47))
        cv2.ellipse(self.mask, middle, axes, 0, 0, 360, 1, -1)

    def paste(self, canvas, x, y=100):
        """Middle at (x, y); what lies outside is cut off."""
        height, width = self.image.shape[:2]
        to_canvas = np.float32([[1, 0, x - width / 2], [0, 1, y - height / 2]])
        size = canvas.shape[1::-1]
        mask = cv2.warpAffine(self.mask, to_canvas, size, flags=cv2.INTER_NEAREST) > 0
        canvas[mask] = cv2.warpAffine(self.image, to_canvas, size)[mask]


@pytest.fixture(scope="module")
def heads(frames):
    return Head(frames[60], 0.8, other=False), Head(frames[60], 0.9, other=True)


def canvas():
    """A plain wall of some structure."""
    y, x = np.mgrid[0:220, 0:640]
    return np.dstack([110 + 30 * np.sin(x / 40 + y / 25 + c) for c in range(3)]).astype(np.uint8)


@pytest.mark.parametrize("track", ["fast", "full"])
def test_ids_survive_a_crossing(detector, heads, track):
    """One head goes right, the other left in front of it, and both keep their numbers."""
    tracker = Tracker(detector, track=track)
    behind, front = heads
    for i in range(60):
        image = canvas()
        behind.paste(image, 120 + 7 * i)
        front.paste(image, 530 - 7 * i)
        found = tracker.update(image)
        if i == 8:
            left, right = sorted(found, key=lambda d: d.box[0])
    now = {d.id: d for d in found}
    assert set(now) == {left.id, right.id}
    assert now[left.id].box[0] > now[right.id].box[2], "they have swapped"


def test_a_face_that_covers_another_gets_a_number_of_its_own(detector, frames, heads):
    """A larger head moves in front of the one that is followed, and stays there."""
    tracker = Tracker(detector, max_objects=1)
    behind, front = heads[0], Head(frames[60], 1.35, other=True)
    for i in range(60):
        image = canvas()
        behind.paste(image, 320)
        if i > 10:
            front.paste(image, max(320, 640 - 12 * (i - 10)), 110)
        found = tracker.update(image)
        if i == 10:
            (before,) = found
    (after,) = found
    assert after.box[2] - after.box[0] > 1.3 * (before.box[2] - before.box[0]), "the other head is followed"
    assert after.id != before.id


@pytest.mark.parametrize(("scale", "x", "y"), [(0.8, 330, 104), (0.7, 316, 96), (1.0, 500, 110)])
def test_a_cut_to_another_face_gives_a_new_number(detector, frames, heads, scale, x, y):
    """Nearly where the face before was, and elsewhere."""
    tracker = Tracker(detector)
    other = Head(frames[60], scale, other=True)
    for i in range(12):
        image = canvas()
        heads[0].paste(image, 316 + i, 100)
        (before,) = tracker.update(image)
    for _ in range(3):
        image = canvas()
        other.paste(image, x + 12, y)
        (after,) = tracker.update(image)
        assert after.id != before.id
    for _ in range(3):
        image = canvas()
        heads[0].paste(image, 316, 100)
        (back,) = tracker.update(image)
        assert back.id == before.id, "who is cut back to is known again"


@pytest.mark.parametrize(("scale", "x"), [(0.8, 480), (0.5, 320), (1.1, 320)])
@pytest.mark.parametrize("most", [1, 8])
def test_a_cut_to_the_same_face_in_another_place_or_size_keeps_the_number(detector, frames, scale, x, most):
    tracker, before, after = (
        Tracker(detector, most),
        Head(frames[60], 0.8, False),
        Head(frames[60], scale, False),
    )
    for _ in range(12):
        image = canvas()
        before.paste(image, 200, 110)
        (known,) = tracker.update(image)
    for _ in range(3):
        image = canvas()
        after.paste(image, x, 110)
        (found,) = tracker.update(image)
        assert found.id == known.id
        side = (found.box[3] - found.box[1]) / (known.box[3] - known.box[1])
        assert side == pytest.approx(scale / 0.8, abs=0.1)


@pytest.mark.parametrize("most", [1, 8])
def test_a_track_inside_a_larger_face_is_taken_to_it(detector, frames, most):
    """Stage 2 can settle on a part of a face, and be sure of it; only the locator sees the whole."""
    tracker = Tracker(detector, most)
    (face,) = tracker.update(frames[60])
    (track,) = tracker._tracks
    middle, side = (face.box[:2] + face.box[2:]) / 2, face.box[2:] - face.box[:2]
    track.at = np.concatenate([middle - 0.25 * side, middle + 0.25 * side])
    run_alone(detector, tracker._look_around(frames[60]))
    (moved,) = tracker._tracks
    assert box_iou(moved.at, face.box) > 0.8


def test_a_face_within_another_box_stays_if_the_locator_sees_it_there(detector, frames):
    tracker = Tracker(detector)
    (face,) = tracker.update(frames[60])
    (track,) = tracker._tracks
    side = np.tile((face.box[2:] - face.box[:2]) / 2, 2) * [-1, -1, 1, 1]
    around = np.float32(face.box + side)
    for boxes, count in (([around], 1), ([around, face.box], 0)):
        located = Located(np.float32(boxes), np.zeros(len(boxes), np.float32))
        new, moved = worth_a_look(located, [track], 0)
        assert not new
        assert len(moved) == count


def test_even_where_there_is_no_room_tracks_are_compared_with_the_locator_now_and_then(detector, frames):
    tracker = Tracker(detector, max_objects=1, locate_every=3)
    searched = []
    for _ in range(25):
        tracker.update(frames[60])
        searched.append(tracker.last_timings["locate"] > 0)
    assert [i for i, ran in enumerate(searched) if ran] == [0, 12, 24]


def test_one_face_is_never_followed_twice(detector, frames):
    tracker = Tracker(detector, locate_every=1)
    for image in frames[20:60]:
        found = tracker.update(image)
        assert len(found) == 1


def test_two_still_faces_side_by_side_are_two(detector, heads):
    tracker = Tracker(detector)
    for _ in range(5):
        image = canvas()
        heads[0].paste(image, 200)
        heads[1].paste(image, 420)
        found = tracker.update(image)
    assert len(found) == 2
    assert box_iou(found[0].box, found[1].box) == 0


def test_each_frame_on_its_own_numbers_from_0(detector, frames):
    worker = EachFrame(detector)
    for image in (frames[0], frames[40]):
        assert [d.id for d in worker.update(image)] == [0]
        assert worker.last_timings["locate"] > 0


def test_two_sources_at_once_and_one_that_fails_harms_the_other_not(detector, frames):
    together = Together(detector, [Tracker(detector), Tracker(detector), EachFrame(detector)])
    alone = Tracker(detector)
    grey = frames[0][:, :, 0]
    for i in range(20, 24):
        batch = [
            Frame(i, i / 30, 0.0, image, source) for source, image in enumerate((frames[i], grey, frames[i]))
        ]
        (found, _), error, (each, _) = together.update(batch)
        (expected,) = alone.update(frames[i], i / 30)
        np.testing.assert_allclose(found[0].keypoints, expected.keypoints, atol=0.02)
        assert len(each) == 1
        assert isinstance(error, ValueError)
        assert "expected uint8 (H, W, 3) BGR" in str(error)


def test_a_network_that_fails_for_one_object_answers_the_others(detector, frames, monkeypatch):
    together = Together(detector, [EachFrame(detector), EachFrame(detector)])
    run, black = detector.cascade.detect_each, np.zeros_like(frames[0])
    box = np.array([10, 10, 60, 60], np.float32)

    def detect_each(images, boxes, turns):
        if any(image is black for image in images):
            raise BackendError("out of memory")
        return run(images, boxes, turns)

    monkeypatch.setattr(detector.cascade, "detect_each", detect_each)
    locate = detector.locator
    seen = Located(box[None], np.zeros(1, np.float32))
    monkeypatch.setattr(
        detector, "locator", lambda image, turn=0: seen if image is black else locate(image, turn)
    )
    bad, good = together.update([Frame(0, 0.0, 0.0, black, 0), Frame(0, 0.0, 0.0, frames[20], 1)])
    assert isinstance(bad, BackendError)
    assert len(good[0]) == 1
