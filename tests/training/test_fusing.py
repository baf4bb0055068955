"""Both stages and the crop between them as one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.cascade import Cascade, FusedCascade
from edge_kp.errors import ModelError
from edge_kp.geometry import Crop, estimate_similarity, similarity, transform_points
from edge_kp.modeldir import read_model
from edge_kp.training.fusing import Align, Enter, finer, fuse, region_size
from edge_kp.training.samples import Sample

torch = pytest.importorskip("torch")

MEAN = np.array([[0.2, 0.3], [0.8, 0.25], [0.5, 0.5], [0.3, 0.8], [0.75, 0.7]], np.float32)
SIZES = (48, 64)
FINER = 2


@pytest.mark.parametrize("times", [2, 3, 4])
@pytest.mark.parametrize("size", [32, 48, 64, 96, 112, 128, 160])
def test_a_region_is_wide_enough_and_has_the_crop_in_its_middle(size: int, times: int) -> None:
    region = region_size(size, times)
    assert 1.35 <= region / (times * size) <= 1.5
    assert (region - times * size) % 2 == 0


@pytest.mark.parametrize(
    ("sizes", "scale", "expected"), [((96, 128), 1.6, 2), ((64, 160), 1.6, 3), ((48, 160), 1.6, 4)]
)
def test_a_region_is_as_fine_as_the_second_crop(sizes: tuple[int, int], scale: float, expected: int) -> None:
    """0.66 of the second crop's side shows the box, and all of the first crop's shows ``scale`` boxes."""
    assert finer(sizes, scale) == expected
    shown = finer(sizes, scale) * sizes[0] / scale  # pixels of the region along the box
    assert 0.8 < shown / (0.66 * sizes[1]) < 1.5


@pytest.mark.parametrize("times", [2, 3])
def test_stage_one_sees_the_middle_as_coarse_as_it_wants(frames: list[Any], times: int) -> None:
    size, inner = region_size(48, times), 48 * times
    image = cv2.resize(frames[0], (size, size))
    region, picture = Enter(48, times)(torch.from_numpy(image[None]))
    margin = (size - inner) // 2
    inside = image[margin : margin + inner, margin : margin + inner].astype(np.float64)
    blocks = inside.reshape(48, times, 48, times, 3).mean((1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(picture[0], blocks, atol=1e-4)
    np.testing.assert_array_equal(region[0], image.transpose(2, 0, 1))


@settings(max_examples=40)
@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.3, 1.2),
    shift=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    seed=st.integers(0, 999),
)
def test_the_alignment_is_the_least_squares_similarity(
    angle: float, scale: float, shift: tuple[float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = transform_points(similarity(angle, scale, (0.5, 0.5)), MEAN - 0.5) + shift
    points = (points + rng.normal(0, 0.02, points.shape)).astype(np.float32)
    size = region_size(SIZES[0], FINER)
    align = Align(MEAN, SIZES, FINER)
    out = align(torch.zeros(1, 3, size, size), *[torch.from_numpy(points[None])] * 2)
    share = FINER * SIZES[0] / size
    of_region = share * points.astype(np.float64) + (1 - share) / 2
    np.testing.assert_allclose(out[1][0], of_region, atol=1e-6)
    to_shape = estimate_similarity(of_region, MEAN.astype(np.float64))
    probe = rng.uniform(0, 1, (9, 2))
    back = transform_points(out[3][0].numpy().astype(np.float64), transform_points(to_shape, probe))
    np.testing.assert_allclose(back, probe, atol=2e-5)


def test_the_second_crop_is_the_one_that_opencv_cuts(frames: list[Any]) -> None:
    size = region_size(SIZES[0], FINER)
    image = cv2.resize(frames[0][60:320, 200:460], (size, size))
    points = transform_points(similarity(0.4, 0.9, (0.5, 0.55)), MEAN - 0.5).astype(np.float32)
    region = torch.from_numpy(image.transpose(2, 0, 1)[None]).float()
    picture, _, _, alignment = Align(MEAN, SIZES, FINER)(region, *[torch.from_numpy(points[None])] * 2)
    matrix = np.vstack([alignment[0].numpy(), [0, 0, 1]]).astype(np.float64)
    of_region = np.array([[1 / size, 0, 0.5 / size], [0, 1 / size, 0.5 / size], [0, 0, 1]])
    crop = Crop((np.linalg.inv(matrix) @ of_region)[:2], SIZES[1])
    expected = crop.extract(image).astype(np.float64).transpose(2, 0, 1)
    assert expected.std() > 30
    # OpenCV rounds places to 1/32 of a pixel and values to whole numbers.
    assert np.abs(picture[0].numpy() - expected).mean() < 1.0


def test_points_in_one_place_give_no_infinity() -> None:
    size = region_size(SIZES[0], FINER)
    points = torch.full((1, 5, 2), 0.5)
    out = Align(MEAN, SIZES, FINER)(torch.zeros(1, 3, size, size), points, points)
    assert all(torch.isfinite(value).all() for value in out)


def cascades(folder: Path) -> tuple[Cascade, FusedCascade]:
    spec = read_model(folder)

    def network(name: str) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(folder / f"{name}.fp32.onnx", "fp32", 1)

    second = network("stage2")
    return Cascade(spec, network("stage1"), second), FusedCascade(spec, network("cascade"), second)


def test_one_graph_finds_what_two_calls_find(tiny_model: Path) -> None:
    """On pictures as fine as the region is, the two differ by resampling alone."""
    from edge_kp.training.datasets import load_dataset

    samples: list[Sample] = list(load_dataset(["synthetic:12,seed=5"]).samples)
    staged, fused = cascades(tiny_model)
    for sample in samples:
        image = cv2.GaussianBlur(sample.read(), (0, 0), 1.5)
        x0, y0 = sample.keypoints.min(0)
        x1, y1 = sample.keypoints.max(0)
        boxes = [np.array([x0, y0, x1, y1]), np.array([x0 - 5, y0, x1 - 5, y1])]
        a, b = staged(image, boxes), fused(image, boxes)
        side = max(x1 - x0, y1 - y0)
        for name in ("stage1_keypoints", "stage1_prior_keypoints", "keypoints", "prior_keypoints"):
            off = np.abs(getattr(a, name) - getattr(b, name)) / side
            assert off.mean() < 0.01, name
            assert off.max() < 0.05, name
        np.testing.assert_allclose(a.score, b.score, atol=0.05)
        np.testing.assert_allclose(a.attributes, b.attributes, atol=0.1)
        # Both say where stage 2 looked, and what it saw there.
        corners = np.array([[x0, y0], [x1, y0], [x0, y1]])
        for i in range(2):
            seen = [transform_points(r.transforms[i], corners) for r in (a, b)]
            np.testing.assert_allclose(*seen, atol=0.03)
            assert np.abs(a.crop(i).astype(float) - b.crop(i)).mean() < 6
        assert b.seconds["stage2"] == 0


def test_the_fused_cascade_of_nothing_is_nothing(tiny_model: Path) -> None:
    _, fused = cascades(tiny_model)
    result = fused(np.zeros((40, 40, 3), np.uint8), [])
    assert result.keypoints.shape[0] == 0
    assert result.attributes.shape[0] == 0


def test_tracking_goes_on_from_keypoints_with_either(tiny_model: Path, frames: list[Any]) -> None:
    staged, fused = cascades(tiny_model)
    points = transform_points(similarity(0, 100, (260, 150)), staged.mean_shape - 0.5)
    a, b = (c.refine(frames[0], [points]) for c in (staged, fused))
    np.testing.assert_array_equal(a.keypoints, b.keypoints)


def test_the_graph_is_one_with_the_contract_of_a_cascade(tiny_model: Path) -> None:
    model = onnx.load(tiny_model / "cascade.fp32.onnx")
    onnx.checker.check_model(model, full_check=True)
    spec = read_model(tiny_model)
    assert [i.name for i in model.graph.input] == ["image"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims[1:]] == [spec.cascade_size, spec.cascade_size, 3]
    assert dims[0].dim_param
    about = {p.key: p.value for p in model.metadata_props}
    assert (about["edge_kp.network"], about["edge_kp.precision"]) == ("cascade", "fp32")
    kinds = [n.op_type for n in model.graph.node]
    assert kinds.count("GridSample") == 2  # the correction of stage 1, and the second crop
    assert [n.op_type for n in model.graph.node if "image" in n.input] == ["Cast"]
    made = (
        {o for n in model.graph.node for o in n.output}
        | {i.name for i in model.graph.initializer}
        | {"image"}
    )
    assert all(edge in made or not edge for n in model.graph.node for edge in n.input)


def test_a_stage_of_another_make_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_model / "stage1.fp32.onnx")
    for node in model.graph.node:
        if "image" in node.input:
            node.attribute[0].i = onnx.TensorProto.FLOAT16
    wrong = tmp_path / "stage1.fp32.onnx"
    onnx.save(model, wrong)
    part = tiny_model / "stage2.fp32.onnx"
    glue = dict.fromkeys(("enter", "align", "leave"), part)
    with pytest.raises(ModelError, match=r"stage1\.fp32\.onnx: expected a Cast to float and a Transpose"):
        fuse(glue, wrong, part, tmp_path / "cascade.onnx", {})
    assert not (tmp_path / "cascade.onnx").exists()
