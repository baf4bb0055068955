"""Which objects may be mirrored, and what becomes of pairs that their names tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_kp.geometry import similarity, transform_points
from edge_kp.schema import pairs_from_names
from edge_kp.templates.__main__ import main as templates
from edge_kp.train import main
from edge_kp.training.datasets import load_dataset
from edge_kp.training.mirroring import about_mirroring, mirrors_into_itself, shape_distances
from edge_kp.training.split import training_samples

NAMES = ["left_jaw", "right_jaw", "left_neck", "right_neck", "left_end", "right_end"]
WRENCH = np.array([[-20, -60], [20, -60], [-30, -40], [30, -40], [-8, 60], [8, 60.0]])
FLIP = np.array([1, 0, 3, 2, 5, 4])
ACROSS = (
    "samples are not mirrored: with left_jaw/right_jaw, left_neck/right_neck, left_end/right_end exchanged"
    " they would stand as in no photo"
)


def turned(points: np.ndarray, degrees: float, scale: float = 1.0) -> np.ndarray:
    return transform_points(similarity(np.radians(degrees), scale, np.array([100.0, 100.0])), points)


def lying(angle: float, spread: float, count: int = 40, shape: np.ndarray = WRENCH) -> np.ndarray:
    rng = np.random.default_rng(3)
    angles = angle + rng.uniform(-spread, spread, count)
    noise = rng.normal(0, 1, (count, *shape.shape))
    return np.stack([turned(shape + more, a, 0.8) for a, more in zip(angles, noise, strict=True)])


def boxes(sides: tuple[float, float], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a long box, seen through it from a range of directions, and which a mirror exchanges."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-0.5, 0.5) for z in (-2, 2)], float)
    rng = np.random.default_rng(5)
    shapes = []
    for _ in range(count):
        (cos, sin), tilt = (f(np.radians(rng.uniform(*sides))) for f in (np.cos, np.sin)), 0.3
        x, y, z = corners.T
        x, z = cos * x - sin * z, sin * x + cos * z
        y, z = np.cos(tilt) * y - np.sin(tilt) * z, np.sin(tilt) * y + np.cos(tilt) * z
        shapes.append(np.column_stack([x, y]) * 500 / (z[:, None] + 12))
    return np.stack(shapes), np.array([4, 5, 6, 7, 0, 1, 2, 3])


@pytest.mark.parametrize(
    ("angle", "spread", "fits"),
    [
        (0, 15, True),
        (15, 10, True),
        (180, 20, True),
        (0, 180, True),
        (90, 10, False),
        (-90, 25, False),
        (60, 10, False),
    ],
)
def test_what_stands_upright_or_at_any_angle_may_be_mirrored(angle: float, spread: float, fits: bool) -> None:
    assert mirrors_into_itself(lying(angle, spread), FLIP) is fits


def test_crops_that_are_turned_all_around_make_up_for_how_it_lies() -> None:
    assert mirrors_into_itself(lying(90, 10), FLIP, turn=180)


def test_a_shape_seen_from_one_side_only_is_not_mirrored_at_any_turn() -> None:
    hook = WRENCH + np.array([[200, 0], [200, 0], [80, 0], [80, 0], [0, 0], [0, 0]])
    assert not mirrors_into_itself(lying(0, 180, shape=hook), FLIP, turn=180)
    assert mirrors_into_itself(
        np.concatenate([lying(0, 10, shape=hook), lying(0, 10, shape=(hook * [-1, 1])[FLIP])]), FLIP
    )


@pytest.mark.parametrize(
    ("sides", "fits"), [((0, 360), True), ((-60, 60), True), ((-30, 60), True), ((60, 80), False)]
)
@pytest.mark.parametrize("count", [12, 200])
def test_a_solid_object_is_mirrored_unless_one_side_alone_is_seen(
    sides: tuple[float, float], fits: bool, count: int
) -> None:
    shapes, flip = boxes(sides, count)
    assert mirrors_into_itself(shapes, flip) is fits


def test_faces_may_be_mirrored() -> None:
    dataset = load_dataset(["synthetic:200"])
    shapes = np.stack([s.keypoints for s in dataset.samples])
    for few in (shapes, shapes[:10]):
        assert mirrors_into_itself(few, dataset.schema.flip_index)


def test_too_few_shapes_tell_nothing() -> None:
    assert mirrors_into_itself(lying(90, 5, 7), FLIP)
    assert not mirrors_into_itself(lying(90, 5, 8), FLIP)


def test_points_that_are_not_labelled_do_not_count() -> None:
    shapes = lying(90, 10)
    shapes[np.random.default_rng(1).random(shapes.shape[:2]) < 0.3] = np.nan
    assert not mirrors_into_itself(shapes, FLIP)
    nothing = np.full_like(shapes, np.nan)
    assert mirrors_into_itself(nothing, FLIP)


def test_distances_are_those_of_the_best_fit() -> None:
    a, b = WRENCH[None], WRENCH + np.array([[9, 0], [0, 0], [0, 0], [0, 7], [0, 0], [0, 0]])
    moved = turned(b, 20, 3.0)[None]
    centred, wanted = b - b.mean(0), WRENCH - WRENCH.mean(0)
    # With turns free: what least squares over scale, turn and shift leaves, in sizes of the shape.
    table = np.stack([centred, centred[:, ::-1] * [-1, 1]], -1).reshape(-1, 2)
    left = np.linalg.lstsq(table, wanted.ravel(), rcond=None)[1][0]
    expected = np.sqrt(left / (wanted**2).sum())
    assert shape_distances(a, moved, np.pi)[0, 0] == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(
        shape_distances(a, turned(WRENCH, 50)[None], np.radians(20)), np.sin(np.radians(30)), atol=1e-9
    )
    assert shape_distances(a, turned(WRENCH, 180)[None], np.radians(30))[0, 0] == 1
    hidden = a.copy()
    hidden[0, :5] = np.nan
    assert shape_distances(a, hidden, np.pi)[0, 0] == np.inf


def wrenches(folder: Path, angle: float, count: int = 16, **category: Any) -> str:
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i, points in enumerate(lying(angle, 10, count)):
        image = np.full((200, 200, 3), 90, np.uint8)
        for x, y in points.round().astype(int).tolist():
            cv2.circle(image, (x, y), 6, (250, 250, 250), -1)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "width": 200, "height": 200})
        keypoints = np.column_stack([points + 0.5, np.full(6, 2)]).ravel().tolist()
        annotations.append({"id": i, "image_id": i, "category_id": 1, "keypoints": keypoints})
    category = {"id": 1, "name": "wrench", "keypoints": NAMES, "reference": [0, 4], **category}
    data = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "labels.json").write_text(json.dumps(data))
    return f"coco:{folder / 'labels.json'}"


def test_pairs_by_name_are_dropped_where_they_do_harm(tmp_path: Path) -> None:
    pairs = pairs_from_names(NAMES)
    across = load_dataset([wrenches(tmp_path / "across", 90)])
    upright = load_dataset([wrenches(tmp_path / "upright", 0)])
    assert (across.schema.flip_pairs, across.pairs_by_name) == ((), pairs)
    assert (upright.schema.flip_pairs, upright.pairs_by_name) == (pairs, pairs)
    # Pairs that the file names are the user's.
    named = load_dataset([wrenches(tmp_path / "named", 90, flip_pairs=[[0, 1], [2, 3], [4, 5]])])
    assert (named.schema.flip_pairs, named.pairs_by_name) == (pairs, ())


def test_pairs_by_name_give_way_to_those_of_a_model_and_of_other_data(tmp_path: Path) -> None:
    across, upright = (wrenches(tmp_path / str(angle), angle) for angle in (90, 0))
    without, with_pairs = (load_dataset([spec]).schema for spec in (across, upright))
    # A model of either kind is measured on either data.
    for spec in (across, upright):
        for schema in (without, with_pairs):
            assert load_dataset([spec], schema).schema == schema
            assert training_samples((spec,), (), 0.05, schema)[0].schema == schema
    for pairs, expected in (([], ()), ([[0, 1]], ((0, 1),))):
        named = wrenches(tmp_path / f"named{len(pairs)}", 90, flip_pairs=pairs)
        assert load_dataset([upright, named]).schema.flip_pairs == expected
        assert load_dataset([named, upright]).schema.flip_pairs == expected


def test_it_is_told_in_a_line_whether_samples_are_mirrored(tmp_path: Path) -> None:
    told = {
        wrenches(tmp_path / "across", 90): ACROSS,
        wrenches(tmp_path / "explicit", 90, flip_pairs=[[0, 1], [2, 3], [4, 5]]): "change places: warning: so"
        " they stand as in no photo",
        wrenches(tmp_path / "upright", 0): "left_end/right_end change places",
        wrenches(tmp_path / "none", 0, flip_pairs=[]): "not mirrored: the data name no points that change",
    }
    for spec, expected in told.items():
        data = load_dataset([spec])
        shapes = np.stack([sample.keypoints for sample in data.samples])
        fits = mirrors_into_itself(shapes, data.schema.flip_index)
        line = about_mirroring(data.schema, data.pairs_by_name, fits)
        assert expected in line
        assert line.count("mirrored") == 1


@pytest.mark.usefixtures("short_measuring")
def test_training_and_templates_tell_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    across = wrenches(tmp_path / "across", 90)
    assert templates(["--data", across, "--k", "4", "--out", str(tmp_path / "bank.npz")]) == 0
    assert ACROSS in capsys.readouterr().out
    options = ["--part", "stages", "--epochs", "1", "1", "--sizes", "32", "32", "--widths", "8", "8"]
    options += ["--batch", "8", "--workers", "0", "--k", "4"]
    assert main(["--data", across, *options, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert ACROSS in out
    assert out.count("mirrored") == 1
