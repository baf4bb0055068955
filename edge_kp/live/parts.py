"""What a pipeline joins beside its sources: workers, outputs and the preview."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_kp.live.following import Found
from edge_kp.live.frames import Frame
from edge_kp.live.statistics import Result


class Worker(Protocol):
    """What runs in the inference thread."""

    def update(self, frames: Sequence[Frame]) -> Sequence[Found | Exception]:
        """What is in each of the frames, which are of different sources, or what kept it from being found."""


class Sink(Protocol):
    """An output with a thread of its own.

    Attributes:
        name: what to call it, usually its path.
    """

    name: str

    @property
    def source(self) -> int | None:
        """Number of the only source whose results it takes; None takes those of all."""

    def write(self, result: Result) -> None:
        """Take the next result.

        Raises:
            SinkError: the output cannot go on; it is closed then and gets no more.
        """

    def close(self) -> None:
        """Finish the output; called once, whatever happened before.

        Raises:
            SinkError: what was written is not whole.
        """


class Window(Protocol):
    """The preview; called from the main thread only."""

    def show(self, result: Result) -> None:
        """Put a result up."""

    def wants_to_quit(self) -> bool:
        """Handle window events for a few milliseconds; True once the user wants to end."""

    def close(self) -> None:
        """Take the window away."""
