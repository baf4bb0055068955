"""Where figures come from: when, on what machine, with which versions, code and command.

Imports the standard library alone: a benchmark reads this file where the rest of the package cannot run.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("edge-kp", "numpy", "opencv-python", "onnxruntime", "torch")
TOLD = (":!benchmarks/results", ":!*.md")  # what tells of figures: a change of it changes none


def provenance(
    program: str, words: Sequence[str], packages: Sequence[str] = (), gpu: str | None = None
) -> dict[str, Any]:
    """What every results file begins with.

    Args:
        program: as in ``python -m PROGRAM``.
        words: its arguments; folders in them are cut to their last part.
        packages: more of those whose versions are told; null stands for one that is not installed.
        gpu: the GPU's name, where one is measured.
    """
    machine = {"cpu": cpu_name(), "system": f"{platform.system()} {platform.machine()}"}
    return {
        "command": " ".join([f"python -m {program}", *(_short(word) for word in words)]),
        "date": date.today().isoformat(),
        "commit": commit(),
        "machine": {**machine, **({"gpu": gpu} if gpu else {})},
        "versions": {package: _version(package) for package in (*PACKAGES, *packages)},
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def commit(root: Path = ROOT) -> str | None:
    """The checkout's commit, short, with ``+`` where code was changed since; None outside a checkout."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None  # installed: a repository around it is another project's
    name = _git(root, "rev-parse", "--short", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *TOLD)
    return f"{name}+" if name and changed else name


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _short(word: str) -> str:
    if "/" not in word:
        return word
    if "@" in word and "//" not in word:  # NAME@DATA@TEST, but no address with a password
        return "@".join(_short(part) for part in word.split("@"))
    flag, equals, value = word.partition("=")
    if equals and flag.startswith("-"):
        return f"{flag}={_short(value)}"
    kind, colon, rest = word.partition(":")
    path = rest if colon else word
    parts = [Path(part).name for part in path.split(",")]
    return f"{kind}:{','.join(parts)}" if colon else parts[0]
