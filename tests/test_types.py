"""Detections: what they are made of, and as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from edge_kp.types import Detection, HeadPose

GOOD: dict[str, Any] = {
    **{"id": 3, "box": [1, 2, 31, 42], "score": 0.91, "keypoints": [[1, 2], [31, 42]]},
    "visibility": (1.0, 0.25),
}


def test_lists_become_arrays() -> None:
    found = Detection(**GOOD)
    for name in ("box", "keypoints", "visibility"):
        array = getattr(found, name)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, np.array(GOOD[name], np.float32))
    assert json.loads(json.dumps(found.to_json()))["keypoints"] == [[1, 2], [31, 42]]


def test_arrays_stay_the_ones_they_are() -> None:
    arrays = {name: np.array(GOOD[name], float) for name in ("box", "keypoints", "visibility")}
    found = Detection(**{**GOOD, **arrays})
    assert all(getattr(found, name) is array for name, array in arrays.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("box", value) for value in (None, 5, "face", [1, 2, 3], [1, 2, 3, "x"], [[1, 2], [3]])),
        *(("keypoints", value) for value in (None, [1, 2], [[1, 2], [3]], [[1, 2, 3]], [[1, None], {}])),
        *(("visibility", value) for value in (None, 1.0, [1.0], [[1.0, 1.0]], ["a", "b"])),
    ],
)
def test_what_is_no_such_array_is_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected ") as error:
        Detection(**{**GOOD, name: value})
    assert "\n" not in str(error.value)


def test_what_is_not_finite_is_null_in_json() -> None:
    found = Detection(
        **{**GOOD, "box": [1, math.nan, 31, math.inf], "score": math.nan},
        attributes={"occlusion": math.nan, "blur": 0.5},
        pose=HeadPose(yaw=12.34, pitch=math.nan, roll=-math.inf),
    )
    found.keypoints[1] = (math.nan, 4.126)
    found.visibility[0] = math.nan
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told == {
        "id": 3,
        "box": [1, None, 31, None],
        "score": None,
        "keypoints": [[1, 2], [None, 4.13]],
        "visibility": [None, 0.25],
        "attributes": {"occlusion": None, "blur": 0.5},
        "pose": {"yaw": 12.3, "pitch": None, "roll": None},
    }
