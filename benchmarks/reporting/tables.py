"""Tables as HTML and as Markdown, and any figures as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

LONG = 24  # rows; a longer table is folded
ABREAST = 10  # figures that stand side by side
UNITS = {"ms": "ms", "percent": "%", "mb": "MB", "px": "px", "mm": "mm", "fps": "FPS", "s": "s", "cm": "cm"}
Row = tuple[tuple[str, ...], dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """Cells as plain text, by rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: int | None = None
    """Row to look at."""

    def html(self, fold: bool = True) -> str:
        """A table that scrolls within itself.

        Args:
            fold: whether a long one is shown on a click only.
        """
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            f"<tr{' class=strong' if i == self.strong else ''}>{_cells(row)}</tr>\n"
            for i, row in enumerate(self.rows)
        )
        table = f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
        return table if len(self.rows) <= LONG or not fold else folded(f"{len(self.rows)} rows", table)

    def markdown(self) -> str:
        """A table of GitHub's Markdown, without a line's end behind it."""
        lines = [_line(map(_plain, self.columns)), "|---" * len(self.columns) + "|"]
        for i, row in enumerate(self.rows):
            cells = map(_plain, row)
            lines.append(_line(f"**{cell}**" if i == self.strong and cell else cell for cell in cells))
        return "\n".join(lines)


def _cells(row: Sequence[str]) -> str:
    first = f"<td>{escape(row[0])}</td>" if row else ""  # a name, even where it begins with a number
    return first + "".join(map(_cell, row[1:]))


def _cell(text: str) -> str:
    number = (
        text[:1].isdigit() or text[:2] in {f"{sign}{n}" for sign in "+-−" for n in range(10)} or text == "–"
    )
    return f"<td class=n>{escape(text)}</td>" if number else f"<td>{escape(text)}</td>"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _plain(text: str) -> str:
    """Text that stays in its cell and means nothing else in Markdown."""
    flat = " ".join(text.split())
    for sign in "\\`*_|[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat.replace("&", "&amp;").replace("<", "&lt;")


def folded(title: str, content: str) -> str:
    """HTML that is shown on a click; the title is plain text."""
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>"


def told(value: Any) -> str:
    """A figure as text: four digits that count, thousands apart, – for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, dict):
        if set(value) == {"mean", "std"}:
            return f"{told(value['mean'])} ± {told(value['std'])}"
        return ", ".join(f"{key}: {told(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(told, value)) or "none"
    return str(value)


def label(key: str) -> str:
    """A key as a heading: ``search_median_ms`` as ``search median, ms``."""
    words = key.split("_")
    if len(words) > 1 and words[-1] in UNITS:
        return f"{' '.join(words[:-1])}, {UNITS[words[-1]]}"
    return " ".join(words)


def everything(figures: dict[str, Any]) -> str:
    """Any figures as HTML tables: what stands at the top in one, each branch below in its own."""
    top = {key: value for key, value in figures.items() if _is_leaf(value)}
    parts = [Table(("figure", "value"), [(label(k), told(v)) for k, v in top.items()]).html()] if top else []
    for key, value in figures.items():
        if not _is_leaf(value):
            tables = [_table(list(rows)).html() for _, rows in groupby(_rows(value), lambda row: len(row[0]))]
            parts.append(f"<h5>{escape(label(key))}</h5>\n" + "\n".join(tables))
    return "\n".join(parts)


def _is_leaf(value: Any) -> bool:
    """Does it fit a cell?"""
    if isinstance(value, dict):
        return not value or set(value) == {"mean", "std"}
    return not (isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value))


def _rows(value: Any, path: tuple[str, ...] = ()) -> Iterator[Row]:
    """Every branch's own figures, with the path to them; a list's parts are a row each."""
    if isinstance(value, list):
        for i, part in enumerate(value):
            yield (*path, str(i + 1)), dict(_flat(part))
        return
    parts = value
    leaves = {key: part for key, part in parts.items() if _is_leaf(part)}
    if leaves:
        yield path, leaves
    for key, part in parts.items():
        if key not in leaves:
            yield from _rows(part, (*path, key))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All figures of a list's part, each in a column of its own."""
    if not isinstance(value, dict) or _is_leaf(value):
        yield name or "value", value
        return
    for key, part in value.items():
        yield from _flat(part, f"{name} {key}".strip())


def _table(rows: list[Row]) -> Table:
    """One table of rows whose paths are equally long; a path's part is told where it changes."""
    depth = len(rows[0][0])
    first = rows[0][1]
    if (
        not depth
        and len(rows) == 1
        and len(first) <= ABREAST
        and not any(isinstance(v, str) for v in first.values())
    ):
        return Table([label(key) for key in first], [[told(value) for value in first.values()]])
    if not depth:
        return Table(("figure", "value"), [(label(k), told(v)) for _, row in rows for k, v in row.items()])
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    cells, before = [], ("",) * depth
    for path, row in rows:
        same = next((i for i in range(depth) if path[i] != before[i]), depth)
        names = ["" if i < same else label(name) for i, name in enumerate(path)]
        cells.append([*names, *(told(row[key]) if key in row else "" for key in columns)])
        before = path
    return Table([*[""] * depth, *(label(key) for key in columns)], cells)
