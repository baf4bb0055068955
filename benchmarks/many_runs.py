"""Many small training runs, several at once, each going on where a killed one stands; what they agree on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge_kp.errors import BackendError


def train_all(runs: Mapping[Path, Sequence[str]], jobs: int) -> None:
    """Train each run that is not finished.

    Args:
        runs: folder of a run → arguments of ``edge_kp.train``, ``--out`` aside.
        jobs: runs at once, each on one core.

    Raises:
        BackendError: a run failed; those that were under way are finished first.
    """
    stop = threading.Event()

    def train(out: Path) -> None:
        if stop.is_set():
            return
        command = [sys.executable, "-m", "edge_kp.train", *runs[out], "--part", "stages", "--out", str(out)]
        command += ["--workers", "0"]
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "train.log", "w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            stop.set()
            raise BackendError(f"{out}: {(out / 'train.log').read_text().strip().splitlines()[-1]}")

    missing = [out for out in runs if not (out / "evaluation.json").exists()]
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(missing), desc="runs", unit="run") as bar:
        waiting = [pool.submit(train, out) for out in missing]
        for each in waiting:
            each.add_done_callback(lambda _: bar.update())
        for each in waiting:
            each.result()


def mean_and_spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and the standard deviation of a sample; None for a single value."""
    spread = round(float(np.std(values, ddof=1)), 3) if len(values) > 1 else None
    return {"mean": round(float(np.mean(values)), 3), "std": spread}
