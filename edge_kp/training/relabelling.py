"""Labels by trained cascades in place of a data set's own, for sets whose labels are less exact than they."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge_kp.cascade import Cascade
from edge_kp.geometry import jitter_box
from edge_kp.schema import KeypointSchema
from edge_kp.training.regions import key_rng
from edge_kp.training.samples import Sample
from edge_kp.training.views import look_again
from edge_kp.training.writing import (
    LABELS,
    Labelled,
    file_names,
    has_pts,
    open_folder,
    remove_labelled,
    write_coco,
    write_labelled,
    write_photo,
)
from edge_kp.types import Array

VIEWS = 3  # jittered boxes a photo is looked at with, as it is and mirrored


@dataclass(frozen=True)
class Relabelled:
    """How many samples were written, and how many were left out, since a cascade found no object, or all
    together something else than the label.

    ``alone``: the labels tell of everything in the pictures, so that the rest may be taught as "no object".
    """

    written: int
    unseen: int
    disputed: int
    alone: bool = True


def relabel(cascades: Sequence[Cascade], samples: Sequence[Sample], out: Path, limit: float) -> Relabelled:
    """Write a folder of photos: faces with ``.pts`` files (1-based) as ``ibug:`` reads them, other objects
    with a ``labels.json`` of COCO keypoints, which also tells of what else is in the pictures.

    A label is the mean over several boxes around the old one, jittered by up to ±10 %, each also mirrored
    where the schema can flip, and over all cascades: what they were trained differently in, they err
    differently in.

    Args:
        cascades: one or more of the same schema.
        limit: samples where old and new label differ by more (NME, in reference distances) are left out.

    Raises:
        DataError: an unreadable image, or two samples that would be written under one name; or ``out`` is
            where they come from.
    """
    schema = cascades[0].spec.schema
    names = file_names(samples)
    open_folder(out, samples)
    labelled: list[Labelled] = []
    unseen = disputed = 0
    alone = True
    for sample, name in zip(tqdm(samples, "relabelling", unit="photo", leave=False), names, strict=True):
        image = sample.read()
        views = [_look(cascade, image, sample) for cascade in cascades]
        keypoints = np.mean([found for found, _ in views], axis=0)
        if any(score < c.spec.score_threshold for (_, score), c in zip(views, cascades, strict=True)):
            unseen += 1
            remove_labelled(out / name)
            continue
        if not _difference(keypoints, sample.keypoints.astype(np.float64), schema) <= limit:
            disputed += 1
            remove_labelled(out / name)
            continue
        if has_pts(schema):
            write_labelled(out / name, image, keypoints)
            alone = alone and sample.use_background and not sample.others
            continue
        write_photo(out / name, image)
        size, hidden = (image.shape[1], image.shape[0]), sample.visible == 0
        found = ((keypoints, hidden),)
        labelled.append(Labelled(f"{name}.jpg", size, found, sample.others, sample.use_background))
    if labelled:
        write_coco(out / LABELS, schema, labelled)
    else:
        (out / LABELS).unlink(missing_ok=True)  # of an earlier run, whose pictures are gone
    return Relabelled(len(samples) - unseen - disputed, unseen, disputed, alone)


def _difference(keypoints: Array, label: Array, schema: KeypointSchema) -> float:
    """Mean distance of the labelled points, in reference distances: those of the label where it has them."""
    a, b = schema.reference
    unit = np.linalg.norm(label[a] - label[b])
    if np.isnan(unit):
        unit = np.linalg.norm(keypoints[a] - keypoints[b])
    return float(np.nanmean(np.linalg.norm(keypoints - label, axis=1)) / max(float(unit), 1e-9))


def _look(cascade: Cascade, image: Array, sample: Sample) -> tuple[Array, float]:
    """Mean (N, 2) keypoints and lowest score over the views of a photo."""
    rng = key_rng(sample.key, 2)
    keypoints, scores = look_again(cascade, image, [jitter_box(sample.box, rng) for _ in range(VIEWS)])
    return keypoints.mean(0), float(scores.min())
