"""Two-stage time on one CPU core beside a plain MobileNetV2 in the same run: ``python -m benchmarks.speed``.

The candidates take turns, so that a change of the machine's speed meets all of them; the ratio of medians is
the figure to compare over machines. The reference is MobileNetV2 1.0 at 224 px (Sandler et al. 2018, table 2:
300 MMAC) with random weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.common import write_result
from edge_kp import Detector
from edge_kp.cli import run_cli

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut"


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = []
        if expand > 1:
            layers += _conv(inputs, hidden, 1)
        layers += _conv(hidden, hidden, 3, stride, hidden)
        layers += _conv(hidden, outputs, 1)[:2]
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self.shortcut else y


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU6()]


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 1.0 with 1000 classes (Sandler et al. 2018, table 2)."""
    layers: list[nn.Module] = _conv(3, 32, 3, 2)
    channels = 32
    # expansion, channels, blocks, stride
    rows = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expand, outputs, repeats, stride in rows:
        for i in range(repeats):
            layers.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expand))
            channels = outputs
    layers += [*_conv(320, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers).eval()


def mobilenet_session(folder: str) -> ort.InferenceSession:
    path = Path(folder) / "mobilenet_v2.onnx"
    torch.onnx.export(mobilenet_v2(), (torch.zeros(1, 3, 224, 224),), str(path), dynamo=True, verbose=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each candidate, one call a round, the first tenth of the rounds left out."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in tqdm(range(rounds + rounds // 10), "measuring", leave=False):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    kept = {name: np.array(values[rounds // 10 :]) for name, values in times.items()}
    return {
        name: {"median_ms": round(float(np.median(v)), 3), "p95_ms": round(float(np.percentile(v, 95)), 3)}
        for name, v in kept.items()
    }


def _detector(model: str) -> Detector:
    """In what MobileNetV2 runs in; ``python -m benchmarks.precision`` compares precisions and backends."""
    return Detector(model, backend="onnxruntime", precision="fp32", threads=1)


def _run(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    clip = cv2.VideoCapture(str(CLIP.with_suffix(".mp4")))
    image = clip.read()[1]
    about = json.loads(CLIP.with_suffix(".json").read_text(encoding="utf-8"))
    matrix, box = np.array(about["frames"][0]["matrix"]), np.array(about["reference_box"]).reshape(2, 2)
    corners = (box @ matrix[:, :2].T + matrix[:, 2]).reshape(4)
    with tempfile.TemporaryDirectory() as folder, _detector(args.model) as detector:
        reference = mobilenet_session(folder)
        name = reference.get_inputs()[0].name
        picture = np.zeros((1, 3, 224, 224), np.float32)
        size1, size2 = detector.spec.sizes
        crop1, crop2 = (np.full((1, s, s, 3), 128, np.uint8) for s in (size1, size2))
        figures = measure(
            {
                "stage1_network": lambda: detector.cascade.stage1.run(crop1),
                "stage2_network": lambda: detector.cascade.stage2.run(crop2),
                "both_stages_with_crops": lambda: detector.detect(image, boxes=[corners]),
                "mobilenet_v2_224": lambda: reference.run(None, {name: picture}),
            },
            args.rounds,
        )
    ratio = figures["both_stages_with_crops"]["median_ms"] / figures["mobilenet_v2_224"]["median_ms"]
    for key, row in figures.items():
        print(f"{key:<24}{row['median_ms']:8.2f} ms median {row['p95_ms']:8.2f} ms p95")
    print(f"both stages take {ratio:.2f} × the time of MobileNetV2 224 on one core, FP32")
    shape = [int(v) for v in image.shape[:2]]
    write_result(
        "speed",
        {
            "model": detector.model_name,
            "frame": shape,
            "rounds": args.rounds,
            "threads": 1,
            "precision": "fp32",
            "figures": figures,
            "ratio_to_mobilenet_v2": round(ratio, 3),
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--model", default="face68")
    parser.add_argument("--rounds", type=int, default=300)
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
