"""What every benchmark writes beside its figures: when, on what machine, with which versions and command."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_result(
    name: str, figures: dict[str, Any], folder: Path = RESULTS, packages: Sequence[str] = ()
) -> Path:
    """Write ``NAME.json``; folders in the command are cut to their last part.

    Args:
        folder: where; made where it is missing.
        packages: more of those whose versions are told; null stands for one that is not installed.
    """
    words = [word if "/" not in word else _short(word) for word in sys.argv[1:]]
    content = {
        "command": " ".join([f"python -m benchmarks.{Path(sys.argv[0]).stem}", *words]),
        "date": date.today().isoformat(),
        "machine": {"cpu": cpu_name(), "system": f"{platform.system()} {platform.machine()}"},
        "versions": {
            p: _version(p) for p in ("edge-kp", "numpy", "opencv-python", "onnxruntime", "torch", *packages)
        },
        **figures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


def _short(word: str) -> str:
    kind, colon, rest = word.partition(":")
    path = rest if colon else word
    parts = [Path(part).name for part in path.split(",")]
    return f"{kind}:{','.join(parts)}" if colon else parts[0]
