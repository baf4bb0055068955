"""One side of ``benchmarks.networks`` in a process of its own, under the Python that has its runtime.

``--system edge_kp`` runs stage 1 and then stage 2 of a model; ``--system tflite`` runs the network in a
TensorFlow Lite file. Networks only: the input lies ready in memory, and no crop is cut.

The first line of output describes the side. Then every line of input ``N`` is answered by one line of JSON
with the milliseconds of N runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.peer_worker import pin


def stages(model: str, backend: str, precision: str) -> tuple[Callable[[], object], dict[str, str]]:
    """Both stages of a model, each on an image of noise."""
    from edge_kp import Detector
    from edge_kp.errors import EdgeKpError

    try:
        detector = Detector(model, backend=backend, precision=precision, cascade="staged", threads=1)
    except EdgeKpError as error:
        sys.exit(str(error))
    rng = np.random.default_rng(0)
    networks = (detector.cascade.stage1, detector.cascade.stage2)
    images = [rng.integers(0, 256, (1, size, size, 3), np.uint8) for size in detector.cascade.spec.sizes]

    def run() -> None:
        for network, image in zip(networks, images, strict=True):
            network.run(image)

    about = {"what": f"both stages of {detector.model_name}", "precision": detector.precision}
    packages = ("edge-kp", detector.backend_name)
    return run, {**about, "backend": detector.backend_name, **{name: version(name) for name in packages}}


def tflite(path: Path) -> tuple[Callable[[], object], dict[str, str]]:
    """The network of a TensorFlow Lite file, with the XNNPACK kernels that the interpreter takes anyhow."""
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError as error:
        sys.exit(f"{sys.executable}: {error}; pip install tflite-runtime in this environment")
    network = Interpreter(str(path), num_threads=1)
    network.allocate_tensors()
    (entry,) = network.get_input_details()
    exits = [output["index"] for output in network.get_output_details()]
    image = np.random.default_rng(0).uniform(0, 1, entry["shape"]).astype(np.float32)

    def run() -> None:
        network.set_tensor(entry["index"], image)
        network.invoke()
        for index in exits:
            network.get_tensor(index)

    shape = "x".join(map(str, entry["shape"]))
    return run, {"what": f"{path.name} {shape}", "tflite-runtime": version("tflite-runtime")}


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.network_worker", description=__doc__)
    parser.add_argument("--system", choices=["edge_kp", "tflite"], required=True)
    parser.add_argument("--cpu", type=int, required=True, help="the only core to run on")
    parser.add_argument("--file", type=Path, help="tflite: the network")
    parser.add_argument("--model", default="face68")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    pin(args.cpu)
    if args.system == "tflite":
        run, about = tflite(args.file)
    else:
        run, about = stages(args.model, args.backend, args.precision)
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            times.append(round(1e3 * (time.perf_counter() - start), 5))
        print(json.dumps({"ms": times}), flush=True)


if __name__ == "__main__":
    main()
