"""Which pictures are written to be labelled next, and what is written with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edge_kp
from edge_kp import Detector, prelabel
from edge_kp.prelabel import Picture, chosen, main
from edge_kp.training.datasets import load_dataset
from edge_kp.training.doubt import Seen
from edge_kp.types import Array, Detection

CLIP = Path(edge_kp.__file__).parent / "assets" / "astronaut.mp4"
FAST = ["--backend", "onnxruntime", "--threads", "1"]


@pytest.fixture
def photos(frames: list[Array], tmp_path: Path) -> Path:
    """Three frames of the clip, in one of which half of the face is covered, and a picture of nothing."""
    folder = tmp_path / "photos"
    folder.mkdir()
    covered = frames[0].copy()
    covered[272:312, 281:359] = 128
    pictures = {"a": frames[0], "b": covered, "c": frames[60]}
    for name, image in pictures.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), image)
    assert cv2.imwrite(str(folder / "d.jpg"), np.full((120, 160, 3), 90, np.uint8))
    return folder


def command(*arguments: object, model: str = "face68") -> int:
    return main(["--model", model, *FAST, *map(str, arguments)])


def names(out: Path) -> list[str]:
    found = [p.name for p in out.iterdir() if p.suffix in (".png", ".jpg")]
    return sorted(name for name in found if name != prelabel.OVERVIEW)


def test_pictures_come_with_what_the_model_sees(photos: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "next"
    assert command("--source", photos, "--out", out) == 0
    told = capsys.readouterr().out
    assert {name[2:] for name in names(out)} == {"a.png", "b.png", "c.png", "d.jpg"}
    assert names(out)[3] == "4_d.jpg"  # where nothing is found
    for name in names(out):
        assert (out / name).read_bytes() == (photos / name[2:]).read_bytes()
    assert f"{out}: 4 of 4 pictures: in 3 the points of an object move by " in told
    assert "; in 1 nothing is found; see " in told
    assert f"--data coco:{out / 'labels.json'}" in told
    labels = json.loads((out / "labels.json").read_text())
    assert [image["file_name"] for image in labels["images"]] == names(out)
    assert {a["image_id"] for a in labels["annotations"]} == {1, 2, 3}
    sheet = cv2.imread(str(out / prelabel.OVERVIEW))
    assert sheet.shape == (256, 4 * 256, 3)
    assert all(sheet[:, 256 * i : 256 * (i + 1)].std() > 5 for i in range(3))


def test_training_reads_the_labels(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "next"
    assert command("--source", photos / "a.png", "--out", out) == 0
    data = load_dataset([f"coco:{out / 'labels.json'}"])
    with Detector("face68", backend="onnxruntime", threads=1) as detector:
        assert data.schema.keypoints == detector.schema.keypoints
        assert set(data.schema.flip_pairs) == set(detector.schema.flip_pairs)
        (found,) = detector.detect(cv2.imread(str(photos / "a.png")))
    (sample,) = data.samples
    assert np.abs(sample.keypoints - found.keypoints).mean() < 0.01 * np.ptp(found.keypoints)
    assert sample.visible.mean() > 0.9


def test_only_so_many_are_written_and_a_quarter_shows_nothing(photos: Path, tmp_path: Path) -> None:
    for i in range(5):
        cv2.imwrite(str(photos / f"empty{i}.png"), np.full((90 + i, 160, 3), 90, np.uint8))
    out = tmp_path / "next"
    assert command("--source", photos, "--out", out, "--count", 2) == 0
    assert len(names(out)) == 2
    assert "empty" not in names(out)[0]
    assert len(json.loads((out / "labels.json").read_text())["annotations"]) == 2


def test_frames_of_a_clip(tmp_path: Path, frames: list[Array]) -> None:
    out = tmp_path / "next"
    assert command("--source", CLIP, "--every", "4", "--out", out) == 0
    assert sorted(name[2:] for name in names(out)) == [
        f"astronaut-{i:06d}.jpg" for i in (0, 100, 200)
    ]  # 25 frames a second
    first = next(name for name in names(out) if name.endswith("000000.jpg"))
    assert np.abs(cv2.imread(str(out / first)).astype(int) - frames[0]).mean() < 3


def test_what_is_labelled_or_comes_twice_is_left_out(photos: Path, tmp_path: Path, capsys: Any) -> None:
    out, more = tmp_path / "next", tmp_path / "more"
    assert command("--source", photos / "b.png", "--source", photos / "b.png", "--out", out) == 0
    assert "1 of 1 pictures (1 others are known already)" in capsys.readouterr().out
    nested = tmp_path / "labelled" / "first"
    out.rename(nested.parent.mkdir() or nested)
    assert command("--source", photos, "--labelled", nested.parent, "--out", more) == 0
    assert {name[2:] for name in names(more)} == {"a.png", "c.png", "d.jpg"}
    assert command("--source", nested / "1_b.png", "--labelled", nested, "--out", tmp_path / "no") == 1
    assert "all 1 pictures are known already; give others to --source" in capsys.readouterr().err


def test_ctrl_c_loses_nothing_that_was_seen(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pictures = prelabel._pictures

    def interrupted(*arguments: Any) -> Any:
        for i, picture in enumerate(pictures(*arguments)):
            if i == 2:
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(prelabel, "_pictures", interrupted)
    assert command("--source", photos, "--out", tmp_path / "next") == 130
    shown = capsys.readouterr()
    assert "2 of 2 pictures" in shown.out
    assert shown.err.splitlines()[-1] == "stopped"
    assert len(names(tmp_path / "next")) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "nowhere"], "nowhere: no such file"),
        (["--source", "photos", "--labelled", "nowhere"], "--labelled: nowhere: no such folder"),
        (["--source", "photos", "--labelled", "nothing"], "--labelled: nothing: no picture in this folder"),
        (["--source", "photos", "--out", "photos"], "photos: holds something already; give a new folder"),
        (["--source", "photos", "--out", "photos/a.png"], "holds something already; give a new folder"),
        (["--source", "/dev/video99"], "/dev/video99: no such camera"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str],
    says: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nothing").mkdir()
    assert command("--out", "out", *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not (Path("out") / "labels.json").exists()


def test_a_source_without_an_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    opened = prelabel.open_source

    def live(spec: str) -> Any:
        source = opened(spec)
        source.live = True  # type: ignore[misc]
        return source

    monkeypatch.setattr(prelabel, "open_source", live)
    assert command("--source", CLIP, "--out", tmp_path / "next") == 1
    assert "has no end; record a clip of it" in capsys.readouterr().err


def picture(number: int, doubt: float | None, points: Array | None = None) -> Picture:
    shape = np.random.default_rng(number).uniform(0, 9, (3, 2)) if points is None else points
    one = Detection(0, np.zeros(4), 1.0, shape, np.ones(3))
    seen = Seen((), ()) if doubt is None else Seen((one,), (doubt,))
    return Picture(Path(f"{number}.png"), (9, 9), seen)


@pytest.mark.parametrize(
    ("shown", "empty", "count", "expected"),
    [(20, 20, 8, (6, 2)), (20, 1, 8, (7, 1)), (3, 20, 8, (3, 5)), (3, 2, 8, (3, 2)), (0, 9, 2, (0, 2))],
)
def test_a_quarter_may_show_nothing(shown: int, empty: int, count: int, expected: tuple[int, int]) -> None:
    pictures = [picture(i, 0.1) for i in range(shown)] + [picture(99 + i, None) for i in range(empty)]
    taken = chosen(pictures, count)
    kinds = [bool(p.seen.objects) for p in taken]
    assert (sum(kinds), len(kinds) - sum(kinds)) == expected
    assert kinds == sorted(kinds, reverse=True)
    assert len({p.path for p in taken}) == len(taken)
    assert [p.path for p in chosen(pictures, count)] == [p.path for p in taken]


def test_frames_of_clips_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    clips = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        clips += ["--source", (tmp_path / name / "clip.avi")]
        writer = cv2.VideoWriter(str(clips[-1]), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
        writer.write(np.full((48, 64, 3), 80 if name == "one" else 160, np.uint8))
        writer.release()
    assert command(*clips, "--out", tmp_path / "next") == 0
    means = [cv2.imread(str(tmp_path / "next" / name)).mean() for name in names(tmp_path / "next")]
    assert sorted(round(mean / 80) for mean in means) == [1, 2]
