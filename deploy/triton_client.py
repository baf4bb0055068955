"""Keypoints from a Triton server: ``python deploy/triton_client.py --source photo.jpg``.

An example of a client. It needs this package for its geometry, but no model: the networks run on the server,
which also tells what must be known of them. The server's repository is written by
``python -m edge_kp.export --triton``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from edge_kp.backends.base import Backend
from edge_kp.cascade import Cascade, FusedCascade
from edge_kp.cli import run_cli
from edge_kp.errors import BackendError
from edge_kp.geometry import tight_box
from edge_kp.live.following import Found
from edge_kp.live.frames import Frame
from edge_kp.live.lines import encode
from edge_kp.live.outputs import Outputs, Painter, open_outputs, refuse_overwriting
from edge_kp.live.pictures import is_picture
from edge_kp.live.pipeline import Pipeline
from edge_kp.live.source import open_source
from edge_kp.live.statistics import Result, Statistics
from edge_kp.locator import ImageLocator, Locator, NetworkLocator
from edge_kp.looks import found, look, search_all_turns
from edge_kp.modeldir import ModelSpec
from edge_kp.together import run_alone
from edge_kp.triton import PARAMETER
from edge_kp.types import Array, Detection

TIMEOUT_S = 10.0


class TritonBackend(Backend):
    """A network that runs on a server.

    Args:
        model: the server's name of it, e.g. ``face68_cascade``.

    Raises:
        BackendError: the server does not answer, or has no such model.
    """

    name, device = "triton", "server"

    def __init__(self, client: triton.InferenceServerClient, model: str) -> None:
        self._client, self.model = client, model
        with _one_line(f"model {model}"):
            self.config = client.get_model_config(model, client_timeout=TIMEOUT_S).config
        self.precision = self.config.parameters["edge_kp.precision"].string_value

    def run(self, image: Array) -> dict[str, Array]:
        most = self.config.max_batch_size
        parts = [self._infer(image[i : i + most]) for i in range(0, len(image), most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _infer(self, image: Array) -> dict[str, Array]:
        """One request, which the server may answer in one batch with those of other clients."""
        sent = triton.InferInput("image", list(image.shape), "UINT8")
        sent.set_data_from_numpy(np.ascontiguousarray(image))
        with _one_line(f"model {self.model}"):
            answer = self._client.infer(self.model, [sent], client_timeout=TIMEOUT_S)
        values = {}
        for output in self.config.output:
            value = answer.as_numpy(output.name)
            # Triton cannot send (B,), so such an output is (B, 1) on the way.
            if output.HasField("reshape"):
                value = value.reshape(len(image), *output.reshape.shape)
            values[output.name] = value
        return values


class Model:
    """A model on a server: what ``edge_kp.Detector`` is for one on this machine. Use it in one thread.

    Attributes:
        spec: the model's contract, as the server's repository tells it.

    Raises:
        BackendError: the server does not answer, or does not serve the model.
    """

    def __init__(self, client: triton.InferenceServerClient, name: str) -> None:
        with _one_line("no answer"):
            found = client.get_model_repository_index(client_timeout=TIMEOUT_S).models
        served = {model.name for model in found if model.state == "READY"}
        if f"{name}_stage2" not in served:
            there = ", ".join(sorted(served)) or "none"
            raise BackendError(f"the server has no {name}_stage2 (its models: {there}); check --model")

        def network(which: str) -> TritonBackend:
            return TritonBackend(client, f"{name}_{which}")

        stage2 = network("stage2")
        try:
            self.spec = ModelSpec.from_json(json.loads(stage2.config.parameters[PARAMETER].string_value))
        except ValueError as error:
            raise BackendError(
                f"the server's {name}_stage2 does not tell what it is ({error}); write its repository with"
                " python -m edge_kp.export --triton"
            ) from error
        fused = f"{name}_cascade" in served  # the one-graph cascade: one request for both stages
        first = network("cascade" if fused else "stage1")
        self.cascade = (FusedCascade if fused else Cascade)(self.spec, first, stage2)
        self.locator: Locator = ImageLocator()
        if self.spec.locator == "network":
            size, threshold = self.spec.locator_size, self.spec.locator_threshold
            doubted = self.spec.looks.doubted
            self.locator = NetworkLocator(network("locator"), size, threshold, doubted=doubted)

    def detect(self, image: Array, boxes: Sequence[Array] | None = None) -> list[Detection]:
        """Keypoints of every object in a uint8 BGR image, or one result for each box, in frame pixels."""
        if boxes is None:
            looks = run_alone(self, search_all_turns(self, image))
            rows = found(self.spec, looks)
        else:
            looks = run_alone(self, look(self, image, boxes))
            rows = list(range(len(boxes)))
        result = looks.result
        return [
            Detection(
                id=number,
                box=tight_box(result.keypoints[i]),
                score=float(result.score[i]),
                keypoints=result.keypoints[i],
                visibility=result.visibility[i],
                attributes=dict(zip(self.spec.attributes, result.attributes[i].tolist(), strict=True)),
            )
            for number, i in enumerate(rows)
        ]


class Worker:
    """What the running loop asks for each frame."""

    def __init__(self, model: Model, boxes: Sequence[Array] | None) -> None:
        self.model, self.boxes = model, boxes

    def update(self, frames: Sequence[Frame]) -> list[Found]:
        found: list[Found] = []
        for frame in frames:
            start = time.perf_counter()
            detections = self.model.detect(frame.image, self.boxes)
            found.append((detections, {"total": time.perf_counter() - start}))
        return found


class Printer:
    """A line of JSON per frame on standard output."""

    name, source = "stdout", None

    def write(self, result: Result) -> None:
        print(encode(result).decode(), flush=True)

    def close(self) -> None:
        """Nothing to close."""


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        cause = " ".join(str(error.message()).split())[:200]
        raise BackendError(f"{what}: {cause}; check --url, and that the server runs") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python deploy/triton_client.py", description="Keypoints from a Triton server, as lines of JSON."
    )
    add = parser.add_argument
    add("--url", default="localhost:8001", help="gRPC address of the server (default localhost:8001)")
    add("--model", default="face68", help="name of the model, as in face68_cascade (default face68)")
    add("--source", required=True, metavar="WHAT", help="picture, folder, video file, URL or camera")
    add(
        "--box",
        type=float,
        nargs=4,
        action="append",
        metavar=("X0", "Y0", "X1", "Y1"),
        help="tight box of an object, pixels; given, the locator is not asked",
    )
    add("--save", type=Path, metavar="FILE", help="video or picture with the keypoints drawn in")
    return parser


def _run(args: argparse.Namespace) -> None:
    wanted, painter, stats = Outputs(save=args.save), Painter(), Statistics()
    refuse_overwriting([args.source], wanted)
    boxes = None if args.box is None else [np.array(box, np.float32) for box in args.box]

    @contextmanager
    def worker() -> Iterator[Worker]:
        with triton.InferenceServerClient(args.url) as client:
            model = Model(client, args.model)
            painter.schema, painter.label = model.spec.schema, f"{model.spec.name} on {args.url}"
            yield Worker(model, boxes)

    source = open_source(args.source)
    try:
        saved = open_outputs(wanted, [source], painter, stats.summary, still=is_picture(args.source))
    except BaseException:
        source.close()
        raise
    Pipeline([source], worker, [Printer(), *saved], stats=stats).run()
    if failed := stats.summary().failed:
        raise BackendError(f"{failed} frame(s) could not be inferred")


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
