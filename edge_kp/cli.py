"""What every command line shares: ``-v``, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from edge_kp.errors import EdgeKpError


def run_cli(
    body: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse and run; returns the exit code: 0, 1 for bad input, 130 after Ctrl-C (argparse exits with 2)."""
    parser.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    try:
        body(args)
    except EdgeKpError as error:
        if args.verbose:
            traceback.print_exc()
        lines = str(error).splitlines() or [type(error).__name__]
        for line in lines:
            print(f"error: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
