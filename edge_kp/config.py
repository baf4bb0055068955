"""Settings from a TOML file, by the names of a command's flags."""

from __future__ import annotations

import argparse
import copy
import difflib
import re
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edge_kp.errors import ConfigError
from edge_kp.files import reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OF_SOURCES = ("width", "height", "fps")  # what the file asks of its own cameras
SOURCES = ("camera", "source")  # what a command line says of these replaces all that the file says


def with_config(
    args: argparse.Namespace, parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """The arguments of a command line with those of the file that its ``--config`` names.

    The line's flags win; where it names sources, so do they over all of the file's.

    Raises:
        ConfigError: the file cannot be read, or a setting is none or has a value that it cannot have.
    """
    line = list(sys.argv[1:] if argv is None else argv)
    told = {*SOURCES, *OF_SOURCES} if any(getattr(args, name, None) for name in SOURCES) else set()
    words = command_line(args.config, read_toml(args.config), parser, told)
    check_arguments(str(args.config), parser, words)
    return parser.parse_args([*words, *line])


def read_toml(path: Path) -> dict[str, Any]:
    """
    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}: check the path") from error
    except RecursionError:
        raise ConfigError(f"{path}: not TOML: nested too deeply") from None
    except ValueError as error:  # an error of the syntax or of UTF-8, or a number of thousands of digits
        raise ConfigError(f"{path}: not TOML: {error}") from error


def command_line(
    path: Path | str,
    settings: Mapping[str, Any],
    parser: argparse.ArgumentParser,
    without: Container[str] = (),
) -> list[str]:
    """Settings from a file as the command line that would say the same, but for the keys in ``without``.

    Args:
        path: of the file, for messages; where in it may stand behind.

    A key is a flag's name without its dashes, with ``_`` or ``-`` inside; ``true`` gives a flag without
    value, ``false`` leaves it out, and a list gives a flag all its values, or repeats one that takes a
    single value at a time.

    Raises:
        ConfigError: a key is no flag, or its value is not of the flag's kind.
    """
    flags = {
        option.removeprefix("--"): action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and option not in ("--help", "--config")
    }
    arguments: list[str] = []
    for key, value in settings.items():
        name = key.replace("_", "-")
        if name not in flags:
            near = difflib.get_close_matches(name, flags, 1)
            hint = f"; is it {near[0]}?" if near else f"; there are {', '.join(sorted(flags))}"
            raise ConfigError(f"{path}: {key}: no such setting{hint}")
        said = _said(path, key, value, flags[name])
        if name not in without:
            arguments += said
    return arguments


def check_arguments(where: str, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """What a command itself would refuse with its usage, which does not tell the file.

    Args:
        where: the file, and the place in it.

    Raises:
        ConfigError: a value is not one of a flag's choices, or there are too many or too few, say.
    """

    def refuse(message: str) -> NoReturn:
        told = re.sub("^argument (-[^ :]+/)?--", "", message)
        told = re.sub("(: expected [a-z0-9 ]+) argument", r"\1 value", told)
        raise ConfigError(f"{where}: {told}")

    strict = copy.copy(parser)
    strict.error = refuse  # type: ignore[method-assign]
    strict.parse_args(arguments)


def _said(path: Path | str, key: str, value: Any, action: argparse.Action) -> list[str]:
    flag = action.option_strings[-1]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ConfigError(f"{path}: {key}: expected true or false, got {value!r}")
        return [flag] if value else []
    values = value if isinstance(value, list) else [value]
    several = action.nargs is not None
    if isinstance(value, list) and not several and not isinstance(action, argparse._AppendAction):
        raise ConfigError(f"{path}: {key}: expected one value, got a list of {len(value)}")
    if any(isinstance(v, (bool, dict, list)) for v in values):
        raise ConfigError(f"{path}: {key}: expected a text or a number, got {value!r}")
    if any("\0" in str(v) for v in values):
        raise ConfigError(f"{path}: {key}: holds a NUL character")
    return [flag, *map(str, values)] if several else [f"{flag}={v}" for v in values]
