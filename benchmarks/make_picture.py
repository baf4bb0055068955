"""The moving picture of the README: ``python -m benchmarks.make_picture`` writes ``docs/astronaut.webp``.

It shows what ``make run`` shows, the shipped model on the shipped clip: the middle of the frames in which a
cloth hides a part of the face, and then all of it.
"""

from __future__ import annotations

from pathlib import Path

import cv2

from benchmarks.clip import CLIP
from edge_kp import Detector, Tracker
from edge_kp.files import replacing
from edge_kp.overlay import draw_detections

OUT = Path(__file__).parents[1] / "docs" / "astronaut.webp"
FRAMES = range(45, 231, 3)
WINDOW = (slice(60, 420), slice(100, 540))  # rows and columns of a frame
QUALITY = 50  # of WebP, up to 100


def make_picture(out: Path, frames: range) -> int:
    """Write an animation of these frames of the clip, which plays for ever; its number of pictures."""
    if not hasattr(cv2, "Animation"):
        raise SystemExit("error: animations need OpenCV 4.11 or newer: pip install -U opencv-python")
    clip, pictures = cv2.VideoCapture(str(CLIP)), []
    fps = clip.get(cv2.CAP_PROP_FPS)
    with Detector("face68", backend="onnxruntime") as detector:
        tracker = Tracker(detector)
        for i in range(frames.stop):
            read, image = clip.read()
            if not read:
                break
            found = tracker.update(image, i / fps)
            if i in frames:
                pictures.append(draw_detections(image, found, detector.schema)[WINDOW])
    animation = cv2.Animation()
    animation.frames, animation.durations = pictures, [round(1000 * frames.step / fps)] * len(pictures)
    with replacing(out) as part:
        if not cv2.imwriteanimation(str(part), animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY]):
            raise SystemExit(f"error: this OpenCV cannot write {out}")
    return len(pictures)


def main() -> None:
    count = make_picture(OUT, FRAMES)
    print(f"wrote {OUT} ({count} pictures, {OUT.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
