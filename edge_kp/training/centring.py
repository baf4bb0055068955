"""Where labels lie to one side: mirroring hides it from a network, and its last layer is told afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from edge_kp.training.crops import CropDataset
from edge_kp.training.loop import LoopConfig, Place, batch_loader
from edge_kp.training.network import StageNet, normalise
from edge_kp.training.reading import STEP

T = TypeVar("T")
NEGLIGIBLE = 1e-5  # sides of the crop
ENOUGH = 50  # held-back samples: their mean way is then surer than that of photos that are known by heart


def telling(held: Sequence[T], trained: Sequence[T]) -> Sequence[T]:
    """The samples by which a stage is centred.

    A network that has been trained for long knows its photos by heart, mirrored and not: of the 0.32 % of the
    crop that labels of faces lay to one side, it saw 0.24 % on them. Held-back samples show all of it, where
    they are more than a few.
    """
    return held if len(held) >= ENOUGH else trained


@torch.no_grad()
def centre(net: StageNet, data: CropDataset, loop: LoopConfig, place: Place) -> tuple[float, float]:
    """Move all keypoints of a stage by what its labels are off from them on average, in place.

    People who label, and programs even more, may put all points a little to one side. Of crops that are
    mirrored half the time a network learns the middle between both sides, and so misses every label of an
    upright picture by the same little way. Points are moved by the last layer's bias: it costs nothing.

    Args:
        data: crops as they are, not augmented, whose labels are to be met.

    Returns:
        The way (x, y), sides of the crop; (0, 0) where it is none to speak of.
    """
    net.eval()
    total, count = torch.zeros(2, device=place.device), torch.zeros((), device=place.device)
    for batch in batch_loader(data, np.arange(len(data)).reshape(1, -1), loop, place, split=loop.batch):
        off = batch["keypoints"] - net(normalise(batch["image"])).keypoints
        total += (off * batch["labelled"][..., None]).sum((0, 1))
        count += batch["labelled"].sum()
    way = total / count.clamp(min=1)
    if float(way.abs().max()) < NEGLIGIBLE:  # so that a finished run stays as it is
        return 0.0, 0.0
    bias = net.readings[-1].step.bias
    assert bias is not None
    bias.data += (way / STEP).repeat(net.points)
    x, y = way.tolist()
    return x, y
