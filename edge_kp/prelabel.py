"""``python -m edge_kp.prelabel``: which photos to label next, and first labels for them to correct."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import natural, number, positive, program, run_cli
from edge_kp.detector import Detector
from edge_kp.errors import DataError
from edge_kp.files import IMAGE_SUFFIXES, work_folder
from edge_kp.geometry import square_crop
from edge_kp.live.frames import Source
from edge_kp.live.pictures import read_picture
from edge_kp.live.source import open_source
from edge_kp.overlay import draw_detections, sheet
from edge_kp.schema import KeypointSchema
from edge_kp.training.doubt import Seen, choose, see
from edge_kp.training.writing import LABELS, Labelled, write_coco, write_photo
from edge_kp.types import Array

EMPTY = 4  # one of so many pictures may be one in which nothing is found
OVERVIEW = "overview.jpg"
TILES, COLUMNS, TILE = 24, 6, 256  # of the overview; pixels


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that may be chosen.

    Attributes:
        path: of its file.
        size: its width and height, pixels.
        seen: what the model sees in it.
    """

    path: Path
    size: tuple[int, int]
    seen: Seen

    @property
    def worst(self) -> int:
        """Number of the object that is least sure."""
        return int(np.argmax(self.seen.doubt))


def chosen(pictures: Sequence[Picture], count: int, seed: int = 0) -> list[Picture]:
    """Those that stand for most others, see :func:`edge_kp.training.doubt.choose`, then such in which nothing
    is found: at most one of :data:`EMPTY`, unless there are too few others."""
    shown = [picture for picture in pictures if picture.seen.objects]
    empty = [picture for picture in pictures if not picture.seen.objects]
    share = min(len(empty), max(count // EMPTY, count - len(shown)))
    shapes = [picture.seen.objects[picture.worst].keypoints for picture in shown]
    some = np.random.default_rng(seed).permutation(len(empty))[:share]
    return [shown[i] for i in choose(shapes, count - share, seed)] + [empty[i] for i in sorted(some)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("prelabel"),
        description="Choose, from many pictures without labels, those that stand for most others, and some in"
        " which the model finds nothing. They are written with what it sees as COCO keypoints, to be"
        " corrected in a labelling tool.",
    )
    add = parser.add_argument
    add("--model", required=True, help="model folder, or a shipped model")
    add(
        "--source",
        action="append",
        required=True,
        metavar="WHAT",
        help="folder, pattern or file of pictures, or a clip; may be repeated",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="new or empty folder to write")
    add("--count", type=positive, default=100, help="how many pictures to choose (default 100)")
    add(
        "--labelled",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose pictures, and those in folders below, have labels already: the same files are left"
        " out; may be repeated",
    )
    add(
        "--every",
        type=number(0, 1e6),
        default=1.0,
        metavar="S",
        help="of a clip, look at a frame every so many seconds (default 1)",
    )
    add("--seed", type=natural, default=0, help="of the choice")
    add("--backend", choices=BACKENDS, default="auto", help="what runs the networks")
    add("--precision", choices=PRECISIONS, default="auto", help="which of the model's networks")
    add("--threads", type=positive, help="CPU threads of the backend")
    return parser


def _run(args: argparse.Namespace) -> None:
    out: Path = args.out
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: holds something already; give a new folder to --out")
    for spec in args.source:  # before the work, not in the midst of it
        _open(spec).close()
    known = _digests(args.labelled)
    out.mkdir(parents=True, exist_ok=True)
    found: list[Picture] = []
    left_out, stopped = 0, False
    with (
        Detector(
            args.model, backend=args.backend, precision=args.precision, threads=args.threads
        ) as detector,
        work_folder(out) as folder,
    ):
        frames = _pictures(args.source, args.every, folder)
        try:
            for path, image in tqdm(frames, "looking", unit="picture", leave=False):
                if (digest := _digest(path)) in known:
                    left_out += 1
                    continue
                known.add(digest)
                size = (image.shape[1], image.shape[0])
                found.append(Picture(path, size, see(detector, image, path.name)))
        except KeyboardInterrupt:  # what was looked at is not lost
            stopped = True
        taken = chosen(found, args.count, args.seed)
        if taken:
            _write(out, folder, detector.schema, taken)
            print(_told(out, taken, len(found), left_out))
    if stopped:
        raise KeyboardInterrupt
    if not taken:
        raise DataError(
            f"all {left_out} pictures are known already; give others to --source"
            if left_out
            else "no picture could be read; give others to --source"
        )


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _digests(folders: Sequence[Path]) -> set[bytes]:
    """Of all pictures in folders and below.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    known: set[bytes] = set()
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"--labelled: {folder}: no such folder")
        paths = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if not paths:
            raise DataError(f"--labelled: {folder}: no picture in this folder or below; give the right one")
        known.update(map(_digest, paths))
    return known


def _open(spec: str) -> Source:
    """
    Raises:
        DataError: a source that never ends.
        SourceError: one that cannot be read.
    """
    source = open_source(spec)
    if source.live:
        source.close()
        raise DataError(f"--source {source.name}: has no end; record a clip of it, and give that")
    return source


def _pictures(sources: Sequence[str], every: float, folder: Path) -> Iterator[tuple[Path, Array]]:
    """File and image of each picture, and of each frame of a clip that is due, written below a folder."""
    for place, spec in enumerate(sources):
        source = _open(spec)
        try:
            due = -math.inf
            while (frame := source.read()) is not None:
                if frame.file is not None:
                    yield Path(frame.file), frame.image
                elif frame.time_s >= due:
                    due = frame.time_s + every
                    stem = folder / str(place) / f"{Path(source.name).stem}-{frame.index:06d}"
                    write_photo(stem, frame.image)
                    yield stem.with_name(f"{stem.name}.jpg"), frame.image
        finally:
            source.close()


def _tile(picture: Picture, schema: KeypointSchema) -> Array:
    """uint8 (TILE, TILE, 3): the object that is least sure, or the whole picture."""
    image, seen = read_picture(picture.path), picture.seen
    if image is None:  # it was there a while ago
        return np.zeros((TILE, TILE, 3), np.uint8)
    width, height = picture.size
    crop, text = square_crop(np.array([-0.5, -0.5, width - 0.5, height - 0.5]), TILE, 1.0), "nothing"
    if seen.objects:
        crop = square_crop(seen.objects[picture.worst].box, TILE, 1.6)
        text = f"{100 * max(seen.doubt):.1f} %"

    def moved(points: Array) -> Array:
        return crop.to_crop(points) * TILE - 0.5

    small = [
        replace(
            found, keypoints=moved(found.keypoints), box=moved(found.box.reshape(2, 2)).ravel(), pose=None
        )
        for found in seen.objects
    ]
    return draw_detections(crop.extract(image), small, schema, text=text, in_place=True)


def _write(out: Path, folder: Path, schema: KeypointSchema, taken: Sequence[Picture]) -> None:
    """Pictures, named so that labelling tools show them in their order; the labels last."""
    tiles = [_tile(picture, schema) for picture in taken[:TILES]]
    write_photo(folder / Path(OVERVIEW).stem, sheet(tiles, COLUMNS))
    digits = len(str(len(taken)))
    labelled, names = [], [OVERVIEW]
    for place, picture in enumerate(taken, 1):
        name = f"{place:0{digits}d}_{picture.path.name}"
        shutil.copyfile(picture.path, folder / name)
        objects = tuple((found.keypoints, found.visibility < 0.5) for found in picture.seen.objects)
        labelled.append(Labelled(name, picture.size, objects))
        names.append(name)
    write_coco(folder / LABELS, schema, labelled)
    for name in (*names, LABELS):
        os.replace(folder / name, out / name)


def _told(out: Path, taken: Sequence[Picture], shown: int, left_out: int) -> str:
    doubts = sorted(100 * max(picture.seen.doubt) for picture in taken if picture.seen.objects)
    parts = []
    if doubts:
        parts.append(
            f"in {len(doubts)} the points of an object move by {doubts[0]:.1f} to {doubts[-1]:.1f} % of its"
            " longer side from look to look"
        )
    if nothing := len(taken) - len(doubts):
        parts.append(f"in {nothing} nothing is found")
    already = f" ({left_out} others are known already)" if left_out else ""
    return (
        f"{out}: {len(taken)} of {shown} pictures{already}: {'; '.join(parts)}; see {out / OVERVIEW}\n"
        f"next: load them with {out / LABELS} (COCO keypoints) into a labelling tool, correct, and train with"
        f" --data coco:{out / LABELS} beside the data you have"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
