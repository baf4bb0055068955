"""Recording on demand: whole files, nothing overwritten, and a full disk that does not end the run."""

import json
import re
import shutil

import pytest

pytest.importorskip("aiohttp", reason="the page needs aiohttp")

from page_client import FILE, LIVE, OWN, ask, indices_of, levels_of, pages, plain, result, state

import edge_kp.live.sinks as sinks_module
from edge_kp.errors import SinkError
from edge_kp.live.page import Recording


@pytest.fixture
def serve():
    with pages() as make:
        yield make


def test_a_recording_holds_what_came_between_start_and_stop(tmp_path, serve):
    recording = Recording(tmp_path / "rec", plain, [FILE])
    page = serve(recorder=recording)
    assert not (tmp_path / "rec").exists()
    recording.write(result(0))
    name = json.loads(ask(page, "/record/start", "POST", OWN)[2])["file"]
    assert re.fullmatch(r"edge_kp-\d{8}-\d{6}\.mp4", name)
    assert ask(page, "/record/start", "POST", OWN)[0] == 409  # one at a time
    for i in range(10, 20):
        recording.write(result(i, level=10 * i))
    assert json.loads(ask(page, "/record/stop", "POST", OWN)[2]) == {"file": None, "problem": None}
    recording.write(result(30))
    video = tmp_path / "rec" / name
    assert levels_of(video) == pytest.approx(list(range(100, 200, 10)), abs=8)
    assert indices_of(video.with_suffix(".jsonl")) == list(range(10, 20))
    assert recording.written == 10


def test_no_recording_replaces_another(tmp_path):
    recording = Recording(tmp_path, plain, [FILE])
    names = set()
    for i in range(4):
        names.add(recording.start())
        recording.write(result(i))
        recording.stop()
    recording.stop()  # nothing to stop
    assert names == {path.name for path in tmp_path.glob("*.mp4")}
    assert len(names) == 4


def test_each_source_is_recorded_to_files_of_its_own(tmp_path):
    recording = Recording(tmp_path, plain, [LIVE, FILE])
    assert recording.start().endswith("-source*.mp4")
    for i in range(6):
        recording.write(result(i, level=200 * (i % 2), source=i % 2))
    recording.close()
    for source in (0, 1):
        (video,) = tmp_path.glob(f"*-source{source}.mp4")
        assert set(levels_of(video)) <= {0, *range(195, 206)}
        assert indices_of(video.with_suffix(".jsonl")) == [source, source + 2, source + 4]


def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path, serve, monkeypatch, caplog):
    recording = Recording(tmp_path, plain, [FILE])
    page = serve(recorder=recording)
    name = recording.start()
    recording.write(result(0))
    monkeypatch.setattr(sinks_module, "RESERVE_BYTES", 2**80)
    recording.write(result(1))
    recording.write(result(2))
    told = state(page)["recording"]
    assert told["file"] is None
    assert "the recording ended early" in told["problem"]
    assert "the disk is full" in told["problem"]
    assert "the disk is full" in caplog.text
    assert levels_of(tmp_path / name) == pytest.approx([0], abs=2)
    assert indices_of((tmp_path / name).with_suffix(".jsonl")) == [0]
    monkeypatch.undo()
    recording.start()
    assert recording.problem is None
    recording.write(result(3))
    recording.close()


def test_a_folder_that_goes_away_ends_the_recording_and_not_the_run(tmp_path):
    recording = Recording(tmp_path / "stick", plain, [FILE])
    recording.start()
    shutil.rmtree(tmp_path / "stick")
    (tmp_path / "stick").write_text("a file now")
    recording.write(result(0))
    assert recording.recording is None
    assert "ended early" in recording.problem
    with pytest.raises(SinkError, match="choose another folder"):
        recording.start()
    assert recording.recording is None


def test_a_recording_without_frames_says_so(tmp_path):
    recording = Recording(tmp_path, plain, [FILE])
    recording.start()
    recording.stop()
    assert recording.problem == "nothing was recorded: no frame came in that time"
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_the_run_finishes_the_recording(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="go into a folder"):
        Recording(tmp_path / "file", plain, [FILE])
    recording = Recording(tmp_path, plain, [FILE])
    name = recording.start()
    recording.write(result(0))
    recording.close()
    recording.close()
    assert len(levels_of(tmp_path / name)) == 1
    with pytest.raises(SinkError, match="the run has ended"):
        recording.start()
