"""What training keeps on disk: checkpoints that a kill cannot halve, and the log of every epoch."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from edge_kp.errors import ModelError
from edge_kp.files import clear_abandoned, replacing
from edge_kp.training.network import NetworkConfig, StageNet
from edge_kp.types import Array


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write beside the target, then rename: a kill leaves the old checkpoint whole."""
    clear_abandoned(path)
    with replacing(path) as part:
        torch.save(content, part)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """
    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as zipped:  # PyTorch does not compare check sums
            if (damaged := zipped.testzip()) is not None:
                raise ValueError(f"{damaged} differs from its check sum")
        content = dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such checkpoint; train it with python -m edge_kp.train") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ModelError(
            f"{path}: damaged checkpoint ({type(error).__name__}); remove {path.parent} and train again"
        ) from error
    return content


def load_stage(path: Path, templates: Array) -> StageNet:
    """The averaged network of ``best.pt``, on the CPU, in evaluation mode.

    Raises:
        ModelError: the file is missing, damaged, or was trained with another bank.
    """
    saved = load_checkpoint(path)
    try:
        config = NetworkConfig(**{**saved["config"], "attributes": tuple(saved["config"]["attributes"])})
        net = StageNet(config, templates)
        net.load_state_dict(saved["net"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path}: does not fit its template bank; remove {path.parent} and train again"
        ) from error
    return net.eval()


class Log:
    """``log.csv`` and TensorBoard events; a resumed run drops what lies beyond its checkpoint."""

    def __init__(self, out: Path, epoch: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "log.csv"
        self.rows: list[dict[str, str]] = []
        if epoch and self.path.exists():
            with open(self.path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= epoch]
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=epoch + 1)

    def write(self, epoch: int, figures: dict[str, float], told: Sequence[str]) -> None:
        """Keep an epoch's figures, and print the loss and those in ``told``."""
        self.rows.append({"epoch": str(epoch), **{name: f"{value:.6g}" for name, value in figures.items()}})
        with replacing(self.path) as part, open(part, "w", newline="") as file:
            table = csv.DictWriter(file, list(self.rows[0]))
            table.writeheader()
            table.writerows(self.rows)
        for name, value in figures.items():
            self.board.add_scalar(name, value, epoch)
        said = ", ".join(f"{name} {figures[name]:.4g}" for name in told)
        tqdm.write(f"{self.path.parent.name} epoch {epoch}: loss {figures['total']:.3g}, held back: {said}")

    def close(self) -> None:
        self.board.close()
