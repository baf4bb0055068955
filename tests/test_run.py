"""The command line over the real model: what it writes, how it ends, and what it says when it cannot run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge_kp
from edge_kp import run

CLIP = Path(edge_kp.__file__).parent / "assets" / "astronaut.mp4"
WAIT_S = 60
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays and /dev are Linux's")


def frame_count(path):
    clip = cv2.VideoCapture(str(path))
    assert clip.isOpened()
    count = 0
    while clip.read()[0]:
        count += 1
    return count


def records(path):
    text = Path(path).read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test in a folder of its own, and never with a window, whatever the machine has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return tmp_path


def refused(capsys, *arguments):
    """Run; the one line said. Nothing is written and nothing is traced back."""
    before = sorted(Path().rglob("*"))
    assert run.main(list(arguments)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return err


def test_a_clip_gives_a_video_and_a_line_per_frame(capsys):
    arguments = [
        "--source",
        str(CLIP),
        "--headless",
        "--save",
        "o.mp4",
        "--json",
        "o.jsonl",
        "--max-frames",
        "30",
    ]
    assert run.main(arguments) == 0
    lines = records("o.jsonl")
    assert [line["frame"] for line in lines] == list(range(30))
    assert frame_count("o.mp4") == 30
    with_objects = sum(bool(line["detections"]) for line in lines)
    assert with_objects > 0
    assert len(next(line for line in lines if line["detections"])["detections"][0]["keypoints"]) == 68
    err = capsys.readouterr().err
    first, last = err.splitlines()[0], err.splitlines()[-1]
    assert "model face68" in first
    assert CLIP.name in first
    assert "30 frames" in last
    assert f"objects in {with_objects}" in last
    assert "wrote o.mp4, o.jsonl" in last


def test_a_model_that_loads_slowly_still_comes_first(capsys, monkeypatch):
    class Slow(run.Detector):
        def __init__(self, *args, **kwargs):
            time.sleep(1.5)  # longer than the live line's interval
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(run, "Detector", Slow)
    assert run.main(["--source", str(CLIP), "--headless", "--json", "o.jsonl", "--max-frames", "2"]) == 0
    assert capsys.readouterr().err.splitlines()[0].startswith("model face68 | ")


def test_every_picture_on_its_own_when_tracking_is_off(capsys):
    clip = cv2.VideoCapture(str(CLIP))
    clip.set(cv2.CAP_PROP_POS_FRAMES, 40)
    Path("in").mkdir()
    for i in range(3):
        cv2.imwrite(f"in/{i}.png", clip.read()[1])
    arguments = ["--source", "in", "--headless", "--json", "o.jsonl"]
    assert run.main([*arguments, "--track", "off"]) == 0
    alone = records("o.jsonl")
    assert [[d["id"] for d in line["detections"]] for line in alone] == [[0], [0], [0]]
    assert "searched 3 frames for" in capsys.readouterr().err
    assert run.main([*arguments, "--track", "full", "--smooth", "off", "--locate-every", "2"]) == 0
    followed = records("o.jsonl")
    assert [[d["id"] for d in line["detections"]] for line in followed] == [[1], [1], [1]]
    assert "searched 2 frames for" in capsys.readouterr().err
    (first,), (again,) = alone[0]["detections"], followed[0]["detections"]
    np.testing.assert_allclose(first["keypoints"], again["keypoints"], atol=0.02)
    assert set(first["pose"]) == {"yaw", "pitch", "roll"}


def test_no_more_objects_than_asked_for():
    clip = cv2.VideoCapture(str(CLIP))
    clip.set(cv2.CAP_PROP_POS_FRAMES, 40)
    image = clip.read()[1]
    cv2.imwrite("two.png", np.hstack([image, image]))
    for limit in (1, 2):
        arguments = ["--source", "two.png", "--headless", "--json", "o.jsonl", "--max-objects", str(limit)]
        assert run.main(arguments) == 0
        assert len(records("o.jsonl")[0]["detections"]) == limit


@linux
def test_without_a_display_it_says_so_and_saves(capsys):
    assert run.main(["--source", str(CLIP), "--max-frames", "3"]) == 0
    assert "no display (DISPLAY is not set): saving to out/astronaut.mp4 instead" in capsys.readouterr().err
    assert frame_count("out/astronaut.mp4") == 3
    assert run.main(["--source", str(CLIP), "--max-frames", "2", "--save", "mine.mp4"]) == 0
    assert "no display (DISPLAY is not set): only saving to mine.mp4" in capsys.readouterr().err
    assert frame_count("mine.mp4") == 2


@linux
def test_a_picture_is_saved_as_a_picture():
    ok, image = cv2.VideoCapture(str(CLIP)).read()
    assert ok
    cv2.imwrite("face.png", image)
    assert run.main(["--source", "face.png"]) == 0
    drawn = cv2.imread("out/face.png")
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_a_folder_is_run_whole_and_damaged_pictures_are_counted(capsys):
    Path("in").mkdir()
    for i in range(3):
        cv2.imwrite(f"in/{i}.png", np.full((120, 160, 3), 90, np.uint8))
    Path("in/2b.png").write_bytes(b"damaged")
    assert run.main(["--source", "in", "--headless", "--json", "o.jsonl"]) == 0
    assert [line["frame"] for line in records("o.jsonl")] == [0, 1, 2]
    assert "1 damaged skipped" in capsys.readouterr().err


def test_what_cannot_be_opened_is_one_line(capsys):
    assert "no such file" in refused(capsys, "--source", "none.mp4")
    Path("empty").mkdir()
    assert "no picture" in refused(capsys, "--source", "empty")
    assert "no video comes" in refused(capsys, "--source", "rtsp://127.0.0.1:9/a")


@linux
def test_a_missing_camera_is_one_line(capsys):
    assert "/dev/video97: no such camera" in refused(capsys, "--camera", "97")


def test_a_missing_model_is_one_line_and_an_older_result_stays(capsys):
    Path("o.jsonl").write_text("older\n")
    arguments = ["--source", str(CLIP), "--model", "no_such_model", "--save", "o.mp4", "--json", "o.jsonl"]
    assert "no_such_model" in refused(capsys, *arguments)
    assert Path("o.jsonl").read_text() == "older\n"


def test_outputs_that_cannot_be_written_are_one_line(capsys):
    source = ["--source", str(CLIP), "--headless"]
    assert "there is no folder" in refused(capsys, *source, "--save", "none/o.mp4")
    assert "there is no folder" in refused(capsys, *source, "--json", "none/o.jsonl")
    assert "cannot write this kind of file" in refused(capsys, *source, "--save", "o.txt")
    assert "same file" in refused(capsys, *source, "--save", "o.mp4", "--json", "./o.mp4")


def test_the_source_is_never_overwritten(capsys):
    shutil.copy(CLIP, "in.mp4")
    before = Path("in.mp4").read_bytes()
    assert "the source itself" in refused(capsys, "--source", "in.mp4", "--headless", "--save", "in.mp4")
    Path("link.mp4").symlink_to("in.mp4")
    assert "the source itself" in refused(capsys, "--source", "in.mp4", "--headless", "--json", "link.mp4")
    # Nor by the name that is chosen where there is no display.
    Path("out").mkdir()
    shutil.move("in.mp4", "out/in.mp4")
    if sys.platform.startswith("linux"):
        assert "the source itself" in refused(capsys, "--source", "out/in.mp4")
    assert Path("out/in.mp4").read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_run_with_one_error(capsys):
    assert run.main(["--source", str(CLIP), "--headless", "--json", "/dev/full"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: /dev/full: no space left on device")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--camera", "0", "--source", "a.mp4"],
        ["--camera", "front"],
        ["--camera", "-1"],
        ["--source", "a.mp4", "--max-frames", "0"],
        ["--source", "a.mp4", "--max-frames", "-3"],
        ["--source", "a.mp4", "--threads", "0"],
        ["--source", "a.mp4", "--no-such-flag"],
    ],
)
def test_bad_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@linux
def test_ctrl_c_in_a_file_leaves_whole_files_and_exits_with_130():
    # Pictures enough that the run cannot end by itself before the signal: the same one, linked.
    Path("in").mkdir()
    ok, image = cv2.VideoCapture(str(CLIP)).read()
    assert ok
    cv2.imwrite("in/0.png", image)
    for i in range(1, 3000):
        os.link("in/0.png", f"in/{i}.png")
    command = [sys.executable, "-m", "edge_kp.run", "--source", "in", "--headless", "--save", "o.mp4"]
    command += ["--json", "/dev/stdout"]
    # The package as it lies here, also where it is not installed.
    environment = {**os.environ, "PYTHONPATH": str(CLIP.parents[2])}
    # Into a file: lines that a pipe's reader has taken ahead would be lost to communicate().
    with open("lines", "w+") as lines:
        process = subprocess.Popen(command, env=environment, stdout=lines, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + WAIT_S
            while Path("lines").read_text().count("\n") < 3 and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "wrote o.mp4" in err
    written = [json.loads(line) for line in Path("lines").read_text().splitlines()]
    assert frame_count("o.mp4") == len(written) >= 3
