"""Training of one stage of the cascade."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edge_kp.training.checkpoints import load_stage
from edge_kp.training.crops import CropDataset
from edge_kp.training.loop import LoopConfig, Place, Task, batch_loader, train_network
from edge_kp.training.losses import stage_loss
from edge_kp.training.network import NetworkConfig, StageNet, normalise
from edge_kp.types import Array


def train_stage(
    net_config: NetworkConfig,
    templates: Array,
    train: CropDataset,
    validation: CropDataset,
    loop: LoopConfig,
    out: Path,
    place: Place,
) -> StageNet:
    """Train a stage (:func:`train_network`), or go on with it, and return the averaged network."""
    torch.manual_seed(loop.seed)
    net = StageNet(net_config, templates).to(place.device)
    mean_shape = torch.from_numpy(train.view.mean_shape.astype(np.float32)).to(place.device)
    task = Task(
        net,
        train,
        asdict(net_config),
        _identity(net_config, templates, loop, train, validation),
        lambda output, batch: stage_loss(output, batch, mean_shape),
        lambda average: validate(average, validation, loop, place),
        objective="nme",
    )
    train_network(task, loop, out, place)
    return load_stage(out / "best.pt", templates).to(place.device)


@torch.no_grad()
def validate(net: nn.Module, data: CropDataset, loop: LoopConfig, place: Place) -> dict[str, float]:
    """Mean errors in % of the reference distance ``nme``, ``prior_nme``; mean ``validation_score``."""
    net.eval()
    errors: list[Tensor] = []
    prior_errors: list[Tensor] = []
    scores: list[Tensor] = []
    a, b = data.shape_attributes.reference
    for batch in batch_loader(data, np.arange(len(data)).reshape(1, -1), loop, place, split=loop.batch):
        with torch.autocast(place.device.type, torch.bfloat16, enabled=loop.amp):
            output = net(normalise(batch["image"]))
        truth, seen = batch["keypoints"], batch["labelled"]
        unit = (truth[:, a] - truth[:, b]).norm(dim=-1)
        unit = torch.where(seen[:, a] * seen[:, b] * unit > 0, unit, batch["unit"])
        for out, rows in ((output.keypoints, errors), (output.prior_keypoints, prior_errors)):
            distance = ((out - truth).norm(dim=-1) * seen).sum(1) / seen.sum(1)
            rows.append(100 * distance / unit)
        scores.append(torch.sigmoid(output.score_logit))
    return {
        "nme": float(torch.cat(errors).mean()),
        "prior_nme": float(torch.cat(prior_errors).mean()),
        "validation_score": float(torch.cat(scores).mean()),
    }


def _identity(
    net: NetworkConfig, templates: Array, loop: LoopConfig, data: CropDataset, validation: CropDataset
) -> str:
    """Digest of all that decides the result; the worker count does not."""
    settings = {**asdict(loop), "workers": None, **asdict(net), "augmentation": asdict(data.augmentation)}  # type: ignore[arg-type]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(templates.tobytes())
    if data.view.errors is not None:
        digest.update(data.view.errors.tobytes())
    digest.update(data.index.tobytes())
    if data.ends is not None:
        digest.update(data.ends.tobytes())
    for region in [*data.regions, *validation.regions]:
        digest.update(region.key.encode())
        digest.update(region.keypoints.tobytes() + region.visible.tobytes())
        digest.update(repr(sorted(region.attributes.items())).encode())
    return digest.hexdigest()
