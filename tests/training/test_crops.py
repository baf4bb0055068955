"""Labels land where the picture says, whatever was done to the crop."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.errors import DataError
from edge_kp.geometry import (
    Crop,
    aligned_crop,
    compose,
    decompose_similarity,
    estimate_similarity,
    invert,
    similarity,
    square_crop,
    transform_points,
)
from edge_kp.schema import KeypointSchema
from edge_kp.templates import build_bank
from edge_kp.training.attributes import OWN_ATTRIBUTES, AttributeWeights, ShapeAttributes
from edge_kp.training.augment import Augmentation, about_middle
from edge_kp.training.crops import CropDataset, StageView, alignment_error
from edge_kp.training.regions import Region, cut_region, cut_regions
from edge_kp.training.samples import Sample, read_image

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
SCHEMA = KeypointSchema(
    name="dots6",
    keypoints=("left_eye", "right_eye", "left_mouth", "right_mouth", "nose", "chin"),
    flip_pairs=((0, 1), (2, 3)),
    edges=(),
    reference=(0, 1),
)
REST = np.array([[-1, -1], [1.1, -0.9], [-0.8, 0.7], [0.7, 0.8], [0.1, 0], [0, 1.5]])
STILL = Augmentation(cover=0.0, colour=0.0)
SIDE = 300


def shape(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    points = REST + rng.uniform(-0.25, 0.25, REST.shape)
    place = similarity(rng.uniform(-0.3, 0.3), rng.uniform(30, 40), rng.uniform(130, 170, 2))
    return transform_points(place, points)


def dots(index: int) -> np.ndarray:
    image = np.full((SIDE, SIDE + 20, 3), 60, np.uint8)
    for point, colour in zip(shape(index), COLOURS, strict=True):
        cv2.circle(image, np.round(point * 16).astype(int).tolist(), 9 * 16, colour, -1, cv2.LINE_AA, 4)
    return image


def sample(index: int, **changes: Any) -> Sample:
    whole = Sample(
        key=f"dots/{index}.png",
        keypoints=shape(index).astype(np.float32),
        visible=np.ones(6, np.float32),
        attributes={},
        load=partial(dots, index),
    )
    return replace(whole, **changes)


BANK = build_bank(SCHEMA, np.stack([shape(i) for i in range(60)]), 8)


def view(stage: int, size: int = 96) -> StageView:
    if stage == 1:
        return StageView(size, BANK.mean_shape, scale=1.6)
    errors = np.random.default_rng(0).normal(0, [0.15, 0.08, 0.03, 0.03], (50, 4))
    return StageView(size, BANK.mean_shape, errors=errors)


def dataset(
    stage: int = 1,
    samples: list[Sample] | None = None,
    augmentation: Augmentation | None = STILL,
    object_side: float = 90.0,
    **options: Any,
) -> CropDataset:
    samples = [sample(i) for i in range(4)] if samples is None else samples
    options = {"negatives": 0.0, "flip_index": SCHEMA.flip_index, "seed": 3, "size": 96, **options}
    size = options.pop("size")
    return CropDataset(
        cut_regions(samples, object_side, "keypoints", progress=False),
        view(stage, size),
        ShapeAttributes(BANK),
        OWN_ATTRIBUTES,
        augmentation=augmentation,
        **options,
    )


GREEN = (40, 120, 40)


def two_squares() -> np.ndarray:
    """The dots' picture, wide, and a green square of about the object's size beside them."""
    image = np.full((SIDE, 2 * SIDE, 3), 60, np.uint8)
    image[:, : SIDE + 20] = dots(0)
    image[110:160, 198:248] = GREEN
    return image


OTHER = np.array([198, 110, 248, 160], np.float32)


def shows_it_whole(crop: np.ndarray) -> bool:
    """Is the green square in the crop as an object would be: about its middle, and not too small?"""
    green = np.abs(crop.astype(int) - GREEN).max(2) < 12
    if green.mean() < 0.1:
        return False
    edge = green.copy()
    edge[2:-2, 2:-2] = False
    middle = np.argwhere(green).mean(0) / len(crop)
    return not edge.any() and bool((np.abs(middle - 0.5) < 0.2).all())


def test_another_object_of_the_picture_is_never_taught_as_no_object() -> None:
    """Neither as background nor beside the object; where nobody says that it is one, it may be."""
    background, beside = {}, {}
    for known in (False, True):
        here = sample(0, load=two_squares, others=(OTHER,) if known else ())
        patches = [cut_region(replace(here, key=f"dots/{i}"), 90, "keypoints").patch for i in range(40)]
        background[known] = max(float((p == GREEN).all(2).mean()) for p in patches if p is not None)
        data = dataset(samples=[here], negatives=1.0)
        data.patches = []
        beside[known] = sum(shows_it_whole(data[0]["image"]) for data.epoch in range(1500))
    assert background[False] > 0.05
    assert background[True] < 0.01
    assert beside[False] > 5
    assert beside[True] == 0


@pytest.mark.parametrize("scale", [1.6, 2.5, 4.0])
def test_a_wide_crop_sees_as_much_of_the_photo_as_at_run_time(scale: float) -> None:
    wide = sample(0, load=lambda: np.full((1500, 1500, 3), 90, np.uint8))
    wide = replace(wide, keypoints=wide.keypoints + 600)
    region = cut_region(wide, 90, "keypoints", scale=scale)
    stage = StageView(96, BANK.mean_shape, scale=scale)
    rng = np.random.default_rng(0)
    crops = [stage.crop(region, rng, None).extract(region.image) for _ in range(40)]
    assert min(int(crop.min()) for crop in crops) == 90, "no black frame"


def test_occlusion_follows_from_all_hidden_points_whatever_hides_them() -> None:
    visible = np.ones(6, np.float32)
    visible[0] = 0  # a sixth is hidden already
    data = dataset(
        samples=[sample(i, visible=visible) for i in range(4)],
        augmentation=Augmentation(colour=0.0, cover=1.0),
    )
    seen = 0
    for data.epoch in range(50):
        for at in range(4):
            item = data[at]
            hidden = float((item["visible"][item["labelled"] > 0] < 0.5).mean())
            assert item["attributes"][OWN_ATTRIBUTES.index("occlusion")] == float(hidden >= 0.1)
            seen += hidden > 0.2
    assert seen > 20


def find_dots(image: np.ndarray) -> np.ndarray:
    """(6, 2) crop coordinates of the dots by their colours; NaN where fewer than 12 pixels show."""
    size = image.shape[0]
    found = np.full((6, 2), np.nan)
    for i, colour in enumerate(COLOURS):
        distance = np.abs(image.astype(int) - colour).max(2)
        y, x = np.nonzero(distance < 100)
        if len(x) >= 12:
            found[i] = (x.mean() + 0.5) / size, (y.mean() + 0.5) / size
    return found


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# ---- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("object_side", [400.0, 61.0])
def test_labels_lie_on_the_dots(stage: int, object_side: float) -> None:
    """With the photo as it is or shrunk, mirrored or not, turned, scaled and shifted."""
    data = dataset(stage, object_side=object_side)
    mirrored, checked = [], 0
    for epoch in range(12):
        data.epoch = epoch
        for i in range(len(data)):
            item = data[i]
            keypoints = item["keypoints"].astype(float)
            seen = find_dots(item["image"])
            inside = ((keypoints > 0.1) & (keypoints < 0.9)).all(1)
            off = [np.linalg.norm(seen[order] - keypoints, axis=1) for order in (range(6), SCHEMA.flip_index)]
            flip = bool(np.nanmedian(off[1]) < np.nanmedian(off[0]))
            assert inside.sum() >= 3
            # Off by at most 0.8 pixels of the crop where the whole dot is in sight.
            np.testing.assert_array_less(off[flip][inside] * 96, 0.8)
            mirrored.append(flip)
            checked += int(inside.sum())
    assert 12 < sum(mirrored) < 36
    assert checked > 200


def test_a_mirrored_crop_is_still_such_an_object() -> None:
    """The label named left_eye is the eye further left, in a mirrored crop too."""
    data = dataset(augmentation=replace(STILL, turn=5))
    for epoch in range(10):
        data.epoch = epoch
        for item in (data[i] for i in range(len(data))):
            left, right = item["keypoints"][:2]
            assert left[0] < right[0]


def test_without_moves_objects_stay_where_the_box_or_the_errors_put_them() -> None:
    still = replace(STILL, moves=False)
    first, second = dataset(1, augmentation=still), dataset(2, augmentation=still)
    exact = [square_crop(r.box, 96, 1.6).to_crop(r.keypoints) for r in first.regions]
    measured = []
    for epoch in range(8):
        first.epoch = second.epoch = epoch
        for i, expected in enumerate(exact):
            np.testing.assert_allclose(first[i]["keypoints"], expected, atol=1e-6)
            measured.append(second[i]["alignment"])
    errors = second.view.errors
    assert errors is not None
    turns = np.array([decompose_similarity(m)[0] for m in measured])
    # Each is one of the measured ones, up to what least squares takes off; none is stretched or blurred.
    assert np.abs(turns[:, None] - errors[None, :, 0]).min(1).max() < 1e-3
    assert len(np.unique(turns.round(6))) > 4


def test_without_mirror_pairs_nothing_is_mirrored() -> None:
    data = dataset(flip_index=None)
    for epoch in range(8):
        data.epoch = epoch
        item = data[0]
        seen = find_dots(item["image"])
        inside = ((item["keypoints"] > 0.1) & (item["keypoints"] < 0.9)).all(1)
        assert (np.linalg.norm(seen - item["keypoints"], axis=1)[inside] < 0.01).all()


def test_form_of_an_item() -> None:
    for data in (dataset(), dataset(negatives=1.0), dataset(augmentation=None)):
        item = data[0]
        assert item["image"].dtype == np.uint8
        shapes = {name: value.shape for name, value in item.items()}
        assert shapes == {
            **{"image": (96, 96, 3), "keypoints": (6, 2), "labelled": (6,), "visible": (6,), "present": ()},
            "visible_known": (6,),
            **{"alignment": (2, 3), "unit": (), "attributes": (3,), "attribute_weight": (3,), "weight": ()},
        }
        for name, value in item.items():
            assert value.dtype == (np.uint8 if name == "image" else np.float32), name
            assert np.isfinite(value).all(), name


def test_unknown_visibility_of_an_occluded_object_teaches_nothing() -> None:
    unknown = np.full(6, np.nan, np.float32)
    for occluded, expected in ((1.0, 0.0), (0.0, 1.0)):
        hidden = sample(0, visible=unknown, attributes={"occlusion": occluded})
        item = dataset(samples=[hidden], augmentation=None)[0]
        assert (item["visible_known"] == expected).all()
    told = sample(0, visible=np.zeros(6, np.float32), attributes={"occlusion": 1.0})
    assert (dataset(samples=[told], augmentation=None)[0]["visible_known"] == 1).all()


def test_unlabelled_points_stay_unlabelled() -> None:
    keypoints = shape(0).astype(np.float32)
    keypoints[[1, 4]] = np.nan
    data = dataset(samples=[sample(0, keypoints=keypoints)])
    for epoch in range(10):
        data.epoch = epoch
        item = data[0]
        unknown = np.flatnonzero(item["labelled"] == 0).tolist()
        assert unknown in ([1, 4], [0, 4])  # the mirrored crop lacks the other eye
        assert (item["keypoints"][unknown] == 0).all()
        assert (item["keypoints"][item["labelled"] == 1] > -0.5).all()


def test_covered_points_are_marked_in_the_mirror_too() -> None:
    visible = np.array([0, 1, 1, 1, 1, np.nan], np.float32)
    data = dataset(samples=[sample(0, visible=visible)])
    seen = set()
    for epoch in range(12):
        data.epoch = epoch
        item = data[0]
        hidden = np.flatnonzero(item["visible"] == 0).tolist()
        flip = find_dots(item["image"])[0, 0] > find_dots(item["image"])[1, 0]
        assert hidden == [1 if flip else 0]
        assert item["attributes"][OWN_ATTRIBUTES.index("occlusion")] == 1  # one of six is over a tenth
        seen.add(bool(flip))
    assert seen == {True, False}


def test_random_covers_lower_visibility_and_say_occlusion() -> None:
    data = dataset(augmentation=replace(STILL, cover=1.0), samples=[sample(i) for i in range(30)])
    at = OWN_ATTRIBUTES.index("occlusion")
    share = []
    for item in (data[i] for i in range(30)):
        share.append(np.mean(item["visible"] == 0))
        assert item["attributes"][at] == (share[-1] >= 0.1)
    assert 0.05 < np.mean(share) < 0.5


@pytest.mark.parametrize("stage", [1, 2])
def test_the_alignment_label_is_the_least_squares_fit_of_the_mean_shape(stage: int) -> None:
    data = dataset(stage)
    for i in range(len(data)):
        item = data[i]
        matrix, keypoints = item["alignment"].astype(float), item["keypoints"].astype(float)
        mean = BANK.mean_shape.astype(float)
        best = ((transform_points(matrix, mean) - keypoints) ** 2).sum()
        angle, scale, x, y = decompose_similarity(matrix)
        np.testing.assert_allclose(matrix, similarity(angle, scale, (x, y)), atol=1e-6)
        for nudge in np.vstack([np.eye(4), -np.eye(4)]) * 1e-3:
            other = similarity(angle + nudge[0], scale + nudge[1], (x + nudge[2], y + nudge[3]))
            assert ((transform_points(other, mean) - keypoints) ** 2).sum() > best
        reference = np.linalg.norm(transform_points(matrix, mean)[0] - transform_points(matrix, mean)[1])
        assert item["unit"] == pytest.approx(reference, rel=1e-5)


# ---- chance ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2])
def test_an_item_depends_on_seed_epoch_and_index_alone(stage: int) -> None:
    loud = Augmentation(cover=0.8, colour=1.0)
    first, second = (dataset(stage, augmentation=loud, negatives=0.3) for _ in range(2))
    for epoch in (0, 1, 7):
        first.epoch = second.epoch = epoch
        forward = [first[i] for i in range(4)]
        backward = [second[i] for i in reversed(range(4))][::-1]
        assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    first.epoch = 0
    zero = first[2]
    first.epoch = 1
    assert not np.array_equal(first[2]["image"], zero["image"])
    other = dataset(stage, augmentation=loud, negatives=0.3, seed=4)
    assert not np.array_equal(other[2]["image"], zero["image"])


def test_two_copies_of_a_photo_are_drawn_differently() -> None:
    data = dataset(counts=[3, 1, 1, 2])
    assert len(data) == 7
    assert data.index.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert not np.array_equal(data[0]["image"], data[1]["image"])


@pytest.mark.parametrize("stage", [1, 2])
def test_a_validation_item_is_the_same_in_each_epoch_and_place(stage: int) -> None:
    data = dataset(stage, augmentation=None)
    before = [data[i] for i in range(4)]
    data.epoch = 5
    assert all(same(data[i], before[i]) for i in range(4))
    alone = dataset(stage, augmentation=None, samples=[sample(2)])
    assert same(alone[0], before[2])  # other photos beside it change nothing
    assert all(item["present"] == 1 for item in before)
    jittered = [item["alignment"] for item in before]
    assert not np.allclose(jittered[0], jittered[1], atol=1e-3)


# ---- crops without object --------------------------------------------------------------------------


def test_negatives_show_no_whole_object_and_teach_no_keypoint() -> None:
    data = dataset(negatives=1.0, samples=[sample(i) for i in range(12)])
    assert data.patches, "these photos have room for a patch of background"
    for epoch in range(5):
        data.epoch = epoch
        for item in (data[i] for i in range(12)):
            for name in ("present", "weight"):
                assert item[name] == 0, name
            for name in ("labelled", "visible", "attribute_weight"):
                assert not item[name].any(), name
            centred = find_dots(item["image"])
            assert np.isnan(centred).any()


def test_the_share_of_negatives() -> None:
    data = dataset(counts=100, negatives=0.1, size=32)
    present = np.array([data[i]["present"] for i in range(400)])
    assert 0.06 < 1 - present.mean() < 0.15


def test_no_background_is_taken_where_others_may_stand_in_it() -> None:
    regions = cut_regions([sample(0, use_background=False)], 90, "keypoints", progress=False)
    assert regions[0].patch is None
    data = dataset(negatives=1.0, samples=[sample(0, use_background=False)])
    for epoch in range(20):
        data.epoch = epoch
        # Far too close, so that most of the object is out of sight.
        assert np.isnan(find_dots(data[0]["image"])).any(1).sum() >= 2


def test_patches_hold_no_object() -> None:
    patches = [cut_region(sample(i), 90, "keypoints").patch for i in range(30)]
    found = [find_dots(patch) for patch in patches if patch is not None]
    assert len(found) > 10
    assert all(np.isnan(seen).any(1).sum() >= 4 for seen in found)  # a sliver may show


# ---- stage 2: the error of stage 1 -------------------------------------------------------------------

shapes = st.integers(0, 2**32 - 1)
errors = st.tuples(st.floats(-1, 1), st.floats(-0.5, 0.5), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))


@given(shapes)
def test_the_truth_has_no_alignment_error(seed: int) -> None:
    """Whatever its shape: a stage 1 that is never wrong must not misplace the crops of stage 2."""
    truth = shape(seed)
    np.testing.assert_allclose(alignment_error(truth, truth, BANK.mean_shape), 0, atol=1e-9)


@given(shapes, errors)
def test_alignment_error_finds_a_known_misplacement(seed: int, error: tuple[float, ...]) -> None:
    truth = shape(seed)
    angle, log_scale, du, dv = error
    aligned = estimate_similarity(truth, BANK.mean_shape.astype(float))
    wrong = compose(about_middle(angle, math.exp(log_scale), np.array([du, dv])), aligned)
    predicted = transform_points(invert(wrong), BANK.mean_shape.astype(float))
    np.testing.assert_allclose(alignment_error(predicted, truth, BANK.mean_shape), error, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_training_crops_repeat_what_the_cascade_will_see(seed: int) -> None:
    """The crop misplaced by the measured error is the crop aligned by the keypoints that made the error."""
    region = cut_region(sample(seed), 90, "keypoints")
    rng = np.random.default_rng(seed)
    move = similarity(rng.uniform(-0.3, 0.3), rng.uniform(0.8, 1.2), rng.uniform(-9, 9, 2))
    predicted = transform_points(move, region.keypoints) + rng.normal(0, 2, (6, 2))
    error = alignment_error(predicted, region.keypoints, BANK.mean_shape)
    crop = StageView(64, BANK.mean_shape, errors=error[None]).crop(region, rng, None)
    expected = aligned_crop(predicted, BANK.mean_shape.astype(float), 64)
    np.testing.assert_allclose(crop.matrix, expected.matrix, atol=1e-9)


def test_alignment_error_leaves_unlabelled_points_out() -> None:
    mean = BANK.mean_shape.astype(float)
    truth = transform_points(similarity(0.2, 80, (10, 20)), mean)
    predicted = truth.copy()
    truth[3] = np.nan
    np.testing.assert_allclose(alignment_error(predicted, truth, BANK.mean_shape), 0, atol=1e-9)


def test_stage_2_without_errors_sees_the_object_on_the_mean_shape() -> None:
    calm = StageView(64, BANK.mean_shape, errors=np.zeros((1, 4)))
    region = cut_region(sample(1), 90, "keypoints")
    crop = calm.crop(region, np.random.default_rng(0), None)
    np.testing.assert_allclose(
        crop.matrix, aligned_crop(region.keypoints, BANK.mean_shape.astype(float), 64).matrix
    )


# ---- reading photos ----------------------------------------------------------------------------------


def test_a_region_keeps_what_crops_can_show() -> None:
    whole = sample(0)
    region = cut_region(whole, 60, "keypoints")
    assert isinstance(region, Region)
    width, height = region.box[2] - region.box[0], region.box[3] - region.box[1]
    assert max(width, height) == pytest.approx(60, rel=0.03)
    assert region.image.shape[0] <= SIDE
    copy = Crop(np.array([[1, 0, 0.5], [0, 1, 0.5]]) / 200, 200)  # pixel for pixel
    seen = copy.to_frame(find_dots(copy.extract(region.image)))
    np.testing.assert_allclose(seen, region.keypoints, atol=0.6)
    image = cut_region(whole, 60, "image")
    assert image.patch is None
    np.testing.assert_allclose(
        image.box, [-0.5, -0.5, image.image.shape[1] - 0.5, image.image.shape[0] - 0.5], atol=1e-3
    )


def test_a_region_keeps_small_objects_of_large_images_in_detail() -> None:
    """Where the box is the whole image, the keypoints need pixels of their own for the second crop."""
    coarse, fine = (cut_region(sample(0), 60, "image", shape_side) for shape_side in (0, 50))
    assert max(coarse.image.shape) == pytest.approx(60, abs=1)
    assert np.ptp(fine.keypoints, axis=0).max() == pytest.approx(50, rel=0.03)
    whole = cut_region(sample(0), 60, "image", 10_000)
    assert whole.image.shape == (SIDE, SIDE + 20, 3)  # never enlarged


def test_all_unreadable_photos_are_named_at_once(tmp_path: Any) -> None:
    bad = []
    for i, content in enumerate((b"", b"no image", None)):
        path = tmp_path / f"bad{i}.png"
        if content is not None:
            path.write_bytes(content)
        bad.append(sample(10 + i, load=partial(read_image, str(path))))
    good = [sample(0), sample(1)]
    with pytest.raises(DataError) as caught:
        cut_regions([good[0], *bad, good[1], bad[0]], 90, "keypoints", progress=False)
    assert len(caught.value.problems) == 3  # one that stands twice in the data is named once
    for i, problem in enumerate(caught.value.problems):
        assert f"bad{i}.png" in problem
        assert "\n" not in problem
    assert len(cut_regions(good, 90, "keypoints", progress=False)) == 2


# ---- weights -----------------------------------------------------------------------------------------


def test_weights_reach_the_items() -> None:
    rows = np.array([[0, 0, 0]] * 7 + [[1, 0, 1]], float)
    weights = AttributeWeights.measure(rows)
    samples = [sample(0, attributes={"occlusion": 1.0}), sample(1, attributes={"occlusion": 0.0})]
    data = dataset(samples=samples, weights=weights, augmentation=replace(STILL, turn=1e-6))
    rare, common = data[0], data[1]
    at = OWN_ATTRIBUTES.index("occlusion")
    assert rare["attribute_weight"][at] == weights.positive[at] == 4
    assert common["attribute_weight"][at] == weights.negative[at]
    for item in (rare, common):
        expected = weights.samples(item["attributes"][None].astype(float))[0]
        assert item["weight"] == pytest.approx(expected)
    assert rare["weight"] > common["weight"]


def test_labels_measure_the_distribution_of_crops() -> None:
    upright = dataset(augmentation=replace(STILL, turn=1e-6), counts=20, size=32)
    turned = dataset(augmentation=replace(STILL, turn=80), counts=20, size=32)
    rows = upright.labels(60)
    assert rows.shape == (60, 3)
    assert turned.labels(60)[:, 0].mean() > rows[:, 0].mean()
    np.testing.assert_array_equal(upright.labels(60), rows)


# ---- data sets that end before training does ------------------------------------------------------------


def test_what_has_ended_gives_its_place_to_the_others() -> None:
    """Regions 0 and 1 are shown in the first two epochs only; an epoch keeps its length."""
    data = dataset(counts=[5, 1, 2, 1], ends=[2, 2, 6, 6])
    shapes = {i: region.keypoints for i, region in enumerate(data.regions)}
    asked: list[int] = []

    def shown(region: Any, rng: Any) -> dict[str, Any]:
        asked.extend(i for i, points in shapes.items() if points is region.keypoints)
        return {}

    data._labelled = shown  # type: ignore[method-assign]
    drawn = {}
    for epoch in range(6):
        data.epoch = epoch
        asked.clear()
        for i in range(len(data)):
            data[i]
        drawn[epoch] = list(asked)
        assert len(asked) == 9
    assert drawn[0] == drawn[1] == [0] * 5 + [1, 2, 2, 3]
    later = drawn[2] + drawn[3] + drawn[4] + drawn[5]
    assert drawn[2] != drawn[3]
    assert set(later) == {2, 3}
    assert later.count(2) > later.count(3)  # as often as their counts say
