"""What decides a training run, and what a finished one holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from edge_kp.cascade import Cascade
from edge_kp.errors import ModelError
from edge_kp.files import absolute, parse_json, reason
from edge_kp.modeldir import ModelSpec
from edge_kp.schema import KeypointSchema, differing
from edge_kp.templates import TemplateBank, usable_shapes
from edge_kp.training.checkpoints import load_stage
from edge_kp.training.datasets import Dataset
from edge_kp.training.locating import LocatorConfig
from edge_kp.training.loop import LoopConfig, Place
from edge_kp.training.network import TRUNKS, ExportNet, NetworkConfig, StageNet
from edge_kp.training.shipped import ARCHITECTURE, TRUNK
from edge_kp.training.torch_backend import TorchBackend

CHECK_CROPS = "check_crops.npz"  # held-back crops that exports are checked on


@dataclass(frozen=True)
class Recipe:
    """All that decides a run; written to ``run.json``.

    Attributes:
        data, validation: data set names; without ``validation`` a share of ``data`` is held back.
        templates: a bank file to use; empty builds one of ``k`` templates from the data.
        stage1: a finished run whose bank and stage 1 are taken over, so that stage 2 alone is trained.
        start: a model whose weights both stages start from; ``templates`` are its own then, and so are the
            settings that :func:`edge_kp.training.starting.model_settings` tells.
        keep: share of the weights of ``start`` that the finished stages take back.
        teacher: a finished run whose stage 2 teaches this one's.
        k: templates in the bank. It, ``epochs`` and ``batch`` are 0 where they follow from the number of
            samples, see :mod:`edge_kp.training.by_count`.
        box_rule: what a box is: tight around the keypoints, or the whole image.
        sizes, widths, readings, hidden, searches, fusions, epochs: of stage 1 and stage 2.
        trunks: of :data:`~edge_kp.training.network.TRUNKS`, or :data:`~edge_kp.training.shipped.TRUNK`: then
            the trunk starts from the shipped model, and so does the locator where its width is the model's.
        locator_size, locator_width, locator_epochs: of the locator.
        locator_pictures: it is shown at least so many pictures an epoch.
        scale: side of the stage-1 crop in sides of the box.
        without: which of :data:`edge_kp.training.parts.PARTS` to leave out, for comparison.
    """

    data: tuple[str, ...]
    validation: tuple[str, ...] = ()
    templates: str = ""
    stage1: str = ""
    start: str = ""
    keep: float = 0.0
    teacher: str = ""
    k: int = 0
    box_rule: str = "keypoints"
    sizes: tuple[int, int] = (96, 128)
    widths: tuple[int, int] = (16, 24)
    readings: tuple[int, int] = (1, 2)
    hidden: tuple[int, int] = (32, 64)
    trunks: tuple[str, str] = (TRUNK, TRUNK)
    searches: tuple[int, int] = (0, 0)
    fusions: tuple[str, str] = ("plain", "plain")
    epochs: tuple[int, int] = (0, 0)
    locator_size: int = 320
    locator_width: int = 32
    locator_epochs: int = 40
    locator_pictures: int = 4000
    scale: float = 1.6
    batch: int = 0
    learning_rate: float = 2e-3
    patience: int = 0
    seed: int = 0
    amp: bool = True
    without: tuple[str, ...] = ()
    validation_share: float = 0.05
    turn: float = 30.0
    cover: float = 0.5
    bend: float = 0.0
    empty: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """
        Raises:
            ModelError: the file is missing or not a recipe.
        """
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            patterns = {"data": (), **{f.name: f.default for f in fields(cls) if f.name != "data"}}
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            for name in values.keys() & patterns.keys():
                if not _is_like(values[name], patterns[name]):
                    raise ValueError(f"{name}: {str(values[name])[:80]!r} is no such setting")
            return cls(**{k: v for k, v in values.items() if k in patterns})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path}: not a training run ({reason(error)}); train one with python -m edge_kp.train"
            ) from error


def _is_like(value: Any, pattern: Any) -> bool:
    """Is a value of the kind of a default: a text, a number, a pair of those; or, of ``()``, some texts?"""
    if isinstance(pattern, tuple):
        listed = isinstance(value, tuple) and (not pattern or len(value) == len(pattern))
        return listed and all(_is_like(v, pattern[0] if pattern else "") for v in value)
    if isinstance(pattern, float):
        return type(value) in (int, float) and abs(value) < 1e30  # which NaN is not
    return type(value) is type(pattern)


def load_cascade(out: Path, device: torch.device) -> Cascade:
    """Both averaged networks of a finished run, ready to use.

    Raises:
        ModelError: something is missing or damaged.
    """
    recipe, bank, *stages = load_run(out)
    spec = model_spec(recipe, bank, stages[0].config.attributes, absolute(out).name)
    return Cascade(spec, *(TorchBackend(ExportNet(net), device) for net in stages))


def network_config(recipe: Recipe, stage: int, attributes: tuple[str, ...], taught: int = 0) -> NetworkConfig:
    """Raises: ValueError: a size or trunk that a stage cannot have."""
    trunk = recipe.trunks[stage]
    if trunk not in (TRUNK, *TRUNKS):
        raise ValueError(f"trunk: expected one of {', '.join((TRUNK, *TRUNKS))}, got {trunk!r}")
    return NetworkConfig(
        recipe.sizes[stage],
        recipe.widths[stage],
        stage == 0 and "correction" not in recipe.without,
        attributes,
        "bank" not in recipe.without,
        recipe.readings[stage],
        recipe.hidden[stage],
        ARCHITECTURE if trunk == TRUNK else trunk,
        taught,
        "residual" not in recipe.without,
        recipe.searches[stage],
        recipe.fusions[stage],
    )


def loop_config(recipe: Recipe, epochs: int, seed: int, workers: int) -> LoopConfig:
    """How a recipe trains each of its networks."""
    return LoopConfig(
        epochs,
        recipe.batch,
        recipe.learning_rate,
        patience=recipe.patience,
        seed=seed,
        amp=recipe.amp,
        workers=workers,
    )


def model_spec(recipe: Recipe, bank: TemplateBank, attributes: tuple[str, ...], name: str) -> ModelSpec:
    """What a host program must know of a trained run.

    Raises:
        ModelError: the recipe says what cannot be.
    """
    try:
        return ModelSpec(
            name=name,
            schema=bank.schema,
            attributes=attributes,
            mean_shape=bank.mean_shape,
            sizes=recipe.sizes,
            scale=recipe.scale,
            box_rule=recipe.box_rule,
            locator="image",
            score_threshold=0.5,
            bank_digest=bank.digest,
        )
    except ValueError as error:
        raise ModelError(
            f"{name}: not a training run ({error}); train one with python -m edge_kp.train"
        ) from error


def load_run(out: Path) -> tuple[Recipe, TemplateBank, StageNet, StageNet]:
    """Recipe, bank and both averaged networks of a finished run.

    Raises:
        ModelError: something is missing or damaged.
    """
    recipe = Recipe.read(out / "run.json")
    bank = TemplateBank.load(out / "templates.npz")
    stages = [load_stage(out / name / "best.pt", bank.templates) for name in ("stage1", "stage2")]
    if stages[0].config.attributes != stages[1].config.attributes:
        raise ModelError(f"{out}: its stages tell other attributes each; train both on the same data")
    for number, stage in enumerate(stages):
        # A stage 1 that was taken over from another run has that run's correction, or none.
        wrong = number == 1 and stage.config.correct
        if number == 0 and not recipe.stage1:
            wrong = stage.config.correct == ("correction" in recipe.without)
        if wrong or stage.config.size != recipe.sizes[number]:
            raise ModelError(
                f"{out}: the checkpoint of stage {number + 1} is not the one that run.json tells of;"
                " copy the whole run or train again"
            )
    return recipe, bank, stages[0], stages[1]


def locator_config(recipe: Recipe) -> LocatorConfig:
    """Raises: ModelError: a size or width that the locator cannot have."""
    try:
        return LocatorConfig(recipe.locator_size, recipe.locator_width)
    except ValueError as error:
        raise ModelError(str(error)) from error


def check_batch(recipe: Recipe, place: Place) -> None:
    """Raises: ModelError: the batch cannot be shared among the processes."""
    if recipe.batch % place.world or recipe.batch < 2 * place.world:
        raise ModelError(
            f"--batch {recipe.batch}: expected a multiple of the {place.world} process(es), two each at least"
        )


def check_recipe(recipe: Recipe, train: Dataset, place: Place) -> None:
    """
    Raises:
        ModelError: settings that would only fail once part of the work is done.
        DataError: the data do not give so many templates.
    """
    for stage in (0, 1):
        try:
            network_config(recipe, stage, ())
        except ValueError as error:
            raise ModelError(f"stage {stage + 1}: {error}") from error
    locator_config(recipe)
    if not recipe.scale > 0.5:
        raise ModelError(f"--scale {recipe.scale}: expected more than 0.5 sides of the box, e.g. 1.6")
    check_batch(recipe, place)
    if all(s.until < 1 for s in train.samples):
        raise ModelError("every data set ends with until=…; leave it out for those to train on to the end")
    epoch = sum(s.repeat for s in train.samples)
    if recipe.batch > epoch:
        raise ModelError(
            f"{epoch} samples an epoch are fewer than one batch of {recipe.batch}; lower --batch"
        )
    if recipe.templates and recipe.stage1:
        raise ModelError(
            "--templates, --stage1: a run's stage 1 comes with its own templates; give one of the two"
        )
    if recipe.templates:
        _check_templates(recipe, train.schema)
    if not recipe.templates and not recipe.stage1:
        usable_shapes(train.schema, np.stack([s.keypoints for s in train.samples]), recipe.k)


def _check_templates(recipe: Recipe, schema: KeypointSchema) -> None:
    """Edges and reference points may be others than the data's: no template depends on them.

    Raises:
        ModelError: the templates are of other keypoints, or were mirrored in another way.
    """
    bank = TemplateBank.load(recipe.templates).schema
    differ = [name for name in differing(bank, schema) if name not in ("edges", "reference")]
    if not differ or (differ == ["flip_pairs"] and np.array_equal(bank.flip_index, schema.flip_index)):
        return
    if differ != ["flip_pairs"]:
        told = f"its keypoints are not those of the data ({', '.join(differ)} differ)"
        if recipe.start:
            told += "; --from only takes a model of the same keypoints: leave it out to train from nothing"
            raise ModelError(f"--from {recipe.start}: {told}")
        raise ModelError(f"{recipe.templates}: {told}; build a bank of them")
    told = "its flip_pairs are not those of the data"
    if recipe.start:
        pairs = json.dumps(bank.to_json()["flip_pairs"])
        raise ModelError(f'--from {recipe.start}: {told}; write the model\'s there: "flip_pairs": {pairs}')
    raise ModelError(
        f"{recipe.templates}: {told}, and mirrored shapes count in a bank; build it again of the same data"
    )


def wait(place: Place) -> None:
    """Until every process has come so far."""
    if place.world > 1:
        dist.barrier()
