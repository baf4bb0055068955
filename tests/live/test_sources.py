"""Sources: real files, real streams, and one clear line for whatever cannot be opened."""

import itertools
import os
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_kp.live.cameras as cameras_module
import edge_kp.live.capture as capture_module
from edge_kp.errors import SourceError
from edge_kp.live.cameras import csi_pipeline
from edge_kp.live.capture import Capture, as_bgr
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


def jpegs(path, count=20):
    """A clip of whole JPEGs, and where each of them begins in the file."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for i in range(count):
        writer.write(picture(i % 12))
    writer.release()
    data = path.read_bytes()
    starts, place = [], -1
    while (place := data.find(b"\xff\xd8\xff", place + 1)) >= 0:
        starts.append(place)
    assert len(starts) == count
    return bytearray(data), starts


@pytest.mark.parametrize("damaged", [(5, 6, 7), (0,), (0, 1, 19), tuple(range(3, 12))])
def test_damaged_frames_of_a_clip_are_left_out_and_the_others_keep_their_times(tmp_path, damaged):
    path = tmp_path / "clip.avi"
    data, starts = jpegs(path)
    for i in damaged:
        length = int.from_bytes(data[starts[i] - 4 : starts[i]], "little")
        data[starts[i] : starts[i] + length] = bytes(length)
    path.write_bytes(data)
    source = open_source(str(path))
    frames = read_all(source)
    whole = [i for i in range(20) if i not in damaged]
    assert [frame.index for frame in frames] == whole
    assert [frame.time_s for frame in frames] == pytest.approx([(i - whole[0]) / 25 for i in whole])
    assert [bright_columns(f.image) for f in frames] == pytest.approx(
        [4 * (i % 12 + 1) for i in whole], abs=1
    )
    assert source.skipped == len([i for i in damaged if i < whole[-1]]), "what follows the last is the end"


def test_a_clip_that_is_slower_than_a_frame_a_second_is_timed_as_it_says(tmp_path):
    path = tmp_path / "lapse.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 0.5, (64, 48))
    for i in range(4):
        writer.write(picture(i))
    writer.release()
    source = open_source(str(path))
    assert source.fps == pytest.approx(0.5)
    assert [frame.time_s for frame in read_all(source)] == pytest.approx([0, 2, 4, 6])


def test_the_times_are_those_that_a_clip_states_where_they_grow(clip, monkeypatch):
    """As of a phone, which takes pictures when there is light enough."""
    stated = iter([0, 40, 140, 140, 90, 400, 401, 402, 403, 404, 405, 406])

    class Uneven:
        def __init__(self):
            self._clip, self._now = cv2.VideoCapture(str(clip)), 0.0

        def grab(self):
            self._now = next(stated, 0.0)
            return self._clip.grab()

        def get(self, what):
            return self._now if what == cv2.CAP_PROP_POS_MSEC else self._clip.get(what)

        def __getattr__(self, name):
            return getattr(self._clip, name)

    frames = read_all(capture_module.opened(Uneven(), "clip", live=False))
    step = 1 / 20
    expected = [0, 0.04, 0.14, 0.14 + step, 0.14 + 2 * step, 0.4, 0.401, 0.402, 0.403, 0.404, 0.405, 0.406]
    assert [frame.time_s for frame in frames] == pytest.approx(expected)


def test_a_file_address_is_the_file(clip):
    source = open_source(clip.as_uri())
    assert (source.live, source.name) == (False, "clip.mp4")
    assert len(read_all(source)) == 12
    assert input_files(clip.as_uri()) == [clip]


@pytest.mark.parametrize("spec", ["file://[x", "file://server/share/clip.mp4"])
def test_a_file_address_that_is_none_is_said_in_one_line(spec):
    assert spec in message(spec)


def test_a_clip_cut_short_ends_where_its_data_end_and_says_so(tmp_path, caplog):
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
    assert f"cut.avi ends after {len(frames)} of 12 frames" in caplog.text
    caplog.clear()
    assert len(read_all(open_source(str(whole)))) == 12
    assert not caplog.messages


def test_a_source_without_a_name_is_not_the_folder_one_stands_in(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="a source of no name"):
        open_source("")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_picture_that_has_no_end_is_never_waited_for(tmp_path, make):
    make(tmp_path / "a.png")
    with pytest.raises(SourceError, match="cannot be read as a picture"):
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
    assert [frame.index for frame in frames] == [0, 1, 4], "what was skipped leaves a gap"
    assert [frame.time_s for frame in frames] == pytest.approx([0, 1 / 25, 4 / 25])
    assert [frame.file for frame in frames] == [str(tmp_path / f"frame_{i}.png") for i in (1, 2, 10)]
    assert source.skipped == 2
    assert "frame_3.jpg" in caplog.text
    assert "frame_4.png" in caplog.text


def test_pictures_in_folders_below_are_told_with_the_pattern_that_takes_them(tmp_path, caplog):
    folder = tmp_path / "shots [1]"
    (folder / "day" / "deep").mkdir(parents=True)
    (folder / ".thumbnails").mkdir()
    (folder / "empty").mkdir()
    assert "no picture in this folder: put" in message(str(folder))
    for name in ("day/2.png", "day/3.png", "day/deep/4.png", ".thumbnails/1.png"):
        cv2.imwrite(str(folder / name), picture(1))
    (folder / "day" / "notes.txt").write_text("no picture")
    pattern = f"{tmp_path}/shots [[]1]/**/*.png"
    assert f"no picture in this folder: 2 in folders below: to take all, give '{pattern}'" in message(folder)
    cv2.imwrite(str(folder / "1.png"), picture(1))
    assert len(read_all(open_source(str(folder)))) == 1
    told = f"2 in folders below: to take all, give '{pattern}' instead"
    assert caplog.messages == [f"{folder}: pictures left out: {told}"]
    caplog.clear()
    assert len(read_all(open_source(pattern))) == 4
    assert not caplog.messages
    cv2.imwrite(str(folder / "day" / "5.jpg"), picture(1))
    open_source(str(folder)).close()
    assert "3 in folders below" in caplog.text
    assert "/**/*' instead" in caplog.text


def test_pictures_of_12_bits_in_16_are_told_once(tmp_path, caplog):
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 64, (48, 1))
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), ramp + np.uint16(i))
    cv2.imwrite(str(tmp_path / "night.png"), np.full((48, 64), 9, np.uint8))
    assert len(read_all(open_source(str(tmp_path)))) == 4
    assert [m.partition(":")[0] for m in caplog.messages] == [str(tmp_path / "0.png")]
    assert "16-bit values end at 4032" in caplog.text
    caplog.clear()
    cv2.imwrite(str(tmp_path / "whole.png"), 16 * ramp)
    read_all(open_source(str(tmp_path / "whole.png")))
    read_all(open_source(str(tmp_path / "night.png")))
    assert not caplog.messages


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
    assert "it cannot be read as a picture" in message(str(empty / "a.jpg"))
    (tmp_path / "zero.mp4").touch()
    assert "empty" in message(str(tmp_path / "zero.mp4"))
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 100)
    assert "not a video" in message(str(tmp_path / "noise.mp4"))


@pytest.mark.parametrize("name", ["12:30.mp4", "2024-05-01T12:30:05.mp4", "file:a.mp4", "http:.mp4"])
def test_a_clip_named_by_the_time_is_read_and_an_address_is_still_one(clip, tmp_path, monkeypatch, name):
    shutil.copy(clip, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for spec in (name, f"./{name}", str(tmp_path / name)):
        assert len(read_all(open_source(spec))) == 12
    Path("10:00.mp4").write_bytes(b"no video")
    assert "'ffmpeg -i ./10:00.mp4 " in message("10:00.mp4"), "ffmpeg would take 10 for a protocol, too"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_said_in_one_line(clip, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/m\xfcller.mp4")
    shutil.copy(clip, path)
    assert "not UTF-8: rename it" in message(path)
    assert "not UTF-8: rename it" in message("http://127.0.0.1:9/m\udcfcller.mp4")
    picture_path = path.replace(".mp4", ".png")
    shutil.copy(clip, picture_path)
    assert "not UTF-8" not in message(picture_path), "pictures are read by Python, which takes any name"


def test_a_video_that_was_never_finished_is_said_in_one_line(clip, tmp_path):
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clip.read_bytes()[:-200])
    assert "cut short" in message(str(torn))


@pytest.mark.parametrize("spec", [97, "97", "/dev/video97"])
def test_a_camera_that_is_not_there_is_said_in_one_line(spec, monkeypatch):
    monkeypatch.setattr(cameras_module.sys, "platform", "linux")
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

    monkeypatch.setattr(cameras_module.sys, "platform", "linux")
    monkeypatch.setattr(cameras_module.os, "open", refuse)
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

    monkeypatch.setattr(cameras_module, "_check_node", lambda node: None)
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
    """/stream: 6 JPEGs as an IP camera sends them, then the connection closes. /damaged: 12, every third one
    damaged. /silent: nothing, ever.
    """

    release = threading.Event()

    def do_GET(self):
        if self.path == "/silent":
            self.release.wait(20)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        damaged = self.path == "/damaged"
        for i in range(12 if damaged else 6):
            data = cv2.imencode(".jpg", picture(i))[1].tobytes()
            if damaged and i % 3 == 2:
                data = bytes(len(data))
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


def test_damaged_frames_of_a_stream_are_left_out_and_counted(web):
    source = open_source(f"http://{web}/damaged")
    frames = []
    with pytest.raises(SourceError, match="stopped delivering"):
        frames.extend(iter(source.read, None))
    source.close()
    # The first one is too old to be shown, and 2, 5 and 8 are damaged; 11 may as well be the end.
    seen = [bright_columns(frame.image) for frame in frames]
    assert seen == pytest.approx([4 * (i + 1) for i in range(1, 12) if i % 3 != 2], abs=1)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert source.skipped == 3


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:secret@cam/live/1", "rtsp://cam/live/1"),
        ("rtsp://cam/live?user=admin&password=secret", "rtsp://cam/live"),
        ("http://cam?pwd=a@b/secret", "http://…"),
        ("http://user:se?cret@cam", "http://…"),
        ("http://user:se/cret@cam:81/a", "http://cam:81/a"),
        ("http://user:se@cret@cam:81/c.mjpg", "http://cam:81/c.mjpg"),
        ("http://cam", "http://cam"),
    ],
)
def test_an_address_is_shown_without_user_and_password(address, shown):
    assert capture_module.without_password(address) == shown


signs = st.text("Zß:@/?#%[ ")


@given(user=signs, password=st.builds("{}S3CR3T{}".format, signs, signs), place=st.text("cam/:1?"))
def test_whatever_is_in_a_password_it_is_not_shown(user, password, place):
    for address in (f"rtsp://{user}:{password}@{place}", f"rtsp://cam/{place}?user={user}&pw={password}"):
        shown = capture_module.without_password(address)
        assert shown.startswith("rtsp://")
        assert "S3CR3T" not in shown


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
    monkeypatch.setattr(cameras_module.os.path, "realpath", lambda path: f"{path} → /dev/video3")
    open_source("/dev/v4l/by-id/usb-cam-index0").close()
    assert camera[0] == "/dev/v4l/by-id/usb-cam-index0 → /dev/video3"


def test_a_csi_camera_is_a_pipeline_that_keeps_the_newest_frame():
    text = csi_pipeline(1, CaptureOptions(width=1920, height=1080, fps=29.97))
    assert "sensor-id=1 " in text
    assert "width=1920, height=1080, framerate=29970/1000 " in text
    assert text.endswith("appsink drop=true max-buffers=1 sync=false")
    assert "such as csi://0" in message("csi://front")


def test_a_pipeline_that_hangs_holds_up_no_other_and_shows_no_password(monkeypatch, clip):
    """Played by a real clip: this OpenCV may have no GStreamer."""
    released, open_clip = threading.Event(), cv2.VideoCapture

    class Device:
        def __init__(self, text, _backend):
            if "hangs" in text:
                released.wait(20)
            self._clip = open_clip(str(clip))

        def __getattr__(self, name):
            return getattr(self._clip, name)

    monkeypatch.setattr(cameras_module.cv2.videoio_registry, "hasBackend", lambda _: True)
    monkeypatch.setattr(cameras_module.cv2, "VideoCapture", Device)
    monkeypatch.setattr(cameras_module, "PIPELINE_TIMEOUT_S", 0.2)
    hanging = (
        'rtspsrc location="rtsp://admin:secret@hangs/1?pw=secret" user-id=admin user-pw="sec ret" ! appsink'
    )
    try:
        text = message(hanging)
        assert "no picture comes out" in text
        assert 'location="rtsp://hangs/1"' in text
        assert "secret" not in text
        assert "sec ret" not in text
        assert "admin" not in text
        assert "still hangs" in message(hanging)
        other = open_source("rtspsrc location=rtsp://admin:secret@works/1 ! appsink")
        assert (other.live, other.name) == (True, "rtspsrc")
        other.close()
    finally:
        released.set()
        for thread in threading.enumerate():
            if thread.name.startswith("edge_kp open"):
                thread.join(20)


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

        def isOpened(self):
            return True

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
