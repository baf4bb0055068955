"""One stage: template mixture, keypoints read off the feature maps, score, visibility, attributes.

All coordinates are crop coordinates in [0, 1]; GridSample takes ``2u - 1`` with ``align_corners=False``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_kp.types import Array


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of one stage.

    Attributes:
        size: side of the square input image in pixels, a multiple of 16.
        width: channels at 1/4 resolution; doubled at 1/8 and 1/16.
        correct: put a :class:`CorrectionNet` in front (stage 1).
        bank: mix templates; False regresses the prior keypoints directly, for comparison only.
        attributes: names of the attribute outputs.
    """

    size: int
    width: int
    correct: bool
    attributes: tuple[str, ...]
    bank: bool = True

    def __post_init__(self) -> None:
        if self.size % 16 or self.size < 32:
            raise ValueError(f"input size: expected a multiple of 16 from 32 up, got {self.size}")
        if self.width % 8 or self.width < 8:
            raise ValueError(f"width: expected a multiple of 8 from 8 up, got {self.width}")


class StageOutput(NamedTuple):
    """What one stage gives; logits where training needs them. ``correction`` is None in stage 2.

    Shapes: keypoints and prior_keypoints (B, N, 2); mixture_logits (B, K); score_logit (B,);
    visibility_logits (B, N); attribute_logits (B, A); correction (B, 2, 3), corrected → input crop.
    """

    keypoints: Tensor
    prior_keypoints: Tensor
    mixture_logits: Tensor
    score_logit: Tensor
    visibility_logits: Tensor
    attribute_logits: Tensor
    correction: Tensor | None


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Residual(nn.Module):
    """Two plain 3×3 convolutions around a shortcut (He et al. 2016, basic block)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels)
        self.second = conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Down(nn.Sequential):
    """Halve the resolution, then refine with ``blocks`` residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__(
            conv_bn(inputs, outputs, stride=2), nn.ReLU(), *(Residual(outputs) for _ in range(blocks))
        )


class CorrectionNet(nn.Module):
    """Pose and position error of the crop, as a similarity (Jaderberg et al. 2015, spatial transformer).

    Looks at the image at a quarter of its resolution. Turn within ±90°, scale within e^±0.7, shift within
    ±half a crop, so that a bad start of training cannot throw the object out of sight.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.AvgPool2d(4),
            conv_bn(3, 16),
            nn.ReLU(),
            conv_bn(16, 32, stride=2),
            nn.ReLU(),
            conv_bn(32, 48, stride=2),
            nn.ReLU(),
            conv_bn(48, 64),
            nn.ReLU(),
        )
        side = math.ceil(math.ceil(size / 4 / 2) / 2)
        self.hidden = nn.Linear(64 * side * side, 64)
        self.out = nn.Linear(64, 4)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) → (B, 2, 3) float32: corrected crop coordinates → input crop coordinates."""
        raw = self.out(F.relu(self.hidden(self.features(image).flatten(1)))).float()
        log_scale, angle, dx, dy = torch.tanh(raw).unbind(1)
        scale = torch.exp(0.7 * log_scale)
        a, b = scale * torch.cos(1.5708 * angle), scale * torch.sin(1.5708 * angle)
        # Turn and scale about the middle of the crop, then shift.
        tx = 0.5 + 0.5 * dx - 0.5 * a + 0.5 * b
        ty = 0.5 + 0.5 * dy - 0.5 * b - 0.5 * a
        return torch.stack([a, -b, tx, b, a, ty], 1).view(-1, 2, 3)


def apply_affine(matrix: Tensor, points: Tensor) -> Tensor:
    """(B, 2, 3) transforms on (B or 1, N, 2) points: products and sums, which no GPU rounds to TF32."""
    columns = matrix.transpose(1, 2).unsqueeze(2)  # (B, 3, 1, 2), so that nothing has to be stacked
    return points[..., 0:1] * columns[:, 0] + points[..., 1:2] * columns[:, 1] + columns[:, 2]


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in the inputs' own float32, also under autocast."""
    device = a.device.type
    if not torch.is_autocast_enabled(device):
        return a @ b
    with torch.autocast(device, enabled=False):
        return a @ b


def pixel_grid(size: int) -> Tensor:
    """(1, size, size, 3) crop coordinates (u, v, 1) of every pixel's centre."""
    centres = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([u, v, torch.ones_like(u)], -1)[None]


def sample(image: Tensor, matrix: Tensor, grid: Tensor, padding: str) -> Tensor:
    """Bilinear samples of an image on a transformed grid.

    Args:
        image: (B, C, H, W).
        matrix: (B, 2, 3), grid → coordinates of the image in [0, 1].
        grid: (1, S, S, 3) of :func:`pixel_grid`.
        padding: ``border`` or ``zeros`` outside the image.

    Returns:
        (B, C, S, S).
    """
    # GridSample counts from -1 to 1; the few numbers of the matrix are rescaled, not the many of the grid.
    matrix = 2 * matrix - matrix.new_tensor([0.0, 0.0, 1.0])
    at = exact_product(grid.flatten(1, 2), matrix.transpose(1, 2))
    at = at.view(-1, grid.shape[1], grid.shape[2], 2)
    return F.grid_sample(image, at, align_corners=False, padding_mode=padding)


class StageNet(nn.Module):
    """One stage of the cascade.

    Args:
        templates: (K, N, 2) float32 bank in crop coordinates; becomes a constant of the network.
    """

    bank: Tensor
    offsets: Tensor
    pixel_grid: Tensor
    OFFSETS = 3  # the residual head reads an OFFSETS × OFFSETS neighbourhood of each prior keypoint

    def __init__(self, config: NetworkConfig, templates: Array) -> None:
        super().__init__()
        self.config = config
        k, n, _ = templates.shape
        self.points = n
        w, hidden, deep = config.width, 64, 5 * config.width
        self.correction = CorrectionNet(config.size) if config.correct else None
        self.stem = nn.Sequential(conv_bn(3, 16, stride=2), nn.ReLU())
        self.quarter = Down(16, w, 1)
        self.eighth = Down(w, 2 * w, 2)
        self.sixteenth = Down(2 * w, 4 * w, 2)
        self.top = Down(4 * w, deep, 1)
        self.lateral_eighth = conv_bn(2 * w, w, 1)
        self.lateral_sixteenth = conv_bn(4 * w, w, 1)
        self.local = nn.Sequential(conv_bn(w, w), nn.ReLU())

        side = math.ceil(config.size / 32)
        self.pool = nn.Sequential(conv_bn(deep, 48, 1), nn.ReLU(), nn.Flatten())
        self.context = nn.Linear(48 * side * side, 256)
        self.mixture = nn.Linear(256, k if config.bank else 2 * n)
        self.score = nn.Linear(256, 1)
        self.attributes = nn.Linear(256, len(config.attributes))
        if config.bank:
            self.register_buffer("bank", torch.from_numpy(templates.reshape(k, 2 * n).copy()))
        else:
            nn.init.zeros_(self.mixture.weight)
            with torch.no_grad():
                self.mixture.bias.copy_(torch.from_numpy(templates.mean(0).reshape(-1)))

        self.read = nn.Conv1d(w * self.OFFSETS**2, hidden, 1)
        self.point_context = nn.Linear(256, hidden)
        self.point_embedding = nn.Parameter(torch.randn(1, hidden, n) * 0.1)
        self.mix_points = nn.Conv1d(n, n, 1)  # on (B, N, hidden): every point hears of every other
        self.refine = nn.Conv1d(hidden, hidden, 1)
        self.residual = nn.Conv1d(hidden, 2, 1)
        self.visibility = nn.Conv1d(hidden, 1, 1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)  # type: ignore[arg-type]

        step = 4 / config.size  # one cell of the 1/4-resolution map, in crop coordinates
        reach = torch.arange(self.OFFSETS) - self.OFFSETS // 2
        dy, dx = torch.meshgrid(reach, reach, indexing="ij")
        self.register_buffer("offsets", torch.stack([dx, dy], -1).view(1, 1, -1, 2) * step)
        self.register_buffer("pixel_grid", pixel_grid(config.size), persistent=False)

    def forward(self, image: Tensor, gather: bool = False) -> StageOutput:
        """(B, 3, S, S) float, values around [-1, 1] → :class:`StageOutput` in input-crop coordinates.

        Args:
            gather: read features by :func:`gather_cells` instead of GridSample, with the same result.
        """
        correction = None
        if self.correction is not None:
            correction = self.correction(image)
            image = sample(image.float(), correction, self.pixel_grid, "border")

        quarter = self.quarter(self.stem(image))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        context = F.relu(self.context(self.pool(self.top(sixteenth))))
        heads = (self.mixture, self.score, self.attributes, self.point_context)
        logits, score, attributes, point_context = side_by_side(heads, context)
        logits = logits.float()
        prior = self.mix(torch.softmax(logits, 1)) if self.config.bank else logits
        prior = prior.view(-1, self.points, 2)

        coarse = F.interpolate(self.lateral_sixteenth(sixteenth), scale_factor=2.0)
        coarse = F.relu(coarse + self.lateral_eighth(eighth))
        local = self.local(quarter + F.interpolate(coarse, scale_factor=2.0)).float()
        hidden = self.read_points(local, prior, point_context, gather)
        residual, visibility = side_by_side((self.residual, self.visibility), hidden)
        residual = residual.float().transpose(1, 2) * 0.1
        keypoints = prior + residual
        if correction is not None:
            prior, keypoints = apply_affine(correction, prior), apply_affine(correction, keypoints)
        return StageOutput(
            keypoints,
            prior,
            logits,
            score.float().squeeze(1),
            visibility.float().squeeze(1),
            attributes.float(),
            correction,
        )

    def mix(self, mixture: Tensor) -> Tensor:
        """(B, K) probabilities × templates → (B, 2N), in float32: bfloat16 would round to 1/256 of a crop."""
        return exact_product(mixture, self.bank)

    def read_points(
        self, local: Tensor, prior: Tensor, point_context: Tensor, gather: bool = False
    ) -> Tensor:
        """Features (B, hidden, N) of every point, read around its prior keypoint."""
        # Shape-indexed features (Cao et al. 2012): where to look is not a path for gradients.
        prior = prior.detach()
        if gather:
            seen = gather_cells(local, prior, self.OFFSETS)
        else:
            where = prior.unsqueeze(2) + self.offsets
            seen = F.grid_sample(local, 2 * where - 1, align_corners=False, padding_mode="border")
        channels, cells = local.shape[1], self.OFFSETS**2
        seen = seen.permute(0, 1, 3, 2).reshape(-1, channels * cells, self.points)
        hidden = F.relu(self.read(seen) + point_context.unsqueeze(2) + self.point_embedding)
        hidden = hidden + self.mix_points(hidden.transpose(1, 2)).transpose(1, 2)
        return hidden + F.relu(self.refine(F.relu(hidden)))


def side_by_side(layers: Sequence[nn.Linear | nn.Conv1d], x: Tensor) -> tuple[Tensor, ...]:
    """Several linear layers (or 1×1 convolutions) of the same input as one product: one kernel, not many."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers if layer.bias is not None])
    out = F.linear(x, weight, bias) if weight.ndim == 2 else F.conv1d(x, weight, bias)
    return out.split([len(layer.weight) for layer in layers], 1)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """(B, M, C) float rows picked by (B, R) int64 → (B, R, C).

    An operator of its own, so that it can be exported as GatherND; it passes no gradient on.
    """
    picked: Tensor = torch.ops.edge_kp.gather_rows(rows, index)
    return picked


OPERATORS = torch.library.Library("edge_kp", "DEF")  # holds the registration for as long as the module lives
OPERATORS.define("gather_rows(Tensor rows, Tensor index) -> Tensor")
OPERATORS.impl(
    "gather_rows",
    lambda rows, index: torch.take_along_dim(rows, index.unsqueeze(2), 1),
    "CompositeExplicitAutograd",
)
torch.library.register_fake(
    "edge_kp::gather_rows",
    lambda rows, index: rows.new_empty(index.shape[0], index.shape[1], rows.shape[2]),
    lib=OPERATORS,
)


def gather_cells(features: Tensor, points: Tensor, side: int) -> Tensor:
    """Bilinear samples on a ``side`` × ``side`` neighbourhood, one cell apart, of each point.

    The same as GridSample with borders repeated. ONNX Runtime's works out where to look again for every
    channel; here all channels of a cell are read at once, which takes a quarter of the time.

    Args:
        features: (B, C, G, G).
        points: (B, N, 2) crop coordinates.

    Returns:
        (B, C, N, side²), rows of the neighbourhood from top to bottom.
    """
    _, channels, height, width = features.shape
    at = points * features.new_tensor([width, height]) - 0.5
    corner = torch.floor(at)
    reach = torch.arange(side + 1, device=features.device) - side // 2
    column = (corner[..., 0:1] + reach).clamp(0, width - 1)
    row = (corner[..., 1:2] + reach).clamp(0, height - 1)
    cell = (row.unsqueeze(-1) * width + column.unsqueeze(-2)).to(torch.int64)
    seen = gather_rows(features.flatten(2).transpose(1, 2), cell.flatten(1))
    seen = seen.view(-1, points.shape[1], side + 1, side + 1, channels)
    right, down = (at - corner).unsqueeze(-1).unsqueeze(-1).unsqueeze(-1).unbind(2)
    seen = torch.lerp(seen[:, :, :-1], seen[:, :, 1:], down)
    seen = torch.lerp(seen[:, :, :, :-1], seen[:, :, :, 1:], right)
    return seen.flatten(2, 3).permute(0, 3, 1, 2)


class Contract(nn.Module):
    """A network as it is exported: uint8 BGR (B, S, S, 3) in, named outputs for a host program out.

    Attributes:
        OUTPUTS: names of what ``forward`` returns.
        size: side S of the input image, pixels.
    """

    OUTPUTS: tuple[str, ...]
    size: int


class ExportNet(Contract):
    """A stage: probabilities and crop coordinates out."""

    OUTPUTS = ("keypoints", "prior_keypoints", "mixture", "score", "visibility", "attributes")

    def __init__(self, stage: StageNet) -> None:
        super().__init__()
        self.stage = stage
        self.size = stage.config.size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return stage_outputs(self.stage(normalise(image), gather=True))


def stage_outputs(out: StageOutput) -> tuple[Tensor, ...]:
    """Probabilities instead of logits, in the order of :attr:`ExportNet.OUTPUTS`."""
    return (
        out.keypoints,
        out.prior_keypoints,
        torch.softmax(out.mixture_logits, 1),
        torch.sigmoid(out.score_logit),
        torch.sigmoid(out.visibility_logits),
        torch.sigmoid(out.attribute_logits),
    )


def normalise(image: Tensor) -> Tensor:
    """uint8 BGR (B, S, S, 3) → float (B, 3, S, S) in about [-2, 2]; TensorRT wants the Cast first."""
    return rescale(image.float().permute(0, 3, 1, 2))


def rescale(image: Tensor) -> Tensor:
    """Values of 0 to 255 → about [-2, 2]."""
    return (image - 127.5) / 64.0
