"""Render the clip that ships with the package: one public-domain photo, moved in an exactly known way.

``python -m benchmarks.make_clip`` writes ``edge_kp/assets/astronaut.mp4`` and ``astronaut.json``. The JSON
holds each frame's transform from the photo, so the true path of any point of the face is known.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data

from edge_kp.geometry import compose, similarity, transform_points
from edge_kp.types import Array

ASSETS = Path(__file__).parent.parent / "edge_kp" / "assets"
WIDTH, HEIGHT, FPS, FRAMES = 640, 480, 25, 250
FACE_BOX = (181.0, 88.0, 271.0, 178.0)  # photo pixels, measured by eye: jaw, top of the brows, jaw, chin
MARGIN = 480  # of made-up background around the photo, pixels
CREDIT = {
    "title": "Astronaut Eileen Collins",
    "credit": "NASA (Great Images in NASA); file: scikit-image, skimage.data.astronaut()",
    "licence": "public domain",
}


def _soften(photo: Array) -> Array:
    """The photo out of focus outside an ellipse around the head; keeps the clip small."""
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    outwards = np.hypot((x - 226) / 95, (y - 120) / 115)  # 1 on the rim of the hair
    blend = np.clip((outwards - 1) / 0.5, 0, 1)[..., None]
    soft = cv2.GaussianBlur(photo, (0, 0), 2.5)
    return np.asarray(np.round(photo * (1 - blend) + soft * blend).astype(np.uint8))


def _backdrop(photo: Array) -> Array:
    """The photo with ``MARGIN`` pixels around it: its rim drawn outwards and blurred.

    A mirrored rim would show second faces, a plain one would end the photo in hard stripes.
    """
    wide = cv2.copyMakeBorder(photo, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
    outside = np.ones(wide.shape[:2], np.float32)
    outside[MARGIN:-MARGIN, MARGIN:-MARGIN] = 0
    blend = np.minimum(cv2.distanceTransform((outside > 0).astype(np.uint8), cv2.DIST_L2, 5) / 24, 1)[
        ..., None
    ]
    soft = cv2.GaussianBlur(wide, (0, 0), 20, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(np.round(wide * (1 - blend) + soft * blend).astype(np.uint8))


def _cover_texture(size: int = 256) -> Array:
    """uint8 (size, size, 3): a stained cloth, checked in blue and ochre."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:size, :size]
    checks = (((x // 32) + (y // 32)) % 2)[..., None]
    cloth = np.where(checks, (150.0, 95.0, 50.0), (70.0, 150.0, 190.0))
    stains = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), 12)
    cloth = cv2.GaussianBlur(cloth, (0, 0), 2)
    return np.clip(cloth + (25 * stains / stains.std())[..., None], 0, 255).astype(np.uint8)


def _path(seconds: float, *stations: tuple[float, float]) -> float:
    """Value at ``seconds`` of a path through (time, value) stations, at rest in each."""
    times, values = zip(*stations, strict=True)
    i = int(np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, len(times) - 2))
    t = float(np.clip((seconds - times[i]) / (times[i + 1] - times[i]), 0, 1))
    return values[i] + (values[i + 1] - values[i]) * t * t * (3 - 2 * t)


def _face_motion(seconds: float) -> Array:
    """(2, 3) photo pixels → frame pixels."""
    turn = math.tau * seconds
    angle = math.radians(20) * math.sin(turn / 4)
    scale = 1.22 - 0.37 * math.cos(turn / 10)
    where = np.array([320 + 120 * math.sin(turn / 6.5), 235 + 45 * math.sin(turn / 4.7 + 1)])
    centre = np.array([(FACE_BOX[0] + FACE_BOX[2]) / 2, (FACE_BOX[1] + FACE_BOX[3]) / 2])
    matrix = similarity(angle, scale)
    matrix[:, 2] = where - matrix[:, :2] @ centre
    return np.round(matrix, 6) + 0.0  # the JSON must hold the very numbers that were drawn with


def _cover_motion(seconds: float, motion: Array) -> Array:
    """(2, 3) unit square → frame pixels: the cloth, twice as wide as the face.

    It comes from the left and hides a third of the face, leaves, then comes from the right and hides it all.
    """
    third, away = -1.17, 8.0  # cloth centre to face centre, in face widths
    offset = _path(
        seconds,
        *((0, -away), (2.6, -away), (3.4, third), (5.0, third), (5.7, -away)),
        *((5.75, away), (6.3, away), (6.9, 0), (8.1, 0), (8.7, -away), (10, -away)),
    )
    angle, scale = math.atan2(motion[1, 0], motion[0, 0]), math.hypot(motion[0, 0], motion[1, 0])
    width = scale * (FACE_BOX[2] - FACE_BOX[0])
    face = transform_points(
        motion, np.array([(FACE_BOX[0] + FACE_BOX[2]) / 2, (FACE_BOX[1] + FACE_BOX[3]) / 2])
    )
    matrix = similarity(0.5 * angle + math.radians(6), 2 * width)
    matrix[:, 2] = face - matrix[:, :2] @ [0.5, 0.5]
    matrix[0, 2] += offset * width
    return matrix


def _corners(box: tuple[float, float, float, float]) -> Array:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _overlap(a: Array, b: Array) -> float:
    """Area that two convex (P, 2) polygons share."""
    return float(cv2.intersectConvexConvex(a.astype(np.float32), b.astype(np.float32))[0])


def _frame(index: int, backdrop: Array, cloth: Array) -> tuple[Array, dict[str, Any]]:
    """One frame and what is true of it."""
    motion = _face_motion(index / FPS)
    shifted = motion.copy()
    shifted[:, 2] -= motion[:, :2] @ [MARGIN, MARGIN]
    image = cv2.warpAffine(backdrop, shifted, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)

    cover = _cover_motion(index / FPS, motion)
    polygon = np.round(transform_points(cover, _corners((0, 0, 1, 1))), 2)
    face = transform_points(motion, _corners(FACE_BOX))
    truth: dict[str, Any] = {"matrix": motion.tolist(), "cover": None, "covered": 0.0, "face_visible": True}
    if _overlap(polygon, _corners((-0.5, -0.5, WIDTH - 0.5, HEIGHT - 0.5))) > 0:
        pixel = 1 / len(cloth)
        to_frame = compose(cover, similarity(0, pixel, (pixel / 2, pixel / 2)))
        alpha = cv2.warpAffine(np.ones(cloth.shape[:2], np.float32), to_frame, (WIDTH, HEIGHT))[..., None]
        drawn = cv2.warpAffine(cloth, to_frame, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        image = np.round(image * (1 - alpha) + drawn * alpha).astype(np.uint8)
        covered = round(min(_overlap(polygon, face) / _overlap(face, face), 1.0), 3)
        truth |= {"cover": polygon.tolist(), "covered": covered, "face_visible": covered < 0.9}
    return image, truth


def main() -> None:
    photo = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])
    backdrop, cloth = _backdrop(_soften(photo)), _cover_texture()
    ASSETS.mkdir(exist_ok=True)
    clip = ASSETS / "astronaut.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise SystemExit(f"error: this OpenCV cannot write {clip}")
    truths = []
    for index in range(FRAMES):
        image, truth = _frame(index, backdrop, cloth)
        writer.write(image)
        truths.append(truth)
    writer.release()

    head = {
        **CREDIT,
        "about": "matrix: photo pixels to frame pixels, (0, 0) is the centre of the first pixel. "
        "cover: corners of the cloth in frame pixels, or null. covered: share of reference_box under it. "
        "face_visible: covered < 0.9. reference_box: x0, y0, x1, y1 of the face in photo pixels.",
        "photo_size": [photo.shape[1], photo.shape[0]],
        "size": [WIDTH, HEIGHT],
        "fps": FPS,
        "reference_box": FACE_BOX,
    }
    lines = ",\n".join("  " + json.dumps(truth) for truth in truths)
    text = json.dumps(head, indent=1)[:-2] + f',\n "frames": [\n{lines}\n ]\n}}\n'
    clip.with_suffix(".json").write_text(text)
    print(f"wrote {clip} ({clip.stat().st_size / 1e6:.2f} MB) and its .json")


if __name__ == "__main__":
    main()
