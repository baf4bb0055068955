"""What the ablation measures with: turned and covered samples, and shapes that no object has."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks.ablation import JITTER, NormalShapes, conditions, turned
from edge_kp.geometry import decompose_similarity, estimate_similarity, similarity, transform_points
from edge_kp.templates import build_bank
from edge_kp.training.datasets import load_dataset
from edge_kp.training.samples import Sample

DATA = load_dataset(["synthetic:400"])


def spot() -> Sample:
    """White dots on black at the keypoints of a sample."""
    sample = DATA.samples[0]
    image = np.zeros_like(sample.load())
    for point in sample.keypoints:
        cv2.circle(image, np.round(point * 16).astype(int).tolist(), 32, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return replace(sample, load=lambda: image)


def test_labels_turn_with_the_picture() -> None:
    sample = spot()
    moved = turned(sample, 30, 0)
    assert np.linalg.norm(moved.keypoints - sample.keypoints, axis=1).max() > 10
    image = moved.load()
    assert image.shape == sample.load().shape
    for x, y in np.round(moved.keypoints).astype(int):
        if 2 <= x < image.shape[1] - 2 and 2 <= y < image.shape[0] - 2:
            assert image[y - 1 : y + 2, x - 1 : x + 2].max() > 128
    both = [(one.keypoints, turned(one, 30, 0).keypoints) for one in DATA.samples[:20]]
    angles = [decompose_similarity(estimate_similarity(before, after))[0] for before, after in both]
    np.testing.assert_allclose(np.abs(angles), np.radians(30), atol=1e-4)
    assert set(np.sign(angles)) == {-1.0, 1.0}


def test_each_condition_has_every_sample() -> None:
    samples = DATA.samples[:6]
    sets = conditions(samples, 0)
    assert {name: jitter for name, (_, jitter) in sets.items()} == {
        "plain": 0.1,
        "covered": 0.1,
        "moved": JITTER,
    }
    for found, _ in sets.values():
        assert [s.key for s in found] == [s.key for s in samples]
    for before, after in zip(samples, sets["covered"][0], strict=True):
        assert (before.load() != after.load()).any()
        np.testing.assert_array_equal(before.keypoints, after.keypoints)


def test_shapes_that_no_object_has_are_told_from_true_ones() -> None:
    shapes = np.stack([s.keypoints for s in DATA.samples]).astype(np.float64)
    bank = build_bank(DATA.schema, shapes[:200], 8)
    normal = NormalShapes.measure(bank, shapes[:200])
    assert normal.abnormal(bank.templates.astype(np.float64)) == 0
    assert normal.abnormal(shapes[:200]) <= 0.01
    assert normal.abnormal(shapes[200:]) < 0.05
    gap = shapes[:200].copy()
    gap[7, 2] = np.nan  # a label that is not there tells nothing, and spoils nothing
    assert NormalShapes.measure(bank, gap).limit == pytest.approx(normal.limit, rel=0.2)
    # Where and how large an object is says nothing of its shape; a torn-out point does.
    away = transform_points(similarity(0.7, 3.0, (500, -90)), shapes[:50])
    np.testing.assert_allclose(normal.distance(away), normal.distance(shapes[:50]), atol=1e-9)
    torn = shapes[:50].copy()
    torn[:, 3] += 0.5 * np.ptp(torn, axis=1)
    assert normal.abnormal(torn) > 0.95
