"""How sure a model is, and which pictures are chosen to be labelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_kp import Detector
from edge_kp.geometry import similarity, transform_points
from edge_kp.schema import KeypointSchema
from edge_kp.training.doubt import VIEWS, choose, doubt_of, see
from edge_kp.types import Array

PLAIN = KeypointSchema("three", ("a", "b", "c"), (), (), (0, 1))
POINTS = np.array([[10.0, 20], [50, 20], [30, 40]])


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector("face68", backend="onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


def shapes(count: int, seed: int = 0) -> list[Array]:
    return list(np.random.default_rng(seed).normal(0, 1, (count, 5, 2)))


# ---- doubt ------------------------------------------------------------------------------------------------


def test_doubt_is_the_mean_distance_in_longer_sides_of_the_box() -> None:
    class Shaky:
        spec = SimpleNamespace(schema=PLAIN)

        def __call__(self, image: Array, boxes: Sequence[Array], turns: Sequence[int]) -> Any:
            assert list(turns) == [3] * len(boxes) == [3] * VIEWS
            offsets = np.array([[-2.0, 0], [0, 0], [0, 0], [2, 0]])[:, None]
            return SimpleNamespace(keypoints=POINTS + offsets, score=np.ones(len(boxes)))

    shaky: Any = Shaky()
    box = np.array([10, 20, 50, 40], np.float32)
    middle, doubt = doubt_of(shaky, np.zeros((60, 60, 3), np.uint8), box, "key", turn=3)
    np.testing.assert_array_equal(middle, POINTS.astype(np.float32))
    assert doubt == pytest.approx((2 + 0 + 0 + 2) / 4 / 40)


def test_points_in_one_place_are_beyond_doubt_nothing() -> None:
    class Nowhere:
        spec = SimpleNamespace(schema=PLAIN)

        def __call__(self, image: Array, boxes: Sequence[Array], turns: Sequence[int]) -> Any:
            return SimpleNamespace(keypoints=np.zeros((len(boxes), 3, 2)), score=np.ones(len(boxes)))

    nowhere: Any = Nowhere()
    _, doubt = doubt_of(nowhere, np.zeros((60, 60, 3), np.uint8), np.array([1, 2, 3, 4], np.float32), "")
    assert doubt == np.inf


def test_a_face_that_is_hard_to_see_is_doubted_more(detector: Detector, frames: list[Array]) -> None:
    plain = see(detector, frames[0], "a")
    assert len(plain.objects) == len(plain.doubt) == 1
    (expected,) = detector.detect(frames[0])
    away = np.linalg.norm(plain.objects[0].keypoints - expected.keypoints, axis=1)
    assert away.max() < 0.05 * np.ptp(expected.keypoints)
    x0, y0, x1, y1 = expected.box.astype(int)
    covered = frames[0].copy()
    covered[(y0 + y1) // 2 :, x0:x1] = 128
    blurred = cv2.GaussianBlur(frames[0], (0, 0), 5)
    for harder in (covered, blurred):
        seen = see(detector, harder, "a")
        assert len(seen.objects) == 1
        assert seen.doubt[0] > 1.2 * plain.doubt[0]


def test_a_face_that_lies_on_its_side_is_no_more_in_doubt(detector: Detector, frames: list[Array]) -> None:
    upright = see(detector, frames[0], "a")
    turned = see(detector, np.ascontiguousarray(np.rot90(frames[0])), "a")
    assert len(turned.objects) == 1
    assert turned.doubt[0] < 2 * upright.doubt[0]
    x, y = upright.objects[0].keypoints.T
    back = np.column_stack([y, frames[0].shape[1] - 1 - x])
    away = np.linalg.norm(turned.objects[0].keypoints - back, axis=1)
    assert away.mean() < 0.03 * np.ptp(back)


def test_a_picture_and_its_name_decide(detector: Detector, frames: list[Array]) -> None:
    first, again, other = (see(detector, frames[30], key) for key in ("a", "a", "b"))
    np.testing.assert_array_equal(first.objects[0].keypoints, again.objects[0].keypoints)
    assert first.doubt == again.doubt != other.doubt


def test_nothing_is_seen_where_nothing_is(detector: Detector) -> None:
    seen = see(detector, np.full((120, 160, 3), 90, np.uint8), "a")
    assert (seen.objects, seen.doubt) == ((), ())


def test_a_picture_that_is_the_object_is_seen_again(tiny_model: Any) -> None:
    """Boxes are those of the whole picture then."""
    with Detector(tiny_model, backend="onnxruntime", threads=1) as detector:
        object.__setattr__(detector.spec, "box_rule", "image")
        boxes: list[Array] = []
        cascade = detector.cascade

        class Noting:
            spec, alignment = cascade.spec, cascade.alignment

            def __call__(self, image: Array, seen: Sequence[Array], turns: Sequence[int]) -> Any:
                boxes.extend(seen)
                return cascade(image, seen, turns)

        image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
        found = detector.detect(image, boxes=[[-0.5, -0.5, 119.5, 79.5]])
        noting: Any = Noting()
        detector.cascade = noting
        detector.detect = lambda image: found  # type: ignore[method-assign,assignment,misc]
        see(detector, image, "a")
    assert len(boxes) >= VIEWS
    assert all(np.abs(box - [-0.5, -0.5, 119.5, 79.5]).max() < 0.07 * 120 for box in boxes[:VIEWS])


# ---- choice -----------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 20))
def test_so_many_are_chosen_as_are_wanted(there: int, count: int) -> None:
    found = choose(shapes(there), count)
    assert len(found) == len(set(found)) == min(count, there)
    assert set(found) <= set(range(there))
    assert found == choose(shapes(there), count)


def test_those_are_chosen_that_stand_for_most_others() -> None:
    """Of three kinds of shapes one each, and the commonest first, wherever and however large they are."""
    rng = np.random.default_rng(0)
    kinds, many = shapes(3), [0] * 20 + [1] * 7 + [2] * 12
    moves = [similarity(0, rng.uniform(0.5, 4), rng.uniform(-99, 99, 2)) for _ in many]
    noise = rng.normal(0, 0.02, (len(many), 5, 2))
    pictures = [transform_points(m, kinds[k] + n) for m, k, n in zip(moves, many, noise, strict=True)]
    assert [many[i] for i in choose(pictures, 3)] == [0, 2, 1]
    for i in choose(pictures, 3):
        assert np.linalg.norm(noise[i]) < 0.07 + 0.02  # near the middle of its kind


def test_copies_of_one_shape_are_chosen_as_others() -> None:
    assert sorted(choose([shapes(1)[0]] * 6, 4))[-1] <= 5
