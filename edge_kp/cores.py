"""The CPU cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many there are: fewer than the machine's where the process is pinned to some of them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
