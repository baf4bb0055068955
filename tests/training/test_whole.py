"""What the whole detector finds in photos, and from which score on what its locator doubts may count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_kp import Detector
from edge_kp.errors import ModelError
from edge_kp.look_rules import LookRules
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

    assert rule == 1 or mostly_right(rule)
    assert not any(mostly_right(score) for score in lower)  # it is the lowest that does


def test_figures_tell_what_the_rule_leaves() -> None:
    seen = told((0.9, False, True), (0.6, False, False), *many(0.999, False, 3), *many(0.99, True, 2))
    assert figures(seen, USUAL) == {
        "whole_photos": 5, "whole_found_percent": 30.0, "whole_false_a_photo": 0.8
    }  # fmt: skip
    assert figures(seen, 1.0) == {
        "whole_photos": 5, "whole_found_percent": 10.0, "whole_false_a_photo": 0.2
    }  # fmt: skip


def test_the_rule_is_kept_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "looks.json"
    rules = LookRules(certain=0.9)
    path.write_text(json.dumps({"rules": rules.to_json(), "figures": {"objects": 3}}))
    add_doubted(path, told(*many(0.999, False, 30), (0.9, False, True)))
    assert read_look_rules(path) == replace(rules, doubted=1.0)
    assert json.loads(path.read_text())["figures"]["objects"] == 3
    said = capsys.readouterr().out
    assert "find 10 % of the objects in 5 held-back photos, and 0.00 false ones a photo" in said
    assert "what the locator doubts is not looked at" in said
    add_doubted(path, told((0.9, False, True)))
    assert "what the locator doubts counts from a score of 0.98" in capsys.readouterr().out
    path.write_text("{")
    with pytest.raises(ModelError, match=r"looks\.json: cannot be read"):
        add_doubted(path, told())


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


def test_a_doubted_box_is_not_looked_at_where_the_rule_says_so(detector: Any, frames: list[Array]) -> None:
    locator = detector.locator
    doubted = type(locator)(locator.backend, locator.size, 0.999, doubted=0.98)(frames[0])
    none = type(locator)(locator.backend, locator.size, 0.999, doubted=1.0)(frames[0])
    assert doubted.least.tolist() == [np.float32(0.98)] * len(doubted.least)
    assert len(doubted.least) > 0
    assert len(none.least) == 0
