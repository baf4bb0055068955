"""What the whole detector finds in photos, and from which score on what its locator doubts may count."""

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
from edge_kp.look_rules import LookRules
from edge_kp.training import whole
from edge_kp.training.looking import read_look_rules
from edge_kp.training.photos import Photo
from edge_kp.training.whole import WRONG, Told, add_doubted, choose, figures, look_at_photos
from edge_kp.types import Array

USUAL = LookRules().doubted


def told(*rows: tuple[float, bool, bool], objects: int = 10, photos: int = 5) -> Told:
    """Rows of score, doubted, right."""
    score, doubted, right = np.array(rows, float).reshape(-1, 3).T
    return Told(score, doubted > 0, right > 0, objects, photos)


def many(score: float, right: bool, count: int) -> list[tuple[float, bool, bool]]:
    return [(score, True, right)] * count


# ---- the rule ---------------------------------------------------------------------------------------------


def test_a_model_whose_doubts_are_mostly_objects_has_the_usual_rule() -> None:
    assert choose(told()) == USUAL
    assert choose(told(*many(0.99, True, 6), *many(0.985, False, 2))) == USUAL
    assert choose(told((0.999, False, False), (0.999, False, False))) == USUAL  # of these it is sure
    assert choose(told(*many(0.97, False, 50))) == USUAL  # they do not reach it anyway


def test_false_ones_of_lower_scores_are_left_out() -> None:
    rule = choose(told(*many(0.9995, True, 6), *many(0.999, False, 40), *many(0.99, True, 5)))
    assert 0.999 < rule <= 0.9995
    assert choose(told(*many(0.9999999, True, 2), *many(0.99, False, 9))) == 0.9999999


def test_where_scores_tell_nothing_no_doubt_counts() -> None:
    assert choose(told(*many(0.999, False, 30), *many(0.99, True, 9))) == 1


@given(st.lists(st.tuples(st.integers(970, 1000), st.booleans(), st.booleans()), max_size=30))
def test_what_passes_the_rule_is_mostly_right(rows: list[tuple[int, bool, bool]]) -> None:
    seen = told(*((score / 1000, doubted, right) for score, doubted, right in rows))
    rule = choose(seen)
    assert USUAL <= rule <= 1
    lower = [score / 1000 for score, doubted, _ in rows if doubted and USUAL <= score / 1000 < rule]

    def mostly_right(least: float) -> bool:
        passing = seen.right[seen.doubted & (seen.score >= least)]
        return bool((~passing).sum() <= WRONG * passing.sum())

    if rule < 1:
        assert mostly_right(rule)
    elif 1000 in [score for score, doubted, _ in rows if doubted]:
        assert not mostly_right(1.0)
    assert not any(mostly_right(score) for score in lower)  # it is the lowest that does


def test_scores_that_reach_one_are_told_apart_from_lower_ones() -> None:
    rule = choose(told(*many(1.0, True, 40), *many(0.99, False, 30)))
    assert 0.99 < rule < 1


def test_figures_tell_what_was_found() -> None:
    seen = told((0.9, False, True), (0.6, False, False), *many(0.999, False, 3), *many(0.99, True, 2))
    assert figures(seen) == {"whole_photos": 5, "whole_found_percent": 30.0, "whole_false_a_photo": 0.8}


def test_the_rule_is_kept_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "looks.json"
    rules = LookRules(certain=0.9)
    path.write_text(json.dumps({"rules": rules.to_json(), "figures": {"objects": 3}}))
    add_doubted(path, 1.0, told((0.9, False, True)))
    assert read_look_rules(path) == replace(rules, doubted=1.0)
    assert json.loads(path.read_text())["figures"]["objects"] == 3
    said = capsys.readouterr().out
    assert "find 10 % of the objects in 5 held-back photos, and 0.00 false ones a photo" in said
    assert "what the locator doubts is not looked at" in said
    add_doubted(path, 0.9999999, told((0.9, False, True)))
    assert "what the locator doubts counts from a score of 0.9999999" in capsys.readouterr().out
    path.write_text("{")
    with pytest.raises(ModelError, match=r"looks\.json: cannot be read"):
        add_doubted(path, 1.0, told())


# ---- photos -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector() -> Any:
    with Detector("face68", backend="onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


def photo(image: Array, *objects: Array, complete: bool = True, unlabelled: tuple[Array, ...] = ()) -> Photo:
    return Photo("key", (image,), objects, 1, complete, unlabelled)


def look(detector: Any, *photos: Photo) -> Told:
    spec, backend = detector.spec, detector.locator.backend
    return look_at_photos(detector.cascade, backend, spec.locator_size, spec.locator_threshold, photos)


def test_labelled_objects_are_right_and_others_false(detector: Any, frames: list[Array]) -> None:
    (found,) = detector.detect(frames[0])
    points = found.keypoints.astype(np.float64)
    right = look(detector, photo(frames[0], points))
    assert right.right.tolist() == [True]
    assert right.doubted.tolist() == [False]
    assert right.score[0] == pytest.approx(found.score, abs=1e-3)
    assert (right.objects, right.photos) == (1, 1)
    assert look(detector, photo(frames[0])).right.tolist() == [False]
    assert look(detector, photo(frames[0], points + 200)).right.tolist() == [False]


def test_what_nobody_labelled_counts_neither_way(detector: Any, frames: list[Array]) -> None:
    (found,) = detector.detect(frames[0])
    for unknown in (photo(frames[0], complete=False), photo(frames[0], unlabelled=(found.box,))):
        assert len(look(detector, unknown).score) == 0


def test_what_the_locator_doubts_is_told_as_such(detector: Any, frames: list[Array]) -> None:
    spec, backend = detector.spec, detector.locator.backend
    (sure,) = detector.detect(frames[0])
    with_doubts = [photo(frames[0], sure.keypoints.astype(np.float64))]
    seen = look_at_photos(detector.cascade, backend, spec.locator_size, 0.999, with_doubts)
    assert (seen.doubted.tolist(), seen.right.tolist()) == ([True], [True])


@pytest.mark.parametrize("turns", [0, 1])
def test_the_rule_lets_through_what_it_says(detector: Any, frames: list[Array], turns: int) -> None:
    """Of turned ones, too, of which the locator's doubt is not all that is asked."""
    image = np.ascontiguousarray(np.rot90(frames[0], turns))
    spec, backend = detector.spec, detector.locator.backend
    at = (detector.cascade, backend, spec.locator_size, 0.999, [photo(image)])
    seen = look_at_photos(*at)
    assert (seen.doubted.tolist(), seen.right.tolist()) == ([True], [False])
    assert choose(seen) == 1
    assert len(look_at_photos(*at, choose(seen)).score) == 0


def test_pictures_without_objects_are_among_those_looked_at(
    detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come last, after more labelled ones than are looked at."""
    monkeypatch.setattr(whole, "MOST", 10)
    labelled = [photo(np.full((40, 40, 3), i, np.uint8), np.zeros((68, 2))) for i in range(20)]
    empty = [photo(np.full((40, 40, 3), i, np.uint8)) for i in range(20)]
    seen = look(detector, *labelled, *empty)
    assert seen.photos == 10
    assert 0 < seen.objects < 10


def test_parts_of_a_frame_are_searched_whatever_the_rule(detector: Any, frames: list[Array]) -> None:
    large = np.full((1080, 1920, 3), 60, np.uint8)
    large[500:540, 900:940] = cv2.resize(frames[0][210:330, 260:380], (40, 40), interpolation=cv2.INTER_AREA)
    locator = detector.locator
    for doubted in (0.98, 1.0):
        located = type(locator)(locator.backend, locator.size, locator.threshold, 4, doubted)(large)
        middle = [box for box in located.boxes if 880 < (box[0] + box[2]) / 2 < 960]
        assert len(middle) == 1
        assert located.least.max() <= np.float32(0.98)


def test_a_doubted_box_is_not_looked_at_where_the_rule_says_so(detector: Any, frames: list[Array]) -> None:
    locator = detector.locator
    doubted = type(locator)(locator.backend, locator.size, 0.999, doubted=0.98)(frames[0])
    none = type(locator)(locator.backend, locator.size, 0.999, doubted=1.0)(frames[0])
    assert doubted.least.tolist() == [np.float32(0.98)] * len(doubted.least)
    assert len(doubted.least) > 0
    assert len(none.least) == 0
