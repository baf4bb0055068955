"""Training of one stage of the cascade."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_kp.training.checkpoints import load_stage
from edge_kp.training.crops import CropDataset
from edge_kp.training.loop import LoopConfig, Place, Task, batch_loader, train_network
from edge_kp.training.losses import Batch, stage_loss, teacher_loss
from edge_kp.training.network import NetworkConfig, StageNet, StageOutput, normalise
from edge_kp.types import Array


def train_stage(
    net_config: NetworkConfig,
    templates: Array,
    train: CropDataset,
    validation: CropDataset,
    loop: LoopConfig,
    out: Path,
    place: Place,
    teacher: StageNet | None = None,
    last_only: bool = False,
    start: Callable[[StageNet], object] | None = None,
) -> StageNet:
    """Train a stage (:func:`train_network`), or go on with it, and return the averaged network.

    Args:
        teacher: learn from what this one sees in every crop as well, see :func:`teacher_loss`.
        last_only: judge the last keypoints alone, see :func:`stage_loss`.
        start: gives the fresh network weights to start from.
    """
    torch.manual_seed(loop.seed)
    net = StageNet(net_config, templates)
    if start is not None:
        start(net)
    elif net.pretrained is not None:
        net.pretrained.load_pretrained()
    net.to(place.device)
    mean_shape = torch.from_numpy(train.view.mean_shape.astype(np.float32)).to(place.device)
    pupil = Pupil(mean_shape, teacher, place.device, loop.amp, last_only)
    task = Task(
        net,
        train,
        asdict(net_config),
        _identity(net_config, templates, loop, train, validation, teacher, last_only),
        pupil.loss,
        lambda average: validate(average, validation, loop, place),
        objective="nme",
    )
    train_network(task, loop, out, place)
    return load_stage(out / "best.pt", templates).to(place.device)


class Pupil:
    """The loss of a stage, with or without a teacher.

    Args:
        mean_shape: (N, 2) canonical shape.
        teacher: a stage for the same crops at any size.
        last_only: see :func:`stage_loss`.
    """

    def __init__(
        self,
        mean_shape: Tensor,
        teacher: StageNet | None,
        device: torch.device,
        amp: bool,
        last_only: bool = False,
    ) -> None:
        self.mean_shape = mean_shape
        self.last_only = last_only
        self.amp = amp
        self.teacher = teacher
        if teacher is not None:
            teacher.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def loss(self, output: StageOutput, batch: Batch) -> dict[str, Tensor]:
        parts = stage_loss(output, batch, self.mean_shape, self.last_only)
        if self.teacher is not None:
            image = normalise(batch["image"])
            size = self.teacher.config.size
            if image.shape[-1] != size:
                image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
            with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=self.amp):
                seen = self.teacher(image)
            parts["teacher"] = teacher_loss(output, seen, batch)
            parts["total"] = parts["total"] + parts["teacher"]
        return parts


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
    net: NetworkConfig,
    templates: Array,
    loop: LoopConfig,
    data: CropDataset,
    validation: CropDataset,
    teacher: StageNet | None,
    last_only: bool,
) -> str:
    """Digest of all that decides the result; the worker count does not."""
    augmentation = asdict(data.augmentation)  # type: ignore[arg-type]
    settings = {**asdict(loop), **asdict(net), "augmentation": augmentation, "last_only": last_only}
    settings["workers"] = None
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(templates.tobytes())
    if data.view.errors is not None:
        digest.update(data.view.errors.tobytes())
    if teacher is not None:
        for value in teacher.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
    digest.update(data.index.tobytes())
    if data.ends is not None:
        digest.update(data.ends.tobytes())
    for patch in data.patches:
        digest.update(patch.tobytes())
    for region in [*data.regions, *validation.regions]:
        digest.update(region.key.encode())
        digest.update(region.keypoints.tobytes() + region.visible.tobytes())
        digest.update(repr(sorted(region.attributes.items())).encode())
    return digest.hexdigest()
