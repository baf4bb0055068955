"""The README's moving picture: frames of the clip with keypoints over them, that play for ever."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.make_picture import CLIP, OUT, WINDOW, make_picture

pytestmark = pytest.mark.skipif(not hasattr(cv2, "Animation"), reason="animations need OpenCV 4.11")


def test_it_shows_frames_of_the_clip_with_keypoints(tmp_path: Path) -> None:
    out = tmp_path / "picture.webp"
    assert make_picture(out, range(1, 8, 3)) == 3
    read, animation = cv2.imreadanimation(str(out))
    assert read
    assert animation.loop_count == 0, "for ever"
    assert animation.durations.tolist() == [120] * 3
    clip = cv2.VideoCapture(str(CLIP))
    frames = [clip.read()[1][WINDOW] for _ in range(8)]
    for shown, i in zip(animation.frames, (1, 4, 7), strict=True):
        change = np.abs(shown[..., :3].astype(int) - frames[i]).max(2)
        assert np.median(change) < 10, "the frame itself"
        assert (change > 80).sum() > 200, "keypoints and a box"


def test_the_readme_has_it() -> None:
    read, animation = cv2.imreadanimation(str(OUT))
    assert read
    assert len(animation.frames) > 30
    assert f"](docs/{OUT.name})" in (OUT.parents[1] / "README.md").read_text(encoding="utf-8")
