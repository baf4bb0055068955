"""What an inference thread does: a tracker for each of its sources, all of them over the same networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_kp.cores import usable_cores
from edge_kp.detector import Detector
from edge_kp.live.frames import Frame
from edge_kp.together import Steps, run_together
from edge_kp.types import Array, Detection

Found = tuple[list[Detection], Mapping[str, float]]  # what is in a frame, and the seconds each stage took


class Follower(Protocol):
    """What follows one video: a tracker.

    Attributes:
        last_timings: seconds that each stage took in the last frame.
    """

    last_timings: dict[str, float]

    def steps(self, image: Array, time_s: float | None = None) -> Steps:
        """The work on the next frame, up to each call of a network; see :mod:`edge_kp.together`."""


class Together:
    """Follows each video of a run, all of them by the same networks. Use it in one thread.

    Args:
        followers: one for each video.
    """

    def __init__(self, detector: Detector, followers: Sequence[Follower]) -> None:
        self.detector = detector
        self.followers = followers

    def update(self, frames: Sequence[Frame]) -> list[Found | Exception]:
        """What is in the next frame of one or more of the videos, or what kept one from being looked at."""
        followers = [self.followers[frame.source] for frame in frames]
        works = [f.steps(frame.image, frame.time_s) for f, frame in zip(followers, frames, strict=True)]
        found = run_together(self.detector, works)
        return [
            what if isinstance(what, Exception) else (what, follower.last_timings)
            for what, follower in zip(found, followers, strict=True)
        ]


def decoding_threads(sources: int) -> int:
    """CPU threads that decode each of so many clips or streams.

    Several that decode one video take 40 % more of the processor than one: only where it is free.
    """
    return max(1, usable_cores() // max(1, sources))


def share_cores(backend: str, sources: int, threads: int | None) -> tuple[int, int | None]:
    """Inference threads for so many sources, and CPU threads for the networks of each; None: its own choice.

    CPU cores that each work on a source of their own get further than cores that share every network. A GPU
    is fed by one thread, with the frames of all sources in a batch.

    Args:
        backend: not ``auto``.
        threads: CPU threads for all networks together; None takes all cores there are.
    """
    if backend == "tensorrt" or sources == 1:
        return 1, threads
    cores = threads or usable_cores()
    lanes = min(sources, cores)
    return lanes, cores // lanes
