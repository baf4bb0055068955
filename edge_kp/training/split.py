"""Which samples train and which are held back."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_kp.errors import DataError
from edge_kp.schema import KeypointSchema
from edge_kp.training.datasets import Dataset, Sample, load_dataset
from edge_kp.training.keys import tell_apart

FEWEST_LABELLED = 3  # keypoints, below which a sample cannot be aligned
FEWEST_HELD = 8  # photos: one alone would choose the checkpoints by chance


def training_samples(
    data: Sequence[str], validation: Sequence[str], share: float, like: KeypointSchema | None = None
) -> tuple[Dataset, tuple[Sample, ...]]:
    """Training data and held-back samples; those with too few labels are left out, and counted.

    Args:
        like: keypoints that the data should have. Its reference points stand in for points that were measured
            on the data, which are others on other data, and its flip pairs for those that names tell.
    """
    train = load_dataset(data)
    own = train.schema
    if like is not None and (own.name, own.keypoints) == (like.name, like.keypoints):
        reference = like.reference if train.measured_reference else own.reference
        pairs = like.flip_pairs if train.pairs_by_name else own.flip_pairs
        wanted = replace(own, reference=reference, flip_pairs=pairs)
        if wanted != own:
            train = load_dataset(data, wanted)
    fewest = min(FEWEST_LABELLED, len(train.schema))
    kept = [s for s in train.samples if _labelled(s) >= fewest]
    total = len(train)
    if validation:
        other = load_dataset(validation, train.schema)
        held, twice = tell_apart(other.samples, train.samples)
        again, pictures = set(twice), {s.picture for s in train.samples} - {""}
        both = [s for s in held if s in again or s.picture in pictures]
        if both:
            raise DataError(
                f"{len(both)} of the {len(held)} samples of --validation are in pictures of --data, too, e.g."
                f" {both[0].shown}; validate on others"
            )
        total += len(held)
        train = replace(train, notes=(*train.notes, *other.notes))
        held = [s for s in held if _labelled(s) >= fewest]
    else:
        back = held_back([s.key for s in kept], share) if kept else []
        held = [s for s, is_back in zip(kept, back, strict=True) if is_back]
        kept = [s for s, is_back in zip(kept, back, strict=True) if not is_back]
    left_out = total - len(kept) - len(held)
    if not kept or not held:
        too_few = f" ({left_out} have fewer than {fewest} labelled points)" if left_out else ""
        raise DataError(
            f"{total} samples leave {len(kept)} to train and {len(held)} to validate on{too_few};"
            " add photos or give --validation"
        )
    return replace(train, samples=tuple(kept), left_out=left_out), tuple(held)


def refuse_several(samples: Sequence[Sample]) -> None:
    """Where the whole picture is the box, one of two objects in it would contradict the other.

    Raises:
        DataError: pictures with several labelled objects.
    """
    shown = Counter(sample.picture for sample in samples if sample.picture)
    several = sorted(picture for picture, count in shown.items() if count > 1)
    if several:
        raise DataError(
            f"pictures of several labelled objects: {len(several)}, e.g. {several[0]}; with --box image each"
            " shows one: leave them out, or train without it"
        )


def _labelled(sample: Sample) -> int:
    return int((~np.isnan(sample.keypoints).any(1)).sum())


def held_back(keys: Sequence[str], share: float) -> list[bool]:
    """Which samples are held back: by name, so that a photo stays on its side when others come.

    Photos of one name stay together, whatever folder they are in, since one may be made of the other: turned
    (``name_t0``), labelled anew, of one of its objects (``name_o3``), or a copy that Roboflow changed
    (``name_jpg.rf.0123…``). So do numbered photos of one subject
    (``name_01``, ``name_02``), unless that would put a quarter of all photos on one side, as in a folder of
    ``image_0001`` and on. Of few photos more than that share is held back, at least :data:`FEWEST_HELD` or a
    tenth of them, and of those some go over to the others when more photos come.
    """
    stems = [
        re.sub(r"(_o\d+)?(_t\d+)?(\.rf\.[0-9a-zA-Z]{16,})?(\.[^./#]*)?(#[^/#]*)?$", "", key) for key in keys
    ]
    subjects = [re.sub(r"_\d+$", "", stem) for stem in stems]
    sizes = Counter(_name(subject) for subject in subjects)
    groups = [
        subject if sizes[_name(subject)] <= len(keys) / 4 else stem
        for stem, subject in zip(stems, subjects, strict=True)
    ]
    places: dict[str, int] = {}
    for group in groups:  # the first folder's name decides, so that another set may be added
        places.setdefault(_name(group), zlib.crc32(group.encode()) % 10_000)
    fewest = min(FEWEST_HELD, -(-len(places) // 10))
    limit = max(share * 10_000, sorted(places.values())[fewest - 1] + 1)
    return [places[_name(group)] < limit for group in groups]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
