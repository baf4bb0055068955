"""Fuzz cases of what a detector is given: images and boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.fuzzing.materials import (
    MODEL,
    check_same,
    check_sound,
    first_frame,
)
from benchmarks.fuzzing.spoil import (
    Random,
    pick,
)
from benchmarks.fuzzing.worker import ANSWERED, REFUSED, Case, Kind, Wrong, each
from edge_kp import Detector, Tracker
from edge_kp.errors import EdgeKpError
from edge_kp.types import Array, Detection

GROWTH = 2**29  # bytes more than before that a large image or many boxes may take


@dataclass(frozen=True, eq=False)
class Running:
    """A detector, and a picture in which it finds a face."""

    detector: Detector
    image: Array
    box: Array
    answer: list[Detection]


def _running(folder: Path) -> Running:
    detector = Detector(MODEL, threads=1)
    image, box = first_frame()
    return Running(detector, image, box, detector.detect(image, boxes=[box]))


def _detect(make: Callable[[Array], Any], running: Running, folder: Path) -> None:
    image = make(running.image)
    running.detector.detect(image)
    check_sound(running.detector.detect(image, boxes=[running.box]))


def _like_copy(make: Callable[[Array], Array], running: Running, folder: Path) -> None:
    """An image that lies otherwise in memory gives what its copy gives."""
    image = make(running.image)
    copy = np.array(image, order="C", subok=False)
    before = copy.copy()
    whole = np.array([0, 0, copy.shape[1], copy.shape[0]])
    for boxes in (None, [running.box, whole]):
        found = running.detector.detect(image, boxes=boxes)
        check_sound(found)
        check_same(found, running.detector.detect(copy, boxes=boxes))
    if not np.array_equal(np.asarray(image), before):
        raise Wrong("the image was written to")


def _mapped(image: Array) -> Array:
    with open("image.raw", "wb") as file:
        file.write(image.tobytes())
    return np.memmap("image.raw", np.uint8, "r", shape=image.shape)


def _blank(height: int, width: int) -> Callable[[Array], Array]:
    return lambda image: np.full((height, width, 3), 90, np.uint8)


def _track(frames: Callable[[Array], Sequence[tuple[Any, Any]]], running: Running, folder: Path) -> None:
    tracker = Tracker(running.detector)
    for image, time_s in frames(running.image):
        check_sound(tracker.update(image, time_s))
    again = [tracker.update(running.image) for _ in range(3)][-1]
    check_sound(again)
    if len(again) != 1:
        raise Wrong(f"{len(again)} faces found afterwards instead of one")


def _times(image: Array) -> list[tuple[Any, Any]]:
    return [(image, t) for t in (0.0, math.nan, math.inf, -math.inf, -5.0, 1e300, -1e300, None, 0.0, 0.0)]


def _random_image(running: Running, folder: Path, rng: Random) -> None:
    height, width = (int(2 ** rng.uniform(0, 9.5)) for _ in range(2))
    large = rng.integers(0, 256, (2 * height, 2 * width, 3), np.uint8)
    what = (
        lambda: large,
        lambda: np.full_like(large, rng.integers(256)),
        lambda: cv2.resize(running.image, (2 * width, 2 * height)),
    )
    image = pick(rng, what)()
    steps = (slice(None, height), slice(None, None, -1), slice(None, None, 2), slice(1, height + 1))
    view = image[pick(rng, steps), pick(rng, steps)][..., pick(rng, (slice(None), slice(None, None, -1)))]
    _like_copy(lambda _: view if rng.random() < 0.7 else view.transpose(1, 0, 2), running, folder)


_STRIDED: dict[str, Callable[[Array], Array]] = {
    "upside down": lambda image: image[::-1],
    "mirrored": lambda image: image[:, ::-1],
    "channels reversed": lambda image: image[..., ::-1],
    "transposed": lambda image: image.transpose(1, 0, 2),
    "columns first in memory": np.asfortranarray,
    "every other pixel": lambda image: image.repeat(2, 0).repeat(2, 1)[::2, ::2],
    "part of a larger image": lambda image: np.pad(image, ((9, 9), (7, 5), (0, 0)))[9:-9, 7:-5],
    "three of four channels": lambda image: np.dstack([image, image])[..., :3],
    "one channel three times": lambda image: np.broadcast_to(image[..., :1], image.shape),
    "one pixel everywhere": lambda image: np.broadcast_to(image[:1, :1], image.shape),
    "mapped file": _mapped,
    "masked array": np.ma.masked_array,
}
_SIZES = [(1, 1), (1, 2), (3, 2), (1, 5000), (5000, 1), (1, 40_000), (40_000, 3), (8000, 8000)]
_OTHER: dict[str, Callable[[Array], Any]] = {
    **{f"{h}x{w}": _blank(h, w) for h, w in ((0, 0), (0, 5), (5, 0))},
    "grey": lambda image: image[..., 0],
    "grey with an axis": lambda image: image[..., :1],
    "RGBA": lambda image: np.dstack([image, image[..., :1]]),
    "float": lambda image: image.astype(np.float32),
    "float of NaN": lambda image: np.full(image.shape, math.nan),
    "16 bit": lambda image: image.astype(np.uint16),
    "signed": lambda image: image.astype(np.int8),
    "truth values": lambda image: image > 90,
    "objects": lambda image: image[:4, :4].astype(object),
    "a batch": lambda image: image[None],
    "flat": lambda image: image.ravel(),
    "no array": lambda image: image[:4, :4].tolist(),
    "None": lambda image: None,
    "a path": lambda image: "photo.jpg",
    "bytes": lambda image: image.tobytes(),
    "an array of no axis": lambda image: np.array(3, np.uint8),
}


def _with_peak(run: Callable[[Running, Path], None], running: Running, folder: Path) -> None:
    """Run, and refuse that memory grows by more than :data:`GROWTH` meanwhile."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest is forgotten
    before = _status("VmRSS")
    run(running, folder)
    grown = _status("VmHWM") - before
    if grown > GROWTH:
        raise Wrong(f"memory grew by {grown / 2**30:.1f} GiB")


def _status(name: str) -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[name].split()[0]) * 1024


IMAGES = Kind(
    share=_running,
    fixed={
        **each(
            "pixels", lambda hw: Case(partial(_with_peak, partial(_detect, _blank(*hw))), ANSWERED), _SIZES
        ),
        **{name: Case(partial(_like_copy, make), ANSWERED) for name, make in _STRIDED.items()},
        **{name: Case(partial(_detect, make), REFUSED) for name, make in _OTHER.items()},
        "frames of ever other sizes": Case(
            partial(_track, lambda image: [(image[: 480 - 50 * i, : 640 - 70 * i], None) for i in range(9)]),
            ANSWERED,
        ),
        "times that are none": Case(partial(_track, _times), ANSWERED),
        "a grey frame amid others": Case(
            partial(_track, lambda image: [(image, None), (image[..., 0], None)]), REFUSED
        ),
    },
    mutated=_random_image,
    refusals=(ValueError, EdgeKpError),
)


def _boxes(boxes: Any, running: Running, folder: Path) -> None:
    found = running.detector.detect(running.image, boxes=boxes)
    check_sound(found)
    if [one.id for one in found] != list(range(len(boxes))):
        raise Wrong(f"{len(found)} answers to {len(boxes)} boxes")


def _many(backend: str, count: int, running: Running, folder: Path) -> None:
    """So many boxes give what some of them give alone."""
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 150, (count, 2))], 1)
    boxes[count // 2] = running.box
    with Detector(MODEL, threads=1, backend=backend) as detector:
        found = detector.detect(running.image, boxes=boxes)
        check_sound(found)
        for i in (0, count // 2, count - 1):
            check_same([found[i]], detector.detect(running.image, boxes=[boxes[i]]), 0.02)


def _shuffled(running: Running, folder: Path) -> None:
    boxes = [running.box + shift for shift in range(-12, 13)]
    order = np.random.default_rng(0).permutation(len(boxes))
    found = running.detector.detect(running.image, boxes=boxes)
    other = running.detector.detect(running.image, boxes=[boxes[i] for i in order])
    check_same(other, [found[i] for i in order], 0.02)


def _random_boxes(running: Running, folder: Path, rng: Random) -> None:
    """Random boxes, some of which may be none; those that are good must be answered alike alone."""
    count = int(rng.integers(1, 5))
    corners = rng.normal(0, 10 ** rng.uniform(0, 5), (count, 2))
    boxes = np.concatenate([corners, corners + 10 ** rng.uniform(0, 4, (count, 2))], 1)
    good = rng.random() < 0.5
    if not good:
        for _ in range(int(rng.integers(1, 4))):
            value = pick(rng, (math.nan, math.inf, -math.inf, 1e39, -1e39, 1e300, 1e30, 1e10, 3e7, 0.0, -0.0))
            boxes[rng.integers(count), rng.integers(4)] = value
    try:
        found = running.detector.detect(running.image, boxes=boxes)
    except ValueError as error:
        if good:
            raise Wrong(f"refused though good: {error}") from error
        raise
    check_sound(found)
    with np.errstate(over="ignore"):
        told = boxes.astype(np.float32)
    sides = told[:, 2:] - told[:, :2]
    if not (np.isfinite(told).all() and (sides >= 0).all() and (sides.max(1) > 0).all()):
        raise Wrong(f"answered boxes that are none: {boxes.tolist()}")
    scale = max(1.0, float(np.abs(told).max()))
    for i in range(count):
        check_same([found[i]], running.detector.detect(running.image, boxes=[boxes[i]]), 1e-4 * scale)


_GOOD_BOXES: dict[str, Any] = {
    "none": [],
    "none as an array": np.zeros((0, 4)),
    "outside of the frame": [[-500, -500, -400, -380], [5000, 5000, 5100, 5100]],
    "far outside": [[-1e6, -1e6, -1e6 + 100, -1e6 + 100], [1e6, 0, 1e6 + 50, 60]],
    "around the whole frame": [[-1e5, -1e5, 1e5, 1e5]],
    "half outside": [[-50, -50, 100, 100]],
    "a line": [[10, 10, 10, 60]],
    "a pixel": [[10, 10, 11, 11]],
    "whole numbers": [[100, 100, 200, 200]],
    "the same twice": [[100, 100, 200, 200]] * 2,
    "64 bit": np.array([[100.0, 100, 200, 200]]),
}
_BAD_BOX: dict[str, Any] = {
    **{f"{value} at {i}": [value if k == i else 50.0 * (k + 1) for k in range(4)]
       for value in (math.nan, math.inf, -math.inf, 1e39) for i in range(4)},
    "empty": [10, 10, 10, 10],
    "inverted": [20, 10, 10, 30],
    "upside down": [10, 30, 20, 10],
    "three numbers": [1, 2, 3],
    "five numbers": [1, 2, 3, 4, 5],
    "text": ["a", "b", "c", "d"],
    "None": [None] * 4,
    "complex": [1j, 0, 5, 5],
    "huge whole numbers": [0, 0, 10**400, 5],
    "nested": [[1, 2, 3, 4]],
    "a word": "abcd",
    "a number": 7,
    "objects": [object(), 1, 2, 3],
    "beyond float32's pixels": [1e12, 1e12, 1e12 + 1e7, 1e12 + 1e7],
}  # fmt: skip

BOXES = Kind(
    share=_running,
    fixed={
        **{name: Case(partial(_boxes, boxes), ANSWERED) for name, boxes in _GOOD_BOXES.items()},
        **{
            name: Case(partial(_boxes, [[100, 100, 200, 200], box]), REFUSED)
            for name, box in _BAD_BOX.items()
        },
        "another order": Case(_shuffled, ANSWERED),
        "10,000 boxes": Case(partial(_with_peak, partial(_many, "auto", 10_000)), ANSWERED),
        "2000 boxes, ONNX Runtime": Case(partial(_with_peak, partial(_many, "onnxruntime", 2000)), ANSWERED),
    },
    mutated=_random_boxes,
    refusals=(ValueError, EdgeKpError),
)
