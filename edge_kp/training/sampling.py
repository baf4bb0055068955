"""Transforms, bilinear samples and exact products: what the networks are made of beside layers.

All coordinates are crop coordinates in [0, 1]; GridSample takes ``2u - 1`` with ``align_corners=False``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def pixel_centres(size: int) -> Tensor:
    """(size,) crop coordinates of the centres of a row's pixels."""
    return (torch.arange(size) + 0.5) / size


def sample(image: Tensor, matrix: Tensor, centres: Tensor, padding: str) -> Tensor:
    """Bilinear samples of an image on a transformed grid.

    Args:
        image: (B, C, H, W).
        matrix: (B, 2, 3), grid → coordinates of the image in [0, 1].
        centres: (S,) of :func:`pixel_centres`; the grid has S × S of them.
        padding: ``border`` or ``zeros`` outside the image.

    Returns:
        (B, C, S, S).
    """
    # GridSample counts from -1 to 1; the few numbers of the matrix are rescaled, not the many of the grid.
    matrix = 2 * matrix - matrix.new_tensor([0.0, 0.0, 1.0])
    # Row and column by themselves, then their sums: a product would need all of the grid as a constant.
    right, down, shift = matrix.transpose(1, 2)[:, :, None].split(1, 1)  # (B, 1, 1, 2) each
    row = centres.view(-1, 1) * right + shift
    column = centres.view(-1, 1, 1) * down
    at = row + column
    return F.grid_sample(image, at, align_corners=False, padding_mode=padding)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """(B, M, C) float rows picked by (B, ..., 1) int64 → (B, ..., C).

    An operator of its own, so that it can be exported as GatherND; it passes no gradient on.
    """
    picked: Tensor = torch.ops.edge_kp.gather_rows(rows, index)
    return picked


OPERATORS = torch.library.Library("edge_kp", "DEF")  # holds the registration for as long as the module lives
OPERATORS.define("gather_rows(Tensor rows, Tensor index) -> Tensor")
OPERATORS.impl(
    "gather_rows",
    lambda rows, index: torch.take_along_dim(rows, index.flatten(1).unsqueeze(2), 1).view(
        *index.shape[:-1], rows.shape[2]
    ),
    "CompositeExplicitAutograd",
)
torch.library.register_fake(
    "edge_kp::gather_rows",
    lambda rows, index: rows.new_empty(*index.shape[:-1], rows.shape[2]),
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
        (B, N, side, side, C), the neighbourhood's rows from top to bottom.
    """
    size = features.shape[-1]
    at = points * size - 0.5
    corner = torch.floor(at)
    reach = torch.arange(side + 1, device=features.device) - side // 2
    down, right = torch.meshgrid(reach, reach, indexing="ij")
    place = corner[:, :, None, None] + torch.stack([right, down], -1)
    # Whole numbers, exact in float32; product and sum, since a GPU may round a matrix product to TF32.
    cell = (place.clamp(0, size - 1) * place.new_tensor([1, size])).sum(-1, keepdim=True).to(torch.int64)
    # Channels last first, as CPUs keep the maps: flattening before that would turn them round twice.
    seen = gather_rows(features.permute(0, 2, 3, 1).flatten(1, 2), cell)
    right, down = (at - corner)[..., None, None].split(1, 2)
    seen = _between(seen[:, :, :-1], seen[:, :, 1:], down)
    return _between(seen[:, :, :, :-1], seen[:, :, :, 1:], right)


def _between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """``torch.lerp`` in three operators; that one is exported as eight."""
    return a + share * (b - a)
