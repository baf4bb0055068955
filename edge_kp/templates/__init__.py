"""The shape prior: a bank of keypoint templates, clustered from aligned training shapes."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_kp.errors import DataError, ModelError
from edge_kp.files import parse_json, read_arrays, replacing
from edge_kp.metrics import nme
from edge_kp.schema import KeypointSchema
from edge_kp.templates.clustering import CHUNK, kmeans, loneliness, principal_components
from edge_kp.types import Array

SHAPE_EXTENT = 0.66  # longer side of the mean shape's tight box in crop coordinates


@dataclass(frozen=True, eq=False)
class TemplateBank:
    """K shapes that the network mixes, and the canonical shape that crops are aligned to.

    Attributes:
        schema: what the N points are.
        templates: (K, N, 2) float32, crop coordinates in [0, 1].
        mean_shape: (N, 2) float32, crop coordinates; stage 2 crops so that keypoints land on it.

    Raises:
        ValueError: an array of another shape or type, or with values that are not finite.
    """

    schema: KeypointSchema
    templates: Array
    mean_shape: Array

    def __post_init__(self) -> None:
        n = len(self.schema)
        if self.templates.ndim != 3 or self.templates.shape[1:] != (n, 2) or not len(self.templates):
            raise ValueError(f"templates: expected shape (K, {n}, 2), got {self.templates.shape}")
        if self.mean_shape.shape != (n, 2):
            raise ValueError(f"mean_shape: expected shape ({n}, 2), got {self.mean_shape.shape}")
        for what, array in (("templates", self.templates), ("mean_shape", self.mean_shape)):
            if array.dtype != np.float32:
                raise ValueError(f"{what}: expected float32, got {array.dtype}")
            if not np.isfinite(array).all():
                raise ValueError(f"{what}: expected finite values, got NaN or infinity")

    def __len__(self) -> int:
        return len(self.templates)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the templates and the mean shape: the same bank, the same digest."""
        return hashlib.sha256(self.templates.tobytes() + self.mean_shape.tobytes()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank as ``.npz``; a reader never sees half a file."""
        schema = np.array(json.dumps(self.schema.to_json()))
        with replacing(Path(path)) as part, part.open("wb") as file:
            np.savez(file, schema=schema, templates=self.templates, mean_shape=self.mean_shape)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TemplateBank:
        """Inverse of :meth:`save`.

        Raises:
            ModelError: the file is missing, damaged, or no template bank.
        """
        build = "build one with `python -m edge_kp.templates --data … --out bank.npz`"
        try:
            arrays = read_arrays(path)
            schema = KeypointSchema.from_json(parse_json(str(arrays["schema"])))
            return cls(schema, arrays["templates"], arrays["mean_shape"])
        except FileNotFoundError:
            raise ModelError(f"{path}: no such template bank; {build}") from None
        except (ValueError, KeyError) as e:
            reason = " ".join(str(e).split())
            raise ModelError(f"{path}: not a template bank or damaged ({reason}); {build}") from e


def align_shapes(shapes: Array) -> tuple[Array, Array]:
    """Bring shapes to one position, size and turn: generalised Procrustes analysis (Gower 1975).

    The mean keeps the average in-plane turn of the data, so an upright object stays upright; its tight box is
    centred at (0.5, 0.5) and its longer side measures ``SHAPE_EXTENT``.

    Args:
        shapes: (M, N, 2) in any unit, e.g. frame pixels. NaN where a point is not labelled.

    Returns:
        (M, N, 2) float64 shapes in crop coordinates, without NaN: unlabelled points are filled in from the
        principal components of all shapes. And the (N, 2) float64 mean shape in crop coordinates.

    Raises:
        ValueError: wrong array shape, or a shape with fewer than two distinct labelled points.
    """
    if shapes.ndim != 3 or shapes.shape[2] != 2 or not len(shapes):
        raise ValueError(f"expected shapes (M, N, 2), got {shapes.shape}")
    # As complex numbers, turn and scale are one factor, so all M shapes are fitted at once.
    z = shapes[..., 0].astype(np.float64) + 1j * shapes[..., 1]
    known = ~np.isnan(z)
    if not known.any(0).all():
        raise ValueError(f"points {np.flatnonzero(~known.any(0)).tolist()} are labelled in no shape")
    centred = np.where(known, z, 0)
    centred -= _row_mean(centred, known)[:, None]
    centred[~known] = 0
    size = np.sqrt((np.abs(centred) ** 2).sum(1) / np.maximum(known.sum(1), 1))
    if not (size > 0).all():
        bad = int(np.flatnonzero(~(size > 0))[0])
        raise ValueError(f"shape {bad} has fewer than two distinct labelled points")

    mean = np.where(known, centred / size[:, None], 0)[known.sum(1).argmax()]
    for _ in range(100):
        factor, aligned = _fit(centred, known, mean)
        new = aligned.sum(0) / known.sum(0)
        new -= new.mean()
        new /= np.sqrt((np.abs(new) ** 2).mean())  # else every fit would shrink the mean a little
        change = np.abs(new - mean).max()
        mean = new
        if change < 1e-7:
            break
    factor, _ = _fit(centred, known, mean)
    upright = np.mean(factor.conj() / np.abs(factor))
    mean *= upright / abs(upright)

    points = np.stack([mean.real, mean.imag], -1)
    low, high = points.min(0), points.max(0)
    scale = SHAPE_EXTENT / (high - low).max()
    centre = complex(*(low + high) / 2)
    mean = (mean - centre) * scale + (0.5 + 0.5j)
    _, aligned = _fit(centred, known, mean)
    aligned = _fill(aligned, known, mean)
    return np.stack([aligned.real, aligned.imag], -1), np.stack([mean.real, mean.imag], -1)


def _row_mean(z: Array, known: Array) -> Array:
    return np.asarray(np.where(known, z, 0).sum(1) / np.maximum(known.sum(1), 1))


def _fit(centred: Array, known: Array, mean: Array) -> tuple[Array, Array]:
    """Least-squares similarity of each row onto ``mean``; (M,) complex factors and (M, N) moved points.

    ``centred`` has mean 0 over the known points of each row, and 0 at unknown points; so have the results.
    """
    middle = _row_mean(np.broadcast_to(mean, centred.shape), known)
    factor = (centred.conj() @ mean) / (np.abs(centred) ** 2).sum(1)
    return factor, np.where(known, factor[:, None] * centred + middle[:, None], 0)


def _fill(aligned: Array, known: Array, mean: Array) -> Array:
    """Replace unknown points by what the principal components say, starting from the mean.

    Iterated low-rank imputation (Mazumder, Hastie, Tibshirani 2010, with the rank fixed).
    """
    aligned = np.where(known, aligned, mean)
    if known.all():
        return aligned
    for _ in range(20):
        flat = np.concatenate([aligned.real, aligned.imag], 1)
        middle = flat.mean(0)
        basis = principal_components(flat - middle, 0.95, 12)
        guess = (flat - middle) @ basis @ basis.T + middle
        real, imag = np.split(guess, 2, axis=1)
        aligned = np.where(known, aligned, real + 1j * imag)
    return aligned


def usable_shapes(schema: KeypointSchema, shapes: Array, k: int) -> Array:
    """Those with at least half of their points labelled, (M, N, 2); raises as :func:`build_bank` does."""
    n = len(schema)
    if shapes.ndim != 3 or shapes.shape[1:] != (n, 2):
        raise ValueError(f"shapes: expected (M, {n}, 2), got {shapes.shape}")
    labelled = ~np.isnan(shapes).any(2)
    shapes = shapes[labelled.sum(1) >= max(2, n / 2)]
    if not 1 <= k <= len(shapes):
        raise DataError(f"{k} templates from {len(shapes)} usable shapes: choose k between 1 and that number")
    absent = np.flatnonzero(np.isnan(shapes).any(2).all(0))
    if len(absent):
        names = ", ".join(schema.keypoints[i] for i in absent)
        raise DataError(f"no usable shape has these points labelled: {names}; label some or drop the points")
    return shapes


def build_bank(schema: KeypointSchema, shapes: Array, k: int, seed: int = 0) -> TemplateBank:
    """Cluster shapes into ``k`` templates.

    Weighted k-means on principal components, with k-means++ seeding (Arthur, Vassilvitskii 2007).

    A shape weighs the more the lonelier it is, so that rare poses get templates of their own; one unlike any
    other is taken for a faulty label and left out. Where the schema can flip, every shape counts in its
    mirrored form too and the mean shape is mirror symmetric. Templates are sorted along the first principal
    component, which for faces is the turn of the head.

    Args:
        shapes: (M, N, 2) keypoints in frame pixels, NaN where not labelled. A shape with fewer than half of
            its points labelled is left out.

    Raises:
        DataError: fewer usable shapes than templates, ``k`` is not positive, or a point is never labelled.
        ValueError: shapes do not fit the schema, or all points of one coincide.
    """
    shapes = usable_shapes(schema, shapes, k)
    if schema.can_flip:
        shapes = np.concatenate([shapes, (shapes * [-1, 1])[:, schema.flip_index]])
    aligned, mean = align_shapes(shapes)
    if schema.can_flip:  # exact, where the iteration left rounding
        mean = (mean + (mean * [-1, 1] + [1, 0])[schema.flip_index]) / 2

    flat = aligned.reshape(len(aligned), -1)
    middle = flat.mean(0)
    basis = principal_components(flat - middle, 0.98, 24)
    reduced = (flat - middle) @ basis
    weights = loneliness(reduced)
    if np.count_nonzero(weights) < k:
        weights[:] = 1
    flat, reduced, weights = flat[weights > 0], reduced[weights > 0], weights[weights > 0]
    labels = kmeans(reduced, weights, k, np.random.default_rng(seed))
    member = (labels == np.arange(k)[:, None]) * weights
    templates = member @ flat / member.sum(1, keepdims=True)
    order = np.argsort((templates - middle) @ basis[:, 0])
    templates = templates[order].reshape(k, len(schema), 2)
    return TemplateBank(schema, templates.astype(np.float32), mean.astype(np.float32))


def mixture_weights(bank: TemplateBank, aligned: Array, steps: int = 300) -> Array:
    """Probabilities over the templates whose mixture comes nearest to each shape (least squares).

    Accelerated projected gradient (Beck, Teboulle 2009) on the simplex.

    Args:
        aligned: (M, N, 2) shapes in crop coordinates; NaN points do not count.

    Returns:
        (M, K) float64, rows non-negative with sum 1.
    """
    # Moving the origin to the mean changes no mixture (rows sum to 1) and conditions the problem well.
    atoms = (bank.templates - bank.mean_shape).reshape(len(bank), -1).astype(np.float64)
    target = (aligned - bank.mean_shape).reshape(len(aligned), -1)
    step = 1 / max(float(np.linalg.eigvalsh(atoms @ atoms.T)[-1]), 1e-12)
    result = np.empty((len(target), len(atoms)))
    for i in range(0, len(target), CHUNK):
        wanted = np.nan_to_num(target[i : i + CHUNK])
        known = ~np.isnan(target[i : i + CHUNK])
        p = look = np.full((len(wanted), len(atoms)), 1 / len(atoms))
        momentum = 1.0
        for _ in range(steps):
            new = _project_to_simplex(look - step * (((look @ atoms - wanted) * known) @ atoms.T))
            next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            look = new + (momentum - 1) / next_momentum * (new - p)
            p, momentum = new, next_momentum
        result[i : i + CHUNK] = p
    return result


def _project_to_simplex(rows: Array) -> Array:
    """Nearest point with non-negative entries of sum 1, for each row (Duchi et al. 2008, figure 1)."""
    falling = -np.sort(-rows, axis=1)
    excess = (np.cumsum(falling, axis=1) - 1) / np.arange(1, rows.shape[1] + 1)
    kept = (falling > excess).sum(1)
    return np.asarray(np.maximum(rows - excess[np.arange(len(rows)), kept - 1][:, None], 0))


def align_to_mean(bank: TemplateBank, shapes: Array) -> Array:
    """Each shape moved, turned and scaled onto the bank's mean shape.

    Args:
        shapes: (M, N, 2) in any unit; NaN points do not count and stay NaN.

    Returns:
        (M, N, 2) float64 crop coordinates; all NaN for a shape without two distinct labelled points.
    """
    z = shapes[..., 0].astype(np.float64) + 1j * shapes[..., 1]
    known = ~np.isnan(z)
    centred = np.where(known, z - _row_mean(z, known)[:, None], 0)
    usable = (np.abs(centred) ** 2).sum(1) > 0
    mean = bank.mean_shape[:, 0].astype(np.float64) + 1j * bank.mean_shape[:, 1]
    moved = np.full(z.shape, np.nan + 1j * np.nan)
    moved[usable] = _fit(centred[usable], known[usable], mean)[1]
    moved[~known] = np.nan + 1j * np.nan
    return np.stack([moved.real, moved.imag], -1)


def nearest_template(bank: TemplateBank, aligned: Array) -> Array:
    """(M,) number of the template nearest to each aligned (M, N, 2) shape, by mean point distance."""
    result = np.zeros(len(aligned), np.int64)
    chunk = max(1, CHUNK // len(bank))
    for i in range(0, len(aligned), chunk):
        distance = np.linalg.norm(aligned[i : i + chunk, None] - bank.templates, axis=-1)
        result[i : i + chunk] = np.nansum(distance, axis=2).argmin(1)
    return result


def reconstruction_error(bank: TemplateBank, shapes: Array) -> tuple[Array, Array]:
    """How well the bank can say each shape, once the shape is aligned to the mean.

    Args:
        shapes: (M, N, 2) in any unit, NaN where not labelled.

    Returns:
        Two (M,) arrays, fractions of the reference distance: error of the nearest single template, and of
        the best mixture. NaN where a reference point is not labelled.
    """
    aligned = align_to_mean(bank, shapes)
    single = bank.templates[nearest_template(bank, aligned)]
    n = len(bank.schema)
    mixed = (mixture_weights(bank, aligned) @ bank.templates.reshape(len(bank), -1)).reshape(-1, n, 2)
    return nme(single, aligned, bank.schema), nme(mixed, aligned, bank.schema)
