"""A model directory: what people copy to a device. ``model.json`` says all that a host program must know."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.errors import ModelError
from edge_kp.files import parse_json, replacing
from edge_kp.look_rules import LookRules
from edge_kp.schema import KeypointSchema
from edge_kp.types import Array

FORMAT = 2
WEIGHTS = "weights.bin"  # what the networks of a compact folder share
SHIPPED = Path(__file__).parent / "models"
BOX_RULES = ("keypoints", "image")
LOCATORS = ("network", "image")
NETWORKS = ("locator", "stage1", "stage2", "cascade")
LARGEST_INPUT = 4096  # side of a network's image, pixels
PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")  # int8 is for TensorRT, int8-cpu for everything else


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """The contract between training and running.

    Attributes:
        name: the model's name, e.g. ``face68``.
        attributes: names of the attribute outputs, in their order.
        mean_shape: (N, 2) float32 canonical shape, crop coordinates of stage 2.
        sizes: side of the input image of stage 1 and of stage 2, pixels.
        scale: side of the stage-1 crop in longer sides of the box.
        box_rule: what a box is: ``keypoints`` (their tight box) or ``image`` (the whole image).
        locator: how boxes are found: ``network`` (the model's own) or ``image`` (the whole frame).
        locator_size: side of the locator's input image, pixels; 0 where there is none.
        locator_threshold: score below which the locator's boxes are dropped.
        score_threshold: below this an object counts as absent.
        looks: when an object is looked at again, and turned.
        bank_digest: sha256 of the template bank inside the networks.
        cascade_size: side of the region that the one-graph cascade takes, pixels; 0 where there is none. The
            region has the same middle as the stage-1 crop.
        cascade_finer: how many pixels of that region lie along one of the stage-1 crop.
        auto: backend → the precision that ``auto`` runs there, where this model differs from others.
        files: file name → sha256.
        card: training data, terms, measured accuracy: for people.
    """

    name: str
    schema: KeypointSchema
    attributes: tuple[str, ...]
    mean_shape: Array
    sizes: tuple[int, int]
    scale: float
    box_rule: str
    locator: str
    score_threshold: float
    bank_digest: str
    locator_size: int = 0
    locator_threshold: float = 0.0
    cascade_size: int = 0
    cascade_finer: int = 2
    looks: LookRules = field(default_factory=LookRules)
    auto: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.schema)
        if self.mean_shape.shape != (n, 2) or not np.isfinite(self.mean_shape).all():
            raise ValueError(f"mean_shape: expected {n} finite points, got shape {self.mean_shape.shape}")
        if self.box_rule not in BOX_RULES:
            raise ValueError(f"box_rule: expected one of {BOX_RULES}, got {self.box_rule!r}")
        if self.locator not in LOCATORS:
            raise ValueError(f"locator: expected one of {LOCATORS}, got {self.locator!r}")
        if (self.locator == "network") != (self.locator_size > 0):
            raise ValueError(
                f"locator {self.locator!r} of size {self.locator_size}: one does not fit the other"
            )
        if self.box_rule == "image" and self.locator != "image":
            raise ValueError("where the whole image is the box there is nothing to locate")
        margins = self.cascade_size - self.cascade_finer * self.sizes[0]
        if self.cascade_finer < 1 or (self.cascade_size and (margins < 0 or margins % 2)):
            raise ValueError(
                f"cascade of size {self.cascade_size}: expected {self.cascade_finer * self.sizes[0]}"
                " and as much more on either side"
            )
        if min(self.sizes) < 1 or not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"expected positive sizes and scale, got {self.sizes} and {self.scale}")
        if max(*self.sizes, self.locator_size, self.cascade_size) > LARGEST_INPUT:
            raise ValueError(f"a network's image is larger than {LARGEST_INPUT} pixels")
        for what in ("score_threshold", "locator_threshold"):
            if not 0 <= getattr(self, what) <= 1:
                raise ValueError(f"{what}: expected a number from 0 to 1, got {getattr(self, what)}")
        if unknown := sorted(set(self.auto.values()) - set(PRECISIONS)):
            raise ValueError(f"auto: {unknown[0]!r} is none of {', '.join(PRECISIONS)}")
        for name in self.files:
            if not _is_plain(name):
                raise ValueError(f"files: {name!r} is no name of a file in the folder")

    def input_size(self, network: str) -> int:
        """Side of the image that one of :data:`NETWORKS` takes, pixels; 0 where there is no such network."""
        sizes = {"stage1": self.sizes[0], "stage2": self.sizes[1], "locator": self.locator_size}
        return sizes.get(network, self.cascade_size)

    @property
    def cascade_scale(self) -> float:
        """Side of the cascade's region in longer sides of the box."""
        return self.scale * self.cascade_size / (self.cascade_finer * self.sizes[0])

    def to_json(self) -> dict[str, Any]:
        """The content of ``model.json``, as :func:`read_model` reads it."""
        return {
            "format": FORMAT,
            "name": self.name,
            "schema": self.schema.to_json(),
            "attributes": list(self.attributes),
            "mean_shape": [[round(float(v), 6) for v in point] for point in self.mean_shape],
            "stage1": {"size": self.sizes[0], "scale": self.scale},
            "stage2": {"size": self.sizes[1]},
            "cascade": {
                "size": self.cascade_size,
                "scale": self.cascade_scale,
                "finer": self.cascade_finer,
            },
            "box_rule": self.box_rule,
            "locator": {
                "kind": self.locator,
                "size": self.locator_size,
                "threshold": self.locator_threshold,
            },
            "score_threshold": self.score_threshold,
            "looks": self.looks.to_json(),
            "bank_sha256": self.bank_digest,
            "auto": dict(self.auto),
            "files": dict(self.files),
            "card": dict(self.card),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Inverse of :meth:`to_json`.

        Raises:
            ValueError: a field is missing or of the wrong form.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"format {data.get('format')!r}, this version reads {FORMAT}")
        try:
            # Older folders have none of these, or know less of them.
            cascade, looks, auto = (data.get(name, {}) for name in ("cascade", "looks", "auto"))
            return cls(
                name=str(data["name"]),
                schema=KeypointSchema.from_json(data["schema"]),
                attributes=tuple(str(a) for a in data["attributes"]),
                mean_shape=np.array(data["mean_shape"], np.float32),
                sizes=(int(data["stage1"]["size"]), int(data["stage2"]["size"])),
                scale=float(data["stage1"]["scale"]),
                box_rule=str(data["box_rule"]),
                locator=str(data["locator"]["kind"]),
                locator_size=int(data["locator"]["size"]),
                locator_threshold=float(data["locator"]["threshold"]),
                cascade_size=int(cascade.get("size", 0)),
                cascade_finer=int(cascade.get("finer", 2)),
                score_threshold=float(data["score_threshold"]),
                bank_digest=str(data["bank_sha256"]),
                looks=LookRules.from_json(looks),
                auto={str(k): str(v) for k, v in auto.items()},
                files={str(k): str(v) for k, v in data["files"].items()},
                card=dict(data["card"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from error


def _is_plain(name: str) -> bool:
    """Is it the name of a file, and of none elsewhere, on every system?"""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\:\0")


def file_digest(path: Path) -> str:
    """sha256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def network_digest(path: Path) -> str:
    """sha256 of a network, hex: of its file and, where its weights are kept in ``weights.bin`` beside it, of
    those too."""
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    if WEIGHTS.encode() in content:
        digest.update((path.parent / WEIGHTS).read_bytes())
    return digest.hexdigest()


def write_model_json(folder: Path, spec: ModelSpec) -> None:
    """Write ``model.json`` beside its target, then rename."""
    with replacing(folder / "model.json") as part:
        part.write_text(json.dumps(spec.to_json(), indent=1) + "\n", encoding="utf-8")


def find_model(model: str | os.PathLike[str]) -> Path:
    """The folder of a model: a path, or the name of one that comes with the package.

    Raises:
        ModelError: neither exists.
    """
    path = Path(model)
    with suppress(OSError):  # a name that no file can have
        if (path / "model.json").is_file():
            return path
        if path.name == str(model) and (SHIPPED / path / "model.json").is_file():
            return SHIPPED / path
    shipped = ", ".join(shipped_models()) or "none"
    raise ModelError(
        f"model {str(model)[:200]!r}: no folder with a model.json there; give a folder that"
        f" python -m edge_kp.export wrote, or a shipped model ({shipped})"
    )


def shipped_models() -> list[str]:
    """Names of the models that the package brings."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model.json"))


def read_model(folder: Path) -> ModelSpec:
    """Read and check ``model.json``.

    Raises:
        ModelError: it is missing, damaged or of another format.
    """
    path = folder / "model.json"
    try:
        return ModelSpec.from_json(parse_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}; export the model again") from error
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"{path}: not a usable model description ({error}); export the model again"
        ) from error


def checked_file(folder: Path, spec: ModelSpec, name: str) -> Path:
    """Path of a file of the model, after its hash was compared; of a network's weights as well.

    Raises:
        ModelError: the file is missing, unknown to ``model.json``, or changed.
    """
    path = folder / name
    if name not in spec.files:
        known = ", ".join(sorted(spec.files)) or "none"
        raise ModelError(f"{path}: model.json does not list this file (it lists {known}); export it first")
    if not path.is_file():
        raise ModelError(f"{path}: missing; copy the whole model folder or export it again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != spec.files[name]:
        raise ModelError(f"{path}: differs from the hash in model.json; copy the model folder again")
    if path.suffix == ".onnx" and WEIGHTS.encode() in content:
        checked_file(folder, spec, WEIGHTS)
    return path
