"""A live source that goes away, hangs or sends rubbish, and comes back."""

import itertools
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

import edge_kp.live.lasting as lasting_module
from edge_kp.errors import SourceError
from edge_kp.live.frames import Frame
from edge_kp.live.lasting import MOST_STUCK, Lasting
from edge_kp.live.source import open_lasting

WAIT_S = 20


@pytest.fixture(autouse=True)
def no_thread_left():
    yield
    end = time.monotonic() + WAIT_S
    while left := [t.name for t in threading.enumerate() if t.name.startswith("edge_kp")]:
        assert time.monotonic() < end, left
        time.sleep(0.01)


class Camera:
    """Gives ``count`` frames of a size, then does ``end()``: raises, or hangs."""

    live, fps = True, 30.0

    def __init__(self, count, end, size=(8, 8), skipped=0):
        self.count, self.end, self.size, self.name = count, end, size, "camera7"
        self.skipped, self.returns = skipped, 0
        self.closed = threading.Event()

    def read(self):
        if self.count == 0:
            return self.end()
        self.count -= 1
        return Frame(99, 99.0, time.monotonic(), np.zeros((*self.size[::-1], 3), np.uint8))

    def stop(self):
        pass

    def close(self):
        self.closed.set()


def unplugged():
    raise SourceError("camera7 stopped delivering frames")


def gone():
    raise SourceError("/dev/video7: no such camera")


def lasting(first, *later, **options):
    """Comes back as each of ``later`` in turn: a camera, or what raises instead."""
    queue = list(later)

    def again():
        following = queue.pop(0)
        return following if isinstance(following, Camera) else following()

    return Lasting(again, first, pause_s=0.001, **options)


def test_frames_go_on_in_number_and_time_when_a_camera_comes_back(caplog):
    first, second = Camera(3, unplugged, skipped=1), Camera(4, unplugged, size=(16, 12), skipped=2)
    source = lasting(first, gone, gone, second, give_up_s=WAIT_S)
    frames = [source.read() for _ in range(7)]
    assert [frame.index for frame in frames] == list(range(7))
    assert frames[0].time_s == 0
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(frames))
    assert [frame.image.shape[1] for frame in frames] == [8] * 3 + [16] * 4
    assert (source.returns, source.skipped) == (1, 3)
    assert first.closed.wait(WAIT_S)
    told = [record.getMessage() for record in caplog.records]
    assert "camera7 stopped delivering frames: trying again until it is back" in told
    assert any(text.startswith("camera7 is back after") for text in told)
    source.close()
    assert second.closed.wait(WAIT_S)


def test_a_source_that_stays_away_is_given_up_with_the_last_reason():
    source = lasting(Camera(1, unplugged), *[gone] * 10_000, give_up_s=0.05)
    assert source.read() is not None
    with pytest.raises(SourceError, match=r"camera7 has been gone for 0.05 s: /dev/video7: no such camera"):
        source.read()
    source.close()


def test_an_error_of_opencv_is_one_more_way_to_be_gone(caplog):
    def broken():
        cv2.cvtColor(np.zeros((2, 2, 2), np.uint8), cv2.COLOR_BGR2GRAY)

    source = lasting(Camera(1, broken), Camera(1, unplugged))
    assert [source.read().index for _ in range(2)] == [0, 1]
    source.close()
    told = caplog.records[0].getMessage()
    assert "OpenCV" in told
    assert told.endswith(": trying again until it is back")
    assert "\n" not in told


def test_a_fault_of_the_program_is_raised_where_frames_are_waited_for():
    def fault():
        raise ZeroDivisionError("a fault of the program")

    source = lasting(Camera(1, fault), Camera(9, unplugged))
    assert source.read() is not None
    with pytest.raises(ZeroDivisionError):
        source.read()
    source.close()


def test_a_read_that_never_returns_is_left_behind_and_the_source_opened_anew():
    release = threading.Event()
    stuck = Camera(2, lambda: release.wait(WAIT_S) and None)
    source = lasting(stuck, Camera(5, unplugged), stall_s=0.2)
    frames = [source.read() for _ in range(7)]
    assert [frame.index for frame in frames] == list(range(7))
    assert source.returns == 1
    assert not stuck.closed.is_set(), "it hangs in its driver"
    release.set()
    assert stuck.closed.wait(WAIT_S), "and is closed by its own thread, once the driver lets it"
    source.close()


def test_a_driver_that_hangs_again_and_again_is_given_up(monkeypatch):
    monkeypatch.setattr(lasting_module._Reader, "WAIT_S", 0.01)
    release = threading.Event()
    cameras = [Camera(0, lambda: release.wait(WAIT_S) and None) for _ in range(MOST_STUCK + 5)]
    source = lasting(*cameras, stall_s=0.02)
    with pytest.raises(SourceError, match="camera7: its driver hangs"):
        source.read()
    assert sum(t.name.startswith("edge_kp read") for t in threading.enumerate()) == MOST_STUCK + 1
    release.set()
    source.close()


def test_stop_ends_a_read_that_waits_for_a_source_to_come_back():
    away = threading.Event()

    def still_away():
        away.set()
        raise SourceError("no such camera")

    source = lasting(Camera(1, unplugged), *[still_away] * 100_000)
    assert source.read() is not None
    frames = []
    reading = threading.Thread(target=lambda: frames.append(source.read()))
    reading.start()
    assert away.wait(WAIT_S)
    source.stop()
    reading.join(WAIT_S)
    assert frames == [None]
    source.close()


def test_stop_while_a_source_is_being_opened_waits_for_none_of_its_frames():
    opening, go_on = threading.Event(), threading.Event()

    def slowly():
        opening.set()
        assert go_on.wait(WAIT_S)
        return silent

    silent = Camera(0, lambda: go_on.wait(WAIT_S) and None)
    silent.read = lambda: source._stopped.wait(WAIT_S) and None
    queue = [slowly]
    source = Lasting(lambda: queue.pop(0)(), Camera(1, unplugged), pause_s=0.001, stall_s=10 * WAIT_S)
    assert source.read() is not None
    frames = []
    reading = threading.Thread(target=lambda: frames.append(source.read()))
    reading.start()
    assert opening.wait(WAIT_S)
    source.stop()
    go_on.set()
    reading.join(WAIT_S)
    assert frames == [None]
    source.close()
    assert silent.closed.wait(WAIT_S)


# ---- a real stream ---------------------------------------------------------------------------------------


class Stream(BaseHTTPRequestHandler):
    """MJPEG as an IP camera sends it, until the server's ``off`` is set."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        image = np.full((48, 64, 3), self.server.grey, np.uint8)
        data = cv2.imencode(".jpg", image)[1].tobytes()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        try:
            while not self.server.off.wait(0.01):
                self.wfile.write(head + data + b"\r\n")
        except OSError:
            pass

    def log_message(self, *_):
        pass


def serve(port, grey):
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

    server = Server(("127.0.0.1", port), Stream)
    server.grey, server.off = grey, threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def stop():
        server.off.set()
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop


def test_a_network_camera_that_restarts_is_followed_again():
    port, stop = serve(0, 40)
    source = open_lasting(f"http://127.0.0.1:{port}/stream")
    try:
        assert source.read().image.mean() == pytest.approx(40, abs=3)
        stop()
        port, stop = serve(port, 200)
        end = time.monotonic() + WAIT_S
        while (frame := source.read()).image.mean() < 150:
            assert time.monotonic() < end
        assert frame.index > 0
        assert source.returns == 1
    finally:
        source.close()
        stop()


def test_a_source_must_be_there_at_the_start():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match="no video comes from this address"):
        open_lasting(f"http://127.0.0.1:{port}/stream")
