"""Is a network on this device what was trained? Its outputs on stored pictures, held against PyTorch's.

A model folder carries ``references.npz``: a few input images of every network (as WebP, lossless) and what
PyTorch gave for them in float32 on a CPU. No PyTorch is needed to compare.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from edge_kp.backends.base import Backend
from edge_kp.errors import BackendError, ModelError
from edge_kp.files import read_arrays
from edge_kp.modeldir import NETWORKS, ModelSpec, checked_file
from edge_kp.types import Array

FILE = "references.npz"
GROSS = 5  # times the mean difference that is allowed, beyond which a network is not the one that was trained
LIKELY = 0.3  # score from which a locator's box is compared: those of empty cells mean nothing
ROUGH = ("fp16", "int8", "int8-cpu")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed differences, mean and worst.

    ``points`` are coordinates of the input image in [0, 1], ``probabilities`` all other outputs.
    """

    points: tuple[float, float]
    probabilities: tuple[float, float]


# One table for every backend. At fp32 the order of additions differs, at fp16 and int8 the arithmetic itself;
# 0.01 of a crop is about a sixtieth of a face's width.
TOLERANCE: Mapping[str, Tolerance] = {
    "fp32": Tolerance((2e-5, 2e-4), (2e-4, 2e-3)),
    "fp16": Tolerance((5e-4, 3e-3), (2e-3, 3e-2)),
    "int8": Tolerance((3e-3, 3e-2), (5e-2, 3e-1)),
    "int8-cpu": Tolerance((3e-3, 3e-2), (5e-2, 3e-1)),
}
_POINTS = ("keypoints", "prior_keypoints", "boxes", "stage1_keypoints", "stage1_prior_keypoints", "alignment")


@dataclass(frozen=True, eq=False)
class References:
    """What one network must give.

    Attributes:
        images: uint8 (M, S, S, 3) BGR.
        outputs: name → (M, …) float32.
    """

    images: Array
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class Row:
    """One output of one network beside its reference; ``batch``: of kernels of their own for that size."""

    network: str
    output: str
    mean: float
    worst: float
    allowed: tuple[float, float]
    batch: int | None = None

    @property
    def passed(self) -> bool:
        """Both within tolerance; a value that is not a number never is."""
        return self.mean <= self.allowed[0] and self.worst <= self.allowed[1]


def save_references(folder: Path, references: Mapping[str, References]) -> None:
    """Write ``references.npz`` into a model folder."""
    arrays = {}
    for network, reference in references.items():
        for i, image in enumerate(reference.images):
            arrays[f"{network}/image/{i}"] = _packed(image)
        arrays.update({f"{network}/{name}": value for name, value in reference.outputs.items()})
    np.savez_compressed(folder / FILE, **arrays)  # type: ignore[arg-type]


def load_references(folder: Path, spec: ModelSpec) -> dict[str, References]:
    """The references of each network of a model.

    Raises:
        ModelError: the file is missing, changed or damaged.
    """
    path = checked_file(folder, spec, FILE)
    try:
        arrays = read_arrays(path)
        found = {
            network: _references(network, entries)
            for network in NETWORKS
            if (entries := {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{network}/")})
        }
        for network, reference in found.items():
            _check_reference(network, reference, spec.input_size(network))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); export the model again") from error
    return found


def _references(network: str, entries: dict[str, Array]) -> References:
    """Raises: ValueError: there is no image, or one cannot be read."""
    if "image" in entries:  # as they were kept in the beginning
        return References(entries.pop("image"), entries)
    images: list[Array] = []
    while (packed := entries.pop(f"image/{len(images)}", None)) is not None:
        images.append(_unpacked(network, packed))
    if not images or any(name.startswith("image/") for name in entries):
        raise ValueError(f"{network}: no images, or not all")
    return References(np.stack(images), entries)


def _packed(image: Array) -> Array:
    """uint8 BGR (S, S, 3) → (bytes,), without loss. Raises: ModelError: this OpenCV writes no WebP."""
    try:
        done, packed = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])
    except cv2.error:
        done = False
    if not done:
        raise ModelError(f"OpenCV {cv2.__version__} cannot write WebP; pip install opencv-python")
    return packed


def _unpacked(network: str, packed: Array) -> Array:
    """Inverse of :func:`_packed`. Raises: ValueError: no such image."""
    image = None
    if packed.dtype == np.uint8 and packed.ndim == 1 and packed[:4].tobytes() == b"RIFF":
        with suppress(cv2.error):
            image = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{network}: an image that OpenCV {cv2.__version__} cannot read as WebP")
    return image


def _check_reference(network: str, reference: References, size: int) -> None:
    """Raises: ValueError: no images of this size, or no results of numbers for each of them."""
    images = reference.images
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3) or not len(images):
        raise ValueError(f"{network}: images {images.dtype} {images.shape}, expected (M, {size}, {size}, 3)")
    if not reference.outputs or ("boxes" in reference.outputs and "score" not in reference.outputs):
        raise ValueError(f"{network}: no results for its images")
    for name, value in reference.outputs.items():
        if value.dtype.kind != "f" or value.shape[:1] != images.shape[:1] or not np.isfinite(value).all():
            raise ValueError(
                f"{network}: {name} {value.dtype} {value.shape} are no finite results of its images"
            )


def compare(
    network: str, precision: str, seen: Mapping[str, Array], expected: Mapping[str, Array]
) -> list[Row]:
    """Differences of every output.

    Args:
        seen, expected: output name → (M, …).

    Raises:
        ModelError: an output is missing or has another shape.
    """
    tolerance = TOLERANCE[precision]
    rows = []
    for name, truth in expected.items():
        if name not in seen or seen[name].shape != truth.shape:
            shape = seen[name].shape if name in seen else "nothing"
            raise ModelError(
                f"{network}: expected output {name} {truth.shape}, got {shape}; export the model again"
            )
        difference = np.abs(seen[name].astype(np.float64) - truth)
        # In few bits a stage need only agree that a crop shows no object, not on where its points would be.
        meaningless = precision in ROUGH and name != "score" and "score" in expected
        if name == "boxes" or meaningless:
            difference = difference[expected["score"] >= LIKELY]
        allowed = tolerance.points if name in _POINTS else tolerance.probabilities
        mean, worst = (float(difference.mean()), float(difference.max())) if difference.size else (0.0, 0.0)
        rows.append(Row(network, name, mean, worst, allowed))
    return rows


def hold(network: str, backend: Backend, reference: References) -> list[Row]:
    """Differences of every output of a network on this device, in every batch size that has its own kernels.

    Raises:
        ModelError: an output is missing or has another shape.
        BackendError: it cannot be run.
    """
    if not backend.batches:
        return compare(network, backend.precision, backend.run(reference.images), reference.outputs)
    rows: list[Row] = []
    for batch in backend.batches:
        seen = in_batches(backend, reference.images, batch)
        found = compare(network, backend.precision, seen, reference.outputs)
        rows += [replace(row, batch=batch) for row in found]
    return rows


def in_batches(backend: Backend, images: Array, batch: int) -> dict[str, Array]:
    """A network's outputs for images that go through it in whole batches, the last one filled with others."""
    runs = -(-len(images) // batch)
    filled = images[np.arange(runs * batch) % len(images)]
    parts = [backend.run(filled[i * batch : (i + 1) * batch]) for i in range(runs)]
    return {name: np.concatenate([part[name] for part in parts])[: len(images)] for name in parts[0]}


def hold_once(network: str, backend: Backend, folder: Path, spec: ModelSpec) -> None:
    """Before the first use of what was built on this device: does it give what PyTorch gave?

    What is somewhat beyond tolerance is told. Libraries that compile a network wrongly give something else
    altogether: that is refused.

    Raises:
        BackendError: it gives something else, or cannot be run.
        ModelError: an output is missing or has another shape.
    """
    if backend.verified:
        return
    try:
        reference = load_references(folder, spec).get(network)
    except ModelError as error:
        log.warning("%s in %s is used without a comparison: %s", network, backend.name, error)
        return
    if reference is None:
        log.warning("%s in %s is used without a comparison: none is stored", network, backend.name)
        return
    rows = hold(network, backend, reference)
    if network == "locator" and _overlooks(backend, reference):
        raise BackendError(_wrong(network, backend, ["score"]))
    far = [row for row in rows if not row.passed]
    if any(not row.mean <= GROSS * row.allowed[0] for row in far):
        raise BackendError(_wrong(network, backend, [row.output for row in far]))
    if far:
        log.warning("%s in %s is beyond tolerance; run --check tells by how much", network, backend.name)
        return
    backend.mark_verified()


def _overlooks(backend: Backend, reference: References) -> bool:
    """Does a locator overlook the object? Its scores are of a thousand places: the mean would not tell."""
    likely = reference.outputs["score"] >= LIKELY
    if not likely.any():
        return False
    half = reference.outputs["score"][likely].mean() / 2
    return any(
        in_batches(backend, reference.images, batch)["score"][likely].mean() < half
        for batch in (backend.batches or (len(reference.images),))
    )


def _wrong(network: str, backend: Backend, outputs: Sequence[str]) -> str:
    return (
        f"{network} in {backend.precision} gives wrong results in {backend.name} on this {backend.device}"
        f" ({', '.join(dict.fromkeys(outputs))}): do not use it; give another --precision or --backend"
        " onnxruntime, and report the version"
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text, for people."""
    lines = [f"{'network':<13}{'output':<24}{'mean':>10}{'worst':>10}  allowed"]
    for row in rows:
        network = row.network if row.batch is None else f"{row.network} ×{row.batch}"
        verdict = "" if row.passed else "  BEYOND TOLERANCE"
        lines.append(
            f"{network:<13}{row.output:<24}{row.mean:10.1e}{row.worst:10.1e}"
            f"  {row.allowed[0]:.0e} {row.allowed[1]:.0e}{verdict}"
        )
    return "\n".join(lines)
