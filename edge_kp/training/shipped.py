"""The shipped model that new networks start from, whatever object they are for.

It knows faces alone, but what turns pixels into feature maps serves any object (Yosinski et al. 2014, *How
transferable are features in deep neural networks?*), and few photos do not suffice to learn it anew.
``face68-free`` was trained on rendered faces: nothing in its card forbids any use of what starts from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge_kp.errors import ModelError
from edge_kp.modeldir import SHIPPED
from edge_kp.training.facemesh import FaceMeshTrunk
from edge_kp.training.locating import LocatorNet
from edge_kp.training.network import StageNet
from edge_kp.training.starting import file_weights, folded_norms, measure_norms

MODEL = "face68-free"
TRUNK = "shipped"  # what a recipe calls a trunk that starts from it
ARCHITECTURE = "facemesh"  # of that trunk
LOCATOR_WIDTH = 32


def about_start(trunks: Sequence[str]) -> str | None:
    """A line that tells whose weights a training starts from; None where it does not."""
    if TRUNK not in trunks:
        return None
    return f"networks start from those of {MODEL}; with --trunks plain plain from nothing"


@torch.no_grad()
def start_trunk(net: StageNet, stage: int) -> None:
    """Give a fresh stage the trunk of the model's stage 1 or 2; all else of it stays as it is.

    Raises:
        ModelError: the model is damaged.
    """
    assert isinstance(net.pretrained, FaceMeshTrunk)
    weights = file_weights(SHIPPED / MODEL, f"stage{stage}")
    for name, parameter in net.pretrained.named_parameters():
        if name.rpartition(".")[2] == "share":  # nothing negative passes in an exported network
            parameter.zero_()
        else:
            _take(parameter, weights, f"pretrained.{name}")


@torch.no_grad()
def start_locator(net: LocatorNet, images: Sequence[Tensor]) -> None:
    """Give a fresh locator of :data:`LOCATOR_WIDTH` all weights of the model's but those of the last layer.

    Args:
        images: batches of training pictures, uint8 (B, S, S, 3), that batch norms are measured on.

    Raises:
        ModelError: the model is damaged.
    """
    weights = file_weights(SHIPPED / MODEL, "locator")
    norms = folded_norms(net)
    undone = {norm: f"{convolution}.bias" for convolution, (norm, _) in norms.items()}
    for name, parameter in net.named_parameters():
        layer, _, what = name.rpartition(".")
        if layer == "out":
            continue
        if layer in undone and what == "weight":
            parameter.fill_(1)
        else:
            _take(parameter, weights, undone.get(layer, name))
    measure_norms(net, [norm for _, norm in norms.values()], images)


def _take(parameter: Tensor, weights: dict[str, Tensor], name: str) -> None:
    value = weights.get(name)
    if value is None or value.shape != parameter.shape:
        raise ModelError(f"{MODEL}: has no {name} of {tuple(parameter.shape)}; install edge_kp again")
    parameter.copy_(value)
