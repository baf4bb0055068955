"""Sources: real files, real streams, and one clear line for whatever cannot be opened."""

import itertools
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

import edge_kp.live.capture as capture_module
from edge_kp.errors import SourceError
from edge_kp.live.capture import Capture, as_bgr, csi_pipeline
from edge_kp.live.frames import CaptureOptions
from edge_kp.live.pictures import Pictures
from edge_kp.live.source import input_files, open_source


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


def test_a_source_without_a_name_is_not_the_folder_one_stands_in(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="a source of no name"):
        open_source("")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_picture_that_has_no_end_is_never_waited_for(tmp_path, make):
    make(tmp_path / "a.png")
    with pytest.raises(SourceError, match="can be read as a picture"):
        open_source(str(tmp_path / "a.png"))


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
    monkeypatch.setattr(capture_module.sys, "platform", "linux")
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

    monkeypatch.setattr(capture_module.sys, "platform", "linux")
    monkeypatch.setattr(capture_module.os, "open", refuse)
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

    monkeypatch.setattr(capture_module, "_check_node", lambda node: None)
    monkeypatch.setattr(capture_module.cv2, "VideoCapture", Device)
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
    monkeypatch.setattr(capture_module, "STREAM_TIMEOUT_MS", 300)
    text = message(f"http://user:secret@{web}/silent")
    assert "no video comes from this address" in text
    assert "secret" not in text
    assert "no video comes" in message("rtsp://127.0.0.1:9/nobody")


def test_the_files_a_source_reads_are_known(clip, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    (tmp_path / "b.txt").touch()
    assert input_files(str(clip)) == [clip]
    assert input_files(str(tmp_path)) == [tmp_path / "a.png"]
    for address in (
        "rtsp://127.0.0.1/a",
        "http://camera/a.mjpg?fps=5",
        "rtsp://[::1]/a",
        "v4l2src ! a?b ! appsink",
    ):
        assert input_files(address) == [], "its signs are no pattern's"
    assert input_files(0) == []


def test_opened_sources_keep_their_promise(clip, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    for spec, kind in ((clip, Capture), (tmp_path, Pictures)):
        source = open_source(str(spec))
        assert isinstance(source, kind)
        source.close()


# ---- patterns, turned pictures, what is asked of a camera ------------------------------------------------


def test_a_pattern_names_pictures_in_order_and_a_file_of_that_very_name_wins(tmp_path):
    for i in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"shot_{i}.png"), picture(i))
    cv2.imwrite(str(tmp_path / "other.png"), picture(5))
    (tmp_path / "shot_3.txt").write_text("no picture")
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "shot_4.png"), picture(4))
    frames = read_all(open_source(str(tmp_path / "shot_*.png")))
    assert [bright_columns(frame.image) for frame in frames] == [8, 12, 44]
    assert len(read_all(open_source(str(tmp_path / "**" / "shot_*.png")))) == 4
    assert input_files(str(tmp_path / "shot_*.png"))[0] == tmp_path / "shot_1.png"
    cv2.imwrite(str(tmp_path / "odd[1].png"), picture(7))
    assert len(read_all(open_source(str(tmp_path / "odd[1].png")))) == 1
    assert "no picture has such a name" in message(str(tmp_path / "none_*.png"))


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_pictures_are_turned_clockwise_and_then_mirrored(tmp_path, rotate, mirror):
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    source = open_source(str(tmp_path / "a.png"), CaptureOptions(rotate=rotate, mirror=mirror))
    (frame,) = read_all(source)
    expected = np.rot90(image, -rotate // 90)
    np.testing.assert_array_equal(frame.image, expected[:, ::-1] if mirror else expected)
    assert source.size == expected.shape[1::-1]
    assert source.name == "a.png"


def test_a_camera_is_asked_for_a_size_and_says_when_it_gives_another(camera, caplog):
    source = open_source("0", CaptureOptions(width=1280, height=720, fps=60))
    assert (cv2.CAP_PROP_FRAME_WIDTH, 1280) in camera
    assert (cv2.CAP_PROP_FRAME_HEIGHT, 720) in camera
    assert (cv2.CAP_PROP_FPS, 60) in camera
    assert camera[1][0] == cv2.CAP_PROP_FOURCC, "the format limits which sizes there are, so it comes first"
    assert "camera0 gives 64x48, not the 1280x720 asked for" in caplog.text
    source.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_clip_is_decoded_by_as_many_threads_as_asked_for(clip, monkeypatch, threads):
    opened, open_clip = [], cv2.VideoCapture
    monkeypatch.setattr(
        capture_module.cv2, "VideoCapture", lambda *how: opened.append(open_clip(*how)) or opened[-1]
    )
    plain, shared = open_source(str(clip)), open_source(str(clip), CaptureOptions(threads=threads))
    assert [capture.get(cv2.CAP_PROP_N_THREADS) for capture in opened[1:]] == [threads]
    for a, b in zip(read_all(plain), read_all(shared), strict=True):
        np.testing.assert_array_equal(a.image, b.image)


def test_only_a_camera_can_be_asked_for_a_size(clip, tmp_path):
    for spec in (str(clip), str(tmp_path), "rtsp://user:secret@127.0.0.1/a", "videotestsrc ! appsink"):
        with pytest.raises(SourceError, match="are asked of cameras") as caught:
            open_source(spec, CaptureOptions(width=640))
        assert "secret" not in str(caught.value)


def test_a_camera_by_its_lasting_name_is_the_device_behind_it(camera, tmp_path, monkeypatch):
    monkeypatch.setattr(capture_module.os.path, "realpath", lambda path: f"{path} → /dev/video3")
    open_source("/dev/v4l/by-id/usb-cam-index0").close()
    assert camera[0] == "/dev/v4l/by-id/usb-cam-index0 → /dev/video3"


def test_a_csi_camera_is_a_pipeline_that_keeps_the_newest_frame():
    text = csi_pipeline(1, CaptureOptions(width=1920, height=1080, fps=29.97))
    assert "sensor-id=1 " in text
    assert "width=1920, height=1080, framerate=29970/1000 " in text
    assert text.endswith("appsink drop=true max-buffers=1 sync=false")
    assert "such as csi://0" in message("csi://front")


@pytest.mark.skipif(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer")
@pytest.mark.parametrize("spec", ["csi://0", "videotestsrc ! videoconvert ! appsink"])
def test_an_opencv_without_gstreamer_is_said_in_one_line(spec):
    assert "this OpenCV has no GStreamer" in message(spec)


@pytest.mark.skipif(
    not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has no GStreamer"
)
def test_a_gstreamer_pipeline_is_a_live_source():
    source = open_source("videotestsrc ! video/x-raw, width=64, height=48 ! videoconvert ! appsink drop=true")
    assert (source.live, source.name, source.size) == (True, "videotestsrc", (64, 48))
    assert source.read().image.shape == (48, 64, 3)
    source.close()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((4, 6), 90, np.uint8), 90),
        (np.full((4, 6, 1), 90, np.uint8), 90),
        (np.full((4, 6, 4), 90, np.uint8), 90),
        (np.full((4, 6), 90 * 256, np.uint16), 90),
    ],
)
def test_pictures_of_other_kinds_of_camera_become_colour(image, expected):
    bgr = as_bgr(image)
    assert bgr.dtype == np.uint8
    assert bgr.shape == (4, 6, 3)
    assert (bgr == expected).all()


def test_a_broken_frame_of_a_live_source_is_left_out_and_counted():
    class Broken:
        """What cv2.VideoCapture does with a JPEG that is cut short, here every other one of 20."""

        number = 0

        def get(self, what):
            return 0.0

        def getBackendName(self):
            return "FFMPEG"

        def grab(self):
            self.number += 1
            return self.number <= 20

        def retrieve(self):
            return (False, None) if self.number % 2 else (True, picture(self.number))

        def release(self):
            pass

    source = Capture(Broken(), picture(0), "stream", live=True)
    frames = [source.read() for _ in range(10)]
    assert [frame.index for frame in frames] == list(range(10))
    assert source.skipped == 10
    with pytest.raises(SourceError, match="stopped delivering"):
        source.read()
