"""Error curves of the accuracy files, drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from benchmarks.reporting.results import MissingFigure, Result

COLOURS = ("#0b5fa5", "#c2410c", "#15803d", "#7c3aed", "#b45309", "#be185d", "#0f766e", "#475569")
WIDTH, HEIGHT, LEFT, TOP, MOST = 640, 300, 44, 10, 15.0


def error_curves(results: Sequence[Result]) -> str:
    """Share of the objects (up) whose cascade errs by at most so much (right), a line for each file.

    Raises:
        MissingFigure: a file without ``errors_percent``.
    """
    lines = []
    for i, result in enumerate(results):
        rows = result.at("errors_percent").values()
        errors = [row.get("cascade") for row in rows]
        if not all(error is None or isinstance(error, (int, float)) for error in errors) or not errors:
            raise MissingFigure(f"{result.name}.json: errors_percent/…/cascade are no numbers; measure again")
        known = np.sort([error for error in errors if error is not None and error <= MOST])
        shares = np.arange(1, len(known) + 1) / len(errors)
        start, end = (known[0], shares[-1]) if len(known) else (MOST, 0.0)
        points = [(0.0, 0.0), (start, 0.0), *zip(known, shares, strict=True), (MOST, end)]
        path = " ".join(f"{_x(error):.1f},{_y(share):.1f}" for error, share in points)
        colour = COLOURS[i % len(COLOURS)]
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        x, y, name = _x(MOST) + 14, TOP + 16 + 18 * i, escape(result.name.removeprefix("accuracy-"))
        lines.append(f'<text x="{x}" y="{y}" fill="{colour}">{name}</text>')
    grid = [
        f'<line x1="{LEFT}" x2="{_x(MOST)}" y1="{_y(s)}" y2="{_y(s)}"/><text x="{LEFT - 6}" y="{_y(s) + 4}" '
        f'text-anchor="end">{100 * s:.0f} %</text>'
        for s in (0, 0.25, 0.5, 0.75, 1)
    ] + [
        f'<line x1="{_x(e)}" x2="{_x(e)}" y1="{_y(0)}" y2="{_y(1)}"/><text x="{_x(e)}" y="{_y(0) + 16}" '
        f'text-anchor="middle">{e}</text>'
        for e in (0, 2, 4, 6, 8, 10, 12, 14)
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH + 260} {HEIGHT + 44}" role="img" aria-label="error curves">'
        f'<g class="grid">{"".join(grid)}</g>{"".join(lines)}'
        f'<text x="{(LEFT + _x(MOST)) / 2}" y="{HEIGHT + 38}" text-anchor="middle">'
        "error of an object, % of the reference distance</text></svg>"
    )


def _x(error: float) -> float:
    return LEFT + (WIDTH - LEFT) * error / MOST


def _y(share: float) -> float:
    return TOP + (HEIGHT - TOP) * (1 - share)
