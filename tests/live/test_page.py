"""The live page: what it serves, whom it refuses, and that no client can hold up the run."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the page needs aiohttp")

from page_client import (
    OWN,
    WAIT_S,
    Button,
    ask,
    detection,
    indices_of,
    levels_of,
    pages,
    plain,
    port_of,
    result,
    state,
    until,
)

import edge_kp.live.page.encoding as encoding_module
import edge_kp.live.page.server as server_module
from edge_kp.errors import SinkError
from edge_kp.live.page import PageSink, Recording
from edge_kp.live.pipeline import Pipeline
from edge_kp.live.statistics import Statistics, Summary
from edge_kp.types import Detection, HeadPose

linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")


@pytest.fixture
def serve():
    with pages() as make:
        yield make


class Watcher:
    """A client of a stream, that reads pictures one by one."""

    def __init__(self, page, source=0):
        self._wire = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=WAIT_S)
        self._wire.request("GET", f"/stream/{source}")
        self._answer = self._wire.getresponse()
        assert self._answer.status == 200
        assert self._answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=picture"
        assert self._answer.readline() == b"--picture\r\n"

    def picture(self):
        head = http.client.parse_headers(self._answer)
        assert head["Content-Type"] == "image/jpeg"
        data = self._answer.read(int(head["Content-Length"]))
        assert self._answer.readline() + self._answer.readline() == b"\r\n--picture\r\n"
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return image

    def level(self):
        return round(self.picture().mean())

    def close(self):
        self._answer.close()
        self._wire.close()


def deaf(page, path="/stream/0"):
    """A client that asks for a stream and reads nothing of it."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect(("127.0.0.1", port_of(page)))
    wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return wire


def noise(index):
    image = np.random.default_rng(index).integers(0, 255, (480, 640, 3), np.uint8)
    return result(index, image=image)


# Pictures


def test_a_stream_gives_the_newest_picture(serve):
    page = serve()
    for i in range(200):
        page.write(result(i))
    with contextlib.closing(Watcher(page)) as watcher:
        assert watcher.level() == pytest.approx(199, abs=2)
        page.write(result(1, level=20))
        assert watcher.level() == pytest.approx(20, abs=2)
    assert ask(page, "/picture/0.jpg")[1]["Content-Type"] == "image/jpeg"


def test_a_stream_waits_for_the_first_frame(serve):
    page = serve()
    assert ask(page, "/picture/0.jpg")[0] == 503
    with contextlib.closing(Watcher(page)) as watcher:
        page.write(result(0, level=77))
        assert watcher.level() == pytest.approx(77, abs=2)


def test_each_source_has_a_stream_of_its_own(serve):
    page = serve(sources=("door", "yard"))
    page.write(result(0, level=50, source=0))
    page.write(result(0, level=150, source=1))
    for source, level in ((0, 50), (1, 150)):
        with contextlib.closing(Watcher(page, source)) as watcher:
            assert watcher.level() == pytest.approx(level, abs=2)
    assert [source["name"] for source in state(page)["sources"]] == ["door", "yard"]
    assert ask(page, "/stream/2")[0] == 404
    with pytest.raises(ValueError, match="expected less than 2, got 2"):
        page.write(result(0, source=2))


def test_pictures_are_made_only_while_somebody_watches_and_once_for_all(serve):
    drawn = []

    def draw(result):
        drawn.append(result.frame.index)
        return result.frame.image

    page = serve(draw)
    for i in range(50):
        page.write(result(i))
    assert state(page)["sources"][0]["frame"] == 49
    assert drawn == []
    watchers = [Watcher(page) for _ in range(3)]
    for i in range(50, 55):
        page.write(result(i))
        for watcher in watchers:
            # One that came while frame 49 was shown gets that first; the newest comes next.
            until(lambda w=watcher, i=i: w.level() == pytest.approx(i, abs=1), f"frame {i}")
    assert len(drawn) == len(set(drawn))
    for watcher in watchers:
        watcher.close()
    last = drawn[-1]
    page.write(result(60))
    page.write(result(61))
    assert state(page)["sources"][0]["frame"] == 61
    assert drawn[-1] in (last, 60, 61)  # a client is missed a moment later
    assert len(drawn) <= 10


def test_large_pictures_are_made_smaller(serve):
    page = serve()
    page.write(result(0, image=np.full((400, 4000, 3), 90, np.uint8)))
    with contextlib.closing(Watcher(page)) as watcher:
        assert watcher.picture().shape == (192, encoding_module.LONGEST_SIDE, 3)


def test_an_error_while_drawing_ends_the_run(serve):
    def draw(_result):
        raise ValueError("no such keypoint")

    page = serve(draw)
    page.write(result(0))
    assert ask(page, "/picture/0.jpg")[0] == 500

    def fails():
        try:
            page.write(result(1))
        except ValueError as error:
            return str(error)
        return None

    assert until(fails, "the error") == "no such keypoint"


# Clients that are slow, dead, or many


def test_a_client_that_never_reads_holds_up_nobody_and_costs_little(serve):
    drawn = []

    def draw(result):
        drawn.append(result.frame.index)
        return result.frame.image

    page = serve(draw)
    with contextlib.closing(deaf(page)):
        for i in range(100):
            page.write(noise(i))
            time.sleep(0.02)
        # Pictures are made for a client when it has taken the one before, so few were made for this one.
        assert 0 < len(drawn) < 20
        with contextlib.closing(Watcher(page)) as watcher:
            for i in range(100, 110):
                page.write(result(i))
                until(lambda i=i: watcher.level() == pytest.approx(i, abs=1), f"frame {i}")


def open_files():
    return len(os.listdir("/proc/self/fd"))


@linux
def test_a_client_that_takes_in_nothing_is_cut_off(serve, monkeypatch):
    monkeypatch.setattr(server_module, "STALLED_S", 0.3)
    page = serve()
    before = open_files()
    with contextlib.closing(deaf(page)) as wire:
        until(lambda: open_files() == before + 2, "both ends of the connection")

        def cut():
            page.write(noise(0))
            time.sleep(0.05)
            return open_files() == before + 1

        until(cut, "the stalled client to be cut off")
        wire.settimeout(WAIT_S)
        with contextlib.suppress(ConnectionError):
            while wire.recv(65536):
                pass


def test_too_many_streams_are_refused(serve, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_STREAMS", 2)
    page = serve()
    watchers = [Watcher(page) for _ in range(2)]
    assert ask(page, "/stream/0")[0] == 503
    watchers.pop().close()
    until(lambda: open_again(page), "room for another client")
    watchers.pop().close()


def open_again(page):
    try:
        Watcher(page).close()
    except AssertionError:
        return False
    return True


def tasks_of(page):
    """How many tasks the loop of the page has, asked inside it."""
    count = Future()
    loop = page._server._loop
    loop.call_soon_threadsafe(lambda: count.set_result(len(asyncio.all_tasks(loop))))
    return count.result(WAIT_S)


@linux
def test_clients_that_come_and_go_leave_nothing_behind(serve, capfd):
    page = serve()
    page.write(result(0))
    Watcher(page).close()
    state(page)

    def counts():
        return tasks_of(page), threading.active_count(), open_files()

    before = until(lambda: (c := counts())[0] == 2 and c, "the first client to be gone")  # main and ticker
    for i in range(150):
        page.write(result(i))
        if i % 3 == 0:
            deaf(page).close()
        elif i % 3 == 1:
            watcher = Watcher(page)
            watcher.picture()
            watcher.close()
        else:
            state(page)
    until(lambda: counts() == before, f"{counts()} to come back to {before}")
    assert capfd.readouterr().err == ""


def test_nonsense_is_answered_without_a_word_in_the_terminal(serve, capfd):
    page = serve()
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo",
    ):
        with contextlib.closing(socket.create_connection(("127.0.0.1", port_of(page)))) as wire:
            wire.sendall(nonsense)
    assert state(page)["sources"]
    assert ask(page, "/state?since=x&run=y")[0] == 200
    assert ask(page, "/nothing")[0] == 404
    assert capfd.readouterr().err == ""


def test_close_ends_with_clients_connected_and_frees_the_port(serve):
    page = serve()
    page.write(noise(0))
    wires = [deaf(page) for _ in range(5)]
    watchers = [Watcher(page) for _ in range(5)]
    began = time.monotonic()
    page.close()
    assert time.monotonic() - began < 10  # a second as it is; waiting for clients would be a minute
    page.close()
    page.write(result(1))  # what was on its way is not an error
    until(lambda: not any(t.name == "edge_kp page" for t in threading.enumerate()), "the page to end")
    for wire in wires:
        wire.close()
    for watcher in watchers:
        watcher.close()
    assert port_of(serve(port=port_of(page))) == port_of(page)


# What is said about the run


def test_the_state_tells_objects_figures_and_counts(serve):
    stats = Statistics()
    page = serve(summary=stats.summary, sources=("camera0",))
    first = state(page)
    assert first["sources"] == [
        {"name": "camera0", "frame": None, "size": None, "quiet_s": None, "objects": []}
    ]
    assert (first["recording"], first["points"], first["summary"]["frames"]) == (None, [], 0)
    one = result(7, found=[detection(pose=HeadPose(12.34, -5.0, 0.0)), detection(4)])
    stats.add(one, live=True)
    stats.capture(3, 2)
    stats.sink_drop("out.mp4", 5)
    page.write(one)
    told = state(page)
    source = told["sources"][0]
    assert (source["frame"], source["size"]) == (7, [64, 48])
    assert source["quiet_s"] >= 0
    assert source["objects"] == [
        {
            "id": 3,
            "score": 0.912,
            "visibility": 0.75,
            "pose": {"yaw": 12.3, "pitch": -5.0, "roll": 0.0},
            "attributes": {"occlusion": 0.25},
        },
        {"id": 4, "score": 0.912, "visibility": 0.75, "pose": None, "attributes": {"occlusion": 0.25}},
    ]
    summary = told["summary"]
    assert (summary["frames"], summary["with_objects"], summary["dropped"]) == (1, 1, 2)
    assert summary["unsaved"] == {"out.mp4": 5}
    assert summary["stages"] == {"total": [20.0, 20.0]}
    assert len(summary["age"]) == 2


def test_curves_are_told_once_to_each_page(serve):
    stats = Statistics()
    page = serve(summary=stats.summary)
    stats.add(result(0), live=False)
    points = until(lambda: state(page)["points"], "a point")
    number, seconds, fps, p50, p95, age50, age95 = points[0]
    assert (number, p50, p95, age50, age95) == (1, 20.0, 20.0, None, None)
    assert seconds >= 0
    assert fps > 0
    run = state(page)["run"]
    assert all(point[0] > 1 for point in state(page, f"?since=1&run={run}")["points"])
    # A page that outlived another run of the program gets all of this one.
    assert state(page, "?since=999&run=older")["points"][0][0] == 1


def test_what_is_no_number_does_not_break_the_page(serve):
    broken = detection(pose=HeadPose(float("nan"), 0.0, 0.0))
    empty = Detection(1, broken.box, float("inf"), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    page = serve()
    page.write(result(0, found=[broken, empty]))
    body = ask(page, "/state")[2].decode()
    assert "NaN" not in body
    assert "Infinity" not in body
    first, second = json.loads(body)["sources"][0]["objects"]
    assert first["pose"]["yaw"] is None
    assert (second["score"], second["visibility"]) == (None, None)


# Who may do what


def test_every_answer_carries_the_security_headers(serve):
    page = serve(recorder=Button())
    for path in ("/", "/state", "/nothing", "/picture/0.jpg", "/favicon.ico"):
        headers = ask(page, path)[1]
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert not [name for name in headers if name.lower().startswith("access-control")]
    html = ask(page, "/")[2].decode()
    assert "<title>edge_kp</title>" in html
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)  # nothing from elsewhere


@pytest.mark.parametrize(
    "headers",
    [
        {},  # a plain form, or a script that may not set headers
        {"X-Edge-KP": "2"},
        {**OWN, "Origin": "http://evil.example"},
        {**OWN, "Origin": "null"},
        {**OWN, "Origin": "http://127.0.0.1:1"},
        {**OWN, "Origin": "https://127.0.0.1:PORT"},
        {**OWN, "Origin": "http://localhost:PORT"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        {**OWN, "Sec-Fetch-Site": "same-site"},
        {**OWN, "Host": "evil.example:PORT"},
        {**OWN, "Host": "evil.example:PORT", "Origin": "http://evil.example:PORT"},
    ],
    ids=str,
)
def test_other_sites_can_record_nothing(serve, headers):
    button = Button()
    page = serve(recorder=button)
    headers = {name: value.replace("PORT", str(port_of(page))) for name, value in headers.items()}
    for path in ("/record/start", "/record/stop"):
        for method in ("POST", "GET", "OPTIONS", "PUT"):
            status, answer, _ = ask(page, path, method, headers)
            assert status in ((403,) if method == "POST" else (403, 405))
            assert not [name for name in answer if name.lower().startswith("access-control")]
    assert button.told == []


def test_the_page_itself_can_record(serve):
    button = Button()
    page = serve(recorder=button)
    origin = page.url.rstrip("/")
    own = {**OWN, "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert state(page)["recording"] == {"file": None, "problem": None}
    status, _, body = ask(page, "/record/start", "POST", own)
    assert (status, json.loads(body)["file"]) == (200, "a.mp4")
    assert state(page)["recording"]["file"] == "a.mp4"
    assert ask(page, "/record/stop", "POST", OWN)[0] == 200  # a script on this machine has no origin
    assert button.told == ["start", "stop"]
    assert state(page)["recording"]["file"] is None


def test_what_the_recorder_refuses_is_told(serve):
    page = serve(recorder=Button(refuse="rec: permission denied: choose another folder"))
    status, _, body = ask(page, "/record/start", "POST", OWN)
    assert status == 409
    assert json.loads(body)["error"] == "rec: permission denied: choose another folder"
    assert ask(serve(), "/record/start", "POST", OWN)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:1@evil", "", "[::2]"])
def test_an_unknown_host_is_refused_on_the_loopback_address(serve, host):
    page = serve()
    page.write(result(0))
    for path in ("/", "/state", "/stream/0", "/picture/0.jpg"):
        status, _, body = ask(page, path, headers={"Host": host})
        assert status in (400, 403)
        assert b"camera" not in body


def test_names_of_this_machine_are_welcome(serve):
    page = serve()
    for host in ("localhost", "LocalHost:8080", "127.0.0.1", f"127.0.0.1:{port_of(page)}", "[::1]:8080"):
        assert ask(page, "/state", headers={"Host": host})[0] == 200, host


def test_a_page_for_the_network_takes_addresses_and_the_names_of_this_machine(serve, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Pi.example")
    monkeypatch.setattr(socket, "getfqdn", lambda: "pi.lab.example")
    page = serve(host="0.0.0.0")

    def status(host):
        return ask(page, "/state", headers={"Host": host})[0]

    for host in ("192.168.1.20:8080", "[fe80::1]:8080", "localhost", "PI", "pi.local:8080", "pi.example:80"):
        assert status(host) == 200, host
    until(lambda: status("pi.lab.example") == 200, "the full name")
    # A foreign site may have a host whose name begins like ours, and point it here.
    for host in ("pi.evil.example", "pi.local.evil.example", "pi.lab.example.evil", "evil.local", "."):
        assert status(host) == 403, host


def test_a_name_server_that_does_not_answer_keeps_nobody_waiting(serve, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getfqdn", lambda: answer.wait(WAIT_S) and "late.example")
    page = serve(host="0.0.0.0")
    assert ask(page, "/state", headers={"Host": socket.gethostname()})[0] == 200
    assert ask(page, "/state", headers={"Host": "late.example"})[0] == 403
    answer.set()
    until(lambda: ask(page, "/state", headers={"Host": "late.example"})[0] == 200, "the late answer")


# The port


def test_a_port_in_use_is_said_in_one_line_with_the_next_step(serve):
    page = serve()
    port = port_of(page)
    with pytest.raises(
        SinkError, match=rf"^port {port} is used .*: choose another --serve port.*{port + 1}$"
    ):
        PageSink(port, plain, Summary)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(SinkError, match="choose a --serve port from 1024 to 65535"):
        PageSink(port, plain, Summary)


def test_a_port_without_permission_is_said():
    code = (
        "import os, sys\n"
        "from edge_kp.live.page import PageSink\n"
        "from edge_kp.errors import SinkError\n"
        "import edge_kp.live.page.server\n"  # another user may not read this folder
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: PageSink(80, None, None).close()\n"
        "except SinkError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        pytest.skip("this system lets everybody use port 80")
    assert done.stdout.startswith("port 80: permission denied: choose a --serve port from 1024 up")


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(SinkError, match=r"no page on 192\.0\.2\.1 port 0"):
        PageSink(0, plain, Summary, host="192.0.2.1")


@pytest.mark.parametrize("host", ["kamera-küche..lan", "ü" * 70])
def test_a_name_that_no_host_can_have_is_refused_in_one_line(host):
    with pytest.raises(SinkError, match="no such host: check the name after --bind"):
        PageSink(0, plain, Summary, host=host)


def test_without_aiohttp_the_next_step_is_said():
    code = (
        "import sys\n"
        "sys.modules['aiohttp'] = None\n"
        "from edge_kp.live.page import PageSink\n"
        "PageSink(0, None, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith("needs aiohttp: pip install 'edge-kp[page]'")


# With the loop


class Endless:
    """A live source that goes on until it is stopped."""

    live, fps, size, name, skipped, returns = True, None, (64, 48), "endless", 0, 0

    def __init__(self):
        self._index, self._stopped = 0, threading.Event()

    def read(self):
        if self._stopped.wait(0.01):
            return None
        self._index += 1
        return result(self._index).frame

    def stop(self):
        self._stopped.set()

    def close(self):
        pass


def test_a_whole_run_with_page_and_recording(tmp_path, serve):
    class Worker:
        def update(self, frames):
            return [([detection()], {"stage1": 0.001}) for _ in frames]

    source = Endless()
    recording = Recording(tmp_path, plain, [source])
    stats = []
    page = serve(summary=lambda: stats[0].summary() if stats else Summary(), recorder=recording)
    pipeline = Pipeline([source], lambda: contextlib.nullcontext(Worker()), [page, recording])
    stats.append(pipeline.stats)
    run = threading.Thread(target=pipeline.run)
    run.start()
    wire = deaf(page)
    with contextlib.closing(Watcher(page)) as watcher:
        until(lambda: state(page)["summary"]["frames"] > 5, "frames")
        name = json.loads(ask(page, "/record/start", "POST", OWN)[2])["file"]
        for _ in range(10):
            watcher.picture()
        assert ask(page, "/record/stop", "POST", OWN)[0] == 200
        pipeline.stop()
        run.join(WAIT_S)
    wire.close()
    assert not run.is_alive()
    assert levels_of(tmp_path / name)
    indices = indices_of((tmp_path / name).with_suffix(".jsonl"))
    assert indices == sorted(set(indices))
