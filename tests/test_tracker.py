"""Ids and boxes over the frames of the shipped clip, with the shipped model."""

import json
from pathlib import Path

import numpy as np
import pytest

from edge_kp import Detector, Tracker
from edge_kp.geometry import invert, transform_points
from edge_kp.tracker import EachFrame

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
    for image in frames[:21]:
        tracker.update(image)
        located.append(tracker.last_timings["locate"] > 0)
    assert [i for i, ran in enumerate(located) if ran] == [0, 10, 20]


def test_an_object_that_comes_back_nearby_keeps_its_id(detector, frames):
    tracker = Tracker(detector)
    assert [d.id for d in tracker.update(frames[0])] == [1]
    for _ in range(5):
        assert tracker.update(np.zeros_like(frames[0])) == []
    assert [d.id for d in tracker.update(frames[1])] == [1]


def test_a_forgotten_object_gets_a_new_id(detector, frames):
    tracker = Tracker(detector, remember=3)
    tracker.update(frames[0])
    for _ in range(6):
        tracker.update(np.zeros_like(frames[0]))
    assert [d.id for d in tracker.update(frames[1])] == [2]


def test_another_frame_size_starts_afresh(detector, frames):
    tracker = Tracker(detector)
    tracker.update(frames[0])
    found = tracker.update(frames[0][:, 60:].copy())
    assert [d.id for d in found] == [2]


def test_each_frame_on_its_own_numbers_from_0(detector, frames):
    worker = EachFrame(detector)
    for image in (frames[0], frames[40]):
        assert [d.id for d in worker.update(image)] == [0]
        assert worker.last_timings["locate"] > 0
