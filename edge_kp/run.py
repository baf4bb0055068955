"""``python -m edge_kp.run``: keypoints of a camera, clip, picture or stream; shown, saved, or both."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_kp.backends import BACKENDS, PRECISIONS
from edge_kp.cli import positive, run_cli
from edge_kp.detector import CASCADES, Detector
from edge_kp.errors import BackendError, SinkError
from edge_kp.live.pipeline import Pipeline, Worker
from edge_kp.live.preview import Preview, display_available
from edge_kp.live.sinks import Draw, ImageSink, JsonlSink, VideoSink
from edge_kp.live.source import IMAGE_SUFFIXES, Source, input_files, open_source
from edge_kp.live.statistics import Result, Spread, Summary
from edge_kp.overlay import draw_detections
from edge_kp.parity import table
from edge_kp.schema import KeypointSchema
from edge_kp.smoothing import SMOOTHING
from edge_kp.tracker import LOCATE_EVERY, MAX_OBJECTS, TRACK, EachFrame, Tracker
from edge_kp.types import Array

FileSink = JsonlSink | VideoSink | ImageSink


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m edge_kp.run",
        description="Find keypoints in live video. q or Esc in the window, or Ctrl-C, ends the run.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--camera", type=_index, metavar="N", help="index of a camera, usually 0")
    source.add_argument(
        "--source", metavar="WHAT", help="video file, picture, folder of pictures, /dev/videoN or URL"
    )
    source.add_argument(
        "--check",
        action="store_true",
        help="hold the networks on this device against the model's stored results, and end",
    )
    parser.add_argument("--model", default="face68", help="name or folder of a model (default face68)")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what runs the networks (default: the best there is)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="which of the model's networks (default: the fastest for the backend)",
    )
    parser.add_argument(
        "--cascade",
        choices=CASCADES,
        default="auto",
        help="both stages as one graph, or as two calls (default: what is faster on the backend)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads for the networks")
    parser.add_argument(
        "--track",
        choices=(*TRACK, "off"),
        default=TRACK[0],
        help="fast (default): stage 2 alone while tracking is good; full: both stages in every frame;"
        " off: every picture on its own and all that is in it, for photos",
    )
    parser.add_argument(
        "--smooth", choices=SMOOTHING, default="light", help="how much keypoints are steadied (default light)"
    )
    parser.add_argument(
        "--max-objects",
        type=positive,
        metavar="N",
        help=f"at most N at once (default: follow {MAX_OBJECTS}; all of a photo)",
    )
    parser.add_argument(
        "--locate-every",
        type=positive,
        default=LOCATE_EVERY,
        metavar="N",
        help=f"look for newcomers in every Nth frame (default {LOCATE_EVERY})",
    )
    parser.add_argument("--headless", action="store_true", help="no window")
    parser.add_argument("--save", type=Path, metavar="OUT.mp4", help="write a video with the keypoints drawn"
                        " in (for a picture: out.png); an existing file is replaced")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="OUT.jsonl", help="write one line of JSON per frame;"
                        " an existing file is replaced")  # fmt: skip
    parser.add_argument("--max-frames", type=positive, metavar="N", help="end after N frames")
    return parser


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(
            f"expected a number such as 0, got {text!r} (a path or URL: --source)"
        )
    return int(text)


def _body(args: argparse.Namespace) -> None:
    if args.check:
        _check(args)
        return
    spec = args.source if args.camera is None else args.camera
    _refuse_overwriting(spec, [args.save, args.json])
    painter = _Painter()
    source = open_source(spec)
    try:
        still = (
            not source.live and Path(str(spec)).suffix.lower() in IMAGE_SUFFIXES and Path(str(spec)).is_file()
        )
        save, notice, window = args.save, "", None
        if not args.headless:
            shown, why = display_available()
            if shown:
                window = Preview(f"edge_kp {source.name}", painter, any_key=still)
            elif save is None:
                save = Path("out", _stem(source, spec) + (".png" if still else ".mp4"))
                notice = f"{why}: saving to {save} instead"
                _refuse_overwriting(spec, [save])
            else:
                notice = f"{why}: only saving to {save}"
        sinks = _sinks(save, args.json, painter, source, still, create_parent=save is not args.save)
    except BaseException:
        source.close()
        raise

    @contextmanager
    def worker() -> Iterator[Worker]:
        with _detector(args) as detector:
            painter.schema, painter.label = detector.schema, f"{detector.model_name} {detector.backend_name}"
            width, height = source.size
            rate = f" {source.fps:.4g} fps" if source.fps and not still else ""
            status.line(
                f"model {detector.model_name} | backend {detector.backend_name} {detector.precision} on "
                f"{detector.device} | source {source.name} {width}x{height}{rate}"
            )
            if notice:
                status.line(notice)
            yield _worker(detector, args, still)

    status = _Status()
    pipeline = Pipeline(
        source,
        worker,
        sinks,
        window=window,
        hold=still,
        max_frames=args.max_frames,
        on_tick=lambda summary: status.update(_live_line(summary)) if summary.frames else None,
    )
    reason = ""
    try:
        reason = pipeline.run()
    finally:
        summary = pipeline.stats.summary()
        if summary.frames:
            status.line(_last_line(summary, source, sinks))
    if reason == "signal" and not source.live:
        raise KeyboardInterrupt  # a file is not done yet, and a script should see that; a camera never is


def _detector(args: argparse.Namespace) -> Detector:
    return Detector(
        args.model,
        backend=args.backend,
        precision=args.precision,
        cascade=args.cascade,
        threads=args.threads,
    )


def _check(args: argparse.Namespace) -> None:
    """Raises: BackendError: this device computes something else."""
    with _detector(args) as detector:
        rows = detector.check()
        what = f"{detector.model_name} {detector.precision} in {detector.backend_name} on {detector.device}"
    print(table(rows))
    if not all(row.passed for row in rows):
        raise BackendError(f"{what} does not give what the model was exported with; try another --backend")
    print(f"{what} gives what the model was exported with")


def _worker(detector: Detector, args: argparse.Namespace, still: bool) -> Worker:
    if args.track == "off" or still:
        return EachFrame(detector, args.max_objects)
    return Tracker(
        detector, args.max_objects or MAX_OBJECTS, args.locate_every, track=args.track, smooth=args.smooth
    )


class _Painter:
    """Draws results once the model, and with it the schema, is known."""

    def __init__(self) -> None:
        self.schema: KeypointSchema | None = None
        self.label = ""

    def __call__(self, result: Result) -> Array:
        assert self.schema is not None, "no result comes before the model is loaded"
        text = f"{self.label}  {result.timings['total'] * 1000:.0f} ms"
        return draw_detections(result.frame.image, result.detections, self.schema, text=text)


class _Status:
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


def _sinks(
    save: Path | None, json: Path | None, draw: Draw, source: Source, still: bool, create_parent: bool
) -> list[FileSink]:
    sinks: list[FileSink] = []
    if save is not None and still and save.suffix.lower() in IMAGE_SUFFIXES:
        sinks.append(ImageSink(save, draw, create_parent=create_parent))
    elif save is not None:
        sinks.append(VideoSink(save, draw, fps=source.fps, live=source.live, create_parent=create_parent))
    if json is not None:
        sinks.append(JsonlSink(json))
    return sinks


def _refuse_overwriting(spec: str | int, outputs: Sequence[Path | None]) -> None:
    """Raises: SinkError: an output is an input, or both outputs are one file."""
    paths = [path for path in outputs if path is not None]
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise SinkError(f"{paths[0]}: --save and --json name the same file: choose two")
    for path in paths:
        if path.exists() and any(path.samefile(file) for file in input_files(spec)):
            raise SinkError(f"{path}: this is the source itself: choose another file to write to")


def _stem(source: Source, spec: str | int) -> str:
    """A file name without suffix: astronaut.mp4 → astronaut, rtsp://10.0.0.2/a → rtsp-10.0.0.2-a."""
    is_file = Path(str(spec)).is_file()
    name = Path(source.name).stem if is_file else source.name
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "result"


def _live_line(summary: Summary) -> str:
    """What matters most comes first: a narrow terminal cuts the end off."""
    unsaved = sum(summary.sink_dropped.values())
    dropped = f"dropped {summary.dropped}" + (f", unsaved {unsaved}" if unsaved else "")
    times = dict(summary.stages)
    if summary.age is not None:
        times = {"age": summary.age, **times}
    spreads = "  ".join(f"{name} {spread.p50:.1f}/{spread.p95:.1f}" for name, spread in times.items())
    return f"{summary.fps:.1f} fps | {dropped} | p50/p95 ms: {spreads}"


def _ms(spread: Spread) -> str:
    return f"{spread.p50:.1f}/{spread.p95:.1f} ms"


def _last_line(summary: Summary, source: Source, sinks: Sequence[FileSink]) -> str:
    frames = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
    parts = [f"{frames} in {summary.elapsed_s:.1f} s ({summary.mean_fps:.1f} fps)"]
    parts.append(f"objects in {summary.with_objects}")
    if "total" in summary.stages:
        parts.append(f"p50/p95 total {_ms(summary.stages['total'])}")
    if "locate" in summary.stages:
        parts.append(f"searched {summary.searches} frames for {_ms(summary.stages['locate'])} each")
    if summary.age is not None:
        parts.append(f"age {_ms(summary.age)}")
    if source.live:
        parts.append(f"{summary.dropped} dropped")
    if source.skipped:
        parts.append(f"{source.skipped} damaged skipped")
    parts += [f"{count} not saved to {name}" for name, count in summary.sink_dropped.items()]
    written = [sink.name for sink in sinks if sink.written]
    if written:
        parts.append(f"wrote {', '.join(written)}")
    return "done: " + " | ".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_cli(_body, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
