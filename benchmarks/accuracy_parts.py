"""The parts of :mod:`benchmarks.accuracy`: figures of one model, as plain values for JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.clip import CLIP, against_motion, track
from benchmarks.degradations import DEGRADATIONS, JITTER, degrade
from edge_kp import Detector, Tracker
from edge_kp.backends import BACKENDS, PRECISIONS, choose_precision
from edge_kp.cascade import Cascade
from edge_kp.errors import BackendError
from edge_kp.geometry import decompose_similarity, estimate_similarity
from edge_kp.modeldir import ModelSpec, find_model, read_model
from edge_kp.pose import pose_model
from edge_kp.schema import KeypointSchema
from edge_kp.smoothing import SMOOTHING
from edge_kp.training.evaluation import Evaluation, attribute_groups, error_figures, evaluate
from edge_kp.training.samples import Sample
from edge_kp.types import Array

MEASURED = ("stage1", "cascade")  # outputs that are told
LIMITS = (0.08, 0.10)  # errors from which a sample counts as a failure
BOX_JITTER = 0.1  # of the boxes wherever it is not the jitter that is measured
AT_ONCE = 16  # photos held in memory
EDGES: Mapping[str, tuple[float, ...]] = {
    "roll_degrees": (0, 5, 10, 20, 30, 45, 180),
    "yaw_degrees": (0, 10, 20, 30, 45, 60, 180),
    "pitch_degrees": (0, 10, 20, 30, 90),
    "points_hidden_percent": (0, 1e-6, 10, 25, 50, 100),
}
Row = dict[str, Any]


def figures(errors: Array) -> Row:
    """NME, its standard error, FR@8, FR@10 and AUC@8 of (M,) fractions, all in %; None: no figure."""
    row: Row = error_figures(errors, LIMITS)
    found = errors[np.isfinite(errors)]
    row["standard_error"] = 100 * float(found.std(ddof=1)) / len(found) ** 0.5 if len(found) > 1 else None
    return {name: None if value is None else round(value, 4) for name, value in row.items()}


def rows(errors: Mapping[str, Array], select: Array | None = None) -> Row:
    """How many samples, and :func:`figures` of each of :data:`MEASURED` over ``select`` (M,) bool."""
    chosen = {name: errors[name] if select is None else errors[name][select] for name in MEASURED}
    return {"samples": len(chosen["cascade"]), **{name: figures(part) for name, part in chosen.items()}}


def pupil_points(schema: KeypointSchema) -> tuple[list[int], list[int]] | None:
    """Points whose mean is the left and the right pupil: marked pupils, else those around each eye, by name.

    None where the object has neither.
    """
    for form in ("{}_pupil", r"{}_eye_\d+"):
        sides = [
            [i for i, name in enumerate(schema.keypoints) if re.fullmatch(form.format(side), name)]
            for side in ("left", "right")
        ]
        if all(sides):
            return sides[0], sides[1]
    return None


def overall(evaluation: Evaluation) -> Row:
    """All samples, by each distance that errors are divided by; ``left_out`` names what cannot be told."""
    schema = evaluation.schema
    a, b = (schema.keypoints[i] for i in schema.reference)
    told: Row = {
        "by_reference_distance": {"distance": f"{a} to {b}", **rows(evaluation.errors)},
        "by_pupil_distance": None,
        "left_out": {},
    }
    pupils = pupil_points(schema)
    if pupils is None:
        told["left_out"]["by_pupil_distance"] = f"{schema.name} has no points around the eyes"
        return told
    truth = np.stack([s.keypoints for s in evaluation.samples]).astype(np.float64)
    left, right = (truth[:, side].mean(1) for side in pupils)
    between = np.linalg.norm(left - right, axis=1)
    ratio = schema.reference_distance(truth) / np.where(between > 0, between, np.nan)
    by_pupils = {name: errors * ratio for name, errors in evaluation.errors.items()}
    how = "marked pupils" if len(pupils[0]) == 1 else f"means of {len(pupils[0])} points around each eye"
    told["by_pupil_distance"] = {"distance": how, **rows(by_pupils)}
    return told


def by_attribute(evaluation: Evaluation, labels: Sequence[dict[str, float]], mean_shape: Array) -> Row:
    """Figures by rotation and occlusion of the labelled shapes.

    Args:
        labels: attributes of each sample.
        mean_shape: (N, 2), upright.
    """
    schema, samples = evaluation.schema, evaluation.samples
    values = {"roll_degrees": [_roll(s.keypoints, mean_shape) for s in samples]}
    left_out = {}
    pose = pose_model(schema)
    if pose is None:
        left_out["yaw_degrees, pitch_degrees"] = f"{schema.name} has no 3D points, see rotation_out_of_plane"
    else:
        angles = []
        for sample in samples:
            known = np.asarray(~np.isnan(sample.keypoints).any(1))
            try:
                found = pose(sample.keypoints, known.astype(np.float64))
                angles.append((abs(found.yaw), abs(found.pitch)))
            except ValueError:  # too few labelled points to tell
                angles.append((np.nan, np.nan))
        values["yaw_degrees"], values["pitch_degrees"] = ([pair[i] for pair in angles] for i in (0, 1))
    hidden = [_hidden(s) for s in samples]
    if np.isnan(hidden).all():
        left_out["points_hidden_percent"] = "no label says which points are hidden"
    else:
        values["points_hidden_percent"] = hidden
    told: Row = {
        name: {bin_: rows(evaluation.errors, select) for bin_, select in _bins(name, np.array(value))}
        for name, value in values.items()
    }
    told["attributes"] = {}
    for name, has in attribute_groups(labels):
        known = np.array([name in row for row in labels])
        told["attributes"][name] = {
            answer: rows(evaluation.errors, select)
            for answer, select in (("yes", has), ("no", known & ~has))
            if select.any()
        }
    if not any("occlusion" in row for row in labels):
        left_out["occlusion"] = "no label says so"
    told["left_out"] = left_out
    return told


def _roll(keypoints: Array, mean_shape: Array) -> float:
    """Turn in the plane, degrees from 0; NaN where it cannot be told."""
    known = ~np.isnan(keypoints).any(1)
    try:
        align = estimate_similarity(keypoints[known].astype(np.float64), mean_shape[known])
    except ValueError:  # one point, or all in one place
        return np.nan
    return abs(float(np.degrees(decompose_similarity(align)[0])))


def _hidden(sample: Sample) -> float:
    """Share of the points with a known visibility that are hidden, %; NaN where none is known."""
    known = sample.visible[~np.isnan(sample.visible)]
    return 100 * float((known == 0).mean()) if len(known) else np.nan


def _bins(name: str, values: Array) -> Iterator[tuple[str, Array]]:
    """Bins of :data:`EDGES` that hold a sample; the last one holds its upper edge."""
    edges = EDGES[name]
    for low, high in pairwise(edges):
        select = (values >= low) & ((values < high) | (high == edges[-1]))
        title = "none" if high < 1e-3 else f"{round(low, 3):g} to {high:g}"
        if select.any():
            yield title, select


def by_point(evaluation: Evaluation) -> Row:
    """Mean error of each point, and of points whose names differ in their number alone, % of the reference.

    Where every point of every sample is labelled, the mean over the points is the NME.
    """
    schema = evaluation.schema
    truth = np.stack([s.keypoints for s in evaluation.samples]).astype(np.float64)
    unit = schema.reference_distance(truth)
    told: Row = {}
    for name, points in (("stage1", evaluation.stage1_keypoints), ("cascade", evaluation.keypoints)):
        distance = np.linalg.norm(points - truth, axis=-1) / np.where(unit > 0, unit, np.nan)[:, None]
        known = np.isfinite(distance)
        count = known.sum(0)
        means = 100 * np.where(known, distance, 0).sum(0) / np.maximum(count, 1)
        told[name] = {
            point: round(float(mean), 4) if n else None
            for point, mean, n in zip(schema.keypoints, means, count, strict=True)
        }
    parts: dict[str, list[float]] = {}
    for point, value in told["cascade"].items():
        if value is not None:
            parts.setdefault(re.sub(r"_\d+$", "", point), []).append(value)
    told["parts_cascade"] = {part: round(float(np.mean(v)), 4) for part, v in parts.items() if len(v) > 1}
    return told


def by_degradation(
    cascade: Cascade,
    samples: Sequence[Sample],
    undegraded: Mapping[str, Array],
    seed: int,
    kinds: Sequence[str] = tuple(DEGRADATIONS),
) -> Row:
    """Figures at every level of ``kinds``, boxes jittered as everywhere else; level None is undegraded.

    Args:
        undegraded: output → (M,) errors of the samples as they are.
    """
    steps = [(kind, level) for kind in kinds for level in DEGRADATIONS[kind].levels]
    errors: dict[tuple[str, float], list[Mapping[str, Array]]] = {step: [] for step in steps}
    enlarged = dict.fromkeys(steps, 0)
    rule = cascade.spec.box_rule
    starts = range(0, len(samples), AT_ONCE)
    with tqdm(total=len(starts) * len(steps), desc="degradations", unit="step", leave=False) as bar:
        for start in starts:
            # Photos are decoded once. What covers them is the next one, also where that is of the next lot.
            lot = [_held(s) for s in samples[start : start + AT_ONCE]]
            others = [*lot[1:], samples[(start + len(lot)) % len(samples)]]
            for kind, level in steps:
                worse = [degrade(s, kind, level, rule, o, seed) for s, o in zip(lot, others, strict=True)]
                enlarged[kind, level] += sum(
                    _side(w) > 1.02 * _side(s) for w, s in zip(worse, lot, strict=True)
                )
                jitter = level / 100 if kind == JITTER else BOX_JITTER
                found = evaluate(
                    cascade, worse, "jitter" if jitter else "tight", seed=seed, progress=False, jitter=jitter
                )
                errors[kind, level].append(found.errors)
                bar.update()
    told: Row = {}
    for kind in kinds:
        table = [] if kind == JITTER else [{"level": None, **rows(undegraded)}]
        for level in DEGRADATIONS[kind].levels:
            parts = errors[kind, level]
            whole = {name: np.concatenate([part[name] for part in parts]) for name in MEASURED}
            more = {"enlarged": enlarged[kind, level]} if enlarged[kind, level] else {}
            table.append({"level": level, **more, **rows(whole)})
        told[kind] = {"unit": DEGRADATIONS[kind].unit, "levels": table}
    return told


def _held(sample: Sample) -> Sample:
    return replace(sample, load=partial(_same, sample.read()))


def _same(image: Array) -> Array:
    return image


def _side(sample: Sample) -> float:
    box = sample.box
    return float(max(box[2] - box[0], box[3] - box[1]))


def on_known_motion(detector: Detector) -> Row:
    """Error, jitter and lag on the shipped clip for each smoothing; see :mod:`benchmarks.clip`."""
    about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
    told: Row = {"clip": CLIP.name, "frames": len(about["frames"]), "fps": about["fps"], "smooth": {}}
    for smooth in SMOOTHING:
        frames, free = track(Tracker(detector, smooth=smooth), CLIP)
        still = {name: value for name, value in free.items() if name.startswith("second_difference")}
        told["smooth"][smooth] = {**against_motion(frames, about, detector.schema.reference), **still}
    return told


def by_precision(model: str, samples: Sequence[Sample], seed: int, threads: int | None) -> Row:
    """Everything that the model has files of, in every backend; ``skipped`` says why one cannot run here."""
    folder = find_model(model)
    told: Row = {"networks": {}, "skipped": {}}
    for backend, precision, cascade in tqdm(list(_ways(read_model(folder))), "precisions", leave=False):
        name = f"{backend} {precision} {cascade}"
        try:
            with Detector(
                model, backend=backend, precision=precision, cascade=cascade, threads=threads
            ) as detector:
                found = evaluate(
                    detector.cascade, samples, "jitter", seed=seed, progress=False, jitter=BOX_JITTER
                )
                told["networks"][name] = {"files": detector.precision, **rows(found.errors)}
        except BackendError as error:  # no path of this machine belongs into results
            told["skipped"][name] = " ".join(str(error).replace(f"{folder}/", "").split())
    base = told["networks"].get("onnxruntime fp32 staged", {}).get("cascade", {}).get("nme")
    for row in told["networks"].values():
        nme = row["cascade"]["nme"]
        row["nme_minus_fp32"] = None if nme is None or base is None else round(nme - base, 4)
    return told


def _ways(spec: ModelSpec) -> Iterator[tuple[str, str, str]]:
    """Backend, precision and cascade of everything that a model has files of."""
    for backend in BACKENDS[1:]:
        for precision in PRECISIONS[1:]:
            try:
                files = choose_precision(backend, precision, spec.files)
            except BackendError:  # was not exported in it
                continue
            yield backend, precision, "staged"
            if f"cascade.{files}.onnx" in spec.files:
                yield backend, precision, "fused"
