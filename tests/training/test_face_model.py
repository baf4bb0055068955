"""Files of face models: shapes move as they say, and what is no such file is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from refusal import problem
from small_head import small_head

from edge_kp.training.rendering.model import load_face_model


def test_a_shape_is_the_mean_face_moved_by_weighed_offsets(tmp_path: Path) -> None:
    arrays = small_head()
    np.savez(tmp_path / "head.npz", **arrays)
    model = load_face_model(str(tmp_path / "head.npz"))
    identity, expression = np.array([1.5, -0.5, 0]), np.array([0.8, 0, 0.3, 0])
    expected = arrays["vertices"].astype(float)
    for weights, name in ((identity, "identity"), (expression, "expression")):
        for weight, offsets in zip(weights, arrays[name], strict=True):
            expected = expected + weight * offsets
    found = model.shape(identity, expression)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-4)


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    np.savez(path, **small_head())
    data = path.read_bytes()
    (tmp_path / "text.npz").write_text("no model")
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "flipped.npz").write_bytes(data[:3000] + bytes(2000) + data[5000:])
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "folder.npz").mkdir()
    gone = str(tmp_path / "gone.npz")
    assert "no such file; give the .npz file of a face model" in problem(lambda: load_face_model(gone))
    for name in ("text.npz", "cut.npz", "flipped.npz", "array.npy", "folder.npz"):
        found = problem(lambda name=name: load_face_model(str(tmp_path / name)))
        assert f"{name}: cannot be read as a face model; give" in found


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("identity", None, "lacks identity"),
        ("vertices", np.zeros((9, 2)), "vertices has the shape (9, 2)"),
        ("landmarks68", np.zeros(60, int), "landmarks68 has the shape (60,)"),
        ("landmarks68", np.full(68, 99999), "landmarks68 names vertices that are not there"),
        ("triangles", np.full((4, 3), -1), "triangles names vertices that are not there"),
        (
            "triangles",
            np.zeros((4, 3)),
            "triangles has the shape (4, 3) of type float64, expected whole numbers",
        ),
        ("expression_names", np.array(["jawOpen"]), "expression has the shape"),
        ("parts", np.array("face"), "parts is not JSON of vertex ranges of face, head"),
        ("parts", np.array('{"face": [0, 5]}'), "parts is not JSON"),
        ("parts", np.array("[1]"), "parts is not JSON"),
        ("parts", np.array("[" * 200_000), "parts is not JSON"),
        ("parts", np.array('{"face": [0, Infinity]}'), "parts is not JSON"),
        ("identity", np.zeros((0, 2432, 3), np.float16), "identity is empty"),
    ],
)
def test_another_format_is_refused(name: str, value: np.ndarray | None, message: str, tmp_path: Path) -> None:
    arrays = {k: v for k, v in {**small_head(), name: value}.items() if v is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    assert message in problem(lambda: load_face_model(str(tmp_path / "other.npz")))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    arrays = small_head()
    arrays["vertices"][5, 1] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    assert "vertices holds values that are not finite" in problem(
        lambda: load_face_model(str(tmp_path / "nan.npz"))
    )
