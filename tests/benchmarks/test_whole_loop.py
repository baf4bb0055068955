"""What the benchmark of the loop shows it, counts and fits; the times themselves are not asserted."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import loop
from benchmarks.loop_scene import GREY, PATCH, WARM_UP, Memory, Run, Scene, frames, patches, run
from edge_kp.errors import BackendError
from edge_kp.live.statistics import Summary

VGA = (640, 480)


# ---- what the loop sees ---------------------------------------------------------------------------------


def test_a_face_is_as_large_in_every_frame_size():
    cut = patches()
    assert {p.shape for p in cut} == {(PATCH[1], PATCH[0], 3)}
    for size in (VGA, (1280, 720), (1920, 1080)):
        for objects in (1, 5, 8):
            picture = frames(Scene(*size, objects, 1))[0]
            assert picture.shape == (size[1], size[0], 3)
            covered = (picture != GREY).any(axis=2).sum()
            assert covered == pytest.approx(objects * PATCH[0] * PATCH[1], rel=0.01)


def test_the_video_has_no_jump():
    pictures = frames(Scene(*VGA, 1, 1))
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise([*pictures, pictures[0]])]
    assert min(steps) > 0
    assert max(steps) < 4 * np.median(steps)
    assert not pictures[0].flags.writeable


def source(count, live, ready=True):
    given = threading.Event()
    if ready:
        given.set()
    return Memory(frames(Scene(*VGA, 1, 1))[:4], count, live, given, 1, "memory")


def test_a_source_gives_so_many_frames_and_ends():
    one = source(6, live=False)
    found = []
    while (frame := one.read()) is not None:
        found.append(frame)
    assert [f.index for f in found] == list(range(6))
    assert one.made == 6
    assert found[0].image is found[4].image is not found[1].image


def test_a_paced_source_keeps_the_cameras_time():
    one = source(4, live=True)
    found = [one.read() for _ in range(4)]
    gaps = [b.captured - a.captured for a, b in pairwise(found)]
    assert gaps == pytest.approx([1 / 30] * 3)
    assert time.monotonic() >= found[-1].captured  # none comes before it was taken


def test_a_source_waits_for_the_networks_and_can_be_stopped_meanwhile():
    one = source(4, live=False, ready=False)
    one.stop()
    assert one.read() is None
    assert one.made == 0


# ---- figures --------------------------------------------------------------------------------------------


def made_up(scene, fps, age_s=0.01, found=None, dropped=0):
    """A run that gave so many results a second after its warm-up, of its sources in turns."""
    each, n = 20, scene.sources
    rows = [(0.0, 9.0, 0, i, source) for i in range(WARM_UP) for source in range(n)]
    rows += [
        (1 + i / fps, age_s, scene.objects if found is None else found, WARM_UP + i // n, i % n)
        for i in range(each * n)
    ]
    summary = Summary(frames=len(rows), captured=len(rows) + dropped, dropped=dropped)
    return Run(len(rows) + dropped, summary, rows, {"inference_threads": 1})


def test_what_a_scene_is_told_by():
    scene = Scene(*VGA, 2, 2)
    full = [made_up(scene, fps) for fps in (100, 200, 400)]
    paced = [made_up(scene, 30, age, found=1, dropped=10) for age in (0.02, 0.03, 0.05)]
    told = loop.scene_figures(scene, full, paced)
    assert told["fps"]["median"] == 200
    assert told["ms"] == {"median": 10.0, "quartiles": [7.5, 15.0]}  # of 20, 10, 5: two sources
    assert told["age_ms"] == {"median": 30.0, "quartiles": [25.0, 40.0]}
    assert told["age_p99_ms"] == pytest.approx(50)
    assert told["dropped_percent"] == 20.0  # 10 beside 40 that count; the warm-up is in neither
    assert told["all_found_percent"] == 50.0  # those of the paced runs lack one
    assert told["frames"] == {"made": 630, "inferred": 600, "dropped": 30, "failed": 0, "shown": 600}


def test_failed_frames_were_not_dropped():
    scene = Scene(*VGA, 1, 1)
    paced = made_up(scene, 30, dropped=5)
    summary = replace(paced.summary, dropped=0, failed=5)
    told = loop.scene_figures(scene, [made_up(scene, 100)], [replace(paced, summary=summary)])
    assert told["dropped_percent"] == 0
    assert told["frames"]["failed"] == 5


def test_time_in_which_a_source_has_ended_is_not_counted():
    rows = [(0.0, 0.0, 1, i, source) for i in range(WARM_UP) for source in (0, 1)]
    rows += [(1 + i / 50, 0.0, 1, WARM_UP + i, 0) for i in range(11)]  # ends at 1.2
    rows += [(1 + i / 10, 0.0, 1, WARM_UP + i, 1) for i in range(11)]  # alone until 2
    one = Run(len(rows), Summary(frames=len(rows), captured=len(rows)), rows, {})
    assert loop.fps(one) == pytest.approx((11 + 3 - 1) / 0.2)
    assert len(loop.counted(one)) == 22


def test_slopes_are_those_of_the_lines():
    sizes = [(1000, 1000), (2000, 1000)]

    def ms(s, round_):  # 2 ms for each object, 3 for each megapixel, 5 for each source, 1 more in round 1
        return 2 * s.objects + 3 * s.megapixels + 5 * s.sources + round_ * s.objects

    runs = {
        (scene, mode): [made_up(scene, 1e3 * scene.sources / ms(scene, k)) for k in (0, 1)]
        for scene in loop.scenes(sizes, [1, 2, 8], [1, 2, 4])
        for mode in loop.MODES
    }
    assert len(runs) == 2 * 2 * 5
    grown = loop.growth(runs, sizes, 1, 1)
    assert grown["ms_per_further_object"]["1000x1000"] == {"median": 2.5, "quartiles": [2.25, 2.75]}
    assert grown["ms_per_further_source"]["2000x1000"]["median"] == 5.0
    assert grown["ms_per_megapixel"] == {"median": 3.0, "quartiles": [3.0, 3.0]}
    alone = loop.growth({k: v for k, v in runs.items() if k[0] == Scene(1000, 1000, 1, 1)}, sizes[:1], 1, 1)
    assert alone["ms_per_megapixel"] is None
    assert alone["ms_per_further_object"] == {"1000x1000": None}
    assert "ms per further object, 2000x1000: 2.50 (2.25 to 2.75)" in loop.growth_lines(grown)
    assert loop.growth_lines(alone) == ""


def test_frames_that_went_astray_are_an_error():
    scene = Scene(*VGA, 1, 1)
    good = made_up(scene, 100, dropped=3)
    loop.check(scene, good)
    with pytest.raises(BackendError, match="do not add up"):
        loop.check(scene, Run(good.made + 1, good.summary, good.rows, {}))
    with pytest.raises(BackendError, match="do not add up"):
        loop.check(scene, Run(good.made, good.summary, good.rows[1:], {}))


def test_a_run_too_short_to_count_is_refused():
    with pytest.raises(BackendError, match=r"1 result\(s\) after the first 30 frames"):
        loop.counted(Run(31, Summary(), [(0.0, 0.0, 1, i, 0) for i in range(WARM_UP + 1)], {}))


# ---- the whole ------------------------------------------------------------------------------------------


def test_all_objects_of_all_sources_are_found():
    scene = Scene(*VGA, 3, 2)
    one = run(scene, WARM_UP + 10, False, "face68", "onnxruntime", "auto", 1)
    loop.check(scene, one)
    assert one.made == one.summary.frames == 2 * (WARM_UP + 10)
    assert [row[2] for row in loop.counted(one)] == [3] * 20


def test_a_short_run_writes_every_entry_and_a_plot(tmp_path, capsys):
    options = "--sizes 640x480 --objects 2 1 --sources 1 --rounds 1 --frames 45 --seconds 2.5"
    assert loop.main([*options.split(), "--backend", "onnxruntime", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "loop.json").read_text())
    assert [(s["objects"], s["sources"]) for s in result["scenes"]] == [(1, 1), (2, 1)]
    for scene in result["scenes"]:
        f = scene["frames"]
        assert f["made"] == 45 + 75 == f["inferred"] + f["dropped"] + f["failed"]
        assert f["shown"] == f["inferred"]
        assert scene["all_found_percent"] > 90
        assert scene["fps"]["quartiles"][0] <= scene["fps"]["median"] <= scene["fps"]["quartiles"][1]
        assert 0 < scene["age_ms"]["median"] <= scene["age_p99_ms"]
        left = set(scene) - {"width", "height", "inference_threads"}
        assert left <= {word.strip() for name in result["definitions"] for word in name.split(",")} | {
            "age_p90_ms",
            "age_p99_ms",
        }
    assert result["ms_per_further_object"]["640x480"]["median"] != 0
    assert result["ms_per_megapixel"] is None
    assert (result["backend"], result["frames_a_source"]) == ("onnxruntime", {"full_speed": 45, "paced": 75})
    assert (tmp_path / "loop.png").stat().st_size > 5000
    assert "ms per further object, 640x480: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "no such model"], "no folder with a model.json"),
        (["--objects", "1", "--sources", "1", "--frames", "5"], "give a run more of them"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(options, told, tmp_path, capsys):
    short = ["--sizes", "640x480", "--rounds", "1", "--seconds", "0.5", "--backend", "onnxruntime"]
    assert loop.main([*short, *options, "--out", str(tmp_path / "out")]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [["--sizes", "320x240"], ["--sizes", "wide"], ["--objects", "9"], ["--sources", "0"]]
)
def test_wrong_usage_is_refused(options, capsys):
    with pytest.raises(SystemExit) as ended:
        loop.main(options)
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err.splitlines()[-1]
