"""Sinks: whole lines, playable videos, true timing, and write errors that are said."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge_kp.live.sinks as sinks_module
from edge_kp.errors import SinkError
from edge_kp.live.frames import Frame
from edge_kp.live.lines import JsonlSink
from edge_kp.live.sinks import ImageSink, VideoSink, fit
from edge_kp.live.statistics import Result
from edge_kp.types import Detection

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")


def result(index, image=None, time_s=None, objects=1):
    image = np.full((48, 64, 3), 10 * index % 250, np.uint8) if image is None else image
    points = np.array([[1.234, 2], [3, 4]], np.float32)
    found = Detection(3, np.array([1, 2, 3, 4], np.float32), 0.9, points, np.ones(2, np.float32), {"a": 0.5})
    frame = Frame(index, index / 25 if time_s is None else time_s, 0.0, image)
    return Result(frame, [found] * objects, {"total": 0.01})


def plain(result):
    return result.frame.image


def frames_of(path):
    clip = cv2.VideoCapture(str(path))
    assert clip.isOpened()
    frames = []
    while (item := clip.read())[0]:
        frames.append(item[1])
    return frames, clip.get(cv2.CAP_PROP_FPS)


def test_jsonl_has_a_line_per_frame_on_disk_at_once(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("an older run, longer than the first line of the new one\n" * 99)
    sink = JsonlSink(path)
    assert "older" in path.read_text()  # nothing is replaced before there is a result
    sink.write(result(0))
    first = path.read_text()
    assert first.count("\n") == 1
    sink.write(result(1, objects=0))
    sink.close()
    sink.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["detections"][0]["keypoints"] == [[1.23, 2.0], [3.0, 4.0]]
    assert lines[0]["detections"][0]["id"] == 3
    assert lines[1] == {"frame": 1, "time_s": 0.04, "source": 0, "detections": []}
    assert sink.written == 2


@linux
def test_a_picture_brings_the_name_of_its_file(tmp_path):
    sink = JsonlSink(tmp_path / "out.jsonl")
    sink.write(Result(replace(result(0).frame, file="photos/a.jpg"), [], {"total": 0.0}))
    sink.write(result(1))
    sink.close()
    named, other = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert named["file"] == "photos/a.jpg"
    assert "file" not in other


def test_a_full_disk_is_said_in_one_line():
    sink = JsonlSink("/dev/full")
    with pytest.raises(SinkError, match=r"/dev/full: no space left on device") as caught:
        sink.write(result(0))
    assert "\n" not in str(caught.value)
    sink.close()


LIMITED = """
import resource, sys
import numpy as np
from edge_kp.errors import SinkError
from edge_kp.live.lines import JsonlSink
from edge_kp.live.sinks import VideoSink
from edge_kp.live.statistics import Result
from edge_kp.live.frames import Frame

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
for sink in (VideoSink(sys.argv[1], lambda r: r.frame.image, fps=25), JsonlSink(sys.argv[2])):
    try:
        for i in range(3000):
            sink.write(Result(Frame(i, i / 25, 0.0, image), [], {"total": 0.01}))
            if i == 20 and isinstance(sink, VideoSink):
                break
        sink.close()
    except SinkError as error:
        print(error)
"""


@linux
def test_where_a_file_cannot_grow_lines_stay_whole_and_a_broken_video_is_said(tmp_path):
    video, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    command = [sys.executable, "-c", LIMITED, str(video), str(lines)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = run.stdout.splitlines()
    assert len(said) == 2
    assert "could not be finished" in said[0]
    assert "file too large" in said[1]
    text = lines.read_text()
    assert text.endswith("}\n")
    assert [json.loads(line)["frame"] for line in text.splitlines()] == list(range(text.count("\n")))
    assert len(text) > 90_000


TO_STDOUT = """
import os, sys
from edge_kp.live.lines import WholeLines

os.write(1, b"of the program\\n")
for path in sys.argv[1:]:
    lines = WholeLines(path)
    lines.append(b"a line\\n")
    lines.close()
os.write(1, b"the end\\n")
"""


@linux
@pytest.mark.parametrize("mode", ["ab", "wb"])
def test_what_is_open_already_is_written_to_from_where_it_stands(tmp_path, mode):
    log = tmp_path / "log"
    log.write_bytes(b"of yesterday\n")
    with open(log, mode) as out:
        command = [sys.executable, "-c", TO_STDOUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
        subprocess.run(command, stdout=out, timeout=60, check=True)
    yesterday = ["of yesterday"] if mode == "ab" else []
    assert log.read_text().splitlines() == [*yesterday, "of the program", *["a line"] * 3, "the end"]


@linux
def test_a_reader_that_leaves_is_not_taken_for_a_full_disk():
    reader, writer = os.pipe()
    sink = JsonlSink(f"/dev/fd/{writer}")
    sink.write(result(0))
    os.close(reader)
    with pytest.raises(SinkError, match="whoever read it has left") as caught:
        sink.write(result(1))
    sink.close()
    os.close(writer)
    assert "space" not in str(caught.value)


def test_a_video_is_playable_with_every_frame(tmp_path):
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, plain, fps=23.976)
    assert not path.exists()
    for i in range(10):
        sink.write(result(i))
    sink.close()
    frames, fps = frames_of(path)
    assert len(frames) == sink.written == 10
    assert fps == pytest.approx(23.976, abs=0.001)
    assert [int(frame.mean()) for frame in frames] == pytest.approx([10 * i for i in range(10)], abs=6)


@pytest.mark.parametrize("fps", [None, 0.0, float("nan"), 90000.0, 14.9853333])
def test_a_video_is_written_whatever_rate_the_source_states(tmp_path, fps):
    sink = VideoSink(tmp_path / "out.mp4", plain, fps=fps)
    sink.write(result(0))
    sink.close()
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 1


@pytest.mark.parametrize("fps", [0.1, 0.5, 59.94, 66.667, 90.909, 120.001, 144.0, 239.857, 999.999])
def test_any_rate_is_written_as_finely_as_the_file_can_tell_it(tmp_path, fps):
    sink = VideoSink(tmp_path / "out.mp4", plain, fps=fps)
    for i in range(3):
        sink.write(result(i))
    sink.close()
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize(("width", "height"), [(8200, 20), (20, 8200)])
def test_pictures_too_large_for_a_video_are_scaled_down(tmp_path, width, height):
    sink = VideoSink(tmp_path / "out.mp4", plain, fps=25)
    sink.write(Result(Frame(0, 0.0, 0.0, np.full((height, width, 3), 90, np.uint8)), [], {"total": 0.0}))
    sink.close()
    ok, image = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()
    assert ok
    assert max(image.shape) == 8190
    assert min(image.shape[:2]) == 18


def test_frames_of_another_size_are_fitted_to_the_first(tmp_path):
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, plain, fps=25)
    for shape in ((49, 65), (480, 640), (64, 20), (1, 1), (49, 65)):
        sink.write(result(0, np.full((*shape, 3), 200, np.uint8)))
    sink.close()
    frames, _ = frames_of(path)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 5
    tall = frames[2]
    assert tall[24, 32].min() > 150
    assert tall[:, :10].max() < 50  # framed in black, not stretched


def test_fit_keeps_the_aspect():
    white = np.full((50, 100, 3), 255, np.uint8)
    assert fit(white, (100, 50)) is white
    framed = fit(white, (100, 100))
    rows = np.flatnonzero(framed[:, 50, 0])
    assert (rows[0], rows[-1]) == (25, 74)


def test_a_live_recording_plays_at_true_speed(tmp_path):
    # 10 results a second from a camera that promises 30: each fills three video frames.
    sink = VideoSink(tmp_path / "slow.mp4", plain, fps=30, live=True)
    for i in range(20):
        sink.write(result(i, time_s=i / 10))
    sink.close()
    assert len(frames_of(tmp_path / "slow.mp4")[0]) == pytest.approx(60, abs=3)
    # 60 results a second are thinned to 30.
    sink = VideoSink(tmp_path / "fast.mp4", plain, fps=60, live=True)
    for i in range(120):
        sink.write(result(i, time_s=i / 60))
    sink.close()
    frames, fps = frames_of(tmp_path / "fast.mp4")
    assert fps == 30
    assert len(frames) == pytest.approx(60, abs=2)
    # A camera that hangs for an hour does not make an hour of video.
    sink = VideoSink(tmp_path / "stall.mp4", plain, fps=30, live=True)
    for time_s in (0.0, 3600.0, 3600.1):
        sink.write(result(0, time_s=time_s))
    sink.close()
    assert len(frames_of(tmp_path / "stall.mp4")[0]) <= 1 + 30 + 4


@linux
def test_a_folder_that_goes_away_is_said_in_one_line(tmp_path):
    sink = VideoSink(tmp_path / "stick" / "out.mp4", plain, fps=25, create_parent=True)
    sink.write(result(0))
    shutil.rmtree(tmp_path / "stick")
    with pytest.raises(SinkError, match=r"out\.mp4: no such file or directory"):
        sink.write(result(1))
    with pytest.raises(SinkError, match="could not be finished"):
        sink.close()


def test_recording_stops_while_there_is_room_to_finish_the_file(tmp_path, monkeypatch):
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, plain, fps=25)
    for i in range(5):
        sink.write(result(i))
    monkeypatch.setattr(sinks_module, "RESERVE_BYTES", 2**80)
    with pytest.raises(SinkError, match="the disk is full"):
        sink.write(result(5))
    sink.close()
    assert len(frames_of(path)[0]) == 5


def test_a_video_may_be_named_by_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mp4", "2024-05-01T12:30:05.mkv"):
        sink = VideoSink(name, plain, fps=25)
        sink.write(result(0))
        sink.close()
        assert sink.written == 1
        assert len(frames_of(tmp_path / name)[0]) == 1


@linux
def test_a_video_whose_name_is_not_utf8_is_refused_before_the_run(tmp_path):
    with pytest.raises(SinkError, match="not UTF-8: choose another name") as caught:
        VideoSink(tmp_path / "m\udcfcller.mp4", plain, fps=25)
    assert "\n" not in str(caught.value)


def test_a_disk_without_room_leaves_an_older_video_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an older video")
    monkeypatch.setattr(sinks_module, "RESERVE_BYTES", 2**80)
    sink = VideoSink(path, plain, fps=25)
    with pytest.raises(SinkError, match="the disk is full") as caught:
        sink.write(result(0))
    sink.close()
    assert path.read_bytes() == b"an older video"
    assert "playable" not in str(caught.value), "nothing was recorded"


@pytest.mark.parametrize(
    ("kind", "file"), [(JsonlSink, "a.jsonl"), (lambda p: VideoSink(p, plain, fps=25), "a.mp4")]
)
def test_a_missing_folder_is_said_before_the_run(tmp_path, kind, file):
    with pytest.raises(SinkError, match="there is no folder"):
        kind(tmp_path / "none" / file)


def test_other_kinds_of_file_and_folders_are_refused(tmp_path):
    with pytest.raises(SinkError, match="cannot write this kind of file"):
        VideoSink(tmp_path / "a.txt", plain, fps=25)
    with pytest.raises(SinkError, match="cannot write this kind of file"):
        ImageSink(tmp_path / "a.mp4", plain)
    with pytest.raises(SinkError, match="this is a folder"):
        JsonlSink(tmp_path)


@linux
def test_a_path_the_system_refuses_is_said_in_one_line(tmp_path):
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    sink = VideoSink(tmp_path / "full.mp4", plain, fps=25)
    with pytest.raises(SinkError, match=r"full\.mp4: no 64x48 video can be written here"):
        sink.write(result(0))
    sink.close()
    sink = JsonlSink("/proc/edge_kp.jsonl")
    with pytest.raises(SinkError, match=r"/proc/edge_kp\.jsonl: "):
        sink.write(result(0))


def test_a_folder_is_made_only_when_asked_for_and_only_with_the_file(tmp_path):
    path = tmp_path / "out" / "a.mp4"
    sink = VideoSink(path, plain, fps=25, create_parent=True)
    assert not path.parent.exists()
    sink.write(result(0))
    sink.close()
    assert len(frames_of(path)[0]) == 1


def test_a_picture_is_written(tmp_path):
    sink = ImageSink(tmp_path / "a.png", plain)
    sink.write(result(7))
    sink.close()
    assert cv2.imread(str(tmp_path / "a.png")).mean() == 70


def test_a_picture_behind_a_link_is_written_through_it(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.png").write_bytes(b"an older picture")
    (tmp_path / "a.png").symlink_to(tmp_path / "disk" / "a.png")
    sink = ImageSink(tmp_path / "a.png", plain)
    sink.write(result(0))
    sink.close()
    assert (tmp_path / "a.png").is_symlink()
    assert cv2.imread(str(tmp_path / "disk" / "a.png")) is not None


@linux
@pytest.mark.parametrize("number", ["777", "9" * 30])
def test_a_place_of_lines_where_nothing_is_open_is_said_at_once(number):
    with pytest.raises(SinkError, match="nothing is open there: give another place"):
        JsonlSink(Path(f"/dev/fd/{number}"))


LIMITED_PICTURE = """
import resource, sys
import numpy as np
from edge_kp.errors import SinkError
from edge_kp.live.frames import Frame
from edge_kp.live.sinks import ImageSink
from edge_kp.live.statistics import Result

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
sink = ImageSink(sys.argv[1], lambda r: r.frame.image)
try:
    sink.write(Result(Frame(0, 0.0, 0.0, image), [], {"total": 0.01}))
except SinkError as error:
    print(error)
"""


@linux
def test_a_picture_that_cannot_be_written_whole_leaves_an_older_one_as_it_was(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"an older picture")
    command = [sys.executable, "-c", LIMITED_PICTURE, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "file too large" in run.stdout
    assert path.read_bytes() == b"an older picture"
    assert list(tmp_path.iterdir()) == [path]
