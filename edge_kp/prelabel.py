"""``python -m edge_kp.prelabel``: which photos to label next, and first labels for them to correct."""

from __future__ import annotations

import argparse
import hashlib
import heapq
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import natural, number, positive, program, run_cli
from edge_kp.detector import Detector
from edge_kp.errors import DataError
from edge_kp.files import IMAGE_SUFFIXES, room_for, work_folder
from edge_kp.geometry import square_crop
from edge_kp.live.frames import Frame, Source
from edge_kp.live.pictures import read_picture
from edge_kp.live.source import open_source
from edge_kp.overlay import draw_detections
from edge_kp.schema import KeypointSchema
from edge_kp.training.doubt import POOL, Seen, choose, see
from edge_kp.training.writing import JPEG_QUALITY, LABELS, Labelled, write_coco
from edge_kp.types import Array, Detection

EMPTY = 4  # one of so many pictures may be one in which nothing is found
OVERVIEW = "overview.jpg"
TILES, COLUMNS, TILE = 24, 6, 256  # of the overview; pixels


@dataclass(order=True)
class Picture:
    """A picture that may be chosen.

    Attributes:
        rank: the doubt of its least sure object; where it has none, a random number.
        number: of the picture in the order of reading; those of one rank are told apart by it.
        content: its file.
    """

    rank: float
    number: int
    name: str = field(compare=False)
    content: bytes | Path = field(compare=False)
    size: tuple[int, int] = field(compare=False)
    seen: Seen = field(compare=False)

    @property
    def worst(self) -> Detection:
        """The object that is least sure."""
        return self.seen.objects[int(np.argmax(self.seen.doubt))]


class Choice:
    """Keeps the pictures that are worth most of all that it is shown.

    Args:
        count: how many are wanted.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.shown = 0
        self._doubted: list[Picture] = []
        self._empty: list[Picture] = []

    def add(self, picture: Picture) -> None:
        self.shown += 1
        kept, most = (self._doubted, POOL * self.count) if picture.seen.objects else (self._empty, self.count)
        (heapq.heappush if len(kept) < most else heapq.heappushpop)(kept, picture)

    def result(self) -> list[Picture]:
        """Doubtful ones, see :func:`edge_kp.training.doubt.choose`, then such in which nothing is found: at
        most one of :data:`EMPTY`, unless there are too few others."""
        empty = min(len(self._empty), max(self.count // EMPTY, self.count - len(self._doubted)))
        shapes = [picture.worst.keypoints for picture in self._doubted]
        doubts = [picture.rank for picture in self._doubted]
        chosen = choose(doubts, shapes, self.count - empty)
        return [self._doubted[i] for i in chosen] + heapq.nlargest(empty, self._empty)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("prelabel"),
        description="Choose, from many pictures without labels, those from which a model would learn most:"
        " where its points move when it looks again, or where it finds nothing. They are written with what"
        " it sees as COCO keypoints, to be corrected in a labelling tool.",
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
    add("--seed", type=natural, default=0, help="of the choice among pictures in which nothing is found")
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
    choice, left_out, stopped = Choice(args.count), 0, False
    with Detector(
        args.model, backend=args.backend, precision=args.precision, threads=args.threads
    ) as detector:
        rng = np.random.default_rng(args.seed)
        try:
            for name, content, image in tqdm(
                _pictures(args.source, args.every), "looking", unit="picture", leave=False
            ):
                digest = _digest(content)
                if digest in known:
                    left_out += 1
                    continue
                known.add(digest)
                seen = see(detector, image, name)
                rank = max(seen.doubt, default=rng.random())
                size = (image.shape[1], image.shape[0])
                choice.add(Picture(rank, choice.shown, name, content, size, seen))
        except KeyboardInterrupt:  # what was looked at is not lost
            stopped = True
        schema = detector.schema
    chosen = choice.result()
    if chosen:
        _write(out, schema, chosen)
        print(_told(out, chosen, choice.shown, left_out))
    if stopped:
        raise KeyboardInterrupt
    if not chosen:
        raise DataError(
            f"all {left_out} pictures are known already; give others to --source"
            if left_out
            else "no picture could be read; give others to --source"
        )


def _digest(content: bytes | Path) -> bytes:
    data = content.read_bytes() if isinstance(content, Path) else content
    return hashlib.sha256(data).digest()


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
            raise DataError(
                f"--labelled: {folder}: no picture in this folder or below; give the one that has them"
            )
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


def _pictures(sources: Sequence[str], every: float) -> Iterator[tuple[str, bytes | Path, Array]]:
    """Name, file and image of each picture, and of each frame of a clip that is due."""
    for spec in sources:
        source = _open(spec)
        try:
            due = -math.inf
            while (frame := source.read()) is not None:
                if frame.file is not None:
                    yield Path(frame.file).name, Path(frame.file), frame.image
                elif frame.time_s >= due:
                    due = frame.time_s + every
                    yield _frame_name(source.name, frame), _jpeg(frame.image), frame.image
        finally:
            source.close()


def _frame_name(source: str, frame: Frame) -> str:
    return f"{Path(source).stem}-{frame.index:06d}.jpg"


def _jpeg(image: Array) -> bytes:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def _tile(picture: Picture, schema: KeypointSchema) -> Array:
    """uint8 (TILE, TILE, 3): the object that is least sure, or the whole picture."""
    content, seen = picture.content, picture.seen
    image = (
        read_picture(content)
        if isinstance(content, Path)
        else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    )
    if image is None:  # it was there a while ago
        return np.zeros((TILE, TILE, 3), np.uint8)
    width, height = picture.size
    crop, text = square_crop(np.array([-0.5, -0.5, width - 0.5, height - 0.5]), TILE, 1.0), "nothing"
    if seen.objects:
        crop = square_crop(picture.worst.box, TILE, 1.6)
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


def _write(out: Path, schema: KeypointSchema, chosen: Sequence[Picture]) -> None:
    """Pictures, named so that labelling tools show them in their order; the labels last."""
    digits = len(str(len(chosen)))
    with work_folder(out) as folder:
        pictures = []
        for place, picture in enumerate(chosen, 1):
            name = f"{place:0{digits}d}_{picture.name}"
            if isinstance(picture.content, Path):
                shutil.copyfile(picture.content, folder / name)
            else:
                (folder / name).write_bytes(picture.content)
            objects = tuple((found.keypoints, found.visibility < 0.5) for found in picture.seen.objects)
            pictures.append(Labelled(name, picture.size, objects))
        write_coco(folder / LABELS, schema, pictures)
        tiles = [_tile(picture, schema) for picture in chosen[:TILES]]
        columns = min(COLUMNS, len(tiles))
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
        sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
        (folder / OVERVIEW).write_bytes(_jpeg(sheet))
        names = sorted((p.name for p in folder.iterdir()), key=lambda name: name == LABELS)
        with room_for(out):
            for name in names:
                os.replace(folder / name, out / name)


def _told(out: Path, chosen: Sequence[Picture], shown: int, left_out: int) -> str:
    doubts = sorted(100 * picture.rank for picture in chosen if picture.seen.objects)
    parts = []
    if doubts:
        parts.append(
            f"in {len(doubts)} the points of an object move by {doubts[0]:.1f} to {doubts[-1]:.1f} % of its"
            " longer side from look to look"
        )
    if nothing := len(chosen) - len(doubts):
        parts.append(f"in {nothing} nothing is found")
    already = f" ({left_out} others are known already)" if left_out else ""
    return (
        f"{out}: {len(chosen)} of {shown} pictures{already}: {'; '.join(parts)}; see {out / OVERVIEW}\n"
        f"next: load them with {out / LABELS} (COCO keypoints) into a labelling tool, correct, and train with"
        f" --data coco:{out / LABELS} beside the data you have"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_cli(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
