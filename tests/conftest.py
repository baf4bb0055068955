"""What several tests share: a tiny trained run, its exported model, and a drawn object easy to find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_kp.geometry import similarity, transform_points
from edge_kp.schema import KeypointSchema
from edge_kp.types import Array

TINY = (
    "--data",
    "synthetic:300",
    "--epochs",
    "2",
    "2",
    "--k",
    "8",
    "--sizes",
    "48",
    "48",
    "--widths",
    "8",
    "8",
)

# A kite with a disc of its own colour at every keypoint, so that a test can find the points in any crop.
KITE = KeypointSchema(
    name="kite5",
    keypoints=("left", "right", "top", "bottom", "middle"),
    flip_pairs=((0, 1),),
    edges=((0, 4), (1, 4), (2, 4), (3, 4)),
    reference=(0, 1),
)
KITE_COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)], np.uint8)
_KITE_REST = np.array([[-1, 0], [1, 0], [0, -1], [0, 1.4], [0, 0.2]])
_KITE_SIDE = 96


def kite_keypoints(index: int) -> Array:
    """(5, 2) float64, pixels: one of two leans, ends that move, turned by up to 29 degrees."""
    rng = np.random.default_rng(index)
    points = _KITE_REST.copy()
    points[3, 1] += rng.uniform(-0.5, 0.5)
    points[:2, 1] += rng.uniform(-0.4, 0.4)
    points[:, 0] += 0.3 * points[:, 1] * rng.choice([-1, 1])
    place = similarity(rng.uniform(-0.5, 0.5), rng.uniform(14, 20), (_KITE_SIDE / 2, _KITE_SIDE / 2))
    return transform_points(place, points)


def draw_kite(points: Array, side: int = _KITE_SIDE, radius: float = 5) -> Array:
    """uint8 BGR (side, side, 3): discs on dark grey."""
    image = np.full((side, side, 3), 30, np.uint8)
    for point, colour in zip(points, KITE_COLOURS.tolist(), strict=True):
        cv2.circle(
            image, np.round(point * 16).astype(int).tolist(), round(radius * 16), colour, -1, cv2.LINE_AA, 4
        )
    return image


def _kite_image(index: int) -> Array:
    return draw_kite(kite_keypoints(index))


@pytest.fixture(scope="session")
def kites() -> Callable[..., list]:
    """``kites(count, first=0)``: that many labelled samples of :data:`KITE`."""
    from edge_kp.training.samples import Sample

    def samples(count: int, first: int = 0) -> list[Sample]:
        return [
            Sample(
                key=f"kite/{i}.png",
                keypoints=kite_keypoints(i).astype(np.float32),
                visible=np.ones(5, np.float32),
                attributes={},
                load=partial(_kite_image, i),
            )
            for i in range(first, first + count)
        ]

    return samples


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of two very small stages on the synthetic object."""
    pytest.importorskip("torch")
    from edge_kp.train import main

    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main([*TINY, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder exported from ``tiny_run``; tests that change files work on a copy."""
    pytest.importorskip("onnxsim")
    from edge_kp.export import main

    out = tmp_path_factory.mktemp("models") / "tiny"
    assert main(["--run", str(tiny_run), "--out", str(out), "--terms", "made up, free for all"]) == 0
    return out
