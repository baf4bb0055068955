"""All results as one page, and in the README files: ``python -m benchmarks.report``.

Reads every ``benchmarks/results/*.json``, refuses those that do not say where their figures are from, and
writes ``report.html``, which needs no other file. ``--readme`` writes the figures into the README files
instead, between the markers that :mod:`benchmarks.reporting.documents` describes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import RESULTS
from benchmarks.reporting.documents import update
from benchmarks.reporting.page import page
from benchmarks.reporting.results import read_results
from edge_kp.cli import run_cli
from edge_kp.files import replacing

ROOT = Path(__file__).parents[1]


def _run(args: argparse.Namespace) -> None:
    results = read_results(args.results)
    if args.readme:
        for path in update(ROOT, results):
            print(f"wrote {path}")
        return
    out: Path = args.out or args.results / "report.html"
    with replacing(out) as part:
        part.write_text(page(results), encoding="utf-8")
    print(f"wrote {out}: {len(results.files)} results files, {len(results.pictures)} pictures")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.report", description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=RESULTS, metavar="DIR", help="default benchmarks/results")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--out", type=Path, metavar="FILE.html", help="default report.html beside the results")
    what.add_argument("--readme", action="store_true", help="write the figures into the README files instead")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
