"""Many small training runs, several at once, each going on where a killed one stands; what they agree on."""

from __future__ import annotations

import json
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
from edge_kp.files import replacing

ARGUMENTS = "arguments.json"  # of edge_kp.train, beside the run they made


def train_all(runs: Mapping[Path, Sequence[str]], jobs: int) -> None:
    """Train each run that is not finished.

    Args:
        runs: folder of a run → arguments of ``edge_kp.train``, ``--out`` aside.
        jobs: runs at once, each on one core.

    Raises:
        BackendError: a run failed; those that were under way are finished first. Or a folder holds a run of
            other arguments.
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
        with replacing(out / ARGUMENTS) as part:
            part.write_text(json.dumps(list(runs[out])), encoding="utf-8")

    # One that does not say what it was trained with is left to edge_kp.train, which compares the settings.
    missing = [out for out in runs if not (out / "evaluation.json").exists() or _trained_with(out) is None]
    for out, arguments in runs.items():
        if _trained_with(out) not in (None, list(arguments)):
            raise BackendError(
                f"{out}: holds a run of other settings; choose another --runs or remove the folder"
            )
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(missing), desc="runs", unit="run") as bar:
        waiting = [pool.submit(train, out) for out in missing]
        for each in waiting:
            each.add_done_callback(lambda _: bar.update())
        for each in waiting:
            each.result()


def _trained_with(out: Path) -> list[str] | None:
    """The arguments of the run in a folder; None where it does not say."""
    path = out / ARGUMENTS
    return list(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def mean_and_spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and the standard deviation of a sample; None for a single value."""
    spread = round(float(np.std(values, ddof=1)), 3) if len(values) > 1 else None
    return {"mean": round(float(np.mean(values)), 3), "std": spread}
