"""Tracking on video: ``python -m benchmarks.clip`` (the shipped clip, known motion) or ``--source FILE``.

On the shipped clip the true motion of the keypoints is known, not their true place: every frame's keypoints
are moved back into the photo, and the error is their distance from the median over the uncovered frames.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.common import write_result
from edge_kp import Detection, Detector, Tracker
from edge_kp.cli import run_cli
from edge_kp.errors import SourceError
from edge_kp.geometry import invert, transform_points
from edge_kp.modeldir import find_model, read_model

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut.mp4"


def track(source: Path, model: str, threads: int) -> tuple[list[list[Detection]], dict[str, Any]]:
    """Detections of every frame, and figures that need no truth."""
    video = cv2.VideoCapture(str(source))
    if not video.isOpened():
        raise SourceError(f"{source}: cannot be opened as a video")
    frames, times = [], []
    with Detector(model, threads=threads) as detector:
        tracker = Tracker(detector)
        with tqdm(desc=source.name, unit="frame", leave=False) as bar:
            while True:
                more, image = video.read()
                if not more:
                    break
                frames.append(tracker.update(image))
                times.append(dict(tracker.last_timings))
                bar.update()
    if not frames:
        raise SourceError(f"{source}: holds no frame")
    tracking = [1e3 * (t["stage1"] + t["stage2"]) for t in times if t["locate"] == 0]
    ids = {d.id for detections in frames for d in detections}
    return frames, {
        "frames": len(frames),
        "frames_with_object_percent": round(100 * float(np.mean([bool(f) for f in frames])), 2),
        "ids": len(ids),
        "tracking_median_ms": round(float(np.median(tracking)), 2) if tracking else None,
    }


def against_motion(
    frames: list[list[Detection]], about: dict[str, Any], schema_pair: tuple[int, int]
) -> dict[str, Any]:
    """Error, jitter and presence on the shipped clip, % of the reference distance."""
    rows = about["frames"]
    clear = [i for i, row in enumerate(rows) if row["face_visible"] and not row["cover"]]
    back = {
        i: transform_points(invert(np.array(row["matrix"])), frames[i][0].keypoints)
        for i, row in enumerate(rows)
        if frames[i]
    }
    if not any(i in back for i in clear):
        return {"visible_frames_with_object_percent": 0.0}
    reference = np.median([back[i] for i in clear if i in back], axis=0)
    unit = np.linalg.norm(reference[schema_pair[0]] - reference[schema_pair[1]])
    error = {i: np.linalg.norm(points - reference, axis=1).mean() / unit for i, points in back.items()}
    steps = [back[i] - back[i - 1] for i in clear if i in back and i - 1 in clear and i - 1 in back]
    part = [i for i, row in enumerate(rows) if row["face_visible"] and row["cover"]]
    hidden = [i for i, row in enumerate(rows) if not row["face_visible"]]

    def percent(values: list[Any]) -> float | None:
        return round(100 * float(np.mean(values)), 3) if values else None

    return {
        "visible_frames_with_object_percent": percent([bool(frames[i]) for i in clear + part]),
        "hidden_frames_with_object_percent": percent([bool(frames[i]) for i in hidden]),
        "error_clear_percent": percent([error[i] for i in clear if i in error]),
        "error_part_covered_percent": percent([error[i] for i in part if i in error]),
        "jitter_rms_percent": round(100 * float(np.sqrt(np.mean(np.sum(np.square(steps), -1)))) / unit, 3),
    }


def _run(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    frames, figures = track(args.source, args.model, args.threads)
    if args.source.samefile(CLIP):
        pair = read_model(find_model(args.model)).schema.reference
        about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
        figures.update(against_motion(frames, about, pair))
    for name, value in figures.items():
        print(f"{name:<40}{value}")
    write_result(
        f"clip-{args.source.stem}", {"clip": args.source.name, "model": args.model, "figures": figures}
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.clip", description=__doc__)
    parser.add_argument("--source", type=Path, default=CLIP)
    parser.add_argument("--model", default="face68")
    parser.add_argument("--threads", type=int, default=1)
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
