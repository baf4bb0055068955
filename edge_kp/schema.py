"""What the keypoints of an object are: names, mirror pairs, edges to draw, and the two reference points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from edge_kp.types import Array

Pair = tuple[int, int]
MOST_KEYPOINTS = 4096


@dataclass(frozen=True)
class KeypointSchema:
    """The keypoints of one kind of object.

    Attributes:
        name: short name, e.g. ``face68``.
        keypoints: N names, in the order of every (N, 2) array.
        flip_pairs: index pairs that swap when the image is mirrored; points in no pair map to themselves.
            A schema without pairs is never mirrored in training.
        edges: index pairs joined by a line in overlays.
        reference: the two points whose distance normalises errors (face68: outer eye corners).

    Raises:
        ValueError: an index out of range, a point in two pairs, equal reference points, names that are no
            texts or not different, or fewer than 2 or more of them than
            :data:`edge_kp.schema.MOST_KEYPOINTS`.
    """

    name: str
    keypoints: tuple[str, ...]
    flip_pairs: tuple[Pair, ...]
    edges: tuple[Pair, ...]
    reference: Pair

    def __post_init__(self) -> None:
        n = len(self.keypoints)
        if not 2 <= n <= MOST_KEYPOINTS:
            raise ValueError(f"schema {self.name!r}: expected 2 to {MOST_KEYPOINTS} keypoints, got {n}")
        if not all(isinstance(name, str) for name in self.keypoints) or len(set(self.keypoints)) < n:
            raise ValueError(f"schema {self.name!r}: expected a name of its own for each keypoint")
        for what, pairs in (
            ("flip_pairs", self.flip_pairs),
            ("edges", self.edges),
            ("reference", (self.reference,)),
        ):
            for a, b in pairs:
                if not (0 <= a < n and 0 <= b < n) or a == b:
                    raise ValueError(f"schema {self.name!r}: {what} {a, b} is no pair of its {n} points")
        flat = [i for pair in self.flip_pairs for i in pair]
        if len(flat) != len(set(flat)):
            raise ValueError(f"schema {self.name!r}: a point stands in two flip pairs")

    def __len__(self) -> int:
        return len(self.keypoints)

    @cached_property
    def flip_index(self) -> Array:
        """(N,) int64: ``mirrored_points = points[flip_index]`` after x has been mirrored."""
        index = np.arange(len(self))
        for a, b in self.flip_pairs:
            index[a], index[b] = b, a
        return index

    @property
    def can_flip(self) -> bool:
        """True where a mirrored object is again such an object."""
        return bool(self.flip_pairs)

    def reference_distance(self, keypoints: Array) -> Array:
        """Distance between the reference points. (..., N, 2) → (...), in the unit of ``keypoints``."""
        a, b = self.reference
        return np.asarray(np.linalg.norm(keypoints[..., a, :] - keypoints[..., b, :], axis=-1))

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``model.json``, as :meth:`from_json` reads them."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "flip_pairs": [list(p) for p in self.flip_pairs],
            "edges": [list(p) for p in self.edges],
            "reference": list(self.reference),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KeypointSchema:
        """Inverse of :meth:`to_json`.

        Raises:
            ValueError: a field is missing or of the wrong form.
        """
        try:
            return cls(
                name=str(data["name"]),
                keypoints=tuple(data["keypoints"]),
                flip_pairs=tuple((int(a), int(b)) for a, b in data["flip_pairs"]),
                edges=tuple((int(a), int(b)) for a, b in data["edges"]),
                reference=(int(data["reference"][0]), int(data["reference"][1])),
            )
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"keypoint schema: {type(error).__name__} {error}") from error


def differing(one: KeypointSchema, other: KeypointSchema) -> list[str]:
    """Names of the fields in which two schemas differ."""
    return [f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)]


def pairs_from_names(names: Sequence[str]) -> tuple[Pair, ...]:
    """Flip pairs of names that become each other when left and right (or the words l and r) are swapped."""
    swap = {"left": "right", "right": "left", "l": "r", "r": "l"}

    def mirrored(name: str) -> str:
        whole_words = re.sub(r"(?<![a-z])[lr](?![a-z])", lambda m: swap[m[0]], name)
        return re.sub("left|right", lambda m: swap[m[0]], whole_words)

    index = {name.lower(): i for i, name in enumerate(names)}
    if len(index) < len(names):
        return ()  # names that differ in case alone say nothing reliable
    partners = ((i, index.get(mirrored(name))) for name, i in index.items())
    return tuple((i, j) for i, j in partners if j is not None and i < j)


def _chain(first: int, last: int, closed: bool = False) -> list[Pair]:
    edges = [(i, i + 1) for i in range(first, last)]
    return [*edges, (last, first)] if closed else edges


def _names(*parts: tuple[str, int]) -> tuple[str, ...]:
    return tuple(f"{part}_{i}" for part, count in parts for i in range(count))


FACE68 = KeypointSchema(
    name="face68",
    keypoints=_names(
        ("jaw", 17),
        *(("left_brow", 5), ("right_brow", 5), ("nose_bridge", 4), ("nose_base", 5)),
        *(("left_eye", 6), ("right_eye", 6), ("outer_lip", 12), ("inner_lip", 8)),
    ),
    flip_pairs=(
        *[(i, 16 - i) for i in range(8)],
        *[(17 + i, 26 - i) for i in range(5)],
        *[(31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)],
        *[(48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65)],
    ),
    edges=(
        *_chain(0, 16),
        *_chain(17, 21),
        *_chain(22, 26),
        *_chain(27, 30),
        *_chain(31, 35),
        *_chain(36, 41, closed=True),
        *_chain(42, 47, closed=True),
        *_chain(48, 59, closed=True),
        *_chain(60, 67, closed=True),
    ),
    reference=(36, 45),
)
"""300-W / iBUG layout (Sagonas et al. 2013), 0-based. "left" is the left side of the image."""

FACE98 = KeypointSchema(
    name="face98",
    keypoints=(
        *_names(
            ("jaw", 33),
            *(("left_brow", 9), ("right_brow", 9), ("nose_bridge", 4), ("nose_base", 5)),
            *(("left_eye", 8), ("right_eye", 8), ("outer_lip", 12), ("inner_lip", 8)),
        ),
        "left_pupil",
        "right_pupil",
    ),
    flip_pairs=(
        *[(i, 32 - i) for i in range(16)],
        *[(33 + i, 46 - i) for i in range(5)],
        *[(38 + i, 50 - i) for i in range(4)],
        *[(55, 59), (56, 58)],
        *[(60 + i, 72 - i) for i in range(5)],
        *[(65 + i, 75 - i) for i in range(3)],
        *[(76, 82), (77, 81), (78, 80), (87, 83), (86, 84), (88, 92), (89, 91), (95, 93), (96, 97)],
    ),
    edges=(
        *_chain(0, 32),
        *_chain(33, 41, closed=True),
        *_chain(42, 50, closed=True),
        *_chain(51, 54),
        *_chain(55, 59),
        *_chain(60, 67, closed=True),
        *_chain(68, 75, closed=True),
        *_chain(76, 87, closed=True),
        *_chain(88, 95, closed=True),
    ),
    reference=(60, 72),
)
"""WFLW layout (Wu et al. 2018, Look at Boundary), 0-based."""

BUILT_IN: Mapping[str, KeypointSchema] = {s.name: s for s in (FACE68, FACE98)}
"""The schemas that come with the package, by name."""
