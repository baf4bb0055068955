"""From data set names to a trained cascade: bank → stage 1 → its errors → stage 2 → evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from edge_kp.errors import ModelError
from edge_kp.files import read_arrays, replacing
from edge_kp.schema import differing
from edge_kp.templates import SHAPE_EXTENT, TemplateBank, align_to_mean, build_bank, nearest_template
from edge_kp.templates.picture import draw_bank
from edge_kp.training.attributes import AttributeWeights, ShapeAttributes, attribute_names
from edge_kp.training.augment import Augmentation
from edge_kp.training.by_count import about_settled, settled
from edge_kp.training.centring import centre, telling
from edge_kp.training.checkpoints import load_checkpoint, load_stage, save_checkpoint
from edge_kp.training.claiming import claim, refuse_other
from edge_kp.training.crops import CropDataset, StageView, alignment_error
from edge_kp.training.datasets import Dataset
from edge_kp.training.empty import empty_patches, split_empty
from edge_kp.training.evaluation import evaluate, summary_table
from edge_kp.training.looking import LOOK_RULES, write_look_rules
from edge_kp.training.loop import LoopConfig, Place, batch_loader
from edge_kp.training.mirroring import about_mirroring, mirrors_into_itself
from edge_kp.training.network import StageNet, normalise
from edge_kp.training.other_runs import check_stage1, given_schema, load_teacher, take_stage1
from edge_kp.training.recipe import (
    CHECK_CROPS,
    Recipe,
    check_recipe,
    load_cascade,
    loop_config,
    network_config,
    wait,
)
from edge_kp.training.regions import OVERSAMPLING, cut_regions
from edge_kp.training.shipped import TRUNK, about_start, start_trunk
from edge_kp.training.split import refuse_several, training_samples
from edge_kp.training.stage import train_stage
from edge_kp.training.starting import IMAGES, first_images, keep_share, start_stage
from edge_kp.types import Array

MEASURED = 2000  # random crops that the shares of attributes and the errors of stage 1 are measured on


def train_cascade(recipe: Recipe, out: Path, place: Place, workers: int = 1) -> dict[str, Any]:
    """Train both stages into ``out``, or go on where an interrupted run stands.

    Writes ``run.json``, ``templates.npz`` and ``.png``, ``stage1/``, ``stage1_errors.npz``, ``stage2/``,
    ``looks.json`` and, last, ``evaluation.json``, whose content it returns.

    Raises:
        DataError: unusable data, every problem on a line of its own.
        ModelError: ``out`` holds a run of other settings.
    """
    like = given_schema(recipe)
    train, held = training_samples(recipe.data, recipe.validation, recipe.validation_share, like)
    left_open, recipe = recipe, settled(recipe, train.samples)
    if recipe.box_rule == "image":
        refuse_several((*train.samples, *held))
    attributes = attribute_names([s.attributes for s in train.samples])
    check_recipe(recipe, train, place)
    if recipe.stage1:
        check_stage1(recipe, train.schema, attributes)
    teacher = load_teacher(recipe, train.schema)
    refuse_other(recipe, out)
    schema = train.schema
    empty, _ = split_empty(recipe.empty, recipe.validation_share)
    box_side = OVERSAMPLING * recipe.sizes[0] / recipe.scale
    shape_side = OVERSAMPLING * recipe.sizes[1] * SHAPE_EXTENT
    regions, held_regions = (
        cut_regions(samples, box_side, recipe.box_rule, place.first, shape_side, recipe.scale)
        for samples in (train.samples, held)
    )
    patches = empty_patches(empty, recipe.box_rule, recipe.scale, place.first)
    # Only now, so that data which cannot be used leave no run behind.
    lock = claim(recipe, out, place)
    for told in (*train.notes, about_settled(left_open, recipe, train.samples), about_start(recipe.trunks)):
        if place.first and told:
            print(told)
    if recipe.stage1:
        take_stage1(recipe, out, place)
    bank = _bank(recipe, train, out, place)
    shape_attributes = ShapeAttributes(bank)
    if place.first and train.left_out:
        total = len(train) + len(held) + train.left_out
        print(f"left out: {train.left_out} of {total} objects, with fewer than 3 labelled points")
    if place.first and "moves" not in recipe.without:
        shapes = np.stack([s.keypoints for s in train.samples])
        fits = mirrors_into_itself(shapes, schema.flip_index, recipe.turn)
        print(about_mirroring(schema, train.pairs_by_name, fits))
    counts = [s.repeat for s in train.samples]
    augmentation = Augmentation(
        turn=recipe.turn, cover=recipe.cover, moves="moves" not in recipe.without, bend=recipe.bend
    )
    labels = (shape_attributes, attributes, schema.flip_index if schema.can_flip else None)

    def crops(stage: int, view: StageView) -> tuple[CropDataset, CropDataset]:
        """Training and validation crops of a stage."""
        ends = [last_epoch(s.until, recipe.epochs[stage]) for s in train.samples]
        common = (view, *labels, recipe.seed)
        measured = CropDataset(regions, *common, augmentation, counts=counts)
        weights = None
        if "weights" not in recipe.without:
            weights = AttributeWeights.measure(measured.labels(min(MEASURED, 20 * len(measured))))
        if place.first and weights:
            for name, has, has_not in zip(attributes, weights.positive, weights.negative, strict=True):
                print(f"attribute {name}: weight {has:.2f} with, {has_not:.2f} without")
        return (
            CropDataset(regions, *common, augmentation, weights, counts, ends=ends, patches=patches),
            CropDataset(held_regions, *common),
        )

    def loop(stage: int) -> LoopConfig:
        return loop_config(recipe, recipe.epochs[stage], recipe.seed + stage, workers)

    def start(stage: int, data: CropDataset) -> Callable[[StageNet], object] | None:
        if recipe.start:
            return lambda net: _start(net, recipe, stage, data)
        if recipe.trunks[stage] == TRUNK:
            return lambda net: start_trunk(net, stage + 1)
        return None

    last_only = "prior-loss" in recipe.without
    view1 = StageView(recipe.sizes[0], bank.mean_shape, scale=recipe.scale)
    if recipe.stage1:
        stage1 = load_stage(out / "stage1" / "best.pt", bank.templates).to(place.device)
    else:
        config = network_config(recipe, 0, attributes)
        train1, held1 = crops(0, view1)
        stage1 = train_stage(
            config,
            bank.templates,
            train1,
            held1,
            loop(0),
            out / "stage1",
            place,
            last_only=last_only,
            start=start(0, train1),
        )
        stage1 = _kept(stage1, recipe, 0, train1, bank, out, place)
    errors = _stage1_errors(
        stage1,
        CropDataset(
            held_regions,
            view1,
            *labels,
            recipe.seed + 1,
            augmentation,
            counts=-(-MEASURED // len(held_regions)),
            negatives=0.0,
        ),
        out / "stage1_errors.npz",
        loop(0),
        place,
    )
    view2 = StageView(recipe.sizes[1], bank.mean_shape, errors=errors)
    config = network_config(recipe, 1, attributes, 0 if teacher is None else teacher.config.width)
    train2, held2 = crops(1, view2)
    stage2 = train_stage(
        config,
        bank.templates,
        train2,
        held2,
        loop(1),
        out / "stage2",
        place,
        teacher,
        last_only,
        start(1, train2),
    )
    stage2 = _kept(stage2, recipe, 1, train2, bank, out, place)
    if lock is None:  # not the first process
        return {}
    if schema.can_flip and augmentation.moves and config.residual:
        # By the labels that are trusted to the end, so that those of a program do not count.
        trusted = [region for region, s in zip(regions, train.samples, strict=True) if s.until >= 1]
        if trusted:
            by = telling(held_regions, trusted)
            way = centre(stage2, CropDataset(by, view2, *labels, recipe.seed), loop(1), place)
            if any(way):
                path = out / "stage2" / "best.pt"
                save_checkpoint(path, {**load_checkpoint(path), "net": stage2.state_dict()})
                x, y = (100 * v for v in way)
                print(f"labels lie {x:+.2f}, {y:+.2f} % of a crop beside the middle: taken over")
    first, second = (CropDataset(held_regions[:16], view, *labels, recipe.seed) for view in (view1, view2))
    with replacing(out / CHECK_CROPS) as part:
        np.savez(
            part,
            stage1=np.stack([first[i]["image"] for i in range(len(first))]),
            stage2=np.stack([second[i]["image"] for i in range(len(second))]),
        )
    cascade = load_cascade(out, place.device)
    if recipe.box_rule == "keypoints":
        write_look_rules(out / LOOK_RULES, cascade, held)
    evaluation = evaluate(cascade, held, "jitter")
    result = {
        "boxes": "jitter",
        "note": "held-back samples; they chose the checkpoint",
        "samples": len(held),
        "summary": evaluation.summary(),
    }
    with replacing(out / "evaluation.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(summary_table(evaluation, f"held-back samples: {len(held)}, jittered boxes"))
    lock.close()
    return result


def _start(net: StageNet, recipe: Recipe, stage: int, data: CropDataset) -> set[str]:
    """:func:`start_stage` on the first crops of the training data; stages count from 0."""
    return start_stage(net, recipe.start, stage + 1, first_images(data, IMAGES))


def _kept(
    net: StageNet, recipe: Recipe, stage: int, data: CropDataset, bank: TemplateBank, out: Path, place: Place
) -> StageNet:
    """A trained stage with its share of the weights that it started from (``recipe.keep``), taken once."""
    path = out / f"stage{stage + 1}" / "best.pt"
    if not recipe.keep:
        return net
    if place.first and "kept" not in (saved := load_checkpoint(path)):
        net = load_stage(path, bank.templates)
        start = StageNet(net.config, bank.templates)
        data.epoch = 0
        fresh = _start(start, recipe, stage, data)
        keep_share(net, start, recipe.keep, fresh)
        save_checkpoint(path, {**saved, "kept": recipe.keep, "net": net.state_dict()})
    wait(place)
    return load_stage(path, bank.templates).to(place.device)


def last_epoch(until: float, epochs: int) -> int:
    """The last of so many epochs that a set is trained on which ends at a share of them."""
    return math.ceil(round(until * epochs, 6))


def _bank(recipe: Recipe, train: Dataset, out: Path, place: Place) -> TemplateBank:
    path = out / "templates.npz"
    if place.first and not path.exists():
        shapes = np.concatenate([np.repeat(s.keypoints[None], s.repeat, 0) for s in train.samples])
        if recipe.templates:
            bank = replace(TemplateBank.load(recipe.templates), schema=train.schema)
        else:
            bank = build_bank(train.schema, shapes, recipe.k, recipe.seed)
        nearest = nearest_template(bank, align_to_mean(bank, shapes))
        shares = np.bincount(nearest, minlength=len(bank)) / len(shapes)
        cv2.imwrite(str(path.with_suffix(".png")), draw_bank(bank, shares))
        bank.save(path)
    wait(place)
    bank = TemplateBank.load(path)
    if differ := ", ".join(differing(bank.schema, train.schema)):
        raise ModelError(
            f"{path}: is not of the keypoints of the data ({differ} differ); choose another --out"
        )
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
    try:
        errors = read_arrays(path)["errors"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); remove it and train again") from error
    if place.first:
        spread = np.sqrt((errors**2).mean(0))
        print(
            f"stage 1 misplaces the second crop by (RMS) {np.degrees(spread[0]):.2f}°,"
            f" {100 * spread[1]:.2f} % of its scale,"
            f" {100 * spread[2]:.2f} and {100 * spread[3]:.2f} % of its side"
        )
    return errors
