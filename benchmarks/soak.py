"""Does it run for weeks? ``python -m benchmarks.soak --minutes 30`` runs the loop while everything fails.

A network camera (another process) is read, inferred and written to files, UDP, an MQTT broker and the live
page, at full speed; every few seconds one of them fails, by a random choice from a seed: camera off, silent,
damaged frames, frames of another size, inference errors, a slow disk, broker killed, page clients that come
and go or stop reading. Told are memory, threads and open files over time, and whether every frame is
accounted for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import RESULTS, write_result
from benchmarks.soak_faults import (
    MOSQUITTO,
    SETTLING,
    Broker,
    Failing,
    Faults,
    SlowDisk,
    Usage,
    free_port,
    watch,
)
from edge_kp import Detector
from edge_kp.cli import natural, number, run_cli
from edge_kp.errors import BackendError
from edge_kp.live.capture import STREAM_TIMEOUT_MS
from edge_kp.live.lasting import Lasting
from edge_kp.live.lines import JsonlSink
from edge_kp.live.memory import GiveBack, few_arenas
from edge_kp.live.mqtt import MqttSink
from edge_kp.live.outputs import Painter
from edge_kp.live.page import PageSink, Recording
from edge_kp.live.parts import Sink, Worker
from edge_kp.live.pipeline import Pipeline
from edge_kp.live.sinks import VideoSink
from edge_kp.live.source import open_source
from edge_kp.live.statistics import Statistics, Summary
from edge_kp.live.udp import UdpSink
from edge_kp.tracker import Tracker
from edge_kp.types import Array

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut.mp4"


def _kind(name: str) -> str:
    """An output without what differs from run to run: lines.jsonl, udp."""
    scheme, mark, _ = name.partition("://")
    return scheme if mark else Path(name).name


def _soak(args: argparse.Namespace, folder: Path, opened: ExitStack) -> tuple[dict[str, Any], Usage]:
    camera = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak_camera", str(CLIP), str(args.camera_fps)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    opened.callback(camera.wait)
    assert camera.stdin is not None
    assert camera.stdout is not None
    opened.callback(camera.stdin.close)
    url = f"http://127.0.0.1:{int(camera.stdout.readline())}/stream"

    def tell(text: str) -> None:
        assert camera.stdin is not None
        camera.stdin.write(f"{text}\n")
        camera.stdin.flush()

    again = partial(open_source, url)
    source = Lasting(again, again(), stall_s=2.5)
    stats, painter = Statistics(), Painter()
    slow = SlowDisk(folder / "lines.jsonl")
    video = VideoSink(folder / "video.mkv", painter, fps=args.camera_fps, live=True)
    recording = Recording(folder / "recorded", painter, [source])
    page = PageSink(0, painter, stats.summary, recording, sources=["camera"])
    page_port = int(page.url.rstrip("/").rsplit(":", 1)[1])
    udp = UdpSink(f"udp://127.0.0.1:{free_port()}")
    sinks: list[Sink] = [slow, video, recording, page, udp]
    workers: list[Failing] = []

    @contextmanager
    def worker() -> Iterator[Worker]:
        with Detector(args.model, threads=1) as detector:
            painter.schema, painter.label = detector.schema, detector.model_name
            workers.append(Failing(detector, [Tracker(detector)]))
            yield workers[0]

    kinds: dict[str, Callable[[np.random.Generator], None]] = {
        "camera off": lambda rng: tell(f"off {rng.uniform(0.5, 3):.2f}"),
        "camera silent": lambda rng: tell(f"stall {rng.uniform(1, 6):.2f}"),
        "damaged frames": lambda rng: tell(f"corrupt {rng.integers(1, 20)}"),
        "another size": lambda rng: tell(rng.choice(["resize 320 240", "resize 640 480"])),
        "inference error": lambda rng: setattr(workers[0], "failures", int(rng.integers(1, 6))),
        "slow disk": lambda rng: setattr(slow, "slow_until", time.monotonic() + rng.uniform(0.5, 3)),
        "page client": lambda rng: watch(page_port, rng.uniform(0.2, 2), bool(rng.random() < 0.5)),
    }
    mqtt = None
    if MOSQUITTO is not None:
        broker = Broker(folder)
        opened.callback(broker.close)
        mqtt = MqttSink(f"mqtt://127.0.0.1:{broker.port}/soak")
        sinks.append(mqtt)
        kinds["broker killed"] = lambda rng: broker.off(rng.uniform(0.2, 3))

    usage, faults, give_back = Usage(), Faults(args.seed, kinds), GiveBack()
    end = time.monotonic() + 60 * args.minutes

    def tick(summary: Summary) -> None:
        give_back()
        usage.note()
        if summary.frames and faults.ident is None:
            faults.start()
        if time.monotonic() > end:
            faults.stopping.set()
            pipeline.stop()
        done = max(0.0, 1 - (end - time.monotonic()) / (60 * args.minutes))
        rows = usage.rows[-1]
        print(f"\r{100 * done:5.1f} % {summary.fps:6.1f} fps {rows[1]:7.1f} MB {rows[2]} threads"
              f" {rows[3]} files, faults {sum(faults.done.values())} ", end="", file=sys.stderr)  # fmt: skip

    pipeline = Pipeline([source], worker, sinks, stats=stats, on_tick=tick)
    try:
        pipeline.run()
    finally:  # before the broker is closed: a fault would start it again
        faults.stopping.set()
        if faults.ident is not None:
            faults.join(10)
    print(file=sys.stderr)
    summary = stats.summary()
    figures = {
        "minutes": args.minutes,
        "seed": args.seed,
        "camera_fps": args.camera_fps,
        "model": args.model,
        "faults": dict(sorted(faults.done.items())),
        "camera_came_back": source.returns,
        "damaged_skipped": source.skipped,
        "frames": {
            "captured": summary.captured,
            "inferred": summary.frames,
            "dropped": summary.dropped,
            "failed": summary.failed,
        },
        "mean_fps": round(summary.mean_fps, 1),
        "delivered": {_kind(name): count for name, count in summary.delivered.items()},
        "missed": {_kind(name): count for name, count in summary.sink_dropped.items()},
        "mqtt": None if mqtt is None else {"sent": mqtt.written, "lost": mqtt.lost},
        **usage.figures(),
    }
    figures["problems"] = _problems(summary, sinks, slow, mqtt, folder)
    if camera.poll() is not None:
        figures["problems"].append("the camera, which only acts ill, has died")
    if faults.ident is not None and not faults.finished:
        figures["problems"].append("what makes parts fail has failed itself: see its traceback")
    return figures, usage


def _problems(
    summary: Summary, sinks: Sequence[Sink], lines: JsonlSink, mqtt: MqttSink | None, folder: Path
) -> list[str]:
    """What does not add up; empty where all does."""
    found = []
    if summary.captured != summary.frames + summary.dropped + summary.failed:
        found.append("captured frames are not those inferred, dropped and failed")
    for sink in sinks:
        told = summary.delivered.get(sink.name, 0) + summary.sink_dropped.get(sink.name, 0)
        if told != summary.frames:
            found.append(f"{sink.name}: {told} results of {summary.frames}")
    text = (folder / "lines.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    if not text.endswith("\n") or {len(records), lines.written} != {summary.delivered.get(lines.name, 0)}:
        found.append(f"{len(records)} lines on disk, {lines.written} written")
    if mqtt is not None and mqtt.written + mqtt.lost != summary.delivered.get(mqtt.name, 0):
        found.append(
            f"MQTT: {mqtt.written} sent and {mqtt.lost} lost of {summary.delivered.get(mqtt.name, 0)}"
        )
    clip = cv2.VideoCapture(str(folder / "video.mkv"))
    if not clip.isOpened() or not clip.read()[0]:
        found.append("the video cannot be played")
    # A read from a stream that has just fallen silent is not waited for, and ends with FFmpeg's patience.
    given_up = time.monotonic() + STREAM_TIMEOUT_MS / 1000 + 2
    threads = [t for t in threading.enumerate() if t.name.startswith("edge_kp")]
    for thread in threads:
        thread.join(max(0.0, given_up - time.monotonic()))
    if left := [t.name for t in threads if t.is_alive()]:
        found.append(f"threads left: {', '.join(left)}")
    return found


def _plot(usage: Usage, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = np.array(usage.rows)
    minutes: Array = rows[:, 0] / 60
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(9, 6), layout="constrained")
    for axis, column, title in zip(axes, (1, 2, 3), ("memory, MB", "threads", "open files"), strict=True):
        axis.plot(minutes, rows[:, column], linewidth=0.8)
        axis.set_ylabel(title)
        axis.set_ylim(0, 1.15 * rows[:, column].max())
        axis.axvspan(0, minutes[-1] * SETTLING, color="0.92")
    axes[-1].set_xlabel("minutes (grey: settling)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _run(args: argparse.Namespace) -> None:
    few_arenas()  # as edge_kp.run does
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as opened:
        figures, usage = _soak(args, Path(temporary), opened)
    args.out.mkdir(parents=True, exist_ok=True)
    _plot(usage, args.out / "soak.png")
    write_result("soak", figures, args.out, ("openvino", "aiohttp", "paho-mqtt"))
    frames = figures["frames"]
    print(
        f"{frames['captured']} frames captured: {frames['inferred']} inferred, {frames['dropped']} dropped,"
        f" {frames['failed']} failed; memory {figures['memory_growth_mb']:+.1f} MB after settling"
    )
    if figures["problems"]:
        raise BackendError("\n".join(figures["problems"]))
    print("every frame is accounted for")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=number(0.05, 1e5), default=30.0)
    parser.add_argument(
        "--camera-fps",
        type=number(1, 1000),
        default=400.0,
        help="faster than inference, so that it runs at full speed (default 400)",
    )
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--model", default="face68")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    return run_cli(_run, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
