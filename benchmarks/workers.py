"""Processes that benchmarks compare: each runs one system under the Python that has it; they take turns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from edge_kp.errors import EdgeKpError

ROOT = Path(__file__).parents[1]
NOT_INSTALLED = 3  # exit code of a worker whose system is not installed

Answer = dict[str, list[Any]]


class PeerMissing(EdgeKpError):
    """A system that is not installed: a comparison goes on without it, and says so."""


class Worker:
    """A running worker: it says what it is, then answers every number with so many results.

    Args:
        python: the interpreter to run it with.
        module: what to run, e.g. ``benchmarks.peer_worker``.
        name: what errors call it.

    Attributes:
        about: what it says of itself.

    Raises:
        PeerMissing: what it is to run is not installed.
        EdgeKpError: it ended for another reason; with the last line it wrote.
    """

    def __init__(
        self,
        python: str,
        arguments: Sequence[object],
        module: str = "benchmarks.peer_worker",
        name: str = "",
    ) -> None:
        if shutil.which(python) is None:
            raise PeerMissing(f"{python}: no such Python")
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        paths = [str(ROOT), os.environ.get("PYTHONPATH")]
        self._process = subprocess.Popen(
            [python, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
            text=True,
        )
        self._python, self._name = python, name
        try:
            self.about = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, frames: int) -> Answer:
        """The worker's lists for its next frames."""
        return self.ask(str(frames))

    def ask(self, line: str) -> Answer:
        """The worker's lists for a line of input."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> EdgeKpError:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        line = lines[-1] if lines else f"{self._python}: the worker ended with code {code}"
        if code == NOT_INSTALLED:
            return PeerMissing(line)
        return EdgeKpError(f"{self._name}: {line}" if self._name else line)

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def take_turns(workers: Mapping[Any, Worker], rounds: int, chunk: int, title: str) -> dict[Any, list[Answer]]:
    """Answers of each worker, one chunk a round, the first tenth of the rounds (at least one) left out."""
    answers: dict[Any, list[Answer]] = {key: [] for key in workers}
    skipped = max(1, rounds // 10)
    for i in tqdm(range(skipped + rounds), title, unit="round", leave=False):
        order = list(workers) if i % 2 else list(reversed(workers))  # so that none is always the later one
        for key in order:
            answer = workers[key].run(chunk)
            if i >= skipped:
                answers[key].append(answer)
    return answers
