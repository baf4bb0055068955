"""A network still in PyTorch behind the runtime's interface: to evaluate runs and check exports."""

from __future__ import annotations

import torch

from edge_kp.backends.base import Backend
from edge_kp.training.network import Contract
from edge_kp.types import Array


class TorchBackend(Backend):
    name = "torch"
    precision = "fp32"

    def __init__(self, net: Contract, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        self.device = str(self._device)
        self._net = net.eval().to(self._device)

    @torch.no_grad()
    def run(self, image: Array) -> dict[str, Array]:
        outputs = self._net(torch.from_numpy(image).to(self._device))
        return {name: out.cpu().numpy() for name, out in zip(self._net.OUTPUTS, outputs, strict=True)}
