"""The soak, for seconds: everything fails once or twice, and every frame is accounted for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the page needs aiohttp")
pytest.importorskip("paho.mqtt", reason="MQTT needs paho-mqtt")


def test_a_short_soak_accounts_for_every_frame(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.soak",
        "--minutes",
        "0.3",
        "--out",
        str(tmp_path),
        "--seed",
        "3",
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, "--camera-fps", "40"], cwd=root, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert figures["problems"] == []
    assert sum(figures["faults"].values()) >= 2
    assert figures["frames"]["inferred"] > 10
    assert (tmp_path / "soak.png").stat().st_size > 5000
