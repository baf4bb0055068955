"""``python -m edge_kp.recipe FILE.toml``: from labelled pictures to a measured model, all settings in a file.

A recipe has a table for each step: ``[train]``, ``[export]``, ``[calibrate]`` (may be left out) and
``[evaluate]``. Its keys are the flags of that command, but for the folders, which are made under ``--out``.
``{data}`` in a text stands for the folder that ``--data`` names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_kp import calibrate, evaluate, export, train
from edge_kp.cli import program, run_cli
from edge_kp.config import check_arguments, command_line, read_toml
from edge_kp.errors import ConfigError, EdgeKpError


class Step(NamedTuple):
    """A command, and where it reads and writes under ``--out``."""

    make_parser: Callable[[], argparse.ArgumentParser]
    main: Callable[[Sequence[str]], int]
    folders: Mapping[str, str]


STEPS = {
    "train": Step(train.make_parser, train.main, {"out": "run"}),
    "export": Step(export.make_parser, export.main, {"run": "run", "out": "model"}),
    "calibrate": Step(calibrate.make_parser, calibrate.main, {"model": "model", "report": "calibration"}),
    "evaluate": Step(
        evaluate.make_parser,
        evaluate.main,
        {"model": "model", "json": "evaluation.json", "plots": "plots"},
    ),
}
OPTIONAL = ("calibrate",)


def commands(path: Path, data: str, out: Path) -> list[tuple[str, list[str]]]:
    """Each step of a recipe with its command line, in order.

    Raises:
        ConfigError: the file cannot be read, a table is missing or unknown, or a key is no flag or has a
            value that the flag does not take.
    """
    recipe = read_toml(path)
    for name, table in recipe.items():
        if name not in STEPS or not isinstance(table, dict):
            raise ConfigError(f"{path}: {name}: expected the tables {', '.join(STEPS)}")
    found = []
    for name, step in STEPS.items():
        if name not in recipe:
            if name in OPTIONAL:
                continue
            raise ConfigError(f"{path}: the table [{name}] is missing")
        for key in step.folders:
            if key in recipe[name]:
                raise ConfigError(f"{path}: {key} of {name} is made under --out; leave it out")
        settings = _filled(recipe[name], data)
        folders = [word for key, place in step.folders.items() for word in (f"--{key}", str(out / place))]
        where, parser = f"{path}: [{name}]", step.make_parser()
        arguments = [*command_line(where, settings, parser), *folders]
        check_arguments(where, parser, arguments)
        found.append((name, arguments))
    return found


def _filled(value: Any, data: str) -> Any:
    if isinstance(value, str):
        return value.replace("{data}", data)
    if isinstance(value, list):
        return [_filled(part, data) for part in value]
    return {key: _filled(part, data) for key, part in value.items()} if isinstance(value, dict) else value


def _run(args: argparse.Namespace) -> None:
    for name, arguments in commands(args.recipe, args.data, args.out):
        print(f"\n{program(name)} {' '.join(arguments)}\n", flush=True)
        if STEPS[name].main([*arguments, "-v"] if args.verbose else arguments):
            raise EdgeKpError(f"{name} failed; the same command goes on once its cause is mended")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        program("recipe"),
        description="Train, export and evaluate by a recipe; the same command again goes on where it stood.",
    )
    parser.add_argument("recipe", type=Path, metavar="FILE.toml")
    parser.add_argument("--data", required=True, metavar="DIR", help="what {data} in the recipe stands for")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for run, model and results")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
