"""The command line over the real model: what it writes, how it ends, and what it says when it cannot run."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge_kp
from edge_kp import run
from edge_kp.schema import KeypointSchema

CLIP = Path(edge_kp.__file__).parent / "assets" / "astronaut.mp4"
WAIT_S = 60
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays and /dev are Linux's")


@pytest.fixture(scope="module")
def short_clip(frames, tmp_path_factory):
    """Two seconds of the shipped clip, in which the face is seen."""
    path = tmp_path_factory.mktemp("clips") / "short.mp4"
    height, width = frames[0].shape[:2]
    clip = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
    for image in frames[20:70]:
        clip.write(image)
    clip.release()
    return path


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


def test_tiles_are_searched_for_small_objects():
    image = cv2.resize(
        cv2.VideoCapture(str(CLIP)).read()[1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
    )
    frame = np.full((2160, 3840, 3), 90, np.uint8)
    frame[900 : 900 + image.shape[0], 2000 : 2000 + image.shape[1]] = image
    cv2.imwrite("far.png", frame)
    for tiles, count in (("1", 0), ("3", 1)):
        assert run.main(["--source", "far.png", "--headless", "--json", "o.jsonl", "--tiles", tiles]) == 0
        assert len(records("o.jsonl")[0]["detections"]) == count


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


def damage_file(folder):
    path = folder / "stage2.int8-cpu.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def damage_schema(folder):
    path = folder / "model.json"
    data = json.loads(path.read_text())
    data["schema"] = KeypointSchema("part", ("a", "b", "c"), (), (), (0, 1)).to_json()
    data["mean_shape"] = data["mean_shape"][:3]
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lambda folder: (folder / "stage1.int8-cpu.onnx").unlink(),
            "stage1.int8-cpu.onnx: missing; copy the whole",
        ),
        (damage_file, "stage2.int8-cpu.onnx: differs from the hash in model.json"),
        (
            damage_schema,
            "stage1.int8-cpu.onnx: was exported with another schema, mean_shape than model.json has",
        ),
    ],
    ids=["missing", "cut-short", "another-schema"],
)
def test_a_damaged_model_is_one_line_and_an_older_result_stays(capsys, damage, expected):
    shutil.copytree(CLIP.parents[1] / "models" / "face68", "model")
    damage(Path("model"))
    Path("o.jsonl").write_text("older\n")
    arguments = ["--source", str(CLIP), "--model", "model", "--precision", "int8", "--json", "o.jsonl"]
    assert expected in refused(capsys, *arguments, "--headless")
    assert Path("o.jsonl").read_text() == "older\n"


def test_outputs_that_cannot_be_written_are_one_line(capsys):
    source = ["--source", str(CLIP), "--headless"]
    assert "there is no folder" in refused(capsys, *source, "--save", "none/o.mp4")
    assert "there is no folder" in refused(capsys, *source, "--json", "none/o.jsonl")
    assert "cannot write this kind of file" in refused(capsys, *source, "--save", "o.txt")
    assert "name the same file" in refused(capsys, *source, "--save", "o.mp4", "--json", "./o.mp4")


def test_a_restart_goes_on_over_the_older_file_of_an_address_that_looks_like_a_pattern(capsys):
    Path("o.jsonl").write_text("of the last run\n")
    source = ["--source", "http://127.0.0.1:9/a.mjpg?fps=5", "--headless", "--json", "o.jsonl"]
    assert "no video comes from this address" in refused(capsys, *source)


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
def test_a_full_disk_under_the_only_output_ends_the_run(capsys):
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
        ["--source", "a.mp4", "--serve", "70000"],
        ["--source", "a.mp4", "--rotate", "45"],
        ["--source", "a.mp4", "--fps", "0"],
    ],
)
def test_bad_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@linux
def test_ctrl_c_in_a_file_leaves_whole_files_and_exits_with_130():
    many_pictures(Path("in"))
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


@linux
@pytest.mark.parametrize("delay", [0.1, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_a_signal_at_any_moment_leaves_whole_files_or_none(delay):
    many_pictures(Path("in"))
    command = [sys.executable, "-m", "edge_kp.run", "--source", "in", "--headless", "--save", "o.mp4"]
    process = subprocess.Popen(
        [*command, "--json", "o.jsonl", "--csv", "o.csv"],
        env={**os.environ, "PYTHONPATH": str(CLIP.parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode in (130, -signal.SIGTERM), err  # the latter before anything is opened
    assert "Traceback" not in err
    assert len({Path(name).exists() for name in ("o.mp4", "o.jsonl", "o.csv")}) == 1
    if Path("o.jsonl").exists():
        assert process.returncode == 130
        with open("o.csv", newline="") as file:
            table = list(csv.reader(file))
        assert len({len(row) for row in table}) == 1
        assert len(records("o.jsonl")) >= 1
        assert frame_count("o.mp4") >= 1


# ---- several sources, other outputs ------------------------------------------------------------------------


def test_two_clips_are_followed_at_once_as_each_would_be_alone(capsys, short_clip):
    arguments = ["--headless", "--max-objects", "1", "--json"]
    assert run.main(["--source", str(short_clip), *arguments, "alone.jsonl"]) == 0
    two = ["--source", str(short_clip), "--source", str(short_clip), *arguments, "two.jsonl"]
    assert run.main([*two, "--save", "o.mp4", "--csv", "o.csv"]) == 0
    alone, both = records("alone.jsonl"), records("two.jsonl")
    for source in (0, 1):
        lines = [line for line in both if line["source"] == source]
        assert [{**line, "source": 0} for line in lines] == alone
        assert frame_count(f"o-{source}.mp4") == len(alone)
    with open("o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(line["detections"]) for line in both) > 0
    err = capsys.readouterr().err
    assert f"{len(both)} frames" in err
    assert "wrote o-0.mp4, o-1.mp4, two.jsonl, o.csv" in err


def test_a_table_of_a_clip_and_pictures_names_the_files_of_the_pictures(short_clip):
    Path("in").mkdir()
    clip = cv2.VideoCapture(str(CLIP))
    clip.set(cv2.CAP_PROP_POS_FRAMES, 40)
    image = clip.read()[1]
    cv2.imwrite("in/a.png", np.zeros_like(image))
    cv2.imwrite("in/b.png", image)
    sources = ["--source", str(short_clip), "--source", "in"]
    assert run.main([*sources, "--headless", "--mirror", "--csv", "o.csv"]) == 0
    with open("o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["source"], row["file"]) for row in rows} == {("0", ""), ("1", "in/b.png")}


def test_a_clip_is_turned_and_mirrored_before_anything_is_found():
    arguments = ["--source", str(CLIP), "--headless", "--max-frames", "3", "--save"]
    assert run.main([*arguments, "plain.mp4"]) == 0
    assert run.main([*arguments, "turned.mp4", "--rotate", "90"]) == 0
    plain, turned = (cv2.VideoCapture(name).read()[1] for name in ("plain.mp4", "turned.mp4"))
    assert turned.shape == (plain.shape[1], plain.shape[0], 3)


def test_outputs_that_fail_together_name_the_same_file(capsys):
    source = ["--source", str(CLIP), "--headless"]
    said = refused(capsys, *source, "--save", "o.mp4", "--csv", "o.txt", "--json", "o.txt")
    assert "o.txt: two of --save, --json and --csv name the same file" in said
    assert "write" in refused(capsys, *source, "--udp", "192.168.1.20")
    assert "topic" in refused(capsys, *source, "--mqtt", "mqtt://127.0.0.1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_one_output_and_the_others_are_whole(capsys):
    arguments = ["--source", str(CLIP), "--headless", "--max-frames", "6", "--json", "/dev/full"]
    assert run.main([*arguments, "--save", "o.mp4"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: /dev/full: no space left on device")
    assert "6 not saved to /dev/full" in err
    assert frame_count("o.mp4") == 6


def many_pictures(folder):
    """A folder that takes longer than any test: the same picture, linked."""
    folder.mkdir()
    ok, image = cv2.VideoCapture(str(CLIP)).read()
    assert ok
    cv2.imwrite(str(folder / "0.png"), image)
    for i in range(1, 3000):
        os.link(folder / "0.png", folder / f"{i}.png")


@linux
def test_the_live_page_shows_the_run_and_records_it():
    many_pictures(Path("in"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "edge_kp.run", "--source", "in", "--headless", "--serve", str(port)]
    process = subprocess.Popen(
        [*command, "--record-to", "recorded"],
        env={**os.environ, "PYTHONPATH": str(CLIP.parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )

    def ask(path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        request.add_header("X-Edge-KP", "1")
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.read()

    try:
        end = time.monotonic() + WAIT_S
        while True:  # until the first objects are there
            try:
                if b'"pose"' in ask("/state"):
                    break
            except OSError:
                pass
            assert time.monotonic() < end
            time.sleep(0.1)
        assert b"<title>edge_kp" in ask("/")
        ask("/record/start", "POST")
        while not list(Path("recorded").glob("*.jsonl")):
            assert time.monotonic() < end
            time.sleep(0.05)
        ask("/record/stop", "POST")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert f"live page: http://127.0.0.1:{port}/" in err
    (lines,) = Path("recorded").glob("*.jsonl")
    assert len(records(lines)) == frame_count(lines.with_suffix(".mp4")) >= 1


# ---- settings from a file ---------------------------------------------------------------------------------


def test_settings_come_from_a_file_and_flags_win():
    Path("run.toml").write_text(
        f"source = [{str(CLIP)!r}]\nheadless = true\njson = 'file.jsonl'\nmax_frames = 5\nmirror = false\n"
    )
    assert run.main(["--config", "run.toml"]) == 0
    assert len(records("file.jsonl")) == 5
    assert run.main(["--config", "run.toml", "--max-frames", "2", "--json", "flag.jsonl"]) == 0
    assert len(records("flag.jsonl")) == 2
    assert len(records("file.jsonl")) == 5
    ok, image = cv2.VideoCapture(str(CLIP)).read()
    assert ok
    cv2.imwrite("one.png", image)
    assert run.main(["--config", "run.toml", "--source", "one.png"]) == 0, "another source, not one more"
    assert [line["source"] for line in records("file.jsonl")] == [0]
    assert records("file.jsonl")[0]["file"] == "one.png"


def test_what_a_file_asks_of_its_cameras_is_not_asked_of_other_sources():
    Path("run.toml").write_text("camera = [0]\nwidth = 1280\nheight = 720\nfps = 60\nheadless = true\n")
    rest = ["--max-frames", "2", "--json", "o.jsonl"]
    assert run.main(["--config", "run.toml", "--source", str(CLIP), *rest]) == 0
    assert len(records("o.jsonl")) == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("sorce = 'a.mp4'", "run.toml: sorce: no such setting; is it source?"),
        ("xyzzy = 1", "run.toml: xyzzy: no such setting; there are "),
        ("track = 'fastest'", "run.toml: track: invalid choice: 'fastest' (choose from "),
        ("threads = 'many'", "run.toml: threads: expected a whole number"),
        ("headless = 1", "run.toml: headless: expected true or false, got 1"),
        ("threads = true", "run.toml: threads: expected a text or a number, got True"),
        ("json = ['a', 'b']", "run.toml: json: expected one value, got a list of 2"),
        ("[source]\nname = 'a'", "run.toml: source: expected a text or a number"),
        ("source = ", "run.toml: not TOML"),
        ("config = 'other.toml'", "run.toml: config: no such setting"),
        ('json = "a\\u0000b.jsonl"', "run.toml: json: holds a NUL character"),
        (f"threads = {'9' * 5000}", "run.toml: not TOML"),
        (f"threads = {'[' * 100_000}", "run.toml: not TOML: nested too deeply"),
    ],
)
def test_a_file_of_settings_that_cannot_be_used_is_one_line(capsys, content, expected):
    Path("run.toml").write_text(content)
    assert expected in refused(capsys, "--config", "run.toml", "--headless", "--source", str(CLIP))


def test_a_missing_file_of_settings_is_one_line(capsys):
    assert "none.toml: no such file" in refused(capsys, "--config", "none.toml").lower()


# ---- trying it all beforehand -----------------------------------------------------------------------------


def test_a_check_tries_networks_sources_and_outputs_and_writes_nothing(capsys):
    before = sorted(Path().rglob("*"))
    arguments = [
        "--check",
        "--source",
        str(CLIP),
        "--save",
        "o.mp4",
        "--json",
        "o.jsonl",
        "--udp",
        "udp://[::1]:9",
    ]
    assert run.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line for line in out.splitlines() if line.startswith(("ok ", "FAILS"))][1:] == [
        line for line in out.splitlines() if "astronaut" in line or "output: " in line
    ]
    assert "gives what the model was exported with" in out
    for name in ("o.mp4", "o.jsonl", "udp://[::1]:9"):
        assert f"ok      output: {name}\n" in out
    assert sorted(Path().rglob("*")) == before


def test_a_check_says_all_that_would_fail(capsys):
    arguments = ["--check", "--model", "no_such_model", "--source", "none.mp4", "--json", "none/o.jsonl"]
    arguments += ["--save", "o.txt", "--csv", "none/o.csv", "--udp", "udp://host"]
    assert run.main([*arguments, "--mqtt", "mqtt://127.0.0.1"]) == 1
    out, err = capsys.readouterr()
    wrong = ["no_such_model", "none.mp4: no such file", "no topic to publish to"]
    wrong += [f"none/o.{kind}: there is no folder none" for kind in ("jsonl", "csv")]
    wrong += ["o.txt: cannot write this kind of file", "UDP needs a host and a port"]
    assert out.count("FAILS") == len(wrong)
    for part in wrong:
        assert any(part in line for line in out.splitlines() if line.startswith("FAILS"))
        assert any(part in line for line in err.splitlines() if line.startswith("error: "))


def test_a_check_tries_every_output_where_two_name_the_same_file(capsys):
    assert run.main(["--check", "--json", "o", "--csv", "o", "--udp", "udp://host"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILS")]
    assert len(failed) == 2
    assert "name the same file" in failed[0]
    assert "UDP needs a host and a port" in failed[1]


def test_a_check_judges_outputs_by_what_the_sources_are(capsys):
    ok, image = cv2.VideoCapture(str(CLIP)).read()
    assert ok
    cv2.imwrite("one.png", image)
    check = ["--check", "--model", "no_such_model"]  # which fails, and is none of the test's business
    assert run.main([*check, "--source", "one.png", "--save", "o.png"]) == 1
    assert "ok      output: o.png\n" in capsys.readouterr().out
    assert run.main([*check, "--save", "o.png"]) == 1
    assert "ok      output: o.png\n" in capsys.readouterr().out
    assert run.main([*check, "--save", "none/o.mp4"]) == 1
    assert "FAILS   none/o.mp4: there is no folder none" in capsys.readouterr().out
