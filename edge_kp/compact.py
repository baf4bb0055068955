"""``python -m edge_kp.compact``: the networks of a model folder share their weights, for less to copy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from edge_kp.cli import program, run_cli
from edge_kp.errors import BackendError
from edge_kp.extras import install
from edge_kp.modeldir import WEIGHTS, find_model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("compact"),
        description=f"Let all networks of a model folder share one file of weights, {WEIGHTS}: the same"
        " numbers stand in the files of every precision. The folder takes about a fifth of the room, and"
        " results stay as they are, those in FP32 to within rounding. The last step: a compact folder cannot"
        " be calibrated any more.",
    )
    parser.add_argument("--model", required=True, help="model folder that python -m edge_kp.export wrote")
    return parser


def _run(args: argparse.Namespace) -> None:
    try:
        from edge_kp.training.compacting import compact_model
    except ImportError as error:
        raise BackendError(f"this needs {error.name}: {install('train')}") from error
    folder = find_model(args.model)
    before, after = compact_model(folder)
    print(f"{folder}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
