"""Training that starts from an exported model: its shape, its templates and its weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from edge_kp.errors import ModelError
from edge_kp.modeldir import checked_file, find_model, read_model
from edge_kp.training.loop import Items
from edge_kp.training.network import CORRECTION_CHANNELS, POOLED_CHANNELS, StageNet, normalise
from edge_kp.training.onnx_graph import with_own_weights
from edge_kp.training.reading import unsettled_read
from edge_kp.training.separating import separated

IMAGES, BATCH = 512, 32  # training crops that batch norms are measured on
SMALLEST_VARIANCE = 1e-6
# Layers that see a whole map at once, so that their weights depend on the input's size: channels of the map.
_WHOLE_MAPS = {"correction.hidden": CORRECTION_CHANNELS, "context": POOLED_CHANNELS}


def model_settings(model: str) -> dict[str, Any]:
    """What of a :class:`~edge_kp.training.recipe.Recipe` the networks and templates of a model decide.

    Args:
        model: name of a shipped model, or a model folder.

    Raises:
        ModelError: the folder is no intact model, or its networks are of a kind that cannot be started from.
    """
    folder = find_model(model)
    spec = read_model(folder)
    checked_file(folder, spec, "templates.npz")
    shapes = [_shape(file_weights(folder, f"stage{stage}"), folder) for stage in (1, 2)]
    return {
        "templates": str(folder / "templates.npz"),
        "box_rule": spec.box_rule,
        "scale": spec.scale,
        "sizes": spec.sizes,
        **{name: tuple(shape[name] for shape in shapes) for name in shapes[0]},
    }


@torch.no_grad()
def start_stage(net: StageNet, model: str, stage: int, images: Sequence[Tensor]) -> set[str]:
    """Give a fresh network the weights of a model's stage.

    Returns the names of those that it has not: attributes that differ, and what foretells a teacher's map.

    Exported convolutions hold their batch norms. These get the statistics of ``images``, and what undoes
    them: the network gives what the model gives, and can be trained on. A separable fusion in the place of a
    plain one comes as close to it as it can, and so does another input size.

    Args:
        net: of the shape that :func:`model_settings` tells, but for its size and a fusion that is separable.
        stage: 1 or 2.
        images: batches of training crops, uint8 (B, S, S, 3).

    Raises:
        ModelError: the model has other weights than the network.
    """
    folder = find_model(model)
    weights = file_weights(folder, f"stage{stage}")
    attributes = read_model(folder).attributes
    weights |= _heads(net, weights, len(attributes)) | _readings(net, weights)
    if attributes != net.config.attributes:
        weights = {name: value for name, value in weights.items() if not name.startswith("attributes.")}
    if net.config.fusion == "separable" and "local.0.2.weight" not in weights:
        weights |= _separable_fusion(net, model, stage, images)
    norms = folded_norms(net)
    undone = {norm: weights.get(f"{convolution}.bias") for convolution, (norm, _) in norms.items()}
    fresh = set()
    for name, parameter in net.named_parameters():
        layer, _, what = name.rpartition(".")
        value: Tensor | None = weights.get(name)
        if layer in undone:
            value = undone[layer] if what == "bias" else torch.ones_like(parameter)
        elif what == "share":  # nothing negative passes in an exported network
            value = torch.zeros_like(parameter)
        elif layer in ("attributes", "foretell") and value is None:
            fresh.add(name)
            continue
        elif value is not None and what == "weight" and layer in _WHOLE_MAPS:
            value = resampled_layer(value, parameter.shape[1], _WHOLE_MAPS[layer])
        if value is None or value.shape != parameter.shape:
            raise ModelError(
                f"{folder}: stage {stage} has no {name} of {tuple(parameter.shape)}; export it again"
            )
        parameter.copy_(value)
    measure_norms(net, [norm for _, norm in norms.values()], images)
    return fresh


def first_images(data: Items, most: int) -> list[Tensor]:
    """Batches of the first images of training items, uint8 (B, S, S, 3)."""
    items = [data[i]["image"] for i in range(min(most, len(data)))]
    return [torch.from_numpy(np.stack(items[i : i + BATCH])) for i in range(0, len(items), BATCH)]


@torch.no_grad()
def keep_share(net: StageNet, start: StageNet, share: float, fresh: Collection[str] = ()) -> None:
    """Take the weights of a trained network back towards those that it started from.

    What was learnt anew is kept for the most part, and less is forgotten (Wortsman et al. 2022, *Robust
    fine-tuning of zero-shot models*). Batch norms are folded into their convolutions before: these may be
    scaled differently in the two.

    Args:
        start: is changed, but gives what it gave.
        share: of the weights of ``start`` in the mean, 0 to 1.
        fresh: names of weights that ``start`` does not know.
    """
    for stage in (net, start):
        _fold(stage)
    kept = dict(start.named_parameters())
    for name, value in net.named_parameters():
        if name not in fresh:
            value.lerp_(kept[name], share)


def _fold(net: StageNet) -> None:
    """Let convolutions do what the batch norms behind them did; these add their bias and no more."""
    convolutions = dict(net.named_modules())
    for name, (_, norm) in folded_norms(net).items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        convolutions[name].weight.mul_(scale.view(-1, 1, 1, 1))
        norm.bias.sub_(norm.running_mean * scale)
        norm.weight.fill_(1)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)


def measure_norms(net: nn.Module, norms: Sequence[nn.BatchNorm2d], images: Sequence[Tensor]) -> None:
    """Give norms that do nothing but add their bias the statistics of images, and what undoes these.

    Args:
        images: batches, uint8 (B, S, S, 3).
    """
    for norm in norms:
        norm.running_mean, norm.running_var = (
            torch.zeros_like(norm.bias),
            torch.full_like(norm.bias, 1 - norm.eps),
        )
    seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def see(norm: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        values = inputs[0].double()
        seen[norm].append(torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))]))

    hooks = [norm.register_forward_hook(see) for norm in norms]
    net.eval()
    for batch in images:
        net(normalise(batch))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        mean, square = torch.stack(seen[norm]).mean(0)
        variance = (square - mean.square()).clamp(min=SMALLEST_VARIANCE)
        norm.running_mean, norm.running_var = mean.float(), variance.float()
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.add_(norm.running_mean)


def folded_norms(net: nn.Module) -> dict[str, tuple[str, nn.BatchNorm2d]]:
    """Name of each convolution whose batch norm an export folds in → name and module of that norm."""
    return {
        f"{name}.{i}": (f"{name}.{i + 1}", second)
        for name, module in net.named_modules()
        if isinstance(module, nn.Sequential)
        for i, (first, second) in enumerate(zip(module, list(module)[1:], strict=False))
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)
    }


def file_weights(folder: Path, network: str) -> dict[str, Tensor]:
    """Name in the network → value of every constant of ``stage1``, ``stage2`` or ``locator``.

    Raises:
        ModelError: the file is missing or damaged.
    """
    path = checked_file(folder, read_model(folder), f"{network}.fp32.onnx")
    try:
        graph = with_own_weights(path).graph
    except Exception as error:  # protobuf raises several kinds for a damaged file
        raise ModelError(
            f"{path}: cannot be read ({type(error).__name__}); export the model again"
        ) from error
    prefix = "net." if network == "locator" else "stage."
    found = {
        tensor.name.removeprefix(prefix): torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()
        for tensor in graph.initializer
    }
    if "exp" in found:  # the exporter has worked out what Search makes of its spread
        found["search.log_spread"] = -found.pop("exp").log()
    return found


def _heads(net: StageNet, weights: Mapping[str, Tensor], attributes: int) -> dict[str, Tensor]:
    """The linear layers that :func:`edge_kp.training.network.side_by_side` joins, each by its name."""
    readings = len(net.readings)
    names = ["mixture", "score", "attributes", *(f"readings.{i}.context" for i in range(readings))]
    sizes = [net.mixture.out_features, 1, attributes, *[net.config.hidden] * readings]
    rows = sum(sizes)
    found = {}
    for what, shape in (("weight", (rows, net.mixture.in_features)), ("bias", (rows,))):
        joined = [value for name, value in weights.items() if name.startswith("cat") and value.shape == shape]
        if len(joined) == 1:
            parts = zip(names, joined[0].split(sizes), strict=True)
            found.update({f"{name}.{what}": part for name, part in parts})
    return found


def _readings(net: StageNet, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :class:`~edge_kp.training.reading.SettledReading` has in another order, as a reading has it."""
    found = {}
    for at, reading in enumerate(net.readings):
        name = f"readings.{at}"
        read, refine = weights.get(f"{name}.read.weight"), weights.get(f"{name}.refine.weight")
        embedding = weights.get(f"{name}.embedding")
        for what, parameter in reading.step.named_parameters():
            step = weights.get(f"{name}.step.{what}")
            if step is not None and step.numel() == parameter.numel():
                found[f"{name}.step.{what}"] = step.view(parameter.shape)
        if read is not None and read.ndim == 2 and read.numel() == reading.read.weight.numel():
            found[f"{name}.read.weight"] = unsettled_read(read, reading.SIDE)
        if refine is not None and refine.ndim == 2:
            found[f"{name}.refine.weight"] = refine.unsqueeze(2)
        if embedding is not None and embedding.ndim == 3:
            found[f"{name}.embedding"] = embedding.transpose(1, 2)
    return found


def resampled_layer(weight: Tensor, inputs: int, channels: int) -> Tensor:
    """A layer that sees a whole square map, for maps of another side: they are stretched to its own first.

    Args:
        weight: (outputs, channels × cells).
        inputs: channels × cells of the maps to come.
    """
    if weight.shape[1] == inputs:
        return weight
    old, new = (math.isqrt(n // channels) for n in (weight.shape[1], inputs))
    cells = torch.eye(new * new).view(-1, 1, new, new)
    stretched = F.interpolate(cells, size=(old, old), mode="bilinear", antialias=True)
    return (weight.view(len(weight), channels, -1) @ stretched.flatten(1).T).flatten(1)


def _separable_fusion(net: StageNet, model: str, stage: int, images: Sequence[Tensor]) -> dict[str, Tensor]:
    """Weights for the fusion of a network from those of a model whose fusion is plain."""
    plain = StageNet(replace(net.config, fusion="plain"), net.bank.view(len(net.bank), -1, 2).numpy())
    start_stage(plain, model, stage, images)
    _fold(plain)
    convolution, norm = plain.get_submodule("local.0.0"), plain.get_submodule("local.0.1")
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    seen: list[Tensor] = []
    hook = convolution.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    for batch in images:
        plain(normalise(batch))
    hook.remove()
    depthwise, pointwise = separated(convolution.weight, seen)
    return {
        "local.0.0.weight": depthwise,
        "local.0.0.bias": torch.zeros(len(depthwise)),
        "local.0.2.weight": pointwise,
        "local.0.2.bias": norm.bias,
    }


def _shape(weights: Mapping[str, Tensor], folder: Path) -> dict[str, Any]:
    """Settings of a stage that its weights tell.

    Raises:
        ModelError: it has a trunk that is not for devices, or is none of this package's stages.
    """
    if any(name.startswith("pretrained._") for name in weights):
        raise ModelError(f"{folder}: the trunk lite0 cannot be started from; it starts from ImageNet itself")
    try:
        search = weights.get("search.maps.0.0.weight")
        return {
            "trunks": "facemesh" if "pretrained.stem.weight" in weights else "plain",
            "widths": len(weights["lateral_eighth.0.weight"]),
            "readings": sum(name.endswith(".own.weight") for name in weights),
            "hidden": len(weights["readings.0.read.weight"]),
            "searches": 0 if search is None else len(search),
            "fusions": "separable" if "local.0.2.weight" in weights else "plain",
        }
    except KeyError as error:
        raise ModelError(f"{folder}: its stages lack {error}; export the model again") from None
