"""Labels that lie to one side: what mirroring hides from a network is made up for."""

from __future__ import annotations

import numpy as np
import torch

from edge_kp.training.centring import ENOUGH, centre, telling
from edge_kp.training.loop import LoopConfig, Place
from edge_kp.training.network import NetworkConfig, StageNet, normalise


class Crops:
    """Two noisy crops, whose labels lie beside what a network finds, and one point that has none."""

    def __init__(self, found: torch.Tensor, images: torch.Tensor, way: tuple[float, float]) -> None:
        self.found, self.images, self.way = found, images, torch.tensor(way)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> dict[str, np.ndarray]:
        labelled = torch.ones(self.found.shape[1])
        keypoints = self.found[at] + self.way * torch.tensor([1.0, 1.0]) * (1.5 if at else 0.5)
        labelled[2], keypoints[2] = 0, 9.0
        return {
            "image": self.images[at].numpy(),
            "keypoints": keypoints.numpy(),
            "labelled": labelled.numpy(),
        }


def test_points_move_by_what_the_labels_are_off_on_average() -> None:
    templates = torch.rand(8, 6, 2, generator=torch.Generator().manual_seed(0)).numpy()
    torch.manual_seed(0)
    net = StageNet(NetworkConfig(64, 16, False, ("occlusion",)), templates).eval()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = net(normalise(images))
    crops = Crops(before.keypoints, images, (0.02, -0.01))
    way = centre(net, crops, LoopConfig(1, batch=1, workers=0), Place(torch.device("cpu")))  # type: ignore[arg-type]
    np.testing.assert_allclose(way, (0.02, -0.01), atol=1e-6)
    with torch.no_grad():
        after = net(normalise(images))
    moved = (after.keypoints - before.keypoints).numpy()
    np.testing.assert_allclose(moved, np.broadcast_to([0.02, -0.01], moved.shape), atol=1e-6)
    assert torch.equal(after.prior_keypoints, before.prior_keypoints)
    again = centre(net, crops, LoopConfig(1, batch=1, workers=0), Place(torch.device("cpu")))  # type: ignore[arg-type]
    np.testing.assert_allclose(again, (0, 0), atol=1e-6)


def test_held_back_samples_tell_more_where_they_are_enough() -> None:
    known, held = ["known"] * 900, ["held"] * ENOUGH
    assert telling(held, known) is held
    assert telling(held[1:], known) is known
