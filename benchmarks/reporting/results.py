"""Results files, checked: what each must hold, and its figures by path."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from edge_kp.errors import DataError
from edge_kp.files import parse_json

ORIGIN = ("command", "date", "commit", "machine", "versions")
COMMAND = re.compile(r"python -m (benchmarks|edge_kp)\.\w+( .*)?")
COMMIT = re.compile(r"[0-9a-f]{7,40}\+?")
MACHINE = {"cpu": True, "system": True, "gpu": False}  # entries, and whether each must be there
PICTURES = (".png", ".jpg")
BESIDE = ("README.md", "report.html")
OTHER_SHAPE = (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration)
"""What reading figures that are built otherwise ends with."""


class MissingFigure(DataError):
    """No results file holds this figure."""


@dataclass(frozen=True)
class Result:
    """One results file: where its figures are from, and the figures."""

    name: str
    """Of the file, without ``.json``."""
    command: str
    date: str
    commit: str | None
    machine: dict[str, str]
    versions: dict[str, str | None]
    figures: dict[str, Any]

    def at(self, *keys: str) -> Any:
        """The entry behind the keys; ``*`` stands for all of a level, whose numbers are added up.

        Raises:
            MissingFigure: there is none.
        """
        return self._walk(self.figures, keys, "/".join(keys))

    def _walk(self, place: Any, keys: Sequence[str], path: str) -> Any:
        for i, key in enumerate(keys):
            if key == "*" and isinstance(place, dict) and place:
                return sum(
                    self._number(self._walk(part, keys[i + 1 :], path), path) for part in place.values()
                )
            if isinstance(place, dict) and key in place:
                place = place[key]
            elif isinstance(place, list) and key.isdecimal() and int(key) < len(place):
                place = place[int(key)]
            else:
                raise MissingFigure(
                    f"{self.name}.json: holds no figure {path}; mend the path or measure again"
                )
        return place

    def _number(self, value: Any, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise MissingFigure(f"{self.name}.json: {path} is no number; mend the path or measure again")
        return value


@dataclass(frozen=True)
class Results:
    """All results files of a folder, and its pictures, by name."""

    files: dict[str, Result]
    pictures: dict[str, Path]

    def __getitem__(self, name: str) -> Result:
        if name not in self.files:
            raise MissingFigure(f"{name}.json: no such results file; run the benchmark that writes it")
        return self.files[name]

    def matching(self, pattern: str) -> list[Result]:
        """Those whose file name fits a pattern such as ``clip-*.json``, by name."""
        return [result for name, result in self.files.items() if fnmatchcase(f"{name}.json", pattern)]

    def figure(self, path: str) -> Any:
        """The figure at ``FILE/KEY/KEY``."""
        name, _, keys = path.partition("/")
        return self[name].at(*keys.split("/"))


def read_results(folder: Path = RESULTS) -> Results:
    """All results files and pictures of a folder.

    Raises:
        DataError: the folder or files are missing or break the schema, one line for each.
    """
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; name a folder of results files") from error
    files: dict[str, Result] = {}
    pictures: dict[str, Path] = {}
    problems: list[str] = []
    for path in sorted(found, key=lambda path: (path.stem, path.suffix)):
        if path.suffix == ".json":
            try:
                files[path.stem] = read_result(path)
            except DataError as error:
                problems += error.problems
        elif path.suffix in PICTURES:
            pictures[path.name] = path
        elif path.name not in BESIDE:
            problems.append(f"{path}: neither a results file (.json) nor a picture ({', '.join(PICTURES)})")
    if not files and not problems:
        problems.append(f"{folder}: holds no results file; run a benchmark first")
    if problems:
        raise DataError(*problems)
    return Results(files, pictures)


def read_result(path: Path) -> Result:
    """One results file, checked.

    Raises:
        DataError: it cannot be read or breaks the schema; one line that says how.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # half a character, written as \\ud800, ends here
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; measure again") from error
    except ValueError as error:  # of the text's encoding, too
        raise DataError(f"{path}: no JSON ({' '.join(str(error).split())}); measure again") from error
    if fault := _fault(content):
        raise DataError(f"{path}: {fault}; see benchmarks/results/README.md")
    figures = {key: value for key, value in content.items() if key not in ORIGIN}
    return Result(name=path.stem, figures=figures, **{key: content[key] for key in ORIGIN})


def _fault(content: Any) -> str | None:
    """What breaks the schema, or None."""
    if not isinstance(content, dict):
        return f"expected an object, got {type(content).__name__}"
    if missing := [key for key in ORIGIN if key not in content]:
        return f"without {', '.join(missing)}"
    if len(content) == len(ORIGIN):
        return "holds no figure"
    command, day, commit = (content[key] for key in ORIGIN[:3])
    if not isinstance(command, str) or not COMMAND.fullmatch(command):
        return f"command: expected 'python -m benchmarks.NAME …', got {_said(command)}"
    if not isinstance(day, str) or not _is_date(day):
        return f"date: expected YYYY-MM-DD, got {_said(day)}"
    if commit is not None and not (isinstance(commit, str) and COMMIT.fullmatch(commit)):
        return f"commit: expected a short hash, '+' behind it for changed code, or null, got {_said(commit)}"
    return _fault_of_machine(content["machine"]) or _fault_of_versions(content["versions"]) or _odd(content)


def _fault_of_machine(machine: Any) -> str | None:
    if not isinstance(machine, dict):
        return f"machine: expected an object, got {_said(machine)}"
    for key, needed in MACHINE.items():
        value = machine.get(key)
        if (key in machine or needed) and not (isinstance(value, str) and value):
            return f"machine: {key}: expected a name, got {_said(value)}"
    unknown = sorted(set(machine) - set(MACHINE))
    return f"machine: unknown {', '.join(unknown)}" if unknown else None


def _fault_of_versions(versions: Any) -> str | None:
    if not isinstance(versions, dict) or "edge-kp" not in versions:
        return "versions: expected an object that names edge-kp among the packages"
    wrong = [name for name, value in versions.items() if value is not None and not isinstance(value, str)]
    return (
        f"versions: {wrong[0]}: expected a version or null, got {_said(versions[wrong[0]])}"
        if wrong
        else None
    )


def _odd(value: Any, path: str = "") -> str | None:
    """Where a number stands that JSON does not know, such as NaN."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return f"{path}: {value} is no figure"
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    faults = (_odd(part, f"{path}/{key}".lstrip("/")) for key, part in parts)
    return next((fault for fault in faults if fault), None)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _said(value: Any) -> str:
    text = " ".join(json.dumps(value, ensure_ascii=False, default=str).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
