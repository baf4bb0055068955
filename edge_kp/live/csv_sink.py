"""Results as a table for a spreadsheet or a data frame: a row per object."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_kp.live.lines import WholeLines
from edge_kp.live.statistics import Result
from edge_kp.schema import KeypointSchema
from edge_kp.types import Detection

POSE = ("yaw", "pitch", "roll")


class CsvSink:
    r"""A row per object (RFC 4180, UTF-8), in the units of the JSONL file; a frame without objects has none.

    Columns: frame, time_s, source, file (where a source has pictures; empty for frames of a video), id,
    score, the box (x0 to y1), yaw, pitch and roll (empty where there is no pose), the model's attributes,
    then ``NAME_x``, ``NAME_y`` and ``NAME_visibility`` of every keypoint. A file's name that is not UTF-8 is
    written as JSON has it, such as ``m\udcfcller.png``. The file is created with the first result, its header
    written with the first object, which names the attributes. Each row is whole on disk before the next.

    Args:
        schema: of the keypoints; or what gives it once the first result is there, and the model loaded.
        files: is there a column for the files of pictures?

    Raises:
        SinkError: the path cannot be written.
    """

    def __init__(
        self, path: str | Path, schema: KeypointSchema | Callable[[], KeypointSchema], *, files: bool = False
    ) -> None:
        self.name = str(path)
        self.source: int | None = None
        self.written = 0
        self.lost = 0
        self._schema = schema
        self._file = WholeLines(path)
        self._attributes: tuple[str, ...] | None = None
        self._files = files

    def write(self, result: Result) -> None:
        """Add a row for each object of a frame.

        Raises:
            SinkError: the disk is full or gone; whole rows stay.
        """
        self._file.append(b"")  # there is a file even where no object ever comes
        for detection in result.detections:
            if self._attributes is None:
                self._write_header(tuple(detection.attributes))
            self._file.append(_row(self._values(result, detection)))
        self.written += 1

    def close(self) -> None:
        """Finish the file; where no object ever came, it holds the header alone.

        Raises:
            SinkError: the header cannot be written.
        """
        try:
            if self.written and self._attributes is None:
                self._write_header(())
        finally:
            self._file.close()

    def _write_header(self, attributes: tuple[str, ...]) -> None:
        self._attributes = attributes
        schema = self._schema() if callable(self._schema) else self._schema
        points = (f"{name}_{what}" for name in schema.keypoints for what in ("x", "y", "visibility"))
        box = ("x0", "y0", "x1", "y1")
        file = ("file",) if self._files else ()
        header = ("frame", "time_s", "source", *file, "id", "score", *box, *POSE, *attributes, *points)
        self._file.append(_row(header))

    def _values(self, result: Result, detection: Detection) -> Iterable[object]:
        values, frame = detection.to_json(), result.frame
        yield from (frame.index, round(frame.time_s, 4), frame.source)
        if self._files:
            yield frame.file
        yield from (values["id"], values["score"], *values["box"])
        yield from (values.get("pose", {}).get(angle) for angle in POSE)
        yield from (values["attributes"].get(name) for name in self._attributes or ())
        for point, visibility in zip(values["keypoints"], values["visibility"], strict=True):
            yield from (*point, visibility)


def _row(values: Iterable[object]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(values)
    return text.getvalue().encode(errors="backslashreplace")
