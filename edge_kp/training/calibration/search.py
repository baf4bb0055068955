"""Which way of measuring ranges is best, and which layers do not bear 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge_kp.cascade import Cascade
from edge_kp.errors import DataError
from edge_kp.geometry import box_iou
from edge_kp.locator import NetworkLocator
from edge_kp.metrics import nme
from edge_kp.modeldir import ModelSpec
from edge_kp.training.calibration.inputs import Held
from edge_kp.training.evaluation import evaluate
from edge_kp.training.judged import open_judged
from edge_kp.training.quantise import layer_names, to_int8
from edge_kp.training.ranges import METHODS, STYLES, Ranges, measure_ranges
from edge_kp.types import Array

EQUAL = 0.02  # points of NME: methods this near to the best are equally good, and the smaller shift decides
FOUND = 0.5  # IoU from which two boxes are of one object
ALONE = 32  # images that a single layer is judged by
# A layer is kept in higher precision where its shift alone exceeds both.
OUTLIER = 5.0  # times the median of its network's layers
LEAST = 1e-3  # of the side of the network's input image

Figures = dict[str, float]


class Judge:
    """Holds the files of a precision against labels and against FP32.

    Args:
        sources: network → FP32 file.

    Raises:
        DataError: no sample has the labels that the error is measured by.
    """

    def __init__(self, spec: ModelSpec, sources: Mapping[str, Path], held: Held) -> None:
        self.spec, self.held = spec, held
        self._keypoints, errors = self._run_stages(sources)
        self._boxes = self._run_locator(sources)
        if not np.isfinite(errors).any():
            raise DataError("no validation sample has both reference points labelled; give a --validation")

    def stages(self, files: Mapping[str, Path]) -> Figures:
        """``nme`` to the labels and ``shift`` from FP32, both in % of the reference distance."""
        keypoints, errors = self._run_stages(files)
        shift = nme(keypoints, self._keypoints, self.spec.schema)
        counted = np.isfinite(errors)
        return {"nme": 100 * float(errors[counted].mean()), "shift": 100 * float(shift[counted].mean())}

    def locator(self, files: Mapping[str, Path]) -> Figures:
        """Boxes beside those of FP32 on the same photos.

        ``recall`` of them, ``iou`` of the found ones, ``extra`` boxes a photo that FP32 has not; and
        ``agreement``, the sum of those IoUs over all boxes of either.
        """
        overlaps: list[float] = []
        wanted = extra = 0
        for truth, boxes in zip(self._boxes, self._run_locator(files), strict=True):
            best = [max((box_iou(box, other) for other in boxes), default=0.0) for box in truth]
            overlaps += [iou for iou in best if iou >= FOUND]
            wanted += len(truth)
            extra += sum(all(box_iou(box, other) < FOUND for other in truth) for box in boxes)
        return {
            "recall": len(overlaps) / max(wanted, 1),
            "iou": float(np.mean(overlaps)) if overlaps else 0.0,
            "extra": extra / max(len(self._boxes), 1),
            "agreement": sum(overlaps) / max(wanted + extra, 1),
        }

    def _run_stages(self, files: Mapping[str, Path]) -> tuple[Array, Array]:
        cascade = Cascade(self.spec, *(open_judged(files[name]) for name in ("stage1", "stage2")))
        boxes = "tight" if self.spec.box_rule == "image" else "jitter"
        result = evaluate(cascade, self.held.samples, boxes, progress=False)
        return result.keypoints, result.errors["cascade"]

    def _run_locator(self, files: Mapping[str, Path]) -> list[list[Array]]:
        if not len(self.held.frames):
            return []
        backend = open_judged(files["locator"])
        locate = NetworkLocator(backend, self.spec.locator_size, self.spec.locator_threshold)
        return [list(locate.search(frame)[0]) for frame in self.held.frames]


def try_methods(
    sources: Mapping[str, Path], inputs: Mapping[str, Array], judge: Judge, work: Path
) -> tuple[dict[str, dict[str, Ranges]], dict[str, dict[str, dict[str, Figures]]]]:
    """Measure ranges by every method, and make and judge every style of 8-bit files with them.

    Args:
        inputs: network → uint8 (M, S, S, 3) to calibrate with.
        work: an empty folder for files of passing interest.

    Returns:
        network → method → ranges, and style → method → ``stages`` and ``locator`` → figures.
    """
    ranges: dict[str, dict[str, Ranges]] = {name: {} for name in sources}
    trials: dict[str, dict[str, dict[str, Figures]]] = {style: {} for style in STYLES}
    for method in tqdm(METHODS, "trying methods", unit="method", leave=False):
        for name, source in sources.items():
            ranges[name][method] = measure_ranges(source, inputs[name], method)
        for style in STYLES:
            files = {name: work / f"{name}.onnx" for name in sources}
            for name, source in sources.items():
                to_int8(source, files[name], style, ranges[name][method])
            trials[style][method] = judge_files(judge, files)
    return ranges, trials


def judge_files(judge: Judge, files: Mapping[str, Path]) -> dict[str, Figures]:
    """Figures of ``stages``, and of the ``locator`` where there is one."""
    figures = {"stages": judge.stages(files)}
    if "locator" in files:
        figures["locator"] = judge.locator(files)
    return figures


def best_methods(trials: Mapping[str, Mapping[str, Figures]]) -> dict[str, str]:
    """The method of each network, from ``stages`` and ``locator`` → figures by method."""
    stages = {method: figures["stages"] for method, figures in trials.items()}
    least = min(figures["nme"] for figures in stages.values())
    near = [method for method, figures in stages.items() if figures["nme"] <= least + EQUAL]
    best = min(near, key=lambda method: stages[method]["shift"])
    methods = {"stage1": best, "stage2": best}
    if all("locator" in figures for figures in trials.values()):
        methods["locator"] = max(trials, key=lambda method: trials[method]["locator"]["agreement"])
    return methods


def layer_shifts(source: Path, images: Array, style: str, ranges: Ranges, work: Path) -> dict[str, float]:
    """Layer → how far it moves the result when it alone is quantised, in sides of the input image.

    Mean over images and keypoints; for the locator, over the corners of each photo's likeliest box.
    """
    images = images[:ALONE]
    truth = open_judged(source).run(images)
    shifts = {}
    alone = work / "alone.onnx"
    for layer in tqdm(layer_names(source, style), f"{source.name}, {style}", unit="layer", leave=False):
        to_int8(source, alone, style, ranges, [layer])
        shifts[layer] = _shift(open_judged(alone).run(images), truth)
    return shifts


def _shift(seen: Mapping[str, Array], truth: Mapping[str, Array]) -> float:
    if "keypoints" in truth:
        points, expected = seen["keypoints"], truth["keypoints"]
    else:
        picture = np.arange(len(truth["score"]))
        likeliest = truth["score"].argmax(1)
        points, expected = (out["boxes"][picture, likeliest].reshape(-1, 2, 2) for out in (seen, truth))
    return float(np.linalg.norm(points - expected, axis=-1).mean())


def layers_to_keep(shifts: Mapping[str, float]) -> list[str]:
    """The layers that do not bear 8 bits, the worst first: see :data:`OUTLIER` and :data:`LEAST`."""
    limit = max(OUTLIER * float(np.median(list(shifts.values()))), LEAST)
    return sorted((layer for layer, shift in shifts.items() if shift > limit), key=lambda n: -shifts[n])


def plan(
    digests: Mapping[str, str],
    ranges: Mapping[str, Mapping[str, Ranges]],
    methods: Mapping[str, Mapping[str, str]],
    kept: Mapping[str, Mapping[str, list[str]]],
) -> dict[str, Any]:
    """What ``ranges.json`` says of every network: its digest, ranges by method, and each style.

    Args:
        digests: network → :func:`graph_digest` of its FP32 file.
        methods, kept: style → network → method and kept layers.
    """
    return {
        name: {
            "graph_sha256": digest,
            "styles": {
                style: {"method": methods[style][name], "kept": kept[style][name]} for style in STYLES
            },
            "ranges": {method: ranges[name][method] for method in sorted({methods[s][name] for s in STYLES})},
        }
        for name, digest in digests.items()
    }
