"""A kept export is taken for the very same network and options alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from export_cache import CachedExport  # noqa: E402

OPTIONS = {"external_data": False, "opset_version": 18, "dynamic_shapes": ({0: torch.export.Dim("batch")},)}


class Scaled(torch.nn.Module):
    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor
        self.layer = torch.nn.Linear(3, 2)
        self.register_buffer("shift", torch.zeros(2), persistent=False)
        self.register_buffer("slope", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.layer(x)


def network(**attributes: Any) -> Scaled:
    torch.manual_seed(0)
    net = Scaled()
    for name, value in attributes.items():
        setattr(net, name, value)
    return net


class Exports:
    """Writes how many files were written before, and counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        (folder / "kept").mkdir()
        self.cached = CachedExport(self.write, folder / "kept")

    def write(self, net: torch.nn.Module, inputs: Any, target: str, **options: Any) -> None:
        Path(target).write_text(str(self.count))
        self.count += 1

    def __call__(self, net: torch.nn.Module, rows: int = 2, **options: Any) -> str:
        path = self.folder / "out.onnx"
        self.cached(net, (torch.rand(rows, 3),), str(path), **{**OPTIONS, **options})
        return path.read_text()


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    return Exports(tmp_path)


def test_the_same_network_is_exported_once(exports: Exports) -> None:
    assert [exports(network()) for _ in range(3)] == ["0", "0", "0"]
    loaded = network(layer=torch.nn.Linear(3, 2))
    assert exports(loaded) == "1"
    loaded.load_state_dict(network().state_dict())
    assert exports(loaded) == "0"
    assert exports.count == 2
    assert len(list((exports.folder / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.layer.bias.data.add_(1e-7),
        lambda net: net.shift.add_(1),
        lambda net: setattr(net, "factor", 3.0),
        lambda net: setattr(net, "slope", net.shift),
        lambda net: setattr(net, "layer", torch.nn.Sequential(net.layer)),
        lambda net: net.half(),
        lambda net: net.train(),
        lambda net: setattr(net.layer, "weight", torch.nn.Parameter(net.layer.weight.t().contiguous().t())),
    ],
)
def test_another_network_is_exported_anew(exports: Exports, change: Callable[[Any], Any]) -> None:
    assert exports(network().eval()) == "0"
    other = network().eval()
    change(other)
    assert exports(other) == "1"


@pytest.mark.parametrize(
    "options",
    [
        {"rows": 3},
        {"opset_version": 17},
        {"dynamic_shapes": None},
        {"dynamic_shapes": ({0: torch.export.Dim("rows")},)},
        {"custom_translation_table": {torch.ops.aten.add.Tensor: print}},
    ],
)
def test_other_options_are_another_file(exports: Exports, options: dict[str, Any]) -> None:
    assert exports(network()) == "0"
    assert exports(network(), **options) == "1"
    assert exports(network(), **options) == "1"


def test_the_table_of_translations_counts_by_its_names(exports: Exports) -> None:
    add, mul = torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor
    tables = [{add: print}, {mul: print}, {add: repr}, {add: print}]
    assert [exports(network(), custom_translation_table=t) for t in tables] == ["0", "1", "2", "0"]


def test_other_code_under_the_same_name_is_exported_anew(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exports(network()) == "0"
    monkeypatch.setattr(Scaled, "forward", lambda self, x: self.layer(x))
    assert exports(network()) == "1"


def test_what_has_no_name_is_exported_every_time(exports: Exports) -> None:
    class Local(Scaled):
        pass

    net = network()
    net.forward = lambda x: x  # type: ignore[method-assign]
    assert [exports(each) for each in (Local(), Local(), net, net)] == ["0", "1", "2", "3"]
    assert list((exports.folder / "kept").iterdir()) == []
