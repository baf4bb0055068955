"""The drawn data set: deterministic, labelled where it is drawn, covered where it says so."""

from __future__ import annotations

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_kp.geometry import estimate_similarity, transform_points
from edge_kp.training.synthetic import (
    MARGIN,
    SIZE,
    SYNTHETIC,
    Scene,
    draw,
    make_scene,
    read_synthetic,
    render,
)


def scenes(covered: bool, count: int = 12) -> list[Scene]:
    found = (make_scene(5, i) for i in range(1000))
    return [
        s for s, _ in zip((s for s in found if (s.cover is not None) == covered), range(count), strict=False)
    ]


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H, W) greatest channel difference."""
    return cv2.absdiff(a, b).max(axis=2)


def test_same_lot_same_image_in_any_order() -> None:
    first = [render(3, i) for i in range(4)]
    again = [render(3, i) for i in reversed(range(4))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 for image in first)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], render(4, 0))


def test_a_longer_set_starts_with_the_shorter() -> None:
    short, long = read_synthetic(3, 9).samples, read_synthetic(6, 9).samples
    for a, b in zip(short, long, strict=False):
        assert a.key == b.key
        assert np.array_equal(a.keypoints, b.keypoints)


def test_samples_load_after_pickling() -> None:
    sample = read_synthetic(2, 1).samples[1]
    assert np.array_equal(pickle.loads(pickle.dumps(sample)).load(), render(1, 1))


def test_the_mask_is_drawn_exactly_around_its_keypoints() -> None:
    for scene in scenes(covered=False):
        away = replace(scene, keypoints=scene.keypoints + 1000)
        drawn = difference(draw(scene), draw(away)) > 40
        hull = cv2.convexHull(np.round(scene.keypoints).astype(np.int32))
        region = cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [hull], 1)
        near = cv2.dilate(region, np.ones((15, 15), np.uint8)).astype(bool)
        assert not (drawn & ~near).any()
        assert drawn[region.astype(bool)].mean() > 0.4


@pytest.mark.parametrize(
    "name", ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth", "left_horn", "right_horn"]
)
def test_each_painted_point_moves_with_its_keypoint(name: str) -> None:
    """Moving one keypoint changes the image at the place it left."""
    i = SYNTHETIC.keypoints.index(name)
    changed = []
    for scene in scenes(covered=False):
        moved = scene.keypoints.copy()
        moved[i] += 0.25 * scene.unit * np.sign(SIZE / 2 - moved[i])
        at = difference(draw(scene), draw(replace(scene, keypoints=moved)))
        x, y = np.round(scene.keypoints[i]).astype(int)
        changed.append(at[y - 2 : y + 3, x - 2 : x + 3].max() > 15)
    assert np.mean(changed) > 0.9


def test_covered_points_are_those_under_the_cover() -> None:
    """Two images that differ by the cover alone show where it is; its soft rim is left out."""
    checked = 0
    for scene in scenes(covered=True, count=40):
        painted = (difference(draw(scene), draw(replace(scene, cover=None))) > 0).astype(np.uint8)
        padded = np.pad(painted, 6)
        for (x, y), visible in zip(np.round(scene.keypoints).astype(int), scene.visible, strict=True):
            around = padded[y : y + 13, x : x + 13].mean()
            if around == 0:
                assert visible == 1
            elif around > 0.97:
                assert visible == 0
                checked += 1
    assert checked > 20


def test_occlusion_is_labelled_where_a_point_is_covered() -> None:
    samples = read_synthetic(400).samples
    hidden = np.array([(s.visible == 0).any() for s in samples])
    assert np.array_equal(hidden, [s.attributes["occlusion"] == 1.0 for s in samples])
    assert 0.2 < hidden.mean() < 0.45


def test_keypoints_lie_inside_the_image() -> None:
    points = np.stack([s.keypoints for s in read_synthetic(500).samples])
    assert points.min() >= MARGIN - 0.01
    assert points.max() <= SIZE - 1 - MARGIN + 0.01


def test_flip_pairs_mirror_the_mean_shape() -> None:
    shapes = np.stack([s.keypoints for s in read_synthetic(600).samples]).astype(np.float64)
    aligned = [transform_points(estimate_similarity(s, shapes[0]), s) for s in shapes]
    mean = np.mean(aligned, axis=0)
    mirrored = (mean * [-1, 1])[SYNTHETIC.flip_index]
    back = transform_points(estimate_similarity(mirrored, mean), mirrored)
    assert np.abs(back - mean).max() < 0.05 * SYNTHETIC.reference_distance(mean)


def test_shapes_cluster_by_turn() -> None:
    """The nose between the temples tells left, ahead and right apart, with few shapes in between."""
    i = {name: n for n, name in enumerate(SYNTHETIC.keypoints)}
    points = np.stack([s.keypoints for s in read_synthetic(900).samples])
    left, right, nose = (points[:, i[n]] for n in ("left_temple", "right_temple", "nose"))
    along = ((nose - left) * (right - left)).sum(1) / ((right - left) ** 2).sum(1)
    counts, _ = np.histogram(along, bins=np.linspace(-0.2, 1.2, 15))
    peaks = counts[1:-1][(counts[1:-1] >= counts[:-2]) & (counts[1:-1] > counts[2:])]
    assert (peaks > 60).sum() == 3
