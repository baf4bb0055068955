"""A stage learns, goes on after any kill as if nothing had happened, and refuses what does not fit."""

from __future__ import annotations

import csv
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from same_run import same_run

from edge_kp.errors import ModelError
from edge_kp.metrics import nme
from edge_kp.templates import TemplateBank, build_bank
from edge_kp.training import loop as loop_module
from edge_kp.training import stage as stage_module
from edge_kp.training.attributes import OWN_ATTRIBUTES, ShapeAttributes
from edge_kp.training.augment import Augmentation
from edge_kp.training.checkpoints import load_checkpoint, load_stage, save_checkpoint
from edge_kp.training.crops import CropDataset, StageView
from edge_kp.training.locating import load_locator
from edge_kp.training.loop import LoopConfig, Place, one_cycle, to_go
from edge_kp.training.network import NetworkConfig, StageNet
from edge_kp.training.recipe import load_run
from edge_kp.training.regions import cut_regions
from edge_kp.training.samples import Sample
from edge_kp.training.stage import train_stage
from edge_kp.training.synthetic import read_synthetic

ROOT = Path(__file__).parents[2]
SIZE = 32
HERE = Place(torch.device("cpu"))
NETWORK = NetworkConfig(SIZE, 8, True, OWN_ATTRIBUTES)
SHORT = LoopConfig(epochs=3, batch=16, amp=False, workers=0)


@pytest.fixture(autouse=True)
def one_thread():
    """The order of sums, and with it the last bit, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Task:
    """Training and validation crops of some samples, seen by stage 1."""

    def __init__(
        self, train: list[Sample], held: list[Sample], schema: Any, kind: type = CropDataset
    ) -> None:
        self.bank: TemplateBank = build_bank(schema, np.stack([s.keypoints for s in train]), 8)
        common = (
            StageView(SIZE, self.bank.mean_shape, scale=1.6),
            ShapeAttributes(self.bank),
            OWN_ATTRIBUTES,
            schema.flip_index,
            0,
        )
        photos, held_photos = (cut_regions(s, 1.5 * SIZE / 1.6, "keypoints", False) for s in (train, held))
        self.train = kind(photos, *common, Augmentation(turn=10, cover=0.2, colour=0.3))
        self.held = CropDataset(held_photos, *common)

    def run(self, out: Path, loop: LoopConfig, network: NetworkConfig = NETWORK) -> StageNet:
        return train_stage(network, self.bank.templates, self.train, self.held, loop, out, HERE)


def synthetic_task(kind: type = CropDataset) -> Task:
    reading = read_synthetic(52)
    return Task(list(reading.samples[:40]), list(reading.samples[40:]), reading.schema, kind)


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


# ---- learning ----------------------------------------------------------------------------------------


def test_a_stage_learns(kites: Any, tmp_path: Path) -> None:
    task = Task(kites(256), kites(40, 10_000), kites.schema)
    truth = np.stack([task.held[i]["keypoints"] for i in range(40)])
    mean = np.broadcast_to(truth.mean(0), truth.shape)
    without_looking = 100 * float(nme(mean, truth, kites.schema).mean())
    net = task.run(tmp_path / "stage", replace(SHORT, epochs=8, learning_rate=3e-3))
    found = rows(tmp_path / "stage")
    assert [row["epoch"] for row in found] == [str(i) for i in range(1, 9)]
    best = min(float(row["nme"]) for row in found)
    assert best < 0.6 * without_looking
    assert float(found[-1]["prior_nme"]) < 0.75 * without_looking
    assert float(found[-1]["total"]) < 0.8 * float(found[0]["total"])
    for row in found:
        parts = ("keypoints", "prior", "halfway", "score", "visibility", "attributes", "correction")
        assert sum(float(row[name]) for name in parts) == pytest.approx(float(row["total"]), rel=1e-4)
        assert {"lr", "nme", "prior_nme", "validation_score"} <= row.keys()
    # What comes back is the best epoch's averaged network.
    figures = stage_module.validate(net, task.held, SHORT, HERE)
    assert figures["nme"] == pytest.approx(best, rel=1e-4)


def test_validation_error_equals_plain_numpy(tmp_path: Path) -> None:
    """Also where a reference point is not labelled: then the aligned mean shape gives the unit."""
    task = synthetic_task()
    schema = task.bank.schema
    gap = task.held.regions[2].keypoints
    gap[[schema.reference[0], 7]] = np.nan
    net = StageNet(NETWORK, task.bank.templates)
    found = stage_module.validate(net, task.held, SHORT, HERE)
    expected = []
    for item in (task.held[i] for i in range(len(task.held))):
        with torch.no_grad():
            points = net(stage_module.normalise(torch.from_numpy(item["image"][None]))).keypoints[0].numpy()
        known = item["labelled"] == 1
        distance = np.linalg.norm(points - item["keypoints"], axis=1)[known].mean()
        a, b = schema.reference
        ends = item["keypoints"][[a, b]]
        unit = np.linalg.norm(ends[0] - ends[1]) if known[a] and known[b] else item["unit"]
        expected.append(100 * distance / unit)
    assert found["nme"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert found["nme"] == found["prior_nme"]  # a fresh network adds nothing to the prior
    assert 0 < found["validation_score"] < 1


# ---- going on ----------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


class Interrupted(CropDataset):
    """Training crops of which one, in the second epoch, raises or kills the process."""

    stop: str = ""

    def __getitem__(self, at: int) -> Any:
        if self.epoch == 1 and at == 5 and self.stop:
            if self.stop == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise Stopped
        return super().__getitem__(at)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight") / "stage"
    synthetic_task().run(out, SHORT)
    return out


def test_training_goes_on_where_it_stopped_within_an_epoch(straight: Path, tmp_path: Path) -> None:
    task = synthetic_task(Interrupted)
    task.train.stop = "raise"
    with pytest.raises(Stopped):
        task.run(tmp_path / "stage", SHORT)
    assert len(rows(tmp_path / "stage")) == 1
    task.train.stop = ""
    net = task.run(tmp_path / "stage", replace(SHORT, workers=1))  # loader processes change nothing
    same_run(straight, tmp_path / "stage")
    again = load_stage(straight / "best.pt", task.bank.templates)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("unwritten", ["best.pt", "last.pt"])
def test_training_goes_on_where_it_stopped_between_two_files(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unwritten: str
) -> None:
    """The log of the second epoch is written and one of its checkpoints is not."""
    calls = []

    def stopping(path: Path, content: dict[str, Any]) -> None:
        calls.append(path.name)
        if path.name == unwritten and len(rows(tmp_path / "stage")) == 2:
            raise Stopped
        save_checkpoint(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "save_checkpoint", stopping)
        with pytest.raises(Stopped):
            synthetic_task().run(tmp_path / "stage", SHORT)
    assert load_checkpoint(tmp_path / "stage" / "last.pt")["epoch"] == 1
    synthetic_task().run(tmp_path / "stage", SHORT)
    same_run(straight, tmp_path / "stage")


def test_training_goes_on_after_a_kill(straight: Path, tmp_path: Path) -> None:
    code = f"""
        import sys, torch
        from pathlib import Path
        sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from test_loop import SHORT, Interrupted, synthetic_task
        torch.set_num_threads(1)
        task = synthetic_task(Interrupted)
        task.train.stop = "kill"
        task.run(Path({str(tmp_path / "stage")!r}), SHORT)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(rows(tmp_path / "stage")) == 1
    synthetic_task().run(tmp_path / "stage", SHORT)
    same_run(straight, tmp_path / "stage")


def test_a_network_that_draws_at_random_itself_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    """lite0 leaves out blocks at random (stochastic depth); here without its weights from ImageNet."""
    network = replace(NETWORK, trunk="lite0", correct=False)

    def run(out: Path, stop: str = "") -> None:
        task = synthetic_task(Interrupted)
        task.train.stop = stop
        start = lambda net: None  # noqa: E731
        train_stage(network, task.bank.templates, task.train, task.held, SHORT, out, HERE, start=start)

    run(tmp_path / "straight")
    with pytest.raises(Stopped):
        run(tmp_path / "stage", "raise")
    run(tmp_path / "stage")
    same_run(tmp_path / "straight", tmp_path / "stage")


def test_a_finished_stage_is_not_trained_again(straight: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in straight.glob("*.pt")}
    task = synthetic_task(Interrupted)
    task.train.stop = "raise"
    task.run(straight, SHORT)
    assert {p.name: p.stat().st_mtime_ns for p in straight.glob("*.pt")} == before
    assert len(rows(straight)) == 3


# ---- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "network"),
    [
        (replace(SHORT, learning_rate=1e-3), NETWORK),
        (replace(SHORT, seed=1), NETWORK),
        (replace(SHORT, epochs=4), NETWORK),
        (SHORT, replace(NETWORK, width=16)),
        (SHORT, replace(NETWORK, attributes=("occlusion",))),
    ],
)
def test_other_settings_are_refused(straight: Path, loop: LoopConfig, network: NetworkConfig) -> None:
    before = (straight / "last.pt").read_bytes()
    with pytest.raises(ModelError, match=r"other settings or data; choose another --out or remove"):
        synthetic_task().run(straight, loop, network)
    assert (straight / "last.pt").read_bytes() == before


def test_other_data_or_another_bank_is_refused(straight: Path) -> None:
    task = synthetic_task()
    task.train.index = task.train.index[:-1]
    with pytest.raises(ModelError, match="other settings or data"):
        task.run(straight, SHORT)
    task = synthetic_task()
    task.bank.templates[0, 0, 0] += 0.01
    with pytest.raises(ModelError, match="other settings or data"):
        task.run(straight, SHORT)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_a_damaged_checkpoint_is_refused(straight: Path, tmp_path: Path, damage: str) -> None:
    whole = (straight / "last.pt").read_bytes()
    # A bit in the middle of the weights: PyTorch itself would take them as they are.
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :]
    damaged = {"cut": whole[:middle], "empty": b"", "text": b"not a checkpoint", "flipped": flipped}
    content = damaged[damage]
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(
        ModelError, match=r"last\.pt: damaged checkpoint .*; remove .* and train again"
    ) as caught:
        synthetic_task().run(tmp_path, SHORT)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "last.pt").read_bytes() == content


def test_a_checkpoint_of_another_bank_is_refused(straight: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        load_stage(tmp_path / "best.pt", np.zeros((8, 12, 2), np.float32))
    with pytest.raises(ModelError, match="does not fit its template bank"):
        load_stage(straight / "best.pt", np.zeros((9, 12, 2), np.float32))


def test_fewer_samples_than_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="40 samples an epoch are fewer than one batch of 64; lower --batch"):
        synthetic_task().run(tmp_path / "stage", replace(SHORT, batch=64))


class Unwritable:
    def __reduce__(self) -> Any:
        raise Stopped


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "new" / "best.pt"
    save_checkpoint(path, {"value": torch.arange(5)})
    before = path.read_bytes()
    with pytest.raises(Stopped):
        save_checkpoint(path, {"value": torch.arange(100_000), "broken": Unwritable()})
    assert path.read_bytes() == before
    assert load_checkpoint(path)["value"].tolist() == [0, 1, 2, 3, 4]
    save_checkpoint(path, {"value": torch.zeros(2)})
    assert [p.name for p in path.parent.iterdir()] == ["best.pt"]


# ---- when to stop --------------------------------------------------------------------------------------


def run_with_figures(out: Path, monkeypatch: pytest.MonkeyPatch, nmes: list[float], **changes: Any) -> int:
    """Train on validation figures given in advance; returns how many epochs were run."""
    given_figures = iter(nmes)

    def validate(*_: Any) -> dict[str, float]:
        return {"nme": next(given_figures), "prior_nme": 1.0, "validation_score": 1.0}

    monkeypatch.setattr(stage_module, "validate", validate)
    synthetic_task().run(out, replace(SHORT, epochs=len(nmes), batch=40, **changes))
    return len(rows(out))


def test_training_stops_on_a_plateau(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = [9.0, 8.0, 8.5, 7.0, 7.5, 7.0, 3.0]
    assert run_with_figures(tmp_path / "a", monkeypatch, figures, patience=2) == 6
    saved = load_checkpoint(tmp_path / "a" / "last.pt")
    assert (saved["epoch"], saved["best"], saved["stale"]) == (6, 7.0, 2)
    # The same command again finds the stage finished.
    assert run_with_figures(tmp_path / "a", monkeypatch, figures, patience=2) == 6
    assert run_with_figures(tmp_path / "b", monkeypatch, figures, patience=0) == 7


def test_one_epoch_without_a_figure_does_not_hide_later_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_with_figures(tmp_path / "a", monkeypatch, [9.0, math.nan, 5.0])
    last, best = (load_checkpoint(tmp_path / "a" / name) for name in ("last.pt", "best.pt"))
    assert (last["best"], last["stale"]) == (5.0, 0)
    assert all(torch.equal(value, last["average"][name]) for name, value in best["net"].items())


@given(st.floats(0, 1), st.floats(0.01, 0.5))
def test_the_learning_rate_stays_within_its_bounds(progress: float, warm_up: float) -> None:
    assert -1e-12 <= one_cycle(progress, warm_up) <= 1 + 1e-12


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    share = [one_cycle(p) for p in np.linspace(0, 1, 2001)]
    peak = int(np.argmax(share))
    assert share[0] == pytest.approx(0.04)
    assert share[peak] == pytest.approx(1, abs=1e-4)
    assert share[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(share[: peak + 1]) > 0).all()
    assert (np.diff(share[peak:]) < 0).all()
    assert abs(one_cycle(0.05 - 1e-9) - one_cycle(0.05)) < 1e-6


# ---- two processes ---------------------------------------------------------------------------------------


def torchrun(*arguments: str, machines: int = 1) -> subprocess.CompletedProcess[str]:
    """Two processes, started at once or as if on two machines, one each; their outputs as one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    started = []
    for machine in range(machines):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(2 // machines)]
        command += ["--nnodes", str(machines), "--node-rank", str(machine)]
        command += ["--master-addr", "127.0.0.1", "--master-port", port, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    try:
        shown = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    worst = max(abs(process.returncode) for process in started)
    return subprocess.CompletedProcess(
        arguments, worst, *("".join(texts) for texts in zip(*shown, strict=True))
    )


@pytest.fixture
def train(tmp_path: Path) -> str:
    """``edge_kp.train`` as a program that measures between its parts on few crops; see conftest.py."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from edge_kp.train import main\n"
        "from edge_kp.training import both_stages, whole\n"
        "both_stages.MEASURED, whole.BOXES = 100, 20\n"
        "sys.exit(main())\n"
    )
    return str(script)


def test_two_processes_share_their_gradients(tmp_path: Path) -> None:
    """Each sees other samples, so their weights only agree when every step used both halves of the batch.

    No thread of theirs may be left at the end: it would touch a Python that is gone, and abort.
    """
    code = f"""
        import torch, torch.distributed as dist
        from pathlib import Path
        from torch.optim.optimizer import register_optimizer_step_post_hook
        from edge_kp.training.stage import train_stage
        from edge_kp.training.place import training_place
        from test_loop import NETWORK, SHORT, synthetic_task
        used = []
        register_optimizer_step_post_hook(lambda optimizer, *_: used.append(optimizer))
        with training_place("cpu") as place:
            task = synthetic_task()
            out = Path({str(tmp_path / "stage")!r})
            train_stage(NETWORK, task.bank.templates, task.train, task.held, SHORT, out, place)
            groups = used[-1].param_groups
            weights = torch.cat([p.detach().flatten() for group in groups for p in group["params"]])
            both = [torch.empty_like(weights) for _ in range(2)]
            dist.all_gather(both, weights)
            assert torch.equal(*both), (both[0] - both[1]).abs().max()
        threads = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
        assert not [name for name in threads if "gloo" in name], threads
    """
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(code))
    done = torchrun(str(script))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(rows(tmp_path / "stage")) == SHORT.epochs


def test_processes_of_two_machines_write_one_run(tmp_path: Path, train: str) -> None:
    """Of networks with parts left out, too: what is not used has no gradient, which processes that wait for
    each other's must know."""
    out = tmp_path / "run"
    command = [train, "--data", "synthetic:160", "--out", str(out), "--epochs", "1", "1"]
    command += ["--k", "8", "--sizes", "32", "48", "--widths", "8", "8", "--batch", "32", "--workers", "0"]
    command += ["--locator-size", "64", "--locator-width", "8"]
    command += ["--locator-epochs", "1", "--locator-pictures", "32"]
    command += ["--readings", "2", "2", "--searches", "8", "0", "--without", "residual"]
    done = torchrun(*command, machines=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held-back samples") == 1  # one process speaks for both
    assert "2 process(es)" in done.stdout
    recipe, bank, stage1, stage2 = load_run(out)
    assert recipe.sizes == (32, 48)
    assert len(bank) == 8
    assert (out / "evaluation.json").is_file()
    for stage, net in (("stage1", stage1), ("stage2", stage2)):
        assert [row["epoch"] for row in rows(out / stage)] == ["1"]
        assert all(torch.isfinite(p).all() for p in net.parameters())
    assert load_locator(out / "locator" / "best.pt").config.size == 64
    assert done.stdout.count("likely objects without label") == 1
    assert not list(out.rglob("*.part.*"))


@pytest.mark.parametrize(
    ("done", "left", "seconds", "said"),
    [
        (0, 40, 9.0, ""),
        (1, 39, 0.5, ", 1 min to go"),
        (2, 38, 120.0, ", 38 min to go"),
        (10, 30, 3600.0, ", 3.0 h to go"),
    ],
)
def test_the_time_to_go_is_told_once_an_epoch_is_done(
    done: int, left: int, seconds: float, said: str
) -> None:
    assert to_go(done, left, seconds) == said
