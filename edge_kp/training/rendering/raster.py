"""A surface of triangles in a picture: its normals, its pixels, what lies behind it.

Projected points are (x, y, depth): pixels, y down, and cm towards the viewer. Only fronts are seen: triangles
whose corners run counter-clockwise in a frame with y up.
"""

from __future__ import annotations

import numpy as np

from edge_kp.types import Array


def vertex_normals(points: Array, triangles: Array) -> Array:
    """(V, 3) float32 unit normals of a surface (V, 3) in a right-handed frame; area weighted."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    (ux, uy, uz), (vx, vy, vz) = (b - a).T, (c - a).T
    face = (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
    corner = triangles.T.ravel()
    total = np.column_stack([np.bincount(corner, np.tile(face[k], 3), len(points)) for k in range(3)])
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9), np.float32)


def rasterise(points: Array, triangles: Array, size: int) -> tuple[Array, Array, Array, Array]:
    """The pixels of a square picture that a surface covers, each with its nearest triangle.

    All triangles of about one size are tested against the pixels of their boxes at once.

    Args:
        points: (V, 3) projected vertices.
        triangles: (T, 3) of them.
        size: side of the picture, pixels.

    Returns:
        Pixels (P,) as flat places in the picture, each once; their triangles (P,); barycentric coordinates
        (3, P) float32 of their centres; depth (P,).
    """
    corners, ids = _fronts(points, triangles)
    low, high = _bounds(corners[:, :2])
    low, high = np.ceil(low).clip(0), np.floor(high).clip(max=size - 1)
    extent = np.where((high >= low).all(0), (high - low).max(0), np.inf)
    found, smallest = [], -1
    for step in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, size):
        chosen = np.flatnonzero((extent > smallest) & (extent < step))
        smallest = step - 1
        found.append(_inside(corners[:, :, chosen], low[:, chosen], chosen, step, size))
    pixel, at, shares = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    depth = sum(shares[k] * corners[k, 2, at] for k in range(3))
    # Of several triangles on a pixel the nearest is written last. Numbers of 16 bits are sorted fastest.
    floor, span = depth.min(initial=np.inf), np.ptp(depth) if len(depth) else 1.0
    order = np.argsort(((depth - floor) * (65535 / max(span, 1e-6))).astype(np.uint16), kind="stable")
    nearest = np.full(size * size, -1, np.int64)
    nearest[pixel[order]] = order
    nearest = nearest[nearest >= 0]
    return pixel[nearest], ids[at[nearest]], shares[:, nearest], depth[nearest]


def _inside(corners: Array, low: Array, ids: Array, step: int, size: int) -> tuple[Array, Array, Array]:
    """Pixels, triangles and barycentric coordinates of triangles whose boxes hold at most step × step pixels.

    Args:
        corners: (3, 3, T); low: (2, T) first column and row of the boxes; ids: (T,) which triangles they are.
    """
    constant, along_x, along_y = _barycentric(corners[:, :2] - low)
    dy, dx = (d.ravel() for d in np.mgrid[:step, :step].astype(np.float32))
    shares = constant[..., None] + along_x[..., None] * dx + along_y[..., None] * dy
    inside = np.minimum(np.minimum(shares[0], shares[1]), shares[2]) >= 0
    chosen = np.flatnonzero(inside)
    row, place = np.divmod(chosen, step * step)
    x, y = low[0, row] + dx[place], low[1, row] + dy[place]
    within = (x < size) & (y < size)
    pixel = (y * size + x).astype(np.int64)
    return pixel[within], ids[row[within]], shares.reshape(3, -1)[:, chosen[within]]


def hidden_points(at: Array, points: Array, triangles: Array) -> Array:
    """(K,) bool: does the front of a surface of triangles lie before the points?

    Args:
        at: (K, 3) projected points.
        points: (V, 3) projected vertices.
        triangles: (T, 3) of them.
    """
    corners = _fronts(points, triangles)[0]
    low, high = _bounds(corners)
    near = high[2] > at[:, 2].min()
    corners, low, high = corners[:, :, near], low[:, near], high[:, near]
    hidden = np.zeros(len(at), bool)
    for i, (x, y, depth) in enumerate(at.astype(np.float32)):
        over = (low[0] <= x) & (high[0] >= x) & (low[1] <= y) & (high[1] >= y) & (high[2] > depth)
        shares, _, _ = _barycentric(corners[:, :2, over] - np.array([[x], [y]]))
        surface = (shares * corners[:, 2, over]).sum(0)
        hidden[i] = bool(((shares >= 0).all(0) & (surface > depth)).any())
    return hidden


def _fronts(points: Array, triangles: Array) -> tuple[Array, Array]:
    """Corners (3, 3, T) float32, corner by coordinate, of the triangles that show their front, and which."""
    flat = np.ascontiguousarray(points.T, np.float32)
    corners = np.stack([flat[:, triangles[:, k]] for k in range(3)])
    (ax, ay), (bx, by), (cx, cy) = corners[:, :2]
    front = np.flatnonzero((cx - ax) * (by - ay) - (bx - ax) * (cy - ay) > 1e-6)
    return corners[:, :, front], front


def _bounds(corners: Array) -> tuple[Array, Array]:
    """Lowest and highest coordinates (3, T) of corners (3, 3, T)."""
    a, b, c = corners
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _barycentric(corners: Array) -> tuple[Array, Array, Array]:
    """Terms (3, T) each of the barycentric coordinates of (x, y): constant + along_x x + along_y y.

    Args:
        corners: (3, 2, T), corner by coordinate.
    """
    x, y = corners[:, 0], corners[:, 1]
    x1, y1, x2, y2 = (np.roll(v, k, axis=0) for k in (-1, -2) for v in (x, y))
    constant = y1 * x2 - x1 * y2
    area = constant.sum(0)
    return constant / area, (y2 - y1) / area, (x1 - x2) / area
