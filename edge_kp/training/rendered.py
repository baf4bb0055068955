"""Faces rendered from a 3D face model as a labelled data set of schema ``FACE68``.

Every picture shows one face of random shape, expression, direction, colours, hair and light before a photo
or a drawn surface. Labels are where people put the points (:mod:`.rendering.contour`): fixed to the head, but
for the jaw line, which follows the outline.
Everything follows from (model file, photo, seed, index); labels are computed without drawing. Made for the
face model ICT-FaceKit (Li et al. 2020, Learning Formation of Physically-Based Face Attributes; MIT licence,
(c) USC ICT); ``load_face_model`` tells what its file holds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from edge_kp.errors import DataError
from edge_kp.schema import FACE68
from edge_kp.training.readers import picture_files
from edge_kp.training.rendering.drawing import draw
from edge_kp.training.rendering.model import FaceModel, load_face_model
from edge_kp.training.rendering.scene import SIZE, Scene, random_scene
from edge_kp.training.rendering.surface import FINE
from edge_kp.training.samples import Reading, Sample, read_image
from edge_kp.training.textures import random_texture
from edge_kp.types import Array

# Each part of a sample has lots of its own, so that the background changes nothing of the face.
_PERSON, _LOOK, _PHOTO, _BACKGROUND, _WORN = range(5)


def read_rendered(count: int, model: Path, photos: Path | None = None, seed: int = 0) -> Reading:
    """``count`` samples, each drawn anew whenever it is loaded.

    Args:
        model: file of the face model, see ``load_face_model``.
        photos: folder of pictures for the background, not searched recursively; drawn surfaces when None.

    Raises:
        DataError: the model file or the folder of photos is missing or unusable.
    """
    face = load_face_model(str(model))
    backgrounds = _photos(photos)
    samples = []
    for index in range(count):
        scene = make_scene(face, seed, index)
        lot = _lots(seed, index, _PHOTO)
        photo = str(backgrounds[lot.integers(len(backgrounds))]) if backgrounds else None
        samples.append(
            Sample(
                key=f"rendered/seed{seed}/{index}",
                keypoints=scene.keypoints,
                visible=scene.visible,
                attributes={},
                load=partial(render, str(model), photo, seed, index),
                image_size=(SIZE, SIZE),
            )
        )
    return Reading(f"rendered:{count}" + (f",seed={seed}" if seed else ""), FACE68, tuple(samples))


def _photos(folder: Path | None) -> list[Path]:
    """The pictures of a folder; empty without a folder."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise DataError(f"rendered: {folder}: no such folder; give a folder of pictures, or none")
    return picture_files(folder, "rendered:")


def render(model: str, photo: str | None, seed: int, index: int) -> Array:
    """The picture of sample ``index``, uint8 BGR (``SIZE``, ``SIZE``, 3), before a photo or a drawn surface.

    Raises:
        DataError: the model file or the photo is missing or damaged.
    """
    face = load_face_model(model)
    image = None if photo is None else read_image(photo)
    background = _background(image, _lots(seed, index, _BACKGROUND))
    return draw(face, make_scene(face, seed, index), background, _lots(seed, index, _LOOK))


def make_scene(model: FaceModel, seed: int, index: int) -> Scene:
    """The face of sample ``index`` in place, with its labels."""
    return random_scene(model, _lots(seed, index, _PERSON), _lots(seed, index, _WORN))


def _lots(seed: int, index: int, part: int) -> np.random.Generator:
    """Random numbers for a part of sample ``index``."""
    return np.random.default_rng([seed, index, part])


def _background(photo: Array | None, rng: np.random.Generator) -> Array:
    """uint8 BGR at ``FINE`` times the picture's size: a photo's or drawn surface's part, blurred or not."""
    side = SIZE * FINE
    image = random_texture(SIZE, rng) if photo is None else photo
    cut = int(min(image.shape[:2]) * rng.uniform(0.5, 1))
    y, x = (int(rng.integers(0, n - cut + 1)) for n in image.shape[:2])
    part = image[y : y + cut, x : x + cut][:, :: rng.choice((-1, 1))]
    part = cv2.resize(np.ascontiguousarray(part), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    blur = rng.uniform(0, 4)
    if blur > 0.3:
        part = cv2.GaussianBlur(part, (0, 0), blur)
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR))
