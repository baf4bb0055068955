"""Which samples train and which are held back."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edge_kp.errors import DataError
from edge_kp.training.datasets import Dataset, Sample, load_dataset

FEWEST_LABELLED = 3  # keypoints, below which a sample cannot be aligned


def training_samples(
    data: Sequence[str], validation: Sequence[str], share: float
) -> tuple[Dataset, tuple[Sample, ...]]:
    """Training data and held-back samples, those with too few labels left out."""
    train = load_dataset(data)
    if validation:
        other = load_dataset(validation, train.schema)
        held = list(other.samples)
        both = {s.key for s in train.samples} & {s.key for s in held}
        if both:
            raise DataError(
                f"{len(both)} samples stand in both --data and --validation, e.g. {min(both)};"
                " validate on others"
            )
        kept = list(train.samples)
    else:
        held_groups = held_back([s.key for s in train.samples], share)
        held = [s for s, back in zip(train.samples, held_groups, strict=True) if back]
        kept = [s for s, back in zip(train.samples, held_groups, strict=True) if not back]
    kept, held = ([s for s in part if _labelled(s) >= FEWEST_LABELLED] for part in (kept, held))
    if not kept or not held:
        raise DataError(
            f"{len(train.samples)} samples leave {len(kept)} to train and {len(held)} to validate on;"
            " add photos or give --validation"
        )
    return Dataset(train.schema, tuple(kept), train.names), tuple(held)


def _labelled(sample: Sample) -> int:
    return int((~np.isnan(sample.keypoints).any(1)).sum())


def held_back(keys: Sequence[str], share: float) -> list[bool]:
    """Which samples are held back: by name, so that a photo stays on its side when others come.

    Numbered photos of one subject (``name_01``, ``name_02``) stay together, unless that would put a
    quarter of all photos on one side, as in a folder of ``image_0001`` and on. At least one group is
    held back.
    """
    stems = [key.split("#")[0].rsplit(".", 1)[0] for key in keys]
    subjects = [re.sub(r"_\d+$", "", stem) for stem in stems]
    sizes = Counter(subjects)
    groups = [
        subject if sizes[subject] <= len(keys) / 4 else stem
        for stem, subject in zip(stems, subjects, strict=True)
    ]
    places = {group: zlib.crc32(group.encode()) % 10_000 for group in groups}
    limit = max(share * 10_000, min(places.values()) + 1)
    return [places[group] < limit for group in groups]
