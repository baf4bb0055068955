"""Figures in Markdown files: tables between markers, and single numbers in a sentence.

A table stands in a block of its own, by its name in :mod:`benchmarks.reporting.figures`::

    <!-- figures: precision -->
    (the table)
    <!-- end -->

A number in a sentence stands between a marker that names its results file, its keys and its format, and an
empty one. ``*`` adds up all of a level; the format is Python's, but ``.1%`` tells a share as 12.3 %::

    erred in <!--=soak/frames/failed ,-->272<!--/--> frames
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.reporting.figures import table
from benchmarks.reporting.results import MissingFigure, Results
from edge_kp.errors import DataError
from edge_kp.files import replacing

DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    "benchmarks/results/README.md",
    "docs/ceph19.md",
    "docs/figures.md",
    "docs/jetson.md",
    "docs/precision.md",
    "docs/training.md",
    "docs/your-own-object.md",
    "edge_kp/models/face68/README.md",
    "edge_kp/models/face68-nano/README.md",
    "edge_kp/models/face68-free/README.md",
    "benchmarks/models/face68-twin/README.md",
)
BLOCK = re.compile(
    r"^<!-- figures: (?P<name>[^\n]*?) -->\n(?P<old>.*?)<!-- end -->$", re.DOTALL | re.MULTILINE
)
NUMBER = re.compile(r"<!--=(?P<path>[^\n>]+) (?P<form>[^\s>]+)-->(?P<old>[^\n<]*)<!--/-->")
LOOSE = re.compile(r"(?<!`)<!--(?: figures:| end -->|=|/-->)")  # behind ` it is spoken of
FIRST = re.compile(r"^\s*<!--=", re.MULTILINE)
SHARE = re.compile(r"\.(\d)%")


def updated(text: str, name: str, results: Results) -> str:
    """The text of a Markdown file with the figures of the results.

    Args:
        name: of the file, for what is said about it.

    Raises:
        DataError: markers that do not pair, or figures that the results do not have; a line for each.
    """
    problems: list[str] = []

    def replaced(pattern: re.Pattern[str], text: str, new: Callable[[re.Match[str]], str]) -> str:
        def one(match: re.Match[str]) -> str:
            try:
                return new(match)
            except DataError as error:
                line = text.count("\n", 0, match.start()) + 1
                problems.extend(f"{name}:{line}: {problem}" for problem in error.problems)
                return match[0]

        return pattern.sub(one, text)

    left = NUMBER.sub("", BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text))
    for match in LOOSE.finditer(left):
        line = left.count("\n", 0, match.start()) + 1
        problems.append(
            f"{name}:{line}: {match[0]!r} without its counterpart; see benchmarks/results/README.md"
        )
    for match in FIRST.finditer(text):
        line = text.count("\n", 0, match.end()) + 1
        problems.append(
            f"{name}:{line}: a marker begins the line, which Markdown ends a paragraph at; move it"
        )
    text = replaced(NUMBER, text, lambda match: _number(match, results))
    text = replaced(BLOCK, text, lambda match: _block(match, results))
    if problems:
        raise DataError(*problems)
    return text


def _block(match: re.Match[str], results: Results) -> str:
    name = match["name"]
    return f"<!-- figures: {name} -->\n{table(name, results).markdown()}\n<!-- end -->"


def _number(match: re.Match[str], results: Results) -> str:
    path, form = match["path"], match["form"]
    return f"<!--={path} {form}-->{number(path, form, results)}<!--/-->"


def number(path: str, form: str, results: Results) -> str:
    """One figure of the results as text.

    Raises:
        DataError: there is none, it is no number, or the format is none.
    """
    value = results.figure(path)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MissingFigure(f"{path}: is no number; name one")
    try:
        if share := SHARE.fullmatch(form):
            return f"{100 * value:.{share[1]}f} %"
        return format(value, form)
    except ValueError as error:
        raise DataError(f"{path} {form}: {error}; use a format such as .2f") from error


def update(root: Path, results: Results) -> list[Path]:
    """Write the results' figures into every document; returns the files that changed.

    Raises:
        DataError: as :func:`updated`, of all documents; then none is written.
    """
    new: dict[Path, str] = {}
    problems: list[str] = []
    for name in DOCUMENTS:
        text = (root / name).read_text(encoding="utf-8")
        try:
            changed = updated(text, name, results)
        except DataError as error:
            problems += error.problems
            continue
        if changed != text:
            new[root / name] = changed
    if problems:
        raise DataError(*problems)
    for path, text in new.items():
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    return list(new)
