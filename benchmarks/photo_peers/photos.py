"""Photos as ``benchmarks.peer_photos`` hands them to the systems, and their points as it gets them back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.workers import Worker
from edge_kp.errors import DataError
from edge_kp.geometry import jitter_box
from edge_kp.training.datasets import Sample
from edge_kp.training.regions import cut_region, key_rng
from edge_kp.types import Array

BOX_SIDE = 256  # pixels that the face's box has at most in what the systems get
BATCH = 32  # photos that lie on the disk at a time; times are taken on the first so many


def digest(image: Array) -> bytes:
    """What two copies of a picture share, whatever their files are called."""
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).digest()


def check_apart(fit: Sequence[Sample], test: Sequence[Sample]) -> None:
    """
    Raises:
        DataError: a photo to fit on is one of those to test on, by its name; pictures are compared later.
    """
    both = {sample.key for sample in fit} & {sample.key for sample in test}
    if both:
        raise DataError(
            f"{min(both)}: is in --data and in --fit-data ({len(both)} photos are); fit on other photos"
        )


def batches(
    samples: Sequence[Sample],
    jitter: float,
    seed: int,
    folder: Path,
    seen: dict[bytes, str],
    forbid: bool = False,
) -> Iterator[tuple[Path, Array]]:
    """Files of photos for the workers, and the labels (M, 68, 2) in them; each is gone when the next comes.

    Args:
        seen: pictures so far by their digest: added to, or with ``forbid`` refused.

    Raises:
        DataError: an unreadable photo, or one that is forbidden.
    """
    for first in tqdm(range(0, len(samples), BATCH), "photos", unit="batch", leave=False):
        content: dict[str, Any] = {}
        boxes, labels = [], []
        for i, sample in enumerate(samples[first : first + BATCH]):
            image = sample.load()
            picture = digest(image)
            if forbid and picture in seen:
                raise DataError(
                    f"{sample.key}: shows the same picture as {seen[picture]} of --data; fit on others"
                )
            if not forbid:
                seen[picture] = sample.key
            region = cut_region(replace(sample, load=partial(_same, image)), BOX_SIDE, "keypoints")
            content[f"image_{i}"] = region.image
            boxes.append(jitter_box(region.box, key_rng(sample.key, seed), jitter))
            labels.append(region.keypoints)
        path = folder / f"{first}.npz"
        np.savez(path, boxes=np.stack(boxes), **content)
        try:
            yield path, np.stack(labels)
        finally:
            path.unlink(missing_ok=True)  # after an error the whole folder may be gone


def collect(
    workers: Mapping[str, Worker], files: Iterator[tuple[Path, Array]]
) -> tuple[dict[str, Array], Array]:
    """Each system's (M, P, 2) points of all photos, NaN where it found no face, and the labels (M, 68, 2)."""
    found: dict[str, list[Any]] = {name: [] for name in workers}
    labels: list[Array] = []
    for path, truth in files:
        labels.append(truth)
        for name, worker in workers.items():
            found[name] += worker.ask(json.dumps(str(path)))["points"]
    return {name: as_array(points) for name, points in found.items()}, np.concatenate(labels)


def as_array(points: Sequence[Sequence[Sequence[float]] | None]) -> Array:
    """(M, P, 2), NaN for None; P is 1 where all are None."""
    count = max((len(p) for p in points if p is not None), default=1)
    missing = np.full((count, 2), np.nan)
    return np.array([missing if p is None else p for p in points], np.float64)


def _same(image: Array) -> Array:
    return image
