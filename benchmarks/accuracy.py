"""How accurate is a model, on what, and how does it degrade? ``python -m benchmarks.accuracy --data SPEC``.

Boxes are those of the labels, shifted and rescaled at random by up to ±10 %. Parts, see --only:

errors        NME (mean distance of the points in % of a reference distance: the schema's own, and that of the
              pupils), its standard error, FR@8 and FR@10 (share of samples beyond 8 or 10 %), AUC@8 (area
              under the error curve up to 8 %), and the curves as a picture
attributes    the same by rotation in the plane (roll) and out of it (yaw, pitch) and by what is hidden
points        mean error of each point, drawn on the mean shape
degradations  the same photos made worse step by step: size, blur, motion, brightness, JPEG, noise, covers and
              box jitter; see :mod:`benchmarks.degradations`
motion        error, jitter and lag on the shipped clip, whose motion is known; see :mod:`benchmarks.clip`
precisions    NME of each precision in each backend of this machine

The same seed gives the same figures. Writes NAME.json, NAME-errors.png, NAME-points.png and
NAME-degradations.png. Photos of people are in none of them: a picture of the worst cases is written to
--worst FILE.jpg alone, which shows the data set's photos and is under their terms.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy_parts import (
    BOX_JITTER,
    by_attribute,
    by_degradation,
    by_point,
    by_precision,
    on_known_motion,
    overall,
)
from benchmarks.common import RESULTS, write_result
from benchmarks.degradations import DEGRADATIONS
from edge_kp import Detector
from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import natural, positive, run_cli
from edge_kp.errors import BackendError, DataError
from edge_kp.evaluate import attribute_labels
from edge_kp.extras import install
from edge_kp.modeldir import find_model
from edge_kp.training.datasets import DATA_HELP, Dataset, load_dataset
from edge_kp.training.evaluation import Evaluation, evaluate, figure
from edge_kp.training.references import CLIP_SCHEMA

PARTS = ("errors", "attributes", "points", "degradations", "motion", "precisions")
WORST = 20
EVALUATED = "accuracy-"  # names of the results of edge_kp.evaluate begin so; the report tells them by that
PICTURES = (".jpg", ".jpeg", ".png")


def _measure(
    args: argparse.Namespace, detector: Detector, data: Dataset, evaluation: Evaluation
) -> dict[str, Any]:
    """The parts that were asked for, by name, and ``left_out``: part → why it was."""
    told: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    if "errors" in args.only:
        told["errors"] = overall(evaluation)
    if "attributes" in args.only:
        labels = attribute_labels(data.samples, find_model(args.model))
        told["attributes"] = by_attribute(evaluation, labels, detector.cascade.mean_shape)
    if "points" in args.only:
        told["points"] = by_point(evaluation)
    if "degradations" in args.only:
        told["degradations"] = by_degradation(
            detector.cascade, data.samples, evaluation.errors, args.seed, args.kinds
        )
    if "motion" in args.only:
        if detector.schema.name == CLIP_SCHEMA:
            told["motion"] = on_known_motion(detector)
        else:
            left_out["motion"] = f"the clip shows {CLIP_SCHEMA}, not {detector.schema.name}"
    if "precisions" in args.only:
        told["precisions"] = by_precision(args.model, data.samples, args.seed, args.threads)
    return {**told, "left_out": left_out}


def _run(args: argparse.Namespace) -> None:
    if Path(args.name).name != args.name:
        raise DataError(f"--name {args.name!r}: expected a plain name; give the folder by --out")
    if args.name.startswith(EVALUATED):
        other = args.name.replace(EVALUATED, "accuracy_", 1)
        raise DataError(f"--name {args.name}: so are results of edge_kp.evaluate called; call it {other}")
    if args.worst and args.worst.suffix.lower() not in PICTURES:
        raise DataError(f"--worst {args.worst}: expected a name that ends in {', '.join(PICTURES)}")
    try:
        from benchmarks import accuracy_plots as plots
        from edge_kp.training.plots import draw_curves
    except ImportError as error:
        raise BackendError(f"the pictures need {error.name}: {install('bench')}") from error
    args.out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    if args.worst:
        args.worst.parent.mkdir(parents=True, exist_ok=True)
    with Detector(
        args.model, backend=args.backend, precision=args.precision, threads=args.threads
    ) as detector:
        data = load_dataset(args.data, detector.schema)
        evaluation = evaluate(detector.cascade, data.samples, "jitter", seed=args.seed, jitter=BOX_JITTER)
        told = _measure(args, detector, data, evaluation)
        what = f"{detector.model_name} {detector.precision} ({detector.backend_name})"
        title = f"{what} on {', '.join(data.names)}: {len(data)} samples, boxes jittered by ±10 %"
        about = {
            "model": detector.model_name,
            "backend": detector.backend_name,
            "precision": detector.precision,
            "cascade": "fused" if detector.fused else "staged",
            "data": list(data.names),
            "samples": len(data),
            "box_jitter_percent": 100 * BOX_JITTER,
            "seed": args.seed,
        }
    print(title)
    _print(told)
    if "errors" in told:
        plots.write_figure(draw_curves(evaluation, title), args.out / f"{args.name}-errors.png")
    if "points" in told:
        points = plots.draw_points(
            told["points"]["cascade"], detector.schema, detector.spec.mean_shape, title
        )
        plots.write_figure(points, args.out / f"{args.name}-points.png")
    if "degradations" in told:
        drawn = plots.draw_degradations(told["degradations"], title)
        plots.write_figure(drawn, args.out / f"{args.name}-degradations.png")
    if args.worst:
        plots.write_worst(evaluation, args.worst, WORST)
    write_result(args.name, {**about, **told}, args.out, ("openvino", "matplotlib"))


def _print(told: Mapping[str, Any]) -> None:
    """The figures of a run, one line a row."""
    errors = told.get("errors", {})
    for name in ("by_reference_distance", "by_pupil_distance"):
        if errors.get(name):
            _line(f"{name.replace('_', ' ')} ({errors[name]['distance']})", errors[name])
    attributes = told.get("attributes", {})
    for name, bins in attributes.items():
        if name not in ("attributes", "left_out"):
            for title, row in bins.items():
                _line(f"{name} {title}", row)
    for name, answers in attributes.get("attributes", {}).items():
        for title, row in answers.items():
            _line(f"{name}: {title}", row)
    for name, part in told.get("degradations", {}).items():
        for row in part["levels"]:
            _line(f"{name} {'none' if row['level'] is None else format(row['level'], 'g')}", row)
    for name, row in told.get("motion", {}).get("smooth", {}).items():
        jitter, lag = row.get("jitter_rms_percent"), row.get("lag_shift_frames")
        print(f"smooth {name}: jitter {figure(jitter, '.3f')} %, lag {figure(lag, '.2f')} frames")
    precisions = told.get("precisions", {})
    for name, row in precisions.get("networks", {}).items():
        _line(name, row)
    skipped = {**precisions.get("skipped", {}), **told["left_out"]}
    for part in (errors, attributes):
        skipped.update(part.get("left_out", {}))
    for name, reason in skipped.items():
        print(f"left out {name}: {reason}")


def _line(name: str, row: Mapping[str, Any]) -> None:
    stage1, cascade = row["stage1"], row["cascade"]
    print(
        f"  {name[:58]:<58}{row['samples']:6} samples  stage 1 {figure(stage1['nme'], '6.2f')} %  cascade"
        f" {figure(cascade['nme'], '6.2f')} %  FR@10 {figure(cascade['fr10'], '5.1f')} %"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="SPEC", help=DATA_HELP)
    add("--model", default="face68", help="shipped model or model folder (default face68)")
    add("--backend", choices=BACKENDS, default="auto", help="what runs the networks")
    add("--precision", choices=PRECISIONS, default="auto", help="which of the model's networks")
    add("--threads", type=positive, help="CPU threads of the backend")
    add("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    add(
        "--kinds",
        nargs="+",
        choices=tuple(DEGRADATIONS),
        default=tuple(DEGRADATIONS),
        metavar="KIND",
        help=f"of degradations: {', '.join(DEGRADATIONS)} (default all)",
    )
    add("--seed", type=natural, default=0, help="of the jitter and all else that is drawn at random")
    add("--name", default="accuracy", help="of the files written (default accuracy)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="for them (default benchmarks/results)")
    add(
        "--worst",
        type=Path,
        metavar="FILE.jpg",
        help=f"draw the {WORST} worst photos, too: keep it out of the repository, photos have terms",
    )
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
