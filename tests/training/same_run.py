"""Are two training runs the same, to the last bit?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edge_kp.training.checkpoints import load_checkpoint


def same_run(a: Path, b: Path) -> None:
    """Every weight, optimiser state and logged figure of two runs is the same, to the last bit."""
    for name in ("best.pt", "last.pt"):
        first, second = load_checkpoint(a / name), load_checkpoint(b / name)
        assert flat(first).keys() == flat(second).keys()
        for key, value in flat(first).items():
            other = flat(second)[key]
            equal = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert equal, f"{name}: {key} differs"
    assert (a / "log.csv").read_text() == (b / "log.csv").read_text()


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, part in enumerate(value) for k, v in flat(part, f"{name}/{i}").items()}
    return {name: value}
