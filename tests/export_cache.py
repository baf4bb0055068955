"""``torch.onnx.export`` that does not do again what it has done: many tests export the same few networks.

What is written is always the exporter's own work; a second file of the same network is a copy of the first.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class CachedExport:
    """Takes the place of an ``export`` like ``torch.onnx.export``, for files that hold their own weights.

    Args:
        folder: where files are kept; several processes may share it.
    """

    def __init__(self, export: Callable[..., Any], folder: Path) -> None:
        self.export, self.folder = export, folder

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], target: str, **options: Any) -> None:
        assert options.get("external_data") is False, "one file would not be all"
        key = network_key(module, inputs, options)
        if key is None:
            self.export(module, inputs, target, **options)
            return
        kept = self.folder / f"{key}.onnx"
        if not kept.exists():
            self.export(module, inputs, target, **options)
            with tempfile.TemporaryDirectory(dir=self.folder) as work:
                os.replace(shutil.copyfile(target, Path(work, kept.name)), kept)
        shutil.copyfile(kept, target)


def network_key(module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> str | None:
    """Digest of all that decides the file: modules with their weights and code, shapes of inputs, options.

    Values of inputs decide nothing, as none are known while the exporter traces. None where a part cannot be
    told by name, such as a network whose class is defined within a test.
    """
    examples = [(str(x.dtype), tuple(x.shape), x.stride(), str(x.device)) for x in inputs]
    code = [type(part).forward.__code__ for part in module.modules()]
    places = [(c.co_filename, c.co_firstlineno, c.co_code) for c in code]
    told = io.BytesIO()
    try:
        _Pickler(told).dump((module, places, examples, options))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return hashlib.sha256(told.getvalue()).hexdigest()


class _Pickler(pickle.Pickler):
    """Tells equal tensors, sets and operators alike in every process; only written, never read."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            which = self.tensors.setdefault(id(value), len(self.tensors))  # one tensor in two places is told
            told = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            kind = (type(value).__name__, str(value.dtype), value.requires_grad, str(value.device))
            return ("tensor", which, kind, tuple(value.shape), value.stride(), told)
        if isinstance(value, set | frozenset):
            return ("set", type(value).__name__, sorted(value))
        if isinstance(value, torch._ops.OpOverload):
            return ("operator", str(value))
        return None
