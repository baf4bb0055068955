"""``python -m edge_kp.run``: keypoints of cameras, clips, pictures or streams; shown, saved, sent, or all."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from edge_kp.backends import BACKENDS, PRECISIONS, choose_backend
from edge_kp.cli import leave, number, positive, program, run_cli
from edge_kp.config import with_config
from edge_kp.detector import CASCADES, Detector
from edge_kp.each_frame import EachFrame
from edge_kp.live.checking import check
from edge_kp.live.csv_sink import CsvSink
from edge_kp.live.following import Follower, Together, decoding_threads, share_cores
from edge_kp.live.frames import CaptureOptions, Source
from edge_kp.live.lines import JsonlSink
from edge_kp.live.memory import GiveBack, few_arenas
from edge_kp.live.mqtt import MqttSink
from edge_kp.live.outputs import Outputs, Painter, open_outputs, refuse_overwriting
from edge_kp.live.page import PageSink
from edge_kp.live.parts import Worker
from edge_kp.live.pictures import is_picture
from edge_kp.live.pipeline import Pipeline
from edge_kp.live.preview import Preview, display_available
from edge_kp.live.sinks import ImageSink, VideoSink
from edge_kp.live.source import open_lasting
from edge_kp.live.statistics import Statistics, Summary
from edge_kp.live.status import Status, last_line, live_line
from edge_kp.live.udp import UdpSink
from edge_kp.locator import MOST_TILES
from edge_kp.smoothing import SMOOTHING
from edge_kp.tracker import LOCATE_EVERY, MAX_OBJECTS, TRACK, Tracker

FILE_SINKS = (VideoSink, ImageSink, JsonlSink, CsvSink)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program("run"),
        description="Find keypoints in live video. q or Esc in the window, or Ctrl-C, ends the run.",
    )
    source = parser.add_argument_group("source").add_argument
    source("--camera", type=_index, action="append", metavar="N", help="index of a camera, usually 0")
    source(
        "--source",
        action="append",
        metavar="WHAT",
        help="video file, picture, folder or pattern of pictures, /dev/videoN, URL, csi://N or GStreamer"
        " pipeline; given again, several are followed at once",
    )
    source("--width", type=positive, metavar="PX", help="ask the camera for pictures so wide")
    source("--height", type=positive, metavar="PX", help="and so high")
    source("--fps", type=number(0.1, 1000), metavar="F", help="and so many a second")
    source(
        "--rotate", type=int, choices=(0, 90, 180, 270), default=0, help="turn pictures clockwise, degrees"
    )
    source("--mirror", action="store_true", help="exchange left and right")
    source(
        "--give-up",
        type=number(0, 1e9),
        metavar="S",
        help="end when a camera or stream has been gone for S seconds (default: wait until it is back)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="try the networks, and the sources and outputs named, say what would fail, and end",
    )
    parser.add_argument(
        "--config", type=Path, metavar="RUN.toml", help="settings by the names of these flags, which win"
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
    parser.add_argument(
        "--tiles",
        type=int,
        choices=range(1, MOST_TILES + 1),
        default=1,
        help="for objects that are small in the frame: search N overlapping squares along its longer side as"
        " well, each of which takes as long as the whole frame (default 1: the whole frame alone)",
    )
    output = parser.add_argument_group("output").add_argument
    output("--headless", action="store_true", help="no window")
    output(
        "--save",
        type=Path,
        metavar="OUT.mp4",
        help="write a video with the keypoints drawn in (for a picture: out.png; for several sources"
        " out-0.mp4, out-1.mp4, …); an existing file is replaced",
    )
    replaced = "an existing file is replaced"
    output("--json", type=Path, metavar="OUT.jsonl", help=f"write one line of JSON per frame; {replaced}")
    output("--csv", type=Path, metavar="OUT.csv", help=f"write one row per object and frame; {replaced}")
    output("--udp", metavar="udp://HOST:PORT", help="send each frame's JSON as a datagram")
    output("--mqtt", metavar="mqtt://[USER:PASSWORD@]HOST/TOPIC", help="publish each frame's JSON")
    output("--serve", type=_port, metavar="PORT", help="live page in the browser, with a record button")
    output(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="who may open the page (default: this machine alone; 0.0.0.0: everybody who reaches it)",
    )
    output(
        "--record-to",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="where the page records to (default out)",
    )
    output("--max-frames", type=positive, metavar="N", help="end after N frames")
    return parser


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(
            f"expected a number such as 0, got {text!r} (a path or URL: --source)"
        )
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, such as 8080, got {text!r}")
    return int(text)


def _specs(args: argparse.Namespace) -> list[str | int]:
    return [*(args.camera or []), *(args.source or [])]


def _capture_options(args: argparse.Namespace) -> CaptureOptions:
    threads = decoding_threads(len(_specs(args)))
    return CaptureOptions(args.width, args.height, args.fps, args.rotate, args.mirror, threads)


def _outputs(args: argparse.Namespace) -> Outputs:
    return Outputs(args.save, args.json, args.csv, args.udp, args.mqtt, args.serve, args.bind, args.record_to)


def _body(args: argparse.Namespace) -> None:
    if args.check:
        check(
            partial(_detector, args, args.backend, args.threads),
            _specs(args),
            _capture_options(args),
            _outputs(args),
        )
        return
    few_arenas()
    with ExitStack() as opened:
        _run(args, opened)


def _run(args: argparse.Namespace, opened: ExitStack) -> None:
    """Open all, run, close; until the run owns the sources, ``opened`` closes them."""
    specs, wanted = _specs(args), _outputs(args)
    refuse_overwriting(specs, wanted)
    painter, status, stats = Painter(), Status(), Statistics()
    sources: list[Source] = []
    for spec in specs:
        source = open_lasting(spec, _capture_options(args), args.give_up)
        opened.callback(source.close)
        sources.append(source)
    still = len(specs) == 1 and not sources[0].live and is_picture(specs[0])
    window, notice = None, ""
    if not args.headless:
        shown, why = display_available()
        if shown:
            titles = [f"edge_kp {name}" for name in _different([source.name for source in sources])]
            window = Preview(titles, painter, any_key=still)
        elif wanted == Outputs(bind=wanted.bind, record_to=wanted.record_to):
            wanted = replace(
                wanted, save=Path("out", _stem(sources[0], specs[0]) + (".png" if still else ".mp4"))
            )
            notice = f"{why}: saving to {wanted.save} instead"
            refuse_overwriting(specs, wanted)
        else:
            saving = f"only saving to {wanted.save}" if wanted.save is not None else "no window"
            notice = f"{why}: {saving}"
    sinks = open_outputs(
        wanted,
        sources,
        painter,
        stats.summary,
        still=still,
        create_parent=wanted.save is not args.save,
    )

    backend = choose_backend(args.backend)  # once, for the warnings that it may give
    lanes, threads = share_cores(backend, len(sources), args.threads)
    opened_networks = count()

    @contextmanager
    def worker() -> Iterator[Worker]:
        with _detector(args, backend, threads) as detector:
            if next(opened_networks) == 0:
                painter.schema = detector.schema
                painter.label = f"{detector.model_name} {detector.backend_name}"
                status.line(
                    f"model {detector.model_name} | backend {detector.backend_name} {detector.precision} on "
                    f"{detector.device} | source {', '.join(_told(source, still) for source in sources)}"
                )
                for line in (notice, *(f"live page: {s.url}" for s in sinks if isinstance(s, PageSink))):
                    if line:
                        status.line(line)
            yield Together(detector, [_follower(detector, args, still) for _ in sources])

    give_back = GiveBack()

    def tick(summary: Summary) -> None:
        give_back()
        if summary.frames:
            status.update(live_line(summary))

    pipeline = Pipeline(
        sources,
        worker,
        sinks,
        lanes=lanes,
        stats=stats,
        window=window,
        hold=still,
        max_frames=args.max_frames,
        on_tick=tick,
    )
    opened.pop_all()  # each is closed in its own thread from here on
    reason = ""
    try:
        reason = pipeline.run()
    finally:
        summary = stats.summary()
        if summary.frames:
            files = [sink.name for sink in sinks if isinstance(sink, FILE_SINKS) and sink.written]
            lost = {sink.name: sink.lost for sink in sinks if isinstance(sink, (UdpSink, MqttSink))}
            status.line(last_line(summary, sources, files, lost))
    if reason == "signal" and not any(source.live for source in sources):
        raise KeyboardInterrupt  # a file is not done yet, and a script should see that; a camera never is


def _detector(args: argparse.Namespace, backend: str, threads: int | None) -> Detector:
    return Detector(
        args.model,
        backend=backend,
        precision=args.precision,
        cascade=args.cascade,
        threads=threads,
        tiles=args.tiles,
    )


def _follower(detector: Detector, args: argparse.Namespace, still: bool) -> Follower:
    if args.track == "off" or still:
        return EachFrame(detector, args.max_objects)
    return Tracker(
        detector, args.max_objects or MAX_OBJECTS, args.locate_every, track=args.track, smooth=args.smooth
    )


def _told(source: Source, still: bool) -> str:
    width, height = source.size
    rate = f" {source.fps:.4g} fps" if source.fps and not still else ""
    return f"{source.name} {width}x{height}{rate}"


def _different(names: Sequence[str]) -> list[str]:
    """Names of windows: two of the same would be one window."""
    return [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names)]


def _stem(source: Source, spec: str | int) -> str:
    """A file name without suffix: astronaut.mp4 → astronaut, rtsp://10.0.0.2/a → rtsp-10.0.0.2-a."""
    is_file = Path(str(spec)).is_file()
    name = Path(source.name).stem if is_file else source.name
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "result"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = _parser()

    def settle(args: argparse.Namespace) -> argparse.Namespace:
        if args.config is not None:
            args = with_config(args, parser, argv)
        if args.camera and args.source:
            parser.error(
                "--camera and --source: name several sources by --source alone (camera 0: --source 0)"
            )
        if not (args.camera or args.source or args.check):
            parser.error("one of --camera, --source and --check is needed")
        return args

    return run_cli(_body, parser, argv, settle)


if __name__ == "__main__":
    leave(main())
