"""The example of a client, over gRPC: what it finds on a server is what a detector finds here."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from by_path import load

from edge_kp import Detector, export
from edge_kp.errors import BackendError

pytest.importorskip("tritonclient.grpc")
import tritonclient.grpc as triton
from fake_triton import serving

ROOT = Path(__file__).parents[1]


client = load(ROOT / "deploy" / "triton_client.py")


def repository(folder: Path, precision: str) -> Path:
    assert export.main(["--triton", str(folder), "--model", "face68", "--precision", precision]) == 0
    return folder


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    return repository(tmp_path_factory.mktemp("fused") / "repository", "fp16")


@pytest.fixture(scope="module")
def picture(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "astronaut.png"
    assert cv2.imwrite(str(path), frames[0])
    return path


def same(theirs, ours):
    """Crops and graph are the same; only threads may round in another order."""
    assert len(theirs) == len(ours) > 0
    for a, b in zip(theirs, ours, strict=True):
        assert a.id == b.id
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=2e-3)
        np.testing.assert_allclose(a.box, b.box, atol=2e-3)
        np.testing.assert_allclose(a.visibility, b.visibility, atol=1e-4)
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert a.attributes == pytest.approx(b.attributes, abs=1e-4)


def boxes_around(box, count):
    return [np.asarray(box, np.float32) + 3 * (i - count // 2) for i in range(count)]


def test_the_fused_cascade_finds_the_same_in_boxes_and_in_the_whole_frame(fused, frames):
    with (
        Detector("face68", backend="onnxruntime", precision="fp16", cascade="fused") as detector,
        serving(fused) as (url, server),
        triton.InferenceServerClient(url) as connection,
    ):
        model = client.Model(connection, "face68")
        found = model.detect(frames[0])
        same(found, detector.detect(frames[0]))
        assert server.batches == [("face68_locator", 1), ("face68_cascade", 1)]
        server.batches.clear()
        boxes = boxes_around(found[0].box, 18)
        same(model.detect(frames[0], boxes), detector.detect(frames[0], boxes))
        # More than the server takes at once go in two requests; those in doubt are then asked for again.
        assert server.batches[:2] == [("face68_cascade", 16), ("face68_cascade", 2)]
        server.batches.clear()
        assert model.detect(np.zeros((90, 120, 3), np.uint8)) == []
        assert server.batches == [("face68_locator", 1)] * 4  # once for each turn


def test_a_face_upside_down_is_found_by_the_client_as_by_the_detector(fused, frames):
    image = np.ascontiguousarray(np.rot90(frames[0], 2))
    with (
        Detector("face68", backend="onnxruntime", precision="fp16", cascade="fused") as detector,
        serving(fused) as (url, _),
        triton.InferenceServerClient(url) as connection,
    ):
        found = client.Model(connection, "face68").detect(image)
        assert len(found) == 1
        same(found, detector.detect(image))


def test_without_a_fused_cascade_both_stages_are_asked(tmp_path, frames):
    with (
        Detector("face68", backend="onnxruntime", precision="int8", cascade="staged") as detector,
        serving(repository(tmp_path / "repository", "int8")) as (url, server),
        triton.InferenceServerClient(url) as connection,
    ):
        model = client.Model(connection, "face68")
        same(model.detect(frames[0]), detector.detect(frames[0]))
        assert [name for name, _ in server.batches] == ["face68_locator", "face68_stage1", "face68_stage2"]


# ---- the command line ------------------------------------------------------------------------------------


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_picture_gives_a_line_and_a_drawn_picture(fused, picture, tmp_path, capsys):
    drawn = tmp_path / "drawn.png"
    with serving(fused) as (url, server):
        assert client.main(["--url", url, "--source", str(picture), "--save", str(drawn)]) == 0
        (line,) = lines(capsys)
        (face,) = line["detections"]
        assert line["frame"] == 0
        assert len(face["keypoints"]) == len(face["visibility"]) == 68
        box = [str(v) for v in face["box"]]
        server.batches.clear()
        assert client.main(["--url", url, "--source", str(picture), "--box", *box, "--box", *box]) == 0
        assert [detection["id"] for detection in lines(capsys)[0]["detections"]] == [0, 1]
        assert server.batches == [("face68_cascade", 2)]
    before, after = cv2.imread(str(picture)), cv2.imread(str(drawn))
    changed = np.argwhere((before != after).any(2))
    x0, y0, x1, y1 = face["box"]
    inside = (changed[:, 1] > x0) & (changed[:, 1] < x1) & (changed[:, 0] > y0) & (changed[:, 0] < y1)
    assert inside.sum() > 500


def refused(capsys, *arguments):
    assert client.main([str(a) for a in arguments]) == 1
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in shown.err
    return errors[0]


def test_no_server_is_one_line(picture, capsys):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "check --url, and that the server runs" in refused(capsys, "--url", url, "--source", picture)


def test_a_model_that_is_not_served_is_one_line(fused, picture, capsys):
    with serving(fused) as (url, _):
        line = refused(capsys, "--url", url, "--model", "face98", "--source", picture)
    assert "the server has no face98_stage2" in line
    assert "face68_cascade" in line


def test_a_model_of_other_origin_is_one_line(fused, picture, tmp_path, capsys):
    other = tmp_path / "repository"
    shutil.copytree(fused, other)
    config = other / "face68_stage2" / "config.pbtxt"
    config.write_text(config.read_text().partition("parameters")[0])
    with serving(other) as (url, _):
        line = refused(capsys, "--url", url, "--source", picture)
    assert "face68_stage2 does not tell what it is" in line
    assert "edge_kp.export --triton" in line


def test_a_server_that_fails_is_told_and_the_exit_code_says_so(fused, picture, capsys, caplog):
    with serving(fused) as (url, server):
        server.broken = True
        assert "1 frame(s) could not be inferred" in refused(capsys, "--url", url, "--source", picture)
        assert "model face68_locator: no memory left; check --url" in caplog.text
        with triton.InferenceServerClient(url) as connection:
            model = client.Model(connection, "face68")
            with pytest.raises(BackendError, match="face68_cascade: no memory left"):
                model.detect(np.zeros((90, 120, 3), np.uint8), [np.array([20, 20, 60, 60])])


# ---- Triton itself ---------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("tritonserver") is None, reason="Triton is not installed here")
def test_triton_itself_serves_the_repository(fused, frames, tmp_path):
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    command = [
        "tritonserver",
        f"--model-repository={fused}",
        "--allow-metrics=false",
        "--disable-auto-complete-config",
    ]
    command += [f"--grpc-port={ports[0]}", f"--http-port={ports[1]}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with triton.InferenceServerClient(f"127.0.0.1:{ports[0]}") as connection:
            deadline = time.monotonic() + 120
            while not ready(connection):
                assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
                assert time.monotonic() < deadline, "not ready"
                time.sleep(0.5)
            model = client.Model(connection, "face68")
            with Detector("face68", backend="onnxruntime", precision="fp16", cascade="fused") as detector:
                found = detector.detect(frames[0])
                same(model.detect(frames[0]), found)
                boxes = boxes_around(found[0].box, 18)
                same(model.detect(frames[0], boxes), detector.detect(frames[0], boxes))
    finally:
        server.terminate()
        server.wait(60)


def ready(connection) -> bool:
    try:
        return connection.is_server_ready()
    except triton.InferenceServerException:
        return False


def test_the_example_runs_as_a_program():
    command = [sys.executable, str(ROOT / "deploy" / "triton_client.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "usage: python deploy/triton_client.py" in done.stdout
