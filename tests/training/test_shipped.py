"""What networks of any object start from: the trunks and the locator of a shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_arrays import reference_arrays

from edge_kp.errors import ModelError
from edge_kp.export import main as export
from edge_kp.modeldir import SHIPPED, read_model
from edge_kp.templates import TemplateBank
from edge_kp.train import main
from edge_kp.training import shipped
from edge_kp.training.locating import ExportLocator, LocatorConfig, LocatorNet, load_locator
from edge_kp.training.network import StageNet, normalise
from edge_kp.training.recipe import Recipe, load_run, network_config
from edge_kp.training.starting import file_weights, start_stage

FOLDER = SHIPPED / shipped.MODEL
BANK = np.random.default_rng(0).uniform(0.3, 0.7, (8, 12, 2)).astype(np.float32)


def stage_net(number: int, templates: np.ndarray = BANK) -> StageNet:
    torch.manual_seed(3)
    return StageNet(network_config(Recipe(data=("x",)), number - 1, ("occlusion",)), templates)


@pytest.mark.parametrize("number", [1, 2])
def test_a_trunk_gives_the_maps_of_the_shipped_model(number: int) -> None:
    """Those of a network that holds all weights of the model, and nothing else changes."""
    net, fresh = stage_net(number), stage_net(number)
    shipped.start_trunk(net, number)
    assert net.pretrained is not None
    for name, parameter in net.named_parameters():
        same = torch.equal(parameter, fresh.get_parameter(name))
        assert same or name.startswith("pretrained."), name
    spec = read_model(FOLDER)
    config = network_config(
        Recipe(
            data=("x",), widths=(16, 32), hidden=(32, 32), sizes=spec.sizes, fusions=("plain", "separable")
        ),
        number - 1,
        spec.attributes,
    )
    whole = StageNet(config, TemplateBank.load(FOLDER / "templates.npz").templates)
    images = torch.from_numpy(reference_arrays(FOLDER)[f"stage{number}/image"])
    start_stage(whole, str(FOLDER), number, [images])
    assert whole.pretrained is not None
    with torch.no_grad():
        for found, expected in zip(
            net.eval().pretrained(normalise(images)), whole.eval().pretrained(normalise(images)), strict=True
        ):
            assert found.std() > 0
            torch.testing.assert_close(found, expected)


def test_a_locator_has_the_features_of_the_shipped_one_and_tells_nothing_yet() -> None:
    torch.manual_seed(4)
    net = LocatorNet(LocatorConfig())
    last = net.out.weight.clone()
    file = reference_arrays(FOLDER)
    images = torch.from_numpy(file["locator/image"])
    shipped.start_locator(net, [images])
    assert torch.equal(net.out.weight, last)
    # With the last layer as well it gives what the model gives.
    weights = file_weights(FOLDER, "locator")
    with torch.no_grad():
        before = ExportLocator(net.eval())(images)[1]
        for name in ("weight", "bias"):
            net.out.get_parameter(name).copy_(weights[f"out.{name}"])
        boxes, score = ExportLocator(net)(images)
    np.testing.assert_allclose(score.numpy(), file["locator/score"], atol=1e-4)
    np.testing.assert_allclose(boxes.numpy(), file["locator/boxes"], atol=1e-3)
    assert before.max() < 0.5 < score.max()


def test_a_folder_of_the_same_name_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / shipped.MODEL).mkdir()
    (tmp_path / shipped.MODEL / "model.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    net = stage_net(2)
    shipped.start_trunk(net, 2)
    start = file_weights(FOLDER, "stage2")["pretrained.stem.weight"]
    assert torch.equal(net.get_parameter("pretrained.stem.weight"), start)


def test_a_damaged_model_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "file_weights", lambda *_: {})
    with pytest.raises(ModelError, match=r"face68-free: has no stem\.0\.0\.weight .*; install edge_kp again"):
        shipped.start_locator(LocatorNet(LocatorConfig()), [])
    with pytest.raises(ModelError, match=r"face68-free: has no pretrained\.stem\.weight"):
        shipped.start_trunk(stage_net(1), 1)


@pytest.mark.usefixtures("short_measuring", "export_cache")
def test_a_training_starts_from_it_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--epochs 1 1 --k 4 --sizes 32 32 --widths 8 8 --batch 8 --workers 0 --learning-rate 1e-6"
    small += " --locator-size 64 --locator-epochs 1 --locator-pictures 1 --part"
    command = ["--data", "synthetic:24", *small.split()]
    run = tmp_path / "run"
    assert main([*command, "all", "--out", str(run)]) == 0
    told = capsys.readouterr().out
    assert "networks start from those of face68-free; with --trunks plain plain from nothing\n" in told
    assert "the locator starts from that of face68-free" in told
    _, _, *stages = load_run(run)
    nets = {"stage1": stages[0], "stage2": stages[1], "locator": load_locator(run / "locator" / "best.pt")}
    for name, net in nets.items():
        layer = "sixteenth.3.first.0.weight" if name == "locator" else "pretrained.stem.weight"
        start = file_weights(FOLDER, name)[layer]
        assert (net.get_parameter(layer) - start).abs().max() < 1e-3 < start.abs().max(), name

    assert export(["--run", str(run), "--out", str(tmp_path / "model")]) == 0
    assert (
        json.loads((tmp_path / "model" / "model.json").read_text())["card"]["started_from"] == "face68-free"
    )
    capsys.readouterr()
    plain = ["--trunks", "plain", "plain", "--out", str(tmp_path / "plain")]
    assert main([*command, "stages", *plain]) == 0
    assert "face68-free" not in capsys.readouterr().out
    assert all(net.pretrained is None for net in load_run(tmp_path / "plain")[2:])
