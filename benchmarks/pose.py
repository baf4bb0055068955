"""Head pose of simulated faces: ``python -m benchmarks.pose --model ict_face.npz --data SPEC``.

The 3D face model (ICT-FaceKit in one .npz: ``vertices``, ``identity``, ``expression``, ``landmarks68``) gives
random people (standard normal identity weights) with random expressions (up to five units, each 0 to 1), seen
by cameras of 40 to 75 degrees: the face 10 to 60 % of the frame wide, anywhere in it, yaw up to 75, pitch up
to 40, roll up to 45 degrees, keypoints off by normal noise of up to 3 % of the eye distance. Angles are
against the line of sight; ``turn`` is the angle of the one rotation between the true pose and the found one.

The faces come with two kinds of labels. ``exact`` ones are the model's landmarks. People's labels follow
other rules (where a brow ends, which edge of the nose is meant), so for ``labelled`` the model's mean face is
replaced by the shape that the labels of the photos in ``--data`` have: symmetric structure from motion, which
knows of the model no more than where to start. Without ``--data`` there is only ``exact``.

The jaw is exact in both, which labels of the visible contour are not. The poses which that search finds for
the photos are no truth, but the only reference that there is for photos. All methods but ``solvePnP`` are
held against it, as a cross-check of the simulation: a slope far from the others' is a method that misreads
real labels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.common import write_result
from benchmarks.pose_faces import INNER, Faces, load_model, simulate
from benchmarks.pose_methods import affine, methods, refined, solve_pnp
from edge_kp.cli import natural, positive, run_cli
from edge_kp.pose import HeadPose, load_face68, pose_model
from edge_kp.schema import FACE68, FACE98
from edge_kp.training.datasets import load_dataset
from edge_kp.types import Array

YAW_BINS = ((0, 20), (20, 40), (40, 60), (60, 90))
DISTANCE_BINS = ((15, 25), (25, 40), (40, 60), (60, 100), (100, 200))
COLUMNS = ("yaw", "pitch", "roll", "turn")
COVERS: dict[str, list[int]] = {
    "nothing": [],
    "eyes": [*range(36, 48)],
    "nose": [*range(27, 36)],
    "nose and mouth": [*range(27, 36), *range(48, 68)],
    "mouth": [*range(48, 68)],
    "eyes and brows": [*range(17, 27), *range(36, 48)],
    "one half": [i for i, pair in enumerate(FACE68.flip_index) if i < pair],
}


def angles(turns: Array) -> Array:
    """(n, 3) yaw, pitch, roll."""
    poses = [HeadPose.from_rotation(turn) for turn in turns]
    return np.array([[pose.yaw, pose.pitch, pose.roll] for pose in poses])


def between(a: Array, b: Array) -> Array:
    """(n,) degrees of the rotation from one to the other."""
    cosine = (np.einsum("nij,nij->n", a, b) - 1) / 2
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def errors(found: Array, faces: Faces) -> dict[str, Any]:
    """Absolute errors by yaw, see ``COLUMNS``, and the mean turn by distance; degrees."""
    truth = angles(faces.rotations)
    off = np.abs((angles(found) - truth + 180) % 360 - 180)
    turn = between(found, faces.rotations)
    columns = np.column_stack([off, turn])
    yaw = np.abs(truth[:, 0])
    bins = {f"{lo}-{hi}": (yaw >= lo) & (yaw < hi) for lo, hi in YAW_BINS} | {"all": yaw >= 0}
    near = {f"{lo}-{hi}": (faces.distances >= lo) & (faces.distances < hi) for lo, hi in DISTANCE_BINS}
    return {
        "by_yaw": {name: _spread(columns[mask]) for name, mask in bins.items()},
        "turn_by_distance_cm": {name: round(float(turn[mask].mean()), 2) for name, mask in near.items()},
    }


def _spread(columns: Array) -> dict[str, dict[str, float]]:
    """Mean and 95th percentile of each column, degrees."""
    mean, high = columns.mean(0), np.percentile(columns, 95, axis=0)
    return {
        name: {"mean": round(float(mean[i]), 2), "p95": round(float(high[i]), 1)}
        for i, name in enumerate(COLUMNS)
    }


def _line(spread: dict[str, dict[str, float]]) -> str:
    mean, high = ([spread[name][key] for name in COLUMNS] for key in ("mean", "p95"))
    return " ".join(f"{v:5.2f}" for v in mean) + "  | " + " ".join(f"{v:5.1f}" for v in high)


def covered(faces: Faces) -> dict[str, float]:
    """Mean turn of the shipped method with parts of the face left out."""
    model = pose_model(FACE68)
    assert model is not None
    figures = {}
    for name, hidden in COVERS.items():
        weights = np.ones(68)
        weights[hidden] = 0
        found = np.stack([model(face, weights).rotation for face in faces.keypoints])
        figures[name] = round(float(between(found, faces.rotations).mean()), 2)
    return figures


def shape_of_labels(keypoints: Array, rounds: int) -> tuple[Array, Array]:
    """The symmetric rigid shape (51, 3) and the rotations (n, 3, 3) that explain labelled faces best.

    Alternating least squares from the shipped face: rotations of the shape, then the shape of the rotations.
    The tilt and size of a shape are free: they are put where it is nearest to the shipped face.
    """
    start = load_face68()[INNER]
    flip = FACE68.flip_index[INNER] - INNER[0]
    seen = keypoints[:, INNER].astype(np.float64)
    seen = np.concatenate([seen, seen[:, flip] * (-1, 1)])  # each face and its mirror image
    seen -= seen.mean(1, keepdims=True)
    shape = start
    for _ in tqdm(range(rounds), "shape of the labels", leave=False):
        turns, scales = refined(seen, shape, *affine(seen, np.linalg.pinv(shape)), steps=2)
        rows = turns[:, :2].reshape(-1, 3)
        places = (seen * (1, -1) / scales[:, None, None]).transpose(0, 2, 1).reshape(-1, len(INNER))
        shape = np.linalg.lstsq(rows, places, rcond=None)[0].T
        shape = (shape + shape[flip] * (-1, 1, 1)) / 2
        shape *= np.linalg.norm(start[19] - start[28]) / np.linalg.norm(shape[19] - shape[28])
    tilts = [HeadPose(0.0, tilt, 0.0).rotation for tilt in np.linspace(-80, 80, 1601)]
    tilt = min(tilts, key=lambda t: float(((shape @ t.T - start) ** 2).sum()))
    shape = shape @ tilt.T
    return shape * (shape * start).sum() / (shape**2).sum(), turns[: len(keypoints)] @ tilt.T


def against_labels(found: Array, reference: Array) -> dict[str, float]:
    """How yaw and pitch go with the reference's: slope, and standard deviation of the difference."""
    a, b = angles(found), angles(reference)
    figures = {"turn_mean": float(between(found, reference).mean())}
    for i, name in enumerate(("yaw", "pitch")):
        figures[f"{name}_slope"] = float(np.polyfit(b[:, i], a[:, i], 1)[0])
        figures[f"{name}_sd"] = float((a - b)[:, i].std())
    return {key: round(value, 2) for key, value in figures.items()}


def speed(keypoints: Array, calls: int) -> dict[str, float]:
    """Median microseconds a call."""
    wide = np.random.default_rng(0).permuted(np.tile(keypoints[0], (2, 1))[:98], axis=0).astype(np.float32)
    face = keypoints[0].astype(np.float32)
    sure = np.full(68, 0.9, np.float32)
    plain, large = pose_model(FACE68), pose_model(FACE98)
    assert plain is not None
    assert large is not None
    candidates: dict[str, Callable[[], object]] = {
        "face68": lambda: plain(face),
        "face68_with_weights": lambda: plain(face, sure),
        "face98": lambda: large(wide),
        "solvePnP": lambda: solve_pnp(keypoints[:1]),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(calls):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            times[name].append(1e6 * (time.perf_counter() - start))
    return {name: round(float(np.median(values)), 1) for name, values in times.items()}


def _run(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    model = load_model(args.model)
    candidates = methods(model)
    kinds = {"exact": model}
    figures: dict[str, Any] = {"faces": args.faces, "unit": "degrees"}
    if args.data:
        samples = load_dataset(args.data, FACE68).samples
        labels = np.stack([s.keypoints for s in samples if np.isfinite(s.keypoints).all()])
        shape, reference = shape_of_labels(labels, args.rounds)
        kinds["labelled"] = replace(model, mean=np.concatenate([model.mean[: INNER[0]], shape]))
        figures["photos"] = len(labels)
        figures["photos_against_their_own_shape"] = {
            name: against_labels(method(labels), reference)
            for name, method in candidates.items()
            if name != "solvePnP"  # wants whole frames, but photos are cut out
        }
        for name, row in figures["photos_against_their_own_shape"].items():
            print(f"  {name:<26}{row}")
    for kind, source in kinds.items():
        faces = simulate(source, args.faces, np.random.default_rng(args.seed))
        print(f"{kind}: absolute errors, degrees; mean {' '.join(COLUMNS)} | 95th percentile of the same")
        rows = figures[kind] = {}
        for name, method in candidates.items():
            rows[name] = errors(method(faces.keypoints), faces)
            for key, spread in rows[name]["by_yaw"].items():
                print(f"  {name:<26}{key:>6} {_line(spread)}")
            print(f"  {name:<26}turn by distance, cm: {rows[name]['turn_by_distance_cm']}")
        rows["shipped"]["turn_without_parts"] = covered(faces)
        print(f"  turn without parts: {rows['shipped']['turn_without_parts']}")
    figures["microseconds_a_call"] = speed(faces.keypoints, args.calls)
    print(f"microseconds a call: {figures['microseconds_a_call']}")
    write_result("pose", figures)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.pose", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE.npz", help="the 3D face model")
    parser.add_argument("--data", action="append", default=[], metavar="SPEC", help="labelled photos")
    parser.add_argument("--faces", type=positive, default=20000)
    parser.add_argument("--rounds", type=positive, default=300, help="of the search for the labels' shape")
    parser.add_argument("--calls", type=positive, default=3000)
    parser.add_argument("--seed", type=natural, default=0)
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
