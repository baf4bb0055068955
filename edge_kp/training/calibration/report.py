"""What a calibration found, as JSON, as a page and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from edge_kp.files import replacing
from edge_kp.training.calibration.search import ALONE, EQUAL, LEAST, OUTLIER
from edge_kp.training.ranges import STYLES

FILES = ("report.json", "manifest.json", "ranges.json", "README.md", "layers.png")


def write_report(
    folder: Path, report: Mapping[str, Any], manifest: Mapping[str, Any], ranges: Mapping[str, Any]
) -> list[Path]:
    """Write :data:`FILES` and return their paths."""
    paths = [folder / name for name in FILES]
    for path, content in zip(paths, (report, manifest, ranges), strict=False):
        with replacing(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with replacing(paths[3]) as part:
        part.write_text(page(report), encoding="utf-8")
    with replacing(paths[4]) as part:
        draw(report).savefig(part, dpi=110)
    return paths


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# Calibration of {report['model']}",
        "",
        f"Written by `{report['command']}`.",
        "",
        f"{report['images']} images of {', '.join(report['data'])} (`manifest.json` names them), judged on"
        f" {report['validation']['samples']} objects of {', '.join(report['validation']['data'])}"
        " in ONNX Runtime.",
        "NME is the error to the labels, shift the distance from the FP32 result, both in % of the reference"
        " distance.",
        "",
        "## The files",
        "",
        *_table("precision", report["precisions"]),
        *_left_out(report.get("left_out", [])),
        *_times(report["onnxruntime_seconds"]),
    ]
    lines += ["## The methods", "", *_methods(report), "## The layers", "", *_layers(report)]
    return "\n".join(lines) + "\n"


def _table(head: str, rows: Mapping[str, Any]) -> list[str]:
    """A table of figures by name."""
    columns = [head, "NME %", "shift %"]
    if all("locator" in figures for figures in rows.values()):
        columns.append("boxes like FP32's %")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, figures in rows.items():
        cells = [name, f"{figures['stages']['nme']:.3f}", f"{figures['stages']['shift']:.3f}"]
        if "locator" in figures:
            cells.append(f"{100 * figures['locator']['agreement']:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _left_out(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    listed = ", ".join(f"`{name}`" for name in names)
    return [f"Left out, since beyond tolerance of PyTorch's results: {listed}.", ""]


def _times(seconds: Mapping[str, float]) -> list[str]:
    """Which of the precisions for CPUs is faster, and so ``auto``'s."""
    first, second = sorted(seconds, key=seconds.__getitem__)
    return [
        "In ONNX Runtime, on one core of the machine that calibrated, both stages take"
        f" {seconds[first] / seconds[second]:.2f} times as long in `{first}` as in `{second}`: `auto` takes"
        f" `{first}` there.",
        "",
    ]


def _methods(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"The stages take the method with the smallest NME; within {EQUAL} points of it, the smallest shift"
        " decides. The locator takes the one whose boxes are most like those of FP32: the IoU of the boxes"
        " that both found, summed, over the number of all boxes.",
        "",
    ]
    for style in STYLES:
        chosen = report["methods"][style]
        lines += [f"`{style}`: {', '.join(f'{name} {method}' for name, method in chosen.items())}.", ""]
        lines += _table("method", report["trials"][style])
    return lines


def _layers(report: Mapping[str, Any]) -> list[str]:
    whole = report.get("kept_by_tolerance") or {style: [] for style in STYLES}
    kept = [
        f"- `{style}`, {name}: `{layer}`, {report['layers'][name][style][layer]:.5f}"
        for style in STYLES
        for name, layers in report["kept"][style].items()
        for layer in layers
        if name not in whole[style] and (style != "int8-cpu" or name not in report["exact"])
    ]
    kept += [
        f"- `{style}`, {name}: all of it, since it differed from PyTorch beyond tolerance"
        for style in STYLES
        for name in whole[style]
    ]
    kept += [f"- `int8-cpu`, {name}: all of it, as `--exact` says" for name in report["exact"]]
    lines = [
        f"Each layer was quantised alone: how far that moves the result, over {ALONE} of the images, in sides"
        f" of the network's input. A layer that moves it by more than {OUTLIER:g} times the median of its"
        f" network and more than {LEAST:g} stays in higher precision.",
        "",
        *(["Kept:", "", *kept] if kept else ["None had to be kept."]),
        "",
        "![shift of every layer](layers.png)",
        "",
    ]
    for name, styles in report["layers"].items():
        lines += [f"| {name} | {' | '.join(STYLES)} |", "|---|" + "---|" * len(STYLES)]
        for layer in _names(styles):
            shown = [f"{styles[s][layer]:.5f}" if layer in styles[s] else "not quantised" for s in STYLES]
            lines.append(f"| {layer} | {' | '.join(shown)} |")
        lines.append("")
    return lines


def _names(styles: Mapping[str, Mapping[str, float]]) -> list[str]:
    """All layers of a network in their order; one style has those of the other."""
    return max((list(shifts) for shifts in styles.values()), key=len)


def draw(report: Mapping[str, Any]) -> Figure:
    """Bars: the shift of every layer alone, a panel for each network."""
    matplotlib.rcParams["font.size"] = 8
    layers = report["layers"]
    most = max(len(shifts) for styles in layers.values() for shifts in styles.values())
    figure = Figure(figsize=(4.2 * len(layers), 1.2 + 0.24 * most), layout="constrained")
    panels = figure.subplots(1, len(layers), squeeze=False, sharex=True)[0]
    for axes, (name, styles) in zip(panels, layers.items(), strict=True):
        names = _names(styles)
        at = np.arange(len(names))
        for i, style in enumerate(STYLES):
            shifts = [styles[style].get(layer, 0.0) for layer in names]
            axes.barh(at + 0.4 * i - 0.2, shifts, 0.4, label=style)
        axes.axvline(LEAST, color="grey", linestyle=":", linewidth=1, label="least to be kept")
        short = [layer.partition(".")[2] or layer for layer in names]
        axes.set_yticks(at, short)
        axes.set_ylim(most - 0.5, -0.5)  # the first layer on top, bars of one width in all panels
        axes.set(title=name, xlabel="shift, sides of the input")
        axes.grid(axis="x", alpha=0.3)
    panels[0].legend(loc="lower right")
    figure.suptitle(f"{report['model']}: how far one quantised layer moves the result")
    return figure
