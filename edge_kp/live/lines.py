"""Results as text, a line for each frame: JSON Lines, and what all files of lines share."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from edge_kp.errors import SinkError
from edge_kp.live.sinks import check_output, write_error
from edge_kp.live.statistics import Result

_DESCRIPTORS = (Path("/dev/fd"), Path("/proc/self/fd"))
_STREAMS = {Path("/dev/stdout"): 1, Path("/dev/stderr"): 2}


def record(result: Result) -> dict[str, Any]:
    """A result as plain numbers, as in the JSONL file; of a picture with the name of its file."""
    file = {} if result.frame.file is None else {"file": result.frame.file}
    return {
        "frame": result.frame.index,
        "time_s": round(result.frame.time_s, 4),
        "source": result.frame.source,
        **file,
        "detections": [detection.to_json() for detection in result.detections],
    }


def encode(result: Result) -> bytes:
    """The result as one line of compact JSON, without a line end."""
    return json.dumps(record(result), allow_nan=False, separators=(",", ":")).encode()


def _descriptor(path: Path) -> int | None:
    """The number of a file that is open already, where the path names one so."""
    if path.parent in _DESCRIPTORS and path.name.isascii() and path.name.isdigit():
        return int(path.name)
    return _STREAMS.get(path)


class JsonlSink:
    """One line of JSON per frame, frames without objects too; each line is whole on disk before the next.

    Raises:
        SinkError: the path cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self.source: int | None = None
        self.written = 0
        self._file = WholeLines(path)

    def write(self, result: Result) -> None:
        """Add the line of a frame.

        Raises:
            SinkError: the disk is full or gone; whole lines stay.
        """
        self._file.append(encode(result) + b"\n")
        self.written += 1

    def close(self) -> None:
        """Finish the file; it is whole before, too."""
        self._file.close()


class WholeLines:
    """A file that grows line by line, each whole on disk before the next; created by the first of them.

    What the caller has open already (``/dev/stdout``, ``/dev/fd/3``) is written to from where it stands.

    Raises:
        SinkError: the path cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_output(path)
        self._open_already = _descriptor(self.path)
        if self._open_already is not None:
            try:
                os.fstat(self._open_already)
            except (OSError, OverflowError) as error:
                raise SinkError(f"{self.path}: nothing is open there: give another place") from error
        self._file: IO[bytes] | None = None
        self._end = 0

    def append(self, line: bytes) -> None:
        """Write a line, which brings its own line end.

        Raises:
            SinkError: the disk is full or gone; half a line is taken back.
        """
        try:
            if self._file is None:
                place = self.path if self._open_already is None else os.dup(self._open_already)
                self._file = open(place, "wb", buffering=0)  # noqa: SIM115
            rest = memoryview(line)
            while rest:  # a write may stop half-way where the disk fills up
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._cut()
            raise write_error(str(self.path), error) from error
        self._end += len(line)

    def _cut(self) -> None:
        """Take back half a line; a pipe or device cannot, and what others write to as well must not."""
        if self._file is not None and self._open_already is None:
            with suppress(OSError):
                self._file.truncate(self._end)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
