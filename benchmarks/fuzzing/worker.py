"""The process that tries fuzz cases: ``python -m benchmarks.fuzzing MODULE FOLDER``, see ``benchmarks.fuzz``.

It reads a line of JSON for each case, ``[kind, name, seed]``, and writes one for each outcome. What a case
prints goes into ``FOLDER/log``. Memory is limited, so that a case that asks for too much fails alone.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_kp.errors import EdgeKpError

MEMORY = 3 * 2**30  # bytes of data a worker may hold
LONGEST = 10_000  # letters of a line that can still be called clear
ANSWERED, REFUSED = "answered", "refused"
DEFECTS = {
    "crash": "another error than a refusal, or the end of the process",
    "hang": "no outcome in time",
    "silent": "accepted though wrong",
    "denied": "refused though good",
    "unclear": "a refusal that is not one short line for each problem",
}


class Wrong(Exception):
    """An answer that should not have been given."""


@dataclass(frozen=True)
class Case:
    """A case with a name.

    Attributes:
        run: (what the kind shares, empty folder) → None; an error says what came of it.
        expected: ``answered`` or ``refused``; empty where both will do.
    """

    run: Callable[[Any, Path], None]
    expected: str = ""


@dataclass(frozen=True)
class Kind:
    """Cases of one kind of input.

    Attributes:
        fixed: name → case.
        mutated: (what the kind shares, empty folder, random numbers) → None: a case made at random.
        share: (folder) → what all cases of the kind use; made once in a process.
        refusals: errors that are refusals.
        weight: mutations of this kind, in those of a usual one.
    """

    fixed: Mapping[str, Case]
    mutated: Callable[[Any, Path, np.random.Generator], None] | None = None
    share: Callable[[Path], Any] = lambda folder: None
    refusals: tuple[type[Exception], ...] = (
        EdgeKpError,
        OSError,
    )  # those that a command line tells in a line
    weight: float = 1.0


def each(title: str, make: Callable[[Any], Case], values: Iterable[Any]) -> dict[str, Case]:
    """A case for each value, named by the title and the value."""
    cases = {}
    for value in values:
        text = value if isinstance(value, str) else str(value)
        name = f"{title} {text}" if len(text) <= 32 else f"{title} {text[:24]}… ({len(text)})"
        cases[name.encode("ascii", "backslashreplace").decode()] = make(value)
    return cases


@dataclass
class Trial:
    """Tries cases one after the other.

    Args:
        kinds: by name.
        folder: for what cases write.
    """

    kinds: Mapping[str, Kind]
    folder: Path
    _shared: dict[str, Any] = field(default_factory=dict)

    def __call__(self, name: str, case: str, seed: int) -> tuple[str, str]:
        """Outcome, one of :data:`ANSWERED`, :data:`REFUSED` and :data:`DEFECTS`, and what was said."""
        kind = self.kinds[name]
        if name not in self._shared:
            shared = self.folder / "shared" / name.replace("/", "_")
            shared.mkdir(parents=True)
            self._shared[name] = kind.share(shared)
        place = self.folder / "case"
        place.mkdir()
        os.chdir(place)  # where a case names a file of its own, it is here
        try:
            return self._outcome(kind, self._shared[name], kind.fixed.get(case), place, seed)
        finally:
            os.chdir(self.folder)
            shutil.rmtree(place)

    def _outcome(self, kind: Kind, shared: Any, case: Case | None, place: Path, seed: int) -> tuple[str, str]:
        expected = case.expected if case else ""
        try:
            if case is not None:
                case.run(shared, place)
            elif kind.mutated is not None:
                kind.mutated(shared, place, np.random.default_rng(seed))
        except Wrong as error:
            return "silent", str(error)
        except kind.refusals as error:
            said = self._said(error)
            if expected == ANSWERED:
                return "denied", said
            return ("unclear" if _unclear(error) else REFUSED), said
        except Exception as error:  # whatever else comes up is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            return "crash", f"{type(error).__name__} in {where}: {self._said(error)}"
        return ("silent", "was accepted") if expected == REFUSED else (ANSWERED, "")

    def _said(self, error: Exception) -> str:
        """A message without the folders of this machine, not too long."""
        text = str(error).replace(f"{self.folder / 'case'}{os.sep}", "").replace(str(self.folder), "…")
        return text if len(text) <= 300 else f"{text[:300]}…"


def _unclear(error: Exception) -> bool:
    lines = [str(line) for line in getattr(error, "problems", [error])]
    return not lines or any("\n" in line or not line.strip() or len(line) > LONGEST for line in lines)


def main(module: str, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()  # says where, should the interpreter itself be killed
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    trial = Trial(importlib.import_module(module).KINDS, folder)

    def tell(content: object) -> None:
        answers.write(f"{json.dumps(content)}\n")
        answers.flush()

    tell("ready")
    for line in sys.stdin:
        name, case, seed = json.loads(line)
        tell(trial(name, case, seed))
