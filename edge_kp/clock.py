"""The time of a video's frames: how long each took, and whether the video was interrupted before it."""

from __future__ import annotations

import math

FRAME_S = 1 / 30  # time between frames where nobody says it
AWAY_S = 1.0  # without a frame for longer, and for three times as long as usual, it was interrupted


class FrameClock:
    """
    Attributes:
        frame: number of the frame, from 0; -1 before the first.
        now: seconds since the clock began.
        gap: seconds since the last frame, where they are unusually many; else 0.
    """

    def __init__(self) -> None:
        self.frame = -1
        self.now = 0.0
        self.gap = 0.0
        self._time: float | None = None
        self._usual = 0.0  # seconds between two frames, running mean; 0 before the second

    def tick(self, time_s: float | None = None) -> float:
        """The next frame: seconds since the last one, for filters.

        Frames of a network camera come in bursts: how long a frame took to arrive says less of when it was
        taken than the usual time between two.

        Args:
            time_s: when it was taken, seconds from any start; None, or a time that is not after the last
                frame's, says nothing: the usual time is taken to have passed.
        """
        interrupted, self.gap = self.gap > 0, 0.0
        if time_s is None or self._time is None or not 0 < time_s - self._time < math.inf:
            gap = self._usual or FRAME_S
        else:
            gap = max(time_s - self._time, 1e-3)
            away = gap > max(AWAY_S, 3 * (self._usual or FRAME_S))
            if away and not interrupted:
                self.gap = gap
            elif away or not self._usual:  # twice in a row it is no interruption, but how frames come here
                self._usual = gap
            else:
                weight = 0.2 if self._usual < AWAY_S else 0.5
                self._usual += weight * (min(gap, max(0.5, 3 * self._usual)) - self._usual)
        self._time = time_s if time_s is not None and math.isfinite(time_s) else None
        self.frame += 1
        self.now += gap
        usual = self._usual or FRAME_S
        return min(max(gap, 0.7 * usual), 1.5 * usual)
