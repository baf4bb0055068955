"""The optional dependencies: which are there, and how to get those of a feature."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec


def install(extra: str) -> str:
    """The pip command for an extra such as ``train``.

    Where edge_kp is installed, pip takes the extra's names from what is there and asks no index for edge_kp
    itself; where it is not, the only edge_kp that is known to be this one is the project's folder.
    """
    try:
        distribution("edge-kp")
    except PackageNotFoundError:
        return f"pip install '.[{extra}]' in the project's folder"
    return f"pip install 'edge-kp[{extra}]'"


def older(package: str, oldest: tuple[int, int]) -> str:
    """The version of an installed package, if that is older than this one; else ``""``."""
    try:
        told = version(package)
    except PackageNotFoundError:
        return ""
    numbers = re.match(r"(\d+)\.(\d+)", told or "")  # None where an uninstall was cut short
    return told if numbers and (int(numbers[1]), int(numbers[2])) < oldest else ""


def installed(module: str) -> bool:
    """Is there a module of this name? A mere folder of that name, as one of models may be called, is none."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None
