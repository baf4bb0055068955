"""How far the results inside a network reach: measured on images, and read back from a calibration's file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import HistogramCalibrater, create_calibrator

from edge_kp.errors import ModelError
from edge_kp.files import parse_json
from edge_kp.modeldir import PRECISIONS
from edge_kp.training.trunk import FOLLOWERS, LAYERS, load_graph, trunk_nodes
from edge_kp.types import Array

Ranges = Mapping[str, tuple[float, float]]  # tensor → lowest and highest value
STYLES = ("int8", "int8-cpu")
# With the library's own settings. More bins for the entropy let it cut off too much: four times the error.
METHODS: Mapping[str, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
CHUNK = 8  # images whose intermediate results are held at a time
RANGES_FORMAT = 1


def measure_ranges(source: Path, images: Array, method: str) -> Ranges:
    """Range of every result in the trunk over some images, as one of :data:`METHODS` sees it.

    Args:
        source: the FP32 file.
        images: uint8 (M, S, S, 3) BGR, as the network meets them.

    Raises:
        ModelError: no histogram can be made of a result in the trunk: it is nearly constant, or not finite.
    """
    wanted = {
        value.name
        for node in trunk_nodes(load_graph(source).graph)
        for value in (*node.inputs, *node.outputs)
        if value is not None
    }
    # The calibrators tell their progress by print, and not one that anybody could follow.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        # They write beside the file they are given, and the model's folder may be another's, or read-only.
        network = Path(folder, source.name)
        onnx.save(onnx.load(source), network)
        calibrator = create_calibrator(
            network, [*LAYERS, *FOLLOWERS], str(Path(folder, "all.onnx")), METHODS[method]
        )
        if isinstance(calibrator, HistogramCalibrater):
            # Elsewhere a result may be nearly the same number everywhere, which NumPy cannot part into bins.
            calibrator.tensors_to_calibrate &= wanted
        try:
            for first in range(0, len(images), CHUNK):
                calibrator.collect_data(_Chunk(images[first : first + CHUNK]))
            found = calibrator.compute_data()
        except ValueError as error:
            raise ModelError(
                f"{source}: its features have no ranges by {method} ({error}); train longer, or calibrate"
                " with other images"
            ) from error
    ends = {name: found[name].range_value for name in sorted(found) if name in wanted}
    # Six digits are plenty, and what is written down is what is used.
    return {n: (float(f"{low.item():.6g}"), float(f"{high.item():.6g}")) for n, (low, high) in ends.items()}


class _Chunk(CalibrationDataReader):
    """One batch of images."""

    def __init__(self, images: Array) -> None:
        self.left = [{"image": np.ascontiguousarray(images)}]

    def get_next(self) -> dict[str, Array] | None:
        return self.left.pop() if self.left else None


def graph_digest(source: Path) -> str:
    """sha256 of a file's nodes and weights, hex; what its metadata says changes no range."""
    return hashlib.sha256(onnx.load(source).graph.SerializeToString(deterministic=True)).hexdigest()


def read_ranges(path: Path | None, sources: Mapping[str, Path]) -> dict[str, Any]:
    """Per network ``ranges`` (method → tensor → ends) and ``styles`` (style → method and kept layers).

    Args:
        sources: network → FP32 file that they must have been measured on.

    Raises:
        ModelError: the file is missing, damaged, or of other networks.
    """
    again = "run python -m edge_kp.calibrate --model FOLDER --data SPEC"
    if path is None:
        raise ModelError(f"8-bit files need measured ranges; {again}")
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format"] != RANGES_FORMAT:
            raise ValueError(f"format {str(content['format'])[:20]!r}, this version reads {RANGES_FORMAT}")
        networks: dict[str, Any] = content["networks"]
        digests = {name: str(networks[name]["graph_sha256"]) for name in sources}
        for plan in networks.values():
            for style in STYLES:
                _check_plan(plan["ranges"], plan["styles"][style])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelError(f"{path}: not usable as ranges ({reason}); {again}") from error
    for name, source in sources.items():
        if graph_digest(source) != digests[name]:
            raise ModelError(f"{path}: measured on another network than {source}; {again}")
    return networks


def read_auto(path: Path) -> dict[str, str]:
    """What the calibration found about ``auto``: backend → precision.

    Args:
        path: a file that :func:`read_ranges` reads.

    Raises:
        ModelError: that part of it is damaged.
    """
    told = parse_json(path.read_text(encoding="utf-8")).get("auto", {})
    if not isinstance(told, dict) or not set(map(str, told.values())) <= set(PRECISIONS):
        raise ModelError(f"{path}: tells no precisions under 'auto'; calibrate again")
    return {str(backend): str(precision) for backend, precision in told.items()}


def _check_plan(ranges: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Raises: ValueError: ends that are none, or layers that are no names."""
    for tensor, (low, high) in ranges[chosen["method"]].items():
        numbers = {type(low), type(high)} <= {int, float}
        if not numbers or not -math.inf < float(low) <= float(high) < math.inf:
            raise ValueError(f"{tensor[:40]!r}: expected two finite ends, the lower one first")
    if not isinstance(chosen["kept"], list) or not all(isinstance(layer, str) for layer in chosen["kept"]):
        raise ValueError("kept: expected a list of names of layers")
