"""The networks see in calibration what they see when the model runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.cascade import Cascade
from edge_kp.geometry import aligned_crop, jitter_box, square_crop
from edge_kp.locator import fit_square
from edge_kp.modeldir import read_model
from edge_kp.training.calibration.inputs import held_out, network_inputs
from edge_kp.training.datasets import load_dataset
from edge_kp.training.evaluation import evaluate
from edge_kp.training.regions import key_rng
from edge_kp.types import Array


@pytest.fixture(scope="module")
def cascade(tiny_model: Path) -> Cascade:
    files = (tiny_model / f"{stage}.fp32.onnx" for stage in ("stage1", "stage2"))
    return Cascade(read_model(tiny_model), *(OnnxRuntimeBackend(path) for path in files))


@pytest.fixture(scope="module")
def samples(cascade: Cascade) -> Any:
    return load_dataset(["synthetic:12,seed=9"], cascade.spec.schema).samples


def test_crops_are_those_of_the_cascade(cascade: Cascade, samples: Any) -> None:
    spec = cascade.spec
    inputs = network_inputs(spec, samples, cascade, 7)
    assert {name: images.shape for name, images in inputs.items()} == {
        "stage1": (12, 48, 48, 3),
        "stage2": (12, 48, 48, 3),
        "locator": (12, 64, 64, 3),
    }
    for i, sample in enumerate(samples):
        image = sample.read()
        box = jitter_box(sample.box, key_rng(sample.key, 7))
        np.testing.assert_array_equal(inputs["stage1"][i], square_crop(box, 48, spec.scale).extract(image))
        np.testing.assert_array_equal(inputs["locator"][i], fit_square(image, 64)[0])
        first = cascade(image, [box]).stage1_keypoints[0]
        crop = aligned_crop(first.astype(np.float64), cascade.mean_shape, 48)
        difference = np.abs(inputs["stage2"][i].astype(int) - crop.extract(image))
        assert difference.max() <= 1


def enlarged(sample: Any) -> Array:
    """A photo of 700 × 900 pixels with a sample's picture, six times as large, somewhere in it."""
    picture = cv2.resize(sample.read(), None, fx=6, fy=6, interpolation=cv2.INTER_LINEAR)
    photo = np.full((900, 700, 3), 60, np.uint8)
    part = picture[: 900 - 80, : 700 - 40]
    photo[80 : 80 + part.shape[0], 40 : 40 + part.shape[1]] = part
    return photo


@pytest.mark.parametrize("large", [False, True])
def test_what_is_held_out_gives_the_error_of_the_whole_photos(
    cascade: Cascade, samples: Any, large: bool
) -> None:
    if large:
        samples = [
            replace(
                sample,
                load=partial(enlarged, sample),
                keypoints=((sample.keypoints + 0.5) * 6 - 0.5 + (40, 80)).astype(np.float32),
                image_size=None,
            )
            for sample in samples
        ]
    held = held_out(cascade.spec, samples)
    whole = evaluate(cascade, samples, progress=False)
    cut = evaluate(cascade, held.samples, progress=False)
    np.testing.assert_allclose(cut.errors["cascade"], whole.errors["cascade"], rtol=0.05)
    assert held.frames.shape == (12, 64, 64, 3)
    np.testing.assert_array_equal(held.frames[3], fit_square(samples[3].read(), 64)[0])
    sizes = [max(sample.read().shape) for sample in held.samples]
    assert max(sizes) < 400, "whole photos are held in memory"
