"""The trunk of MediaPipe's face mesh: it has seen far more faces than anyone has labelled, and it is quick.

Architecture and weights: ``face_landmark.tflite`` of MediaPipe 0.10.14 (Apache 2.0; Kartynnik et al. 2019,
*Real-time facial surface geometry from monocular video on mobile GPUs*; the blocks: Bazarevsky et al. 2019,
*BlazeFace*). Only what turns pixels into feature maps is taken; the maps are read by heads of our own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_kp.errors import BackendError
from edge_kp.extras import install
from edge_kp.training.pretrained import SameConv
from edge_kp.types import Array

# Channels of every block; the first of a group halves the resolution, but for the first group.
_GROUPS = ((16, 2), (32, 3), (64, 3), (128, 3), (128, 3))
_GIVEN = (1, 2, 3, 4)  # groups whose maps are given out: at 1/4, 1/8, 1/16 and 1/32 of the image
_STRAIGHT = 0.3  # share of a training after which every Bent is a ReLU
_FILE = "modules/face_landmark/face_landmark.tflite"
_OPERATORS = ("DEQUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "PRELU")


class Bent(nn.Module):
    """Of what is negative, lets a share through that each channel has learnt (He et al. 2015, PReLU).

    Training takes the shares back to nothing (:func:`straighten`): what is left is a ReLU, which every
    runtime fuses into the convolution before it, and which 8 bits bear.
    """

    left: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((channels,), 0.25))
        self.register_buffer("left", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, (self.share * self.left).to(x.dtype))

    def settled(self) -> nn.Module:
        """The same without what only training needs."""
        shares = (self.share * self.left).data
        if not shares.any():
            return nn.ReLU()
        prelu = nn.PReLU(len(shares))
        prelu.weight.data = shares
        return prelu


def straighten(net: nn.Module, progress: float) -> None:
    """Leave the less of every :class:`Bent` of a network, the further its training is (0 to 1)."""
    for module in net.modules():
        if isinstance(module, Bent):
            module.left.fill_(max(0.0, 1 - progress / _STRAIGHT))


class _Block(nn.Module):
    """Depthwise 3×3, then 1×1, around a shortcut, whose missing channels are zero."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        if halve:
            self.depthwise: nn.Conv2d = SameConv(inputs, inputs, 3, 2, groups=inputs, bias=True)
        else:
            self.depthwise = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.bent = Bent(outputs)
        self.halve, self.missing = halve, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        if self.halve:
            x = F.max_pool2d(x, 2, ceil_mode=x.shape[-1] % 2 == 1)
        if self.missing:
            x = F.pad(x, (0, 0, 0, 0, 0, self.missing))
        return self.bent(x + y)


class FaceMeshTrunk(nn.Module):
    """Feature maps at 1/4, 1/8, 1/16 and 1/32 of the image.

    Attributes:
        channels: of the four maps.
    """

    channels = tuple(_GROUPS[group][0] for group in _GIVEN)

    def __init__(self) -> None:
        super().__init__()
        inputs = _GROUPS[0][0]
        self.stem = SameConv(3, inputs, 3, 2, bias=True)
        self.bent = Bent(inputs)
        self.groups = nn.ModuleList()
        for at, (outputs, count) in enumerate(_GROUPS):
            blocks = []
            for i in range(count):
                blocks.append(_Block(inputs, outputs, at > 0 and i == 0))
                inputs = outputs
            self.groups.append(nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, S, S) BGR as of ``normalise`` → four maps."""
        x = self.bent(self.stem(image * (64 / 255) + 0.5))  # values from 0 to 1
        maps = []
        for at, group in enumerate(self.groups):
            x = group(x)
            if at in _GIVEN:
                maps.append(x)
        return maps

    def load_pretrained(self) -> None:
        """Take over the weights of the face mesh.

        Raises:
            BackendError: a package that holds or reads them is missing, or holds another network.
        """
        path = _weights_file()
        layers = _layers(path)
        for module in self.modules():
            if isinstance(module, Bent):
                kind = "PRELU"
                parameters: list[Tensor] = [module.share]
            elif isinstance(module, nn.Conv2d):
                kind = "DEPTHWISE_CONV_2D" if module.groups > 1 else "CONV_2D"
                assert module.bias is not None
                parameters = [module.weight, module.bias]
            else:
                continue
            found, constants = next(layers, ("", []))
            if found != kind or [c.shape for c in constants] != [tuple(p.shape) for p in parameters]:
                raise BackendError(f"{path}: not the face mesh that is known here; {_install()}")
            for parameter, constant in zip(parameters, constants, strict=True):
                parameter.data = torch.from_numpy(constant)
        self.stem.weight.data = self.stem.weight.data.flip(1)  # made for RGB


def _install() -> str:
    return f"{install('facemesh')} and pip install --no-deps mediapipe==0.10.14"


def _missing(what: str) -> str:
    return f"{what} is missing: the trunk facemesh starts from MediaPipe's weights; {_install()}"


def _weights_file() -> Path:
    """Raises: BackendError: MediaPipe is not there, or without the file."""
    found = importlib.util.find_spec("mediapipe")  # looked for, not imported: that needs a dozen packages
    folders = [] if found is None else list(found.submodule_search_locations or [])
    path = next((Path(folder, _FILE) for folder in folders if Path(folder, _FILE).is_file()), None)
    if path is None:
        raise BackendError(_missing("mediapipe" if found is None else f"{_FILE} of mediapipe"))
    return path


def _layers(path: Path) -> Iterator[tuple[str, list[Array]]]:
    """Convolutions and PReLUs in the order of the file, with their constants as float32.

    Raises:
        BackendError: the reader of such files is missing.
    """
    try:
        from tflite import BuiltinOperator, Model
    except ImportError as error:
        raise BackendError(_missing("tflite")) from error
    names = {getattr(BuiltinOperator, name): name for name in _OPERATORS}
    model = Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    constants: dict[int, Array] = {}
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        inputs = operator.InputsAsNumpy().tolist()
        if name == "DEQUANTIZE":  # the file keeps half floats, its operators want floats
            tensor = graph.Tensors(inputs[0])
            raw = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
            values = np.frombuffer(raw, np.float16).reshape(tensor.ShapeAsNumpy())
            constants[int(operator.Outputs(0))] = values.astype(np.float32)
        elif name is not None:
            yield name, [_in_torch_order(name, constants[j]) for j in inputs[1:] if j in constants]


def _in_torch_order(name: str, constant: Array) -> Array:
    """Kernels come as (outputs, y, x, inputs), depthwise ones as (1, y, x, channels); shares as (1, 1, C)."""
    if constant.ndim == 4:
        constant = constant.transpose((3, 0, 1, 2) if name == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2))
    return np.ascontiguousarray(constant.squeeze() if name == "PRELU" else constant)
