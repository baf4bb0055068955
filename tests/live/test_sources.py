"""Sources: real files, real streams, and one clear line for whatever cannot be opened."""

import itertools
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

import edge_kp.live.source as source_module
from edge_kp.errors import SourceError
from edge_kp.live.source import Capture, Pictures, input_files, open_source


def picture(number, size=(64, 48)):
    image = np.full((size[1], size[0], 3), 40, np.uint8)
    image[:, : 4 * (number + 1)] = 200
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (64, 48))
    for i in range(12):
        writer.write(picture(i))
    writer.release()
    return path


def read_all(source):
    frames = list(iter(source.read, None))
    source.close()
    return frames


def bright_columns(image):
    return int((image[24, :, 0] > 120).sum())


def message(spec):
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_clip_gives_every_frame_in_order_with_its_time(clip):
    source = open_source(str(clip))
    assert (source.live, source.fps, source.size, source.name) == (False, 20.0, (64, 48), "clip.mp4")
    frames = read_all(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 20 for i in range(12)])
    widths = [bright_columns(frame.image) for frame in frames]
    assert widths == pytest.approx([4 * (i + 1) for i in range(12)], abs=1)
    assert abs(frames[0].captured - time.monotonic()) < 60


def test_a_clip_cut_short_ends_where_its_data_end(clip, tmp_path):
    # An AVI carries its frame count in front: it still promises 12 frames.
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 20, (64, 48))
    for i in range(12):
        writer.write(np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = read_all(open_source(str(cut)))
    assert 1 <= len(frames) < 12


def test_a_folder_is_read_in_the_order_people_count_and_a_damaged_picture_is_skipped(tmp_path, caplog):
    for i in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"frame_{i}.png"), picture(i))
    (tmp_path / "frame_3.jpg").write_bytes(b"\xff\xd8 not a picture")
    (tmp_path / "frame_4.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture, and not taken for one")
    (tmp_path / "folder.png").mkdir()
    source = open_source(str(tmp_path))
    assert (source.live, source.size, source.name) == (False, (64, 48), tmp_path.name)
    frames = read_all(source)
    assert [bright_columns(frame.image) for frame in frames] == [8, 12, 44]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 1 / 25, 2 / 25])
    assert source.skipped == 2
    assert "frame_3.jpg" in caplog.text
    assert "frame_4.png" in caplog.text


def test_a_picture_is_a_source_of_one_frame(tmp_path):
    gray = np.full((30, 40), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "grün.png"), gray)
    source = open_source(str(tmp_path / "grün.png"))
    frames = read_all(source)
    assert [frame.image.shape for frame in frames] == [(30, 40, 3)]
    assert source.name == "grün.png"


def test_what_is_missing_empty_or_unreadable_is_said_in_one_line(tmp_path):
    assert "no such file" in message(str(tmp_path / "none.mp4"))
    assert "there is no folder" in message(str(tmp_path / "none" / "none.mp4"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no picture in this folder" in message(str(empty))
    (empty / "a.jpg").write_bytes(b"x")
    (empty / "b.jpg").write_bytes(b"x")
    assert "none of 2 pictures" in message(str(empty))
    assert "can be read as a picture" in message(str(empty / "a.jpg"))
    (tmp_path / "zero.mp4").touch()
    assert "empty" in message(str(tmp_path / "zero.mp4"))
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 100)
    assert "not a video" in message(str(tmp_path / "noise.mp4"))


def test_a_video_that_was_never_finished_is_said_in_one_line(clip, tmp_path):
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clip.read_bytes()[:-200])
    assert "cut short" in message(str(torn))


@pytest.mark.parametrize("spec", [97, "97", "/dev/video97"])
def test_a_camera_that_is_not_there_is_said_in_one_line(spec, monkeypatch):
    monkeypatch.setattr(source_module.sys, "platform", "linux")
    text = message(spec)
    assert "/dev/video97: no such camera" in text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), "join the group 'video'"),
        (OSError(16, "Device busy"), "busy"),
    ],
)
def test_a_camera_that_refuses_is_said_in_one_line(error, expected, monkeypatch):
    def refuse(*_):
        raise error

    monkeypatch.setattr(source_module.sys, "platform", "linux")
    monkeypatch.setattr(source_module.os, "open", refuse)
    assert expected in message("0")


@pytest.fixture
def camera(clip, monkeypatch):
    """Camera 0, played by a real clip: this machine may have none."""
    asked = []
    open_clip = cv2.VideoCapture

    class Device:
        def __init__(self, target, backend):
            asked.append(target)
            self._clip = open_clip(str(clip))

        def set(self, what, value):
            asked.append((what, value))

        def __getattr__(self, name):
            return getattr(self._clip, name)

    monkeypatch.setattr(source_module, "_check_node", lambda node: None)
    monkeypatch.setattr(source_module.cv2, "VideoCapture", Device)
    return asked


def test_a_camera_is_live_with_the_smallest_buffer_and_its_end_is_an_error(camera):
    source = open_source("0")
    assert camera == [0, (cv2.CAP_PROP_BUFFERSIZE, 1)]
    assert (source.live, source.name, source.size) == (True, "camera0", (64, 48))
    frames = []
    with pytest.raises(SourceError, match="camera0 stopped delivering"):
        frames.extend(iter(source.read, None))
    # The first frame was taken when the camera was opened; it is too old to be shown.
    assert [bright_columns(frame.image) for frame in frames][:2] == pytest.approx([8, 12], abs=1)
    assert frames[0].time_s == 0
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(frames))
    source.close()
    source.close()


class Web(BaseHTTPRequestHandler):
    """/stream: 6 JPEGs as an IP camera sends them, then the connection closes. /silent: nothing, ever."""

    release = threading.Event()

    def do_GET(self):
        if self.path == "/silent":
            self.release.wait(20)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for i in range(6):
            data = cv2.imencode(".jpg", picture(i))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    Web.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_network_stream_is_live_and_its_end_is_an_error(web):
    source = open_source(f"http://user:secret@{web}/stream")
    assert source.live
    assert "secret" not in source.name
    frames = []
    with pytest.raises(SourceError, match="stopped delivering"):
        frames.extend(iter(source.read, None))
    assert 1 <= len(frames) <= 5
    source.close()


def test_an_address_that_does_not_answer_is_said_in_one_line_without_the_password(web, monkeypatch):
    monkeypatch.setattr(source_module, "STREAM_TIMEOUT_MS", 300)
    text = message(f"http://user:secret@{web}/silent")
    assert "no video comes from this address" in text
    assert "secret" not in text
    assert "no video comes" in message("rtsp://127.0.0.1:9/nobody")


def test_the_files_a_source_reads_are_known(clip, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    (tmp_path / "b.txt").touch()
    assert input_files(str(clip)) == [clip]
    assert input_files(str(tmp_path)) == [tmp_path / "a.png"]
    assert input_files("rtsp://127.0.0.1/a") == []
    assert input_files(0) == []


def test_opened_sources_keep_their_promise(clip, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    for spec, kind in ((clip, Capture), (tmp_path, Pictures)):
        source = open_source(str(spec))
        assert isinstance(source, kind)
        source.close()
