"""``python -m edge_kp.evaluate``: accuracy of a model on labelled data, as figures, JSON and pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import natural, number, positive, program, run_cli
from edge_kp.detector import CASCADES, Detector
from edge_kp.errors import BackendError, DataError, ModelError
from edge_kp.extras import install
from edge_kp.files import replacing
from edge_kp.locator import MOST_TILES
from edge_kp.modeldir import checked_file, find_model, read_model
from edge_kp.provenance import provenance
from edge_kp.templates import TemplateBank
from edge_kp.training.attributes import ShapeAttributes
from edge_kp.training.datasets import DATA_HELP, Sample, load_dataset
from edge_kp.training.evaluation import (
    BOXES,
    Evaluation,
    attribute_groups,
    detection_rates,
    evaluate,
    figure,
    summary_table,
)
from edge_kp.types import Array

WITHIN_MM = (2.0, 2.5, 3.0, 4.0)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("evaluate"),
        description="NME, FR@10 % and AUC@8 % of every output of the cascade, over all and by attribute.",
    )
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="SPEC", help=DATA_HELP)
    add("--model", default="face68", help="shipped model or model folder (default face68)")
    add("--backend", choices=BACKENDS, default="auto", help="what runs the networks")
    add("--precision", choices=PRECISIONS, default="auto", help="which of the model's networks")
    add("--cascade", choices=CASCADES, default="auto", help="both stages as one graph, or as two calls")
    add("--threads", type=positive, help="CPU threads of the backend")
    add(
        "--boxes",
        choices=BOXES,
        default="jitter",
        help="of the labels, as they are or jittered ±10 %% (default), each seen once, upright; or what the"
        " whole detector tells of each photo",
    )
    add(
        "--tiles",
        type=int,
        choices=range(1, MOST_TILES + 1),
        default=1,
        help="with --boxes located: search so many overlapping squares along a photo's longer side as well",
    )
    add("--seed", type=natural, default=0, help="of the jitter")
    add("--pixel-mm", type=number(1e-6, 1e6), metavar="MM", help="side of a pixel: tell distances in mm, too")
    add(
        "--within",
        type=number(0, 1e6),
        nargs="+",
        metavar="MM",
        help="with --pixel-mm: how many points lie so near (default 2 2.5 3 4, as X-ray challenges count)",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures and every sample's errors")
    add(
        "--plots",
        type=Path,
        metavar="DIR",
        help="write the error curve, the worst cases and false detections as PNG",
    )
    return parser


def _run(args: argparse.Namespace, words: Sequence[str]) -> None:
    if args.within and not args.pixel_mm:
        raise DataError("--within: in millimetres of what? it goes with --pixel-mm, the side of a pixel")
    if args.tiles > 1 and args.boxes != "located":
        raise DataError(
            "--tiles: nothing is searched for in boxes of the labels; it goes with --boxes located"
        )
    for option, folder in (("--plots", args.plots), ("--json", args.json.parent if args.json else None)):
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)  # before the work, not after it
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}; give another {option}") from error
    with Detector(
        args.model,
        backend=args.backend,
        precision=args.precision,
        cascade=args.cascade,
        threads=args.threads,
        tiles=args.tiles,
    ) as detector:
        data = load_dataset(args.data, detector.schema)
        evaluation = evaluate(detector.cascade, data.samples, args.boxes, detector, args.seed)
        labels = attribute_labels(data.samples, find_model(args.model))
    what = f"{detector.model_name} {detector.precision} ({detector.backend_name})"
    title = f"{what} on {', '.join(data.names)}: {len(data)} samples, {args.boxes} boxes"
    for note in data.notes:
        print(note)
    print(summary_table(evaluation, title))
    if args.boxes == "located":
        photos = f"{len(evaluation.false)} photos whose objects are all named"
        whole = f"; false: {evaluation.false_count} in {photos}"
        print(f"not located: {evaluation.missed} of {len(data)}{whole if evaluation.false else ''}")
    groups: dict[str, Any] = {}
    for name, select in attribute_groups(labels):
        rows = evaluation.summary(select)
        groups[name] = {"samples": int(select.sum()), **rows}
        print(f"  {name}: {int(select.sum())} samples, cascade NME {figure(rows['cascade']['nme'], '.3f')} %")
    metric = _millimetres(evaluation, args.pixel_mm, args.within or WITHIN_MM) if args.pixel_mm else None
    if args.json:
        begin = provenance("edge_kp.evaluate", words, (detector.backend_name,))
        _write_json(args.json, begin, evaluation, groups, title, metric)
        print(f"wrote {args.json}")
    if args.plots:
        try:
            from edge_kp.training.plots import write_plots
        except ImportError as error:
            raise BackendError(f"--plots needs {error.name}: {install('bench')}") from error
        for path in write_plots(evaluation, args.plots, title):
            print(f"wrote {path}")


def attribute_labels(samples: Sequence[Sample], folder: Path) -> list[dict[str, float]]:
    """Attributes of every sample: the data set's own, and rotation read off its shape, by the model's bank.

    Args:
        folder: of the model.
    """
    try:
        bank = TemplateBank.load(checked_file(folder, read_model(folder), "templates.npz"))
        shape_attributes = ShapeAttributes(bank)
    except ModelError as error:
        print(f"note: no rotation attributes ({error})", file=sys.stderr)
        return [dict(s.attributes) for s in samples]
    return [{**shape_attributes(s.keypoints.astype(np.float64)), **s.attributes} for s in samples]


def _millimetres(evaluation: Evaluation, pixel_mm: float, within: Sequence[float]) -> dict[str, Any]:
    """Mean distance and shares within limits, over all points and of each; printed, too.

    ``less_mean_offsets`` says what is left once each point's mean offset from its labels, ``offset_mm``, is
    taken away: labels of other people than those learnt from may mean another place by the same name.
    """
    distances = evaluation.distances * pixel_mm
    offsets = evaluation.offsets * pixel_mm
    found = np.asarray(np.isfinite(offsets).all(-1))
    count = np.maximum(found.sum(0), 1)[:, None]
    means = np.where(found[..., None], offsets, 0).sum(0) / count
    around = np.where(found, np.linalg.norm(offsets - means, axis=-1), distances)
    print(f"{'':<24}{'mean mm':>9}" + "".join(f"{f'≤ {limit:g} mm':>11}" for limit in within))

    def row(name: str, part: Array) -> dict[str, Any]:
        mean, rates = float(part[np.isfinite(part)].mean()), detection_rates(part, within)
        print(f"{name:<24}{mean:>9.2f}" + "".join(f"{rate:>10.1f}%" for rate in rates.values()))
        shares = {limit: round(rate, 2) for limit, rate in rates.items()}
        return {"mean_mm": round(mean, 3), "within_mm_percent": shares}

    if not found.any():
        return {"pixel_mm": pixel_mm, "points": {}}
    rows, less = {"all points": row("all points", distances)}, row("less mean offsets", around)
    for i, name in enumerate(evaluation.schema.keypoints):
        if found[:, i].any():
            rows[name] = row(name, distances[:, i]) | {"offset_mm": np.round(means[i], 3).tolist()}
    return {"pixel_mm": pixel_mm, "points": rows, "less_mean_offsets": less}


def _write_json(
    path: Path,
    begin: dict[str, Any],
    evaluation: Evaluation,
    groups: dict[str, Any],
    title: str,
    metric: dict[str, Any] | None,
) -> None:
    content = {
        **begin,
        "title": title,
        "samples": len(evaluation.samples),
        "missed": evaluation.missed,
        "false": {"photos": len(evaluation.false), "objects": evaluation.false_count},
        "unmeasured": [
            s.key for s, is_so in zip(evaluation.samples, evaluation.unmeasured, strict=True) if is_so
        ],
        "summary": evaluation.summary(),
        "by_attribute": groups,
        **({"millimetres": metric} if metric else {}),
        "errors_percent": {
            sample.key: {name: _rounded(100 * errors[i]) for name, errors in evaluation.errors.items()}
            for i, sample in enumerate(evaluation.samples)
        },
    }
    try:
        with replacing(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another --json") from error


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    return run_cli(lambda args: _run(args, words), make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
