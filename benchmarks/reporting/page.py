"""The report: one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from fnmatch import fnmatchcase
from html import escape
from pathlib import Path

from benchmarks.reporting.documents import number
from benchmarks.reporting.results import OTHER_SHAPE, MissingFigure, Result, Results
from benchmarks.reporting.sections import GLANCE, OTHERS, SECTIONS, Part, whole
from benchmarks.reporting.tables import Table, everything, folded, told

OTHERWISE = "This table reads figures of another shape than these"
TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
STYLE = """
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.5rem 4rem; background: #fff; color: #1c2733;
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 3rem; border-bottom: 2px solid #0b5fa5; padding-bottom: .2rem; }
h3 { margin: 2rem 0 .3rem; } h4 { margin: 1.2rem 0 .2rem; } h5 { margin: 1rem 0 .2rem; }
nav a { margin-right: 1rem; } a { color: #0b5fa5; } p { max-width: 60rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0; font-size: 13.5px; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #dde3ea; text-align: left; vertical-align: top; }
th { background: #f3f6f9; font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.strong td { font-weight: 600; background: #eef5fb; }
.from { color: #5b6875; font-size: 13px; margin: .1rem 0 .4rem; }
.absent { color: #8a4b08; background: #fff6e8;
  padding: .4rem .7rem; border-left: 3px solid #d9822b; } code { font-size: 13px; overflow-wrap: anywhere; }
details { margin: .5rem 0; } summary { cursor: pointer; color: #0b5fa5; }
figure { margin: 1rem 0; } img, svg { max-width: 100%; height: auto; } svg { font-size: 12px; }
.grid line { stroke: #e3e8ee; } .grid text { fill: #5b6875; }
"""


def page(results: Results) -> str:
    """The whole page; the same results give the same text."""
    left = {**results.files, **dict.fromkeys(results.pictures)}
    sections = {
        title: "\n".join(_part(part, results, left) for part in parts) for title, parts in SECTIONS.items()
    }
    if left:
        sections["Other figures"] = _part(OTHERS, results, left)
    sections["Where the figures are from"] = _origins(results)
    links = "".join(f'<a href="#s{i}">{escape(title)}</a>\n' for i, title in enumerate(sections))
    body = "\n".join(
        f'<h2 id="s{i}">{escape(title)}</h2>\n{content}'
        for i, (title, content) in enumerate(sections.items())
    )
    dates = sorted(result.date for result in results.files.values())
    cpus = sorted({result.machine["cpu"] for result in results.files.values()})
    intro = (
        f"{len(results.files)} results files, measured from {dates[0]} to {dates[-1]} on {', '.join(cpus)}."
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>edge_kp: report</title><style>{STYLE}</style></head>\n<body>\n<h1>edge_kp: report</h1>\n"
        f"<p>{escape(intro)}</p>\n<nav>{links}</nav>\n{_glance(results)}\n{body}\n</body></html>\n"
    )


def _glance(results: Results) -> str:
    """The figures to know first."""
    rows = []
    for what, path, form, unit in GLANCE:
        try:
            rows.append((what, f"{number(path, form, results)} {unit}".strip()))
        except MissingFigure as error:
            rows.append((what, f"not measured ({error})"))
    return Table(("at a glance", ""), rows).html()


def _part(part: Part, results: Results, left: dict[str, Result | None]) -> str:
    """A part of a section; what it shows is taken out of ``left``."""
    names = [n for n, r in left.items() if fnmatchcase(f"{n}.json" if r else n, part.pattern)]
    found = [result for name in names if (result := left[name])]
    lines = [f"<h3>{escape(part.title)}</h3>", f"<p>{escape(part.about)}</p>" if part.about else ""]
    if not names:
        lines.append(f"<p class=absent>No {escape(part.pattern)} yet: {escape(part.absent)}</p>")
    elif found:
        lines += [_shown(part, results, found), *_folded(part, found)]
    lines += [_picture(results.pictures[name]) for name in names if left[name] is None]
    for name in names:
        del left[name]
    return "\n".join(line for line in lines if line)


def _shown(part: Part, results: Results, found: list[Result]) -> str:
    try:
        return (part.show or whole)(results, found)
    except (MissingFigure, *OTHER_SHAPE) as error:
        why = f"{type(error).__name__}: {error}"
        return f"<p class=absent>{OTHERWISE} ({escape(why)}). All of them:</p>\n{whole(results, found)}"


def _folded(part: Part, found: list[Result]) -> Iterator[str]:
    for result in found:
        origin = f"{result.name}.json: {result.command} ({result.date}, {result.commit or 'no commit'})"
        if part.show in (None, whole):
            yield f"<p class=from><code>{escape(origin)}</code></p>"
        else:
            yield folded(origin, everything(result.figures))


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = escape(path.name, quote=True)
    source = f"data:{TYPES[path.suffix]};base64,{data}"
    return f'<figure><img src="{source}" alt="{name}"><figcaption class=from>{name}</figcaption></figure>'


def _origins(results: Results) -> str:
    """The table of files, commands, dates, commits and machines."""
    rows = [
        (
            f"{name}.json",
            result.command,
            result.date,
            result.commit or "–",
            ", ".join(result.machine[key] for key in ("gpu", "cpu", "system") if key in result.machine),
            told({package: version for package, version in result.versions.items() if version}),
        )
        for name, result in results.files.items()
    ]
    columns = ("file", "command", "date", "commit", "machine", "versions")
    pictures = f"Pictures: {', '.join(results.pictures) or 'none'}."
    how = "A + behind a commit: its code had been changed when the figures were taken."
    return f"<p>{escape(how)}</p>\n{Table(columns, rows).html(fold=False)}\n<p>{escape(pictures)}</p>"
