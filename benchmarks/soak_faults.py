"""What fails in ``benchmarks.soak``, and what makes it fail; what the process uses meanwhile."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge_kp.errors import BackendError
from edge_kp.live.following import Found, Together
from edge_kp.live.frames import Frame
from edge_kp.live.lines import JsonlSink
from edge_kp.live.statistics import Result

SETTLING = 1 / 3  # share of the run until every fault has come several times, each at its worst once
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Failing(Together):
    """Fails on as many of the next frames as it is told."""

    failures = 0

    def update(self, frames: Sequence[Frame]) -> list[Found | Exception]:
        if self.failures > 0:
            self.failures -= 1
            raise BackendError("out of memory, as the soak has it")
        return super().update(frames)


class SlowDisk(JsonlSink):
    """Takes its time while told to."""

    slow_until = 0.0

    def write(self, result: Result) -> None:
        if time.monotonic() < self.slow_until:
            time.sleep(0.2)
        super().write(result)


class Broker:
    """mosquitto, which can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        assert MOSQUITTO is not None
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        assert MOSQUITTO is not None
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self.process

    def off(self, seconds: float) -> None:
        self.process.kill()
        self.process.wait()
        time.sleep(seconds)
        self.start()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Faults(threading.Thread):
    """Makes one part fail after the other until it is told to stop; counts what it did."""

    def __init__(self, seed: int, kinds: dict[str, Callable[[np.random.Generator], None]]) -> None:
        super().__init__(name="soak faults", daemon=True)
        self._rng = np.random.default_rng(seed)
        self._kinds = kinds
        self.stopping = threading.Event()
        self.done: Counter[str] = Counter()
        self.finished = False

    def run(self) -> None:
        while not self.stopping.wait(self._rng.uniform(1, 4)):
            kind = str(self._rng.choice(sorted(self._kinds)))
            self._kinds[kind](self._rng)
            self.done[kind] += 1
        self.finished = True


class Usage:
    """Memory (MB), threads and open files of this process, over time."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, int, int]] = []
        self._start = time.monotonic()

    def note(self) -> None:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        memory = int(fields["VmRSS"].split()[0]) / 1024
        files = len(os.listdir("/proc/self/fd"))
        self.rows.append((time.monotonic() - self._start, memory, int(fields["Threads"]), files))

    def figures(self) -> dict[str, float]:
        """Medians over the first and the last third of the settled part of the run.

        Shorter parts tell of the frames that happen to wait for slow outputs, some MB now and then.
        """
        rows = np.array(self.rows)
        settled = rows[int(SETTLING * len(rows)) :]
        third = max(1, len(settled) // 3)
        early, late = np.median(settled[:third], 0), np.median(settled[-third:], 0)
        names = ("memory_mb", "threads", "open_files")
        told = {f"{name}_early": round(float(early[i + 1]), 1) for i, name in enumerate(names)}
        told |= {f"{name}_late": round(float(late[i + 1]), 1) for i, name in enumerate(names)}
        return told | {"memory_growth_mb": round(float(late[1] - early[1]), 2)}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def watch(port: int, seconds: float, reads: bool) -> None:
    """A browser that shows the stream for a while, or stops reading, and vanishes without a word."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        client.sendall(b"GET /stream/0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not reads:
                time.sleep(0.05)
            elif not client.recv(65536):
                return
