"""The picture of ``benchmarks.loop``: how time and age grow with objects, pixels and sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.files import replacing

Row = Mapping[str, Any]


def plot(rows: Sequence[Row], grown: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: medians with quartiles, and each line's slope in the legend.

    Args:
        rows, grown: of ``loop.json``: ``scenes``, and the slopes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    few_objects, few_sources = (min(row[what] for row in rows) for what in ("objects", "sources"))
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained", squeeze=False)
    columns = (
        ("objects", "ms_per_further_object", "object", ("sources", few_sources)),
        ("megapixels", "ms_per_megapixel", "megapixel", ("sources", few_sources)),
        ("sources", "ms_per_further_source", "source", ("objects", few_objects)),
    )
    for i, (what, key, one, (other, fewest)) in enumerate(columns):
        chosen = [{**row, "megapixels": row["width"] * row["height"] / 1e6} for row in rows]
        chosen = [row for row in chosen if row[other] == fewest]
        if what == "megapixels":
            lines = {"": [row for row in chosen if row["objects"] == few_objects]}
        else:
            lines = {
                size: [row for row in chosen if f"{row['width']}x{row['height']}" == size]
                for size in dict.fromkeys(f"{row['width']}x{row['height']}" for row in chosen)
            }
        for size, points in lines.items():
            slope = grown[key].get(size) if size else grown[key]
            for axis, figure_name in ((axes[0][i], "ms"), (axes[1][i], "age_ms")):
                label = size
                if figure_name == "ms" and slope is not None:
                    label = f"{size}{': ' if size else ''}{slope['median']:.2f} ms per further {one}"
                _line(axis, what, figure_name, points, label)
        if what != "megapixels":
            for axis in axes[:, i]:
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1][i].set_xlabel(_words(what, other, fewest, few_objects))
    axes[0][0].set_ylabel("full speed: ms for a frame of each source")
    axes[1][0].set_ylabel("paced at 30 fps: age of the result, ms")
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if any(text for text in axis.get_legend_handles_labels()[1]):
            axis.legend(fontsize=8)
    with replacing(path) as part:
        figure.savefig(part, dpi=110)
    plt.close(figure)


def _line(axis: Any, what: str, figure: str, points: Sequence[Row], label: str) -> None:
    points = sorted(points, key=lambda row: row[what])
    middle = np.array([row[figure]["median"] for row in points])
    ends = np.array([row[figure]["quartiles"] for row in points]).T
    axis.errorbar(
        [row[what] for row in points],
        middle,
        # Rounded each on its own, a quartile may lie beyond the median by a last digit.
        np.maximum([middle - ends[0], ends[1] - middle], 0),
        marker="o",
        markersize=3,
        capsize=2,
        label=label or None,
    )


def _words(what: str, other: str, fewest: int, few_objects: int) -> str:
    if what == "megapixels":
        return f"million pixels of a frame ({few_objects} object(s), {fewest} source(s))"
    return f"{what} ({fewest} {other[:-1]}(s))"
