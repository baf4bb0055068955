"""What of a scene is seen at each pixel: the head with its hair, and what hangs from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_kp.training.rendering.light import shadows
from edge_kp.training.rendering.look import Look, hair_share
from edge_kp.training.rendering.marks import UNMARKED, Marks, face_marks
from edge_kp.training.rendering.model import EYE_SOCKETS, HEAD, FaceModel
from edge_kp.training.rendering.raster import rasterise, vertex_normals
from edge_kp.training.rendering.scene import SIZE, Scene
from edge_kp.training.rendering.worn import HANGING, sheet_triangles
from edge_kp.types import Array

FINE = 2  # pictures are drawn at so many times their size, then reduced


@dataclass(frozen=True, eq=False)
class Surface:
    """What is seen at P pixels of the fine picture.

    Attributes:
        pixel: (P,) flat place; depth: (P,) cm towards the viewer.
        part: (P,) place in ``PARTS``, or ``HANGING``, ``PEAK``.
        rest: (P, 3) cm on the mean face, of worn things in the face frame.
        normal: (P, 3) unit, axes of the image; marks: (P,) each.
        shadow: (L, P) share of each light that arrives.
    """

    pixel: Array
    depth: Array
    part: Array
    rest: Array
    normal: Array
    marks: Marks
    shadow: Array


class _Mesh(NamedTuple):
    """Triangles with what is known at their corners.

    Attributes:
        points: (V, 3) float32 projected, frame pixels and cm; triangles: (T, 3).
        part: (V,) see :class:`Surface`.
        table: (V, 14 + L): rest, normal and marks; share of each light that arrives.
    """

    points: Array
    triangles: Array
    part: Array
    table: Array


def seen(model: FaceModel, scene: Scene, look: Look, lights: Array) -> Surface:
    """Rasterise the head with its hair and what hangs from it; lights (L, 6) as of ``random_lights``."""
    head = _head_mesh(model, scene, look, lights)
    sheets = (_sheet_mesh(scene, kind, sheet, len(lights)) for kind, sheet in scene.worn.sheets)
    mesh = _joined([head, *sheets])
    pixel, triangle, shares, depth = rasterise(fine_pixels(mesh.points), mesh.triangles, FINE * SIZE)
    corners, table = mesh.triangles[triangle], mesh.table.astype(np.float32)
    at = shares[0, :, None] * table[corners[:, 0]]
    for k in (1, 2):
        at += shares[k, :, None] * table[corners[:, k]]
    part = mesh.part[corners[:, 0]]
    normal = at[:, 3:6] / np.maximum(np.linalg.norm(at[:, 3:6], axis=1, keepdims=True), 1e-6)
    normal[(part >= HANGING) & (normal[:, 2] < 0)] *= -1  # of a sheet the side that is seen
    return Surface(pixel, depth, part, at[:, :3], normal, Marks(*at[:, 6:14].T), at[:, 14:].T)


def _head_mesh(model: FaceModel, scene: Scene, look: Look, lights: Array) -> _Mesh:
    """The head, as much larger as its hair is deep."""
    hair = hair_share(model.vertices, look.hairline, 0.0) * (model.part <= HEAD)
    outwards = vertex_normals(scene.shape, model.triangles)
    placed = scene.placed(model, scene.shape + (look.hair_depth * hair)[:, None] * outwards)
    normals = vertex_normals(placed, model.triangles)
    shadow = np.column_stack([shadows(placed, model, light[:3]) for light in lights])
    table = np.column_stack([model.vertices, normals, face_marks(model).table(), shadow])
    triangles = model.triangles[(model.part[model.triangles] != EYE_SOCKETS).all(1)]
    return _Mesh(scene.project(placed), triangles, model.part, table)


def _sheet_mesh(scene: Scene, kind: int, sheet: Array, lights: int) -> _Mesh:
    """Both sides of a worn sheet (R, C, 3), in the full light of so many lights."""
    rest, triangles = sheet.reshape(-1, 3), sheet_triangles(*sheet.shape[:2])
    placed = scene.attached(rest)
    normals = vertex_normals(placed, triangles[: len(triangles) // 2])
    plain = np.tile(UNMARKED + (1.0,) * lights, (len(rest), 1))
    part = np.full(len(rest), kind, np.uint8)
    return _Mesh(scene.project(placed), triangles, part, np.column_stack([rest, normals, plain]))


def _joined(meshes: Sequence[_Mesh]) -> _Mesh:
    """Meshes as one; triangles point into all their points."""
    first = np.cumsum([0] + [len(mesh.points) for mesh in meshes[:-1]])
    triangles = [mesh.triangles + start for mesh, start in zip(meshes, first.tolist(), strict=True)]
    return _Mesh(
        points=np.concatenate([mesh.points for mesh in meshes]),
        triangles=np.concatenate(triangles),
        part=np.concatenate([mesh.part for mesh in meshes]),
        table=np.concatenate([mesh.table for mesh in meshes]),
    )


def fine_pixels(points: Array) -> Array:
    """Projected points in pixels of the fine picture."""
    return np.asarray(points * (FINE, FINE, 1) + ((FINE - 1) / 2, (FINE - 1) / 2, 0), np.float32)
