"""From data set names to a trained cascade: bank → stage 1 → its errors → stage 2 → evaluation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist

from edge_kp.cascade import Cascade
from edge_kp.errors import ModelError
from edge_kp.files import replacing
from edge_kp.modeldir import ModelSpec
from edge_kp.templates import SHAPE_EXTENT, TemplateBank, align_to_mean, build_bank, nearest_template
from edge_kp.templates.picture import draw_bank
from edge_kp.training.attributes import AttributeWeights, ShapeAttributes, attribute_names
from edge_kp.training.augment import Augmentation
from edge_kp.training.checkpoints import load_stage
from edge_kp.training.crops import CropDataset, StageView, alignment_error
from edge_kp.training.datasets import Dataset
from edge_kp.training.evaluation import evaluate, summary_table
from edge_kp.training.locating import LocatorConfig
from edge_kp.training.loop import LoopConfig, Place, batch_loader
from edge_kp.training.network import ExportNet, NetworkConfig, StageNet, normalise
from edge_kp.training.regions import OVERSAMPLING, cut_regions
from edge_kp.training.split import training_samples
from edge_kp.training.stage import train_stage
from edge_kp.training.torch_backend import TorchBackend
from edge_kp.types import Array

CHECK_CROPS = "check_crops.npz"  # held-back crops that exports are checked on


@dataclass(frozen=True)
class Recipe:
    """All that decides a run; written to ``run.json``.

    Attributes:
        data, validation: data set names; without ``validation`` a share of ``data`` is held back.
        templates: a bank file to use; empty builds one of ``k`` templates from the data.
        k: templates in the bank.
        box_rule: what a box is: tight around the keypoints, or the whole image.
        sizes, widths, readings, hidden, epochs: of stage 1 and stage 2.
        locator_size, locator_width, locator_epochs: of the locator.
        locator_pictures: it is shown at least so many pictures an epoch.
        scale: side of the stage-1 crop in sides of the box.
        bank: False trains without templates, for comparison.
    """

    data: tuple[str, ...]
    validation: tuple[str, ...] = ()
    templates: str = ""
    k: int = 64
    box_rule: str = "keypoints"
    sizes: tuple[int, int] = (96, 128)
    widths: tuple[int, int] = (16, 24)
    readings: tuple[int, int] = (1, 2)
    hidden: tuple[int, int] = (32, 64)
    epochs: tuple[int, int] = (40, 60)
    locator_size: int = 320
    locator_width: int = 32
    locator_epochs: int = 40
    locator_pictures: int = 4000
    scale: float = 1.6
    batch: int = 64
    learning_rate: float = 2e-3
    patience: int = 0
    seed: int = 0
    amp: bool = True
    bank: bool = True
    validation_share: float = 0.05
    turn: float = 30.0
    cover: float = 0.5

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """
        Raises:
            ModelError: the file is missing or not a recipe.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            names = {f.name for f in fields(cls)}
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**{k: v for k, v in values.items() if k in names})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path}: not a training run ({error}); train one with python -m edge_kp.train"
            ) from error


def train_cascade(recipe: Recipe, out: Path, place: Place, workers: int = 1) -> dict[str, Any]:
    """Train both stages into ``out``, or go on where an interrupted run stands.

    Writes ``run.json``, ``templates.npz`` and ``.png``, ``stage1/``, ``stage1_errors.npz``, ``stage2/`` and
    ``evaluation.json``; returns the latter's content.

    Raises:
        DataError: unusable data, every problem on a line of its own.
        ModelError: ``out`` holds a run of other settings.
    """
    train, held = training_samples(recipe.data, recipe.validation, recipe.validation_share)
    _check(recipe, train, place)
    claim(recipe, out, place)
    schema = train.schema
    bank = _bank(recipe, train, out, place)
    attributes = attribute_names([s.attributes for s in train.samples])
    shape_attributes = ShapeAttributes(bank)
    box_side = OVERSAMPLING * recipe.sizes[0] / recipe.scale
    shape_side = OVERSAMPLING * recipe.sizes[1] * SHAPE_EXTENT
    regions, held_regions = (
        cut_regions(samples, box_side, recipe.box_rule, place.first, shape_side)
        for samples in (train.samples, held)
    )
    counts = [s.repeat for s in train.samples]
    augmentation = Augmentation(turn=recipe.turn, cover=recipe.cover)
    labels = (shape_attributes, attributes, schema.flip_index if schema.can_flip else None)

    def crops(stage: int, view: StageView) -> tuple[CropDataset, CropDataset]:
        """Training and validation crops of a stage."""
        ends = [math.ceil(s.until * recipe.epochs[stage]) for s in train.samples]
        common = (view, *labels, recipe.seed)
        measured = CropDataset(regions, *common, augmentation, counts=counts)
        weights = AttributeWeights.measure(measured.labels(min(2000, 20 * len(measured))))
        if place.first:
            for name, has, has_not in zip(attributes, weights.positive, weights.negative, strict=True):
                print(f"attribute {name}: weight {has:.2f} with, {has_not:.2f} without")
        return (
            CropDataset(regions, *common, augmentation, weights, counts, ends=ends),
            CropDataset(held_regions, *common),
        )

    def loop(stage: int) -> LoopConfig:
        return loop_config(recipe, recipe.epochs[stage], recipe.seed + stage, workers)

    def network(stage: int) -> NetworkConfig:
        return network_config(recipe, stage, attributes)

    view1 = StageView(recipe.sizes[0], bank.mean_shape, scale=recipe.scale)
    stage1 = train_stage(network(0), bank.templates, *crops(0, view1), loop(0), out / "stage1", place)
    errors = _stage1_errors(
        stage1,
        CropDataset(
            held_regions,
            view1,
            *labels,
            recipe.seed + 1,
            augmentation,
            counts=-(-2000 // len(held_regions)),
            negatives=0.0,
        ),
        out / "stage1_errors.npz",
        loop(0),
        place,
    )
    view2 = StageView(recipe.sizes[1], bank.mean_shape, errors=errors)
    train_stage(network(1), bank.templates, *crops(1, view2), loop(1), out / "stage2", place)
    if not place.first:
        return {}
    first, second = (CropDataset(held_regions[:16], view, *labels, recipe.seed) for view in (view1, view2))
    with replacing(out / CHECK_CROPS) as part:
        np.savez(
            part,
            stage1=np.stack([first[i]["image"] for i in range(len(first))]),
            stage2=np.stack([second[i]["image"] for i in range(len(second))]),
        )
    summary = evaluate(load_cascade(out, place.device), held, "jitter").summary()
    result = {
        "boxes": "jitter",
        "note": "held-back samples; they chose the checkpoint",
        "samples": len(held),
        "summary": summary,
    }
    with replacing(out / "evaluation.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(summary_table(summary, f"held-back samples: {len(held)}, jittered boxes"))
    return result


def load_cascade(out: Path, device: torch.device) -> Cascade:
    """Both averaged networks of a finished run, ready to use.

    Raises:
        ModelError: something is missing or damaged.
    """
    recipe, bank, *stages = load_run(out)
    spec = model_spec(recipe, bank, stages[0].config.attributes, out.name)
    return Cascade(spec, *(TorchBackend(ExportNet(net), device) for net in stages))


def network_config(recipe: Recipe, stage: int, attributes: tuple[str, ...]) -> NetworkConfig:
    """Raises: ValueError: a size that a stage cannot have."""
    return NetworkConfig(
        recipe.sizes[stage],
        recipe.widths[stage],
        stage == 0,
        attributes,
        recipe.bank,
        recipe.readings[stage],
        recipe.hidden[stage],
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
    """What a host program must know of a trained run."""
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


def load_run(out: Path) -> tuple[Recipe, TemplateBank, StageNet, StageNet]:
    """Recipe, bank and both averaged networks of a finished run.

    Raises:
        ModelError: something is missing or damaged.
    """
    recipe = Recipe.read(out / "run.json")
    bank = TemplateBank.load(out / "templates.npz")
    stages = [load_stage(out / name / "best.pt", bank.templates) for name in ("stage1", "stage2")]
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


def _check(recipe: Recipe, train: Dataset, place: Place) -> None:
    """Raises: ModelError: settings that would only fail once part of the work is done."""
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
    if recipe.templates and TemplateBank.load(recipe.templates).schema != train.schema:
        raise ModelError(f"{recipe.templates}: its keypoints are not those of the data; build a bank of them")
    if not recipe.templates and recipe.k > len(train.samples):
        raise ModelError(f"--k: {recipe.k} templates from {len(train.samples)} samples; lower --k")


def claim(recipe: Recipe, out: Path, place: Place) -> None:
    """Write ``run.json``, or make sure that the one there is the same recipe."""
    path = out / "run.json"
    if path.exists():
        if Recipe.read(path) != recipe:
            raise ModelError(
                f"{out}: holds a run of other settings; choose another --out or remove the folder"
            )
    elif place.first:
        with replacing(path) as part:
            part.write_text(json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8")
    wait(place)


def _bank(recipe: Recipe, train: Dataset, out: Path, place: Place) -> TemplateBank:
    path = out / "templates.npz"
    if place.first and not path.exists():
        shapes = np.concatenate([np.repeat(s.keypoints[None], s.repeat, 0) for s in train.samples])
        if recipe.templates:
            bank = TemplateBank.load(recipe.templates)
        else:
            bank = build_bank(train.schema, shapes, recipe.k, recipe.seed)
        nearest = nearest_template(bank, align_to_mean(bank, shapes))
        shares = np.bincount(nearest, minlength=len(bank)) / len(shapes)
        cv2.imwrite(str(path.with_suffix(".png")), draw_bank(bank, shares))
        bank.save(path)
    wait(place)
    bank = TemplateBank.load(path)
    if bank.schema != train.schema:
        raise ModelError(f"{path}: its keypoints are not those of the data; choose another --out")
    return bank


@torch.no_grad()
def _stage1_errors(net: StageNet, data: CropDataset, path: Path, loop: LoopConfig, place: Place) -> Array:
    """(M, 4) errors of stage 1 on augmented held-back crops; kept in a file, so that a resumed run agrees."""
    if place.first and not path.exists():
        rows = []
        for batch in batch_loader(data, np.arange(len(data)).reshape(1, -1), loop, place, split=loop.batch):
            keypoints = net(normalise(batch["image"])).keypoints.cpu().numpy().astype(np.float64)
            truth = torch.where(batch["labelled"][..., None] > 0, batch["keypoints"], torch.nan).cpu().numpy()
            rows += [
                alignment_error(p, t.astype(np.float64), data.view.mean_shape)
                for p, t in zip(keypoints, truth, strict=True)
            ]
        errors = np.clip(np.stack(rows), [-1.0, -0.5, -0.3, -0.3], [1.0, 0.5, 0.3, 0.3])
        with replacing(path) as part:
            np.savez(part, errors=errors)
    wait(place)
    errors = np.asarray(np.load(path)["errors"])
    if place.first:
        spread = np.sqrt((errors**2).mean(0))
        print(
            f"stage 1 misplaces the second crop by (RMS) {np.degrees(spread[0]):.2f}°,"
            f" {100 * spread[1]:.2f} % of its scale,"
            f" {100 * spread[2]:.2f} and {100 * spread[3]:.2f} % of its side"
        )
    return errors


def wait(place: Place) -> None:
    """Until every process has come so far."""
    if place.world > 1:
        dist.barrier()
