"""When one look at an object is enough, and when a turned look counts: a model's own scores decide that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LookRules:
    """Rules that are measured when a model is trained. The defaults are those of ``face68``.

    Distances are root mean squares of the canonical points, in sides of the crop.

    Attributes:
        certain: score from which the first look is enough,
        placed: if that look moved the crop by no more.
        settled: by how much the last of several looks may move the crop.
        turned: score that an object must reach that is not upright, or was not found upright; from 1 on
            nothing is looked at turned.
        doubted: score that the stages must give to what lies in a box that the locator doubts; from 1 on
            nothing in such boxes is looked at.
    """

    certain: float = 0.995
    placed: float = 0.018
    settled: float = 0.015
    turned: float = 0.9999
    doubted: float = 0.98

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"looks: {name}: expected a number from 0 to 1, got {str(value)[:80]}")

    def to_json(self) -> dict[str, float]:
        """The content of ``looks`` in ``model.json``, as :meth:`from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LookRules:
        """Inverse of :meth:`to_json`; what is missing has its default.

        Raises:
            ValueError: no rules, or a value that no rule can have.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"looks: expected rules by their names, got {str(data)[:80]!r}")
        known = asdict(cls())
        for name, value in data.items():
            if name not in known:
                raise ValueError(f"looks: {str(name)[:80]!r} is none of {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"looks: {name}: expected a number from 0 to 1, got {str(value)[:80]!r}")
        return cls(**data)
