"""The locator: a small fully convolutional network that says where objects are, and its training.

One map at an eighth of the picture's resolution: the heat of an object's middle (Zhou et al. 2019, Objects as
Points) and the distances to the four sides of its box (Tian et al. 2019, FCOS).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from edge_kp.errors import ModelError
from edge_kp.geometry import box_iou, tight_box
from edge_kp.locator import NetworkLocator
from edge_kp.metrics import average_precision, recall_and_false
from edge_kp.training.checkpoints import load_checkpoint
from edge_kp.training.layers import Down, conv_bn
from edge_kp.training.loop import LoopConfig, Place, Task, train_network
from edge_kp.training.losses import Batch
from edge_kp.training.network import Contract, normalise
from edge_kp.training.photos import Photo, mark_unlabelled
from edge_kp.training.scenes import STRIDE, SceneDataset
from edge_kp.training.torch_backend import TorchBackend
from edge_kp.types import Array

OVERLAP = 0.4  # IoU from which a box counts as found
SURE = 0.5  # score from which a first locator's find is taken for an object without label
FALSE_WEIGHT = 0.5  # of a false box a photo, against finding all objects; the stages look at it again
LOWEST_SCORE = 0.05  # boxes below it are not even counted


@dataclass(frozen=True)
class LocatorConfig:
    """Shape of the locator.

    Attributes:
        size: side of the square input picture in pixels, a multiple of 32.
        width: channels at 1/8 resolution.
    """

    size: int = 320
    width: int = 32

    def __post_init__(self) -> None:
        if self.size % 32 or self.size < 64:
            raise ValueError(f"locator size: expected a multiple of 32 from 64 up, got {self.size}")
        if self.width % 8 or self.width < 8:
            raise ValueError(f"locator width: expected a multiple of 8 from 8 up, got {self.width}")


class LocatorNet(nn.Module):
    """(B, 3, S, S) float → heat logits (B, G, G) and boxes (B, G, G, 4) in pixels, G = S / 8."""

    centres: Tensor

    def __init__(self, config: LocatorConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.stem = nn.Sequential(
            conv_bn(3, w // 2, stride=2), nn.ReLU(), conv_bn(w // 2, 3 * w // 4, stride=2), nn.ReLU()
        )
        self.eighth = Down(3 * w // 4, w, 1)
        self.sixteenth = Down(w, 2 * w, 2)
        self.top = Down(2 * w, 3 * w, 2)
        self.lateral_eighth = conv_bn(w, w, 1)
        self.lateral_sixteenth = conv_bn(2 * w, w, 1)
        self.lateral_top = conv_bn(3 * w, w, 1)
        self.middle = nn.Sequential(conv_bn(w, w), nn.ReLU())
        self.head = nn.Sequential(conv_bn(w, w), nn.ReLU())
        self.out = nn.Conv2d(w, 5, 1)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([-4.0, 1.0, 1.0, 1.0, 1.0]))  # type: ignore[union-attr]
        along = (torch.arange(config.size // STRIDE) + 0.5) * STRIDE - 0.5
        y, x = torch.meshgrid(along, along, indexing="ij")
        self.register_buffer("centres", torch.stack([x, y], -1), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        eighth = self.eighth(self.stem(image))
        sixteenth = self.sixteenth(eighth)
        top = self.top(sixteenth)
        coarse = F.relu(
            F.interpolate(self.lateral_top(top), scale_factor=2.0) + self.lateral_sixteenth(sixteenth)
        )
        fine = F.interpolate(self.middle(coarse), scale_factor=2.0) + self.lateral_eighth(eighth)
        out = self.out(self.head(F.relu(fine))).float().permute(0, 2, 3, 1)
        reach = torch.exp(out[..., 1:].clamp(-4, 5)) * STRIDE
        boxes = torch.cat([self.centres - reach[..., :2], self.centres + reach[..., 2:]], -1)
        return out[..., 0], boxes


class ExportLocator(Contract):
    """The locator: ``boxes`` (B, M, 4) in picture coordinates [0, 1] and ``score`` (B, M) of every cell.

    Several cells show one object. Which of them is best is left to the host: a graph that decided would
    jump between neighbours by the last bit of a score.
    """

    OUTPUTS = ("boxes", "score")

    def __init__(self, net: LocatorNet) -> None:
        super().__init__()
        self.net = net
        self.size = net.config.size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = self.net(normalise(image))
        return ((boxes + 0.5) / self.size).flatten(1, 2), torch.sigmoid(logits).flatten(1)


def locator_loss(output: tuple[Tensor, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Focal loss of the heat (Zhou et al. 2019, equation 1) and generalised IoU of the boxes (Rezatofighi
    et al. 2019), per object."""
    logits, boxes = output
    logits = logits.float()
    heat, taught, share = batch["heat"], batch["taught"], batch["share"]
    middle = (heat >= 1).float()
    p = torch.sigmoid(logits)
    positive = -F.logsigmoid(logits) * (1 - p) ** 2 * middle
    negative = -F.logsigmoid(-logits) * p**2 * (1 - heat) ** 4
    count = middle.sum().clamp(min=1)
    parts = {
        "heat": ((positive + negative) * taught).sum() / count,
        "box": 2 * ((1 - generalised_iou(boxes, batch["box"])) * share).sum() / share.sum().clamp(min=1),
    }
    parts["total"] = parts["heat"] + parts["box"]
    return parts


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Of boxes (..., 4) ``[x0, y0, x1, y1]``; in [-1, 1]."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    common = overlap.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    area = hull.prod(-1).clamp(min=1e-6)
    return common / union.clamp(min=1e-6) - (area - union) / area


def train_locator(
    config: LocatorConfig,
    train: SceneDataset,
    held: Sequence[Photo],
    loop: LoopConfig,
    out: Path,
    place: Place,
    start: Callable[[LocatorNet], object] | None = None,
) -> LocatorNet:
    """Train the locator (:func:`train_network`), or go on with it, and return the averaged network.

    Args:
        start: gives the fresh network weights to start from.
    """
    torch.manual_seed(loop.seed)
    net = LocatorNet(config)
    if start is not None:
        start(net)
    task = Task(
        net.to(place.device),
        train,
        asdict(config),
        _identity(config, loop, train, held),
        locator_loss,
        lambda average: validate(average, held, place.device),
        objective="1 - AP",
    )
    train_network(task, loop, out, place)
    return load_locator(out / "best.pt").to(place.device)


def search_training_photos(net: LocatorNet, photos: Sequence[Photo], device: torch.device) -> list[Photo]:
    """Mark what a first locator is sure of and nobody labelled (:func:`mark_unlabelled`)."""
    locate = NetworkLocator(TorchBackend(ExportLocator(net), device), net.config.size, SURE)
    shown = tqdm(photos, "looking for unlabelled objects", unit="photo", leave=False)
    return mark_unlabelled(list(shown), lambda image: list(locate.search(image)[0]))


def validate(net: nn.Module, photos: Sequence[Photo], device: torch.device) -> dict[str, float]:
    """Average precision on whole photos, and recall and false boxes a photo at the threshold to use.

    The threshold is the score with the best balance: the share of objects found, less
    :data:`FALSE_WEIGHT` times the false boxes a photo.
    """
    assert isinstance(net, LocatorNet)
    found = _search(net, photos, device)
    figures = {
        threshold: recall_and_false(*found, threshold, OVERLAP)
        for threshold in (round(0.05 * step, 2) for step in range(18, 5, -1))
    }
    threshold, (recall, false) = max(figures.items(), key=lambda item: item[1][0] - FALSE_WEIGHT * item[1][1])
    return {
        "1 - AP": 1 - average_precision(*found, OVERLAP),
        "recall": recall,
        "false": false,
        "threshold": threshold,
    }


def false_boxes(net: LocatorNet, photos: Sequence[Photo], device: torch.device, threshold: float) -> float:
    """Boxes a photo, at a threshold, where no object is labelled."""
    return recall_and_false(*_search(net, photos, device), threshold, OVERLAP)[1]


def _search(
    net: LocatorNet, photos: Sequence[Photo], device: torch.device
) -> tuple[list[Array], list[Array], list[Array], list[bool]]:
    """Of each photo the boxes found, their scores, the boxes labelled, and whether all are."""
    locate = NetworkLocator(TorchBackend(ExportLocator(net), device), net.config.size, LOWEST_SCORE)
    found = [_known(*locate.search(photo.levels[0]), photo) for photo in photos]
    truth = [np.array([tight_box(p) for p in photo.objects]).reshape(-1, 4) for photo in photos]
    return [f[0] for f in found], [f[1] for f in found], truth, [photo.complete for photo in photos]


def _known(boxes: Array, scores: Array, photo: Photo) -> tuple[Array, Array]:
    """Without what is likely an object that nobody labelled: that is neither right nor wrong."""
    keep = [i for i, b in enumerate(boxes) if all(box_iou(b, u) < OVERLAP for u in photo.unlabelled)]
    return boxes[keep], scores[keep]


def load_locator(path: Path) -> LocatorNet:
    """The averaged network of ``best.pt``, on the CPU, in evaluation mode.

    Raises:
        ModelError: the file is missing or damaged.
    """
    saved = load_checkpoint(path)
    try:
        net = LocatorNet(LocatorConfig(**saved["config"]))
        net.load_state_dict(saved["net"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a locator; remove it and train again") from error
    return net.eval()


def _identity(config: LocatorConfig, loop: LoopConfig, train: SceneDataset, held: Sequence[Photo]) -> str:
    settings = {**asdict(loop), "workers": None, **asdict(config), "augmentation": asdict(train.augmentation)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(train.index.tobytes() + repr((train.mirror, train.seed, train.size)).encode())
    for photo in [*train.photos, *held]:
        digest.update(photo.key.encode() + bytes([photo.complete]))
        for points in (*photo.objects, *photo.unlabelled):
            digest.update(points.tobytes())
    return digest.hexdigest()
