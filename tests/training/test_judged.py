"""Files of fewer bits as they are judged: rounded in float32, and otherwise the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edge_kp.backends.onnxruntime import OnnxRuntimeBackend
from edge_kp.modeldir import SHIPPED, read_model
from edge_kp.parity import compare, load_references, table
from edge_kp.training.judged import PAIRS, open_judged, round_in_single
from edge_kp.training.onnx_graph import with_own_weights

FACE = SHIPPED / "face68"


def types(model: onnx.ModelProto) -> dict[str, int]:
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    return found


@pytest.mark.parametrize("network", ["locator", "stage1", "stage2", "cascade"])
def test_every_pair_rounds_in_float32_and_layers_stay_in_float16(network: str) -> None:
    whole = with_own_weights(FACE / f"{network}.int8.onnx")
    pairs = [node.op_type for node in whole.graph.node if node.op_type in PAIRS]
    model = round_in_single(whole)
    onnx.checker.check_model(model, full_check=True)
    of = types(model)
    for node in model.graph.node:
        if node.op_type in PAIRS:
            assert TensorProto.FLOAT16 not in {of[name] for name in (*node.input[:2], *node.output)}
    assert [node.op_type for node in model.graph.node if node.op_type in PAIRS] == pairs
    assert any(of[n.input[0]] == TensorProto.FLOAT16 for n in model.graph.node if n.op_type == "Conv")


@pytest.mark.parametrize("network", ["locator", "stage1", "stage2"])
def test_it_gives_what_pytorch_gave(network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reference = load_references(FACE, read_model(FACE))[network]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = open_judged(FACE / f"{network}.int8.onnx").run(reference.images)
    rows = compare(network, "int8", seen, reference.outputs)
    assert all(row.passed for row in rows), table(rows)
    assert max(row.mean for row in rows) > 1e-4, "nothing is rounded"
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_without_8_bits_is_taken_as_it_is(precision: str) -> None:
    path = FACE / f"stage1.{precision}.onnx"
    images = load_references(FACE, read_model(FACE))["stage1"].images
    expected = OnnxRuntimeBackend(path).run(images)
    for name, value in open_judged(path).run(images).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-3)
