"""Which systems no other one beats in both error and time, and a picture of that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edge_kp.files import replacing

Point = tuple[float, float]
CLOCKS = {"ms": "whole call, ms a photo on one core", "network_ms": "networks alone, ms on one core"}


def front(points: Mapping[str, Point]) -> list[str]:
    """Names of the points that no other is better than or equal to in both numbers, by the first number.

    Less is better. Of points that are equal in both, all stay.
    """
    kept = [
        name
        for name, (a, b) in points.items()
        if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in points.values())
    ]
    return sorted(kept, key=lambda name: points[name])


def coordinates(systems: Mapping[str, Any], clock: str, markup: str) -> dict[str, Point]:
    """(time, NME) of the systems that have both.

    Args:
        systems: their rows in the result.
        clock: one of :data:`CLOCKS`.
        markup: ``fitted`` or ``unfitted``.
    """
    known = {}
    for name, row in systems.items():
        time, error = row["time"][clock], row[markup]
        if time is not None and error is not None and error["nme"] is not None:
            known[name] = (time["median"], error["nme"])
    return known


def draw(systems: Mapping[str, Any], path: Path, title: str) -> None:
    """Write a PNG: NME over time, one panel for each clock."""
    matplotlib.rcParams["font.size"] = 9
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(1, len(CLOCKS), sharey=True)
    for axes, (clock, label) in zip(panels, CLOCKS.items(), strict=True):
        _panel(axes, systems, clock)
        axes.set_xlabel(label)
    panels[0].set_ylabel("NME, % of the outer eye distance")
    names = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=name)
        for name, colour, marker in _styles(systems)
    ]
    figure.legend(handles=names, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{title}. Filled: fitted to the labels; hollow: as they are; lines: the fronts")
    with replacing(path) as part:
        figure.savefig(part, dpi=110)


def _styles(systems: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, colour and marker of each system."""
    return [(name, f"C{i % 10}", "osD^vP*X"[i % 8]) for i, name in enumerate(systems)]


def _panel(axes: Axes, systems: Mapping[str, Any], clock: str) -> None:
    both = {markup: coordinates(systems, clock, markup) for markup in ("unfitted", "fitted")}
    for markup, style in (("unfitted", ":"), ("fitted", "-")):
        corners = np.array([both[markup][name] for name in front(both[markup])]).reshape(-1, 2)
        axes.step(corners[:, 0], corners[:, 1], style, where="post", color="0.7", zorder=0)
        for name, colour, marker in _styles(systems):
            if name in both[markup]:
                x, y = both[markup][name]
                face = colour if markup == "fitted" else "none"
                axes.scatter(x, y, s=45, marker=marker, facecolor=face, edgecolor=colour)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
