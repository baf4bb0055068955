"""Training that starts from a model: what it gives before the first step, what it keeps, what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from reference_arrays import reference_arrays

from edge_kp.errors import ModelError
from edge_kp.modeldir import SHIPPED, file_digest, read_model, shipped_models, write_model_json
from edge_kp.templates import TemplateBank
from edge_kp.train import main
from edge_kp.training.checkpoints import load_checkpoint
from edge_kp.training.facemesh import straighten
from edge_kp.training.network import NetworkConfig, StageNet, normalise, stage_outputs
from edge_kp.training.onnx_graph import settled
from edge_kp.training.recipe import Recipe, load_run
from edge_kp.training.starting import keep_share, model_settings, resampled_layer, start_stage

pytestmark = pytest.mark.usefixtures("short_measuring")

TRAIN = ["--data", "synthetic:60,seed=3", "--validation", "synthetic:20,seed=4", "--part", "stages"]
TRAIN += ["--batch", "16", "--workers", "0", "--epochs", "1", "1"]


def fresh(model: str, stage: int, attributes: tuple[str, ...]) -> StageNet:
    """A network of the shape of a model's stage, 1 or 2, with random weights."""
    s, i = model_settings(model), stage - 1
    config = NetworkConfig(
        s["sizes"][i],
        s["widths"][i],
        stage == 1,
        attributes,
        readings=s["readings"][i],
        hidden=s["hidden"][i],
        trunk=s["trunks"][i],
        search=s["searches"][i],
        fusion=s["fusions"][i],
    )
    torch.manual_seed(7)
    return StageNet(config, TemplateBank.load(s["templates"]).templates)


def outputs(net: StageNet, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(stage_outputs(net(normalise(images))))


def model_of(name: str, tiny_model: Path) -> Path:
    return tiny_model if name == "tiny" else SHIPPED / name


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("name", ["tiny", *shipped_models()])
def test_a_started_network_gives_what_the_model_gives(name: str, stage: int, tiny_model: Path) -> None:
    folder = model_of(name, tiny_model)
    net = fresh(str(folder), stage, read_model(folder).attributes)
    file = reference_arrays(folder)
    images = torch.from_numpy(file[f"stage{stage}/image"])
    expected = [
        file[f"stage{stage}/{output}"]
        for output in ("keypoints", "prior_keypoints", "mixture", "score", "visibility", "attributes")
    ]
    before = outputs(net.eval(), images)
    start_stage(net, str(folder), stage, [images[:3], images[3:]])
    for found, other, wanted in zip(outputs(net, images), before, expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)
        assert not np.allclose(other.numpy(), wanted, atol=1e-3)


def test_a_separable_fusion_does_much_what_the_plain_one_did(tiny_model: Path) -> None:
    attributes = read_model(tiny_model).attributes
    file = reference_arrays(tiny_model)
    images, wanted = torch.from_numpy(file["stage1/image"]), file["stage1/keypoints"]
    plain = fresh(str(tiny_model), 1, attributes)
    net = StageNet(replace(plain.config, fusion="separable"), plain.bank.view(len(plain.bank), -1, 2).numpy())
    for stage in (plain, net):
        start_stage(stage, str(tiny_model), 1, [images])
    maps = []
    for stage in (plain, net):
        with torch.no_grad():
            maps.append(stage.eval()(normalise(images)).features)
    change = float((maps[1] - maps[0]).var() / maps[0].var())
    assert 0 < change < 0.5
    steps = wanted - outputs(plain, images)[1].numpy()
    assert np.abs(outputs(net, images)[0].numpy() - wanted).mean() < 0.5 * np.abs(steps).mean()


def test_batch_norms_of_a_started_network_know_their_images(tiny_model: Path) -> None:
    """With the statistics of a batch instead of those kept, the network gives much the same."""
    net = fresh(str(tiny_model), 2, read_model(tiny_model).attributes)
    file = reference_arrays(tiny_model)
    images = torch.from_numpy(file["stage2/image"])
    start_stage(net, str(tiny_model), 2, [images])
    kept = outputs(net, images)[0]
    live = outputs(net.train(), images)[0]
    assert float((live - kept).abs().max()) < 1e-3


def test_other_attributes_are_learnt_anew_and_the_rest_is_kept(tiny_model: Path) -> None:
    attributes = read_model(tiny_model).attributes
    file = reference_arrays(tiny_model)
    images, wanted = torch.from_numpy(file["stage2/image"]), file["stage2/keypoints"]
    for others in (attributes[::-1], (*attributes, "glasses"), attributes[:1]):
        net = fresh(str(tiny_model), 2, others)
        mine = net.attributes.weight.detach().clone()
        start_stage(net, str(tiny_model), 2, [images])
        np.testing.assert_allclose(outputs(net, images)[0].numpy(), wanted, atol=2e-5)
        assert torch.equal(net.attributes.weight, mine)


def test_a_run_goes_on_from_a_model(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "on"
    command = ["--from", str(tiny_model), *TRAIN, "--learning-rate", "1e-7", "--out", str(out)]
    assert main(command) == 0
    recipe, bank, *stages = load_run(out)
    settings = model_settings(str(tiny_model))
    assert {name: getattr(recipe, name) for name in settings} == settings
    assert bank.digest == read_model(tiny_model).bank_digest
    file = reference_arrays(tiny_model)
    for number, stage in enumerate(stages, 1):
        images = torch.from_numpy(file[f"stage{number}/image"])
        found = outputs(stage, images)[0].numpy()
        # Seven steps so small leave the weights; only the statistics of batch norms have moved.
        np.testing.assert_allclose(found, file[f"stage{number}/keypoints"], atol=2e-2)
    assert main(command) == 0  # a finished run, found as it is


@pytest.mark.parametrize("stage", [1, 2])
def test_a_share_of_the_start_is_kept(stage: int, tiny_model: Path) -> None:
    """With share 0 the network is what it was, with 1 the model; half way lie the weights between."""
    attributes = read_model(tiny_model).attributes
    file = reference_arrays(tiny_model)
    images, wanted = torch.from_numpy(file[f"stage{stage}/image"]), file[f"stage{stage}/keypoints"]
    start = fresh(str(tiny_model), stage, attributes)
    assert start_stage(start, str(tiny_model), stage, [images]) == set()
    torch.manual_seed(1)
    trained = copy.deepcopy(start)
    for module in trained.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as training leaves them
            module.running_mean += 0.1 * torch.randn_like(module.running_mean)
            module.running_var *= torch.rand_like(module.running_var) + 0.5
        for parameter in module.parameters(recurse=False):
            parameter.data += 0.02 * torch.randn_like(parameter)
    own = outputs(trained, images)[0].numpy()
    assert np.abs(own - wanted).max() > 1e-3
    mixed = {share: copy.deepcopy(trained) for share in (0.0, 0.5, 1.0)}
    for share, net in mixed.items():
        keep_share(net, copy.deepcopy(start), share)
    np.testing.assert_allclose(outputs(mixed[0.0], images)[0].numpy(), own, atol=2e-5)
    np.testing.assert_allclose(outputs(mixed[1.0], images)[0].numpy(), wanted, atol=2e-5)
    ends = [dict(mixed[share].named_parameters()) for share in (0.0, 1.0)]
    for name, value in mixed[0.5].named_parameters():
        np.testing.assert_allclose(
            value.detach().numpy(), ((ends[0][name] + ends[1][name]) / 2).detach().numpy(), atol=1e-5
        )


def test_a_share_kept_leaves_rectifiers() -> None:
    """A network that lets nothing negative pass still does not, and is exported as quick as it was."""
    net, start = (fresh("face68-nano", 1, read_model(SHIPPED / "face68-nano").attributes) for _ in range(2))
    file = reference_arrays(SHIPPED / "face68-nano")
    images = torch.from_numpy(file["stage1/image"])
    for stage in (net, start):
        start_stage(stage, "face68-nano", 1, [images])
    assert not any(isinstance(module, torch.nn.PReLU) for module in settled(start).modules())
    straighten(net, 1.0)
    keep_share(net, start, 0.5)
    assert not any(isinstance(module, torch.nn.PReLU) for module in settled(net).modules())


def test_what_the_start_does_not_know_is_kept_whole(tiny_model: Path) -> None:
    net, start = (fresh(str(tiny_model), 2, ("glasses",)) for _ in range(2))
    file = reference_arrays(tiny_model)
    images = torch.from_numpy(file["stage2/image"])
    new = start_stage(start, str(tiny_model), 2, [images])
    assert new == {"attributes.weight", "attributes.bias"}
    start_stage(net, str(tiny_model), 2, [images])
    net.attributes.weight.data += 1
    mine = net.attributes.weight.detach().clone()
    keep_share(net, start, 1.0, new)
    assert torch.equal(net.attributes.weight, mine)


def test_a_run_keeps_its_share_once(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    command = [*TRAIN, "--from", str(tiny_model), "--keep", "1", "--out", str(out)]
    assert main(command) == 0
    found = [p / "best.pt" for p in (out / "stage1", out / "stage2")]
    for number, stage in enumerate(load_run(out)[2:], 1):
        file = reference_arrays(tiny_model)
        images = torch.from_numpy(file[f"stage{number}/image"])
        wanted = file[f"stage{number}/mixture"]  # keypoints of stage 2 are centred afterwards
        np.testing.assert_allclose(outputs(stage, images)[2].numpy(), wanted, atol=2e-5)
    before = [p.read_bytes() for p in found]
    assert main(command) == 0
    assert before == [p.read_bytes() for p in found]
    assert Recipe.read(out / "run.json").keep == 1


def test_nothing_to_keep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TRAIN, "--keep", "0.5", "--out", str(tmp_path / "run")]) == 1
    assert "--keep: of what? it goes with --from" in capsys.readouterr().err


def test_a_run_from_a_model_is_another_run(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    shape = ["--sizes", "48", "48", "--widths", "8", "8", "--searches", "0", "8"]
    shape += ["--fusions", "plain", "separable"]
    bank = ["--templates", str(tiny_model / "templates.npz")]
    assert main([*TRAIN, *shape, *bank, "--out", str(out)]) == 0
    weights = load_checkpoint(out / "stage1" / "best.pt")["net"]
    assert main([*TRAIN, "--from", str(tiny_model), "--out", str(out)]) == 1
    assert "holds a run of other settings" in capsys.readouterr().err
    kept = load_checkpoint(out / "stage1" / "best.pt")["net"]
    assert all(torch.equal(kept[name], value) for name, value in weights.items())
    assert Recipe.read(out / "run.json").start == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--widths", "8", "16"], "--from, --widths: the model brings its own; leave --widths out"),
        (["--k", "8"], "--from, --k: the model brings its own; leave --k out"),
        (["--templates", "bank.npz"], "--from, --templates: the model brings its own"),
        (["--scale", "2"], "--from, --scale: the model brings its own"),
        (["--stage1", "run"], "--from, --stage1: each brings a stage 1; give one of the two"),
        (["--box", "image"], "was trained with --box keypoints; say so too"),
        (["--fusions", "plain", "plain"], "--from, --fusions: the model's are separable already"),
    ],
)
def test_settings_that_the_model_decides_are_not_given(
    more: list[str], message: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*TRAIN, "--from", str(tiny_model), *more, "--out", str(tmp_path / "run")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_same_setting_twice_is_no_conflict(tiny_model: Path, tmp_path: Path) -> None:
    same = ["--sizes", "48", "48", "--widths", "8", "8"]
    assert main([*TRAIN, "--from", str(tiny_model), *same, "--out", str(tmp_path / "run")]) == 0


def test_a_run_takes_on_separable_fusions(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    lighter = ["--fusions", "separable", "separable"]
    assert main([*TRAIN, "--from", str(tiny_model), *lighter, "--out", str(out)]) == 0
    recipe, _, *stages = load_run(out)
    assert recipe.fusions == ("separable", "separable")
    assert [stage.config.fusion for stage in stages] == ["separable", "separable"]
    assert len(stages[0].local[0]) == 4


def test_another_input_size_gives_much_the_same() -> None:
    """Of the same pictures in fewer pixels: clearly nearer than a network that knows the mean shape alone."""
    file = reference_arrays(SHIPPED / "face68")
    shown = file["stage2/score"] > 0.5
    pictures, wanted = file["stage2/image"][shown], file["stage2/keypoints"][shown]
    smaller = np.stack([cv2.resize(p, (144, 144), interpolation=cv2.INTER_AREA) for p in pictures])
    images = torch.from_numpy(smaller)
    plain = fresh("face68", 2, read_model(SHIPPED / "face68").attributes)
    net = StageNet(replace(plain.config, size=144), plain.bank.view(len(plain.bank), -1, 2).numpy())
    before = np.abs(outputs(net.eval(), images)[0].numpy() - wanted).mean()
    assert start_stage(net, "face68", 2, [images]) == set()
    after = np.abs(outputs(net, images)[0].numpy() - wanted).mean()
    assert after < 0.5 * before, (after, before)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (3, 5), (2, 2)])
def test_a_layer_of_a_whole_map_keeps_its_sums_where_the_map_is_level(old: int, new: int) -> None:
    layer = torch.randn(6, 5 * old * old, generator=torch.Generator().manual_seed(1))
    resampled = resampled_layer(layer, 5 * new * new, 5)
    level = torch.randn(5, generator=torch.Generator().manual_seed(2))
    maps = [level[:, None, None].expand(5, side, side).flatten() for side in (old, new)]
    np.testing.assert_allclose(resampled @ maps[1], layer @ maps[0], rtol=1e-4, atol=1e-4)
    assert (old != new) or torch.equal(resampled, layer)


def test_a_run_takes_on_other_sizes(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main([*TRAIN, "--from", str(tiny_model), "--sizes", "64", "32", "--out", str(out)]) == 0
    recipe, _, *stages = load_run(out)
    assert recipe.sizes == (64, 32)
    assert [stage.config.size for stage in stages] == [64, 32]


def test_another_object_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TRAIN, "--from", "face68", "--out", str(tmp_path / "run")]) == 1
    assert "its keypoints are not those of the data" in capsys.readouterr().err


def test_no_model_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TRAIN, "--from", "nowhere", "--out", str(tmp_path / "run")]) == 1
    assert "model 'nowhere': no folder with a model.json there" in capsys.readouterr().err


def changed(tiny_model: Path, tmp_path: Path, content: bytes) -> Path:
    """A copy of the model whose stage 2 is other bytes, which model.json knows of."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "stage2.fp32.onnx"
    path.write_bytes(content)
    spec = read_model(folder)
    write_model_json(folder, replace(spec, files={**spec.files, path.name: file_digest(path)}))
    return folder


def test_a_damaged_network_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = changed(tiny_model, tmp_path, b"\xff" * 50)
    with pytest.raises(ModelError, match=r"stage2\.fp32\.onnx: cannot be read"):
        model_settings(str(folder))


def test_a_network_of_another_kind_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = changed(tiny_model, tmp_path, (SHIPPED / "face68-nano" / "locator.fp32.onnx").read_bytes())
    shutil.copy(SHIPPED / "face68-nano" / "weights.bin", folder)
    text = json.loads((folder / "model.json").read_text())
    text["files"]["weights.bin"] = file_digest(folder / "weights.bin")
    (folder / "model.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match="its stages lack 'lateral_eighth"):
        model_settings(str(folder))
