"""Tracking on video: ``python -m benchmarks.clip`` (the shipped clip, known motion) or ``--source FILE``.

On the shipped clip the true motion of the keypoints is known, not their true place: every frame's keypoints
are moved back into the photo, and the error is their distance from the median over the uncovered frames.
Jitter is the root mean square of the frame-to-frame change of that error. The lag is the share of a frame's
motion by which keypoints stay behind, ``lag_shift_frames`` the shift of the true path in time, in frames,
that leaves the least distance to the tracked one. On any clip the second difference of the keypoints tells
how much they tremble, in % of the distance between the reference points; on a still object nothing else is in
it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.common import write_result
from edge_kp import Detection, Detector, Tracker
from edge_kp.cli import natural, positive, run_cli
from edge_kp.errors import DataError
from edge_kp.geometry import box_iou, invert, transform_points
from edge_kp.live.frames import Frame
from edge_kp.live.source import open_source
from edge_kp.modeldir import find_model, read_model
from edge_kp.smoothing import SMOOTHING
from edge_kp.tracker import MAX_OBJECTS, TRACK
from edge_kp.types import Array

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut.mp4"
NOISE = 4.0  # grey levels, standard deviation, on every picture of --still
STILL = 0.2  # share of the calmest frames that count as still
MOST_SHIFT = 5  # frames by which a path is thought to be late, or early, at most
Frames = list[list[Detection]]


def _frames(path: Path, still: int) -> Iterator[Frame]:
    source = open_source(str(path))
    rng = np.random.default_rng(0)
    try:
        while (frame := source.read()) is not None:
            for i in range(still):
                noise = rng.normal(0, NOISE, frame.image.shape)
                image = np.clip(frame.image + noise, 0, 255).astype(np.uint8)
                yield replace(frame, image=image, time_s=i / 30)
            if still:
                return
            yield frame
    finally:
        source.close()


def track(tracker: Tracker, source: Path, still: int = 0) -> tuple[Frames, dict[str, Any]]:
    """Detections of every frame, and figures that need no truth.

    Args:
        still: show the first frame so many times instead, with fresh noise; 0 plays the clip.

    Raises:
        DataError: no clip, or one without a frame.
    """
    frames: Frames = []
    times = []
    for frame in tqdm(_frames(source, still), source.name, unit="frame", leave=False):
        frames.append(tracker.update(frame.image, frame.time_s))
        times.append(dict(tracker.last_timings))
    detector = tracker.detector
    reference, how = detector.schema.reference, f"{detector.precision} in {detector.backend_name}"
    if not frames:
        raise DataError(f"{source}: holds no frame")
    tracking = [1e3 * (t["stage1"] + t["stage2"]) for t in times if t["locate"] == 0 and t["stage2"] > 0]
    searches = [1e3 * t["locate"] for t in times if t["locate"] > 0]
    ids: dict[int, list[int]] = {}
    for number, detections in enumerate(frames):
        for detection in detections:
            ids.setdefault(detection.id, []).append(number)
    figures: dict[str, Any] = {
        "networks": how,
        "frames": len(frames),
        "frames_with_object_percent": round(100 * float(np.mean([bool(f) for f in frames])), 2),
        "ids": {i: {"first": n[0], "last": n[-1], "frames": len(n)} for i, n in sorted(ids.items())},
        "tracking_median_ms": round(float(np.median(tracking)), 2) if tracking else None,
        "searches": len(searches),
        "search_median_ms": round(float(np.median(searches)), 2) if searches else None,
    }
    return frames, {**figures, **steadiness(frames, reference)}


def steadiness(frames: Frames, reference: tuple[int, int]) -> dict[str, float | None]:
    """Root mean square of the keypoints' second difference, % of the reference distance."""
    rows = []
    for before, now, after in zip(frames, frames[1:], frames[2:], strict=False):
        for here in now:
            sides = [next((d for d in other if d.id == here.id), None) for other in (before, after)]
            if sides[0] is not None and sides[1] is not None:
                second = sides[1].keypoints - 2 * here.keypoints + sides[0].keypoints
                unit = np.linalg.norm(here.keypoints[reference[0]] - here.keypoints[reference[1]])
                rows.append(100 * np.sqrt(np.mean(np.sum(np.square(second), 1))) / unit)
    if not rows:
        return {"second_difference_percent": None, "second_difference_still_percent": None}
    calm = np.sort(rows)[: max(1, round(STILL * len(rows)))]
    return {
        "second_difference_percent": round(float(np.sqrt(np.mean(np.square(rows)))), 3),
        "second_difference_median_percent": round(float(np.median(rows)), 3),
        "second_difference_still_percent": round(float(np.sqrt(np.mean(np.square(calm)))), 3),
    }


def against_motion(frames: Frames, about: dict[str, Any], schema_pair: tuple[int, int]) -> dict[str, Any]:
    """Error, jitter, lag and presence on the shipped clip, % of the reference distance."""
    rows = about["frames"]
    matrices = np.array([row["matrix"] for row in rows])
    clear = [i for i, row in enumerate(rows) if row["face_visible"] and not row["cover"]]
    back = {
        i: transform_points(invert(matrices[i]), frames[i][0].keypoints)
        for i in range(len(rows))
        if frames[i]
    }
    seen = [i for i in clear if i in back]
    if not seen:
        return {"visible_frames_with_object_percent": 0.0}
    reference = np.median([back[i] for i in seen], axis=0)
    unit = np.linalg.norm(reference[schema_pair[0]] - reference[schema_pair[1]])
    error = {i: np.linalg.norm(points - reference, axis=1).mean() / unit for i, points in back.items()}
    steps = [back[i] - back[i - 1] for i in seen if i - 1 in seen]
    part = [i for i, row in enumerate(rows) if row["face_visible"] and row["cover"]]
    hidden = [i for i, row in enumerate(rows) if not row["face_visible"]]

    truth = {i: transform_points(matrices[i], reference) for i in range(len(rows))}
    moved = [truth[i] - truth[i - 1] for i in seen if i > 0]
    behind = [truth[i] - frames[i][0].keypoints for i in seen if i > 0]

    path = np.full((len(rows), *reference.shape), np.nan)
    for i in seen:
        path[i] = frames[i][0].keypoints

    def percent(values: list[Any]) -> float | None:
        return round(100 * float(np.mean(values)), 3) if values else None

    return {
        "visible_frames_with_object_percent": percent([bool(frames[i]) for i in clear + part]),
        "hidden_frames_with_object_percent": percent([bool(frames[i]) for i in hidden]),
        "error_clear_percent": percent([error[i] for i in seen]),
        "error_part_covered_percent": percent([error[i] for i in part if i in error]),
        "jitter_rms_percent": round(100 * float(np.sqrt(np.mean(np.sum(np.square(steps), -1)))) / unit, 3),
        "lag_frames": round(float(np.sum(np.multiply(behind, moved)) / np.sum(np.square(moved))), 3),
        "lag_shift_frames": lag_shift(path, np.stack([truth[i] for i in range(len(rows))])),
    }


def lag_shift(path: Array, truth: Array, most: int = MOST_SHIFT) -> float | None:
    """Frames by which the true path must be delayed to fit the tracked one best, in steps of 0.01.

    Between frames the true path is a straight line. All shifts are judged on the same frames, so the first
    and last ``most`` take no part.

    Args:
        path: (T, N, 2) tracked keypoints; NaN where the object was not tracked.
        truth: (T, N, 2) true ones.

    Returns:
        From -most (early) to most (late); None where no frame is left, or nothing moves.
    """
    at = np.arange(most, len(path) - most)
    at = at[~np.isnan(path[at]).any(axis=(1, 2))]
    if not len(at) or not np.ptp(truth, axis=0).any():
        return None
    shifts = np.arange(-100 * most, 100 * most + 1) / 100

    def distance(shift: float) -> float:
        when = at - shift
        first = np.minimum(np.floor(when).astype(int), len(truth) - 2)
        part = (when - first)[:, None, None]
        return float(np.mean(np.square(path[at] - (1 - part) * truth[first] - part * truth[first + 1])))

    return float(min(shifts, key=distance))


def against_boxes(frames: Frames, path: Path) -> dict[str, Any]:
    """Overlap with given boxes of one object, ``x y w h`` a line; who it is, and when it was lost."""
    boxes = _read_boxes(path)
    best: list[tuple[float, int]] = []
    for detections, (x, y, w, h) in zip(frames, boxes, strict=False):
        box = np.array([x, y, x + w, y + h])
        best.append(max(((box_iou(d.box, box), d.id) for d in detections), default=(0.0, 0)))
    spans: list[list[int]] = []  # [id or 0, first frame]
    for number, (overlap, who) in enumerate(best):
        held = who if overlap > 0.2 else 0
        if not spans or spans[-1][0] != held:
            spans.append([held, number])
    return {
        "mean_iou": round(float(np.mean([overlap for overlap, _ in best if overlap > 0.2])), 3),
        "frames_on_it_percent": round(100 * float(np.mean([overlap > 0.2 for overlap, _ in best])), 1),
        "id_from_frame": [{"id": who or None, "frame": first} for who, first in spans],
    }


def _read_boxes(path: Path) -> Array:
    try:
        return np.array(
            [line.replace(",", " ").split() for line in path.read_text().splitlines()], np.float64
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected lines x y w h ({error})") from error


def _run(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    with Detector(args.model, threads=args.threads) as detector:
        tracker = Tracker(detector, args.max_objects, track=args.track, smooth=args.smooth)
        frames, figures = track(tracker, args.source, args.still)
    if args.source.samefile(CLIP) and not args.still:
        pair = read_model(find_model(args.model)).schema.reference
        about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
        figures.update(against_motion(frames, about, pair))
    if args.boxes:
        figures.update(against_boxes(frames, args.boxes))
    for name, value in figures.items():
        print(f"{name:<40}{value}")
    settings = {"track": args.track, "smooth": args.smooth, "max_objects": args.max_objects}
    plain = args.track == TRACK[0] and args.smooth == "light"
    name = args.source.parent.name if args.source.is_dir() else args.source.stem
    name = f"{name}-still" if args.still else name
    name += "" if args.max_objects == MAX_OBJECTS else f"-max{args.max_objects}"
    write_result(
        f"clip-{name}" if plain else f"clip-{name}-{args.track}-{args.smooth}",
        {"clip": name, "model": args.model, **settings, "figures": figures},
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.clip", description=__doc__)
    parser.add_argument("--source", type=Path, default=CLIP, help="video or folder of pictures")
    parser.add_argument(
        "--still", type=natural, default=0, metavar="N", help="its first frame N times, with fresh noise"
    )
    parser.add_argument("--boxes", type=Path, help="true boxes of one object, a line x y w h a frame")
    parser.add_argument("--model", default="face68")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--track", choices=TRACK, default=TRACK[0])
    parser.add_argument("--smooth", choices=SMOOTHING, default="light")
    parser.add_argument("--max-objects", type=positive, default=MAX_OBJECTS)
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
