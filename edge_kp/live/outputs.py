"""The outputs of a run, from what the command line says of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_kp.errors import SinkError
from edge_kp.files import IMAGE_SUFFIXES
from edge_kp.live.csv_sink import CsvSink
from edge_kp.live.frames import Source
from edge_kp.live.lines import JsonlSink
from edge_kp.live.mqtt import MqttSink
from edge_kp.live.parts import Sink
from edge_kp.live.sinks import Draw, ImageSink, VideoSink
from edge_kp.live.source import input_files
from edge_kp.live.statistics import Result, Summary
from edge_kp.live.udp import UdpSink
from edge_kp.overlay import draw_detections
from edge_kp.schema import KeypointSchema
from edge_kp.types import Array


@dataclass(frozen=True)
class Outputs:
    """What to write, and where to send it; None for what is not wanted.

    Attributes:
        save: video with the keypoints drawn in, or a picture; with several sources one for each, numbered.
        json, csv: files with a line a frame, or an object.
        udp, mqtt: addresses.
        serve, bind: port and address of the live page.
        record_to: folder for what the live page records.
    """

    save: Path | None = None
    json: Path | None = None
    csv: Path | None = None
    udp: str | None = None
    mqtt: str | None = None
    serve: int | None = None
    bind: str = "127.0.0.1"
    record_to: Path = Path("out")

    def files(self, sources: int) -> list[Path]:
        """The files that will be written, by a run over so many sources."""
        saved = [] if self.save is None else numbered(self.save, sources)
        return [*saved, *(path for path in (self.json, self.csv) if path is not None)]


class Painter:
    """Draws results once the model, and with it the schema, is known."""

    def __init__(self) -> None:
        self.schema: KeypointSchema | None = None
        self.label = ""

    def __call__(self, result: Result) -> Array:
        text = f"{self.label}  {result.timings['total'] * 1000:.0f} ms"
        return draw_detections(result.frame.image, result.detections, self.known_schema(), text=text)

    def known_schema(self) -> KeypointSchema:
        assert self.schema is not None, "no result comes before the model is loaded"
        return self.schema


def numbered(path: Path, count: int) -> list[Path]:
    """The path itself for one source; out-0.mp4, out-1.mp4, … for several."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(count)]


def open_outputs(
    wanted: Outputs,
    sources: Sequence[Source],
    painter: Painter,
    summary: Callable[[], Summary],
    *,
    still: bool = False,
    create_parent: bool = False,
) -> list[Sink]:
    """Sinks for all that is wanted; what can be known to fail fails here.

    Args:
        summary: the state of the run, for the live page.
        still: the only source is a single picture.
        create_parent: make the folder of ``save`` instead of asking for it.

    Raises:
        SinkError: a file that cannot be written, an address that is none, a port in use.
    """
    sinks: list[Sink] = []
    try:
        if wanted.save is not None:
            paths = numbered(wanted.save, len(sources))
            for i, (path, source) in enumerate(zip(paths, sources, strict=True)):
                sinks.append(_picture_sink(path, i, source, painter, still, create_parent))
        if wanted.json is not None:
            sinks.append(JsonlSink(wanted.json))
        if wanted.csv is not None:
            files = any(source.names_files for source in sources)
            sinks.append(CsvSink(wanted.csv, painter.known_schema, files=files))
        if wanted.udp is not None:
            sinks.append(UdpSink(wanted.udp))
        if wanted.mqtt is not None:
            sinks.append(MqttSink(wanted.mqtt))
        if wanted.serve is not None:
            sinks += _page(wanted, sources, painter, summary)
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks


def _picture_sink(
    path: Path, number: int, source: Source, draw: Draw, still: bool, create_parent: bool
) -> Sink:
    if still and path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSink(path, draw, create_parent=create_parent)
    return VideoSink(path, draw, fps=source.fps, live=source.live, source=number, create_parent=create_parent)


def _page(
    wanted: Outputs, sources: Sequence[Source], draw: Draw, summary: Callable[[], Summary]
) -> list[Sink]:
    """The live page, and a recorder that it starts and stops."""
    from edge_kp.live.page import PageSink, Recording

    assert wanted.serve is not None
    recording = Recording(wanted.record_to, draw, sources)
    names = [source.name for source in sources]
    return [
        recording,
        PageSink(wanted.serve, draw, summary, recording, host=wanted.bind, sources=names),
    ]


def refuse_overwriting(specs: Sequence[str | int], wanted: Outputs) -> None:
    """Raises: SinkError: an output is an input, or two outputs are one file."""
    paths = wanted.files(len(specs))
    real = [os.path.realpath(path) for path in paths]
    if twice := [path for path, file in zip(paths, real, strict=True) if real.count(file) > 1]:
        raise SinkError(f"{twice[0]}: two of --save, --json and --csv name the same file: choose another")
    for path in paths:
        if path.exists() and any(path.samefile(file) for spec in specs for file in input_files(spec)):
            raise SinkError(f"{path}: this is the source itself: choose another file to write to")
