"""Rules of looking, measured on held-back objects: what a model's own scores allow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_kp import Detector
from edge_kp.errors import ModelError
from edge_kp.geometry import box_iou
from edge_kp.look_rules import LookRules
from edge_kp.modeldir import read_model
from edge_kp.training.looking import (
    APART,
    FARTHEST,
    LOOK_RULES,
    Seen,
    boxes_beside,
    choose,
    figures,
    measure_looks,
    read_look_rules,
)
from edge_kp.training.samples import Sample

USUAL = LookRules()


def seen(score: Any, off: float = 0.01, moved: float = 0.003, in_place: Any = (1, 0, 0, 0)) -> Seen:
    """Looks at 200 boxes that show the same: scores (4,) or (200, 4), upright and turned."""
    rows = np.broadcast_to(np.asarray(score, float), (200, 4))
    at = np.broadcast_to(np.asarray(in_place, bool), (200, 4))
    return Seen(rows, np.full((200, 4), off), rows, np.full((200, 4), moved), at)


NOTHING = seen([0.0] * 4, in_place=[0] * 4)


def test_a_sure_model_has_the_usual_rules():
    rules = choose(seen([0.99999, 0.1, 0.2, 0.1]), NOTHING, 0.5)
    assert (rules.certain, rules.turned) == (USUAL.certain, USUAL.turned)


def test_a_model_of_lower_scores_asks_for_less():
    looks = seen([0.95, 0.2, 0.3, 0.2])
    rules = choose(looks, NOTHING, 0.5)
    assert rules.certain == rules.turned == 0.95
    told = figures(rules, looks, 0.5)
    assert told["turned_found_percent"] == told["upright_at_first_look_percent"] == 100
    assert figures(USUAL, looks, 0.5)["turned_found_percent"] == 0


def test_what_is_sure_when_it_is_wrong_is_not_believed_at_once():
    """Upside down, one in ten looks upright to this model, at the score of an upright one."""
    score = np.tile([0.97, 0.1, 0.1, 0.1], (200, 1))
    score[::10, 2] = 0.98
    assert choose(seen(score), NOTHING, 0.5).certain == pytest.approx(0.98)
    score[::10, 2] = 0.6  # unless that leaves more doubt
    assert choose(seen(score), NOTHING, 0.5).certain == pytest.approx(0.97)


def test_an_object_that_looks_the_same_upside_down_is_looked_at_upright_alone():
    rules = choose(seen([0.97, 0.1, 0.9999, 0.1]), NOTHING, 0.5)
    assert rules.turned == 1
    assert choose(seen([0.97, 0.1, 0.9999, 0.1], in_place=[1] * 4), NOTHING, 0.5).turned < 1, (
        "where its points are found it is seen right"
    )


def test_what_looks_turned_where_nothing_is_does_not_count():
    score = np.zeros((200, 4))
    score[::10, 1] = 0.9995
    looks, nothing = seen([0.99999, 0.1, 0.2, 0.1]), seen(score, in_place=[0] * 4)
    assert choose(looks, nothing, 0.5).turned == USUAL.turned
    score[::10, 1] = 0.99995
    assert choose(looks, seen(score, in_place=[0] * 4), 0.5).turned == pytest.approx(0.99995)
    score[::10, 0] = 0.99995  # somebody whom nobody labelled, upright
    assert choose(looks, seen(score, in_place=[0] * 4), 0.5).turned == USUAL.turned


def test_few_looks_at_nothing_loosen_no_rule():
    few = Seen(*(values[:20] for values in NOTHING))
    assert choose(seen([0.95, 0.2, 0.3, 0.2]), few, 0.5).turned == 1
    assert choose(seen([0.99995, 0.2, 0.3, 0.2]), few, 0.5).turned == USUAL.turned


def test_points_in_one_place_spoil_nothing():
    """Stage 2 cannot look at them: they count as moved out of all bounds."""
    looks = seen([0.99999, 0.1, 0.2, 0.1])
    moved = looks.moved.copy()
    moved[0], moved[1, 2] = FARTHEST, FARTHEST
    for some in (slice(None), slice(2), slice(1)):
        part = Seen(*(values[some] for values in looks._replace(moved=moved)))
        rules = choose(part, NOTHING, 0.5)
        assert 0 <= figures(rules, part, 0.5)["turned_found_percent"] <= 100


def test_who_is_seen_in_place_at_a_low_score_is_not_found():
    looks = seen([0.99999, 0.3, 0.3, 0.3], in_place=[1] * 4)
    assert figures(replace(USUAL, turned=1.0), looks, 0.5)["turned_found_percent"] == 0


def test_a_model_that_places_its_points_worse_is_granted_more():
    exact, coarse = (
        choose(seen([1, 0, 0, 0], off, moved), NOTHING, 0.5) for off, moved in ((0.01, 0.002), (0.04, 0.01))
    )
    assert coarse.placed == pytest.approx(4 * exact.placed)
    assert coarse.settled == pytest.approx(5 * exact.settled, rel=1e-4)


@given(
    st.integers(0, 10**6),
    st.integers(10, 300),
    st.integers(10, 300),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_boxes_beside_an_object_lie_in_the_frame_and_off_it(seed, width, height, w, h):
    rng = np.random.default_rng(seed)
    box = np.float32([3, 4, 3 + w, 4 + h])
    others = [np.float32([0, 0, 9, 9])]
    found = boxes_beside(width, height, box, others, 3, rng)
    assert len(found) <= 3
    for beside in found:
        np.testing.assert_allclose(beside[2:] - beside[:2], [w, h], atol=1e-3)
        assert (beside[:2] >= -0.5).all()
        assert (beside[2:] <= np.array([width, height]) - 0.5 + 1e-3).all()
        assert all(box_iou(beside, other) <= APART for other in (box, *others))


def test_the_shipped_model_sees_turned_faces(frames):
    """Measured on its clip, whose faces stand still as labels."""
    with Detector("face68", backend="onnxruntime", precision="fp32", threads=1) as detector:
        samples = []
        for i in range(0, 60, 10):
            (face,) = detector.detect(frames[i])
            visible = np.ones(len(face.keypoints), np.float32)
            samples.append(Sample(f"clip/{i}.png", face.keypoints, visible, {}, frames[i].copy))
        rules, told = measure_looks(detector.cascade, samples)
    assert told["objects"] == 6
    assert told["turned_found_percent"] > 90
    assert told["upright_taken_for_turned_percent"] == 0
    assert rules.turned <= 0.99999


def test_training_measures_and_export_tells(tiny_run: Path, tiny_model: Path) -> None:
    kept = json.loads((tiny_run / LOOK_RULES).read_text())
    assert kept["figures"]["objects"] == 8
    assert kept["figures"]["whole_photos"] > 0  # with the locator, which was trained last
    rules = read_look_rules(tiny_run / LOOK_RULES)
    assert rules.to_json() == kept["rules"]
    assert read_model(tiny_model).looks == rules


def test_a_run_of_an_older_version_has_the_usual_rules(tmp_path: Path) -> None:
    assert read_look_rules(tmp_path / LOOK_RULES) == USUAL


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"rules": []}', '{"rules": "turned"}'),
        *(f'{{"rules": {{"turned": {value}}}}}' for value in ("3", '"x"', "true", "NaN", "9" * 400)),
        '{"rules": {"turnt": 0.5}}',
    ],
)
def test_damaged_rules_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / LOOK_RULES).write_text(text)
    with pytest.raises(ModelError, match=r"looks\.json.*run the same python -m edge_kp\.train again"):
        read_look_rules(tmp_path / LOOK_RULES)


def test_a_model_that_looks_at_nothing_turned_asks_for_no_turned_look(frames, monkeypatch):
    with Detector("face68", backend="onnxruntime", precision="fp16", threads=1) as detector:
        lying = np.ascontiguousarray(np.rot90(frames[0]))
        (face,) = detector.detect(lying)
        spec = replace(detector.spec, looks=replace(USUAL, turned=1.0))
        monkeypatch.setattr(detector, "spec", spec)
        turned = []
        detect_each, locate = detector.cascade.detect_each, detector.locator

        def watched(images, boxes, turns):
            turned.extend(turns or [])
            return detect_each(images, boxes, turns)

        def located(image, turn=0):
            turned.append(turn)
            return locate(image, turn)

        monkeypatch.setattr(detector.cascade, "detect_each", watched)
        monkeypatch.setattr(detector, "locator", located)
        detector.detect(lying)
        detector.detect(lying, [face.box])
        detector.detect(cv2.blur(lying, (9, 9)))
    assert turned
    assert not any(turned)
