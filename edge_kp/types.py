"""Plain results, free of any backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edge_kp.arguments import as_array

Array = npt.NDArray[Any]
T = TypeVar("T")


class Late(Generic[T]):
    """A field of a dataclass that may be given as a function, which is called when it is first read.

    Args:
        default: of the field.
    """

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type | None = None) -> T:
        if instance is None:  # so a dataclass asks for the default
            return self._default
        value = instance.__dict__[self._name]
        if callable(value):
            value = instance.__dict__[self._name] = value()
        found: T = value
        return found

    def __set__(self, instance: object, value: T | Callable[[], T]) -> None:
        instance.__dict__[self._name] = value


@dataclass(frozen=True)
class HeadPose:
    """Direction of a face against the line of sight, in degrees.

    Signs and order of rotations are those of 300W-LP and AFLW2000-3D (Zhu et al. 2016), which HopeNet,
    FSA-Net and 6DRepNet share. With right-handed rotations ``X``, ``Y``, ``Z`` about the axes of the image (x
    right, y up, z towards the viewer), ``rotation = X(-pitch) @ Y(-yaw) @ Z(-roll)``: rolled first, then
    turned, then tilted. Zero is where the face of :mod:`edge_kp.pose` looks straight ahead: people who look
    into a camera have a pitch some 10 degrees below it.

    Attributes:
        yaw: > 0 the face turns towards the left of the image, its own right; from -180 to 180.
        pitch: > 0 the face looks up; from -90 to 90.
        roll: > 0 the head leans clockwise in the image, to its own left shoulder; from -180 to 180.
    """

    yaw: float
    pitch: float
    roll: float

    @property
    def rotation(self) -> Array:
        """(3, 3) float64: face frame → axes of the image (x right, y up, z towards the viewer)."""
        yaw, pitch, roll = (math.radians(angle) for angle in (self.yaw, self.pitch, self.roll))
        cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
        x = (cy * cr, cy * sr, -sy)
        y = (sp * sy * cr - cp * sr, sp * sy * sr + cp * cr, sp * cy)
        return np.array([x, y, np.cross(x, y)])

    @classmethod
    def from_rotation(cls, rotation: Array) -> HeadPose:
        """Inverse of :attr:`rotation`; of the two answers the one with a pitch of at most 90°.

        So a face that turns past its profile goes on to a yaw beyond 90°, where the other answer would stand
        on its head. Near ±90° of yaw, pitch and roll turn about the same axis, and each alone means little.
        """
        (x0, x1, x2), (_, _, y2), (_, _, z2) = rotation.tolist()
        front = math.copysign(1.0, z2)
        return cls(
            yaw=math.degrees(math.atan2(-x2, front * math.hypot(y2, z2))),
            pitch=math.degrees(math.atan2(front * y2, abs(z2))),
            roll=math.degrees(math.atan2(front * x1, front * x0)),
        )


@dataclass(frozen=True, eq=False)
class Detection:
    """One object in one frame; lists of numbers are made arrays.

    Attributes:
        id: number of the object; stable over frames when it comes from a tracker.
        box: (4,) float32 ``[x0, y0, x1, y1]``, tight box of ``keypoints``, frame pixels.
        score: probability in [0, 1] that the object is there.
        keypoints: (N, 2) float32, frame pixels; pixel (0, 0) has its centre at (0, 0).
        visibility: (N,) float32 in [0, 1], probability that the point is not covered.
        attributes: name → probability in [0, 1], e.g. ``{"occlusion": 0.1}``.
        pose: direction of a face; None for other objects, and where too little of the face is visible. A
            detector's is computed when it is first read.

    Raises:
        ValueError: an array of another shape, or what is none.
    """

    id: int
    box: Array
    score: float
    keypoints: Array
    visibility: Array
    attributes: Mapping[str, float] = field(default_factory=dict)
    pose: Late[HeadPose | None] = Late(None)

    def __post_init__(self) -> None:
        for name in ("box", "keypoints", "visibility"):
            object.__setattr__(self, name, as_array(name, getattr(self, name), np.float32))
        if self.box.shape != (4,):
            raise ValueError(f"box: expected shape (4,), got {self.box.shape}")
        if self.keypoints.ndim != 2 or self.keypoints.shape[1] != 2:
            raise ValueError(f"keypoints: expected shape (N, 2), got {self.keypoints.shape}")
        if self.visibility.shape != (len(self.keypoints),):
            raise ValueError(
                f"visibility: expected shape ({len(self.keypoints)},), got {self.visibility.shape}"
            )

    def to_json(self) -> dict[str, Any]:
        """The detection as plain numbers for ``json.dumps``: pixels with two decimals, degrees with one.

        What is not finite is None: JSON knows no such numbers.
        """
        pose = {}
        if self.pose is not None:
            angles = (("yaw", self.pose.yaw), ("pitch", self.pose.pitch), ("roll", self.pose.roll))
            pose = {"pose": {name: _rounded_number(angle, 1) for name, angle in angles}}
        return {
            "id": int(self.id),
            "box": _rounded(self.box, 2),
            "score": _rounded_number(self.score, 4),
            "keypoints": _rounded(self.keypoints, 2),
            "visibility": _rounded(self.visibility, 3),
            "attributes": {name: _rounded_number(v, 3) for name, v in self.attributes.items()},
            **pose,
        }


def _rounded(values: Array, digits: int) -> list[Any]:
    """As lists of numbers, with None for what is not finite."""
    rounded: Array = np.round(np.asarray(values, np.float64), digits)
    finite = np.isfinite(rounded)
    if not finite.all():
        rounded = rounded.astype(object)
        rounded[~finite] = None
    return list(rounded.tolist())


def _rounded_number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None
