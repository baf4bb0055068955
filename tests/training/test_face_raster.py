"""Surfaces in a picture: exact pixels, the nearest triangle, what lies behind."""

from __future__ import annotations

import numpy as np
from small_head import ball

from edge_kp.training.rendering.raster import hidden_points, rasterise, vertex_normals


def test_normals_of_a_ball_point_outwards() -> None:
    points, triangles = ball((1, 2, 3), (5, 5, 5), 40)
    normals = vertex_normals(points, triangles)
    middle = slice(40 * 5, -40 * 5)  # the poles are cut off
    assert np.allclose(normals[middle], ((points - (1, 2, 3)) / 5)[middle], atol=0.05)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_rasterise_takes_the_nearest_triangle_and_exact_pixels() -> None:
    points = np.array(
        [[1, 1, 0], [1, 5, 0], [5, 1, 0], [0, 0, 3], [0, 2, 3], [2, 0, 3], [90, 0, 0], [-9, 2, 0.0]]
    )
    triangles = np.array([[0, 1, 2], [3, 4, 5], [0, 2, 1], [6, 7, 0]])  # the third shows its back
    pixel, triangle, shares, depth = rasterise(points, triangles[:3], 8)
    seen = np.full((8, 8), -1)
    seen.ravel()[pixel] = triangle
    expected = np.full((8, 8), -1)
    for y, x in np.ndindex(8, 8):
        if x >= 1 and y >= 1 and x + y <= 6:
            expected[y, x] = 0
        if x + y <= 2:
            expected[y, x] = 1
    assert np.array_equal(seen, expected)
    assert np.allclose(shares.sum(0), 1, atol=1e-5)
    assert np.allclose(depth, np.where(triangle == 1, 3, 0), atol=1e-5)
    cut = rasterise(points, triangles, 8)[0]
    assert cut.min() >= 0
    assert cut.max() < 64


def test_an_empty_surface_covers_nothing() -> None:
    assert len(rasterise(np.zeros((3, 3)), np.array([[0, 1, 2]]), 8)[0]) == 0


def test_a_surface_hides_what_lies_behind_it() -> None:
    points = np.array([[0, 0, 5], [0, 10, 5], [10, 0, 5.0]])
    at = np.array([[2, 2, 0], [2, 2, 4.8], [2, 2, 6], [8, 8, 0], [20, 2, 0.0]])
    assert hidden_points(at, points, np.array([[0, 1, 2]])).tolist() == [True, True, False, False, False]
    assert not hidden_points(at, points, np.array([[0, 2, 1]])).any()  # its back
