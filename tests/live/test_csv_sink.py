"""The table: what stands in it, and that its rows stay whole."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_kp.errors import SinkError
from edge_kp.live.csv_sink import CsvSink
from edge_kp.live.frames import Frame
from edge_kp.live.lines import encode
from edge_kp.live.statistics import Result
from edge_kp.schema import FACE68, KeypointSchema
from edge_kp.types import Detection, HeadPose

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")

SCHEMA = KeypointSchema("pair2", ("left eye", 'the "right", eye'), (), (), (0, 1))


def detection(number=3, pose=None):
    points = np.array([[1.234, 2], [-3, 4]], np.float32)
    box = np.array([1, 2, 3.456, 4], np.float32)
    attributes = {"occlusion": 0.5, "blur": 0.25}
    return Detection(number, box, 0.9, points, np.array([1, 0.1234], np.float32), attributes, pose)


def result(index, *detections, source=0):
    frame = Frame(index, index / 25, 0.0, np.zeros((4, 4, 3), np.uint8), source)
    return Result(frame, list(detections), {"total": 0.01})


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_there_is_a_row_per_object_on_disk_at_once(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("an older run, longer than the first row of the new one\n" * 99)
    sink = CsvSink(path, SCHEMA)
    assert "older" in path.read_text()  # nothing is replaced before there is a result
    sink.write(result(0))
    assert path.read_text() == ""
    sink.write(result(7, detection(pose=HeadPose(-12.34, 5.0, 0.0)), detection(4), source=2))
    rows = table(path)
    sink.write(result(8, detection(5)))
    sink.close()
    sink.close()
    assert (sink.written, sink.lost) == (3, 0)
    assert table(path)[:2] == rows
    assert [row["id"] for row in table(path)] == ["3", "4", "5"]
    assert rows[0] == {
        "frame": "7",
        "time_s": "0.28",
        "source": "2",
        "id": "3",
        "score": "0.9",
        "x0": "1.0",
        "y0": "2.0",
        "x1": "3.46",
        "y1": "4.0",
        "yaw": "-12.3",
        "pitch": "5.0",
        "roll": "0.0",
        "occlusion": "0.5",
        "blur": "0.25",
        "left eye_x": "1.23",
        "left eye_y": "2.0",
        "left eye_visibility": "1.0",
        'the "right", eye_x': "-3.0",
        'the "right", eye_y': "4.0",
        'the "right", eye_visibility': "0.123",
    }
    assert (rows[1]["yaw"], rows[1]["pitch"], rows[1]["roll"]) == ("", "", "")
    assert path.read_bytes().count(b"\r\n") == path.read_bytes().count(b"\n") == 4


def test_the_schema_is_asked_for_only_when_there_is_an_object(tmp_path):
    asked = []
    sink = CsvSink(tmp_path / "out.csv", lambda: asked.append(1) or SCHEMA)
    sink.write(result(0))
    assert not asked
    sink.write(result(1, detection()))
    sink.write(result(2, detection()))
    sink.close()
    assert len(asked) == 1
    assert len(table(tmp_path / "out.csv")) == 2


def test_where_nothing_was_found_there_is_a_header_and_without_results_no_file(tmp_path):
    sink = CsvSink(tmp_path / "empty.csv", FACE68)
    sink.write(result(0))
    sink.close()
    names = (tmp_path / "empty.csv").read_text().split(",")
    assert names[:5] == ["frame", "time_s", "source", "id", "score"]
    assert len(names) == 12 + 3 * 68
    assert table(tmp_path / "empty.csv") == []
    CsvSink(tmp_path / "none.csv", FACE68).close()
    assert not (tmp_path / "none.csv").exists()


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)


@given(names=st.lists(text, min_size=2, max_size=2, unique=True))
def test_any_names_come_back(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("csv") / "out.csv"
    sink = CsvSink(path, KeypointSchema("any", tuple(names), (), (), (0, 1)))
    sink.write(result(0, detection()))
    sink.close()
    with open(path, newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    assert header[14::3] == [f"{name}_x" for name in names]
    assert len(row) == len(header)


@linux
def test_a_full_disk_is_said_in_one_line():
    sink = CsvSink("/dev/full", SCHEMA)
    with pytest.raises(SinkError, match=r"/dev/full: no space left on device") as caught:
        sink.write(result(0, detection()))
    assert "\n" not in str(caught.value)
    sink.close()
    assert sink.written == 0


LIMITED = """
import resource, sys
sys.path[:0] = [sys.argv[1]]
from test_csv_sink import SCHEMA, CsvSink, SinkError, detection, result

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sink = CsvSink(sys.argv[2], SCHEMA)
try:
    for i in range(3000):
        sink.write(result(i, detection()))
except SinkError as error:
    print(error)
sink.close()
"""


@linux
def test_where_a_file_cannot_grow_rows_stay_whole(tmp_path):
    path = tmp_path / "out.csv"
    command = [sys.executable, "-c", LIMITED, str(Path(__file__).parent), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.count("\n") == 1
    assert "out.csv: file too large" in run.stdout
    assert path.read_bytes().endswith(b"\r\n")
    assert path.stat().st_size > 99_000
    rows = table(path)
    assert [int(row["frame"]) for row in rows] == list(range(len(rows)))
    assert all(None not in row.values() for row in rows)


def test_what_can_be_said_about_a_path_is_said_before_the_run(tmp_path):
    with pytest.raises(SinkError, match="there is no folder"):
        CsvSink(tmp_path / "none" / "a.csv", SCHEMA)
    with pytest.raises(SinkError, match="this is a folder"):
        CsvSink(tmp_path, SCHEMA)


def test_rows_of_pictures_name_their_files_whatever_comes_first(tmp_path):
    sink = CsvSink(tmp_path / "out.csv", SCHEMA, files=True)
    sink.write(result(0, detection()))  # of a clip beside the pictures
    for i, name in enumerate(("photos/a.jpg", "photos/b, c.jpg")):
        seen = result(i, *[detection()] * i)
        sink.write(Result(replace(seen.frame, file=name), seen.detections, seen.timings))
    sink.close()
    clip, row = table(tmp_path / "out.csv")
    assert (clip["file"], row["file"]) == ("", "photos/b, c.jpg")
    assert list(row)[:5] == ["frame", "time_s", "source", "file", "id"]


def test_a_name_that_is_not_utf8_is_written_as_in_the_json(tmp_path):
    sink = CsvSink(tmp_path / "out.csv", SCHEMA, files=True)
    seen = result(0, detection())
    named = Result(replace(seen.frame, file="m\udcfcller.png"), seen.detections, seen.timings)
    sink.write(named)
    sink.close()
    (row,) = table(tmp_path / "out.csv")
    assert row["file"] == "m\\udcfcller.png"
    assert f'"file":"{row["file"]}"' in encode(named).decode()
