"""Steady keypoints: what is still stays, what trembles is calmed, and what moves is not held back."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.geometry import similarity, transform_points
from edge_kp.smoothing import SMOOTHING, KeypointFilter

N = 24
SHAPE = np.random.default_rng(0).uniform(0.2, 0.8, (N, 2))
SHAPE += 0.5 - SHAPE.mean(0)  # the middle of the crop is that of the points
UNIT = 100.0  # side of the aligned crop in the frame, pixels
STILL = (SHAPE - 0.5) * UNIT + (320.0, 240.0)
SEEN = np.ones(N)
FILTERS = ("light", "strong")
seeds = st.integers(0, 2**32 - 1)


def filtered(sequence: np.ndarray, smooth: str, fps: float = 30, visibility: np.ndarray = SEEN) -> np.ndarray:
    """(T, N, 2) frames → what the filter makes of them."""
    steady = KeypointFilter(SHAPE, smooth)
    return np.stack([steady.update(points, visibility, 1 / fps) for points in sequence])


def moving(
    frames: int, fps: float = 30, speed: float = 0.0, turn: float = 0.0, growth: float = 0.0
) -> np.ndarray:
    """(T, N, 2): steady motion; pixels, radians and e-foldings per second."""
    times = np.arange(frames) / fps
    middle = np.array([320.0, 240.0])
    direction = np.array([0.9, -0.436])
    return np.stack(
        [
            transform_points(similarity(turn * t, UNIT * math.exp(growth * t)), SHAPE - 0.5)
            + middle
            + speed * t * direction
            for t in times
        ]
    )


def noise(frames: int, size: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, (frames, N, 2))


def step(sequence: np.ndarray) -> np.ndarray:
    """(N,) mean distance that each point goes from frame to frame, after the first second."""
    return np.asarray(np.linalg.norm(np.diff(sequence[30:], axis=0), axis=2).mean(0))


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T,) mean over the points."""
    return np.asarray(np.linalg.norm(a - b, axis=2).mean(1))


# ---- what passes -------------------------------------------------------------------------------------------


def test_off_returns_the_keypoints_to_the_last_bit() -> None:
    sequence = (moving(40, speed=90, turn=1) + noise(40, 2)).astype(np.float32)
    found = filtered(sequence, "off")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, sequence)


@pytest.mark.parametrize("smooth", SMOOTHING)
def test_the_first_frame_passes_as_it_is(smooth: str) -> None:
    first = (STILL + noise(1, 5)[0]).astype(np.float32)
    found = KeypointFilter(SHAPE, smooth).update(first, np.zeros(N), 1 / 30)
    np.testing.assert_array_equal(found, first)
    assert found.dtype == np.float32


@given(st.sampled_from(FILTERS), seeds, st.floats(1e-3, 1.0))
def test_what_stands_still_stays(smooth: str, seed: int, dt: float) -> None:
    """Also a shape that is not the mean one."""
    still = STILL + noise(1, 8, seed)[0]
    found = filtered(np.repeat(still[None], 12, 0), smooth, 1 / dt)
    np.testing.assert_allclose(found, np.repeat(still[None], 12, 0), atol=1e-3)


def test_the_input_is_not_written_to() -> None:
    steady = KeypointFilter(SHAPE, "light")
    for points in moving(5, speed=60) + noise(5, 1):
        points.flags.writeable = False
        SEEN.flags.writeable = False
        found = steady.update(points, SEEN, 1 / 30)
        found[:] = 0  # what was told is the caller's
    assert distance(steady.predict(1 / 30)[None], moving(6, speed=60)[5:]) < 5


@pytest.mark.parametrize("smooth", ["medium", "", "OFF", "none"])
def test_another_strength_is_refused(smooth: str) -> None:
    with pytest.raises(ValueError, match=r"smooth: expected one of off, light, strong, got"):
        KeypointFilter(SHAPE, smooth)


# ---- equivariance ------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.sampled_from(FILTERS),
    seeds,
    st.floats(-math.pi, math.pi),
    st.floats(0.2, 5),
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_a_turned_scaled_and_shifted_scene_is_filtered_alike(
    smooth: str, seed: int, angle: float, scale: float, shift: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    speed, turn, growth = rng.uniform(-1, 1, 3) * (300, 3, 1)
    sequence = moving(15, speed=speed, turn=turn, growth=growth) + noise(15, 2, seed)
    sequence[8:] += rng.uniform(-40, 40, 2)  # a jump
    visibility = rng.uniform(0, 1, N)
    seen_from = similarity(angle, scale, shift)
    before = transform_points(seen_from, filtered(sequence, smooth, visibility=visibility))
    after = filtered(transform_points(seen_from, sequence), smooth, visibility=visibility)
    np.testing.assert_allclose(after, before, atol=1e-3 * max(1.0, scale))


# ---- motion ------------------------------------------------------------------------------------------------

MOTIONS = {
    "shift": {"speed": 150.0},
    "turn": {"turn": 1.2},
    "growth": {"growth": 0.5},
    "all": {"speed": 120.0, "turn": -0.8, "growth": 0.4},
}


@pytest.mark.parametrize("smooth", FILTERS)
@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("fps", [15, 30, 60])
def test_steady_motion_is_not_held_back(smooth: str, motion: str, fps: int) -> None:
    truth = moving(2 * fps, fps, **MOTIONS[motion])
    lag = distance(filtered(truth, smooth, fps), truth)
    one_frame = distance(truth[-1:], truth[-2:-1])[0]
    assert one_frame > 0.4
    assert lag[-1] < 0.05 * one_frame
    assert lag[-1] < 0.002 * UNIT


@pytest.mark.parametrize("smooth", FILTERS)
def test_shift_at_constant_speed_leaves_no_lag_at_all(smooth: str) -> None:
    truth = moving(90, speed=200)
    assert distance(filtered(truth, smooth), truth)[-1] < 1e-3


@pytest.mark.parametrize("smooth", FILTERS)
def test_a_jump_is_followed_within_a_few_frames(smooth: str) -> None:
    """As when the video is cut: no sliding over."""
    truth = np.repeat(STILL[None], 40, 0)
    truth[20:] += (0.6 * UNIT, -0.3 * UNIT)
    lag = distance(filtered(truth, smooth), truth)
    height = math.hypot(0.6, 0.3) * UNIT
    assert lag[19] < 1e-3
    assert lag[20:].max() < 0.1 * height
    assert lag[25] < 0.01 * height
    assert lag[39] < 0.002 * height


@pytest.mark.parametrize("smooth", FILTERS)
def test_a_change_of_shape_is_followed(smooth: str) -> None:
    """As when a mouth opens: some points move against the others, and end where they should."""
    truth = np.repeat(STILL[None], 60, 0)
    opening = np.clip((np.arange(60) - 15) / 6, 0, 1)[:, None]
    truth[:, :4, 1] += 12 * opening
    found = filtered(truth, smooth)
    lag = np.linalg.norm(found - truth, axis=2)[:, :4].mean(1)
    assert lag.max() < 4
    assert lag[30] < 1
    assert lag[-1] < 0.2


@pytest.mark.parametrize("smooth", FILTERS)
def test_frame_rate_matters_little(smooth: str) -> None:
    """The same motion, to and fro, and a shape that changes, seen 30 and 60 times a second."""

    def scene(fps: int) -> np.ndarray:
        times = np.arange(4 * fps) / fps
        sway = np.sin(2 * math.pi * 0.8 * times)
        truth = np.repeat(STILL[None], len(times), 0)
        truth[..., 0] += 40 * sway[:, None]
        truth[:, :4, 1] += 6 * np.sin(2 * math.pi * 1.1 * times)[:, None]
        return truth

    slow, fast = scene(30), scene(60)
    np.testing.assert_array_equal(fast[::2], slow)
    lag_slow = np.linalg.norm(filtered(slow, smooth, 30) - slow, axis=2)[30:]
    lag_fast = np.linalg.norm(filtered(fast, smooth, 60) - fast, axis=2)[60::2]
    for points in (slice(0, 4), slice(4, None)):
        a, b = lag_slow[:, points].mean(), lag_fast[:, points].mean()
        assert 0.5 < a / b < 2


@pytest.mark.parametrize("smooth", FILTERS)
def test_the_clock_counts_not_the_frames(smooth: str) -> None:
    """What trembles as much from frame to frame is calmed more where frames follow each other sooner."""
    shaky = STILL + noise(200, 0.3)
    trembling = [step(filtered(shaky, smooth, fps)).mean() for fps in (15, 30, 60, 120)]
    assert all(more < 0.97 * less for less, more in pairwise(trembling))


# ---- trembling ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [30, 60])
def test_trembling_is_calmed_and_more_so_by_strong(fps: int) -> None:
    """Noise of 0.3 % of the crop, about what is left of a good detector's."""
    shaky = STILL + noise(6 * fps, 0.003 * UNIT)
    light, strong = (step(filtered(shaky, smooth, fps)).mean() / step(shaky).mean() for smooth in FILTERS)
    assert light < 0.5
    assert strong < 0.8 * light


@pytest.mark.parametrize("smooth", FILTERS)
def test_calming_does_not_move_the_object(smooth: str) -> None:
    shaky = STILL + noise(400, 0.5)
    found = filtered(shaky, smooth)[100:]
    np.testing.assert_allclose(found.mean(0), STILL, atol=0.25)
    assert distance(found, np.repeat(STILL[None], 300, 0)).mean() < 0.8 * distance(shaky[100:], STILL).mean()


@pytest.mark.parametrize("smooth", FILTERS)
def test_trembling_is_calmed_on_a_moving_object_too(smooth: str) -> None:
    truth = moving(120, speed=100, turn=0.3)
    shaky = truth + noise(120, 0.3)
    found = filtered(shaky, smooth)
    raw = shaky - truth
    left = found - truth
    assert step(left).mean() < 0.7 * step(raw).mean()
    assert np.abs(left[30:]).mean() < np.abs(raw[30:]).mean()


@pytest.mark.parametrize("smooth", FILTERS)
def test_covered_points_tremble_less_than_visible_ones(smooth: str) -> None:
    shaky = STILL + noise(240, 0.5)
    half = np.arange(N) % 2 == 0
    trembling = [
        step(filtered(shaky, smooth, visibility=share)) for share in (SEEN, np.where(half, 0.0, 1.0))
    ]
    calmer = trembling[1] / trembling[0]
    assert calmer[half].max() < 1
    assert calmer[half].mean() < 0.92
    np.testing.assert_allclose(calmer[~half], 1, atol=1e-6)  # the others tremble as before
    between = step(filtered(shaky, smooth, visibility=np.where(half, 0.5, 1.0))) / trembling[0]
    assert (between[half] < 1).all()
    assert (between[half] > calmer[half]).all()


# ---- prediction --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smooth", SMOOTHING)
@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("fps", [30, 60])
def test_steady_motion_is_predicted(smooth: str, motion: str, fps: int) -> None:
    truth = moving(2 * fps + 3, fps, **MOTIONS[motion])
    steady = KeypointFilter(SHAPE, smooth)
    for points in truth[:-3]:
        steady.update(points, SEEN, 1 / fps)
    one_frame = distance(truth[-3:-2], truth[-4:-3])[0]
    assert distance(steady.predict(1 / fps)[None], truth[-3:-2])[0] < 0.15 * one_frame
    assert distance(steady.predict(3 / fps)[None], truth[-1:])[0] < 0.5 * one_frame
    assert distance(steady.predict(0.0)[None], truth[-4:-3])[0] < 0.08 * one_frame


@pytest.mark.parametrize("smooth", SMOOTHING)
def test_turning_on_the_spot_does_not_move_the_middle(smooth: str) -> None:
    steady = KeypointFilter(SHAPE, smooth)
    for points in moving(40, turn=1.5, growth=0.2):
        found = steady.update(points, SEEN, 1 / 30)
        np.testing.assert_allclose(found.mean(0), (320, 240), atol=1e-3)
        np.testing.assert_allclose(steady.predict(0.1).mean(0), (320, 240), atol=1e-3)


@pytest.mark.parametrize("smooth", SMOOTHING)
def test_an_object_at_rest_is_predicted_to_stay(smooth: str) -> None:
    steady = KeypointFilter(SHAPE, smooth)
    deformed = STILL + noise(1, 4)[0]
    for _ in range(3):
        steady.update(deformed, SEEN, 1 / 30)
        for dt in (0.0, 1 / 30, 2.0):
            np.testing.assert_allclose(steady.predict(dt), deformed, atol=1e-6)


def test_predicting_changes_nothing() -> None:
    truth = moving(30, speed=80) + noise(30, 1)
    steady = KeypointFilter(SHAPE, "light")
    found = []
    for points in truth:
        found.append(steady.update(points, SEEN, 1 / 30))
        steady.predict(0.5)
    np.testing.assert_array_equal(found, filtered(truth, "light"))


@pytest.mark.parametrize("smooth", SMOOTHING)
def test_nothing_is_predicted_before_the_first_frame(smooth: str) -> None:
    with pytest.raises(ValueError, match="nothing to predict from"):
        KeypointFilter(SHAPE, smooth).predict(1 / 30)


# ---- refusals ----------------------------------------------------------------------------------------------


def spoilt(at: str) -> np.ndarray:
    points = STILL.copy()
    points[3] = math.nan if at == "nan" else math.inf
    return points


@pytest.mark.parametrize("smooth", SMOOTHING)
@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize("before", [0, 3])
def test_keypoints_that_are_no_numbers_are_refused_and_change_nothing(
    smooth: str, kind: str, before: int
) -> None:
    steady = KeypointFilter(SHAPE, smooth)
    for points in moving(3, speed=60)[:before]:
        steady.update(points, SEEN, 1 / 30)
    with pytest.raises(ValueError, match="coincide or are not finite"):
        steady.update(spoilt(kind), SEEN, 1 / 30)
    untouched = KeypointFilter(SHAPE, smooth)
    for points in moving(3, speed=60)[:before]:
        untouched.update(points, SEEN, 1 / 30)
    following = STILL + 5
    np.testing.assert_array_equal(
        steady.update(following, SEEN, 1 / 30), untouched.update(following, SEEN, 1 / 30)
    )


@pytest.mark.parametrize("place", [1.0, 3.7, 250.25])
def test_keypoints_that_coincide_are_refused(place: float) -> None:
    with pytest.raises(ValueError, match="coincide"):
        KeypointFilter(SHAPE, "light").update(np.full((N, 2), place), SEEN, 1 / 30)


def without(wrong: dict[str, object], smooth: str) -> None:
    """A wrong call is refused, and what follows is as if there had been none."""
    good = {"keypoints": STILL, "visibility": SEEN, "dt": 1 / 30}
    truth = moving(6, speed=60)
    for before in (0, 3):
        steady, untouched = KeypointFilter(SHAPE, smooth), KeypointFilter(SHAPE, smooth)
        for points in truth[:before]:
            steady.update(points, SEEN, 1 / 30)
            untouched.update(points, SEEN, 1 / 30)
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))}.*expected|coincide or are not finite"):
            steady.update(**{**good, **wrong})  # type: ignore[arg-type]
        for points in truth[before:]:
            np.testing.assert_array_equal(
                steady.update(points, SEEN, 1 / 30), untouched.update(points, SEEN, 1 / 30)
            )


@pytest.mark.parametrize("smooth", SMOOTHING)
@pytest.mark.parametrize("dt", [0, 0.0, -1 / 30, 1e-320, math.nan, math.inf, None, True, "1", 10**400])
def test_a_time_that_is_none_is_refused_and_changes_nothing(smooth: str, dt: object) -> None:
    without({"dt": dt}, smooth)


@pytest.mark.parametrize("smooth", SMOOTHING)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.5, 3.0])
def test_a_visibility_that_is_none_is_refused_and_changes_nothing(smooth: str, bad: float) -> None:
    without({"visibility": np.where(np.arange(N) == 5, bad, 1.0)}, smooth)


@pytest.mark.parametrize(
    "wrong",
    [
        {"visibility": np.ones(N - 1)},
        {"visibility": 1.0},
        {"keypoints": STILL[:-1]},
        {"keypoints": STILL[:, :1]},
        {"keypoints": STILL * 1e300},
        {"keypoints": STILL * 1e200},
    ],
)
def test_other_shapes_and_places_are_refused_and_change_nothing(wrong: dict[str, object]) -> None:
    without(wrong, "light")


@pytest.mark.parametrize("dt", [-0.1, math.nan, math.inf, None, True, "1"])
def test_nothing_is_predicted_for_a_time_that_is_none(dt: object) -> None:
    steady = KeypointFilter(SHAPE, "light")
    steady.update(STILL, SEEN, 1 / 30)
    with pytest.raises(ValueError, match="dt: expected"):
        steady.predict(dt)  # type: ignore[arg-type]


def test_lists_are_as_good_as_arrays() -> None:
    steady, same = KeypointFilter(SHAPE.tolist(), "light"), KeypointFilter(SHAPE, "light")  # type: ignore[arg-type]
    for points in moving(4, speed=60):
        found = steady.update(points.tolist(), SEEN.tolist(), np.float32(0.03))  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, same.update(points, SEEN, np.float32(0.03)))


@pytest.mark.parametrize("shape", [SHAPE[:, 0], np.ones((4, 3)), np.full((4, 2), math.nan)])
def test_a_mean_shape_that_is_none_is_refused(shape: np.ndarray) -> None:
    with pytest.raises(ValueError, match="mean_shape: expected finite numbers"):
        KeypointFilter(shape, "light")
