"""The public face of the package: ``Detector("face68").detect(image)``."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import NoReturn

import numpy as np

from edge_kp.arguments import as_whole, check_image
from edge_kp.backends import PRECISIONS, choose_backend, choose_precision, file_precision, open_backend
from edge_kp.backends.base import Backend, closed
from edge_kp.cascade import Cascade, FusedCascade
from edge_kp.cascade_result import CascadeResult
from edge_kp.contract import check_contract, check_outputs
from edge_kp.errors import BackendError, ModelError
from edge_kp.geometry import tight_box
from edge_kp.locator import MOST_TILES, ImageLocator, Locator, NetworkLocator
from edge_kp.looks import Looks, found, look, present, search_all_turns
from edge_kp.modeldir import checked_file, find_model, read_model
from edge_kp.parity import Row, hold, hold_once, load_references
from edge_kp.pose import PoseModel, pose_model
from edge_kp.together import run_alone
from edge_kp.types import Array, Detection, HeadPose

CASCADES = ("auto", "fused", "staged")
# On a CPU OpenCV crops faster than GridSample; on a GPU every return to the host costs more than the crop.
FUSED_IS_FASTER = ("tensorrt",)
MOST_THREADS = 4096  # no machine has so many cores
FARTHEST = 2.0**24  # pixels from the corner of the frame: beyond, float32 leaves pixels out


class Detector:
    """Finds objects and their keypoints in single images.

    Safe to call from several threads: calls take turns at each network, but ONNX Runtime's run side by side.
    Only TensorRT through pycuda refuses threads other than the one that made the detector.

    Args:
        model: a shipped model's name or the path of a model folder.
        backend: ``auto`` or one of :data:`edge_kp.backends.BACKENDS`.
        precision: which of the model's files to run, one of :data:`edge_kp.backends.PRECISIONS`; ``auto`` is
            the fastest that the model has for the backend.
        cascade: ``fused`` runs both stages as one graph, ``staged`` as two calls with the crop between them
            on the host; ``auto`` is what is faster on the backend.
        threads: CPU threads of the backend; None leaves the choice to it.
        tiles: from 2 to :data:`edge_kp.locator.MOST_TILES`, so many overlapping squares along the longer side
            of a frame are searched after the whole frame: for objects that are small in it, at the price of
            so many more looks.

    Attributes:
        spec: the model's contract; ``spec.schema`` names the keypoints.
        precision: which files run, e.g. ``int8-cpu``.
        fused: are both stages one graph?
        last_seconds: time of ``locate``, ``stage1`` and ``stage2`` in the last call of any thread, waiting
            for their turns included.

    Raises:
        ModelError: the model is missing or damaged.
        BackendError: the backend is missing or cannot load the model; ``threads`` or ``tiles`` is out of
            range, or the model has no locator that could search tiles.
        ValueError: ``threads`` or ``tiles`` is no whole number.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "face68",
        *,
        backend: str = "auto",
        precision: str = "auto",
        cascade: str = "auto",
        threads: int | None = None,
        tiles: int = 1,
    ) -> None:
        threads = None if threads is None else as_whole("threads", threads)
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise BackendError(
                f"threads: expected at least 1, got {threads}; None leaves the choice to the backend"
                if threads < 1
                else f"threads: expected at most {MOST_THREADS}; None leaves the choice to the backend"
            )
        tiles = as_whole("tiles", tiles)
        if not 1 <= tiles <= MOST_TILES:
            raise BackendError(f"tiles: expected 1 to {MOST_TILES}, got {tiles}")
        folder = self._folder = find_model(model)
        self.spec = read_model(folder)
        if tiles > 1 and self.spec.locator != "network":
            raise BackendError(
                f"tiles: {self.spec.name} has no locator, the whole frame is its object; leave tiles out"
            )

        backend = choose_backend(backend)
        self.precision = choose_precision(backend, precision, self.spec.files, self.spec.auto)
        self.fused = self._is_fused(cascade, backend)

        self.locator: Locator = ImageLocator()
        with ExitStack() as opened:  # closed again where a later network cannot be opened

            def network(name: str) -> Backend:
                path = checked_file(folder, self.spec, f"{name}.{self.precision}.onnx")
                check_contract(path, self.spec, name, self.precision)
                loaded = opened.enter_context(open_backend(backend, path, self.precision, threads))
                check_outputs(path, self.spec, name, loaded)
                hold_once(name, loaded, folder, self.spec)
                return loaded

            first, second = network("cascade" if self.fused else "stage1"), network("stage2")
            self.cascade = (FusedCascade if self.fused else Cascade)(self.spec, first, second)
            if self.spec.locator == "network":
                self.locator = NetworkLocator(
                    network("locator"),
                    self.spec.locator_size,
                    self.spec.locator_threshold,
                    tiles,
                    self.spec.looks.doubted,
                )
            opened.pop_all()
        self._networks = [self.cascade, self.locator]
        self._closed = False
        self.schema = self.spec.schema
        self._pose = pose_model(self.schema)
        self.model_name = self.spec.name
        self.backend_name = first.name
        self.device = first.device
        self.last_seconds: dict[str, float] = {}

    def _is_fused(self, cascade: str, backend: str) -> bool:
        if cascade not in CASCADES:
            raise BackendError(f"cascade {cascade!r}: expected one of {', '.join(CASCADES)}")
        there = f"cascade.{self.precision}.onnx" in self.spec.files
        if cascade == "fused" and not there:
            others = [
                wanted
                for wanted in PRECISIONS
                if f"cascade.{file_precision(backend, wanted)}.onnx" in self.spec.files
            ]
            step = f"give --precision {' or '.join(others)}" if others else "export it again"
            raise BackendError(
                f"the model has no one-graph cascade in {self.precision}; {step}, or use staged"
            )
        return there and (cascade == "fused" or (cascade == "auto" and backend in FUSED_IS_FASTER))

    def detect(
        self, image: Array, boxes: Sequence[Sequence[float] | Array] | Array | None = None
    ) -> list[Detection]:
        """Keypoints of every object, upright or turned.

        What is not seen beyond doubt is looked at several times, see :func:`edge_kp.looks.look`, and where
        nothing is found for sure the frame is searched turned as well.

        Args:
            image: uint8 BGR (H, W, 3).
            boxes: tight keypoint boxes ``[x0, y0, x1, y1]`` in pixels; the locator is not asked then, and
                every box gives one detection, whatever its score.

        Returns:
            Detections numbered from 0: in the order of ``boxes``, or largest first, see :meth:`found`.

        Raises:
            ValueError: an image or box of another form.
            BackendError: the detector is closed, or a network cannot be run.
        """
        self.refuse_if_closed()
        check_image(image)
        if boxes is not None:
            wanted = _checked_boxes(boxes)
            looks = run_alone(self, look(self, image, wanted))
            self.last_seconds = {"locate": 0.0, **looks.seconds}
            return [self.detection(looks.result, i, i) for i in range(len(wanted))]
        looks = run_alone(self, search_all_turns(self, image))
        self.last_seconds = looks.seconds
        there = self.found(looks)
        return [self.detection(looks.result, i, number) for number, i in enumerate(there)]

    def found(self, looks: Looks) -> list[int]:
        """:func:`edge_kp.looks.found` of this model."""
        return found(self.spec, looks)

    def present(self, result: CascadeResult) -> list[int]:
        """:func:`edge_kp.looks.present` of this model."""
        return present(self.spec, result)

    def detection(
        self, result: CascadeResult, i: int, number: int, keypoints: Array | None = None
    ) -> Detection:
        """Result ``i`` of a cascade as the object ``number``.

        Args:
            keypoints: (N, 2) float32 to tell instead of the result's own, such as steadied ones.
        """
        points, visibility = result.keypoints[i] if keypoints is None else keypoints, result.visibility[i]
        return Detection(
            id=number,
            box=tight_box(points),
            score=float(result.score[i]),
            keypoints=points,
            visibility=visibility,
            attributes=dict(zip(self.spec.attributes, result.attributes[i].tolist(), strict=True)),
            pose=None if self._pose is None else partial(_head_pose, self._pose, points, visibility),
        )

    def check(self) -> list[Row]:
        """Every network's outputs for the model's stored pictures beside what PyTorch gave for them.

        Raises:
            ModelError: the model carries no references, or they are damaged.
            BackendError: the detector is closed, or a network cannot be run.
        """
        self.refuse_if_closed()
        references = load_references(self._folder, self.spec)
        networks = {
            "cascade" if self.fused else "stage1": self.cascade.stage1,
            "stage2": self.cascade.stage2,
        }
        if isinstance(self.locator, NetworkLocator):
            networks["locator"] = self.locator.backend
        rows = []
        for name, backend in networks.items():
            if name not in references:
                raise ModelError(f"{self._folder}: no stored results of {name}; export the model again")
            rows += hold(name, backend, references[name])
        return rows

    def close(self) -> None:
        """Free the networks, after the calls in progress; the detector cannot be used again."""
        self._closed = True
        with ExitStack() as closing:  # one that fails or refuses keeps none of the others open
            for network in self._networks:
                closing.callback(network.close)

    def refuse_if_closed(self) -> None:
        """Raises: BackendError: the detector is closed."""
        if self._closed:
            raise closed(f"the detector {self.model_name}")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Detector cannot be pickled, copied or sent to another process, since its networks belong to"
            " this one: make a Detector in each process"
        )

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_detector(detector: object) -> None:
    """
    Raises:
        ValueError: it is none, such as the name of a model.
    """
    if not isinstance(detector, Detector):
        model = repr(os.fspath(detector)) if isinstance(detector, str | os.PathLike) else None
        told, model = model or f"a {type(detector).__name__}", model or "'face68'"
        raise ValueError(f"detector: expected a Detector, got {told}; pass Detector({model})")


def _head_pose(model: PoseModel, keypoints: Array, visibility: Array) -> HeadPose | None:
    weights = visibility if visibility.min() < 0.5 else None
    try:
        return model(keypoints, weights)
    except ValueError:  # too little of the face is visible to tell
        return None


def _checked_boxes(boxes: Sequence[Sequence[float] | Array] | Array) -> list[Array]:
    try:
        each = list(boxes)
    except TypeError:
        raise ValueError(f"boxes: expected a list of [x0, y0, x1, y1], got {type(boxes).__name__}") from None
    if each and all(isinstance(number, numbers.Real) for number in each):
        raise ValueError("boxes: expected a list of [x0, y0, x1, y1], got numbers; for one box pass [box]")
    return [_checked_box(box) for box in each]


def _checked_box(box: Sequence[float] | Array) -> Array:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(box, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"box: expected [x0, y0, x1, y1], got {str(box)[:80]!r}") from None
    if array.shape != (4,):
        raise ValueError(f"box: expected [x0, y0, x1, y1], got shape {array.shape}")
    if not (np.abs(array) <= FARTHEST).all():  # NaN is no more
        raise ValueError(f"box: expected pixels from -{FARTHEST:.0f} to {FARTHEST:.0f}, got {array.tolist()}")
    return array
