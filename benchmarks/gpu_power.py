"""What the GPU benchmarks read from the board: its state, its power, its clocks. It needs numpy alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

NOT_READABLE = "not readable"
SETTLE = 1.2  # seconds of load before power counts: nvidia-smi tells the mean of the last second
STATE = ("name", "driver_version", "pstate", "persistence_mode", "power.limit", "clocks.max.sm", "clocks.sm",
         "clocks.mem", "temperature.gpu", "memory.used", "utilization.gpu")  # fmt: skip
SAMPLED = ("power.draw", "clocks.sm")


def gpu_state() -> dict[str, str] | str:
    """Clocks, limits and load of the GPU as nvidia-smi puts them; on a Jetson it knows little or nothing."""
    text = _output(*_nvidia_smi(STATE))
    values = [value.strip() for value in text.split(",")]
    return dict(zip(STATE, values, strict=True)) if len(values) == len(STATE) else NOT_READABLE


def board_state() -> dict[str, str]:
    """Name of the board and its power mode, where the system has such things: on a Jetson."""
    found = {}
    with suppress(OSError):  # only ARM systems have the file
        model = Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace")
        found["board"] = model.strip("\x00 \n")
    mode = " ".join(_output("nvpmodel", "-q").split())
    if mode:
        found["nvpmodel"] = mode
    return found


def power(load: Callable[[], object], images: int, seconds: float) -> dict[str, Any]:
    """Power and clocks while ``load``, a call for so many images, is made again and again.

    Returns:
        ``watts`` and ``clock_mhz`` (the GPU's, median), where a tool tells them, and from which ``source``.
    """
    _repeat(load, SETTLE if seconds > SETTLE else seconds)
    found: dict[str, Any] = {}
    for command, parse in (
        ([*_nvidia_smi(SAMPLED), "--loop-ms=100"], parse_nvidia_smi),
        (["tegrastats", "--interval", "100"], parse_tegrastats),
    ):
        if shutil.which(command[0]) is None:
            continue
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        ) as process:
            calls, took = _repeat(load, seconds)
            process.terminate()
            try:
                text, _ = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                text, _ = process.communicate()
        found = {**parse(text), **found}
        if "watts" in found or "rails_w" in found:
            found |= {"source": command[0], "calls": calls, "seconds": round(took, 2)}
            if "watts" in found:
                found["millijoule_per_image"] = round(1e3 * found["watts"] * took / (calls * images), 3)
            return found
    return {"watts": NOT_READABLE, **found}


def parse_nvidia_smi(text: str) -> dict[str, Any]:
    """Mean ``watts`` and median ``clock_mhz`` of lines such as ``97.45, 1980``; left out where not told."""
    rows = [line.split(",") for line in _whole_lines(text)]
    watts, clocks = (
        [v for row in rows if len(row) == 2 and (v := _float(row[i])) is not None] for i in (0, 1)
    )
    return _means(watts, clocks)


def parse_tegrastats(text: str) -> dict[str, Any]:
    """``rails_w``, mean of each ``VDD_IN 4876mW/4876mW``, ``watts`` of VDD_IN, ``clock_mhz`` of GR3D_FREQ."""
    rails: dict[str, list[float]] = {}
    clocks = []
    for line in _whole_lines(text):
        for name, milliwatts in re.findall(r"\b((?:VDD|VIN)\w*) (\d+)(?:mW)?/\d+", line):
            rails.setdefault(name, []).append(int(milliwatts) / 1e3)
        # One clock, or one for each part of the GPU; 0 is a part that sleeps.
        if found := re.search(r"\bGR3D_FREQ \d+%@\[?([\d,]+)", line):
            clocks.append(max(float(clock) for clock in found[1].split(",") if clock))
    result = _means(rails.get("VDD_IN", []), clocks)
    if rails:
        result["rails_w"] = {name: round(float(np.mean(values)), 3) for name, values in rails.items()}
    return result


def _means(watts: Sequence[float], clocks: Sequence[float]) -> dict[str, Any]:
    found = {}
    if watts:
        found["watts"] = round(float(np.mean(watts)), 2)
    if clocks:
        found["clock_mhz"] = float(np.median(clocks))
    return found


def _whole_lines(text: str) -> list[str]:
    """The last line of a program that was stopped may be cut off."""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # [N/A], [Not Supported], [Unknown Error]
        return None


def _repeat(load: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Calls made, and the time they took."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < seconds:
        load()
        calls += 1
    return calls, time.perf_counter() - start


def _nvidia_smi(fields: Sequence[str]) -> list[str]:
    # Like CUDA's, its first GPU; a name in the variable is understood by both.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    return ["nvidia-smi", f"--id={first}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]


def _output(*command: str) -> str:
    """What a program prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
