"""Which device and which of several processes this one is."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from edge_kp.errors import BackendError
from edge_kp.training.loop import Place


def has_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 is computed in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch has no public question for this; builds without oneDNN lack the operator.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.is_available() and supported is not None and bool(supported())


@contextmanager
def training_place(device: str) -> Iterator[Place]:
    """This process's :class:`Place`; joins the other processes when started by ``torchrun``.

    Raises:
        BackendError: CUDA was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "--device cuda: PyTorch finds no CUDA device; use --device cpu or install a driver"
        )
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Place(torch.device("cuda" if use_cuda else "cpu"))
        return
    local = int(os.environ["LOCAL_RANK"])
    if use_cuda:
        torch.cuda.set_device(local)
    # The first DistributedDataParallel imports this module, whose functions then keep the process group that
    # there is in their default arguments: its threads would outlive the interpreter, and may abort it.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if use_cuda else "gloo")
    try:
        where = torch.device("cuda", local) if use_cuda else torch.device("cpu")
        yield Place(where, dist.get_rank(), world)
    finally:
        gc.collect()  # a network in a cycle still holds the group, whose threads end with its last holder
        dist.destroy_process_group()
