"""The yardstick: MobileNetV2 1.0 at 224 px (Sandler et al. 2018, table 2: 300 MMAC), with random weights."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import nn

SIDE = 224


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


def export_mobilenet(path: Path) -> None:
    """Write it as an ONNX file for one image: float32 (1, 3, 224, 224) in, (1, 1000) out."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            mobilenet_v2(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
