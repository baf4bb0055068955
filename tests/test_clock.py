"""Seconds between the frames of a video."""

import pytest

from edge_kp.clock import FRAME_S, FrameClock


def test_without_stamps_frames_come_thirty_times_a_second():
    clock = FrameClock()
    assert [clock.tick() for _ in range(3)] == pytest.approx([FRAME_S] * 3)
    assert clock.frame == 2
    assert clock.now == pytest.approx(3 * FRAME_S)
    assert clock.gap == 0


def test_bursts_are_evened_out_and_the_clock_keeps_the_stamps():
    clock, time_s = FrameClock(), 0.0
    clock.tick(time_s)
    for i in range(200):
        time_s += (0.002, 0.078)[i % 2]
        seconds = clock.tick(time_s)
        assert i < 20 or 0.02 < seconds < 0.07
    assert clock.now - FRAME_S == pytest.approx(time_s)


def test_an_interruption_is_told_once_and_slow_frames_are_none():
    clock = FrameClock()
    gaps = []
    for time_s in (0.0, 0.04, 60.0, 120.0, 180.0):
        clock.tick(time_s)
        gaps.append(clock.gap > 0)
    assert gaps == [False, False, True, False, False]
