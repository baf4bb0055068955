"""What a run says of itself while it runs, and in its last line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from edge_kp.live.frames import Source
from edge_kp.live.statistics import Spread, Summary


class Status:
    """Lines on stderr. In a terminal the live line is rewritten in place; in a log each one is a line."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._pending = False

    def update(self, text: str) -> None:
        if not self._rewrites:
            return self._write(f"{text}\n")
        width = shutil.get_terminal_size().columns - 1
        self._pending = True
        return self._write(f"\r\x1b[K{text[:width]}")

    def line(self, text: str) -> None:
        start = "\r\x1b[K" if self._pending else ""
        self._pending = False
        self._write(f"{start}{text}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal may be gone; the run and its files are not
            sys.stderr.write(text)
            sys.stderr.flush()


def live_line(summary: Summary) -> str:
    """What matters most comes first: a narrow terminal cuts the end off."""
    unsaved = sum(summary.sink_dropped.values())
    dropped = f"dropped {summary.dropped}" + (f", unsaved {unsaved}" if unsaved else "")
    if summary.failed:
        dropped += f", failed {summary.failed}"
    times = dict(summary.stages)
    if summary.age is not None:
        times = {"age": summary.age, **times}
    spreads = "  ".join(f"{name} {spread.p50:.1f}/{spread.p95:.1f}" for name, spread in times.items())
    return f"{summary.fps:.1f} fps | {dropped} | p50/p95 ms: {spreads}"


def last_line(
    summary: Summary, sources: Sequence[Source], written: Sequence[str], lost: Mapping[str, int]
) -> str:
    """The whole run.

    Args:
        written: names of the files there are now.
        lost: address → results that did not get through to it.
    """
    frames = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
    parts = [f"{frames} in {summary.elapsed_s:.1f} s ({summary.mean_fps:.1f} fps)"]
    parts.append(f"objects in {summary.with_objects}")
    if "total" in summary.stages:
        parts.append(f"p50/p95 total {_ms(summary.stages['total'])}")
    if "locate" in summary.stages:
        parts.append(f"searched {summary.searches} frames for {_ms(summary.stages['locate'])} each")
    if summary.age is not None:
        parts.append(f"age {_ms(summary.age)}")
    if any(source.live for source in sources):
        parts.append(f"{summary.dropped} dropped")
    if summary.failed:
        parts.append(f"{summary.failed} failed")
    if skipped := sum(source.skipped for source in sources):
        parts.append(f"{skipped} damaged skipped")
    parts += [f"{s.name} was gone {_times(s.returns)} and came back" for s in sources if s.returns]
    parts += [f"{count} not saved to {name}" for name, count in summary.sink_dropped.items()]
    parts += [f"{count} lost on the way to {name}" for name, count in lost.items() if count]
    if written:
        parts.append(f"wrote {', '.join(written)}")
    return "done: " + " | ".join(parts)


def _ms(spread: Spread) -> str:
    return f"{spread.p50:.1f}/{spread.p95:.1f} ms"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
