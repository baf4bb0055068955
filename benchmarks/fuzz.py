"""What does bad input do? ``python -m benchmarks.fuzz`` tries images, boxes and every kind of file read.

Each kind has cases with names (an empty image, a path that leads out of the data, a hash that does not fit)
and cases made at random from a seed: files cut off, bytes flipped, values of JSON replaced by hostile ones.
A case is *answered*, with what the same input without its oddity gives where there is such, or *refused*, in
one line; anything else is a defect: a crash, a hang, or a wrong answer given in silence. Cases run in a
process of their own with limited memory, so that one that kills it is counted as well.

Not tried: a model made to do harm whose hashes fit. A network is a program; take models from where you would
take programs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.common import RESULTS, write_result
from benchmarks.fuzzing.worker import ANSWERED, DEFECTS, MEMORY, REFUSED, Kind
from edge_kp.cli import natural, number, run_cli
from edge_kp.errors import BackendError

CASES = "benchmarks.fuzzing.cases"
DEADLINE_S = 900.0  # far beyond what the slowest case takes: 10,000 boxes, 2 minutes on an idle core
START_S = 300.0  # for the libraries to load


class Worker:
    """A process that tries cases, started again whenever a case has ended it.

    Args:
        module: holds the cases as ``KINDS``.
    """

    def __init__(self, module: str, folder: Path, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._module = module
        self._folder = folder
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, kind: str, case: str, seed: int) -> tuple[str, str]:
        """Outcome of a case, and what was said."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(f"{json.dumps([kind, case, seed])}\n".encode())
        process.stdin.flush()
        line = self._line(process, self.deadline_s)
        if line is None:
            self.close()
            return "hang", f"no outcome after {self.deadline_s:g} s"
        if not line:
            process.wait()
            code, said = process.returncode, self._last_words()
            self.close()
            return "crash", f"the process ended with {code}: {said}"
        outcome, said = json.loads(line)
        return outcome, said

    def _start(self) -> subprocess.Popen[bytes]:
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzzing", self._module, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if not self._line(self._process, START_S):
            self.close()
            raise BackendError(f"the process that tries cases does not start: {self._last_words()}")
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line; empty where the process has ended, None where none came in time."""
        assert process.stdout is not None
        end, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                return b""
            line += part
        return line

    def _last_words(self) -> str:
        log = self._folder / str(self._number) / "log"
        text = log.read_text("utf-8", "replace") if log.exists() else ""
        fatal = text.rfind("Fatal Python error")
        return " | ".join(text[fatal:].splitlines()[:6] if fatal >= 0 else text.splitlines()[-3:])[:300]

    def close(self) -> None:
        """Free the process; a next case starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def plan(kinds: Mapping[str, Kind], mutations: int, seed: int) -> Iterator[tuple[str, str, int]]:
    """Kind, name and seed of every case; a seed depends on nothing but its kind, number and ``seed``."""
    for name, kind in kinds.items():
        for case in kind.fixed:
            yield name, case, seed
        count = round(mutations * kind.weight) if kind.mutated is not None else 0
        for i in range(count):
            yield name, f"mutation {i}", zlib.crc32(f"{seed} {name} {i}".encode())


def fuzz(
    module: str,
    mutations: int,
    seed: int,
    *,
    only: Sequence[str] = (),
    deadline_s: float = DEADLINE_S,
    progress: bool = True,
) -> dict[str, Any]:
    """Try all cases of a module.

    Args:
        module: holds the cases as ``KINDS``.
        mutations: random cases of a kind whose weight is 1.
        only: kinds to try, instead of all.

    Returns:
        ``kinds``: name → counts of ``cases`` and of each outcome; ``defects``: kind, case, defect and what
        was said of each.
    """
    kinds: Mapping[str, Kind] = importlib.import_module(module).KINDS
    if unknown := [name for name in only if name not in kinds]:
        raise BackendError(f"--kind {unknown[0]}: expected one of {', '.join(kinds)}")
    cases = list(plan({n: k for n, k in kinds.items() if n in only or not only}, mutations, seed))
    counts = {name: Counter[str]() for name, _, _ in cases}
    defects: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(module, Path(folder), deadline_s)
        try:
            for name, case, number in tqdm(cases, "fuzzing", unit="case", disable=not progress):
                outcome, said = worker(name, case, number)
                counts[name][outcome] += 1
                if outcome in DEFECTS:
                    defects.append({"kind": name, "case": case, "defect": outcome, "said": said})
        finally:
            worker.close()
    rows = {
        name: {
            "cases": count.total(),
            **{outcome: count[outcome] for outcome in (ANSWERED, REFUSED, *DEFECTS)},
        }
        for name, count in counts.items()
    }
    return {"kinds": rows, "defects": defects}


def table(kinds: Mapping[str, Mapping[str, int]]) -> str:
    """The counts as text."""
    lines = [f"{'kind':<20}{'cases':>8}{'answered':>10}{'refused':>9}{'defects':>9}"]
    rows = [
        *kinds.items(),
        ("all", {c: sum(k[c] for k in kinds.values()) for c in (ANSWERED, REFUSED, *DEFECTS, "cases")}),
    ]
    for name, count in rows:
        wrong = sum(count[defect] for defect in DEFECTS)
        lines.append(f"{name:<20}{count['cases']:>8}{count[ANSWERED]:>10}{count[REFUSED]:>9}{wrong:>9}")
    return "\n".join(lines)


def _run(args: argparse.Namespace) -> None:
    start = time.monotonic()
    figures = fuzz(CASES, args.mutations, args.seed, only=args.kind, deadline_s=args.deadline)
    settings = {
        "seed": args.seed,
        "mutations": args.mutations,
        "memory_gib": MEMORY / 2**30,
        "deadline_s": args.deadline,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    print(table(figures["kinds"]))
    write_result("fuzz", {**settings, **figures}, args.out, ("openvino", "onnx"))
    if figures["defects"]:
        raise BackendError(
            "\n".join(
                " ".join(f"{d['kind']}, {d['case']}: {d['defect']}: {d['said']}".split())
                for d in figures["defects"]
            )
        )
    print("every case was answered or refused")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--mutations", type=natural, default=200, metavar="N", help="random cases a kind (default 200)")
    add("--seed", type=natural, default=0, help="of the random cases")
    add("--kind", action="append", default=[], help="try this kind alone; can be repeated")
    add(
        "--deadline",
        type=number(0.1, 1e5),
        default=DEADLINE_S,
        metavar="S",
        help="seconds until a case hangs",
    )
    add("--out", type=Path, default=RESULTS, metavar="DIR")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
