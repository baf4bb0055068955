"""Whose a run's folder is: of one recipe for ever, and of one process at a time."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO

from edge_kp.errors import ModelError
from edge_kp.files import reason, replacing
from edge_kp.training.loop import Place
from edge_kp.training.recipe import Recipe, wait

COUNTED = ("k", "epochs", "batch")  # settings that follow from the number of samples
LOCK = ".lock"
FAR = 2**30  # byte of it that is locked on Windows
TAKEN = (
    errno.EWOULDBLOCK,
    errno.EAGAIN,
    errno.EACCES,
    errno.EDEADLK,
)  # what systems say of a lock that is held


def refuse_other(recipe: Recipe, out: Path) -> None:
    """Raises: ModelError: ``out`` holds a run of another recipe, or is no folder."""
    path = out / "run.json"
    if out.exists() and not out.is_dir():
        raise ModelError(f"{out}: is a file; choose another --out")
    if not path.exists() or (there := Recipe.read(path)) == recipe:
        return
    differ = [f.name for f in fields(Recipe) if getattr(there, f.name) != getattr(recipe, f.name)]
    # These may differ since there are more samples now.
    shown = {name: f": {getattr(there, name)} there, {getattr(recipe, name)} now" for name in COUNTED}
    raise ModelError(
        f"{out}: holds a run of other settings ({', '.join(name + shown.get(name, '') for name in differ)});"
        " choose another --out or remove the folder"
    )


def claim(recipe: Recipe, out: Path, place: Place) -> IO[str] | None:
    """Write ``run.json``, or make sure that the one there is the same recipe.

    Returns:
        The first process: what keeps others off the folder for as long as it is open, until this process ends
        at the latest, however it does.

    Raises:
        ModelError: the folder is that of another recipe, or another process trains there.
    """
    refuse_other(recipe, out)
    lock = None
    if place.first:
        out.mkdir(parents=True, exist_ok=True)
        lock = _locked(out)
        if not (out / "run.json").exists():
            with replacing(out / "run.json") as part:
                part.write_text(json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8")
    wait(place)
    return lock


def _locked(out: Path) -> IO[str]:
    lock = open(out / LOCK, "a+", encoding="ascii")  # noqa: SIM115 - the caller closes it
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(lock.fileno(), FAR, os.SEEK_SET)  # a byte that nobody reads: here a lock forbids that
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in TAKEN:
            print(f"{out}: the disk knows no locks ({reason(error)}); train there by one process at a time")
            return lock
        lock.seek(0)
        who = lock.read().strip()
        lock.close()
        raise ModelError(
            f"{out}: is being trained by process {who or '?'}; wait for it, or choose another --out"
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
