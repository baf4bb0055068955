import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp import pose as pose_module
from edge_kp.errors import ModelError
from edge_kp.pose import (
    ASSET,
    HeadPose,
    PoseModel,
    axis_points,
    load_face68,
    pose_model,
)
from edge_kp.schema import FACE68, FACE98, KeypointSchema

FACE = load_face68()
PLAIN = pose_model(FACE68, math.inf)
USUAL = pose_model(FACE68)
EYES, NOSE, MOUTH = np.arange(36, 48), np.arange(27, 36), np.arange(48, 68)

poses = st.builds(HeadPose, st.floats(-75, 75), st.floats(-40, 40), st.floats(-45, 45))
wild_poses = st.builds(HeadPose, st.floats(-85, 85), st.floats(-80, 80), st.floats(-179, 179))
scales = st.floats(0.05, 50)
shifts = st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000))
seeds = st.integers(0, 2**32 - 1)


def weak(pose: HeadPose, scale=10.0, shift=(300.0, 200.0), face=FACE):
    """(68, 2) pixels of a face seen from very far away."""
    return (face @ pose.rotation.T)[:, :2] * (scale, -scale) + shift


def near(pose: HeadPose, distance: float):
    """(68, 2) pixels of the mean face straight before a camera at ``distance`` cm."""
    turned = FACE @ pose.rotation.T
    return turned[:, :2] / (distance - turned[:, 2:]) * (900, -900) + (320, 240)


def noisy(seed: int, pose: HeadPose):
    return weak(pose) + np.random.default_rng(seed).normal(0, 1.5, (68, 2))


def turn(a: HeadPose, b: HeadPose) -> float:
    """Degrees of the one rotation from a to b; by sine and cosine, exact near 0 and near 180."""
    between = a.rotation @ b.rotation.T
    sine = np.linalg.norm([between[i, j] - between[j, i] for i, j in ((2, 1), (0, 2), (1, 0))]) / 2
    return math.degrees(math.atan2(sine, (np.trace(between) - 1) / 2))


def three(pose: HeadPose):
    return [pose.yaw, pose.pitch, pose.roll]


def weights(*hidden):
    w = np.ones(68)
    w[np.concatenate(hidden)] = 0
    return w


# The convention


def test_signs():
    """Positive angles: looks to the left of the image; looks up; leans to the right of the image."""
    (forward_x, forward_y, _) = HeadPose(30, 0, 0).rotation @ (0, 0, 1)
    assert (forward_x, forward_y) == pytest.approx((-0.5, 0))
    (forward_x, forward_y, _) = HeadPose(0, 30, 0).rotation @ (0, 0, 1)
    assert (forward_x, forward_y) == pytest.approx((0, 0.5))
    (crown_x, crown_y, _) = HeadPose(0, 0, 30).rotation @ (0, 1, 0)
    assert (crown_x, crown_y) == pytest.approx((0.5, math.sqrt(3) / 2))


def about(axis: int, degrees: float):
    """The usual right-handed rotation about x, y or z."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


@given(wild_poses)
def test_order_of_rotations(pose):
    expected = about(0, -pose.pitch) @ about(1, -pose.yaw) @ about(2, -pose.roll)
    np.testing.assert_allclose(pose.rotation, expected, atol=1e-12)


@given(wild_poses)
def test_angles_there_and_back(pose):
    assert three(HeadPose.from_rotation(pose.rotation)) == pytest.approx(three(pose), abs=1e-6)


def test_a_turn_past_the_profile_does_not_flip():
    for yaw in (89, 91, 120, -91, -150):
        assert three(HeadPose.from_rotation(HeadPose(yaw, 5, -8).rotation)) == pytest.approx([yaw, 5, -8])


@given(wild_poses, shifts, st.floats(1, 500))
def test_axes_are_those_of_the_300w_lp_demos(pose, origin, length):
    """The three lines that HopeNet and its followers draw, from their angles."""
    p, y, r = math.radians(pose.pitch), -math.radians(pose.yaw), math.radians(pose.roll)
    c, s = math.cos, math.sin
    expected = [
        (c(y) * c(r), c(p) * s(r) + c(r) * s(p) * s(y)),
        (-c(y) * s(r), c(p) * c(r) - s(p) * s(y) * s(r)),
        (s(y), -c(y) * s(p)),
    ]
    found = axis_points(pose, np.array(origin), length)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found, np.array(expected) * length + origin, atol=1e-6)


# What it measures


@given(wild_poses, scales, shifts)
def test_a_face_far_away_is_read_exactly(pose, scale, shift):
    found = PLAIN(weak(pose, scale, shift))
    assert turn(found, pose) < 1e-3
    assert three(found) == pytest.approx(three(pose), abs=0.1)


@given(poses, st.floats(40, 1000))
def test_a_face_in_perspective(pose, distance):
    assert turn(USUAL(near(pose, distance)), pose) < 2.5


@given(poses)
def test_a_face_at_the_expected_distance(pose):
    assert turn(USUAL(near(pose, 80)), pose) < 0.2
    assert turn(pose_model(FACE68, 30.0)(near(pose, 30)), pose) < 1


def test_expecting_perspective_helps_near_the_camera():
    grid = [HeadPose(y, p, 10) for y in (-60, -30, 0, 30, 60) for p in (-30, 0, 30)]
    for distance in (25, 40, 60):
        usual, plain = (
            np.mean([turn(model(near(pose, distance)), pose) for pose in grid]) for model in (USUAL, PLAIN)
        )
        assert usual < 0.8 * plain


@given(seeds, poses, scales, shifts)
def test_place_and_size_in_the_frame_do_not_matter(seed, pose, scale, shift):
    keypoints = noisy(seed, pose)
    assert turn(USUAL(keypoints * scale + shift), USUAL(keypoints)) < 1e-4


@pytest.mark.parametrize("schema", [FACE68, FACE98], ids=lambda s: s.name)
@given(seed=seeds, pose=poses)
def test_a_mirrored_face_has_mirrored_angles(schema, seed, pose):
    keypoints = np.full((len(schema), 2), np.nan)
    for i, j in same_points(schema):
        keypoints[j] = noisy(seed, pose)[i]
    model = pose_model(schema)
    found = model(keypoints)
    mirrored = model((keypoints * (-1, 1) + (640, 0))[schema.flip_index])
    assert turn(mirrored, HeadPose(-found.yaw, found.pitch, -found.roll)) < 1e-6


def same_points(schema):
    """(point of face68, point of the schema) of inner points with the same meaning, found by their names.

    In face98 the first five points of a brow are its upper edge, and an eye has a point more in each lid.
    """
    lids = (0, 1, 3, 4, 5, 7)
    for i, name in enumerate(FACE68.keypoints):
        part, _, number = name.rpartition("_")
        if part != "jaw":
            wide = schema is FACE98 and part in ("left_eye", "right_eye")
            other = f"{part}_{lids[int(number)] if wide else number}"
            yield i, schema.keypoints.index(other)


@given(seeds, poses, st.booleans())
def test_face98_agrees_with_face68(seed, pose, weighted):
    keypoints = noisy(seed, pose)
    rng = np.random.default_rng(seed)
    other = rng.uniform(-1e4, 1e4, (98, 2))  # jaw, lower edges of the brows, lids and pupils: not looked at
    trust, other_trust = rng.uniform(0.2, 1, 68), rng.uniform(0, 1, 98)
    for i, j in same_points(FACE98):
        other[j], other_trust[j] = keypoints[i], trust[i]
    one = USUAL(keypoints, trust if weighted else None)
    two = pose_model(FACE98)(other, other_trust if weighted else None)
    assert turn(one, two) < 1e-6


@given(poses)
def test_an_open_mouth_hardly_matters(pose):
    face = FACE.copy()
    face[[*range(55, 60), *range(65, 68)], 1] -= 2.0  # lower lip, cm
    assert turn(PLAIN(weak(pose)), PLAIN(weak(pose, face=face))) < 4
    sure = weights(MOUTH)
    assert turn(PLAIN(weak(pose), sure), PLAIN(weak(pose, face=face), sure)) < 1e-6


def test_noise_of_two_percent_of_the_eye_distance():
    rng = np.random.default_rng(0)
    sigma = 0.02 * 10 * np.linalg.norm(FACE[36] - FACE[45])
    off = []
    for _ in range(300):
        pose = HeadPose(*rng.uniform((-75, -40, -45), (75, 40, 45)))
        off.append(turn(PLAIN(weak(pose) + rng.normal(0, sigma, (68, 2))), pose))
    assert np.mean(off) < 2


# Covered points


@given(seeds, poses, st.sampled_from([EYES, NOSE, MOUTH, np.arange(17, 27)]), st.booleans())
def test_points_of_weight_zero_may_be_garbage(seed, pose, hidden, missing):
    keypoints = noisy(seed, pose)
    garbage = keypoints.copy()
    garbage[hidden] = np.nan if missing else np.random.default_rng(seed).uniform(-1e6, 1e6, (len(hidden), 2))
    assert USUAL(garbage, weights(hidden)) == USUAL(keypoints, weights(hidden))


@given(wild_poses, st.sampled_from([EYES, NOSE, MOUTH, [*NOSE, *MOUTH], np.flatnonzero(FACE[:, 0] > 0.1)]))
def test_the_visible_part_tells_the_pose(pose, hidden):
    keypoints = weak(pose)
    keypoints[hidden] += 100
    assert turn(PLAIN(keypoints, weights(hidden)), pose) < 1e-3


@given(poses, st.sampled_from([EYES, NOSE, MOUTH, np.flatnonzero(FACE[:, 0] > 0.1)]))
def test_the_visible_part_tells_the_pose_in_perspective(pose, hidden):
    assert turn(USUAL(near(pose, 80), weights(hidden)), pose) < 0.5


@given(seeds, poses, st.floats(1e-3, 1e3))
def test_only_ratios_of_weights_count(seed, pose, factor):
    keypoints = noisy(seed, pose)
    assert turn(USUAL(keypoints, np.full(68, factor)), USUAL(keypoints)) < 1e-6
    trust = np.random.default_rng(seed).uniform(0.1, 1, 68)
    assert turn(USUAL(keypoints, factor * trust), USUAL(keypoints, trust)) < 1e-6


@settings(max_examples=30)
@given(seeds, poses)
def test_weights_are_those_of_least_squares(seed, pose):
    """A point of weight 3 counts as three points."""
    keypoints = noisy(seed, pose)
    times = np.random.default_rng(seed).integers(1, 4, 68)
    copies = np.repeat(np.arange(17, 68), times[17:])
    many = PoseModel(FACE[copies])
    assert turn(many(keypoints[copies]), USUAL(keypoints, times)) < 1e-6


# Which schemas


def test_only_faces_have_a_model():
    names = tuple(f"p{i}" for i in range(68))
    other = KeypointSchema(name="face68", keypoints=names, flip_pairs=(), edges=(), reference=(0, 1))
    assert pose_model(other) is None


def test_a_face_schema_may_have_any_name():
    fields = {**FACE68.to_json(), "name": "driver", "flip_pairs": []}
    model = pose_model(KeypointSchema.from_json(fields))
    assert model(near(HeadPose(20, 5, 1), 80)) == USUAL(near(HeadPose(20, 5, 1), 80))


# The asset


def test_the_face_is_a_face():
    assert FACE.shape == (68, 3)
    np.testing.assert_array_equal(FACE[FACE68.flip_index] * (-1, 1, 1), FACE)
    np.testing.assert_allclose(FACE[17:].mean(0), 0, atol=1e-3)
    assert FACE[45, 0] - FACE[36, 0] == pytest.approx(
        8.9, abs=0.5
    )  # cm between the outer corners of the eyes
    assert FACE[:, 2].argmax() == 30  # the tip of the nose is in front
    assert FACE[:, 1].argmin() == 8  # the chin is below
    assert FACE[16, 0] > FACE[45, 0] > 0  # the image's right is the face's own left


def test_the_asset_says_whose_it_is():
    about_it = json.loads(ASSET.read_text(encoding="utf-8"))
    assert "ICT-FaceKit" in about_it["source"]
    assert "2020 USC Institute for Creative Technologies" in about_it["copyright"]
    assert about_it["licence"] == "MIT"
    assert "this permission notice shall be included" in about_it["terms"]
    assert about_it["unit"] == "cm"
    assert about_it["derived"]
    assert about_it["axes"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", '{"points": null}', '{"points": [[1, 2, 3]]}', '{"points": [[1], [2, 3]]}'),
        json.dumps({"points": [[math.nan, 0, 0], *FACE[1:].tolist()]}),
    ],
)
def test_a_damaged_asset_is_named(tmp_path, monkeypatch, text):
    path = tmp_path / "face68_3d.json"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(pose_module, "ASSET", path)
    with pytest.raises(ModelError, match=r"face68_3d\.json"):
        pose_model(FACE68)


def test_a_missing_asset_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pose_module, "ASSET", tmp_path / "face68_3d.json")
    with pytest.raises(ModelError, match=r"face68_3d\.json: FileNotFoundError"):
        pose_model(FACE98)


# Refusals


@pytest.mark.parametrize("shape", [(68,), (67, 2), (68, 3), (98, 2), (1, 68, 2)])
def test_keypoints_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"keypoints: expected shape \(68, 2\)"):
        USUAL(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_keypoints_that_are_not_finite_are_refused(value):
    keypoints = weak(HeadPose(0, 0, 0))
    keypoints[40, 1] = value
    with pytest.raises(ValueError, match="keypoints: expected finite"):
        USUAL(keypoints)
    jaw = weak(HeadPose(0, 0, 0))
    jaw[3] = value
    assert turn(USUAL(jaw), HeadPose(0, 0, 0)) < 2.5


@pytest.mark.parametrize(
    "keypoints",
    [
        np.zeros((68, 2)),
        np.tile((471.3, -88.1), (68, 1)),
        np.outer(np.arange(68), (1.0, 0.0)),
        np.outer(np.random.default_rng(0).normal(0, 50, 68), (0.3, 0.7)) + 200,
        weak(HeadPose(0, 0, 0)) * (1, 1e-5),
        weak(HeadPose(0, 0, 0)) * 1e78,
    ],
    ids=["origin", "one place", "row", "slanted line", "nearly a line", "beyond numbers"],
)
def test_keypoints_without_extent_are_refused(keypoints):
    for model in (USUAL, PLAIN):
        for w in (None, np.ones(68)):
            with pytest.raises(ValueError, match="keypoints: on one line"):
                model(keypoints, w)


@pytest.mark.parametrize("shape", [(67,), (68, 1), (98,)])
def test_weights_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"weights: expected shape \(68,\)"):
        USUAL(weak(HeadPose(0, 0, 0)), np.ones(shape))


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_weights_that_are_no_weights_are_refused(value):
    w = np.ones(68)
    w[50] = value
    with pytest.raises(ValueError, match="weights: expected finite"):
        USUAL(weak(HeadPose(0, 0, 0)), w)


@pytest.mark.parametrize("seen", [[], [30], [36, 39, 42, 45], [27, 28, 29, 30], EYES, np.arange(17, 27)])
def test_too_little_of_a_face_is_refused(seen):
    w = np.zeros(68)
    w[seen] = 1
    with pytest.raises(ValueError, match="too few keypoints"):
        USUAL(weak(HeadPose(0, 0, 0)), w)
    w[17:] = np.maximum(w[17:], 1e-6)  # faint weights change nothing about that
    if len(seen):
        with pytest.raises(ValueError, match="too few keypoints"):
            USUAL(weak(HeadPose(0, 0, 0)), w)


@pytest.mark.parametrize("distance", [-80.0, 0.0, 6.0, math.nan])
def test_a_camera_inside_the_face_is_refused(distance):
    with pytest.raises(ValueError, match="distance: expected more than"):
        pose_model(FACE68, distance)


def test_points_that_span_no_space_are_refused():
    with pytest.raises(ValueError, match=r"points: expected shape \(N, 3\)"):
        PoseModel(FACE[:, :2])
    with pytest.raises(ValueError, match="too flat"):
        PoseModel(FACE * (1, 1, 0))
    with pytest.raises(ValueError, match="too flat"):
        PoseModel(np.full((68, 3), np.nan))


def test_inputs_stay_as_they_are():
    keypoints, w = noisy(0, HeadPose(10, 10, 10)), np.full(68, 0.5)
    before = keypoints.copy()
    USUAL(keypoints, w)
    np.testing.assert_array_equal(keypoints, before)
    np.testing.assert_array_equal(w, 0.5)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_any_kind_of_number_is_taken_exactly(kind):
    keypoints, w = noisy(0, HeadPose(10, 10, 10)).astype(kind), np.arange(1, 69).astype(kind)
    assert USUAL(keypoints) == USUAL(keypoints.astype(np.float64))
    assert USUAL(keypoints, w) == USUAL(keypoints.astype(np.float64), w.astype(np.float64))


def test_lists_are_as_good_as_arrays():
    points, keypoints = load_face68(), load_face68()[:, :2] * (4, -4) + 100
    weights = np.linspace(0.5, 1, len(points))
    expected = PoseModel(points)(keypoints, weights)
    assert PoseModel(points.tolist())(keypoints.tolist(), weights.tolist()) == expected


@pytest.mark.parametrize("value", [None, "face", [[1, 2], [3]], [["a", "b"]]])
def test_what_is_no_array_is_refused(value):
    model = PoseModel(load_face68())
    good = load_face68()[:, :2]
    for name, call in (
        ("points", lambda: PoseModel(value)),
        ("keypoints", lambda: model(value)),
        ("weights", lambda: model(good, value)),
    ):
        if name == "weights" and value is None:
            continue  # all alike
        with pytest.raises(ValueError, match=f"^{name}: expected "):
            call()


@pytest.mark.parametrize("distance", ["80", None, True])
def test_a_distance_that_is_no_number_is_refused(distance):
    with pytest.raises(ValueError, match="distance: expected a number"):
        PoseModel(load_face68(), distance)
