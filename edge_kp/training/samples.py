"""One labelled object in one image, how its image is read, and what every reader returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import cv2
import numpy as np

from edge_kp.errors import DataError
from edge_kp.files import dark_end
from edge_kp.geometry import tight_box
from edge_kp.schema import KeypointSchema, Pair
from edge_kp.types import Array

SMALLEST_IMAGE = 8
PLAIN_NAMES = "expected a name within the folder of images, neither absolute nor with .. in it"
MOST = 1e30  # largest coordinate of a label, pixels; float32 ends not far beyond


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled object.

    Attributes:
        key: unique name, the same on every machine, e.g. ``helen/123.jpg``; seeds the sample's randomness.
        keypoints: (N, 2) float32, frame pixels; NaN where not labelled.
        visible: (N,) float32: 1 visible, 0 covered (labelled though hidden), NaN unknown.
        attributes: name → 1.0 or 0.0 as the data set says; an absent name is unknown.
        load: reads the image, uint8 BGR (H, W, 3); raises DataError where it is missing or damaged. Can be
            pickled, so that worker processes can call it.
        image_size: (width, height) where it is known without decoding.
        repeat: how often the sample counts in an epoch.
        until: share of the epochs, from the first on, that stages are trained on it.
        use_background: may parts of the image without this object be taught as "no object"?
        picture: path of the image file; empty where the image is drawn.
        others: (4,) boxes of what else the data set says is in the image, labelled or not, frame pixels.
    """

    key: str
    keypoints: Array
    visible: Array
    attributes: Mapping[str, float]
    load: Callable[[], Array]
    image_size: tuple[int, int] | None = None
    repeat: int = 1
    until: float = 1.0
    use_background: bool = True
    picture: str = ""
    others: tuple[Array, ...] = ()

    def __post_init__(self) -> None:
        if self.keypoints.ndim != 2 or self.keypoints.shape[1] != 2:
            raise ValueError(f"keypoints: expected shape (N, 2), got {self.keypoints.shape}")
        if self.visible.shape != (len(self.keypoints),):
            raise ValueError(f"visible: expected shape ({len(self.keypoints)},), got {self.visible.shape}")

    def read(self) -> Array:
        """The image, uint8 BGR (H, W, 3), after its size and the labels' place were checked.

        Raises:
            DataError: the image is missing or damaged, is not of the size that the labels were made for, or
                a label lies far outside of it.
        """
        image = self.load()
        height, width = image.shape[:2]
        if self.image_size is not None and self.image_size != (width, height):
            stated = f"{self.image_size[0]}x{self.image_size[1]}"
            raise DataError(f"{self.shown}: the label file says {stated}, the image is {width}x{height}")
        if problem := label_problem(self.keypoints, width, height):
            raise DataError(f"{self.shown}: {problem}")
        return image

    @property
    def shown(self) -> str:
        """What to call it: the image's path, and behind ``#`` the number of the object in its label file."""
        _, mark, number = self.key.rpartition("/")[2].partition("#")
        return f"{_near(self.picture)}{mark}{number}" if self.picture else self.key

    @property
    def box(self) -> Array:
        """(4,) float32 ``[x0, y0, x1, y1]`` around the labelled keypoints, frame pixels."""
        return tight_box(self.keypoints)


@dataclass(frozen=True, eq=False)
class Reading:
    """What one data set holds; a reader returns it or raises DataError with every problem it found.

    Attributes:
        measured_reference: the schema's reference points were measured on these samples (the farthest
            pair), not named by the data set, so another part of the set may measure others.
        pairs_by_name: the schema's flip pairs are those that the names of its points tell; the data set
            names none.
        notes: lines on what is odd about the data, though it can be used.
    """

    name: str
    schema: KeypointSchema
    samples: tuple[Sample, ...]
    measured_reference: bool = False
    pairs_by_name: bool = False
    notes: tuple[str, ...] = ()


def knowing_others(
    samples: Sequence[Sample],
    pictures: Sequence[Hashable],
    unlabelled: Mapping[Hashable, Sequence[Array | None]],
) -> tuple[Sample, ...]:
    """The samples of a data set with the boxes of what else is in their pictures.

    Args:
        pictures: which picture each sample is in.
        unlabelled: of a picture, the boxes of what is in it without being a sample; None where it is not
            known where: then nothing in that picture may be taught as "no object".
    """
    boxes: dict[Hashable, list[tuple[int, Array]]] = {}
    for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        boxes.setdefault(picture, []).append((i, sample.box))
    found = []
    for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        more = unlabelled.get(picture, ())
        others = [box for other, box in boxes[picture] if other != i]
        others += [box for box in more if box is not None]
        known = all(box is not None for box in more)
        found.append(replace(sample, others=tuple(others), use_background=sample.use_background and known))
    return tuple(found)


def _near(path: str) -> str:
    """A path as one would type it here."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def read_image(path: str, size: tuple[int, int] | None = None) -> Array:
    """An image file as uint8 BGR (H, W, 3), upright: turned as its EXIF data say, as labelling tools do.

    Args:
        size: (width, height) that labels were made for. Where only the picture as it is stored has that size,
            they ignored the EXIF data, so this does too.

    Raises:
        DataError: the file is missing, truncated, no image, smaller than 8 pixels, or all but black, since it
            holds 12 bits in 16.
    """
    try:
        data = read_file(Path(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if is_truncated(data):
        raise DataError(f"{path}: the image is truncated; copy it again")
    image = _decoded(data, cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: cannot be decoded as an image; replace or remove it")
    end = dark_end(image, lambda: _decoded(data, cv2.IMREAD_UNCHANGED))
    if end is not None:
        raise DataError(
            f"{path}: its 16-bit values end at {end}, so it comes out all but black: is it 12-bit"
            " data? Save all in 8 bits, scaled alike, as the camera's pictures will be"
        )
    if size is not None and size[0] != size[1] and image.shape[:2] == size:  # their sides are swapped
        stored = _decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        image = image if stored is None else stored
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_IMAGE:
        raise DataError(
            f"{path}: image of {width}x{height} pixels, expected at least {SMALLEST_IMAGE}; remove it"
        )
    return np.asarray(image)


def _decoded(data: bytes, flags: int) -> Array | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # e.g. a header that claims more pixels than OpenCV accepts
        return None


def read_file(path: Path) -> bytes:
    """The bytes of a file that has an end, unlike a pipe or a device.

    Raises:
        OSError: it cannot be read, or is something else.
    """
    if path.exists() and not path.is_file():
        raise OSError(None, "is no file", str(path))
    return path.read_bytes()


def read_lines(path: Path, instead: str = "") -> list[str]:
    """The lines of a text file.

    Args:
        instead: what to say that was expected, where it is none.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    try:
        return read_file(path).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text file{instead}") from error


def leads_out(name: str) -> bool:
    """Is a name in a label file that of a file outside of its folder? (A link in it may lead anywhere.)"""
    path = PurePath(name)
    return bool(path.drive or path.root) or ".." in path.parts


def is_there(path: Path) -> bool:
    """Is it a file? False as well for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_truncated(data: bytes) -> bool:
    """Does a JPEG or PNG end early? Decoders fill the lost part with grey and say nothing."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    # Step over the header segments, since an EXIF thumbnail has an end marker of its own. Anything may
    # follow the image's end marker (phones append whole clips), so its place in the file says nothing.
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b"\xd9"):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big") if data[at + 1 : at + 2] != b"\xff" else 1
    return data.find(b"\xff\xd9", at) < 0


def label_problem(keypoints: Array, width: int, height: int) -> str | None:
    """What is wrong with labels for an image of this size: a point more than one image size outside."""
    size = np.array([width, height], np.float64)
    far = (keypoints < -size) | (keypoints > 2 * size)  # NaN compares False
    if not far.any():
        return None
    i = int(np.flatnonzero(far.any(axis=1))[0])
    x, y = keypoints[i]
    return f"keypoint {i} at ({x:.1f}, {y:.1f}) lies far outside the {width}x{height} image"


def farthest_pair(shapes: Sequence[Array]) -> Pair:
    """The two points with the greatest mean distance, each shape in units of its own box's diagonal.

    Stands in for reference points where a data set names none. A pair counts less the less often it is
    labelled: objects without it have no error in its units. Those that are labelled less than half as often
    as the commonest pair are not considered.

    Args:
        shapes: (N, 2) keypoints, NaN where not labelled.

    Raises:
        ValueError: no two points of the shapes are ever labelled apart from one another.
    """
    if not shapes:
        raise ValueError("no shape to measure")
    n = len(shapes[0])
    total, count = np.zeros((n, n)), np.zeros((n, n))
    for shape in shapes:
        x0, y0, x1, y1 = (float(v) for v in tight_box(shape))
        distance = np.linalg.norm(shape[:, None] - shape[None], axis=-1) / max(
            np.hypot(x1 - x0, y1 - y0), 1e-6
        )
        total += np.nan_to_num(distance)
        count += ~np.isnan(distance)
    np.fill_diagonal(count, 0)
    worth = np.where(count * 2 >= count.max(), total, 0)  # mean distance times how often it is known
    if not worth.max() > 0:
        raise ValueError("no two points are labelled apart from one another")
    a, b = (int(i) for i in np.unravel_index(int(worth.argmax()), worth.shape))
    return (a, b) if a < b else (b, a)


def has_extent(keypoints: Array) -> bool:
    """Do the labelled points span a box that a crop can be put around?"""
    known = keypoints[~np.isnan(keypoints).any(axis=1)]
    return len(known) >= 2 and bool((np.ptp(known, axis=0) > 0).any())


def file_key(folder: Path, name: str) -> str:
    """``folder/name`` without what differs between machines."""
    return f"{folder.resolve().name}/{Path(name).as_posix()}"
