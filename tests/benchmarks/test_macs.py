"""The count of multiply-accumulates and parameters, against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="the counter reads ONNX files")

import numpy as np  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from benchmarks.macs import count  # noqa: E402
from edge_kp.errors import ModelError  # noqa: E402
from edge_kp.modeldir import SHIPPED, read_model, shipped_models  # noqa: E402

FACE = SHIPPED / "face68"


def save(path, nodes, shape, stored, kind=TensorProto.FLOAT):
    """A graph from ``x`` of a shape to ``y``, with arrays stored by name."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def floats(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("node", "shape", "stored", "macs"),
    [
        # 8 × 5 × 6 numbers, each of 3 channels × 3 × 3
        (("Conv", {"strides": [2, 2], "pads": [1, 1, 1, 1]}), ("b", 3, 10, 12), [(8, 3, 3, 3), (8,)], 6480),
        # depthwise: 8 × 9 × 9 numbers, each of one channel × 3 × 3
        (("Conv", {"group": 8}), ("b", 8, 11, 11), [(8, 1, 3, 3)], 5832),
        # two groups of two channels: 6 × 4 × 4 numbers, each of 2 × 1 × 1
        (("Conv", {"group": 2}), ("b", 4, 4, 4), [(6, 2, 1, 1)], 192),
        # one dimension: 6 × 16 numbers, each of 4 × 5
        (("Conv", {}), ("b", 4, 20), [(6, 4, 5)], 1920),
        # dilated: 2 × 1 × 3 numbers, each of 1 × 2 × 2
        (("Conv", {"dilations": [3, 1]}), (1, 1, 4, 4), [(2, 1, 2, 2)], 24),
        # spread: 4 × 5 × 5 numbers over 2 × 3 × 3
        (("ConvTranspose", {"strides": [2, 2]}), ("b", 4, 5, 5), [(4, 2, 3, 3)], 1800),
        (("Gemm", {"transB": 1}), ("b", 7), [(3, 7), (3,)], 21),
        (("Gemm", {"transA": 1}), (7, 5), [(7, 2)], 70),
        (("MatMul", {}), ("b", 5, 4), [(4, 6)], 120),
        (("MatMul", {}), (3, 2, 5, 4), [(4,)], 120),
        (("Add", {}), ("b", 3), [(3,)], 0),
    ],
)
def test_a_node_is_counted_for_one_image(tmp_path, node, shape, stored, macs):
    names = [f"w{i}" for i in range(len(stored))]
    made = helper.make_node(node[0], ["x", *names], ["y"], **node[1])
    path = save(
        tmp_path / "m.onnx", [made], shape, {n: floats(*s) for n, s in zip(names, stored, strict=True)}
    )
    cost = count(path)
    assert cost.macs == macs
    assert sum(cost.by_kind.values()) == macs
    assert cost.parameters == sum(int(np.prod(s)) for s in stored)
    assert (cost.file_bytes, cost.weight_bytes) == (path.stat().st_size, 0)


def test_shapes_go_through_a_graph_and_what_is_no_weight_is_no_parameter(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["features"]),
        helper.make_node("Reshape", ["features", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["y"]),
    ]
    stored = {
        "q": np.zeros((4, 2, 3, 3), np.int8),
        "scale": floats(4),
        "zero": np.zeros(4, np.int8),
        "shape": np.array([-1, 16], np.int64),
        "m": np.zeros((16, 5), np.float32),
    }
    cost = count(save(tmp_path / "m.onnx", nodes, ("b", 2, 4, 4), stored))
    assert cost.by_kind == {"Conv": 4 * 2 * 2 * 2 * 9, "MatMul": 16 * 5}
    assert cost.parameters == 4 * 2 * 9 + 16 * 5


def test_what_cannot_be_counted_is_refused_in_one_line(tmp_path):
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bi,ij->bj")
    path = save(tmp_path / "einsum.onnx", [node], ("b", 3), {"w": floats(3, 2)})
    with pytest.raises(ModelError, match=r"not known how to count Einsum .*; export the model without it"):
        count(path)
    node = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(ModelError, match="side 1 of input x is not fixed"):
        count(save(tmp_path / "free.onnx", [node], ("b", "n"), {}))
    wrong = helper.make_node("MatMul", ["x", "w"], ["y"])
    with pytest.raises(ModelError, match="cannot be counted"):
        count(save(tmp_path / "wrong.onnx", [wrong], ("b", 3), {"w": floats(4, 2)}))
    (tmp_path / "none.onnx").write_bytes(b"no ONNX at all")
    with pytest.raises(ModelError, match="cannot be counted") as refused:
        count(tmp_path / "none.onnx")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("network", ["locator", "stage1", "stage2", "cascade"])
def test_a_network_costs_the_same_in_every_precision(network):
    costs = {path.name: count(path) for path in FACE.glob(f"{network}.*.onnx")}
    assert len(costs) >= 2
    assert len({cost.macs for cost in costs.values()}) == 1
    numbers = [cost.parameters for cost in costs.values()]
    assert max(numbers) - min(numbers) < 0.001 * min(numbers)
    for cost in costs.values():
        assert 0 < cost.weight_bytes <= (FACE / "weights.bin").stat().st_size
        assert cost.weight_bytes + cost.file_bytes > cost.parameters  # at least a byte each


@pytest.mark.parametrize("model", shipped_models())
def test_the_model_card_says_what_the_networks_are(model):
    folder = SHIPPED / model
    card = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    spec = read_model(folder)
    sizes = {"locator": spec.locator_size, "stage1": spec.sizes[0], "stage2": spec.sizes[1]}
    for network, size in sizes.items():
        cost = count(folder / f"{network}.fp32.onnx")
        macs, parameters = round(cost.macs / 1e6), f"{cost.parameters / 1e6:.2f} M parameters"
        assert (
            f"{size} px ({macs} MMAC, {parameters})" in card
            or f"{size} px, {macs} MMAC, {parameters}" in card
        )


def test_the_nano_model_costs_less_than_twelve_million():
    folder = SHIPPED / "face68-nano"
    assert sum(count(folder / f"{stage}.fp32.onnx").macs for stage in ("stage1", "stage2")) <= 12e6


def test_the_yardstick_is_the_published_network(tmp_path: Path):
    pytest.importorskip("torch")
    from benchmarks.mobilenet import export_mobilenet

    export_mobilenet(tmp_path / "m.onnx")
    cost = count(tmp_path / "m.onnx")
    assert cost.macs == 300_774_272
    # 3,504,872 are published; batch norms (34,112 of them) are folded away, the ends of ReLU6 are stored.
    assert cost.parameters == pytest.approx(3_504_872, rel=0.011)
