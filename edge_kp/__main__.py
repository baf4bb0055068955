"""``edge-kp COMMAND``: every program of the package under one name."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from edge_kp import __version__
from edge_kp.cli import leave

# Command → its module, imported only when it is asked for, and what it does.
COMMANDS = {
    "run": ("edge_kp.run", "find keypoints in cameras, clips, pictures or streams"),
    "templates": ("edge_kp.templates.__main__", "build a template bank from labelled photos"),
    "train": ("edge_kp.train", "train locator and stages on labelled photos"),
    "export": ("edge_kp.export", "write the model folder of a trained run"),
    "evaluate": ("edge_kp.evaluate", "measure a model's accuracy on labelled photos"),
    "recipe": ("edge_kp.recipe", "train, export and evaluate as a file of settings says"),
    "prelabel": ("edge_kp.prelabel", "choose the photos to label next, with first labels to correct"),
    "relabel": ("edge_kp.relabel", "give photos the labels that a trained run sees"),
    "turn": ("edge_kp.turn", "show the faces of labelled photos with the heads turned further"),
    "calibrate": ("edge_kp.calibrate", "add fp16 and int8 networks to a model folder"),
    "compact": ("edge_kp.compact", "let the networks of a model folder share their weights"),
    "build-engine": ("edge_kp.build_engine", "build TensorRT engines on the machine that will run them"),
}


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        "edge-kp",
        usage="%(prog)s [-h] [--version] COMMAND …",
        description="Real-time keypoint detector with a shape prior.",
        epilog="\n".join(["commands:", *lines, "", "edge-kp COMMAND --help tells its options."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edge-kp {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, on the arguments after it; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not arguments or arguments[0].startswith("-"):
        parser.parse_known_args(arguments)  # --help and --version end here
        parser.error("name a command first, such as edge-kp run; edge-kp --help lists them")
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"is it {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        parser.error(f"{name}: no such command; {hint}")
    try:
        code: int = import_module(COMMANDS[name][0]).main(rest)
    except KeyboardInterrupt:  # while it was imported; later each program sees to it itself
        print("stopped", file=sys.stderr)
        return 130
    return code


def command() -> NoReturn:
    """The installed command: :func:`main`, and the end of the process."""
    leave(main())


if __name__ == "__main__":
    command()
