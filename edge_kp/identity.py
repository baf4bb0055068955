"""Who is who in a video: what a frame shows of an object, and which lost object a newcomer may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from edge_kp.cascade_result import CascadeResult
from edge_kp.geometry import solid_box, tight_box
from edge_kp.smoothing import KeypointFilter
from edge_kp.types import Array, Detection

DOUBLE = 0.6  # share of the smaller of two boxes inside the other, above which they show the same object
CLEAR = 0.95, 0.8  # score and mean visibility from which an object is seen clearly
RESIZED = 1.3  # ratio of sides, above which what was lost and what is found are not the same object
RESIZING = 1.35  # by how much that ratio grows each second
DRIFT = 0.9  # sides that an unseen object may move in a second
UNSEEN_S = 3.0  # after so long both stay as they are
# Correlation of two looks, see ``Track.alike``. Two people's faces reach 0.3 in the middle, 0.6 in one
# pair of twelve, 0.85 in one of a thousand; one face stays above 0.65 from frame to frame, even turning fast.
SAME = 0.85  # from here they show one object, wherever it is
ALIKE = 0.6  # below, two objects, if little time lies between them
UNLIKE = -0.2  # and below, at any time: who comes back may be turned away, half covered or in another light
MOMENT_S = 0.1  # this is little time
LOOK = 16  # side of a remembered look, pixels
LOOK_EVERY = 4  # frames seen between two glances at it


@dataclass(eq=False)
class Sight:
    """What one frame shows of an object: row ``i`` of a result."""

    result: CascadeResult
    i: int

    @property
    def keypoints(self) -> Array:
        """(N, 2) float32, frame pixels, as the network gave them."""
        return np.asarray(self.result.keypoints[self.i])

    @property
    def visibility(self) -> Array:
        return np.asarray(self.result.visibility[self.i])

    @property
    def score(self) -> float:
        return float(self.result.score[self.i])

    @cached_property
    def box(self) -> Array:
        return tight_box(self.keypoints)

    @cached_property
    def clear(self) -> bool:
        """Is the object seen without doubt, and hardly covered?"""
        score, visibility = CLEAR
        seen = self.visibility
        return self.score >= score and float(seen.sum()) >= visibility * len(seen)

    @cached_property
    def look(self) -> Array:
        """The aligned crop, small, without its brightness and contrast: float32 of length 1."""
        crop = self.result.crop(self.i)
        edge = len(crop) // 8
        inner = crop[edge:-edge, edge:-edge]
        small = cv2.resize(inner, (LOOK, LOOK), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        small -= small.mean()
        return small / max(float(np.linalg.norm(small)), 1e-6)


@dataclass(eq=False)
class Track:
    """An object that is followed, or was until a while ago.

    Attributes:
        shown: the last detection as told to the user, who may do with it as he likes; keypoints filtered.
        at: its box, of the track's own.
        look: running mean of its looks, while it was seen clearly.
        sight: the last clear one, or the first.
        box, time: where it was last seen clearly, and when, seconds.
        motion: running mean of the speed of its middle, x + iy, pixels per second.
        doubt: since when it is covered, or hardly one of its kind; None while it is seen clearly.
        jumped: is it far from where it was expected in this frame?
        ousted: did another take its place at once, as when a film cuts to another scene?
        lost: when it was lost.
        seen: frames in which it was seen clearly.
    """

    id: int
    filter: KeypointFilter
    shown: Detection
    at: Array
    look: Array
    sight: Sight
    box: Array
    time: float
    motion: complex = 0j
    doubt: float | None = None
    jumped: bool = False
    ousted: bool = False
    lost: float = -math.inf
    seen: int = 0

    def note(self, sight: Sight, now: float) -> None:
        """Remember where it is and what it looks like, if it can be seen."""
        if not sight.clear:
            self.doubt = now if self.doubt is None else self.doubt
            return
        self.doubt = None
        if now > self.time:
            speed = (_middle(self.at) - _middle(self.box)) / (now - self.time)
            self.motion = 0.8 * self.motion + 0.2 * speed
        self.box, self.time, self.sight = self.at, now, sight
        self.seen += 1
        if self.seen % LOOK_EVERY == 0:
            self.look = 0.8 * self.look + 0.2 * sight.look

    def is_still(self, sight: Sight, now: float) -> bool:
        """Is what this track has come to what it followed, as far as that can be seen?"""
        if not sight.clear:
            return True
        if self.doubt is not None:
            return self.can_be(sight, now)
        return not self.jumped or self.alike(sight, now)

    def can_be(self, sight: Sight, now: float) -> bool:
        """Is it what a sight shows? It looks exactly so, or it may, and may have come there."""
        return self.likeness(sight) >= SAME or (self.alike(sight, now) and self._reaches(sight, now))

    def alike(self, sight: Sight, now: float) -> bool:
        """Does it look like what a sight shows, as far as a look can tell after so long?"""
        told = self.ousted or (sight.clear and now - self.time <= MOMENT_S)
        return self.likeness(sight) >= (ALIKE if told else UNLIKE)

    def likeness(self, sight: Sight) -> float:
        """Correlation of a sight's look with this object's usual or last one, whichever is higher."""
        return max(likeness(self.look, sight.look), likeness(self.sight.look, sight.look))

    def _reaches(self, sight: Sight, now: float) -> bool:
        """Does a sight lie where this object may have gone unseen, and is it of its size?

        It may have stayed, gone on as it went, or anything between; and from there half its side at once
        and ``DRIFT`` sides more each second. Its size may change likewise.
        """
        unseen = min(now - self.time, UNSEEN_S)
        ratio, limit = _side(sight.box) / _side(self.box), RESIZED * RESIZING**unseen
        if not 1 / limit < ratio < limit:
            return False
        moved, path = _middle(sight.box) - _middle(self.box), self.motion * unseen
        along = (moved * path.conjugate()).real
        share = min(max(along / max(abs(path) ** 2, 1e-6), 0.0), 1.0)
        reach = (0.5 + DRIFT * unseen) * max(_side(self.box), _side(sight.box))
        return abs(moved - share * path) < reach


class Memory:
    """Lost objects, for so many seconds, and numbers for new ones."""

    def __init__(self, seconds: float) -> None:
        self.lost: list[Track] = []
        self._seconds = seconds
        self._next_id = 1

    def add(self, track: Track, now: float) -> None:
        track.lost = now
        self.lost.append(track)

    def forget(self, now: float) -> None:
        """Drop what was lost too long ago."""
        self.lost = [t for t in self.lost if now - t.lost <= self._seconds]

    def clear(self) -> None:
        self.lost = []

    def recall(self, sight: Sight, now: float) -> tuple[int, Track | None]:
        """The id for a newcomer, and the lost object that it is: it can be that, and looks most like it."""
        back = [t for t in self.lost if t.can_be(sight, now)]
        track = max(back, key=lambda t: t.likeness(sight), default=None)
        if track is not None:
            self.lost.remove(track)
            return track.id, track
        self._next_id += 1
        return self._next_id - 1, None


def likeness(a: Array, b: Array) -> float:
    """Correlation of two looks, in [-1, 1]."""
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6)


def same_place(a: Array, b: Array) -> bool:
    """Do two boxes (4,) show one object? One of them lies mostly in the other."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = solid_box(a), solid_box(b)
    common = max(min(ax1, bx1) - max(ax0, bx0), 0.0) * max(min(ay1, by1) - max(ay0, by0), 0.0)
    return common > DOUBLE * min((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0))


def distinct(candidates: Iterable[Sight], others: Sequence[Array]) -> list[Sight]:
    """The candidates that show neither what is in one of the boxes ``others`` nor an earlier candidate."""
    kept: list[Sight] = []
    boxes = list(others)
    for candidate in candidates:
        if not any(same_place(candidate.box, box) for box in boxes):
            kept.append(candidate)
            boxes.append(candidate.box)
    return kept


def _middle(box: Array) -> complex:
    """x + iy, in plain numbers, which take a tenth of the time of an array of two."""
    x, y = (box[:2] + box[2:]).tolist()
    return complex(x, y) / 2


def _side(box: Array) -> float:
    return max(float(box[2] - box[0]), float(box[3] - box[1]), 1e-6)
