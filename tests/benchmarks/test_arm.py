"""The parts of the check on an emulated ARM processor, on this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import arm
from edge_kp.modeldir import SHIPPED, shipped_models


def test_every_shipped_network_is_held() -> None:
    held = arm.hold()
    assert set(held) == set(shipped_models())
    for model, precisions in held.items():
        assert set(precisions) == set(arm.HELD)
        for precision, networks in precisions.items():
            assert {f"{n}.{precision}.onnx" for n in networks} == {
                path.name for path in (SHIPPED / model).glob(f"*.{precision}.onnx")
            }
            for figures in networks.values():
                assert figures["beyond_tolerance"] == []
                assert figures["mean"] <= figures["worst"]


def test_followings_are_compared_and_written(tmp_path: Path) -> None:
    here = arm.follow("fp32")
    assert here.shape[1:] == (68, 2)
    assert 50 < np.isfinite(here).all((1, 2)).sum() < len(here) == 63
    eyes = np.linalg.norm(here[:, 36] - here[:, 45], axis=1)
    there = here.copy()
    there[..., 0] += 0.02 * eyes[:, None]
    there[:10] = np.nan
    for precision in arm.FOLLOWED:
        np.save(tmp_path / f"{precision}.here.npy", here)
        np.save(tmp_path / f"{precision}.arm.npy", there)
    measured = {"title": "108 samples", "summary": {"cascade": {"nme": 3.0}, "stage1": {"nme": 4.0}}}
    (tmp_path / "fp16.error.json").write_text(json.dumps(measured))
    (tmp_path / "held.json").write_text(json.dumps({"machine": "aarch64", "models": {}}))
    assert arm.main(["write", str(tmp_path), "--processor", "cortex-a76", "--out", str(tmp_path)]) == 0
    told: dict[str, Any] = json.loads((tmp_path / "arm.json").read_text())
    assert told["emulated"]["processor"] == "cortex-a76"
    assert told["error"] == {"fp16": {"title": "108 samples", "nme": 3.0}}
    for figures in told["clip"].values():
        assert figures["frames_with_face_here"] - figures["frames_with_face"] == 10
        assert figures["apart_mean_percent"] == pytest.approx(2)
        assert figures["apart_worst_percent"] == pytest.approx(2)
