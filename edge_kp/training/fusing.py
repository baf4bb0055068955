"""Both stages and the crop between them as one network: a region of interest in, final keypoints out.

The ONNX graph is put together from the files of the stages, so that each precision of the cascade has the
very weights, ranges and kept layers of its stages; the little between them stays in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import compose, helper
from torch import Tensor, nn

from edge_kp.errors import ModelError
from edge_kp.templates import SHAPE_EXTENT
from edge_kp.training.network import (
    Contract,
    ExportNet,
    StageNet,
    rescale,
    stage_outputs,
)
from edge_kp.training.onnx_graph import save_checked, set_metadata
from edge_kp.training.sampling import apply_affine, pixel_centres, sample
from edge_kp.types import Array

STEP = 16  # what the margin around the crop of stage 1 is a multiple of, pixels


def finer(sizes: tuple[int, int], scale: float) -> int:
    """How many pixels of the region of interest lie along one of the stage-1 crop.

    About as many as stage 2 sees there, so that it is shown no less than a crop from the frame would show.

    Args:
        sizes: sides of both input images, pixels.
        scale: side of the stage-1 crop in longer sides of the box.
    """
    return max(2, round(SHAPE_EXTENT * sizes[1] * scale / sizes[0]))


def region_size(size: int, finer: int) -> int:
    """Side in pixels of the region of interest around a stage-1 crop of ``size`` pixels.

    It is 1.43 times as wide as that crop: enough for the aligned crop of nearly every object, shifted and
    turned as it may be.
    """
    return finer * size + STEP * round(0.43 * finer * size / STEP)


class Enter(nn.Module):
    """Region of interest → input image of stage 1."""

    def __init__(self, size: int, finer: int) -> None:
        super().__init__()
        self.inner = finer * size
        self.margin = (region_size(size, finer) - self.inner) // 2
        self.pool = nn.AvgPool2d(finer)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 BGR (B, R, R, 3) → float (B, 3, R, R), and its middle as stage 1 takes it (B, 3, S, S)."""
        region = image.float().permute(0, 3, 1, 2)
        inside = slice(self.margin, self.margin + self.inner)
        return region, self.pool(region[:, :, inside, inside])


class Align(nn.Module):
    """Keypoints of stage 1 → input image of stage 2.

    The least-squares similarity between two point sets has a closed form; with points as complex numbers it
    is one quotient (Umeyama 1991 gives the general case).
    """

    shape: Tensor
    centres: Tensor

    def __init__(self, mean_shape: Array, sizes: tuple[int, int], finer: int) -> None:
        super().__init__()
        centre = mean_shape.astype(np.float64).mean(0)
        self.centre = (float(centre[0]), float(centre[1]))
        self.register_buffer("shape", torch.from_numpy(mean_shape - centre).float())
        self.register_buffer("centres", pixel_centres(sizes[1]))
        self.share = finer * sizes[0] / region_size(sizes[0], finer)

    def forward(
        self, region: Tensor, keypoints: Tensor, prior_keypoints: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Args:
            region: float (B, 3, R, R).
            keypoints, prior_keypoints: (B, N, 2) in coordinates of the stage-1 crop.

        Returns:
            image of stage 2 (B, 3, S, S); the same points in coordinates of the region; and the alignment
            (B, 2, 3), crop of stage 2 → region.
        """
        keypoints, prior_keypoints = (
            self.share * p + (1 - self.share) / 2 for p in (keypoints, prior_keypoints)
        )
        mean = keypoints.mean(1)
        centred = keypoints - mean.unsqueeze(1)
        x, y = centred.unbind(2)
        u, v = self.shape.unbind(1)
        # factor = sum(shape * conj(points)) / sum |points|²; wanted is its inverse.
        real, imaginary = (x * u + y * v).sum(1), (x * v - y * u).sum(1)
        power = (centred * centred).sum((1, 2)) / (real * real + imaginary * imaginary + 1e-12)
        a, b = power * real, -power * imaginary
        cx, cy = self.centre
        tx, ty = mean[:, 0] - a * cx + b * cy, mean[:, 1] - b * cx - a * cy
        alignment = torch.stack([a, -b, tx, b, a, ty], 1).view(-1, 2, 3)
        return sample(region, alignment, self.centres, "zeros"), keypoints, prior_keypoints, alignment


class Leave(nn.Module):
    """Results of stage 2 → results in coordinates of the region."""

    def forward(
        self, alignment: Tensor, keypoints: Tensor, prior_keypoints: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints and prior keypoints (B, N, 2) of the region, and the lower one of both scores (B,)."""
        return (
            apply_affine(alignment, keypoints),
            apply_affine(alignment, prior_keypoints),
            torch.minimum(first, second),
        )


class CascadeNet(Contract):
    """The whole cascade in PyTorch: what the exported graphs are held against."""

    OUTPUTS = (*ExportNet.OUTPUTS, "stage1_keypoints", "stage1_prior_keypoints", "alignment")

    def __init__(self, stage1: StageNet, stage2: StageNet, mean_shape: Array, finer: int) -> None:
        super().__init__()
        sizes = (stage1.config.size, stage2.config.size)
        self.size = region_size(sizes[0], finer)
        self.stage1, self.stage2 = stage1, stage2
        self.enter, self.align = Enter(sizes[0], finer), Align(mean_shape, sizes, finer)
        self.leave = Leave()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        region, picture = self.enter(image)
        first = stage_outputs(self.stage1(rescale(picture)))
        picture, keypoints1, prior1, alignment = self.align(region, first[0], first[1])
        second = stage_outputs(self.stage2(rescale(picture)))
        keypoints, prior, score = self.leave(alignment, second[0], second[1], first[3], second[3])
        return (keypoints, prior, second[2], score, *second[4:], keypoints1, prior1, alignment)


# Which result of an earlier part each input of a part takes; ``image`` is the network's own.
WIRES = {
    "enter/image": "image",
    "first/image": "enter/picture",
    "align/region": "enter/region",
    "align/keypoints": "first/keypoints",
    "align/prior_keypoints": "first/prior_keypoints",
    "second/image": "align/picture",
    "leave/alignment": "align/alignment",
    "leave/keypoints": "second/keypoints",
    "leave/prior_keypoints": "second/prior_keypoints",
    "leave/first": "first/score",
    "leave/second": "second/score",
}
RESULTS = {
    "keypoints": "leave/region_keypoints",
    "prior_keypoints": "leave/region_prior_keypoints",
    "mixture": "second/mixture",
    "score": "leave/score",
    "visibility": "second/visibility",
    "attributes": "second/attributes",
    "stage1_keypoints": "align/region_keypoints",
    "stage1_prior_keypoints": "align/region_prior_keypoints",
    "alignment": "align/alignment",
}


def fuse(
    glue: Mapping[str, Path], stage1: Path, stage2: Path, target: Path, metadata: Mapping[str, str]
) -> None:
    """Write the cascade made of two exported stages of one precision; :func:`glue_examples` names the glue.

    Raises:
        ModelError: a stage does not begin as exported ones do.
    """
    parts = {
        "enter": onnx.load(glue["enter"]),
        "first": _without_cast(onnx.load(stage1), stage1),
        "align": onnx.load(glue["align"]),
        "second": _without_cast(onnx.load(stage2), stage2),
        "leave": onnx.load(glue["leave"]),
    }
    whole = helper.make_graph([], "cascade", [parts["enter"].graph.input[0]], [])
    results = {}
    for name, part in parts.items():
        graph = compose.add_prefix_graph(part.graph, f"{name}/")
        whole.node.extend(graph.node)
        whole.initializer.extend(graph.initializer)
        results.update({value.name: value for value in graph.output})
    new = {inner: outer for outer, inner in RESULTS.items()}
    new.update({inner: new.get(source, source) for inner, source in WIRES.items()})
    for node in whole.node:
        for edges in (node.input, node.output):
            edges[:] = [new.get(edge, edge) for edge in edges]
    for outer, inner in RESULTS.items():
        results[inner].name = outer
        whole.output.append(results[inner])
    # A stage without a layer in 8 bits is of an older opset.
    newest = max(
        (parts["first"], parts["second"]), key=lambda part: max(o.version for o in part.opset_import)
    )
    model = helper.make_model(whole, opset_imports=newest.opset_import)
    set_metadata(model, metadata)
    save_checked(model, target)


def glue_examples(
    mean_shape: Array, sizes: tuple[int, int], finer: int
) -> dict[str, tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]]:
    """What lies before, between and after the stages: name → module, example inputs, output names."""
    size, (n, _) = region_size(sizes[0], finer), mean_shape.shape
    image = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    points_of = {name: torch.rand(2, n, 2) for name in ("keypoints", "prior_keypoints")}
    scores = {name: torch.rand(2) for name in ("first", "second")}
    names = ("region_keypoints", "region_prior_keypoints")
    return {
        "enter": (Enter(sizes[0], finer), {"image": image}, ("region", "picture")),
        "align": (
            Align(mean_shape, sizes, finer),
            {"region": torch.zeros(2, 3, size, size), **points_of},
            ("picture", *names, "alignment"),
        ),
        "leave": (
            Leave(),
            {"alignment": torch.zeros(2, 2, 3), **points_of, **scores},
            (*names, "score"),
        ),
    }


def _without_cast(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """A stage whose ``image`` is float (B, 3, S, S): the Cast and the Transpose at its start are left out."""
    graph = model.graph
    cast = [node for node in graph.node if "image" in node.input]
    turn = [node for node in graph.node if cast and cast[0].output[0] in node.input]
    if [n.op_type for n in (*cast, *turn)] != ["Cast", "Transpose"] or cast[0].attribute[
        0
    ].i != onnx.TensorProto.FLOAT:
        raise ModelError(
            f"{path}: expected a Cast to float and a Transpose at its start; export the stages again"
        )
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    for node in graph.node:
        node.input[:] = ["image" if edge == turn[0].output[0] else edge for edge in node.input]
    graph.node.remove(cast[0])
    graph.node.remove(turn[0])
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, size, size])
    )
    return model
