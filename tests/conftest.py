"""What several tests share: a tiny trained run, its exported model, and a drawn object easy to find."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

from edge_kp.geometry import similarity, transform_points
from edge_kp.schema import KeypointSchema
from edge_kp.types import Array

TINY = (
    "--data synthetic:300 --epochs 2 2 --batch 64 --k 8 --sizes 48 48 --widths 8 8 --searches 0 8 --workers 0"
    " --trunks plain plain --fusions plain separable"
    " --locator-size 64 --locator-width 8 --locator-epochs 2 --locator-pictures 1"
)


def pytest_configure() -> None:
    # At these sizes more threads only wait for each other, here and in programs started here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A slow machine is no fault of the code.
    settings.register_profile("edge_kp", deadline=None)
    settings.load_profile("edge_kp")


@pytest.fixture(scope="session")
def frames() -> list[Array]:
    """Every frame of the shipped clip; not to be written to."""
    clip = cv2.VideoCapture(str(Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut.mp4"))
    assert clip.isOpened()
    images = []
    while True:
        more, image = clip.read()
        if not more:
            return images
        image.flags.writeable = False
        images.append(image)


class Kites:
    """Samples of a kite with a disc of its own colour at every keypoint: an easy thing to learn."""

    schema = KeypointSchema(
        name="kite5",
        keypoints=("left", "right", "top", "bottom", "middle"),
        flip_pairs=((0, 1),),
        edges=((0, 4), (1, 4), (2, 4), (3, 4)),
        reference=(0, 1),
    )
    COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255))
    SIDE = 96

    def __call__(self, count: int, first: int = 0) -> list[Any]:
        """Samples number ``first`` and on."""
        from edge_kp.training.samples import Sample

        return [
            Sample(
                key=f"kite/{i}.png",
                keypoints=self.keypoints(i).astype(np.float32),
                visible=np.ones(5, np.float32),
                attributes={},
                load=partial(self.draw, i),
            )
            for i in range(first, first + count)
        ]

    def keypoints(self, index: int) -> Array:
        """(5, 2) float64, pixels: one of two leans, ends that move, turned by up to 29 degrees."""
        rng = np.random.default_rng(index)
        points = np.array([[-1, 0], [1, 0], [0, -1], [0, 1.4], [0, 0.2]])
        points[3, 1] += rng.uniform(-0.5, 0.5)
        points[:2, 1] += rng.uniform(-0.4, 0.4)
        points[:, 0] += 0.3 * points[:, 1] * rng.choice([-1, 1])
        middle = (self.SIDE / 2, self.SIDE / 2)
        return transform_points(similarity(rng.uniform(-0.5, 0.5), rng.uniform(14, 20), middle), points)

    def draw(self, index: int) -> Array:
        """uint8 BGR (96, 96, 3): discs on dark grey."""
        image = np.full((self.SIDE, self.SIDE, 3), 30, np.uint8)
        for point, colour in zip(self.keypoints(index), self.COLOURS, strict=True):
            at = np.round(point * 16).astype(int).tolist()
            cv2.circle(image, at, 5 * 16, colour, -1, cv2.LINE_AA, 4)
        return image


@pytest.fixture(scope="session")
def kites() -> Kites:
    return Kites()


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests that all its processes share."""
    own = tmp_path_factory.getbasetemp()
    out = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "common"
    out.mkdir(exist_ok=True)
    return out


@contextmanager
def made_once(out: Path, make: Callable[[], int]) -> Iterator[Path]:
    """``out``, which the first process that asks for it makes; the others wait until it is done.

    At the end nothing in it may have changed: another process would have been reading it.
    """
    from filelock import FileLock

    done = out.with_name(f"{out.name}.done")
    out.parent.mkdir(exist_ok=True)
    with FileLock(f"{out}.lock"):
        if not done.exists():
            assert make() == 0
            done.touch()
    yield out
    made = done.stat().st_mtime_ns
    changed = [path for path in (out, *out.rglob("*")) if path.stat().st_mtime_ns > made]
    assert changed == [], "tests that change files work on a copy"


@pytest.fixture(scope="session")
def export_cache(common_folder: Path) -> Iterator[None]:
    """From here on a network that any process has exported is not exported again, which takes long."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export_cache import CachedExport

    folder = common_folder / "exports"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", CachedExport(torch.onnx.export, folder))
        yield


@pytest.fixture(scope="session")
def short_measuring() -> Iterator[None]:
    """From here on what training measures between its parts, on thousands of crops, is measured on a few."""
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_kp.training.both_stages.MEASURED", 100)
        patch.setattr("edge_kp.training.whole.BOXES", 20)
        yield


@pytest.fixture(scope="session")
def tiny_run(common_folder: Path, export_cache: None, short_measuring: None) -> Iterator[Path]:
    """Folder of a finished run of two very small stages on the synthetic object; not to be written to."""
    from edge_kp.train import main

    out = common_folder / "runs" / "tiny"
    with made_once(out, lambda: main([*TINY.split(), "--out", str(out)])) as run:
        yield run


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Path, common_folder: Path) -> Iterator[Path]:
    """Model folder exported from ``tiny_run``; tests that change files work on a copy."""
    pytest.importorskip("onnxsim")
    from edge_kp.export import main

    out = common_folder / "models" / "tiny"
    command = ["--run", str(tiny_run), "--out", str(out), "--terms", "made up, free for all"]
    with made_once(out, lambda: main(command)) as model:
        yield model
