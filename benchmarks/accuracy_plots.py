"""Pictures of :mod:`benchmarks.accuracy`; none of them shows a photo, but :func:`write_worst`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from benchmarks.accuracy_parts import MEASURED
from edge_kp.errors import DataError
from edge_kp.files import replacing
from edge_kp.schema import KeypointSchema
from edge_kp.training.evaluation import Evaluation
from edge_kp.training.plots import draw_worst
from edge_kp.types import Array

COLOURS = dict(zip(MEASURED, ("C1", "C0"), strict=True))
LOGARITHMIC = ("size", "brightness")
NAMED = 6  # points with the largest errors are named


def write_figure(figure: Figure, path: Path) -> None:
    """Write a picture as a whole, or leave what was there."""
    with replacing(path) as part:
        figure.savefig(part, dpi=110)
    print(f"wrote {path}")


def draw_degradations(parts: Mapping[str, Any], title: str) -> Figure:
    """One panel for each degradation: NME at each level, and the share of failures as bars.

    Args:
        parts: of :func:`benchmarks.accuracy_parts.by_degradation`.
    """
    columns = min(4, len(parts))
    lines = -(-len(parts) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[len(parts) :]:
        panel.remove()
    for panel, (name, part) in zip(panels, parts.items(), strict=False):
        _draw_levels(panel, name, part)
    panels[0].legend(fontsize=8)
    figure.suptitle(
        f"{title}\ndotted: photos as they are; grey bars: cascade's failures beyond 10 %, right scale",
        fontsize=9,
    )
    return figure


def _draw_levels(panel: Any, name: str, part: Mapping[str, Any]) -> None:
    levels = [row for row in part["levels"] if row["level"] is not None]
    plain = next((row for row in part["levels"] if row["level"] is None), None)
    at = [row["level"] for row in levels]
    failures = panel.twinx()
    failures.set_ylim(0, 100)
    failures.tick_params(labelsize=7, colors="0.5")
    if name in LOGARITHMIC:
        panel.set_xscale("log")
        panel.set_xticks(at, [f"{level:g}" for level in at])
        panel.minorticks_off()
        widths = [0.12 * level for level in at]
    else:
        widths = [0.03 * (max(at) - min(at))] * len(at)
    failures.bar(at, [row["cascade"]["fr10"] or 0 for row in levels], widths, color="0.85", zorder=0)
    panel.set_zorder(failures.get_zorder() + 1)
    panel.patch.set_visible(False)
    for output in MEASURED:
        values = [np.nan if row[output]["nme"] is None else row[output]["nme"] for row in levels]
        panel.plot(at, values, "o-", markersize=3.5, linewidth=1.2, color=COLOURS[output], label=output)
        if plain and plain[output]["nme"] is not None:
            panel.axhline(plain[output]["nme"], color=COLOURS[output], linewidth=0.9, linestyle=":")
    if name in ("size", "jpeg"):
        panel.invert_xaxis()  # worse to the right
    panel.set_ylim(bottom=0)
    panel.set_title(name.replace("_", " "), fontsize=9)
    panel.set_xlabel(part["unit"], fontsize=8)
    panel.set_ylabel("NME, %", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(alpha=0.3)


def draw_points(
    errors: Mapping[str, float | None], schema: KeypointSchema, mean_shape: Array, title: str
) -> Figure:
    """The mean error of each point as a disc of that radius on the mean shape, to the shape's own scale.

    Args:
        errors: point → mean error in % of the reference distance, None where there is none.
        mean_shape: (N, 2).
    """
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.subplots()
    shape = mean_shape.astype(np.float64) / schema.reference_distance(mean_shape.astype(np.float64)) * 100
    values = np.array([np.nan if errors[name] is None else errors[name] for name in schema.keypoints])
    for a, b in schema.edges:
        axes.plot(*shape[[a, b]].T, color="0.75", linewidth=0.8, zorder=1)
    known = np.flatnonzero(~np.isnan(values))
    highest = float(values[known].max()) if len(known) else 1.0
    x, y = shape[known].T
    colours = axes.scatter(x, y, s=12, c=values[known], cmap="viridis_r", vmin=0, vmax=highest, zorder=3)
    for i in known:
        colour = colours.cmap(colours.norm(values[i]))
        centre = (float(shape[i, 0]), float(shape[i, 1]))
        axes.add_patch(Circle(centre, values[i], color=colour, alpha=0.35, zorder=2, linewidth=0))
    worst = known[np.argsort(-values[known], kind="stable")[:NAMED]]
    spread = shape - shape.mean(0)
    for i in worst:
        outwards = spread[i] / max(float(np.linalg.norm(spread[i])), 1e-9)
        axes.annotate(
            f"{schema.keypoints[i]} {values[i]:.1f}",
            shape[i],
            shape[i] + outwards * (values[i] + 5),
            fontsize=7,
            ha="right" if outwards[0] < -0.3 else "left" if outwards[0] > 0.3 else "center",
            va="center",
        )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.margins(0.16)
    axes.set_axis_off()
    figure.colorbar(colours, ax=axes, shrink=0.7, label="mean error, % of the reference distance")
    axes.set_title(f"{title}\nradius of a disc: mean error of that point, cascade", fontsize=9)
    return figure


def write_worst(evaluation: Evaluation, path: Path, count: int) -> None:
    """The ``count`` photos with the largest errors as one picture, labels green, result red.

    Raises:
        DataError: OpenCV cannot write it.
    """
    with replacing(path) as part:
        if not cv2.imwrite(str(part), draw_worst(evaluation, count)):
            raise DataError(f"{path}: cannot be written; give another --worst")
    print(f"wrote {path}")
