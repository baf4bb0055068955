"""Accuracy of a cascade on labelled data: errors per sample of every output that decides the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from edge_kp.cascade import Cascade
from edge_kp.cascade_result import CascadeResult
from edge_kp.geometry import box_iou, jitter_box, tight_box
from edge_kp.looks import found as told
from edge_kp.looks import search_all_turns
from edge_kp.metrics import auc, failure_rate, nme
from edge_kp.schema import KeypointSchema
from edge_kp.together import Networks, run_alone
from edge_kp.training.datasets import Sample
from edge_kp.training.regions import key_rng, sample_box
from edge_kp.types import Array

OUTPUTS = ("stage1_prior", "stage1", "prior", "cascade")
BOXES = ("tight", "jitter", "located")


@dataclass(frozen=True, eq=False)
class FalseDetection:
    """An object that the detector tells of where the data say that there is none.

    Attributes:
        sample: one of those in the same photo.
        keypoints: (N, 2) frame pixels.
    """

    sample: Sample
    keypoints: Array
    score: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Per-sample errors.

    Attributes:
        errors: output name → (M,) NME as a fraction of the reference distance; infinite where the object
            was not located, NaN where a reference point is not labelled.
        radial: output name → (M,) mean distance in pixels of the image.
        keypoints, stage1_keypoints: (M, N, 2) result of the cascade, and of its stage 1, frame pixels; NaN
            where not located.
        attributes: (M, A) probabilities of the cascade.
        scores: (M,) score of the cascade; NaN where not located.
        missed: how many objects were not located.
        false: photo → what was told of where the data say that there is none; of those photos alone whose
            objects are all named. Empty unless the whole detector was asked.
    """

    schema: KeypointSchema
    samples: Sequence[Sample]
    errors: dict[str, Array]
    radial: dict[str, Array]
    keypoints: Array
    stage1_keypoints: Array
    attributes: Array
    scores: Array
    missed: int
    false: Mapping[str, Sequence[FalseDetection]] = field(default_factory=dict)

    @property
    def false_count(self) -> int:
        return sum(map(len, self.false.values()))

    @property
    def distances(self) -> Array:
        """(M, N) of the cascade's keypoints from their labels, pixels of the image.

        NaN where there is no label, infinite where the object was not located.
        """
        distance = np.linalg.norm(self.offsets, axis=-1)
        labelled = np.stack([~np.isnan(s.keypoints).any(-1) for s in self.samples])
        return np.where(np.isnan(distance) & labelled, np.inf, distance)

    @property
    def offsets(self) -> Array:
        """(M, N, 2) of the cascade's keypoints from their labels, pixels of the image.

        NaN where there is no label, or the object was not located.
        """
        return self.keypoints - np.stack([s.keypoints for s in self.samples]).astype(np.float64)

    @property
    def unmeasured(self) -> Array:
        """(M,) bool: is a reference point not labelled, so that the error has no unit but pixels?"""
        return np.isnan(self.errors["cascade"])

    def summary(self, select: Array | None = None) -> dict[str, dict[str, float | None]]:
        """Per output: NME %, FR@10 %, AUC@8 %, mean radial error in pixels; over ``select`` (M,) bool.

        An object that was not located (infinite error) counts as a failure in FR and AUC and is left out of
        the means. A sample without labelled reference points (NaN) does not count; None stands for no figure.
        """
        rows = {}
        for name in OUTPUTS:
            errors, radial = self.errors[name], self.radial[name]
            if select is not None:
                errors, radial = errors[select], radial[select]
            near = radial[np.isfinite(radial)]
            rows[name] = {
                **error_figures(errors),
                "mean_radial_px": float(near.mean()) if len(near) else None,
            }
        return rows


def evaluate(
    cascade: Cascade,
    samples: Sequence[Sample],
    boxes: str = "jitter",
    detector: Networks | None = None,
    seed: int = 0,
    progress: bool = True,
    jitter: float = 0.1,
) -> Evaluation:
    """Run a cascade over labelled samples.

    Args:
        boxes: ``tight`` boxes of the labels, ``jitter`` (shifted and rescaled at random, seeded by file
            name), each looked at once, upright; or ``located``: of what the whole detector tells of a photo,
            the object that overlaps the labelled one most. What it looked at again has of stage 1 the
            points that the last look started from.
        detector: for ``located``.
        jitter: share of its sides by which a box is shifted and rescaled at most.

    Raises:
        DataError: an unreadable image.
        ValueError: no samples, or ``located`` without a detector.
    """
    if not samples:
        raise ValueError("no samples to evaluate")
    schema, n = cascade.spec.schema, len(cascade.spec.schema)
    shape = (len(samples), n, 2)
    found = {name: np.full(shape, np.nan) for name in OUTPUTS}
    attributes = np.full((len(samples), len(cascade.spec.attributes)), np.nan)
    scores = np.full(len(samples), np.nan)
    photos = [sample.picture or sample.key for sample in samples]
    places = {photo: place for place, photo in reversed(list(enumerate(photos)))}
    in_turn = sorted(range(len(samples)), key=lambda i: places[photos[i]])  # the objects of a photo together
    false: dict[str, Sequence[FalseDetection]] = {}
    searched = ""
    k: int | None
    for i in tqdm(in_turn, "evaluating", unit="object", disable=not progress, leave=False):
        sample, image = samples[i], samples[i].read()
        if boxes == "located":
            if photos[i] != searched:
                result, there = _located(image, detector)
                candidates = [tight_box(result.keypoints[row]) for row in there]
                searched = photos[i]
            best = best_overlap(sample.box, candidates)
            k = None if best is None else there[best]
            if sample.use_background:
                known = (sample.box, *sample.others)
                false[photos[i]] = [
                    FalseDetection(sample, result.keypoints[row], float(result.score[row]))
                    for row, box in zip(there, candidates, strict=True)
                    if best_overlap(box, known) is None
                ]
        else:
            result, k = cascade(image, [_box(sample, image, cascade.spec.box_rule, boxes, seed, jitter)]), 0
        if k is None:
            continue
        found["stage1_prior"][i] = result.stage1_prior_keypoints[k]
        found["stage1"][i] = result.stage1_keypoints[k]
        found["prior"][i] = result.prior_keypoints[k]
        found["cascade"][i] = result.keypoints[k]
        attributes[i], scores[i] = result.attributes[k], result.score[k]
    truth = np.stack([s.keypoints for s in samples]).astype(np.float64)
    return Evaluation(
        schema,
        samples,
        {name: nme(points, truth, schema) for name, points in found.items()},
        {name: _radial(points, truth) for name, points in found.items()},
        found["cascade"],
        found["stage1"],
        attributes,
        scores,
        int(np.isnan(scores).sum()),
        false,
    )


def error_figures(errors: Array, limits: Sequence[float] = (0.10,)) -> dict[str, float | None]:
    """NME %, the failure rate % at each of ``limits`` (``fr10`` at 0.10), and AUC@8 %.

    Infinite errors are failures that the mean leaves out, NaN does not count, and None stands for no figure.

    Args:
        errors: (M,) fractions.
    """
    counted = errors[~np.isnan(errors)]
    found = counted[np.isfinite(counted)]
    return {
        "nme": 100 * float(found.mean()) if len(found) else None,
        **{
            f"fr{100 * limit:g}": 100 * failure_rate(counted, limit) if len(counted) else None
            for limit in limits
        },
        "auc8": 100 * auc(counted) if len(counted) else None,
    }


def detection_rates(distances: Array, limits: Sequence[float]) -> dict[str, float]:
    """Share of the points, %, that lie within each limit, as X-ray challenges count it (Wang et al. 2016).

    Args:
        distances: any shape, the unit of ``limits``; NaN does not count.
    """
    known = distances[~np.isnan(distances)]
    return {f"{limit:g}": 100 * float((known <= limit).mean()) for limit in limits}


def _radial(points: Array, truth: Array) -> Array:
    distance = np.linalg.norm(points - truth, axis=-1)
    known = ~np.isnan(distance)
    return np.where(known.any(1), np.where(known, distance, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)


def _box(sample: Sample, image: Array, box_rule: str, boxes: str, seed: int, jitter: float) -> Array:
    height, width = image.shape[:2]
    box = sample_box(sample.keypoints, (width, height), box_rule)
    return jitter_box(box, key_rng(sample.key, seed), jitter) if boxes == "jitter" else box


def _located(image: Array, detector: Networks | None) -> tuple[CascadeResult, list[int]]:
    """What a detector sees in a photo, and which rows of it are the objects that it tells of."""
    if detector is None:
        raise ValueError("located boxes need a detector")
    looks = run_alone(detector, search_all_turns(detector, image))
    return looks.result, told(detector.spec, looks)


def best_overlap(box: Array, candidates: Sequence[Array] | Array, least: float = 0.2) -> int | None:
    """Which of the candidates overlaps ``box`` most; None below an IoU of ``least``."""
    overlaps = [box_iou(box, candidate) for candidate in candidates]
    best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
    return best if best is not None and overlaps[best] >= least else None


def figure(value: float | None, form: str) -> str:
    """A number in a format such as ``8.3f``, or a dash where there is none."""
    return f"{value:{form}}" if value is not None else f"{'–':>{form.split('.')[0]}}"


def summary_table(evaluation: Evaluation, title: str) -> str:
    """A table of :meth:`Evaluation.summary`, as text."""
    rows = evaluation.summary()
    lines = [title, f"{'output':<14}{'NME %':>8}{'FR@10 %':>10}{'AUC@8 %':>10}{'radial px':>11}"]
    for name, row in rows.items():
        lines.append(
            f"{name:<14}{figure(row['nme'], '8.3f')}{figure(row['fr10'], '10.2f')}"
            f"{figure(row['auc8'], '10.2f')}{figure(row['mean_radial_px'], '11.2f')}"
        )
    if count := int(evaluation.unmeasured.sum()):
        names = " and ".join(evaluation.schema.keypoints[i] for i in evaluation.schema.reference)
        lines.append(
            f"{count} of {len(evaluation.samples)} count in pixels alone, as {names} are not both labelled:"
            " their distance is the unit of the others (name another 'reference' in the label file)"
        )
    return "\n".join(lines)


def attribute_groups(labels: Sequence[dict[str, float]]) -> Iterator[tuple[str, Array]]:
    """Name and (M,) bool of every attribute that at least one sample has, from labels per sample."""
    for name in sorted({key for row in labels for key in row}):
        select = np.array([row.get(name, 0.0) > 0.5 for row in labels])
        if select.any():
            yield name, select
