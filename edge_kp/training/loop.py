"""The training loop of a network: from top to bottom, resumable after any kill, on one or more processes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from edge_kp.errors import ModelError
from edge_kp.training.checkpoints import Log, load_checkpoint, save_checkpoint
from edge_kp.training.facemesh import straighten
from edge_kp.training.losses import Batch
from edge_kp.training.network import normalise
from edge_kp.types import Array


@dataclass(frozen=True)
class LoopConfig:
    """How a network is trained.

    Attributes:
        epochs: at most this many.
        batch: samples per step, over all processes together.
        learning_rate: peak of the one-cycle schedule.
        patience: stop after this many epochs without a better objective; 0 never stops early.
        amp: bfloat16 autocast.
        workers: loader processes.
    """

    epochs: int
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    ema_decay: float = 0.999
    patience: int = 0
    seed: int = 0
    amp: bool = True
    workers: int = 1


@dataclass(frozen=True)
class Place:
    """Where this process trains: its device and its rank among ``world`` processes."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0


class Items(Protocol):
    """A map-style data set whose items change from epoch to epoch."""

    epoch: int

    def __len__(self) -> int: ...

    def __getitem__(self, at: int) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Task:
    """What is trained: a network, its data, and how both are judged.

    Attributes:
        net: fresh, on the place's device.
        data: training items; their order and content depend on its ``epoch`` and their index alone.
        config: what ``best.pt`` says of the network, enough to build it again.
        identity: digest of all that decides the result; a checkpoint of another one is refused.
        loss: output of the network and a batch → the parts of the loss, ``total`` among them.
        validate: averaged network → figures of the held-back samples.
        objective: the figure that must fall.
    """

    net: nn.Module
    data: Items
    config: Mapping[str, Any]
    identity: str
    loss: Callable[[Any, Batch], dict[str, Tensor]]
    validate: Callable[[nn.Module], dict[str, float]]
    objective: str


def to_go(done: int, left: int, seconds: float) -> str:
    """What to add to a title: how long the epochs left will take; nothing before one is done."""
    if not done:
        return ""
    minutes = seconds / done * left / 60
    return f", {minutes / 60:.1f} h to go" if minutes >= 90 else f", {math.ceil(minutes)} min to go"


def train_network(task: Task, loop: LoopConfig, out: Path, place: Place) -> None:
    """Train, or go on where the last checkpoint stands.

    Writes into ``out``: ``last.pt`` (after every epoch), ``best.pt`` (the averaged network with the lowest
    objective), ``log.csv`` and TensorBoard events. The result does not depend on where training was
    interrupted.

    Raises:
        ModelError: ``out`` holds a run of another identity, or the data are fewer than a batch.
    """
    # Images come as (B, H, W, 3): kept in that order, convolutions are up to 1.5 times as fast on a CPU.
    net, train = task.net.to(memory_format=torch.channels_last), task.data  # type: ignore[call-overload]
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.AdamW(_decay_groups(net, loop.weight_decay), lr=loop.learning_rate)
    epoch, stale, best = 0, 0, math.inf
    if (out / "last.pt").exists():
        saved = load_checkpoint(out / "last.pt")
        if saved["identity"] != task.identity:
            raise ModelError(
                f"{out}: was trained with other settings or data; choose another --out or remove the folder"
            )
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        epoch, stale, best = saved["epoch"], saved["stale"], saved["best"]
        if not (out / "best.pt").exists():
            raise ModelError(
                f"{out / 'best.pt'} is gone, the best epoch with it; remove {out} and train again"
            )
    parallel: nn.Module = nn.parallel.DistributedDataParallel(net) if place.world > 1 else net
    steps = len(train) // loop.batch
    if steps == 0:
        raise ModelError(
            f"{len(train)} samples an epoch are fewer than one batch of {loop.batch}; lower --batch"
        )
    log = Log(out, epoch) if place.first else None
    began, first = time.monotonic(), epoch

    while epoch < loop.epochs and not (loop.patience and stale >= loop.patience):
        train.epoch = epoch
        # What a network itself draws at random must not depend on where training was interrupted either.
        torch.manual_seed(int(np.random.SeedSequence([loop.seed, epoch, place.rank]).generate_state(1)[0]))
        net.train()
        sums: dict[str, Tensor] = {}
        batches = _batches(train, loop, epoch, place)
        left = to_go(epoch - first, loop.epochs - epoch, time.monotonic() - began)
        title = f"{out.name} epoch {epoch + 1}/{loop.epochs}{left}"
        for step, batch in enumerate(tqdm(batches, title, steps, disable=not place.first, leave=False)):
            progress = (epoch * steps + step) / (loop.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = loop.learning_rate * one_cycle(progress)
            straighten(net, progress)
            with torch.autocast(place.device.type, torch.bfloat16, enabled=loop.amp):
                output = parallel(normalise(batch["image"]))
            parts = task.loss(output, batch)
            optimizer.zero_grad(set_to_none=True)
            parts["total"].backward()
            nn.utils.clip_grad_norm_(net.parameters(), 20.0)
            optimizer.step()
            _update_average(average, net, loop.ema_decay, epoch * steps + step)
            straighten(average, progress)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach()

        figures = task.validate(average) if place.first else {}
        figures = _from_first(figures, place)
        goal = figures[task.objective]
        better = goal < best or not (out / "best.pt").exists()
        epoch, stale, best = epoch + 1, 0 if better else stale + 1, goal if better else best
        if log:
            losses = {name: float(value) / steps for name, value in sums.items()}
            log.write(epoch, {"lr": optimizer.param_groups[0]["lr"], **losses, **figures}, list(figures))
            if better:
                save_checkpoint(out / "best.pt", {"config": dict(task.config), "net": average.state_dict()})
            save_checkpoint(
                out / "last.pt",
                {
                    "identity": task.identity,
                    "config": dict(task.config),
                    "net": net.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epoch": epoch,
                    "stale": stale,
                    "best": best,
                },
            )
    if log:
        log.close()
    if place.world > 1:
        dist.barrier()


def one_cycle(progress: float, warm_up: float = 0.05) -> float:
    """Share of the peak learning rate at ``progress`` in [0, 1]: linear up, then half a cosine down to 0."""
    if progress < warm_up:
        return 0.04 + 0.96 * progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def _batches(data: Items, loop: LoopConfig, epoch: int, place: Place) -> Iterator[Batch]:
    """This process's share of every batch of an epoch; the order depends on seed and epoch alone."""
    order = np.random.default_rng([loop.seed, epoch]).permutation(len(data))
    steps = len(order) // loop.batch
    rows = order[: steps * loop.batch].reshape(steps, loop.batch)[:, place.rank :: place.world]
    yield from batch_loader(data, rows, loop, place)


def batch_loader(
    data: Items, rows: Array, loop: LoopConfig, place: Place, split: int | None = None
) -> Iterator[Batch]:
    lists = [row.tolist() for row in rows]
    if split:
        lists = [row[i : i + split] for row in lists for i in range(0, len(row), split)]
    loader: DataLoader[Batch] = DataLoader(
        data,  # type: ignore[arg-type]
        batch_sampler=lists,
        num_workers=loop.workers,
        worker_init_fn=_one_thread,
        pin_memory=place.device.type == "cuda",
        prefetch_factor=4 if loop.workers else None,
    )
    for batch in loader:
        yield {name: value.to(place.device, non_blocking=True) for name, value in batch.items()}


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _decay_groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norms do not."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def _update_average(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and batch statistics, fast at first."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _from_first(figures: dict[str, float], place: Place) -> dict[str, float]:
    """The first process's figures, in every process."""
    if place.world > 1:
        box = [figures]
        dist.broadcast_object_list(box, 0)
        return box[0]
    return figures
