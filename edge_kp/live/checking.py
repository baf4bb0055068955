"""``--check``: try everything that a run would use, and say of each part whether it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_kp.detector import Detector
from edge_kp.errors import BackendError, EdgeKpError, SinkError
from edge_kp.files import IMAGE_SUFFIXES
from edge_kp.live.frames import CaptureOptions
from edge_kp.live.mqtt import MqttSink
from edge_kp.live.outputs import Outputs, Painter, open_outputs, refuse_overwriting
from edge_kp.live.pictures import is_picture
from edge_kp.live.sinks import VIDEO_SUFFIXES, check_output
from edge_kp.live.source import open_source, short_name
from edge_kp.live.statistics import Summary
from edge_kp.parity import table

FRAMES = 10  # read from each source
BROKER_S = 5.0  # for a connection to an MQTT broker


def check(
    detector: Callable[[], Detector],
    specs: Sequence[str | int],
    options: CaptureOptions,
    wanted: Outputs,
) -> None:
    """Print a line for model, sources and outputs each.

    Nothing is written, and nothing that exists is touched.

    Raises:
        BackendError: something would fail; every problem on a line of its own.
    """
    problems: list[str] = []

    def tried(what: Callable[[], str | None]) -> bool:
        try:
            if said := what():
                print(f"ok      {said}")
        except EdgeKpError as error:
            problems.extend(str(error).splitlines())
            print(f"FAILS   {error}")
            return False
        return True

    tried(lambda: _networks(detector))
    there = True
    for spec in specs:
        there &= tried(lambda spec=spec: _source(spec, options))  # type: ignore[misc]
    if wanted.mqtt:
        tried(lambda: _broker(wanted.mqtt or ""))
    tried(lambda: refuse_overwriting(specs, wanted))
    for output in _each(wanted):
        # How a video is written depends on its source; the other outputs can be tried without.
        needed = specs if there and output.save is not None else ()
        tried(lambda output=output, needed=needed: _output(needed, options, output))  # type: ignore[misc]
    if problems:
        raise BackendError("\n".join(problems))


def _networks(make: Callable[[], Detector]) -> str:
    """
    Raises:
        EdgeKpError: the model cannot be loaded, or this device computes something else than it should.
    """
    with make() as detector:
        rows = detector.check()
        what = f"{detector.model_name} {detector.precision} in {detector.backend_name} on {detector.device}"
    print(table(rows))
    if not all(row.passed for row in rows):
        raise BackendError(f"{what} does not give what the model was exported with; try another --backend")
    return f"{what} gives what the model was exported with"


def _source(spec: str | int, options: CaptureOptions) -> str:
    source = open_source(spec, options)
    try:
        width, height = source.size
        start = time.perf_counter()
        count = 0
        while count < FRAMES and source.read() is not None:
            count += 1
        seconds = time.perf_counter() - start
    finally:
        source.close()
    rate = f" ({count / seconds:.3g} fps)" if source.live else ""
    return f"{short_name(str(spec))}: {count} frames of {width}x{height} in {seconds:.2f} s{rate}"


def _broker(url: str) -> str:
    """
    Raises:
        SinkError: no such address, or no broker that lets us in.
    """
    # The topic itself may be in use, and holds what was said last of its status.
    sink = MqttSink(url, below="check")
    try:
        end = time.monotonic() + BROKER_S
        while not sink.connected:
            if time.monotonic() > end:
                raise SinkError(f"{sink.name}: no connection within {BROKER_S:g} s: is the broker on?")
            time.sleep(0.02)
    finally:
        sink.close()
    return f"{sink.name}: connected"


def _each(wanted: Outputs) -> list[Outputs]:
    """Every output by itself, but for MQTT."""
    none = Outputs(bind=wanted.bind, record_to=wanted.record_to)
    kinds = ("save", "json", "csv", "udp", "serve")
    return [replace(none, **{kind: to}) for kind in kinds if (to := getattr(wanted, kind)) is not None]


def _output(specs: Sequence[str | int], options: CaptureOptions, wanted: Outputs) -> str:
    if not specs and wanted.save is not None:  # what there will be of which kind, the sources decide
        check_output(wanted.save, VIDEO_SUFFIXES | IMAGE_SUFFIXES)
    sources = [open_source(spec, options) for spec in specs]
    try:
        still = len(specs) == 1 and is_picture(specs[0])
        sinks = open_outputs(wanted, sources, Painter(), Summary, still=still)
        for sink in sinks:
            sink.close()
    finally:
        for source in sources:
            source.close()
    names = [str(wanted.save)] if not specs and wanted.save is not None else []
    return f"output: {', '.join([*names, *(sink.name for sink in sinks)])}"
