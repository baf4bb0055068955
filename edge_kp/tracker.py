"""Objects over the frames of a video: ids that stay, keypoints from those of the frame before, steadied."""

from __future__ import annotations

import threading
import time
from typing import TypeVar

import numpy as np

from edge_kp.arguments import as_count, as_number, as_seconds, check_image
from edge_kp.cascade_result import CascadeResult
from edge_kp.clock import FRAME_S, FrameClock
from edge_kp.detector import Detector, check_detector
from edge_kp.geometry import box_iou, quarter_turns, tight_box
from edge_kp.identity import Memory, Sight, Track, distinct, likeness, same_place
from edge_kp.looks import DOUBTLESS, Looks, look, looks_turned
from edge_kp.search import Search, astray, worth_a_look
from edge_kp.smoothing import KeypointFilter
from edge_kp.together import Detect, Locate, Refine, Steps, Work, run_alone
from edge_kp.types import Array, Detection

TRACK = ("fast", "full")
"""Stage 2 alone while tracking is good, or both stages in every frame."""
MAX_OBJECTS = 8
LOCATE_EVERY = 15

# How far the crop of stage 2 may have been off, root mean square of the canonical points, sides of the crop.
NEARLY = 0.004  # beyond, stage 2 looks again
FAR = 0.05  # beyond, the whole cascade does

SURE = 0.8  # score that a newcomer must reach; one that is followed needs the model's threshold alone
AGAIN = 0.1  # IoU of what is seen in two frames running, above which it may be one object that moves
HORIZON_S = 0.25  # keypoints are foretold no further than this


Seen = TypeVar("Seen", CascadeResult, Looks)


class Tracker:
    """Follows the objects of one video.

    Safe to call from several threads: calls take turns, each with the next frame of the video.

    Args:
        max_objects: at most so many at once.
        locate_every: while fewer objects are followed than ``max_objects``, look for newcomers in every
            so-manieth frame, else in a quarter of these for whether the tracks lie right; with none in sight,
            in every frame, and with none seen clearly in every third turned as well.
        track: ``fast`` runs stage 2 alone on objects whose keypoints could be foretold well, ``full`` both
            stages on all.
        smooth: ``off``, ``light`` or ``strong``, see :mod:`edge_kp.smoothing`.
        remember: seconds for which a lost object's id waits for it to come back.

    Attributes:
        last_timings: seconds of ``locate``, ``stage1`` and ``stage2`` in the last update.

    Raises:
        ValueError: an argument of another kind.
    """

    def __init__(
        self,
        detector: Detector,
        max_objects: int = MAX_OBJECTS,
        locate_every: int = LOCATE_EVERY,
        track: str = "fast",
        smooth: str = "light",
        remember: float = 4.0,
    ) -> None:
        if track not in TRACK:
            raise ValueError(f"track: expected one of {', '.join(TRACK)}, got {track!r}")
        check_detector(detector)
        self.detector = detector
        self.max_objects = as_count("max_objects", max_objects)
        self._search = Search(as_count("locate_every", locate_every), self.max_objects)
        self.fast = track == "fast"
        self.smooth = smooth
        self.last_timings: dict[str, float] = {}
        self._mean = detector.cascade.mean_shape
        self._alignment = detector.cascade.alignment
        KeypointFilter(self._mean, smooth)  # refuses a wrong strength now, not at the first object
        self._tracks: list[Track] = []
        self._memory = Memory(as_seconds("remember", remember))
        self._clock = FrameClock()
        self._upset = False  # has an object been lost, or jumped, in this frame?
        self._flashes: list[Array] = []  # boxes of what this frame shows and the locator doubts
        self._flashed: list[Array] = []  # those of the frame before
        self._shape: tuple[int, ...] = ()
        self._fresh = True  # is this the first frame of its size?
        self._lock = threading.Lock()

    def update(self, image: Array, time_s: float | None = None) -> list[Detection]:
        """Objects of the next frame; oldest first.

        Args:
            image: uint8 BGR (H, W, 3).
            time_s: when it was taken, seconds from any start. Where it is None, not finite, or not after that
                of the last frame, the usual time between two frames is taken to have passed, at first 1/30 s.

        Raises:
            ValueError: an image of another form, or a ``time_s`` that is no number; nothing has changed.
            BackendError: the detector is closed, or a network cannot be run.
        """
        with self._lock:
            return run_alone(self.detector, self.steps(image, time_s))

    def steps(self, image: Array, time_s: float | None = None) -> Steps:
        """:meth:`update` up to each call of a network, see :mod:`edge_kp.together`; for one thread."""
        self.detector.refuse_if_closed()
        check_image(image)
        time_s = None if time_s is None else as_number("time_s", time_s)
        self._fresh = image.shape != self._shape
        if self._fresh:
            # Another photo, or a camera that changed its mode: nothing carries over.
            self._shape, self._tracks = image.shape, []
            self._memory.clear()
        dt = self._clock.tick(time_s)
        self.last_timings = {"locate": 0.0, "stage1": 0.0, "stage2": 0.0}
        self._flashed, self._flashes = self._flashes, []
        if self.detector.spec.box_rule == "image":
            yield from self._whole_image(image, dt)
        else:
            self._lose_sight()
            self._keep((yield from self._follow(image, dt)), dt)
            upset = self._upset or bool(self._flashed)
            if self._search.due(self._tracks, self._memory.lost, self._clock, upset):
                yield from self._look_around(image)
            if looks_turned(self.detector.spec):
                for turn in self._search.turns(self._clock, self._fresh):
                    if not self._search.is_clear(self._tracks, self._clock):
                        yield from self._look_around(image, turn)
        return [t.shown for t in self._tracks]

    def _lose_sight(self) -> None:
        """After a gap, as of a camera that was unplugged, each object must be found again, like any lost one:
        who is there now may be another.
        """
        if self._clock.gap:
            self._flashed = []
            for track in self._tracks:
                self._memory.add(track, self._clock.now - self._clock.gap)
            self._tracks = []
            self._memory.forget(self._clock.now)

    def _whole_image(self, image: Array, dt: float) -> Work[None]:
        """Every frame shows one object from edge to edge, always the same one, seen by both stages."""
        located = yield Locate(image)
        result = self._timed((yield Detect(image, located.boxes[:1])))
        known, back = (self._tracks or self._memory.lost), not self._tracks
        self._tracks = []
        if not self.detector.present(result):
            self._memory.lost = known
            return
        sight = Sight(result, 0)
        if known and back:
            known[0].filter = KeypointFilter(self._mean, self.smooth)
        self._tracks = [self._seen(known[0], sight, dt) if known else self._new(sight)]
        self._memory.clear()

    def _follow(self, image: Array, dt: float) -> Work[list[tuple[Track, Sight]]]:
        """Each track that is still there, with what the frame shows of it."""
        tracks = self._tracks
        expected = [t.filter.predict(min(dt, HORIZON_S)) for t in tracks]
        sights: dict[int, Sight] = {}
        far = list(range(len(tracks)))
        for track in tracks:
            track.jumped = False
        if self.fast and tracks:
            result = self._timed((yield Refine(image, expected)))
            crops = zip(result.transforms, result.wanted, strict=True)
            off = [self._alignment.distance(seen, wanted) for seen, wanted in crops]
            present = set(self.detector.present(result))
            near = [i for i in range(len(tracks)) if i in present and off[i] <= FAR]
            sights = {i: Sight(result, i) for i in near}
            if again := [i for i in near if off[i] > NEARLY]:
                result = self._timed((yield Refine(image, result.keypoints[again])))
                there = set(self.detector.present(result))
                for k, i in enumerate(again):
                    if k in there:
                        sights[i] = Sight(result, k)
                    else:
                        del sights[i]
            far = [i for i in range(len(tracks)) if i not in sights]
        if far:
            wanted = [self._alignment.to_shape(expected[i]) for i in far]
            boxes, turns = [tight_box(expected[i]) for i in far], [quarter_turns(matrix) for matrix in wanted]
            result = self._timed((yield Detect(image, boxes, turns)))
            jumped = []
            for k in self.detector.present(result):
                i = far[k]
                sights[i] = Sight(result, k)
                tracks[i].jumped = self._alignment.distance(wanted[k], result.wanted[k]) > FAR
                jumped += [i] if tracks[i].jumped else []
            if jumped:
                # Who it is shows in a crop that lies well, and that from a box a jump away may not.
                result = self._timed((yield Refine(image, [sights[i].keypoints for i in jumped])))
                sights |= {jumped[k]: Sight(result, k) for k in self.detector.present(result)}
        return [(tracks[i], sights[i]) for i in sorted(sights)]

    def _keep(self, seen: list[tuple[Track, Sight]], dt: float) -> None:
        """Take over what was seen; of two tracks on one object the one that it looks like stays.

        An object that was covered must come back where and as large as it was: else the track has run onto
        what covered it, which is another object. One that is suddenly elsewhere must look as it did: else the
        film has cut to another.
        """
        kept = seen
        if len(seen) > 1:
            kept = []
            for track, sight in sorted(seen, key=lambda pair: -likeness(pair[0].look, pair[1].look)):
                if not any(same_place(sight.box, other.box) for _, other in kept):
                    kept.append((track, sight))
        held = {track.id for track, _ in kept}
        self._memory.forget(self._clock.now)
        gone = [track for track in self._tracks if track.id not in held]
        self._upset = bool(gone) or any(track.jumped for track, _ in kept)
        for track in gone:
            self._memory.add(track, self._clock.now)
        self._tracks = []
        for track, sight in kept:
            if track.is_still(sight, self._clock.now):
                self._tracks.append(self._seen(track, sight, dt))
            else:
                track.ousted = track.jumped
                self._memory.add(track, self._clock.now)
                self._tracks.append(self._new(sight))
        self._tracks.sort(key=lambda t: t.id)

    def _look_around(self, image: Array, turn: int = 0) -> Work[None]:
        """Ask the locator for newcomers, and whether what is in doubt lies where it is thought to be; in the
        frame turned by so many quarter turns."""
        start = time.perf_counter()
        located = yield Locate(image, turn)
        self.last_timings["locate"] += time.perf_counter() - start
        free = self.max_objects - len(self._tracks)
        new, moved = worth_a_look(located, self._tracks, free)
        if not new and not moved:
            return
        boxes = [*(box for box, _ in new), *(box for _, box in moved)]
        asked = np.array([*(least for _, least in new), *(0 for _ in moved)])
        around = bool(self._search.turns(self._clock, self._fresh))
        looks = self._timed(
            (yield from look(self.detector, image, boxes, asked, [turn] * len(boxes), around=around))
        )
        sights = [Sight(looks.result, i) for i in range(len(boxes))]
        for (track, _), sight, least in zip(moved, sights[len(new) :], looks.least[len(new) :], strict=True):
            if sight.score >= least:
                self._move(track, sight)
        # A sloppy box can lead to an object that is followed already; it must not take an id.
        taken = [t.at for t in self._tracks]
        rows = [i for i in range(len(new)) if self._counts(sights[i], float(looks.least[i]))]
        newcomers = distinct((sights[i] for i in rows), taken)
        doubted = {sights[i] for i in rows if looks.least[i] > 0 and not looks.turned[i]}
        newcomers = [s for s in newcomers if not (s in doubted and self._flashes_up(s))]
        self._tracks += [self._new(sight) for sight in newcomers[:free]]
        self._tracks.sort(key=lambda t: t.id)

    def _move(self, track: Track, sight: Sight) -> None:
        """Take a track to what a located box shows, if that is its object.

        If it is another, and the track lies astray, the other is followed instead.
        """
        others = [t.at for t in self._tracks if t is not track]
        replaced = len(others) == len(self._tracks)
        if replaced or not sight.clear or any(same_place(sight.box, box) for box in others):
            return
        if track.can_be(sight, self._clock.now):
            track.filter = KeypointFilter(self._mean, self.smooth)
            self._seen(track, sight, FRAME_S)
        elif astray(track.at, [sight.box]):
            self._memory.add(track, self._clock.now)
            self._tracks[self._tracks.index(track)] = self._new(sight)

    def _counts(self, sight: Sight, least: float) -> bool:
        """Is it a newcomer, or one that comes back? ``least``: score that its box asks for.

        A lost object that is coming out of its cover is known again only once it is seen clearly: until then
        what the locator itself doubts would take a new id.
        """
        enough = max(SURE, self.detector.spec.score_threshold, least)
        return sight.score >= enough and (least == 0 or sight.clear or not self._memory.lost)

    def _flashes_up(self, sight: Sight) -> bool:
        """May it be nothing? What the locator doubts must be seen in two frames running, or leave hardly a
        doubt: in a video things look like an object for a frame. Among photos there is no next frame."""
        if sight.score >= DOUBTLESS or self._fresh:
            return False
        self._flashes.append(sight.box)
        return all(box_iou(sight.box, box) < AGAIN for box in self._flashed)

    def _timed(self, result: Seen) -> Seen:
        for stage, seconds in result.seconds.items():
            self.last_timings[stage] += seconds
        return result

    def _new(self, sight: Sight) -> Track:
        number, lost = self._memory.recall(sight, self._clock.now)
        keypoint_filter = KeypointFilter(self._mean, self.smooth)
        shown, now = self.detector.detection(sight.result, sight.i, number), self._clock.now
        track = Track(number, keypoint_filter, shown, shown.box, sight.look, sight, sight.box, now)
        if lost is not None and not sight.clear:
            # Found half turned away, say: where it was seen clearly still is what tells whether it can be it.
            track.look, track.sight, track.box = lost.look, lost.sight, lost.box
            track.time, track.motion = lost.time, lost.motion
        return self._seen(track, sight, FRAME_S)

    def _seen(self, track: Track, sight: Sight, dt: float) -> Track:
        keypoints = track.filter.update(sight.keypoints, sight.visibility, dt)
        track.shown = self.detector.detection(sight.result, sight.i, track.id, keypoints)
        track.at = track.shown.box.copy()
        track.note(sight, self._clock.now)
        return track
