"""Do mirrored samples, their pairs of points exchanged, look like the object? And a line that says so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_kp.schema import KeypointSchema, Pair
from edge_kp.types import Array

TURN = 30.0  # degrees by which crops are turned at random where nothing else is said
FAR = 0.5  # distance of two shapes from which on they are unlike: what a turn by 30° beyond the crops' makes
TIMES = 3.0  # and how much farther than to its nearest other a mirrored shape has to be
FEWEST, MOST = 8, 400  # shapes to tell by


def mirrors_into_itself(shapes: Array, flip_index: Array, turn: float = TURN) -> bool:
    """May samples be mirrored: is each then, at some turn that crops are given, a shape like the others?

    An object that stands at an angle ``a`` from upright stands at ``-a`` afterwards. That is as good for
    faces, and for objects that lie at any angle. But one that always lies across is turned by half a circle,
    and one that is seen from one side only becomes a shape that no photo shows.

    Args:
        shapes: (M, N, 2) in any unit, NaN where not labelled.
        turn: degrees by which crops are turned at random.

    Returns:
        True as well where there are too few shapes to tell.
    """
    if len(shapes) < FEWEST:
        return True
    some = shapes[np.unique(np.linspace(0, len(shapes) - 1, MOST).astype(int))].astype(np.float64)
    mirrored = (some * [-1, 1])[:, flip_index]
    among = shape_distances(some, some, math.radians(turn))
    np.fill_diagonal(among, np.inf)
    usual = np.median(among.min(1))
    off = np.median(shape_distances(mirrored, some, math.radians(turn)).min(1))
    return not (FAR < off < np.inf and off > TIMES * usual)


def shape_distances(a: Array, b: Array, turn: float) -> Array:
    """How unlike shapes are, moved and scaled onto one another and turned by at most ``turn`` (radians).

    Args:
        a, b: (A, N, 2) and (B, N, 2) in any unit, NaN where not labelled.

    Returns:
        (A, B) of 0, alike, to 1: what the best fit leaves of a shape of size 1. Infinite where they have
        fewer than two points, or half of those of ``a``, in common.
    """
    first, in_first = _centred(a)
    second, in_second = _centred(b)
    common = in_first @ in_second.T
    count = np.maximum(common, 1)
    # All sums go over the points that both have; as complex numbers, turn and scale are one factor.
    sum_first, sum_second = first @ in_second.T, in_first @ second.T
    size_first = np.abs(first) ** 2 @ in_second.T - np.abs(sum_first) ** 2 / count
    size_second = in_first @ (np.abs(second) ** 2).T - np.abs(sum_second) ** 2 / count
    product = first.conj() @ second.T - sum_first.conj() * sum_second / count
    size = np.sqrt(np.maximum(size_first * size_second, 0))
    usable = (common >= np.maximum(2, in_first.sum(1)[:, None] / 2)) & (size > 1e-9 * np.abs(product))
    match = product / np.where(usable, size, 1)
    away = np.minimum(np.maximum(np.abs(np.angle(match)) - turn, 0), math.pi / 2)
    fit = np.minimum(np.abs(match) * np.cos(away), 1)
    return np.where(usable, np.sqrt(1 - fit**2), np.inf)


def _centred(shapes: Array) -> tuple[Array, Array]:
    """(M, N) complex points about each shape's middle, 0 where not labelled; (M, N) 1.0 where labelled."""
    z = shapes[..., 0] + 1j * shapes[..., 1]
    known = ~np.isnan(z)
    middle = np.where(known, z, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known, z - middle[:, None], 0), known.astype(np.float64)


def about_mirroring(schema: KeypointSchema, pairs_by_name: Sequence[Pair], fits: bool) -> str:
    """A line on whether samples are mirrored, and why not.

    Args:
        pairs_by_name: the pairs that the names of the points tell, where the data name none.
        fits: what :func:`mirrors_into_itself` says of the schema's pairs.
    """
    if not schema.can_flip and not pairs_by_name:
        return "samples are not mirrored: the data name no points that change places then (flip_pairs)"
    pairs = [f"{schema.keypoints[a]}/{schema.keypoints[b]}" for a, b in schema.flip_pairs or pairs_by_name]
    more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
    shown = f"{', '.join(pairs[:3])}{more}"
    if not schema.can_flip:
        return (
            f"samples are not mirrored: with {shown} exchanged they would stand as in no photo, or be no"
            " shape of the object; to mirror them all the same, name flip_pairs"
        )
    line = f"samples are mirrored half of the time; {shown} change places"
    if fits:
        return line
    return (
        f"{line}: warning: so they stand as in no photo, or are no shape of the object; unless both come,"
        ' write "flip_pairs": []'
    )
