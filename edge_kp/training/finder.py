"""From data set names to a trained locator: a first one finds unlabelled objects, the second is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_kp.errors import ModelError
from edge_kp.files import read_arrays, replacing
from edge_kp.locator import fit_square
from edge_kp.training.augment import Augmentation
from edge_kp.training.by_count import settled
from edge_kp.training.claiming import claim, refuse_other
from edge_kp.training.empty import empty_photos, split_empty
from edge_kp.training.finished import read_figures, threshold_of
from edge_kp.training.locating import (
    ExportLocator,
    LocatorNet,
    false_boxes,
    load_locator,
    search_training_photos,
    train_locator,
    validate,
)
from edge_kp.training.looking import LOOK_RULES, read_look_rules
from edge_kp.training.loop import Place
from edge_kp.training.photos import Photo, read_photos
from edge_kp.training.recipe import Recipe, check_batch, load_cascade, locator_config, loop_config, wait
from edge_kp.training.scenes import SceneDataset
from edge_kp.training.shipped import LOCATOR_WIDTH, MODEL, TRUNK, start_locator
from edge_kp.training.split import training_samples
from edge_kp.training.starting import first_images
from edge_kp.training.torch_backend import TorchBackend
from edge_kp.training.whole import add_doubted, choose, look_at_photos
from edge_kp.types import Array

CHECK_FRAMES = "check_frames.npz"  # held-back pictures that exports are checked on
LOCATOR_FIGURES = "locator.json"
LOCATOR_BATCH = 64  # unless it is said: few photos give as many pictures as many do
STARTING = 128  # training pictures that the batch norms of weights to start from are measured on
FEW = 0.7  # share of the objects found, below which it is said
FIRST_SHARE = 0.25  # of the locator's epochs, for the first one


def train_finder(recipe: Recipe, out: Path, place: Place, workers: int = 1) -> None:
    """Train the locator into ``out/locator``, or go on where an interrupted run stands.

    Raises:
        DataError: unusable data, every problem on a line of its own.
        ModelError: ``out`` holds a run of other settings, or the whole image is the box.
    """
    if recipe.box_rule == "image":
        raise ModelError("--part locator: with --box image the whole image is the box; there is none to find")
    train, held = training_samples(recipe.data, recipe.validation, recipe.validation_share)
    batch = recipe.batch or LOCATOR_BATCH
    recipe = settled(recipe, train.samples)
    empty = split_empty(recipe.empty, recipe.validation_share)
    config = locator_config(recipe)
    check_batch(replace(recipe, batch=batch), place)
    refuse_other(recipe, out)
    photos, held_photos = (
        [*read_photos(samples, place.first), *empty_photos(paths, place.first)]
        for samples, paths in ((train.samples, empty[0]), (held, empty[1]))
    )
    lock = claim(recipe, out, place)
    flip = train.schema.can_flip
    augmentation = Augmentation(turn=recipe.turn, cover=recipe.cover)
    shipped = TRUNK in recipe.trunks and config.width == LOCATOR_WIDTH
    if shipped and place.first:
        print(f"the locator starts from that of {MODEL}; with --trunks plain plain from nothing")

    def train_on(photos: list[Photo], held: list[Photo], epochs: int, name: str) -> LocatorNet:
        data = SceneDataset(photos, config.size, recipe.seed, augmentation, flip, recipe.locator_pictures)
        loop = replace(loop_config(recipe, epochs, recipe.seed + 2, workers), batch=batch)

        def start(net: LocatorNet) -> None:
            start_locator(net, first_images(data, STARTING))

        return train_locator(config, data, held, loop, out / name, place, start if shipped else None)

    # A first, short training finds the objects that nobody labelled, so that the second need not deny them.
    first = train_on(photos, held_photos, max(1, round(FIRST_SHARE * recipe.locator_epochs)), "locator_first")
    as_labelled = held_photos
    marked = _unlabelled(first, [*photos, *held_photos], out / "unlabelled.npz", place)
    photos, held_photos = marked[: len(photos)], marked[len(photos) :]
    net = train_on(photos, held_photos, recipe.locator_epochs, "locator")
    if lock is not None:  # the first process
        figures = validate(net, held_photos, place.device)
        # Both networks may be wrong in the same place, so what the first excuses is counted as well.
        figures["false_as_labelled"] = false_boxes(net, as_labelled, place.device, figures["threshold"])
        print(
            f"locator on {len(held_photos)} held-back photos: recall {100 * figures['recall']:.1f} %,"
            f" {figures['false']:.2f} false boxes a photo at a score of {figures['threshold']:.2f}"
            f" ({figures['false_as_labelled']:.2f} with those where the first network saw an object without"
            f" label as well), average precision {1 - figures['1 - AP']:.3f}"
        )
        if figures["recall"] < FEW:
            print(
                "it overlooks many of the objects: give it more photos, or more training by --locator-epochs"
                " and --locator-pictures"
            )
        with replacing(out / CHECK_FRAMES) as part:
            frames = [fit_square(photo.levels[0], config.size)[0] for photo in held_photos[:8]]
            np.savez(part, locator=np.stack(frames))
        with replacing(out / LOCATOR_FIGURES) as part:
            told = {"object": train.schema.name, "photos": len(held_photos), **figures}
            part.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
        lock.close()


def measure_whole(recipe: Recipe, out: Path, place: Place) -> None:
    """What locator and stages find together, once both are there, and the rule that follows from it.

    Raises:
        DataError: unusable data.
        ModelError: a part of the run cannot be read.
    """
    parts = (out / LOOK_RULES, out / LOCATOR_FIGURES, out / "locator" / "best.pt", out / "stage2" / "best.pt")
    if not all(path.exists() for path in parts):
        return
    _, held = training_samples(recipe.data, recipe.validation, recipe.validation_share)
    empty = split_empty(recipe.empty, recipe.validation_share)[1]
    photos = [*read_photos(held, place.first), *empty_photos(empty, place.first)]
    unlabelled = _kept_unlabelled(out / "unlabelled.npz")[-len(photos) :]
    photos = [replace(p, unlabelled=tuple(boxes)) for p, boxes in zip(photos, unlabelled, strict=True)]
    cascade = load_cascade(out, place.device)
    cascade.spec = replace(cascade.spec, looks=read_look_rules(out / LOOK_RULES))
    net = load_locator(out / "locator" / "best.pt")
    backend = TorchBackend(ExportLocator(net), place.device)
    threshold = threshold_of(out / LOCATOR_FIGURES, read_figures(out / LOCATOR_FIGURES))
    at = (cascade, backend, net.config.size, threshold, photos)
    doubted = choose(look_at_photos(*at))
    add_doubted(out / LOOK_RULES, doubted, look_at_photos(*at, doubted))


def _unlabelled(net: LocatorNet, photos: list[Photo], path: Path, place: Place) -> list[Photo]:
    """Photos with what the first locator found in them; kept in a file, so that a resumed run agrees."""
    if place.first and not path.exists():
        found = search_training_photos(net, photos, place.device)
        counts = [len(photo.unlabelled) for photo in found]
        boxes = [np.zeros((0, 4), np.float32), *(box[None] for photo in found for box in photo.unlabelled)]
        with replacing(path) as part:
            np.savez(part, boxes=np.concatenate(boxes), counts=np.array(counts))
    wait(place)
    split = _kept_unlabelled(path)
    if len(split) != len(photos):
        raise ModelError(f"{path}: was made for other photos; remove it and train again")
    if place.first:
        print(f"{sum(map(len, split))} likely objects without label in {len(photos)} photos are left open")
    return [replace(photo, unlabelled=tuple(boxes)) for photo, boxes in zip(photos, split, strict=True)]


def _kept_unlabelled(path: Path) -> list[Array]:
    """(K, 4) boxes of each photo, those held back last."""
    try:
        arrays = read_arrays(path)
        return np.split(arrays["boxes"], np.cumsum(arrays["counts"])[:-1])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); remove it and train again") from error
