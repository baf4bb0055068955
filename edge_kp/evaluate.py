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
from edge_kp.cli import natural, positive, program, run_cli
from edge_kp.detector import CASCADES, Detector
from edge_kp.errors import BackendError, DataError, ModelError
from edge_kp.extras import install
from edge_kp.files import replacing
from edge_kp.modeldir import find_model
from edge_kp.templates import TemplateBank
from edge_kp.training.attributes import ShapeAttributes
from edge_kp.training.datasets import DATA_HELP, load_dataset
from edge_kp.training.evaluation import BOXES, Evaluation, attribute_groups, evaluate, figure, summary_table


def _parser() -> argparse.ArgumentParser:
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
        help="of the labels, jittered ±10 %% (default) or located",
    )
    add("--seed", type=natural, default=0, help="of the jitter")
    add("--json", type=Path, metavar="FILE", help="write the figures and every sample's errors")
    add("--plots", type=Path, metavar="DIR", help="write the error curve and the worst cases as PNG")
    return parser


def _run(args: argparse.Namespace) -> None:
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
    ) as detector:
        data = load_dataset(args.data, detector.schema)
        evaluation = evaluate(detector.cascade, data.samples, args.boxes, detector.locator, args.seed)
        labels = _labels(evaluation, find_model(args.model))
    what = f"{detector.model_name} {detector.precision} ({detector.backend_name})"
    title = f"{what} on {', '.join(data.names)}: {len(data)} samples, {args.boxes} boxes"
    print(summary_table(evaluation.summary(), title))
    if args.boxes == "located":
        print(f"not located: {evaluation.missed} of {len(data)}")
    groups: dict[str, Any] = {}
    for name, select in attribute_groups(labels):
        rows = evaluation.summary(select)
        groups[name] = {"samples": int(select.sum()), **rows}
        print(f"  {name}: {int(select.sum())} samples, cascade NME {figure(rows['cascade']['nme'], '.3f')} %")
    if args.json:
        _write_json(args.json, evaluation, groups, title)
        print(f"wrote {args.json}")
    if args.plots:
        try:
            from edge_kp.training.plots import write_plots
        except ImportError as error:
            raise BackendError(f"--plots needs {error.name}: {install('bench')}") from error
        for path in write_plots(evaluation, args.plots, title):
            print(f"wrote {path}")


def _labels(evaluation: Evaluation, folder: Path) -> list[dict[str, float]]:
    """Attributes of every sample: the data set's own, and rotation read off its shape."""
    try:
        shape_attributes = ShapeAttributes(TemplateBank.load(folder / "templates.npz"))
    except ModelError as error:
        print(f"note: no rotation attributes ({error})", file=sys.stderr)
        return [dict(s.attributes) for s in evaluation.samples]
    return [{**shape_attributes(s.keypoints.astype(np.float64)), **s.attributes} for s in evaluation.samples]


def _write_json(path: Path, evaluation: Evaluation, groups: dict[str, Any], title: str) -> None:
    content = {
        "title": title,
        "samples": len(evaluation.samples),
        "missed": evaluation.missed,
        "summary": evaluation.summary(),
        "by_attribute": groups,
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
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
