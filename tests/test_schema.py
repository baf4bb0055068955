"""The keypoint schema: refusals, mirror pairs, JSON form and the built-in layouts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_kp.schema import BUILT_IN, FACE68, FACE98, KeypointSchema, pairs_from_names

TRIANGLE = KeypointSchema("triangle", ("left", "right", "top"), ((0, 1),), ((0, 1), (1, 2)), (0, 1))


@st.composite
def schemas(draw: st.DrawFn) -> KeypointSchema:
    n = draw(st.integers(2, 12))
    order = draw(st.permutations(range(n)))
    flips = tuple((order[2 * i], order[2 * i + 1]) for i in range(draw(st.integers(0, n // 2))))
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] != p[1])
    names = [f"point {i}" for i in range(n)]
    edges = tuple(draw(st.lists(pair, max_size=5)))
    return KeypointSchema(draw(st.text(max_size=5)), tuple(names), flips, edges, draw(pair))


@given(schemas())
def test_json_gives_the_schema_back(schema: KeypointSchema) -> None:
    assert KeypointSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@given(schemas())
def test_flipping_twice_changes_nothing(schema: KeypointSchema) -> None:
    assert np.array_equal(schema.flip_index[schema.flip_index], np.arange(len(schema)))
    assert schema.can_flip == bool((schema.flip_index != np.arange(len(schema))).any())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": ("one",)}, "2 to 4096 keypoints, got 1"),
        ({"flip_pairs": ((0, 3),)}, r"flip_pairs \(0, 3\) is no pair of its 3 points"),
        ({"flip_pairs": ((0, 1), (1, 2))}, "two flip pairs"),
        ({"edges": ((-1, 0),)}, r"edges \(-1, 0\)"),
        ({"edges": ((2, 2),)}, r"edges \(2, 2\)"),
        ({"reference": (1, 1)}, r"reference \(1, 1\)"),
        ({"reference": (0, 9)}, r"reference \(0, 9\)"),
    ],
)
def test_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TRIANGLE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["name", "keypoints", "flip_pairs", "edges", "reference"])
def test_json_without_a_field_is_refused(field: str) -> None:
    data = TRIANGLE.to_json()
    del data[field]
    with pytest.raises(ValueError, match=f"keypoint schema: KeyError '{field}'"):
        KeypointSchema.from_json(data)


@pytest.mark.parametrize(
    "change", [{"edges": [[0]]}, {"edges": 3}, {"reference": [1]}, {"flip_pairs": [["a", 1]]}]
)
def test_json_of_the_wrong_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"schema|unpack|literal"):
        KeypointSchema.from_json({**TRIANGLE.to_json(), **change})


def test_reference_distance_keeps_leading_axes() -> None:
    points = np.zeros((4, 5, 3, 2))
    points[..., 1, :] = 3, 4
    assert np.array_equal(TRIANGLE.reference_distance(points), np.full((4, 5), 5.0))


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["nose", "left_eye", "right_eye", "left_ear", "right_ear"], ((1, 2), (3, 4))),
        (["R_hip", "L_hip"], ((0, 1),)),
        (["upper_lip_l", "upper_lip_r"], ((0, 1),)),
        (["left_eye_left", "left_eye_right", "right_eye_left", "right_eye_right"], ((0, 3), (1, 2))),
        (["Left_Eye", "left_eye", "right_eye"], ()),
        (["hip_l", "hip_r", "knee_l"], ((0, 1),)),
        (["eyeLeft", "eyeRight"], ((0, 1),)),
        (["sella", "nasion", "lower_lip", "upper_lip"], ()),
        (["left_only", "nose"], ()),
    ],
)
def test_pairs_from_names(names: list[str], pairs: tuple[tuple[int, int], ...]) -> None:
    assert pairs_from_names(names) == pairs


@pytest.mark.parametrize("schema", BUILT_IN.values(), ids=BUILT_IN)
def test_built_in_layouts_are_mirror_images_of_themselves(schema: KeypointSchema) -> None:
    """Mirroring takes every contour onto a contour, and each side's parts onto the other side's."""
    flip = schema.flip_index
    edges = {frozenset(e) for e in schema.edges}
    assert {frozenset((int(flip[a]), int(flip[b]))) for a, b in schema.edges} == edges
    for i, name in enumerate(schema.keypoints):
        part, twin = name.rstrip("0123456789"), schema.keypoints[flip[i]].rstrip("0123456789")
        swapped = {"left": "right", "right": "left"}.get(part.split("_")[0], part.split("_")[0])
        assert twin == "_".join([swapped, *part.split("_")[1:]])
    assert flip[schema.reference[0]] == schema.reference[1]


def test_built_in_midlines() -> None:
    def fixed(schema: KeypointSchema) -> list[int]:
        return np.flatnonzero(schema.flip_index == np.arange(len(schema))).tolist()

    assert fixed(FACE68) == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert fixed(FACE98) == [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]
