"""What every command line shares: number types, ``-v``, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from edge_kp.errors import EdgeKpError

MOST = 2**31 - 1


def program(name: str) -> str:
    """How a program was called, for its usage line: as ``edge-kp NAME``, or as a module."""
    by_command = Path(sys.argv[0]).name.startswith("edge-kp")
    return f"edge-kp {name}" if by_command else f"python -m edge_kp.{name.replace('-', '_')}"


def positive(text: str) -> int:
    """An argparse type: a whole number from 1 up."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """An argparse type: a whole number from 0 up."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def number(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number from ``low`` to ``high``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, got {text!r}")
        return value

    return parse


def run_cli(
    body: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    settle: Callable[[argparse.Namespace], argparse.Namespace] = lambda args: args,
) -> int:
    """Parse and run; returns the exit code: 0, 1 for bad input, 130 after Ctrl-C (argparse exits with 2).

    Args:
        settle: makes the final arguments of those parsed, or refuses them, by ``parser.error`` or an error.
    """
    _open_closed_streams()
    parser.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        body(settle(args))
    except (EdgeKpError, OSError) as error:  # a path that cannot be written or read is bad input, too
        if args.verbose:
            traceback.print_exc()
        lines = _told(error).splitlines() or [type(error).__name__]
        for line in lines:
            print(f"error: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _open_closed_streams() -> None:
    """Where the caller closed stdout or stderr (``2>&-``) Python has none: what is said then goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))  # noqa: SIM115


_OF_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM)


def _told(error: Exception) -> str:
    """What an error says; of one of the system's the path first, as in our own, and not its number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        step = ": check the path, and that you may use it" if error.errno in _OF_PATHS else ""
        return f"{error.filename}: {error.strerror.lower()}{step}"
    return str(error)


def leave(code: int) -> NoReturn:
    """End the process with an exit code, whatever threads of ours still run.

    One that hangs in a driver or on a dead disk was left behind on purpose; while Python and the libraries
    are taken down under it, it would crash the process.
    """
    if any(thread.name.startswith("edge_kp") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
