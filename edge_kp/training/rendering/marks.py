"""Where on the mean face things are painted: lips, brows, lids, cheeks, beard, creases.

Places are vertices of the face model, cm in the face frame; its landmarks say where things are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_kp.training.rendering.model import FaceModel
from edge_kp.training.rendering.raster import vertex_normals
from edge_kp.types import Array


def smooth_step(x: Array, low: Array | float, high: Array | float) -> Array:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


@dataclass(frozen=True, eq=False)
class Marks:
    """How places, vertices or pixels, lie to what is painted; (N,) each, cm on the mean face unless stated.

    Attributes:
        lips: depth inside the outline of the lips, < 0 outside.
        brow, brow_along: height above the middle of the brow, and the place along it from the nose, 0 to 1.
        upper_lid, lower_lid: distance from the edge of the lid.
        flush: 0 to 1, cheeks and nose.
        beard: 0 to 1, where a beard grows.
        crease: how far the skin lies below its surroundings; more is darker.
    """

    lips: Array
    brow: Array
    brow_along: Array
    upper_lid: Array
    lower_lid: Array
    flush: Array
    beard: Array
    crease: Array

    def table(self) -> Array:
        """(N, 8) float32, the attributes in order."""
        return np.column_stack(list(vars(self).values())).astype(np.float32)


UNMARKED = (-1.0, -9.0, 0.0, 9.0, 9.0, 0.0, 0.0, 0.0)  # row of a table of marks, far from all of them


@lru_cache(maxsize=2)
def face_marks(model: FaceModel) -> Marks:
    """Where things are painted, from the landmarks of the mean face."""
    v, at = model.vertices, model.vertices[model.landmarks]
    brow, along, upper, lower = _brows_and_lids(v, at)
    return Marks(
        lips=_lip_depth(v, at),
        brow=brow,
        brow_along=along,
        upper_lid=upper,
        lower_lid=lower,
        flush=_flush(v, at),
        beard=_beard(v, at),
        crease=_crease(model),
    )


def _brows_and_lids(v: Array, at: Array) -> tuple[Array, Array, Array, Array]:
    """``brow``, ``brow_along``, ``upper_lid`` and ``lower_lid`` of :class:`Marks`, (V,) each."""
    front = v[:, 2] > at[27:48, 2].min() - 2.5
    side = np.where(v[:, 0] < 0, 0, 1)
    brow, along = np.full(len(v), -9.0), np.zeros(len(v))
    upper, lower = np.full(len(v), 9.0), np.full(len(v), 9.0)
    # Each side's chains run from the nose outwards.
    chains = (((21, 20, 19, 18, 17), (39, 38, 37, 36), (39, 40, 41, 36)),
              ((22, 23, 24, 25, 26), (42, 43, 44, 45), (42, 47, 46, 45)))  # fmt: skip
    for k, (brow_chain, upper_chain, lower_chain) in enumerate(chains):
        here = front & (side == k)
        near, place = _to_chain(v[here], at[list(brow_chain)])
        brow[here] = np.where(v[here, 1] > near[:, 1], 1, -1) * np.linalg.norm(v[here] - near, axis=1)
        along[here] = place
        for field, chain in ((upper, upper_chain), (lower, lower_chain)):
            field[here] = np.linalg.norm(v[here] - _to_chain(v[here], at[list(chain)])[0], axis=1)
    return brow, along, upper, lower


def _to_chain(points: Array, chain: Array) -> tuple[Array, Array]:
    """Nearest places (P, 3) on a chain of points (K, 3), and how far along it, 0 to 1."""
    a, step = chain[:-1], np.diff(chain, axis=0)
    share = np.einsum("pks,ks->pk", points[:, None] - a, step) / np.maximum((step**2).sum(1), 1e-9)
    share = np.clip(share, 0, 1)
    near = a + share[..., None] * step
    best = ((near - points[:, None]) ** 2).sum(2).argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], (best + share[rows, best]) / len(a)


def _lip_depth(v: Array, at: Array) -> Array:
    """(V,) cm inside the outline of the lips, seen from the front; -1 far outside."""
    outline = at[48:60, :2].astype(np.float32)
    low, high = at[48:68].min(0) - 1, at[48:68].max(0) + 1
    depth = np.full(len(v), -1.0)
    for i in np.flatnonzero(((v > low) & (v < high)).all(1)).tolist():
        depth[i] = cv2.pointPolygonTest(outline, (float(v[i, 0]), float(v[i, 1])), True)
    return depth


def _flush(v: Array, at: Array) -> Array:
    """(V,) 0 to 1: spots about the tip of the nose, both cheeks and the chin."""
    middles = [at[30], *(0.5 * at[i] + 0.5 * at[j] for i, j in ((41, 48), (46, 54))), at[8]]
    spots = [s * np.exp(-(((v - m) ** 2).sum(1)) / (2 * r * r))
             for m, r, s in zip(middles, (1.0, 1.7, 1.7, 1.0), (1, 0.8, 0.8, 0.4), strict=True)]  # fmt: skip
    return np.asarray(np.max(spots, axis=0))


def _beard(v: Array, at: Array) -> Array:
    """(V,) 1 on the upper lip, the chin and the jaw; 0 on the neck and above a line from ear to nose."""
    x = np.abs(v[:, 0])
    line = np.interp(x, [0, 1.6, at[54, 0] + 0.6, at[13, 0], at[16, 0]],
                     at[33, 1] + np.array([-0.15, -0.25, -1.5, 0.0, 3.0]))  # fmt: skip
    below = smooth_step(line - v[:, 1], 0.0, 0.9)
    return below * smooth_step(v[:, 1], at[8, 1] - 2.5, at[8, 1] - 0.5) * smooth_step(v[:, 2], 1.5, 3.5)


def _crease(model: FaceModel) -> Array:
    """(V,) cm that the surface lies below its smoothed self, and more in the nostrils."""
    v, t, at = model.vertices, model.triangles, model.vertices[model.landmarks]
    normals = vertex_normals(v, t)
    below = ((_smoothed(v, t) - v) * normals).sum(1)
    nostrils = [np.exp(-(((v - at[i] - (0, 0.2, -0.2)) ** 2).sum(1)) / 0.12) for i in (32, 34)]
    return below + np.max(nostrils, axis=0) * smooth_step(-normals[:, 1], 0, 0.5)


def _smoothed(v: Array, t: Array) -> Array:
    """(V, 3) each vertex moved, 20 times, to the middle of its neighbours."""
    start, end = t.T.ravel(), np.roll(t, -1, axis=1).T.ravel()
    count = np.maximum(np.bincount(start, minlength=len(v)), 1)[:, None]
    smooth = v.astype(np.float64)
    for _ in range(20):
        sums = [np.bincount(start, smooth[end, k], len(smooth)) for k in range(3)]
        smooth = np.where(count > 1, np.column_stack(sums) / count, smooth)
    return smooth
