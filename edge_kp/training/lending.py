"""The locator of a finished model, for another model of the same object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edge_kp.errors import ModelError
from edge_kp.modeldir import ModelSpec, checked_file, find_model, read_model
from edge_kp.parity import References, load_references
from edge_kp.training.onnx_graph import with_own_weights


@dataclass(frozen=True, eq=False)
class LentLocator:
    """What a model lends.

    Attributes:
        network: its locator in FP32.
        references: pictures, and what PyTorch gave for them.
        spec: description of the borrower, with the locator's part filled in.
        card: data and accuracy of the locator, for people.
    """

    network: onnx.ModelProto
    references: References
    spec: ModelSpec
    card: Any


def lent_locator(lender: Path, spec: ModelSpec) -> LentLocator | None:
    """The locator of a shipped model or model folder; None where ``lender`` is a training run.

    Args:
        spec: of the model that borrows.

    Raises:
        ModelError: the lender has no locator, finds another object, or is no intact model.
    """
    if (lender / "run.json").is_file():
        return None
    folder = find_model(lender)
    lent = read_model(folder)
    if lent.schema != spec.schema or lent.locator != "network":
        finds = (
            "has no locator"
            if lent.locator != "network"
            else f"finds {lent.schema.name}, not {spec.schema.name}"
        )
        raise ModelError(f"--locator {lender}: {finds}; name a model or run of the same object")
    path = checked_file(folder, lent, "locator.fp32.onnx")
    return LentLocator(
        with_own_weights(path),
        load_references(folder, lent)["locator"],
        replace(
            spec, locator="network", locator_size=lent.locator_size, locator_threshold=lent.locator_threshold
        ),
        lent.card.get("locator", {}),
    )
