"""From data set names to a run: what is held back, what is written, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from edge_kp.errors import DataError, ModelError
from edge_kp.schema import KeypointSchema
from edge_kp.templates import TemplateBank, build_bank
from edge_kp.train import exported, main
from edge_kp.training import both_stages
from edge_kp.training import split as split_module
from edge_kp.training.both_stages import last_epoch, train_cascade
from edge_kp.training.checkpoints import load_checkpoint, save_checkpoint
from edge_kp.training.claiming import claim
from edge_kp.training.datasets import Dataset, load_dataset
from edge_kp.training.locating import LocatorConfig, load_locator
from edge_kp.training.loop import Place
from edge_kp.training.parts import PARTS
from edge_kp.training.recipe import Recipe, check_recipe, load_run, model_spec
from edge_kp.training.split import refuse_several, training_samples

pytestmark = pytest.mark.usefixtures("short_measuring")

TINY = ["--epochs", "2", "2", "--batch", "64", "--k", "8", "--sizes", "48", "48", "--widths", "8", "8"]
TINY += ["--searches", "0", "8", "--trunks", "plain", "plain", "--fusions", "plain", "separable"]
TINY += ["--locator-size", "64", "--locator-width", "8", "--locator-epochs", "2", "--locator-pictures", "1"]


def coco_like(folder: Path, count: int, **fields: Any) -> str:
    """A small data set on disk: kites with a tail to the right or left, one a picture."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        rng = np.random.default_rng(i)
        tail = (70, 22)[i % 2]
        points = np.array([[30, 30], [60, 34], [46, 62], [tail, 70]]) + rng.uniform(-8, 8, (4, 2))
        image = np.full((96, 96, 3), 90, np.uint8)
        cv2.fillPoly(image, [points[:3].round().astype(np.int32)], (40, 200, 240))
        cv2.circle(image, points[3].round().astype(int).tolist(), 4, (250, 250, 250), -1)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 96})
        keypoints = np.column_stack([points + 0.5, np.full(4, 2)]).ravel().tolist()
        annotations.append({"id": i, "image_id": i, "category_id": 1, "keypoints": keypoints, **fields})
    category = {"id": 1, "name": "kite4", "keypoints": ["left", "right", "end", "tail"], "skeleton": []}
    data = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "train.json").write_text(json.dumps(data))
    return f"coco:{folder / 'train.json'}"


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def keys(samples: Any) -> set[str]:
    return {s.key for s in samples}


# ---- what is held back -------------------------------------------------------------------------------


def test_a_picture_that_is_the_box_shows_one_object() -> None:
    samples = load_dataset(["synthetic:4"]).samples
    pictures = [replace(sample, picture=name) for sample, name in zip(samples, "abbb", strict=True)]
    refuse_several([*pictures[:2], *samples])  # drawn ones have no file, and are each a picture
    with pytest.raises(DataError, match=r"several labelled objects: 1, e\.g\. b; with --box image"):
        refuse_several(pictures)


def test_about_a_twentieth_is_held_back_and_nothing_is_lost() -> None:
    train, held = training_samples(("synthetic:3000",), (), 0.05)
    assert len(train) + len(held) == 3000
    assert not keys(train.samples) & keys(held)
    assert 0.035 < len(held) / 3000 < 0.065


def test_a_photo_stays_on_its_side_when_others_come() -> None:
    few, held_few = training_samples(("synthetic:300",), (), 0.05)
    many, held_many = training_samples(("synthetic:600", "synthetic:300,seed=5"), (), 0.05)
    assert keys(held_few) <= keys(held_many)
    assert keys(few.samples) <= keys(many.samples)


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch, kites: Any) -> Callable[[list[str]], tuple[list[str], list[str]]]:
    """Names of photos → names to train on and names held back."""
    (sample,) = kites(1)

    def split(names: list[str]) -> tuple[list[str], list[str]]:
        dataset = Dataset(kites.schema, tuple(replace(sample, key=name) for name in names), ("photos",))
        monkeypatch.setattr(split_module, "load_dataset", lambda *_: dataset)
        train, held = training_samples(("ibug:photos",), (), 0.05)
        return [s.key for s in train.samples], [s.key for s in held]

    return split


def test_the_side_follows_from_the_name_on_every_machine(sides: Any) -> None:
    """Recorded once: a release that moves photos between the sides would spoil every comparison."""
    names = [f"helen/{i}.jpg" for i in range(100, 200)]
    train, held = sides(names)
    few = [f"helen/{i}.jpg" for i in (101, 128, 142, 147, 156, 166, 181, 199)]
    assert held == few
    again = sides(names[::-1])
    assert (set(again[0]), set(again[1])) == (set(train), set(held))


def test_changed_copies_of_a_photo_stay_on_its_side(sides: Any) -> None:
    """As Roboflow names what it turns, crops and darkens before it exports it."""
    names = [
        f"set/p{i:02}_jpg.rf.{(i * 97 + copy) * 7919:032x}.jpg#1" for i in range(40) for copy in range(3)
    ]
    train, held = sides(names)
    photos = [{name.partition("_jpg")[0] for name in side} for side in (train, held)]
    assert photos[1]
    assert not photos[0] & photos[1]


@pytest.mark.parametrize("pattern", ["photo{}.jpg", "images/{:04d}.jpg", "{:03d}.png", "scan ({}).jpeg"])
@pytest.mark.parametrize(("count", "fewest"), [(2, 1), (10, 1), (11, 2), (30, 3), (100, 8), (500, 8)])
def test_few_photos_do_not_leave_the_choice_to_one_of_them(
    sides: Any, pattern: str, count: int, fewest: int
) -> None:
    """However alike their names are, and whatever copies of them come along."""
    names = [pattern.format(i) for i in range(count)]
    train, held = sides(names)
    assert fewest <= len(held) <= max(fewest, 0.2 * count)
    assert len(train) + len(held) == count
    stem = [name.rpartition(".")[0] for name in held]
    turned = [f"turned/{Path(name).stem}_t{k}.jpg" for name in names for k in range(4)]
    again = sides([*names, *turned])[1]
    assert {Path(name).stem.partition("_t")[0] for name in again} == {Path(name).name for name in stem}


def test_numbered_photos_of_one_subject_stay_together(sides: Any) -> None:
    names = [f"ytf/person{p}_{i}.jpg" for p in range(400) for i in range(1, 12)]
    names += [f"ytf/person{p}_3.jpg#{face}" for p in range(400) for face in range(2)]
    train, held = ({name.split("_")[0] for name in part} for part in sides(names))
    assert not train & held
    assert len(train | held) == 400
    assert 5 < len(held) < 40


def test_a_set_whose_photos_are_merely_numbered_can_be_trained_on(sides: Any) -> None:
    """image_0001.png, image_0002.png, … are photos of many subjects, as in LFPW; some must be held back."""
    train, held = sides([f"lfpw/image_{i:04d}.png" for i in range(800)])
    assert 20 <= len(held) <= 80
    assert len(train) + len(held) == 800


def test_what_is_made_of_a_photo_stays_on_its_side(sides: Any) -> None:
    """Turned heads and labels placed anew, in folders of their own."""
    names = [f"helen/{i}.jpg" for i in range(100, 200)]
    held = {Path(name).stem for name in sides(names)[1]}
    made = [f"turned/{i}_t{k}.jpg" for i in range(100, 200) for k in range(4)]
    made += [f"again/{i}.jpg#{i}" for i in range(100, 200)]
    made += [f"both/{i}_o{k}_t1.jpg" for i in range(100, 200) for k in range(2)]
    train, back = sides([*names, *made])
    assert {Path(name).stem.partition("_")[0] for name in back} == held
    assert len(back) == 8 * len(held)
    assert len(train) == 8 * (100 - len(held))


def test_a_folder_may_have_a_sharp_in_its_name(sides: Any) -> None:
    train, held = sides([f"my#set/{i}.jpg" for i in range(100, 200)])
    assert 1 <= len(held) <= 20
    assert len(train) + len(held) == 100


@pytest.mark.parametrize("copied", [False, True])
def test_one_picture_does_not_stand_on_both_sides_whatever_its_objects_are_numbered(
    tmp_path: Path, copied: bool
) -> None:
    spec = coco_like(tmp_path / "set", 30)
    data = json.loads((tmp_path / "set" / "train.json").read_text())
    for i, annotation in enumerate(data["annotations"]):
        annotation["id"] = 100 + i
    (tmp_path / "set" / "val.json").write_text(json.dumps(data))
    other = f"coco:{tmp_path / 'set' / 'val.json'}"
    if copied:  # pictures of the same names are others in another folder
        (tmp_path / "other").mkdir()
        for path in (tmp_path / "set").glob("*.png"):
            shutil.copy(path, tmp_path / "other")
        train, held = training_samples((spec,), (f"{other},{tmp_path / 'other'}",), 0.05)
        assert (len(train), len(held)) == (30, 30)
        return
    with pytest.raises(DataError, match="30 of the 30 samples of --validation are in pictures of --data"):
        training_samples((spec,), (other,), 0.05)


def test_an_object_may_have_two_points_alone(kites: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = KeypointSchema("pair", ("a", "b"), (), (), (0, 1))
    samples = [replace(s, keypoints=s.keypoints[:2], visible=s.visible[:2]) for s in kites(100)]
    monkeypatch.setattr(split_module, "load_dataset", lambda *_: Dataset(schema, tuple(samples), ("pairs",)))
    train, held = training_samples(("ibug:pairs",), (), 0.05)
    assert len(train) + len(held) == 100


def test_a_set_of_its_own_to_validate_on() -> None:
    train, held = training_samples(("synthetic:50",), ("synthetic:20,seed=1",), 0.05)
    assert len(train) == 50
    assert keys(held) == {f"synthetic/seed1/{i}" for i in range(20)}


def test_samples_that_cannot_be_aligned_are_left_out(monkeypatch: pytest.MonkeyPatch, kites: Any) -> None:
    samples = kites(300)
    samples[7].keypoints[2:] = np.nan
    samples[8].keypoints[3:] = np.nan
    dataset = Dataset(kites.schema, tuple(samples), ("kites",))
    monkeypatch.setattr(split_module, "load_dataset", lambda *_: dataset)
    train, held = training_samples(("ibug:kites",), (), 0.05)
    assert keys(samples) - keys(train.samples) - keys(held) == {samples[7].key}
    assert train.left_out == 1


def test_what_is_held_back_is_chosen_among_what_can_be_used(
    monkeypatch: pytest.MonkeyPatch, kites: Any
) -> None:
    """As where the first seconds of a clip were labelled with two points each."""
    samples = kites(60)
    dataset = Dataset(kites.schema, tuple(samples), ("kites",))
    monkeypatch.setattr(split_module, "load_dataset", lambda *_: dataset)
    _, first = training_samples(("ibug:kites",), (), 0.05)
    for sample in first:
        sample.keypoints[2:] = np.nan
    train, held = training_samples(("ibug:kites",), (), 0.05)
    assert (len(held) > 0, train.left_out, len(train) + len(held)) == (True, len(first), 60 - len(first))
    for sample in samples:
        sample.keypoints[2:] = np.nan
    with pytest.raises(DataError, match=r"60 samples leave 0 to train .* \(60 have fewer than 3 labelled"):
        training_samples(("ibug:kites",), (), 0.05)


def test_training_says_how_many_objects_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, other = (coco_like(tmp_path / name, 20) for name in ("train", "other"))
    for name, few in (("train", 3), ("other", 2)):
        path = tmp_path / name / "train.json"
        data = json.loads(path.read_text())
        for annotation in data["annotations"][:few]:
            annotation["keypoints"][6:] = [0] * 6
        path.write_text(json.dumps(data))
    command = ["--part", "stages", "--epochs", "1", "1", "--sizes", "48", "48", "--widths", "8", "8",
               "--batch", "8", "--workers", "0", "--k", "4"]  # fmt: skip
    assert main(["--data", train, "--out", str(tmp_path / "a"), *command]) == 0
    assert "left out: 3 of 20 objects, with fewer than 3 labelled points\n" in capsys.readouterr().out
    spec = f"{other},{tmp_path / 'other'}"
    for path in (tmp_path / "other").glob("*.png"):  # so that they are no copies
        path.write_bytes(path.read_bytes() + b"x")
    assert main(["--data", train, "--validation", spec, "--out", str(tmp_path / "b"), *command]) == 0
    assert "left out: 5 of 40 objects" in capsys.readouterr().out


def test_too_few_samples_say_what_to_do() -> None:
    with pytest.raises(DataError, match=r"1 samples leave 0 to train and 1 to validate on; add photos or"):
        training_samples(("synthetic:1",), (), 0.05)


# ---- what is written -----------------------------------------------------------------------------------


def test_a_run_is_written_whole(tiny_run: Path) -> None:
    names = {p.relative_to(tiny_run).as_posix() for p in tiny_run.rglob("*") if p.is_file()}
    assert {n for n in names if "tensorboard" not in n} == {
        *("run.json", ".lock", "templates.npz", "templates.png", "stage1_errors.npz", "check_crops.npz"),
        *("evaluation.json", "looks.json", "stage1/last.pt", "stage1/best.pt", "stage1/log.csv"),
        *("stage2/last.pt", "stage2/best.pt", "stage2/log.csv"),
        *("locator_first/last.pt", "locator_first/best.pt", "locator_first/log.csv", "unlabelled.npz"),
        *("locator/last.pt", "locator/best.pt", "locator/log.csv", "locator.json", "check_frames.npz"),
    }
    assert sum("tensorboard/events" in n for n in names) == 4
    assert cv2.imread(str(tiny_run / "templates.png")) is not None
    with np.load(tiny_run / "stage1_errors.npz") as file:
        errors = file["errors"]
    assert errors.shape[0] >= both_stages.MEASURED
    assert errors.shape[1] == 4
    assert np.isfinite(errors).all()
    with np.load(tiny_run / "check_crops.npz") as file:
        assert file["stage1"].shape[1:] == file["stage2"].shape[1:] == (48, 48, 3)
        assert file["stage1"].dtype == np.uint8


def test_a_run_that_another_process_trains_is_left_alone(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    command = ["--data", "synthetic:300", *TINY, "--workers", "0", "--out", str(tmp_path / "run")]
    held = claim(Recipe.read(tiny_run / "run.json"), tmp_path / "run", Place(torch.device("cpu")))
    assert held is not None
    assert main(command) == 1
    (line,) = errors(capsys)
    assert line.startswith(
        f"error: {tmp_path / 'run'}: is being trained by process {os.getpid()}; wait for it"
    )
    held.close()
    assert main(command) == 0


def test_what_cannot_be_trained_on_leaves_no_run_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = coco_like(tmp_path / "data", 40)
    (tmp_path / "data" / "7.png").write_bytes(b"broken")
    command = ["--data", data, *TINY, "--part", "stages", "--workers", "0", "--out", str(tmp_path / "run")]
    command += ["--batch", "16"]
    assert main(command) == 1
    assert "7.png: cannot be decoded" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    cv2.imwrite(str(tmp_path / "data" / "7.png"), np.full((96, 96, 3), 90, np.uint8))
    assert main([*command, "--epochs", "1", "1"]) == 0


def test_a_run_is_read_back(tiny_run: Path) -> None:
    recipe, bank, stage1, stage2 = load_run(tiny_run)
    assert recipe == Recipe.read(tiny_run / "run.json")
    assert (recipe.data, recipe.epochs, recipe.sizes, recipe.widths) == (
        ("synthetic:300",),
        (2, 2),
        (48, 48),
        (8, 8),
    )
    assert len(bank) == 8
    assert stage1.correction is not None
    assert stage2.correction is None
    assert not stage1.training
    for stage in (stage1, stage2):
        np.testing.assert_array_equal(stage.bank.numpy(), bank.templates.reshape(8, -1))
    result = json.loads((tiny_run / "evaluation.json").read_text())
    assert set(result["summary"]) == {"stage1_prior", "stage1", "prior", "cascade"}
    assert result["samples"] == len(
        training_samples(recipe.data, recipe.validation, recipe.validation_share)[1]
    )


def test_recipes_survive_their_file(tmp_path: Path) -> None:
    recipe = Recipe(data=("a", "b"), validation=("c",), scale=1.25, amp=False, sizes=(32, 64))
    (tmp_path / "run.json").write_text(json.dumps(asdict(recipe)))
    assert Recipe.read(tmp_path / "run.json") == recipe


def test_the_model_spec_says_how_to_crop(tiny_run: Path) -> None:
    recipe, bank, *_ = load_run(tiny_run)
    spec = model_spec(recipe, bank, ("occlusion",), "x")
    assert (spec.sizes, spec.scale, spec.bank_digest) == ((48, 48), 1.6, bank.digest)


# ---- going on, and refusals ------------------------------------------------------------------------------


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_the_same_command_finds_the_run_finished(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*.pt")}
    assert main(["--data", "synthetic:300", *TINY, "--workers", "0", "--out", str(copy)]) == 0
    assert {p: p.read_bytes() for p in before} == before
    assert not re.search(r"\bepoch \d", capsys.readouterr().out)


@pytest.mark.parametrize(
    "change", [["--learning-rate", "1e-3"], ["--k", "9"], ["--seed", "1"], ["--data", "synthetic:5,seed=1"]]
)
def test_another_command_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str], change: list[str]
) -> None:
    changed = change[0].removeprefix("--").replace("-", "_")
    changed += ": 8 there, 9 now" if changed == "k" else ""
    before = (copy / "run.json").read_bytes()
    assert main(["--data", "synthetic:300", *TINY, "--out", str(copy), *change]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error == [
        f"error: {copy}: holds a run of other settings ({changed}); choose another --out or remove the folder"
    ]
    assert (copy / "run.json").read_bytes() == before


# ---- a stage 2 of its own ------------------------------------------------------------------------------


def test_stage_2_is_trained_behind_the_stage_1_of_a_run_and_taught_by_another(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", "synthetic:300", *TINY, "--workers", "0", "--out", str(tmp_path / "run")]
    command += ["--part", "stages", "--stage1", str(tiny_run), "--teacher", str(tiny_run)]
    command += ["--widths", "8", "16", "--sizes", "48", "64"]
    assert main(command) == 0
    for name in ("templates.npz", "stage1_errors.npz", "stage1/best.pt"):
        assert (tmp_path / "run" / name).read_bytes() == (tiny_run / name).read_bytes()
    _, _, _, stage2 = load_run(tmp_path / "run")
    assert (stage2.config.size, stage2.config.width, stage2.config.taught) == (64, 16, 8)
    log = (tmp_path / "run" / "stage2" / "log.csv").read_text().splitlines()
    assert "teacher" in log[0].split(",")
    assert not (tmp_path / "run" / "stage1" / "log.csv").exists()
    assert main(command) == 0, "goes on with a finished run"


def test_a_stage_1_that_tells_other_attributes_is_refused_before_anything_is_trained(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    saved = load_checkpoint(other / "stage1" / "best.pt")
    names = list(saved["config"]["attributes"])
    saved["config"]["attributes"] = [*names[:-1], "glare"]  # as many, of another meaning
    save_checkpoint(other / "stage1" / "best.pt", saved)
    command = ["--data", "synthetic:300", *TINY, "--workers", "0", "--out", str(tmp_path / "run")]
    assert main([*command, "--part", "stages", "--stage1", str(other)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "glare, this data" in line
    assert line.endswith("train both stages on data with the same attributes")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ModelError, match="its stages tell other attributes each"):
        load_run(other)


def test_a_run_that_lacks_its_best_weights_says_what_to_do(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "stage2" / "best.pt").unlink()
    command = ["--data", "synthetic:300", *TINY, "--workers", "0", "--out", str(run), "--part", "stages"]
    assert main(command) == 1
    (line,) = errors(capsys)
    assert line.endswith(f"best.pt is gone, the best epoch with it; remove {run / 'stage2'} and train again")
    shutil.rmtree(run / "stage2")
    assert main(command) == 0
    assert (run / "stage2" / "best.pt").is_file()


def test_parts_of_the_method_can_be_left_out(tmp_path: Path) -> None:
    """All at once: a network that regresses, sees objects as they stand, and weighs them alike."""
    out = tmp_path / "plain"
    assert main(["--data", "synthetic:60", "--out", str(out), *TINY, "--part", "stages", "--batch", "16",
                 "--workers", "0", "--without", *PARTS]) == 0  # fmt: skip
    recipe, _, *stages = load_run(out)
    assert set(recipe.without) == set(PARTS)
    assert recipe == Recipe.read(out / "run.json")
    for stage in stages:
        assert stage.correction is None
        assert not stage.config.bank
        assert not stage.config.residual
    for name in ("stage1", "stage2"):
        columns = (out / name / "log.csv").read_text().splitlines()[0].split(",")
        assert "keypoints" in columns
        assert not {"prior", "halfway", "correction"} & set(columns)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage1", "{run}", "--sizes", "64", "48"], "sizes 48 there and 64 here"),
        (["--stage1", "{run}", "--scale", "2"], "scale 1.6 there and 2.0 here"),
        (["--stage1", "{run}", "--templates", "{run}/templates.npz"], "give one of the two"),
        (["--stage1", "{run}/nothing"], "run.json: not a training run (no such file or directory)"),
        (["--stage1", "{run}", "--k", "9"], "--k, --stage1: that one has 8 templates; leave --k out"),
        (["--templates", "{run}/templates.npz", "--k", "9"], "--k, --templates: that one has 8 templates"),
        (["--teacher", "{run}/nothing"], "not a training run"),
        (["--teacher", "{begun}"], "templates.npz: no such file; finish that run"),
        (["--stage1", "{begun}"], "templates.npz: no such file; finish that run"),
        (["--trunks", "plain", "huge"], "trunk: expected one of shipped, plain, lite0"),
        (["--fusions", "plain", "huge"], "fusion: expected one of plain, separable, got 'huge'"),
    ],
)
def test_runs_that_cannot_help_are_refused(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    command = ["--data", "synthetic:300", *TINY, "--workers", "0", "--out", str(tmp_path / "run")]
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(tiny_run / "run.json", begun)
    assert main([*command, *(a.format(run=tiny_run, begun=begun) for a in arguments)]) == 1
    (line,) = errors(capsys)
    assert message in line


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"data": ', "\xff", "[" * 200_000, '{"data": "synthetic:9"}', '{"data": [7]}'),
        *(f'{{"data": ["synthetic:9"], {wrong}}}' for wrong in (
            '"sizes": [48]', '"sizes": [48, "64"]', '"sizes": [48.5, 64]', '"scale": NaN', '"scale": [1.6]',
            '"k": "64"', '"amp": 1', '"trunks": ["plain", 7]',
        )),
    ],
)  # fmt: skip
def test_a_damaged_recipe_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"run\.json: not a training run"):
        load_run(tmp_path)


CPU = Place(torch.device("cpu"))


def edit(path: Path, **fields: Any) -> None:
    """Change fields of the category in a COCO file."""
    data = json.loads(path.read_text())
    data["categories"][0] |= fields
    path.write_text(json.dumps(data))


def test_reference_points_that_were_measured_give_way_to_those_of_templates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which pair of a nearly square object lies farthest apart is chance, and other on other pictures.

    What templates do not depend on is the data's: the edges, and reference points that they name.
    """
    train = coco_like(tmp_path / "kites", 20)
    own, held_first = training_samples((train,), (), 0.05)
    other = next(p for p in ((0, 1), (1, 2)) if p != own.schema.reference)
    like = replace(own.schema, reference=other)
    taken, held = training_samples((train,), (), 0.05, like)
    assert taken.schema == like
    assert (keys(taken.samples), keys(held)) == (keys(own.samples), keys(held_first))
    shapes = np.stack([s.keypoints for s in own.samples])
    build_bank(like, shapes, 4).save(tmp_path / "bank.npz")
    edit(tmp_path / "kites" / "train.json", skeleton=[[1, 2], [2, 3]])
    command = ["--data", train, "--templates", str(tmp_path / "bank.npz"), "--out", str(tmp_path / "run"),
               "--part", "stages", "--epochs", "1", "1", "--sizes", "48", "48", "--widths", "8", "8",
               "--batch", "8", "--workers", "0"]  # fmt: skip
    assert main(command) == 0
    assert "samples are mirrored half of the time; left/right change places" in capsys.readouterr().out
    schema = TemplateBank.load(tmp_path / "run" / "templates.npz").schema
    assert schema == replace(like, edges=((0, 1), (1, 2)))
    # Reference points that the data name themselves are no chance.
    edit(tmp_path / "kites" / "train.json", reference=list(own.schema.reference))
    named, _ = training_samples((train,), (), 0.05, like)
    assert named.schema.reference == own.schema.reference
    check_recipe(Recipe(data=(train,), templates=str(tmp_path / "bank.npz"), batch=8), named, CPU)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip_pairs": []}, "its flip_pairs are not those of the data, and mirrored shapes count in a bank"),
        ({"flip_pairs": [[1, 0]]}, None),  # the same pair
        ({"name": "bird"}, "its keypoints are not those of the data (name differ); build a bank of them"),
        ({"keypoints": ["left", "right", "end", "tip"]}, "data (keypoints differ); build a bank of them"),
    ],
)
def test_a_bank_that_does_not_fit_the_data_says_in_what(
    tmp_path: Path, fields: dict[str, Any], message: str | None
) -> None:
    train = coco_like(tmp_path / "kites", 20)
    own, _ = training_samples((train,), (), 0.05)
    bank = tmp_path / "bank.npz"
    build_bank(own.schema, np.stack([s.keypoints for s in own.samples]), 4).save(bank)
    edit(tmp_path / "kites" / "train.json", **fields)
    data, _ = training_samples((train,), (), 0.05, own.schema)
    recipe = Recipe(data=(train,), templates=str(bank), batch=8)
    if message is None:
        check_recipe(recipe, data, CPU)
        return
    with pytest.raises(ModelError, match=re.escape(f"{bank}: ")) as caught:
        check_recipe(recipe, data, CPU)
    assert message in str(caught.value)
    with pytest.raises(ModelError, match=r"^--from kite: its ") as caught:
        check_recipe(replace(recipe, start="kite"), data, CPU)
    step = 'write the model\'s there: "flip_pairs": [[0, 1]]' if "flip_pairs" in fields else "leave it out to"
    assert step in str(caught.value)


def test_data_that_give_too_few_templates_leave_no_run_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of some pictures too few points are labelled to be templates."""
    train = coco_like(tmp_path / "kites", 20)
    path = tmp_path / "kites" / "train.json"
    data = json.loads(path.read_text())
    for annotation in data["annotations"][:12]:
        annotation["keypoints"][2:9:3] = [0, 0, 0]
    path.write_text(json.dumps(data))
    command = [
        "--data",
        train,
        "--out",
        str(tmp_path / "run"),
        "--part",
        "stages",
        "--batch",
        "4",
        "--k",
        "10",
    ]
    assert main(command) == 1
    assert "10 templates from" in errors(capsys)[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("until", "epochs", "last"), [(0.55, 100, 55), (0.28, 25, 7), (0.07, 100, 7)])
def test_a_set_ends_after_its_share_of_the_epochs(until: float, epochs: int, last: int) -> None:
    """The next one where it is no whole number; never one more by rounding."""
    assert last_epoch(until, epochs) == last
    assert last_epoch(until + 0.001, epochs) == last + 1
    assert last_epoch(1.0, epochs) == epochs


def test_a_folder_without_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="train one with"):
        load_run(tmp_path / "nothing")


def test_a_bank_of_other_points_is_refused(tmp_path: Path, kites: Any) -> None:
    shapes = np.stack([s.keypoints for s in kites(4)])
    TemplateBank(kites.schema, shapes / 96, shapes[0] / 96).save(tmp_path / "bank.npz")
    recipe = Recipe(data=("synthetic:300",), templates=str(tmp_path / "bank.npz"), sizes=(48, 48))
    with pytest.raises(ModelError, match="its keypoints are not those of the data"):
        train_cascade(recipe, tmp_path / "run", Place(torch.device("cpu")), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "50", "48"], "multiple of 16"),
        (["--widths", "12", "8"], "multiple of 8"),
        (["--k", "5000"], "5000 templates from"),
        (["--batch", "4000"], "lower --batch"),
    ],
)
def test_settings_that_cannot_work_are_told_in_one_line_and_can_be_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """The folder is not taken by a command that never trained."""
    command = ["--data", "synthetic:300", *TINY, "--workers", "0", "--out", str(tmp_path / "run"), *arguments]
    assert main(command) == 1
    (line,) = errors(capsys)
    assert message in line
    if (tmp_path / "run" / "run.json").exists():
        assert (tmp_path / "run" / "stage1" / "last.pt").exists(), "refused, and the folder is taken"


# ---- the locator -----------------------------------------------------------------------------------------


def test_a_run_holds_a_locator_and_says_how_good_it_is(tiny_run: Path) -> None:
    assert load_locator(tiny_run / "locator" / "best.pt").config == LocatorConfig(64, 8)
    figures = json.loads((tiny_run / "locator.json").read_text())
    assert figures["photos"] > 0
    assert 0 <= figures["recall"] <= 1
    assert 0 < figures["threshold"] <= 1
    with np.load(tiny_run / "check_frames.npz") as file:
        assert file["locator"].shape[1:] == (64, 64, 3)
    with np.load(tiny_run / "unlabelled.npz") as file:
        assert file["counts"].sum() == len(file["boxes"])


def test_an_object_that_fills_the_image_needs_no_locator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data",
        "synthetic:40",
        "--box",
        "image",
        "--part",
        "locator",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(command) == 1
    assert "there is none to find" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["locator", "all"])
def test_a_locator_of_impossible_size_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    command = [
        "--data",
        "synthetic:40",
        "--part",
        part,
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "0",
    ]
    assert main([*command, "--locator-size", "100"]) == 1
    error = capsys.readouterr().err
    assert "multiple of 32" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_next_step_is_told_by_what_a_run_holds(tiny_run: Path, tmp_path: Path) -> None:
    assert exported(tiny_run) == f"--run {tiny_run} --out models/tiny"
    alone = exported(tmp_path / "finder")
    assert alone.startswith(f"--run RUN --locator {tmp_path / 'finder'} --out models/finder, where RUN holds")


def test_boxes_found_for_other_photos_are_refused(tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "locator" / "best.pt").unlink()
    np.savez(run / "unlabelled.npz", boxes=np.zeros((0, 4), np.float32), counts=np.zeros(3, int))
    command = ["--data", "synthetic:300", *TINY, "--workers", "0", "--part", "locator"]
    assert main([*command, "--out", str(run)]) == 1
    assert "was made for other photos" in capsys.readouterr().err
