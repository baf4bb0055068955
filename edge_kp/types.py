"""Plain results, free of any backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Detection:
    """One object in one frame.

    Attributes:
        id: number of the object; stable over frames when it comes from a tracker.
        box: (4,) float32 ``[x0, y0, x1, y1]``, tight box of ``keypoints``, frame pixels.
        score: probability in [0, 1] that the object is there.
        keypoints: (N, 2) float32, frame pixels; pixel (0, 0) has its centre at (0, 0).
        visibility: (N,) float32 in [0, 1], probability that the point is not covered.
        attributes: name → probability in [0, 1], e.g. ``{"occlusion": 0.1}``.
    """

    id: int
    box: Array
    score: float
    keypoints: Array
    visibility: Array
    attributes: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.box.shape != (4,):
            raise ValueError(f"box: expected shape (4,), got {self.box.shape}")
        if self.keypoints.ndim != 2 or self.keypoints.shape[1] != 2:
            raise ValueError(f"keypoints: expected shape (N, 2), got {self.keypoints.shape}")
        if self.visibility.shape != (len(self.keypoints),):
            raise ValueError(
                f"visibility: expected shape ({len(self.keypoints)},), got {self.visibility.shape}"
            )

    def to_json(self) -> dict[str, Any]:
        """The detection as plain numbers, ready for ``json.dumps``; pixels with two decimals."""
        return {
            "id": int(self.id),
            "box": [round(float(v), 2) for v in self.box],
            "score": round(float(self.score), 4),
            "keypoints": [[round(float(x), 2), round(float(y), 2)] for x, y in self.keypoints],
            "visibility": [round(float(v), 3) for v in self.visibility],
            "attributes": {name: round(float(v), 3) for name, v in self.attributes.items()},
        }
