"""What every benchmark writes beside its figures: when, on what machine, with which versions and command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

RESULTS = Path(__file__).parent / "results"


def _provenance() -> ModuleType:
    """``edge_kp.provenance`` without the package around it, which asks for OpenCV and ONNX Runtime."""
    spec = spec_from_file_location("provenance", Path(__file__).parents[1] / "edge_kp" / "provenance.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_result(
    name: str,
    figures: dict[str, Any],
    folder: Path = RESULTS,
    packages: Sequence[str] = (),
    gpu: str | None = None,
) -> Path:
    """Write ``NAME.json``; folders in the command are cut to their last part.

    Args:
        folder: where; made where it is missing.
        packages: more of those whose versions are told; null stands for one that is not installed.
        gpu: the GPU's name, where one was measured.
    """
    program = f"benchmarks.{Path(sys.argv[0]).stem}"
    content = {**_provenance().provenance(program, sys.argv[1:], packages, gpu), **figures}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    part = path.with_name(f".part.{path.name}")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    print(f"wrote {path}")
    return path
