"""Data sets by name: ``ibug:DIR``, ``coco:FILE[,IMAGES]``, ``yolo:FILE[,SPLIT]``, ``labelme:DIR[,IMAGES]``,
``wflw:LIST,IMAGES``, ``synthetic:N`` and ``rendered:N,MODEL.npz[,PHOTOS]``.

Options follow after commas: ``repeat=3`` counts each sample three times an epoch, ``until=0.8`` trains the
stages on the set for the first 80 % of their epochs only (for labels less exact than the others),
``background=no`` says that the photos show unlabelled objects too, ``take=100`` keeps so many samples,
drawn at random, and ``seed=7`` draws others of these, or other synthetic or rendered images (validate on
another seed than you train on). ``only=hand`` reads the objects of one class, where a file has several.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge_kp.errors import BackendError, DataError
from edge_kp.extras import install
from edge_kp.schema import KeypointSchema, Pair, differing
from edge_kp.training.coco import read_coco
from edge_kp.training.keys import tell_apart
from edge_kp.training.labelme import read_labelme
from edge_kp.training.mirroring import mirrors_into_itself
from edge_kp.training.readers import read_ibug, read_wflw
from edge_kp.training.rendered import read_rendered
from edge_kp.training.samples import Reading, Sample, farthest_pair, read_image
from edge_kp.training.synthetic import read_synthetic

__all__ = ["Dataset", "Sample", "Spec", "load_dataset", "parse_spec", "read_image"]

# kind: (form, fewest arguments, most arguments)
_KINDS: Mapping[str, tuple[str, int, int]] = {
    "ibug": ("ibug:DIR", 1, 1),
    "coco": ("coco:FILE.json[,IMAGES_DIR]", 1, 2),
    "yolo": ("yolo:FILE.yaml[,SPLIT]", 1, 2),
    "labelme": ("labelme:DIR[,IMAGES_DIR]", 1, 2),
    "wflw": ("wflw:LIST,IMAGES_DIR", 2, 2),
    "synthetic": ("synthetic:N", 1, 1),
    "rendered": ("rendered:N,MODEL.npz[,PHOTOS_DIR]", 2, 3),
}
DATA_HELP = (
    f"{', '.join(form for form, *_ in _KINDS.values())};"
    " options ,repeat=3 ,until=0.8 ,background=no ,take=100 ,seed=7 ,only=NAME; repeatable"
)


@dataclass(frozen=True)
class Spec:
    """A parsed data set name; ``str(spec)`` gives it back.

    Attributes:
        kind: ``ibug``, ``coco``, ``yolo``, ``labelme``, ``wflw``, ``synthetic`` or ``rendered``.
        args: what stands before the options: paths, the split, the number of synthetic or rendered samples.
        options: ``repeat``, ``until``, ``background``, ``take``, ``seed``, ``only``, as written.
    """

    kind: str
    args: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}:" + ",".join([*self.args, *(f"{k}={v}" for k, v in self.options.items())])

    @property
    def repeat(self) -> int:
        return int(self.options.get("repeat", "1"))

    @property
    def until(self) -> float:
        return float(self.options.get("until", "1"))

    @property
    def seed(self) -> int:
        return int(self.options.get("seed", "0"))

    @property
    def take(self) -> int | None:
        return int(self.options["take"]) if "take" in self.options else None

    @property
    def use_background(self) -> bool:
        return self.options.get("background", "yes") == "yes"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples that share a schema.

    Attributes:
        names: the merged sets, without machine paths, e.g. ``("helen_train", "synthetic:2000")``.
        pairs_by_name: the flip pairs that the points' names tell, where no set names pairs. The schema has
            them only if samples may be mirrored so.
        measured_reference: no set names reference points, so that the schema's were measured on the samples.
        left_out: how many samples more there were, those to validate on among them, with too few labels.
        notes: lines on what is odd about the data, though it can be used.
    """

    schema: KeypointSchema
    samples: tuple[Sample, ...]
    names: tuple[str, ...]
    pairs_by_name: tuple[Pair, ...] = ()
    measured_reference: bool = False
    left_out: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)


def parse_spec(text: str) -> Spec:
    """``kind:arg[,arg][,key=value…]`` as a :class:`Spec`.

    Raises:
        DataError: an unknown kind or option, or too few or too many arguments.
    """
    kind, colon, rest = text.partition(":")
    if kind not in _KINDS or not colon:
        forms = ", ".join(form for form, *_ in _KINDS.values())
        raise DataError(f"data set {text!r}: unknown kind {kind!r}; expected one of {forms}")
    form, fewest, most = _KINDS[kind]
    args: list[str] = []
    options: dict[str, str] = {}
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+", key):
            if options:
                raise DataError(
                    f"data set {text!r}: {part!r} follows the options; write {form}[,option=value]"
                )
            args.append(part)
            continue
        expected = {
            "repeat": r"0*[1-9][0-9]{0,3}",
            "until": r"0?\.[0-9]{1,4}",
            "background": "yes|no",
            "take": r"0*[1-9][0-9]{0,6}",
            "seed": "[0-9]{1,9}",
            "only": ".+",
        }
        if key not in expected:
            raise DataError(
                f"data set {text!r}: unknown option {key!r}; expected one of {', '.join(expected)}"
            )
        if not re.fullmatch(expected[key], value, re.ASCII):
            hint = {
                "repeat": "a number from 1 to 9999",
                "until": "a share of training such as 0.8",
                "background": "yes or no",
                "take": "a number from 1 to 9999999",
                "seed": "a whole number",
                "only": "the name of a class",
            }[key]
            raise DataError(f"data set {text!r}: {key}={value!r}; expected {hint}")
        if key in options:
            raise DataError(f"data set {text!r}: {key} is given twice")
        options[key] = value
    if not fewest <= len(args) <= most or not all(args):
        raise DataError(f"data set {text!r}: expected {form}; paths may hold no comma")
    drawn = kind in ("synthetic", "rendered")
    if drawn and not re.fullmatch(r"0*[1-9][0-9]{0,6}", args[0], re.ASCII):
        raise DataError(f"data set {text!r}: expected {form} with N from 1 to 9999999, got {args[0]!r}")
    if "seed" in options and not drawn and "take" not in options:
        raise DataError(f"data set {text!r}: seed: nothing is drawn at random; it goes with take=100")
    if "only" in options and kind not in ("coco", "yolo"):
        raise DataError(f"data set {text!r}: only: {kind} knows no classes; leave it out")
    return Spec(kind, tuple(args), options)


def _read(spec: Spec) -> Reading:
    # A shell leaves the ~ of ibug:~/faces alone.
    paths = [Path(os.path.expanduser(arg)) for arg in spec.args]
    second = paths[1] if len(paths) > 1 else None
    only = spec.options.get("only")
    if spec.kind == "ibug":
        reading = read_ibug(paths[0])
    elif spec.kind == "coco":
        reading = read_coco(paths[0], second, only)
    elif spec.kind == "labelme":
        reading = read_labelme(paths[0], second)
    elif spec.kind == "yolo":
        reading = _yolo(paths[0], spec.args[1] if len(spec.args) > 1 else "train", only)
    elif spec.kind == "wflw":
        reading = read_wflw(*paths)
    elif spec.kind == "synthetic":
        reading = read_synthetic(int(spec.args[0]), spec.seed)
    else:
        photos = paths[2] if len(paths) > 2 else None
        reading = read_rendered(int(spec.args[0]), paths[1], photos, spec.seed)
    samples = tuple(
        replace(
            s,
            repeat=spec.repeat,
            until=spec.until,
            use_background=s.use_background and spec.use_background,
        )
        for s in reading.samples
    )
    if spec.take is not None:
        if spec.take > len(samples):
            raise DataError(f"data set {spec}: it holds {len(samples)} samples; take no more")
        # A larger number keeps what a smaller one does.
        order = np.random.default_rng(spec.seed).permutation(len(samples))
        samples = tuple(samples[i] for i in sorted(order[: spec.take].tolist()))
    return replace(reading, samples=samples)


def _yolo(path: Path, split: str, only: str | None) -> Reading:
    try:  # what it reads files with may be missing where nothing is trained
        from edge_kp.training.yolo import read_yolo
    except ImportError as error:
        raise BackendError(f"yolo: needs {error.name}: {install('train')}") from error
    return read_yolo(path, split, only)


def load_dataset(specs: Sequence[str], schema: KeypointSchema | None = None) -> Dataset:
    """Read, check and merge data sets; labels only, no image is decoded.

    Args:
        specs: data set names, see the top of this file.
        schema: what the sets must fit, e.g. the training set's for a validation set. Its reference points
            then stand in for points measured on the data, and its flip pairs for those that names tell.

    Raises:
        DataError: with every problem of every set, one line each.
        BackendError: a package that reads a set is missing.
    """
    if not specs:
        raise DataError("no data set given; expected e.g. ibug:DIR")
    readings: list[Reading] = []
    problems: list[str] = []
    for text in specs:
        try:
            readings.append(_read(parse_spec(text)))
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(*problems)
    merged = _merge_schemas(readings, schema)
    apart, twice = tell_apart([s for reading in readings for s in reading.samples])
    if twice:
        raise DataError(
            f"sample {twice[0].key!r} comes twice; to weigh a set use repeat=2, "
            "else leave out one of the two (synthetic, rendered: give another seed)"
        )
    samples = tuple(apart)
    names = tuple(reading.name for reading in readings)
    measured = all(reading.measured_reference for reading in readings)
    notes = tuple(note for reading in readings for note in reading.notes)
    if not all(reading.pairs_by_name for reading in readings):
        return Dataset(merged, samples, names, measured_reference=measured, notes=notes)
    pairs = readings[0].schema.flip_pairs
    if schema is None and merged.can_flip:
        shapes = np.stack([s.keypoints for s in samples])
        if not mirrors_into_itself(shapes, merged.flip_index):
            merged = replace(merged, flip_pairs=())
    return Dataset(merged, samples, names, pairs, measured, notes=notes)


def _merge_schemas(readings: Sequence[Reading], wanted: KeypointSchema | None) -> KeypointSchema:
    """The one schema of all readings. Measured reference points give way to named ones, and so do pairs."""
    first = next((r for r in readings if not r.measured_reference), readings[0])
    base = wanted or first.schema
    named = [r.schema for r in readings if not r.pairs_by_name and len(r.schema) == len(base)]
    if wanted is None and first.pairs_by_name and named:
        base = replace(base, flip_pairs=named[0].flip_pairs)
    problems = []
    for reading in readings:
        schema = reading.schema
        same = len(schema) == len(base)
        if same and reading.measured_reference:
            schema = replace(schema, reference=base.reference)
        if same and reading.pairs_by_name:
            schema = replace(schema, flip_pairs=base.flip_pairs)
        if not same or schema != base:
            whose = "the expected schema" if wanted else f"that of {first.name}"
            differ = ", ".join(differing(schema, base))
            problems.append(
                f"data set {reading.name}: its schema {schema.name!r} ({len(schema)} points) is not "
                f"{whose}, {base.name!r} ({len(base)} points): {differ} differ; use sets with the"
                " same keypoints"
            )
    if problems:
        raise DataError(*problems)
    if wanted is None and first.measured_reference and len(readings) > 1:
        return replace(base, reference=farthest_pair([s.keypoints for r in readings for s in r.samples]))
    return base
