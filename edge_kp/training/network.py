"""One stage: template mixture, keypoints read off the feature maps, score, visibility, attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_kp.training.facemesh import FaceMeshTrunk
from edge_kp.training.layers import Down, conv_bn, separable
from edge_kp.training.pretrained import EfficientNetLite0
from edge_kp.training.reading import Reading, Search
from edge_kp.training.sampling import apply_affine, exact_product, pixel_centres, sample
from edge_kp.types import Array

TRUNKS = ("plain", "lite0", "facemesh")
FUSIONS = ("plain", "separable")
LARGEST = 4096  # size or width
MOST_READINGS = 16
CORRECTION_CHANNELS, POOLED_CHANNELS = 64, 32  # of the maps that are seen whole


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of one stage.

    Attributes:
        size: side of the square input image in pixels, a multiple of 16.
        width: channels at 1/4 resolution; doubled at 1/8 and 1/16.
        correct: put a :class:`CorrectionNet` in front (stage 1).
        attributes: names of the attribute outputs.
        bank: mix templates; False regresses the prior keypoints directly, for comparison only.
        residual: correct the prior keypoints; False gives them out as they are, for comparison only.
        readings: how often features are read at the keypoints found so far, to correct them.
        hidden: features of each point in a reading.
        trunk: one of :data:`TRUNKS`; ``lite0`` is pretrained and slow, for a teacher; ``facemesh`` is
            pretrained on faces, and quick.
        taught: channels of the teacher's feature map that is foretold in training; 0 without a teacher.
        search: features from which every point is searched on a map of its own, before the readings; 0: it is
            not.
        fusion: one of :data:`FUSIONS`, how the maps of all scales are made one: by a 3×3 convolution, or by a
            separable one, which takes a seventh of the arithmetic.
    """

    size: int
    width: int
    correct: bool
    attributes: tuple[str, ...]
    bank: bool = True
    readings: int = 2
    hidden: int = 64
    trunk: str = "plain"
    taught: int = 0
    residual: bool = True
    search: int = 0
    fusion: str = "plain"

    def __post_init__(self) -> None:
        if self.size % 16 or self.size < 32:
            raise ValueError(f"input size: expected a multiple of 16 from 32 up, got {self.size}")
        if self.width % 8 or self.width < 8:
            raise ValueError(f"width: expected a multiple of 8 from 8 up, got {self.width}")
        if self.readings < 1 or self.hidden < 1:
            raise ValueError(f"expected at least one reading and feature, got {self.readings}, {self.hidden}")
        if self.search < 0:
            raise ValueError(f"expected no search (0) or some features for it, got {self.search}")
        widest = max(self.size, self.width, self.hidden, self.taught, self.search)
        if widest > LARGEST or self.readings > MOST_READINGS:
            raise ValueError(f"expected no size or width above {LARGEST}, and up to {MOST_READINGS} readings")
        if self.trunk not in TRUNKS:
            raise ValueError(f"trunk: expected one of {', '.join(TRUNKS)}, got {self.trunk!r}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion: expected one of {', '.join(FUSIONS)}, got {self.fusion!r}")


class StageOutput(NamedTuple):
    """What one stage gives; logits where training needs them. ``correction`` is None in stage 2.

    Shapes: keypoints and prior_keypoints (B, N, 2), and so are the keypoints halfway, after the search, if
    there is one, and every reading but the last; mixture_logits (B, K); score_logit (B,); visibility_logits
    (B, N); attribute_logits (B, A); correction (B, 2, 3), corrected → input crop; features (B, width, G, G),
    the map that points are read from; foretold (B, taught, G, G), a teacher's map told from it, None without
    a teacher.
    """

    keypoints: Tensor
    prior_keypoints: Tensor
    mixture_logits: Tensor
    score_logit: Tensor
    visibility_logits: Tensor
    attribute_logits: Tensor
    correction: Tensor | None
    halfway: tuple[Tensor, ...]
    features: Tensor
    foretold: Tensor | None


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
            conv_bn(48, CORRECTION_CHANNELS),
            nn.ReLU(),
        )
        side = math.ceil(math.ceil(size / 4 / 2) / 2)
        self.hidden = nn.Linear(CORRECTION_CHANNELS * side * side, 64)
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


class StageNet(nn.Module):
    """One stage of the cascade.

    Args:
        templates: (K, N, 2) float32 bank in crop coordinates; becomes a constant of the network.
    """

    bank: Tensor
    centres: Tensor

    def __init__(self, config: NetworkConfig, templates: Array) -> None:
        super().__init__()
        self.config = config
        k, n, _ = templates.shape
        self.points = n
        w = config.width
        self.correction = CorrectionNet(config.size) if config.correct else None
        channels: tuple[int, ...] = (w, 2 * w, 4 * w, 5 * w)
        self.pretrained: EfficientNetLite0 | FaceMeshTrunk | None = None
        if config.trunk != "plain":
            self.pretrained = EfficientNetLite0() if config.trunk == "lite0" else FaceMeshTrunk()
            channels = self.pretrained.channels
            self.lateral_quarter = conv_bn(channels[0], w, 1)
        else:
            self.stem = nn.Sequential(conv_bn(3, 16, stride=2), nn.ReLU())
            self.quarter = Down(16, channels[0], 1)
            self.eighth = Down(channels[0], channels[1], 2)
            self.sixteenth = Down(channels[1], channels[2], 2)
            self.top = Down(channels[2], channels[3], 1)
        self.lateral_eighth = conv_bn(channels[1], w, 1)
        self.lateral_sixteenth = conv_bn(channels[2], w, 1)
        self.local = nn.Sequential(separable(w) if config.fusion == "separable" else conv_bn(w, w), nn.ReLU())

        side = math.ceil(config.size / 32)
        self.pool = nn.Sequential(conv_bn(channels[3], POOLED_CHANNELS, 1), nn.ReLU(), nn.Flatten())
        self.context = nn.Linear(POOLED_CHANNELS * side * side, 256)
        self.mixture = nn.Linear(256, k if config.bank else 2 * n)
        self.score = nn.Linear(256, 1)
        self.attributes = nn.Linear(256, len(config.attributes))
        if config.bank:
            self.register_buffer("bank", torch.from_numpy(templates.reshape(k, 2 * n).copy()))
        else:
            nn.init.zeros_(self.mixture.weight)
            with torch.no_grad():
                self.mixture.bias.copy_(torch.from_numpy(templates.mean(0).reshape(-1)))

        self.search = Search(w, n, config.search, config.size // 4) if config.search else None
        cell = 4 / config.size  # of the 1/4-resolution map, in crop coordinates
        readings = [Reading(w, cell, n, config.hidden, 256) for _ in range(config.readings)]
        self.readings: Sequence[Reading] = nn.ModuleList(readings)  # type: ignore[assignment]
        self.visibility = nn.Linear(config.hidden, 1)
        self.foretell = nn.Conv2d(w, config.taught, 1) if config.taught else None
        self.register_buffer("centres", pixel_centres(config.size), persistent=False)
        if not config.residual:  # only what the last reading sees of a point is used then
            for part in (self.search, *readings[:-1], readings[-1].step):
                if part is not None:
                    part.requires_grad_(False)

    def forward(self, image: Tensor) -> StageOutput:
        """(B, 3, S, S) float, values in about [-2, 2] → :class:`StageOutput` in input-crop coordinates."""
        correction = None
        if self.correction is not None:
            correction = self.correction(image)
            image = sample(image.float(), correction, self.centres, "border")

        quarter, eighth, sixteenth, top = self._maps(image)
        context = F.relu(self.context(self.pool(top)))
        heads = [self.mixture, self.score, self.attributes, *(r.context for r in self.readings)]
        logits, score, attributes, *contexts = side_by_side(heads, context)
        logits = logits.float()
        prior = self.mix(torch.softmax(logits, 1)) if self.config.bank else logits
        prior = prior.view(-1, self.points, 2)

        coarse = F.interpolate(self.lateral_sixteenth(sixteenth), scale_factor=2.0)
        coarse = F.relu(coarse + self.lateral_eighth(eighth))
        local = self.local(quarter + F.interpolate(coarse, scale_factor=2.0)).float()
        found = [prior]
        if self.search is not None:
            found.append(prior + self.search(local, prior) if self.config.residual else prior)
        for reading, of_image in zip(self.readings, contexts, strict=True):
            hidden, step = reading(local, of_image, found[-1])
            found.append(found[-1] + step if self.config.residual else found[-1])
        # One number of each point: a sum, for which no runtime needs a matrix product.
        visibility = (hidden * self.visibility.weight).sum(2) + self.visibility.bias
        if correction is not None:
            found = [apply_affine(correction, points) for points in found]
        return StageOutput(
            found[-1],
            found[0],
            logits,
            score.float().squeeze(1),
            visibility.float(),
            attributes.float(),
            correction,
            tuple(found[1:-1]),
            local,
            None if self.foretell is None else self.foretell(local),
        )

    def _maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features at 1/4 (``width`` channels), 1/8, 1/16 and 1/32 of the image."""
        if self.pretrained is not None:
            first, *others = self.pretrained(image)
            return self.lateral_quarter(first), *others
        quarter = self.quarter(self.stem(image))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        return quarter, eighth, sixteenth, self.top(sixteenth)

    def mix(self, mixture: Tensor) -> Tensor:
        """(B, K) probabilities × templates → (B, 2N), in float32: bfloat16 would round to 1/256 of a crop."""
        return exact_product(mixture, self.bank)


def side_by_side(layers: Sequence[nn.Linear], x: Tensor) -> tuple[Tensor, ...]:
    """Several linear layers of the same input as one product: one kernel, not many."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).split([len(layer.weight) for layer in layers], 1)


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
        return stage_outputs(self.stage(normalise(image)))


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
