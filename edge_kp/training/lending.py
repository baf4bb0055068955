"""The locator of a model: trained with it, by another run, or taken from a finished model of its object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edge_kp.errors import ModelError
from edge_kp.modeldir import ModelSpec, checked_file, find_model, read_model
from edge_kp.parity import References, load_references
from edge_kp.schema import KeypointSchema
from edge_kp.templates import TemplateBank
from edge_kp.training.finder import CHECK_FRAMES, LOCATOR_FIGURES
from edge_kp.training.finished import check_images, data_names, read_figures, threshold_of
from edge_kp.training.locating import ExportLocator, load_locator
from edge_kp.training.onnx_graph import settled, with_own_weights
from edge_kp.training.recipe import Recipe
from edge_kp.types import Array


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


@dataclass(frozen=True, eq=False)
class TrainedLocator:
    """What a run has trained.

    Attributes:
        net: as it is exported.
        images: uint8 (M, S, S, 3) held-back pictures to check it with.
        spec: description of the model that gets it, with the locator's part filled in.
        card: data and accuracy of the locator, for people.
    """

    net: ExportLocator
    images: Array
    spec: ModelSpec
    card: Any


def locator_of(run: Path, locator: Path | None, spec: ModelSpec) -> LentLocator | TrainedLocator | None:
    """The locator for a run's model: of the run or model that is named, else the run's own; None for none.

    Raises:
        ModelError: there is none where it should be, or it finds another object.
    """
    if locator is None:
        return trained_locator(run, spec) if (run / LOCATOR_FIGURES).exists() else None
    return lent_locator(locator, spec) or trained_locator(locator, spec)


def trained_locator(finder: Path, spec: ModelSpec) -> TrainedLocator:
    """The locator of a run.

    Args:
        spec: of the model that gets it.

    Raises:
        ModelError: it is not trained to its end, or finds another object.
    """
    figures = read_figures(finder / LOCATOR_FIGURES)
    # A run of an older version does not say the object, one of a locator alone not the keypoints.
    templates = finder / "templates.npz"
    keypoints = TemplateBank.load(templates).schema.keypoints if templates.exists() else None
    check_object(finder, spec.schema, str(figures.get("object", spec.schema.name)), keypoints)
    net = settled(load_locator(finder / "locator" / "best.pt"))
    images = check_images(finder / CHECK_FRAMES, ("locator",))["locator"]
    card = {"data": data_names(Recipe.read(finder / "run.json").data), "accuracy": figures}
    threshold = threshold_of(finder / LOCATOR_FIGURES, figures)
    spec = replace(spec, locator="network", locator_size=net.config.size, locator_threshold=threshold)
    return TrainedLocator(ExportLocator(net), images, spec, card)


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
    if lent.locator != "network":
        raise ModelError(f"--locator {lender}: has no locator; name a model or run of the same object")
    check_object(lender, spec.schema, lent.schema.name, lent.schema.keypoints)
    path = checked_file(folder, lent, "locator.fp32.onnx")
    return LentLocator(
        with_own_weights(path),
        load_references(folder, lent)["locator"],
        replace(
            spec, locator="network", locator_size=lent.locator_size, locator_threshold=lent.locator_threshold
        ),
        lent.card.get("locator", {}),
    )


def check_object(
    lender: Path, schema: KeypointSchema, name: str, keypoints: Sequence[str] | None = None
) -> None:
    """Is a locator's object that of a schema? Its edges, and by what errors are measured, do not matter.

    Args:
        name: the schema's name of the locator's object.
        keypoints: names of its keypoints, where they are known.

    Raises:
        ModelError: it is another object; the message says in what.
    """
    differs = ""
    if name != schema.name:
        differs = f"finds {name}, not {schema.name}"
    elif keypoints is not None and len(keypoints) != len(schema):
        differs = f"finds {name} of {len(keypoints)} keypoints, not of {len(schema)}"
    elif keypoints is not None and (
        other := [pair for pair in zip(keypoints, schema.keypoints, strict=True) if pair[0] != pair[1]]
    ):
        differs = f"finds {name} with a keypoint {other[0][0][:40]!r}, where the run has {other[0][1][:40]!r}"
    if differs:
        raise ModelError(f"--locator {lender}: {differs}; name a model or run of the same object")
