"""Settings that are left open follow from how many samples there are.

A network learns by the crops that it sees and the steps that it makes, not by epochs: a hundred photos need
more epochs than a thousand, and smaller batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edge_kp.training.samples import Sample
from edge_kp.types import Array

if TYPE_CHECKING:
    from edge_kp.training.recipe import Recipe

LEAST_CROPS = (20_000, 30_000)  # that each stage is shown at least
LEAST_EPOCHS = (40, 60)
BATCHES = ((2048, 64), (512, 32), (0, 16))  # from so many samples an epoch on, so many a step
MOST_TEMPLATES = 64
A_TEMPLATE = 4  # photos that each stands for, at least


def settled(recipe: Recipe, samples: Sequence[Sample]) -> Recipe:
    """The recipe with its epochs, batch and number of templates, where these are open (0)."""
    epoch = sum(s.repeat for s in samples)
    batch = next(size for least, size in BATCHES if epoch >= least)
    has_bank = bool(recipe.templates or recipe.stage1)
    first, second = (max(LEAST_EPOCHS[i], -(-LEAST_CROPS[i] // epoch)) for i in (0, 1))
    return replace(
        recipe,
        epochs=recipe.epochs if any(recipe.epochs) else (first, second),
        batch=recipe.batch or max(2, min(batch, epoch)),
        k=recipe.k or (0 if has_bank else templates_for([s.keypoints for s in samples])),
    )


def templates_for(shapes: Sequence[Array] | Array) -> int:
    """How many templates a bank of these (N, 2) shapes gets, unless it is said."""
    usable = sum(2 * (~np.isnan(shape).any(1)).sum() >= len(shape) for shape in shapes)
    return min(MOST_TEMPLATES, max(1, int(usable) // A_TEMPLATE))


def about_settled(open_recipe: Recipe, recipe: Recipe, samples: Sequence[Sample]) -> str | None:
    """A line that tells what was settled; None where nothing was open."""
    told = []
    if not open_recipe.k and not open_recipe.templates and not open_recipe.stage1:
        told.append(f"{recipe.k} templates (--k)")
    if not any(open_recipe.epochs):
        told.append(f"{recipe.epochs[0]} and {recipe.epochs[1]} epochs (--epochs)")
    if not open_recipe.batch:
        told.append(f"{recipe.batch} samples a step (--batch)")
    epoch = sum(s.repeat for s in samples)
    return f"for {epoch} samples an epoch: {', '.join(told)}" if told else None
