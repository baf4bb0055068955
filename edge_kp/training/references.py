"""The pictures that a model folder carries, with PyTorch's outputs for them; see :mod:`edge_kp.parity`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

import edge_kp
from edge_kp.cascade import Cascade
from edge_kp.errors import ModelError
from edge_kp.geometry import square_crop, transform_points
from edge_kp.locator import fit_square
from edge_kp.modeldir import ModelSpec
from edge_kp.parity import References
from edge_kp.training.network import Contract
from edge_kp.training.torch_backend import TorchBackend
from edge_kp.types import Array

CLIP = Path(edge_kp.__file__).parent / "assets" / "astronaut.mp4"
CLIP_SCHEMA = "face68"
CROPS, REGIONS = 6, 2  # how many; a region is eight times as large


def make_references(
    spec: ModelSpec, nets: Mapping[str, Contract], own: Mapping[str, Array]
) -> dict[str, References]:
    """Input images and PyTorch's outputs for them.

    Faces are cut out of the shipped clip, which anyone may pass on. Of other objects there is none:
    the run's own held-back pictures are taken.

    Args:
        nets: ``stage1``, ``stage2``, ``cascade`` and, where the model has one, ``locator``.
        own: network → uint8 (M, S, S, 3), the run's held-back pictures.
    """
    images = _clip_images(spec, nets) if spec.schema.name == CLIP_SCHEMA else _own_images(spec, own)
    return {
        name: References(pictures, TorchBackend(nets[name]).run(pictures))
        for name, pictures in images.items()
    }


def clip_boxes() -> list[tuple[Array, Array]]:
    """Frames of the shipped clip, uint8 BGR (H, W, 3), over its whole length, and the face's box in each."""
    about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
    x0, y0, x1, y1 = about["reference_box"]
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
    wanted = set(np.linspace(0, len(about["frames"]) - 1, CROPS).round().astype(int).tolist())
    clip, found = cv2.VideoCapture(str(CLIP)), []
    for i, frame in enumerate(about["frames"]):
        read, image = clip.read()
        if not read:
            raise ModelError(f"{CLIP}: ends after {i} frames; install the package again")
        if i in wanted:
            points = transform_points(np.array(frame["matrix"]), corners)
            found.append((image, np.concatenate([points.min(0), points.max(0)])))
    return found


def _clip_images(spec: ModelSpec, nets: Mapping[str, Contract]) -> dict[str, Array]:
    frames = clip_boxes()
    cascade = Cascade(spec, TorchBackend(nets["stage1"]), TorchBackend(nets["stage2"]))
    regions = [square_crop(box, spec.cascade_size, spec.cascade_scale) for _, box in frames[:REGIONS]]
    images = {
        "stage1": np.stack([square_crop(b, spec.sizes[0], spec.scale).extract(image) for image, b in frames]),
        "stage2": np.stack([cascade(image, [box]).crop(0) for image, box in frames]),
        "cascade": np.stack([crop.extract(image) for crop, (image, _) in zip(regions, frames, strict=False)]),
    }
    if "locator" in nets:
        images["locator"] = np.stack([fit_square(image, spec.locator_size)[0] for image, _ in frames[:1]])
    return images


def _own_images(spec: ModelSpec, own: Mapping[str, Array]) -> dict[str, Array]:
    images = {name: pictures[: 1 if name == "locator" else CROPS] for name, pictures in own.items()}
    finer = spec.cascade_finer
    margin = (spec.cascade_size - finer * spec.sizes[0]) // 2
    enlarged = images["stage1"][:REGIONS].repeat(finer, 1).repeat(finer, 2)
    images["cascade"] = np.pad(enlarged, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return images
