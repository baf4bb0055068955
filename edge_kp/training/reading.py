"""What corrects keypoints: a search on maps of their own, and readings of the features around them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_kp.training.layers import conv_bn
from edge_kp.training.sampling import exact_product, gather_cells, pixel_centres

STEP = 0.1  # sides of the crop by which a reading moves a point at an output of 1
SPREAD = 0.05  # sides of the crop, how far from its prior a point is looked for at first; then learnt


class Search(nn.Module):
    """Each point where a map of its own and the shape prior agree that it is.

    The map says how likely the features make every cell; a normal distribution around the prior keypoint,
    as wide as was learnt for the point, how likely the shape makes it. The point moves to the mean of their
    product (Nibali et al. 2018 take the mean of a map alone). The same features mean the same everywhere,
    which little data suffice to learn.
    """

    cells: Tensor
    centres: Tensor

    def __init__(self, channels: int, points: int, hidden: int, side: int) -> None:
        super().__init__()
        last = nn.Conv2d(hidden, points, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.maps = nn.Sequential(conv_bn(channels, hidden), nn.ReLU(), last)
        self.log_spread = nn.Parameter(torch.full((points, 1, 1), math.log(SPREAD)))
        centres = pixel_centres(side)
        v, u = torch.meshgrid(centres, centres, indexing="ij")
        cells = torch.stack([u, v], -1).flatten(0, 1)
        self.register_buffer("cells", cells, persistent=False)  # (G², 2), crop coordinates
        self.register_buffer("centres", centres, persistent=False)  # (G,)

    def forward(self, features: Tensor, at: Tensor) -> Tensor:
        """
        Args:
            features: (B, C, G, G) feature map.
            at: (B, N, 2) prior keypoints, crop coordinates.

        Returns:
            (B, N, 2) steps from the prior keypoints, crop coordinates.
        """
        at = at.detach()  # where to look is not a path for gradients
        away = (self.centres - at.unsqueeze(3)) * torch.exp(-self.log_spread)
        prior = -0.5 * away.square()
        right, down = prior.unbind(2)
        both = self.maps(features).float() + right.unsqueeze(2) + down.unsqueeze(3)
        found = exact_product(torch.softmax(both.flatten(2), 2), self.cells)
        # Not from the prior keypoint itself: at the border its distribution is cut off.
        start = (torch.softmax(prior, 3) * self.centres).sum(3)
        return found - start


class Reading(nn.Module):
    """What the feature map shows around every point → features of the points, and how far each must move.

    A small window sees the same edge at many places, so what it means depends on the point: after a layer
    that all points share, each has weights of its own; then every point hears of every other.
    """

    offsets: Tensor
    SIDE = 3  # reads a SIDE × SIDE neighbourhood, a cell apart

    def __init__(self, channels: int, cell: float, points: int, hidden: int, context: int) -> None:
        super().__init__()
        self.points, self.hidden = points, hidden
        self.read = nn.Conv1d(channels * self.SIDE**2, hidden, 1)
        self.context = nn.Linear(context, hidden)
        self.embedding = nn.Parameter(torch.randn(1, hidden, points) * 0.1)
        self.own = nn.Conv1d(points * hidden, points * hidden, 1, groups=points)
        self.others = nn.Conv1d(points, points, 1)
        self.refine = nn.Conv1d(hidden, hidden, 1)
        self.step = nn.Conv1d(points * hidden, points * 2, 1, groups=points)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.step.bias)  # type: ignore[arg-type]
        reach = torch.arange(self.SIDE) - self.SIDE // 2
        dy, dx = torch.meshgrid(reach, reach, indexing="ij")
        self.register_buffer("offsets", torch.stack([dx, dy], -1).view(1, 1, -1, 2) * cell)

    def forward(self, features: Tensor, context: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            features: (B, C, G, G) feature map.
            context: (B, hidden) what :attr:`context` gives for the whole image.
            at: (B, N, 2) crop coordinates to read at.

        Returns:
            (B, N, hidden) features of the points, and (B, N, 2) steps in crop coordinates.
        """
        # Shape-indexed features (Cao et al. 2012): where to look is not a path for gradients.
        where = at.detach().unsqueeze(2) + self.offsets
        seen = F.grid_sample(features, 2 * where - 1, align_corners=False, padding_mode="border")
        seen = seen.permute(0, 1, 3, 2).reshape(-1, features.shape[1] * self.SIDE**2, self.points)
        shared = F.relu(self.read(seen) + context.unsqueeze(2) + self.embedding).transpose(1, 2)
        own = F.relu(self.own(shared.reshape(-1, self.points * self.hidden, 1)))
        hidden = shared + own.view(-1, self.points, self.hidden)
        hidden = (hidden + self.others(hidden)).transpose(1, 2)
        hidden = (hidden + F.relu(self.refine(F.relu(hidden)))).transpose(1, 2)
        step = self.step(hidden.reshape(-1, self.points * self.hidden, 1))
        return hidden, STEP * step.float().view(-1, self.points, 2)

    def settled(self) -> SettledReading:
        return SettledReading(self)


class PointSums(nn.Module):
    """A linear layer of few outputs for every point: sums, which take less time than many tiny products.

    Args:
        layer: the same as a convolution, a group for each of the points.
    """

    def __init__(self, layer: nn.Conv1d, points: int) -> None:
        super().__init__()
        assert layer.bias is not None
        self.weight = nn.Parameter(layer.weight.data.view(points, -1, layer.weight.shape[1]))
        self.bias = nn.Parameter(layer.bias.data.view(points, -1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, N, outputs)."""
        return (x.unsqueeze(2) * self.weight).sum(3) + self.bias


class SettledReading(nn.Module):
    """A :class:`Reading` as it is exported: the same results from fewer operators, none of which turns rows
    into columns. The weights keep their names, in the order that this wants them in.
    """

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.points, self.hidden = reading.points, reading.hidden
        self.context, self.own, self.others = reading.context, reading.own, reading.others
        self.step = PointSums(reading.step, reading.points)
        self.read = _linear(settled_read(reading.read.weight.data, Reading.SIDE), reading.read.bias)
        self.refine = _linear(reading.refine.weight.data.squeeze(2), reading.refine.bias)
        self.embedding = nn.Parameter(reading.embedding.data.transpose(1, 2).contiguous())

    def forward(self, features: Tensor, context: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`Reading.forward`."""
        seen = gather_cells(features, at, Reading.SIDE).flatten(2).flatten(0, 1)
        base = context.unsqueeze(1) + self.embedding
        shared = F.relu(self.read(seen).unflatten(0, (-1, self.points)) + base)
        own = F.relu(self.own(shared.flatten(1).unsqueeze(2)))
        hidden = shared + own.view(-1, self.points, self.hidden)
        hidden = (hidden + self.others(hidden)).flatten(0, 1)
        hidden = hidden + F.relu(self.refine(F.relu(hidden)))
        hidden = hidden.unflatten(0, (-1, self.points))
        return hidden, STEP * self.step(hidden)


def settled_read(weight: Tensor, side: int) -> Tensor:
    """(hidden, C · side², 1) weights of a reading, cells last → (hidden, side² · C), cells first."""
    return weight.view(len(weight), -1, side**2).transpose(1, 2).reshape(len(weight), -1)


def unsettled_read(weight: Tensor, side: int) -> Tensor:
    """Inverse of :func:`settled_read`."""
    return weight.view(len(weight), side**2, -1).transpose(1, 2).reshape(len(weight), -1, 1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data = weight.contiguous()
    assert bias is not None
    layer.bias.data = bias.data
    return layer
