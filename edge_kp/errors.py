"""Errors that a user can act on. Each message names the cause and the next step, on one line."""

from __future__ import annotations


class EdgeKpError(Exception):
    """Base of every error the package raises on purpose; the command lines print it and exit with 1."""


class DataError(EdgeKpError):
    """Training or evaluation data that cannot be used.

    Carries every problem found, one line each, so that a folder is mended in one go.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class ModelError(EdgeKpError):
    """A model directory, template bank or checkpoint that is missing, damaged or does not fit."""


class BackendError(EdgeKpError):
    """A backend that is not installed or cannot run the model."""


class SourceError(EdgeKpError):
    """A camera, clip, folder or stream that cannot be opened or read."""


class SinkError(EdgeKpError):
    """An output (window, video, JSONL) that cannot be opened or written."""


class ConfigError(EdgeKpError):
    """A settings file that cannot be used."""
