"""The images to calibrate with: of every rotation and light, the same every time, and named."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from edge_kp.errors import DataError
from edge_kp.templates import TemplateBank, build_bank
from edge_kp.training.calibration.selection import FEWEST, LIGHTS, choose, in_turns, manifest
from edge_kp.types import Array


@pytest.fixture(scope="module")
def samples(kites: Any) -> list[Any]:
    """Kites, some in the dark, and many more upright ones than others."""
    chosen = []
    for i, sample in enumerate(kites(240)):
        chosen.append(replace(sample, load=partial(dimmed, kites, i)))
    return chosen


def dimmed(kites: Any, index: int) -> Array:
    return (kites.draw(index) * (0.3 + 0.7 * (index % 7) / 6)).astype(np.uint8)


@pytest.fixture(scope="module")
def bank(samples: list[Any], kites: Any) -> TemplateBank:
    return build_bank(kites.schema, np.stack([s.keypoints for s in samples]).astype(np.float64), 6)


def test_the_choice_depends_on_the_seed_alone(samples: list[Any], bank: TemplateBank) -> None:
    first, second, other = (choose(samples, bank, "keypoints", 40, seed) for seed in (3, 3, 4))
    assert [c.sample.key for c in first] == [c.sample.key for c in second]
    assert [c.sample.key for c in first] != [c.sample.key for c in other]
    assert len({c.sample.key for c in first}) == 40


def test_every_rotation_and_light_is_there(samples: list[Any], bank: TemplateBank) -> None:
    everything = choose(samples, bank, "keypoints", len(samples), 0)
    chosen = choose(samples, bank, "keypoints", 60, 0)
    counts = Counter((c.rotation, c.light) for c in chosen)
    assert {c.rotation for c in chosen} == {c.rotation for c in everything}
    assert len({c.rotation for c in chosen}) >= 2
    for rotation in {c.rotation for c in chosen}:
        assert {light for r, light in counts if r == rotation} == set(range(LIGHTS))
    assert max(counts.values()) - min(counts.values()) <= 1, "a rare stratum gives as many as a common one"


def test_light_is_that_of_the_object(samples: list[Any], bank: TemplateBank, kites: Any) -> None:
    chosen = choose(samples, bank, "keypoints", 60, 0)
    brightness = [float(dimmed(kites, int(c.sample.key[5:-4])).mean()) for c in chosen]
    groups = [
        np.mean([b for b, c in zip(brightness, chosen, strict=True) if c.light == i]) for i in range(LIGHTS)
    ]
    assert groups == sorted(groups)
    assert groups[-1] > 1.5 * groups[0]


def test_what_surrounds_the_object_does_not_count(samples: list[Any], bank: TemplateBank) -> None:
    def framed(sample: Any, value: int) -> Array:
        image = np.full((300, 300, 3), value, np.uint8)
        image[:96, :96] = sample.load()
        return image

    in_a_frame = [replace(s, load=partial(framed, s, 255 * (i % 2))) for i, s in enumerate(samples)]
    plain, surrounded = (choose(part, bank, "keypoints", 60, 0) for part in (samples, in_a_frame))
    assert [(c.sample.key, c.light) for c in plain] == [(c.sample.key, c.light) for c in surrounded]
    whole = choose(in_a_frame, bank, "image", 60, 0)
    assert [(c.sample.key, c.light) for c in whole] != [(c.sample.key, c.light) for c in plain]


def test_groups_take_turns() -> None:
    order = in_turns(["b", "a", "a", "a", "b", "c"], np.random.default_rng(0))
    assert sorted(order) == list(range(6))
    assert ["baaabc"[i] for i in order] == ["a", "b", "c", "a", "b", "a"]


def test_the_manifest_names_every_image(samples: list[Any], bank: TemplateBank) -> None:
    chosen = choose(samples, bank, "keypoints", 40, 5)
    said = manifest(chosen, ["kites:FOLDER"], 5)
    assert (said["seed"], said["data"]) == (5, ["kites:FOLDER"])
    assert sum(said["strata"].values()) == len(said["images"]) == 40
    images = {s.key: s.load() for s in samples}
    for row in said["images"]:
        assert row["sha256"] == hashlib.sha256(images[row["name"]].tobytes()).hexdigest()
        assert row["stratum"] in said["strata"]


def test_too_few_images_are_refused(samples: list[Any], bank: TemplateBank) -> None:
    with pytest.raises(DataError, match=r"31 images to calibrate with, at least 32 are needed; add a --data"):
        choose(samples[: FEWEST - 1], bank, "keypoints", 256, 0)
    with pytest.raises(DataError, match="10 images to calibrate with, at least 32"):
        choose(samples, bank, "keypoints", 10, 0)
    assert len(choose(samples[:FEWEST], bank, "keypoints", 256, 0)) == FEWEST


def test_several_objects_of_one_photo_count_once(samples: list[Any], bank: TemplateBank) -> None:
    def crowded(photos: int) -> list[Any]:
        """Three objects in every photo."""
        return [
            replace(s, picture=f"{i % photos}.jpg", load=samples[i % photos].load)
            for i, s in enumerate(samples[: 3 * photos])
        ]

    with pytest.raises(DataError, match="31 images to calibrate with, at least 32"):
        choose(crowded(31), bank, "keypoints", 64, 0)
    chosen = choose(crowded(40), bank, "keypoints", 64, 0)
    assert len(chosen) == 40
    assert len({c.sample.picture for c in chosen}) == 40


def test_copies_of_one_photo_count_once(samples: list[Any], bank: TemplateBank) -> None:
    copies = [replace(s, load=samples[i % 20].load) for i, s in enumerate(samples[:60])]
    with pytest.raises(DataError, match="20 images to calibrate with, at least 32"):
        choose(copies, bank, "keypoints", 60, 0)


def test_blank_and_unreadable_images_are_named(samples: list[Any], bank: TemplateBank) -> None:
    def broken() -> Array:
        raise DataError("kite/3.png: cannot be decoded as an image; replace or remove it")

    spoilt = list(samples[:40])
    spoilt[3] = replace(spoilt[3], load=broken)
    spoilt[8] = replace(spoilt[8], load=partial(np.full, (96, 96, 3), 128, np.uint8))
    with pytest.raises(DataError) as caught:
        choose(spoilt, bank, "keypoints", 32, 0)
    assert sorted(caught.value.problems) == [
        "kite/3.png: cannot be decoded as an image; replace or remove it",
        "kite/8.png: a blank picture; remove it",
    ]
