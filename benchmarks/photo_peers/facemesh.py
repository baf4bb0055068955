"""MediaPipe's face mesh as systems of ``benchmarks.peer_photos``: its networks, on its own crops.

MediaPipe crops a square of 1.5 times the longer side of the face's box, from its detector or from the points
of the frame before, turned so that the line through the outer eye corners lies level. The box of 68 points
leaves out the forehead: one pass crops an upright square where that of the whole mesh would lie; two passes
crop again by MediaPipe's rule, from the points of the first.

Pixel coordinates are the crop's and the image's as MediaPipe's CPU code has them: it samples the crop's
pixel i at ``corner + i * side / size`` of the image and hands points back by the same rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.photo_peers.base import Array, library, not_installed, warp

SIZE = 192  # pixels, side of the networks' input
MARGIN = 1.5  # side of a crop in longer sides of the box
# Median over HELEN's training part: the mesh's box beside that of the 68 points.
MESH_SIDE = 1.135  # longer side, in longer sides of the 68 points' box
MESH_SHIFT = 0.098  # centre above, in the same unit
EYES = 33, 263  # outer corners, left and right in the image
NETWORK = "modules/face_landmark/face_landmark.tflite"
# Only the part of MediaPipe's graph behind its face detector.
GRAPH = """
input_stream: "image"
input_stream: "roi"
input_side_packet: "with_attention"
output_stream: "landmarks"
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:roi"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""


@dataclass(frozen=True, eq=False)
class Square:
    """A square of an image: centre (2,) and side in pixels, turned by ``angle`` radians (x towards y)."""

    centre: Array
    side: float
    angle: float = 0.0

    @property
    def matrix(self) -> Array:
        """(2, 3): pixels of the crop → pixels of the image."""
        step = self.side / SIZE
        a, b = step * np.cos(self.angle), step * np.sin(self.angle)
        turn = np.array([[a, -b], [b, a]])
        return np.column_stack([turn, self.centre - turn @ (SIZE / 2, SIZE / 2)])


def around_box(box: Array) -> Square:
    """The upright crop for the box of a face's 68 points."""
    x0, y0, x1, y1 = (float(v) for v in box)
    side = max(x1 - x0, y1 - y0)
    return Square(np.array([(x0 + x1) / 2, (y0 + y1) / 2 - MESH_SHIFT * side]), MARGIN * MESH_SIDE * side)


def around_points(points: Array) -> Square:
    """The crop that MediaPipe takes in the next frame, from the mesh (P, 2) of this one."""
    low, high = points.min(0), points.max(0)
    x, y = points[EYES[1]] - points[EYES[0]]
    return Square((low + high) / 2, MARGIN * float((high - low).max()), float(np.arctan2(y, x)))


class FaceMesh(ABC):
    """Either network of the face mesh, with one or two crops."""

    packages: tuple[str, ...] = ("mediapipe", "numpy")
    network: Callable[[], object] | None = None

    def __init__(self, name: str, passes: int) -> None:
        self.name = name
        self.passes = passes
        self.about = f"{self._open()}, {'one pass' if passes == 1 else f'{passes} passes'}"

    def points(self, image: Array, box: Array) -> Array:
        rgb = self._prepared(image)
        points = self._pass(rgb, around_box(box))
        for _ in range(1, self.passes):
            points = self._pass(rgb, around_points(points))
        return points

    @abstractmethod
    def _open(self) -> str:
        """Load what runs; returns what that is."""

    @abstractmethod
    def _prepared(self, image: Array) -> Array:
        """The image (H, W, 3) as :meth:`_pass` takes it."""

    @abstractmethod
    def _pass(self, image: Array, square: Square) -> Array:
        """The mesh (P, 2), pixels of the image, from one crop."""


class Base(FaceMesh):
    """``face_landmark.tflite``, 468 points, run by TensorFlow Lite without MediaPipe's graph around it."""

    packages: tuple[str, ...] = ("mediapipe", "tflite-runtime", "numpy")

    def _open(self) -> str:
        # Importing MediaPipe itself would start its own threads, and only its file is needed.
        path = package_folder("mediapipe") / NETWORK
        if not path.is_file():
            not_installed(f"mediapipe has no {NETWORK}; install mediapipe==0.10.14")
        interpreter = library("tflite_runtime.interpreter").Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        (entry,) = interpreter.get_input_details()
        exits = [out["index"] for out in interpreter.get_output_details() if np.prod(out["shape"]) == 3 * 468]
        self._interpreter, self._entry, (self._exit,) = interpreter, entry["index"], exits
        self._ready = np.random.default_rng(0).uniform(0, 1, (1, SIZE, SIZE, 3)).astype(np.float32)
        self.network = self._networks
        return f"{path.name} in TensorFlow Lite, without MediaPipe's graph"

    def _networks(self) -> None:
        for _ in range(self.passes):
            self._infer(self._ready)

    def _infer(self, tensor: Array) -> Array:
        self._interpreter.set_tensor(self._entry, tensor)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._exit)).reshape(-1, 3)[:, :2]

    def _prepared(self, image: Array) -> Array:
        return image

    def _pass(self, image: Array, square: Square) -> Array:
        crop = warp(image, square.matrix, (SIZE, SIZE), cv2.BORDER_REPLICATE)
        tensor = np.divide(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), 255, dtype=np.float32)
        matrix = square.matrix
        return np.asarray(self._infer(tensor[None]) @ matrix[:, :2].T + matrix[:, 2])


class Attention(FaceMesh):
    """``face_landmark_with_attention.tflite``, 478 points, by MediaPipe's graph behind its face detector.

    Its operators are in MediaPipe alone, so that the networks cannot be timed apart from the graph. Its
    threshold of presence is taken away, so that it answers always.
    """

    def _open(self) -> str:
        library("mediapipe")
        base = library("mediapipe.python.solution_base")
        library("mediapipe.calculators.util.thresholding_calculator_pb2")  # the option below is told there
        self._rect = library("mediapipe.framework.formats.rect_pb2").NormalizedRect
        self._graph = base.SolutionBase(
            graph_config=GRAPH,
            side_inputs={"with_attention": True},
            outputs=["landmarks"],
            calculator_params={"facelandmarkcpu__ThresholdingCalculator.threshold": 0.0},
        )
        # With packages that do not fit it, such as protobuf, it fails when it first runs.
        noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        self._pass(noise, Square(np.full(2, SIZE / 2), float(SIZE)))
        return "face_landmark_with_attention.tflite in MediaPipe's graph"

    def _prepared(self, image: Array) -> Array:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        rgb.flags.writeable = False  # lets MediaPipe use it without a copy
        return np.asarray(rgb)

    def _run(self, image: Array, square: Square) -> Any:
        height, width = image.shape[:2]
        x, y = square.centre
        roi = self._rect(
            x_center=x / width,
            y_center=y / height,
            width=square.side / width,
            height=square.side / height,
            rotation=square.angle,
        )
        return self._graph.process({"image": image, "roi": roi}).landmarks

    def _pass(self, image: Array, square: Square) -> Array:
        mesh = self._run(image, square).landmark
        return np.array([(p.x, p.y) for p in mesh]) * (image.shape[1], image.shape[0])


def package_folder(package: str) -> Path:
    """The folder of a package that is not imported; ends the process where there is none."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        not_installed(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0])
