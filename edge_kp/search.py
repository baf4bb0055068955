"""When a tracker asks the locator, and which of the boxes in its answer are worth a look."""

from __future__ import annotations

from collections.abc import Sequence

from edge_kp.clock import FrameClock
from edge_kp.geometry import box_iou
from edge_kp.identity import Track, same_place
from edge_kp.locator import Located
from edge_kp.looks import TURNS
from edge_kp.types import Array

SEARCH_AGAIN = 3  # frames between two searches for an object just lost, or just in doubt
SEARCH_FOR_S = 1.0  # how long it is searched for like that
TURNED_EVERY = 3  # frames between two looks at the frame turned, where nothing is seen clearly
CHECK_EVERY = 4  # one of so many regular searches is made even where there is no room for newcomers

SAME_PLACE = 0.3  # IoU of a located box and a tracked one, above which they show the same object
WELL_PLACED = 0.7  # and above which the tracked one is right
ASTRAY = 0.5  # and below which it is wrong, where one of them lies in the other
MOST_TRIED = 2  # located boxes that are looked at for every object that there is room for


class Search:
    """
    Args:
        every: frames between two regular searches.
        most: objects for which there is room.
    """

    def __init__(self, every: int, most: int) -> None:
        self.every = every
        self.most = most

    def due(self, tracks: Sequence[Track], lost: Sequence[Track], clock: FrameClock, upset: bool) -> bool:
        """Must the locator be asked in this frame?

        Args:
            upset: has an object been lost in this frame, or is one not where it was expected?
        """
        if upset or not tracks:
            return True
        again, regular = clock.frame % SEARCH_AGAIN == 0, clock.frame % self.every == 0
        doubts = [clock.now - t.doubt for t in tracks if t.doubt is not None]
        if any(regular or (again and age <= SEARCH_FOR_S) for age in doubts):
            return True
        if len(tracks) >= self.most:
            return clock.frame % (CHECK_EVERY * self.every) == 0
        just_lost = any(clock.now - t.lost <= SEARCH_FOR_S for t in lost)
        return regular or (again and just_lost)

    def turns(self, clock: FrameClock, fresh: bool) -> Sequence[int]:
        """By how many quarter turns the locator is to see this frame as well, if nothing in it is clear.

        Args:
            fresh: is it the first frame, or the first of another size, as of another photo?
        """
        if fresh:
            return TURNS
        return [TURNS[clock.frame // TURNED_EVERY % 3]] if clock.frame % TURNED_EVERY == 0 else []

    def is_clear(self, tracks: Sequence[Track], clock: FrameClock) -> bool:
        """Is an object in sight that is seen clearly, or has been in doubt for long? Else what is there may
        lie on its side or stand on its head."""
        return any(t.doubt is None or clock.now - t.doubt > SEARCH_FOR_S for t in tracks)


def worth_a_look(
    located: Located, tracks: Sequence[Track], room: int
) -> tuple[list[tuple[Array, float]], list[tuple[Track, Array]]]:
    """Boxes that may show newcomers, each with the score that it asks for, likeliest first; and tracks, each
    with a box of which the locator is sure and that may show better where its object is.

    Args:
        room: for so many newcomers.
    """
    pairs = zip(located.boxes, located.least.tolist(), strict=True)
    boxes: list[tuple[Array, float]] = sorted(pairs, key=lambda pair: pair[1])
    new = [(box, least) for box, least in boxes if all(box_iou(box, t.at) < SAME_PLACE for t in tracks)]
    sure = [box for box, least in boxes if least == 0]
    moved = [(track, box) for track in tracks for box in _better(track, sure)]
    return new[: MOST_TRIED * room], moved  # some newcomers may be nothing, above all those that come last


def _better(track: Track, sure: Sequence[Array]) -> list[Array]:
    """Which boxes may lie better than a track: those near it, if it is in doubt or has jumped; those around
    it or within, if it lies astray."""
    better = []
    if track.doubt is not None or track.jumped:
        better = [box for box in sure if SAME_PLACE / 2 < box_iou(box, track.at) < WELL_PLACED]
    return better or ([box for box in sure if same_place(box, track.at)] if astray(track.at, sure) else [])


def astray(at: Array, sure: Sequence[Array]) -> bool:
    """Does a box (4,) lie in one of the others, or around it, and like none of them?"""
    return any(same_place(box, at) for box in sure) and all(box_iou(box, at) < ASTRAY for box in sure)
