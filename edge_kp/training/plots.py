"""Pictures of an evaluation: error curves, the worst cases, and what was found where nothing is."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from edge_kp.errors import DataError
from edge_kp.geometry import square_crop, tight_box
from edge_kp.metrics import cumulative_curve
from edge_kp.overlay import sheet
from edge_kp.schema import KeypointSchema
from edge_kp.training.evaluation import OUTPUTS, Evaluation
from edge_kp.training.samples import Sample
from edge_kp.types import Array

TILE = 256  # pixels, side of a worst case
LABEL, RESULT = (80, 220, 80), (60, 60, 255)  # BGR


def write_plots(evaluation: Evaluation, folder: Path, title: str) -> list[Path]:
    """Write ``errors.png``, ``worst.png`` and, where there are false detections, ``false.png``.

    Returns:
        Their paths.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); give another --plots") from error
    curve = folder / "errors.png"
    draw_curves(evaluation, title).savefig(curve, dpi=110)
    sheets = {"worst.png": draw_worst(evaluation), "false.png": draw_false(evaluation)}
    written = [curve]
    for name, drawn in sheets.items():
        path = folder / name
        if drawn is None:
            path.unlink(missing_ok=True)  # that of another evaluation
        elif cv2.imwrite(str(path), drawn):
            written.append(path)
        else:
            raise DataError(f"{path}: cannot be written; give another --plots")
    return written


def draw_curves(evaluation: Evaluation, title: str) -> Figure:
    """Cumulative error curves of every output up to 10 %."""
    matplotlib.rcParams["font.size"] = 9
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    thresholds = np.linspace(0, 0.1, 201)
    for name in OUTPUTS:
        errors = evaluation.errors[name][~evaluation.unmeasured]
        if not len(errors):
            continue
        found = errors[np.isfinite(errors)]
        label = f"{name}: {100 * found.mean():.2f} %" if len(found) else f"{name}: none located"
        axes.plot(100 * thresholds, 100 * cumulative_curve(errors, thresholds), label=label)
    axes.set(xlabel="NME, % of the reference distance", ylabel="samples, %", xlim=(0, 10), ylim=(0, 100))
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(title="mean NME", loc="best")  # a poor model's curve runs along the lower edge
    return figure


def draw_worst(evaluation: Evaluation, count: int = 12) -> Array:
    """uint8 BGR: the samples with the largest errors, labels green, result red.

    Those that have no error but in pixels come after all others.
    """
    errors, pixels = evaluation.errors["cascade"], evaluation.radial["cascade"]
    order = np.lexsort((-pixels, -errors, evaluation.unmeasured))
    return sheet([_tile(evaluation, int(i)) for i in order[:count]], 4)


def draw_false(evaluation: Evaluation, count: int = 12) -> Array | None:
    """uint8 BGR: what was told of where nothing is, the highest scores first; None where there is none."""
    false = sorted((one for each in evaluation.false.values() for one in each), key=lambda one: -one.score)
    tiles = []
    for one in false[:count]:
        crop = square_crop(tight_box(one.keypoints), TILE, 1.6)
        image = crop.extract(one.sample.load())
        _draw(image, crop.to_crop(one.keypoints), evaluation.schema, RESULT)
        tiles.append(_captioned(image, f"score {one.score:.2f}", one.sample))
    return sheet(tiles, 4) if tiles else None


def _tile(evaluation: Evaluation, i: int) -> Array:
    sample, error, pixels = (
        evaluation.samples[i],
        evaluation.errors["cascade"][i],
        evaluation.radial["cascade"][i],
    )
    crop = square_crop(sample.box, TILE, 1.6)
    image = crop.extract(sample.load())
    _draw(image, crop.to_crop(sample.keypoints), evaluation.schema, LABEL)
    caption = "not located"
    if not np.isnan(evaluation.keypoints[i]).all():
        _draw(image, crop.to_crop(evaluation.keypoints[i]), evaluation.schema, RESULT)
        caption = f"{pixels:.1f} px" if np.isnan(error) else f"{100 * error:.1f} %"
    return _captioned(image, caption, sample)


def _captioned(image: Array, caption: str, sample: Sample) -> Array:
    text = f"{caption}  {drawable(sample.key.split('/')[-1])[:24]}"
    cv2.putText(image, text, (6, TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, (6, TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def drawable(text: str) -> str:
    """OpenCV draws ASCII alone: letters without their accents, ``_`` for what else there is."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c if " " <= c <= "~" else "_" for c in plain if not unicodedata.combining(c))


def _draw(image: Array, points: Array, schema: KeypointSchema, colour: tuple[int, int, int]) -> None:
    pixels = points * TILE - 0.5
    known = np.asarray(~np.isnan(pixels).any(1))
    at = np.round(np.where(known[:, None], pixels, 0) * 16).astype(int).tolist()
    for a, b in schema.edges:
        if known[a] and known[b]:
            cv2.line(image, at[a], at[b], colour, 1, cv2.LINE_AA, 4)
    for i in np.flatnonzero(known):
        cv2.circle(image, at[i], 24, colour, -1, cv2.LINE_AA, 4)
