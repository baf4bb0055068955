"""The shipped model through the public interface, on frames of the shipped clip."""

import copy
import hashlib
import json
import math
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from edge_kp import Detector, Tracker
from edge_kp.cascade import AT_ONCE
from edge_kp.errors import BackendError, ModelError
from edge_kp.geometry import box_iou, similarity, transform_points
from edge_kp.locator import SURER, Located
from edge_kp.looks import Looks, search
from edge_kp.modeldir import SHIPPED, read_model, shipped_models
from edge_kp.pose import pose_model
from edge_kp.templates import TemplateBank
from edge_kp.together import run_alone
from edge_kp.training.exporting import find_bank

CLIP = Path(__file__).parents[1] / "edge_kp" / "assets" / "astronaut.mp4"
ABOUT = json.loads(CLIP.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def detector():
    with Detector("face68", threads=1) as detector:
        yield detector


@pytest.fixture(scope="module")
def image():
    more, image = cv2.VideoCapture(str(CLIP)).read()
    assert more
    return image


@pytest.fixture(scope="module")
def box():
    """Tight face box in the first frame, from the clip's own description."""
    corners = np.array(ABOUT["reference_box"], float).reshape(2, 2)
    points = transform_points(np.array(ABOUT["frames"][0]["matrix"]), corners)
    return np.concatenate([points.min(0), points.max(0)])


def nme(a, b):
    unit = np.linalg.norm(b[36] - b[45])
    return np.linalg.norm(a - b, axis=1).mean() / unit


def test_finds_the_one_face(detector, image, box):
    (found,) = detector.detect(image)
    assert found.id == 0
    assert found.score > 0.8
    assert box_iou(found.box, box) > 0.65
    assert found.keypoints.shape == (68, 2)
    assert found.keypoints.dtype == np.float32
    assert found.visibility.shape == (68,)
    assert np.mean(found.visibility > 0.5) > 0.9
    assert set(found.attributes) == set(detector.spec.attributes)
    # The eyes lie above the mouth, the image's left eye left of the right one.
    assert found.keypoints[36, 0] < found.keypoints[45, 0]
    assert found.keypoints[36:48, 1].mean() < found.keypoints[48:, 1].mean()
    assert found.box == pytest.approx(np.concatenate([found.keypoints.min(0), found.keypoints.max(0)]))


def test_the_pose_is_computed_when_it_is_first_read(detector, image):
    (found,) = detector.detect(image)
    sent = pickle.loads(pickle.dumps(found))  # before anybody read it
    assert sent.pose == found.pose == pose_model(detector.schema)(found.keypoints)
    calls = []
    late = replace(found, pose=lambda: calls.append(1) or found.pose)
    assert not calls
    assert late.pose is late.pose is found.pose
    assert len(calls) == 1


@pytest.mark.parametrize("send", [pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize("what", [lambda detector: detector, Tracker])
def test_a_detector_is_not_sent_to_another_process(detector, send, what):
    with pytest.raises(TypeError, match=r"a Detector cannot be pickled.*: make a Detector in each process"):
        send(what(detector))


def test_given_boxes_are_answered_in_order_whatever_their_score(detector, image, box):
    nowhere = [20.0, 20.0, 100.0, 100.0]
    absent, present = detector.detect(image, boxes=[nowhere, box])
    assert (absent.id, present.id) == (0, 1)
    assert absent.score < 0.5 < present.score
    assert detector.detect(image, boxes=[]) == []


def test_a_batch_gives_what_single_boxes_give(detector, image, box):
    boxes = [box, box + 4, box * 0.98]
    together = detector.detect(image, boxes=boxes)
    for one, many in zip(boxes, together, strict=True):
        (alone,) = detector.detect(image, boxes=[one])
        assert alone.keypoints == pytest.approx(many.keypoints, abs=0.02)


def test_keypoints_hold_when_the_box_is_off(detector, image, box):
    reference = detector.detect(image, boxes=[box])[0].keypoints
    side = box[2] - box[0]
    for shift in ([0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]):
        moved = box + np.tile(np.array(shift) * side, 2)
        assert nme(detector.detect(image, boxes=[moved])[0].keypoints, reference) < 0.02


@pytest.mark.parametrize("degrees", [-25, 12, 25])
def test_keypoints_turn_with_the_image(detector, image, box, degrees):
    reference = detector.detect(image, boxes=[box])[0].keypoints
    height, width = image.shape[:2]
    turn = similarity(math.radians(degrees), 1.0)
    middle = np.array([width / 2, height / 2])
    turn[:, 2] = middle - turn[:, :2] @ middle
    turned = cv2.warpAffine(image, turn, (width, height))
    expected = transform_points(turn, reference)
    around = np.concatenate([expected.min(0), expected.max(0)])
    found = detector.detect(turned, boxes=[around])[0]
    assert nme(found.keypoints, expected) < 0.035
    if abs(degrees) > 20:
        assert found.attributes["rotation_in_plane"] > 0.5


def test_covered_points_are_called_covered(detector, image, box):
    free = detector.detect(image, boxes=[box])[0]
    hidden = image.copy()
    top = int(free.keypoints[48:68, 1].min() - 4)
    hidden[top:, :] = (60, 120, 30)
    seen = detector.detect(hidden, boxes=[box])[0]
    under = free.keypoints[:, 1] > top + 2
    assert seen.visibility[under].mean() < 0.4
    assert seen.visibility[~under].mean() > 0.6
    assert seen.attributes["occlusion"] > free.attributes["occlusion"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "got NoneType"),
        (np.zeros((10, 10), np.uint8), r"got uint8 \(10, 10\)"),
        (np.zeros((10, 10, 3), np.float32), "got float32"),
        (np.zeros((0, 10, 3), np.uint8), r"\(0, 10, 3\)"),
    ],
)
def test_refuses_other_images(detector, bad, message):
    with pytest.raises(ValueError, match=message):
        detector.detect(bad)


@pytest.mark.parametrize(
    "bad",
    [
        *([1, 2, 3], [10, 10, 10, 10], [20, 10, 10, 30], [0, 0, math.nan, 5], [0, 0, math.inf, 5]),
        *([0, 0, 1e39, 5], [0, 0, 10**400, 5], [1e12, 1e12, 2e12, 2e12], ["a", "b", "c", "d"], [None] * 4, 7),
    ],
)
def test_refuses_bad_boxes(detector, image, bad):
    with pytest.raises(ValueError, match="box"):
        detector.detect(image, boxes=[bad])


@pytest.mark.parametrize("flat", [list, tuple, np.array])
def test_one_box_instead_of_a_list_is_refused_with_what_to_pass(detector, image, box, flat):
    with pytest.raises(ValueError, match=r"boxes: expected a list of .* for one box pass \[box\]"):
        detector.detect(image, flat(box))


@pytest.mark.parametrize("bad", [5, 1.5, True, np.array(3.0)])
def test_what_is_no_list_of_boxes_is_refused(detector, image, bad):
    with pytest.raises(ValueError, match=r"boxes: expected a list of \[x0, y0, x1, y1\], got \w+$"):
        detector.detect(image, bad)


def test_a_tiny_image_and_a_box_outside_of_it_are_no_fault(detector):
    tiny = np.full((4, 5, 3), 90, np.uint8)
    assert detector.detect(tiny) == []
    (far,) = detector.detect(tiny, boxes=[[500, 500, 600, 600]])
    assert far.score < 0.5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40_000), (40_000, 2)])
def test_a_picture_of_any_shape_is_answered(detector, height, width):
    image = np.full((height, width, 3), 90, np.uint8)
    assert detector.detect(image) == []
    (found,) = detector.detect(image, boxes=[[0, 0, 60, 60]])
    assert np.isfinite(found.keypoints).all()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_boxes_of_several_batches_are_answered_as_alone(image, box, backend):
    boxes = [box + shift for shift in np.linspace(-8, 8, AT_ONCE + 3)]
    with Detector("face68", threads=1, backend=backend, precision="fp32") as detector:
        found = detector.detect(image, boxes=boxes)
        assert [one.id for one in found] == list(range(len(boxes)))
        for i in (0, AT_ONCE - 1, AT_ONCE, len(boxes) - 1):
            (alone,) = detector.detect(image, boxes=[boxes[i]])
            np.testing.assert_allclose(found[i].keypoints, alone.keypoints, atol=0.02)
            assert found[i].score == pytest.approx(alone.score, abs=1e-4)


@pytest.fixture
def copy(tmp_path):
    """The shipped model in FP32, to be spoilt."""
    names = ["model.json", "weights.bin", *(f"{n}.fp32.onnx" for n in ("locator", "stage1", "stage2"))]
    for name in names:
        shutil.copy(SHIPPED / "face68" / name, tmp_path)
    return tmp_path


def trust(folder, name):
    """Let model.json name the file as it is now."""
    described = json.loads((folder / "model.json").read_text())
    described["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(described))


def refusal(folder):
    with pytest.raises(ModelError) as error:
        Detector(folder, threads=1, backend="onnxruntime", precision="fp32")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    with pytest.raises(BackendError, match=f"threads: expected at least 1, got {threads}"):
        Detector("face68", threads=threads)


@pytest.mark.parametrize("tiles", [0, -1, 9])
def test_a_number_of_tiles_that_is_none_is_refused(tiles):
    with pytest.raises(BackendError, match=f"tiles: expected 1 to 8, got {tiles}"):
        Detector("face68", threads=1, tiles=tiles)


def test_tiles_of_a_model_without_a_locator_are_refused(copy):
    described = json.loads((copy / "model.json").read_text())
    described["locator"] = {"kind": "image", "size": 0, "threshold": 0.0}
    (copy / "model.json").write_text(json.dumps(described))
    with pytest.raises(BackendError, match=r"tiles: face68 has no locator.*leave tiles out"):
        Detector(copy, threads=1, tiles=2)


def test_tiles_find_a_face_that_is_small_in_the_frame(detector, image, box):
    scale = 22 / (box[2] - box[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((720, 1280, 3), 90, np.uint8)
    x, y = 700, 300
    frame[y : y + small.shape[0], x : x + small.shape[1]] = small
    place = box * scale + (x, y, x, y)
    assert not any(box_iou(found.box, place) > 0.1 for found in detector.detect(frame))
    with Detector("face68", threads=1, tiles=3) as finer:
        (found,) = [found for found in finer.detect(frame) if box_iou(found.box, place) > 0.1]
    (near,) = detector.detect(image)
    moved = (near.keypoints + 0.5) * scale - 0.5 + (x, y)
    assert nme(found.keypoints, moved) < 0.06


def all_of(result, least):
    """Upright looks."""
    return Looks(result, np.float32(least), np.zeros(len(least), bool), np.float32(least) > 0, {})


def test_of_two_results_on_one_object_the_surer_counts_and_the_largest_comes_first():
    image = np.zeros((300, 400, 3), np.uint8)
    with Detector("face68", threads=1, backend="onnxruntime") as detector:
        mean = detector.spec.mean_shape
        places = [(40, 40, 50), (42, 41, 50), (150, 60, 120), (300, 200, 30)]
        points = np.stack([mean * side + (x, y) for x, y, side in places]).astype(np.float32)
        result = detector.cascade(image, [[30, 30, 90, 90]] * 4)
        score = np.array([0.7, 0.9, 0.95, 0.1], np.float32)
        result = replace(result, keypoints=points, score=score)
        assert detector.found(all_of(result, np.zeros(4))) == [2, 1]
        assert detector.found(all_of(result, np.float32([0, 0.91, 0, 0]))) == [2, 0]  # one asks for more
        points[2] = 100 * mean + 30  # around the first two
        around = replace(result, keypoints=points)
        assert detector.found(all_of(around, np.zeros(4))) == [2, 1]
        assert detector.found(all_of(around, np.float32([0.5, 0.5, 0, 0]))) == [2]


def test_what_the_locator_doubts_counts_where_the_stages_are_surer(detector, image, box, monkeypatch):
    nothing = np.float32([20, 20, 90, 90])
    (score,) = (found.score for found in detector.detect(image, [box]))
    assert score > SURER
    for least, count in ((0.0, 1), (SURER, 1), (1.01, 0)):
        located = Located(np.float32([nothing, box]), np.float32([SURER, least]))
        monkeypatch.setattr(detector, "locator", lambda *_, located=located: located)
        looks = run_alone(detector, search(detector, image))
        assert len(detector.found(looks)) == count


def test_a_file_that_differs_from_its_hash_is_refused(copy):
    path = copy / "stage1.fp32.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "differs from the hash" in refusal(copy)


def test_weights_are_held_to_their_hash_even_where_model_json_leaves_them_out(copy):
    described = json.loads((copy / "model.json").read_text())
    del described["files"]["weights.bin"]
    (copy / "model.json").write_text(json.dumps(described))
    assert "weights.bin" in refusal(copy)


def test_a_network_in_the_place_of_another_is_refused_though_its_hash_fits(copy):
    shutil.copy(copy / "stage2.fp32.onnx", copy / "stage1.fp32.onnx")
    trust(copy, "stage1.fp32.onnx")
    assert "is not stage1 in fp32, but stage2 in fp32" in refusal(copy)
    spoilt = (copy / "stage2.fp32.onnx").read_bytes().replace(b"stage2", b"sta\ne2")
    (copy / "stage1.fp32.onnx").write_bytes(spoilt)
    trust(copy, "stage1.fp32.onnx")
    assert "is not stage1 in fp32, but a file that does not tell what it is" in refusal(copy)


@pytest.mark.parametrize(
    ("key", "value"), [("mean_shape", [[0.1, 0.2]] * 68), ("attributes", ["occlusion"]), ("bank_sha256", "0")]
)
def test_a_description_of_another_network_is_refused(copy, key, value):
    described = json.loads((copy / "model.json").read_text())
    described[key] = value
    (copy / "model.json").write_text(json.dumps(described))
    assert f"was exported with another {key}" in refusal(copy)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "sub/a.onnx", "..", "a\\b", "c:x", ""])
def test_a_file_outside_of_the_folder_is_refused(copy, name):
    described = json.loads((copy / "model.json").read_text())
    described["files"][name] = "0" * 64
    (copy / "model.json").write_text(json.dumps(described))
    assert "is no name of a file in the folder" in refusal(copy)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"format": ' + "9" * 5000 + "}", "null", ""])
def test_a_description_that_is_none_is_refused(copy, text):
    (copy / "model.json").write_text(text)
    assert "model.json" in refusal(copy)


def test_refuses_unknown_models_precisions_and_backends():
    with pytest.raises(ModelError, match="face68"):
        Detector("no-such-model")
    with pytest.raises(BackendError, match="precision 'int3': expected one of auto, fp32"):
        Detector("face68", precision="int3")
    with pytest.raises(BackendError, match="expected one of auto, onnxruntime"):
        Detector("face68", backend="abacus")


@pytest.mark.parametrize("model", shipped_models())
def test_the_shipped_graphs_hold_the_shipped_bank(model):
    folder = SHIPPED / model
    bank = TemplateBank.load(folder / "templates.npz")
    assert bank.digest == read_model(folder).bank_digest
    for stage in ("stage1", "stage2"):
        find_bank(onnx.load(folder / f"{stage}.fp32.onnx"), bank.templates)


@pytest.mark.parametrize("model", shipped_models())
def test_the_model_card_names_data_and_terms(model):
    card = read_model(SHIPPED / model).card
    if model == "face68-free":
        # Nothing in it may carry terms that its name denies.
        names = [*card["data"], *card["locator"]["data"], *card["calibration"]["data"]]
        assert {name.partition(":")[0] for name in names} == {"rendered"}
        assert "MIT" in card["terms"]
        assert "Apache" in card["terms"]
        assert "non-commercial" not in card["terms"]
        return
    assert "non-commercial" in card["terms"]
    assert any("helen" in name for name in card["data"])
    assert "research and trial" in (SHIPPED / model / "README.md").read_text(encoding="utf-8")
