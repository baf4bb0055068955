"""A landmark network that the user has, as a system of ``benchmarks.peer_photos``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.photo_peers.base import Array, library, not_installed, warp

RUNTIMES = ("onnxruntime", "opencv", "facemark-lbf")
COLOURS = ("rgb", "bgr", "grey")
LAYOUTS = ("nchw", "nhwc")
DTYPES = ("float32", "uint8")
COORDINATES = ("unit", "pixels", "centred")


@dataclass(frozen=True)
class NetworkSpec:
    """What a network takes and gives; ``benchmarks.photo_peers.spec`` reads it from a TOML file.

    Attributes:
        name: as it is called in results.
        file: the network (facemark-lbf: OpenCV's YAML file).
        runtime: ``onnxruntime``, ``opencv`` (its DNN module) or ``facemark-lbf`` (``cv2.face``, in
            opencv-contrib; of what follows it takes ``box_scale``, ``box_shift`` and ``markup`` alone).
        python: the Python that has the runtime; None is the one that runs the benchmark.
        size: (width, height) of the input, pixels.
        colour: order of its channels.
        layout: ``nchw`` or ``nhwc``.
        dtype: of its values.
        scale, mean, std: the input is ``(pixel * scale - mean) / std``, pixel 0 to 255; ``mean`` and ``std``
            are one number, or one for each channel in their order.
        output: name of the output with the points; None where there is one output.
        columns: numbers of each point there, x and y first.
        coordinates: ``unit``: 0 and 1 are the edges of the crop; ``centred``: -1 and 1 are; ``pixels``: of
            the crop, (0, 0) being the centre of the first.
        box_scale: width of the crop, in longer sides of the box around the 68 points.
        box_shift: (x, y) by which the centre of the crop lies off the box's, in the same unit, y downwards.
        markup: for each of the 68 points, which of the network's it is; None where it has those 68 or it is
            not known.
    """

    name: str
    file: str
    runtime: str = "onnxruntime"
    python: str | None = None
    size: tuple[int, int] = (112, 112)
    colour: str = "rgb"
    layout: str = "nchw"
    dtype: str = "float32"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    output: str | None = None
    columns: int = 2
    coordinates: str = "unit"
    box_scale: float = 1.2
    box_shift: tuple[float, float] = (0.0, 0.0)
    markup: tuple[int, ...] | None = None


class NetworkPeer:
    """An ONNX file, run by ONNX Runtime or by OpenCV."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.name = spec.name
        self.about = f"{Path(spec.file).name} {spec.size[0]}x{spec.size[1]} on {spec.runtime}"
        self._spec = spec
        self._mean = np.asarray(spec.mean, np.float32)
        self._std = np.asarray(spec.std, np.float32)
        self.packages: tuple[str, ...] = ("numpy",)
        if spec.runtime == "onnxruntime":
            self.packages = ("onnxruntime", "numpy")
            self._run = _onnxruntime(spec)
        else:
            self._run = _opencv_dnn(spec)
        width, height = spec.size
        ready = self.tensor(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
        self.network: Callable[[], object] | None = lambda: self._run(ready)
        count = self._run(ready).size
        if count % spec.columns:
            sys.exit(f"{spec.name}: its output has {count} numbers, which is no multiple of {spec.columns}")

    def points(self, image: Array, box: Array) -> Array:
        matrix = self.crop(box)
        crop = warp(image, matrix, self._spec.size, cv2.BORDER_CONSTANT)
        found = self._run(self.tensor(crop)).reshape(-1, self._spec.columns)[:, :2].astype(np.float64)
        size = np.array(self._spec.size)
        if self._spec.coordinates == "unit":
            found = found * size - 0.5
        elif self._spec.coordinates == "centred":
            found = (found + 1) / 2 * size - 0.5
        return np.asarray(found @ matrix[:, :2].T + matrix[:, 2])

    def crop(self, box: Array) -> Array:
        """(2, 3): pixels of the crop → pixels of the image."""
        spec, (width, height) = self._spec, self._spec.size
        x, y, longer = placed(box, spec.box_shift)
        step = longer * spec.box_scale / width
        return np.array([[step, 0, x - step * (width - 1) / 2], [0, step, y - step * (height - 1) / 2]])

    def tensor(self, crop: Array) -> Array:
        """The network's input for a crop, uint8 BGR (height, width, 3)."""
        spec = self._spec
        if spec.colour == "rgb":
            crop = crop[..., ::-1]
        elif spec.colour == "grey":
            crop = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[..., None]
        if spec.dtype == "float32":
            crop = (crop.astype(np.float32) * np.float32(spec.scale) - self._mean) / self._std
        if spec.layout == "nchw":
            crop = crop.transpose(2, 0, 1)
        return np.ascontiguousarray(crop[None])


class FacemarkLbf:
    """OpenCV's FacemarkLBF: local binary features, of opencv-contrib (Ren et al. 2014)."""

    packages: tuple[str, ...] = ("numpy",)
    network: Callable[[], object] | None = None

    def __init__(self, spec: NetworkSpec) -> None:
        if not hasattr(cv2, "face"):
            not_installed("cv2.face is missing; install opencv-contrib-python there")
        self.name = spec.name
        self.about = f"FacemarkLBF {Path(spec.file).name}"
        self._spec = spec
        self._facemark = cv2.face.createFacemarkLBF()
        try:
            self._facemark.loadModel(spec.file)
        except cv2.error as error:
            sys.exit(f"{spec.file}: FacemarkLBF cannot load it: {_line(error)}")

    def points(self, image: Array, box: Array) -> Array | None:
        x, y, longer = placed(box, self._spec.box_shift)
        side = longer * self._spec.box_scale
        rectangle = np.round([[x - side / 2, y - side / 2, side, side]]).astype(np.int32)
        done, found = self._facemark.fit(image, rectangle)
        return np.asarray(found[0], np.float64).reshape(-1, 2) if done else None


def placed(box: Array, shift: tuple[float, float]) -> tuple[float, float, float]:
    """Centre of a crop and the longer side of the box that it is for."""
    x0, y0, x1, y1 = (float(v) for v in box)
    longer = max(x1 - x0, y1 - y0)
    return (x0 + x1) / 2 + shift[0] * longer, (y0 + y1) / 2 + shift[1] * longer, longer


def _onnxruntime(spec: NetworkSpec) -> Callable[[Array], Array]:
    runtime: Any = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = runtime.InferenceSession(spec.file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base of their own
        sys.exit(f"{spec.file}: ONNX Runtime cannot load it: {_line(error)}")
    entries = session.get_inputs()
    if len(entries) != 1:
        sys.exit(f"{spec.file}: has {len(entries)} inputs; a network of one picture needed")
    output, entry = _output(spec, [out.name for out in session.get_outputs()]), entries[0].name

    def run(tensor: Array) -> Array:
        return np.asarray(session.run([output], {entry: tensor})[0])

    return _tried(spec, run)


def _opencv_dnn(spec: NetworkSpec) -> Callable[[Array], Array]:
    try:
        net = cv2.dnn.readNetFromONNX(spec.file)
    except cv2.error as error:
        sys.exit(f"{spec.file}: OpenCV cannot load it: {_line(error)}")
    output = _output(spec, list(net.getUnconnectedOutLayersNames()))

    def run(tensor: Array) -> Array:
        net.setInput(tensor)
        return np.asarray(net.forward(output))

    return _tried(spec, run)


def _tried(spec: NetworkSpec, run: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """``run``, after it has taken an input of the shape and type that the spec says."""
    width, height = spec.size
    channels = 1 if spec.colour == "grey" else 3
    shape = (1, channels, height, width) if spec.layout == "nchw" else (1, height, width, channels)
    try:
        run(np.zeros(shape, spec.dtype))
    except Exception as error:  # whatever the runtime raises, the spec does not fit the file
        sys.exit(f"{spec.name}: {spec.runtime} refuses an input {shape} {spec.dtype}: {_line(error)}")
    return run


def _output(spec: NetworkSpec, names: list[str]) -> str:
    if spec.output is None and len(names) == 1:
        return names[0]
    if spec.output not in names:
        asked = "say which output has the points" if spec.output is None else f"has no output {spec.output!r}"
        sys.exit(f"{spec.name}: {asked}; there are {', '.join(names)}")
    return spec.output


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
