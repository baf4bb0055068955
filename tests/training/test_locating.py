"""The locator learns to find objects, goes on after any stop as if there had been none, and is exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from same_run import same_run
from torch import Tensor

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.errors import ModelError
from edge_kp.geometry import box_iou, tight_box
from edge_kp.locator import NetworkLocator, fit_square
from edge_kp.metrics import average_precision, recall_and_false
from edge_kp.training.augment import Augmentation
from edge_kp.training.checkpoints import load_checkpoint, save_checkpoint
from edge_kp.training.exporting import compare, export_network
from edge_kp.training.locating import (
    FALSE_WEIGHT,
    LOWEST_SCORE,
    OVERLAP,
    ExportLocator,
    LocatorConfig,
    LocatorNet,
    false_boxes,
    generalised_iou,
    load_locator,
    locator_loss,
    search_training_photos,
    train_locator,
    validate,
)
from edge_kp.training.loop import LoopConfig, Place
from edge_kp.training.network import NetworkConfig, StageNet, normalise
from edge_kp.training.photos import Photo, read_photos
from edge_kp.training.samples import Sample
from edge_kp.training.scenes import STRIDE, SceneDataset
from edge_kp.training.torch_backend import TorchBackend

HERE = Place(torch.device("cpu"))
TINY = LocatorConfig(size=64, width=8)
SHORT = LoopConfig(epochs=3, batch=8, amp=False, workers=0)
Learnt = tuple[LocatorNet, list[Photo], Path]  # what was trained, held-back photos, folder


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """The order of sums, and with it the last bit, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene(kite: Sample, seed: int) -> Sample:
    """A kite on blotches of grey, in a picture three times its size."""
    rng = np.random.default_rng([7, seed])
    width, height = 200, 150
    image = cv2.resize(rng.integers(20, 120, (height // 6, width // 6, 3), np.uint8), (width, height))
    drawn = kite.load()
    side = len(drawn)
    x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    part = image[y : y + side, x : x + side]
    part[:] = np.where((drawn.max(-1) > 60)[..., None], drawn, part)
    points = kite.keypoints + np.float32([x, y])
    return replace(kite, keypoints=points, load=partial(np.copy, image))


def scenes(kites: Any, count: int, first: int = 0) -> list[Photo]:
    samples = [scene(kite, first + i) for i, kite in enumerate(kites(count, first))]
    return read_photos(samples, progress=False)


def dataset(photos: Sequence[Photo], config: LocatorConfig, kind: type = SceneDataset) -> SceneDataset:
    augmentation = Augmentation(turn=20, cover=0, colour=0.3)
    return kind(photos, size=config.size, seed=0, augmentation=augmentation, mirror=True)


# ---- the network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "width", "wrong"),
    [(100, 32, "size"), (32, 32, "size"), (0, 32, "size"), (320, 12, "width"), (320, 0, "width")],
)
def test_sizes_that_do_not_fit_are_refused(size: int, width: int, wrong: str) -> None:
    with pytest.raises(ValueError, match=rf"locator {wrong}: expected a multiple of .*, got"):
        LocatorConfig(size, width)


@pytest.mark.parametrize("config", [TINY, LocatorConfig(96, 8), LocatorConfig(160, 16)])
def test_the_network_gives_a_score_and_a_box_for_every_cell(config: LocatorConfig) -> None:
    torch.manual_seed(0)
    net = LocatorNet(config).eval()
    logits, boxes = net(torch.randn(3, 3, config.size, config.size))
    g = config.size // STRIDE
    assert logits.shape == (3, g, g)
    assert boxes.shape == (3, g, g, 4)
    # A fresh network says nearly everywhere that there is nothing.
    assert torch.sigmoid(logits).max() < 0.2
    x, y = np.meshgrid((np.arange(g) + 0.5) * STRIDE - 0.5, (np.arange(g) + 0.5) * STRIDE - 0.5)
    for low, high, centre in ((0, 2, torch.from_numpy(x)), (1, 3, torch.from_numpy(y))):
        assert (boxes[..., low] < centre).all()
        assert (boxes[..., high] > centre).all()


def test_boxes_follow_the_distances_the_network_says() -> None:
    """And stay finite and around their cells, whatever it says."""
    net = LocatorNet(TINY).eval()
    with torch.no_grad():
        net.out.weight.zero_()
        net.out.bias.copy_(torch.tensor([0.0, 0.0, np.log(2), np.log(3), np.log(4)]))
        _, boxes = net(torch.zeros(1, 3, 64, 64))
        np.testing.assert_allclose(boxes[0, 2, 5], [43.5 - 8, 19.5 - 16, 43.5 + 24, 19.5 + 32], rtol=1e-5)
        net.out.bias.copy_(torch.tensor([0.0, 99.0, -99.0, 99.0, -99.0]))
        _, boxes = net(torch.zeros(1, 3, 64, 64))
    assert torch.isfinite(boxes).all()
    assert (boxes[..., 2:] > boxes[..., :2]).all()


class Fixed(LocatorNet):
    """Says what it was given, whatever it sees."""

    def __init__(self, logits: Tensor, boxes: Tensor, config: LocatorConfig) -> None:
        super().__init__(config)
        self.said = logits, boxes

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.said


def test_every_cell_is_exported_row_by_row() -> None:
    g = TINY.size // STRIDE
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 3, (2, g, g)).astype(np.float32))
    boxes = torch.from_numpy(rng.uniform(-20, 90, (2, g, g, 4)).astype(np.float32))
    image = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    found, score = ExportLocator(Fixed(logits, boxes, TINY))(image)
    assert found.shape == (2, g * g, 4)
    assert score.shape == (2, g * g)
    for b, row, column in ((0, 0, 0), (0, 3, 5), (1, 7, 2)):
        cell = row * g + column
        assert score[b, cell] == pytest.approx(1 / (1 + np.exp(-float(logits[b, row, column]))), abs=1e-6)
        # Pixel centres lie at whole numbers, the edges of the picture at -0.5 and 63.5.
        np.testing.assert_allclose(found[b, cell], (boxes[b, row, column] + 0.5) / 64, atol=1e-6)


def test_the_exported_network_sees_what_the_trained_one_does(kites: Any) -> None:
    torch.manual_seed(1)
    net = LocatorNet(TINY).eval()
    images = np.stack([fit_square(p.levels[0], 64)[0] for p in scenes(kites, 3)])
    logits, boxes = net(normalise(torch.from_numpy(images)))
    out = TorchBackend(ExportLocator(net)).run(images)
    assert list(out) == ["boxes", "score"]
    np.testing.assert_allclose(out["boxes"] * 64 - 0.5, boxes.detach().flatten(1, 2), atol=1e-4)
    peaks = out["score"] > 0
    np.testing.assert_allclose(
        out["score"][peaks], torch.sigmoid(logits).detach().flatten(1)[peaks], atol=1e-6
    )


# ---- generalised IoU ---------------------------------------------------------------------------------------


def giou(a: Sequence[float], b: Sequence[float]) -> float:
    return float(generalised_iou(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)))


coordinates = st.floats(-50, 50)
sides = st.floats(0.5, 60)


@st.composite
def box(draw: Any) -> list[float]:
    x, y = draw(coordinates), draw(coordinates)
    return [x, y, x + draw(sides), y + draw(sides)]


def test_generalised_iou_of_hand_counted_boxes() -> None:
    unit = [0.0, 0.0, 2.0, 2.0]
    assert giou(unit, [1.0, 1.0, 3.0, 3.0]) == pytest.approx(1 / 7 - 2 / 9)
    assert giou(unit, [0.0, 0.0, 1.0, 2.0]) == pytest.approx(1 / 2)
    assert giou(unit, [2.0, 0.0, 4.0, 2.0]) == pytest.approx(0)  # side by side they fill their hull
    assert giou(unit, [6.0, 0.0, 8.0, 2.0]) == pytest.approx(-8 / 16)
    assert giou(unit, [98.0, 98.0, 100.0, 100.0]) == pytest.approx(-9992 / 10000)
    both = torch.tensor([[unit, unit]]), torch.tensor([[unit, [1.0, 1.0, 3.0, 3.0]]])
    np.testing.assert_allclose(generalised_iou(*both), [[1, 1 / 7 - 2 / 9]], rtol=1e-6)


@given(box(), box())
def test_generalised_iou_is_bounded_and_symmetric(a: list[float], b: list[float]) -> None:
    value = giou(a, b)
    assert -1 <= value <= 1 + 1e-9
    assert value == pytest.approx(giou(b, a), abs=1e-9)
    assert giou(a, a) == pytest.approx(1)
    w, h = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    assert value <= w * h / (area - w * h) + 1e-9  # the plain one


@given(box(), box(), coordinates, coordinates, st.floats(0.1, 10))
def test_generalised_iou_does_not_depend_on_place_or_unit(
    a: list[float], b: list[float], x: float, y: float, scale: float
) -> None:
    moved = [(np.array(v) * scale + [x, y, x, y]).tolist() for v in (a, b)]
    assert giou(*moved) == pytest.approx(giou(a, b), abs=1e-6)


@given(box(), st.floats(0.1, 20), st.floats(1.1, 3))
def test_generalised_iou_falls_with_the_gap(a: list[float], gap: float, more: float) -> None:
    """Also where the IoU itself is 0 and would teach nothing."""
    width = a[2] - a[0]
    near, far = ([a[0] + width + g, a[1], a[2] + width + g, a[3]] for g in (gap, gap * more))
    assert giou(a, far) < giou(a, near) < 0


# ---- loss --------------------------------------------------------------------------------------------------


def batch(kites: Any, count: int = 6) -> dict[str, Tensor]:
    data = dataset(scenes(kites, 12), TINY)
    items = [item for item in (data[i] for i in range(12)) if item["share"].any()][:count]
    assert len(items) == count
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


def perfect(taught: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What a network that knows everything would say."""
    return torch.where(taught["heat"] >= 1, 12.0, -12.0), taught["box"].clone()


def random_output(taught: dict[str, Tensor], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(taught["heat"].shape, generator=generator) - 2
    low = torch.rand((*logits.shape, 2), generator=generator) * 40
    reach = 5 + 20 * torch.rand((*logits.shape, 2), generator=generator)
    return logits, torch.cat([low, low + reach], -1)


def test_better_outputs_cost_less(kites: Any) -> None:
    taught = batch(kites)
    logits, boxes = perfect(taught)
    best = locator_loss((logits, boxes), taught)
    assert best["total"] < 1e-3
    assert best["total"] == pytest.approx(float(best["heat"] + best["box"]))
    for changed in (0 * logits, logits.roll(1, 2), torch.full_like(logits, -12.0), -logits):
        worse = locator_loss((changed, boxes), taught)
        assert worse["heat"] > best["heat"] + 0.1
        assert worse["box"] == best["box"]
    cost = [float(locator_loss((logits, boxes + shift), taught)["box"]) for shift in (0, 1, 3, 9)]
    assert cost == sorted(set(cost))
    worse = locator_loss((logits, boxes + 9), taught)
    assert worse["heat"] == best["heat"]
    assert worse["total"] > best["total"] + 0.1


def test_a_sure_word_beside_a_middle_costs_less_than_far_away(kites: Any) -> None:
    taught = batch(kites, 1)
    logits, boxes = perfect(taught)
    heat = torch.where(taught["heat"] < 1, taught["heat"], torch.tensor(-1.0))
    warm, cold = (int(i) for i in (heat.argmax(), torch.where(heat >= 0, heat, 9.0).argmin()))
    cost = []
    for cell in (warm, cold):
        said = logits.clone()
        said.view(-1)[cell] = 3.0
        cost.append(float(locator_loss((said, boxes), taught)["heat"]))
    assert cost[0] < cost[1]


def test_cells_that_are_not_taught_do_not_matter(kites: Any) -> None:
    taught = batch(kites)
    left_open = torch.rand(taught["taught"].shape, generator=torch.Generator().manual_seed(1)) < 0.3
    left_open &= taught["share"] == 0  # what is to be found is always taught
    taught["taught"][left_open] = 0
    left_open = taught["taught"] == 0
    assert left_open.sum() > 50
    logits, boxes = random_output(taught)
    logits.requires_grad_()
    boxes.requires_grad_()
    parts = locator_loss((logits, boxes), taught)
    parts["total"].backward()
    assert logits.grad is not None
    assert boxes.grad is not None
    assert (logits.grad[left_open] == 0).all()
    assert (logits.grad[~left_open & ((taught["heat"] < 0.9) | (taught["heat"] == 1))] != 0).all()
    assert (boxes.grad[left_open] == 0).all()
    assert (boxes.grad[taught["share"] > 0] != 0).any(-1).all()
    assert (boxes.grad[taught["share"] == 0] == 0).all()
    with torch.no_grad():
        logits[left_open] += 5
        boxes[left_open] += 5
    again = locator_loss((logits, boxes), taught)
    assert all(torch.equal(again[name], parts[name]) for name in parts)


def test_the_gradient_leads_towards_what_is_taught(kites: Any) -> None:
    taught = batch(kites)
    logits, _ = random_output(taught)
    boxes = (
        taught["box"] + 6 * torch.rand(taught["box"].shape, generator=torch.Generator().manual_seed(1)) - 3
    )
    middles, surely_not = taught["heat"] >= 1, (taught["heat"] < 0.5) & (taught["taught"] == 1)
    first = locator_loss((logits, boxes), taught)["total"].item()
    off = (boxes - taught["box"]).abs()[middles].mean().item()
    logits.requires_grad_()
    boxes.requires_grad_()
    optimizer = torch.optim.Adam([{"params": [logits], "lr": 0.1}, {"params": [boxes], "lr": 0.2}])
    for _ in range(60):
        loss = locator_loss((logits, boxes), taught)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first
    assert (logits[middles] > 0).all()
    assert (logits[surely_not] < 0).all()
    assert (boxes - taught["box"]).abs()[middles].mean().item() < 0.4 * off


def test_pictures_without_objects_are_learnt_from(kites: Any) -> None:
    taught = {name: torch.zeros_like(value) for name, value in batch(kites).items()}
    taught["taught"] = torch.ones_like(taught["taught"])
    logits, boxes = random_output(taught)
    parts = locator_loss((logits, boxes), taught)
    assert parts["box"] == 0
    assert parts["heat"] > locator_loss((logits - 3, boxes), taught)["heat"] > 0


# ---- learning ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(kites: Any, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """A locator that saw 150 kites a few times, and photos that it did not see."""
    torch.set_num_threads(1)
    config = LocatorConfig(96, 16)
    loop = LoopConfig(epochs=6, batch=10, learning_rate=6e-3, amp=False, workers=0)
    held = scenes(kites, 30, 10_000)
    out = tmp_path_factory.mktemp("learnt") / "locator"
    net = train_locator(config, dataset(scenes(kites, 150), config), held, loop, out, HERE)
    return net, held, out


def found_by(net: LocatorNet, photos: Sequence[Photo]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    locate = NetworkLocator(TorchBackend(ExportLocator(net)), net.config.size, LOWEST_SCORE)
    boxes, scores = zip(*(locate.search(photo.levels[0]) for photo in photos), strict=True)
    return list(boxes), list(scores)


def truth_of(photos: Sequence[Photo]) -> list[np.ndarray]:
    return [np.stack([tight_box(points) for points in photo.objects]) for photo in photos]


def test_a_locator_learns_to_find_objects_it_has_not_seen(
    learnt: Learnt,
) -> None:
    net, held, _ = learnt
    torch.manual_seed(0)
    fresh = LocatorNet(net.config).eval()
    recall, precision = [], []
    for each in (fresh, net):
        found = (*found_by(each, held), truth_of(held), [True] * len(held))
        recall.append(recall_and_false(*found, 0.2, OVERLAP)[0])
        precision.append(average_precision(*found, OVERLAP))
    assert recall[0] < 0.2
    assert recall[1] > 0.6
    assert precision[0] < 0.1
    assert precision[1] > 0.6


def test_what_is_returned_is_the_best_averaged_network(learnt: Learnt) -> None:
    net, held, out = learnt
    best = load_locator(out / "best.pt")
    assert best.config == net.config
    for name, value in best.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name
    assert load_checkpoint(out / "last.pt")["best"] == pytest.approx(
        validate(net, held, HERE.device)["1 - AP"]
    )


def test_figures_of_held_back_photos(learnt: Learnt) -> None:
    net, held, _ = learnt
    figures = validate(net, held, HERE.device)
    found = (*found_by(net, held), truth_of(held), [True] * len(held))
    assert figures["1 - AP"] == pytest.approx(1 - average_precision(*found, OVERLAP))
    assert (figures["recall"], figures["false"]) == recall_and_false(*found, figures["threshold"], OVERLAP)
    balance = figures["recall"] - FALSE_WEIGHT * figures["false"]
    for other in np.arange(0.1, 0.91, 0.05):
        recall, false = recall_and_false(*found, float(other), OVERLAP)
        assert recall - FALSE_WEIGHT * false <= balance + 1e-9


def test_a_find_that_nobody_labelled_is_neither_right_nor_wrong(
    learnt: Learnt,
) -> None:
    """Objects whose labels point elsewhere make every find false, until they are known to be unlabelled."""
    net, held, _ = learnt
    nowhere = [replace(p, objects=(np.array([[0.0, 0.0], [4.0, 4.0]]),)) for p in held]
    aside = [replace(p, unlabelled=(tight_box(p.objects[0]),)) for p in held]
    hidden = [replace(a, objects=n.objects) for a, n in zip(aside, nowhere, strict=True)]
    wrong, open_ = (validate(net, [*held, *photos], HERE.device) for photos in (nowhere, hidden))
    assert open_["1 - AP"] < wrong["1 - AP"]
    assert open_["false"] < wrong["false"] or open_["recall"] > wrong["recall"]


def test_false_boxes_where_both_networks_err_are_told_as_well(learnt: Learnt) -> None:
    """What a first network calls an object without label excuses the second: as labelled, it is false."""
    net, held, _ = learnt
    nowhere = [replace(p, objects=(np.array([[0.0, 0.0], [4.0, 4.0]]),)) for p in held]
    excused = [replace(n, unlabelled=(tight_box(p.objects[0]),)) for n, p in zip(nowhere, held, strict=True)]
    figures = validate(net, excused, HERE.device)
    as_labelled = false_boxes(net, nowhere, HERE.device, 0.3)
    assert false_boxes(net, excused, HERE.device, figures["threshold"]) == figures["false"]
    assert as_labelled > false_boxes(net, excused, HERE.device, 0.3) + 0.5


def test_a_first_locator_finds_what_nobody_labelled(learnt: Learnt, kites: Any) -> None:
    """Two kites in one picture, of which one is labelled: the other is found, the labelled one is not."""
    net, _, _ = learnt
    photos, beside = scenes(kites, 24, 20_000)[::2], scenes(kites, 24, 20_000)[1::2]
    pairs = []
    for photo, other in zip(photos, beside, strict=True):
        wide = np.vstack([photo.levels[0], other.levels[0]])
        below = other.objects[0] + (0, len(photo.levels[0]))
        pairs.append((Photo("pair", (wide,), photo.objects, 1, True), below))
    marked = search_training_photos(net, [photo for photo, _ in pairs], HERE.device)
    hits = 0
    for photo, (_, below) in zip(marked, pairs, strict=True):
        for found in photo.unlabelled:
            assert box_iou(found, tight_box(photo.objects[0])) < 0.3
            hits += box_iou(found, tight_box(below)) > OVERLAP
    assert hits > 3


# ---- going on ----------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


class Interrupted(SceneDataset):
    """Training pictures of which one, in the second epoch, raises."""

    stop = False

    def __getitem__(self, at: int) -> dict[str, Any]:
        if self.epoch == 1 and at == 5 and self.stop:
            raise Stopped
        return super().__getitem__(at)


def short_run(kites: Any, out: Path, stop: bool = False, **changes: Any) -> LocatorNet:
    data = dataset(scenes(kites, 24), TINY, Interrupted)
    data.stop = stop  # type: ignore[attr-defined]
    loop = replace(SHORT, **changes)
    return train_locator(TINY, data, scenes(kites, 4, 10_000), loop, out, HERE)


@pytest.fixture(scope="module")
def straight(kites: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight") / "locator"
    short_run(kites, out)
    return out


def test_training_goes_on_where_it_stopped(kites: Any, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        short_run(kites, tmp_path / "locator", stop=True)
    assert load_checkpoint(tmp_path / "locator" / "last.pt")["epoch"] == 1
    net = short_run(kites, tmp_path / "locator", workers=1)  # loader processes change nothing
    same_run(straight, tmp_path / "locator")
    again = load_locator(straight / "best.pt")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("changed", ["loop", "config", "data", "held", "labels", "turn", "unlabelled"])
def test_another_run_is_refused(kites: Any, straight: Path, changed: str) -> None:
    photos, held = scenes(kites, 24), scenes(kites, 4, 10_000)
    config, loop = TINY, SHORT
    if changed == "loop":
        loop = replace(loop, learning_rate=1e-3)
    elif changed == "config":
        config = replace(config, width=16)
    elif changed == "data":
        photos = photos[:-1]
    elif changed == "held":
        held = held[:-1]
    elif changed == "labels":
        photos[3] = replace(photos[3], objects=(photos[3].objects[0] + 0.25,))
    elif changed == "unlabelled":
        photos[3] = replace(photos[3], unlabelled=(np.float32([1, 2, 30, 40]),))
    data = dataset(photos, config)
    if changed == "turn":
        data.augmentation = replace(data.augmentation, turn=21)
    before = (straight / "last.pt").read_bytes()
    with pytest.raises(ModelError, match=r"other settings or data; choose another --out or remove"):
        train_locator(config, data, held, loop, straight, HERE)
    assert (straight / "last.pt").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing"])
def test_a_damaged_locator_is_refused(straight: Path, tmp_path: Path, damage: str) -> None:
    whole = (straight / "best.pt").read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint"}
    if damage != "missing":
        (tmp_path / "best.pt").write_bytes(content[damage])
    with pytest.raises(ModelError, match=r"best\.pt: (damaged|no such) checkpoint") as caught:
        load_locator(tmp_path / "best.pt")
    assert "\n" not in str(caught.value)


def test_another_networks_checkpoint_is_no_locator(straight: Path, tmp_path: Path) -> None:
    """That of a stage, and one whose weights do not fit what it says of itself."""
    stage = StageNet(NetworkConfig(32, 8, True, ("occlusion",)), np.zeros((4, 5, 2), np.float32))
    config = {"size": 32, "width": 8, "correct": True, "attributes": ["occlusion"], "bank": True}
    save_checkpoint(tmp_path / "stage.pt", {"config": config, "net": stage.state_dict()})
    wider = {**load_checkpoint(straight / "best.pt"), "config": {"size": 64, "width": 16}}
    save_checkpoint(tmp_path / "wider.pt", wider)
    save_checkpoint(tmp_path / "bare.pt", {"net": wider["net"]})
    for name in ("stage", "wider", "bare"):
        with pytest.raises(ModelError, match=rf"{name}\.pt: not a locator; remove it") as caught:
            load_locator(tmp_path / f"{name}.pt")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["size", "list"])
def test_a_checkpoint_of_another_form_is_no_locator(straight: Path, tmp_path: Path, kind: str) -> None:
    content: Any = [1, 2, 3]
    if kind == "size":
        content = {**load_checkpoint(straight / "best.pt"), "config": {"size": 100, "width": 8}}
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(ModelError, match=r"best\.pt: .*; remove .* and train again"):
        load_locator(tmp_path / "best.pt")


# ---- export ------------------------------------------------------------------------------------------------


def test_a_locator_is_exported_as_it_is(learnt: Learnt, tmp_path: Path) -> None:
    net, held, _ = learnt
    images = np.stack([fit_square(photo.levels[0], net.config.size)[0] for photo in held[:4]])
    path = tmp_path / "locator.onnx"
    exported = ExportLocator(net)
    plain = export_network(exported, path, {"edge_kp.network": "locator"})
    rows = compare(exported, {"ONNX": plain, "simplified": path}, images)
    assert set(rows) == {"boxes", "score"}
    assert max(max(row.values()) for row in rows.values()) < 1e-3
    model = onnx.load(path)
    assert {p.key: p.value for p in model.metadata_props} == {"edge_kp.network": "locator"}
    assert [n.op_type for n in model.graph.node if "image" in n.input] == ["Cast"]
    # Behind the runtime's interface it finds the same objects.
    here, there = (
        NetworkLocator(backend, net.config.size, 0.2).search(held[0].levels[0])[0]
        for backend in (TorchBackend(exported), OnnxRuntimeBackend(path, threads=1))
    )
    np.testing.assert_allclose(here, there, atol=0.1)
    other = LocatorNet(net.config)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other.out.bias += 0.05
    with pytest.raises(ModelError, match=r"locator\.onnx: (boxes|score) differs from PyTorch"):
        compare(ExportLocator(other), {"simplified": path}, images)
