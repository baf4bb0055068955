"""Names of samples: what makes one of two photos that are called alike in folders that are called alike."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from edge_kp.errors import DataError
from edge_kp.training.samples import Sample


def tell_apart(samples: Sequence[Sample], before: Sequence[Sample] = ()) -> tuple[list[Sample], list[Sample]]:
    """Give photos of one key keys of their own, as the frames of two videos that a labelling tool wrote.

    The first keeps its key, so that it stays on its side of the split when another set comes.

    Args:
        before: samples that are not returned, but whose keys are taken.

    Returns:
        The samples with a key each, longer by a folder where it was taken. And those that come twice: with
        the same file, a copy of it, or none.

    Raises:
        DataError: a file that cannot be read.
    """
    taken = {sample.key: sample for sample in before}
    apart, twice = [], []
    for sample in samples:
        while (first := taken.get(sample.key)) is not None and _different(sample, first):
            sample = replace(sample, key=f"{_folder(sample.picture, first.picture)}/{sample.key}")
        if first is not None:
            twice.append(sample)
        taken[sample.key] = sample
        apart.append(sample)
    return apart, twice


def _different(a: Sample, b: Sample) -> bool:
    try:
        return bool(a.picture and b.picture) and not filecmp.cmp(a.picture, b.picture, shallow=False)
    except OSError as error:
        raise DataError(f"{error.filename or a.picture}: {error.strerror or error}") from error


def _folder(path: str, other: str) -> str:
    """Of the folders that a file lies in, the innermost by which it differs from another."""
    pairs = zip_longest(*(reversed(Path(p).parent.parts) for p in (path, other)), fillvalue="")
    return next(mine for mine, theirs in pairs if mine != theirs).strip("/")
