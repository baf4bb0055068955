"""A model folder without edge_kp: ONNX Runtime, OpenCV and NumPy alone, to read or to port.

    python deploy/standalone.py edge_kp/models/face68 clip.mp4

One line of JSON per frame. docs/embedding.md says what each step stands for, and what edge_kp does besides.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

SAME = 0.4  # intersection over union from which two boxes show the same object


class Model:
    """A model folder.

    Points are (N, 2), pixels of the frame; a box is [x0, y0, x1, y1], tight around them. A matrix is the
    (2, 3) similarity that takes a frame's pixels to a crop's coordinates, in [0, 1].
    """

    def __init__(self, folder: Path, precision: str = "fp32", threads: int = 1) -> None:
        self.contract = json.loads((folder / "model.json").read_bytes())
        self.mean = np.array(self.contract["mean_shape"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        names = ["stage1", "stage2"]
        names += ["locator"] if self.contract["locator"]["kind"] == "network" else []
        self.sessions = {
            name: ort.InferenceSession(folder / f"{name}.{precision}.onnx", options) for name in names
        }

    def run(self, network: str, picture: Any) -> dict[str, Any]:
        """What a network gives for one picture, uint8 BGR (S, S, 3); it takes batches as well."""
        session = self.sessions[network]
        values = session.run(None, {"image": picture[None]})
        return {o.name: value[0] for o, value in zip(session.get_outputs(), values, strict=True)}

    def detect(self, image: Any) -> list[dict[str, Any]]:
        """Every object of a frame, uint8 BGR (H, W, 3)."""
        seen = [self.look(image, box) for box in self.locate(image)]
        return [found for found in seen if found["score"] >= self.contract["score_threshold"]]

    def locate(self, image: Any) -> list[Any]:
        """The boxes of a frame, likeliest first."""
        height, width = image.shape[:2]
        if "locator" not in self.sessions:  # the whole frame is the object
            return [np.array([-0.5, -0.5, width - 0.5, height - 0.5])]
        size = self.contract["locator"]["size"]
        scale = size / max(height, width)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        square = np.zeros((size, size, 3), np.uint8)
        how = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR
        square[:h, :w] = cv2.resize(image, (w, h), interpolation=how)
        out = self.run("locator", square)
        order = np.argsort(-out["score"], kind="stable")
        likely = [i for i in order if out["score"][i] >= self.contract["locator"]["threshold"]]
        kept: list[Any] = []
        for box in out["boxes"][likely] * size * np.array([width / w, height / h] * 2) - 0.5:
            if all(overlap(box, other) <= SAME for other in kept):
                kept.append(box)
        return kept

    def look(self, image: Any, box: Any) -> dict[str, Any]:
        """Both stages on a box."""
        side = max(box[2] - box[0], box[3] - box[1]) * self.contract["stage1"]["scale"]
        middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        matrix = np.column_stack([np.eye(2) / side, 0.5 - middle / side])
        out = self.run("stage1", crop(image, matrix, self.contract["stage1"]["size"]))
        found = self.follow(image, to_frame(matrix, out["keypoints"]))
        return found | {"score": min(found["score"], float(out["score"]))}

    def follow(self, image: Any, keypoints: Any) -> dict[str, Any]:
        """Stage 2 on points that are nearly right: those of stage 1, or of the frame before."""
        matrix = similarity(keypoints, self.mean)
        out = self.run("stage2", crop(image, matrix, self.contract["stage2"]["size"]))
        return {
            "score": float(out["score"]),
            "keypoints": to_frame(matrix, out["keypoints"]),
            "visibility": out["visibility"],
            "attributes": dict(zip(self.contract["attributes"], out["attributes"], strict=True)),
        }


def similarity(points: Any, shape: Any) -> Any:
    """The similarity (2, 3) that takes points nearest to a shape, both (N, 2), in least squares."""
    p, s = points @ [1, 1j], shape @ [1, 1j]  # x + iy: a similarity is one product and one sum
    centred = p - p.mean()
    factor = np.vdot(centred, s - s.mean()) / np.vdot(centred, centred)
    shift = s.mean() - factor * p.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def crop(image: Any, matrix: Any, size: int) -> Any:
    """The picture (size, size, 3) that a matrix shows, black outside the frame."""
    m = matrix * size
    m[:, 2] -= 0.5  # coordinates in [0, 1] → pixels with their centres at whole numbers
    times = 1 / math.hypot(m[0, 0], m[1, 0])
    if times >= 2:  # bilinear alone would leave pixels out: means of blocks of 2, 4, 8, … pixels first
        block = 1 << int(math.log2(times))
        corners = to_frame(matrix, np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
        most = np.array(image.shape[1::-1])  # only of the part under the crop
        low = np.clip(np.floor(corners.min(0)).astype(int) - block, 0, most - 1)
        high = np.clip(np.ceil(corners.max(0)).astype(int) + block + 1, low + 1, most)
        each = np.minimum(block, high - low)
        count = (high - low) // each
        (x0, y0), (x1, y1) = low, low + count * each
        image = cv2.resize(image[y0:y1, x0:x1], count.tolist(), interpolation=cv2.INTER_AREA)
        m[:, 2] += m[:, :2] @ (low + (each - 1) / 2)
        m[:, :2] *= each
    return cv2.warpAffine(image, m, (size, size), flags=cv2.INTER_LINEAR)


def to_frame(matrix: Any, points: Any) -> Any:
    """A crop's coordinates (N, 2) → pixels of the frame."""
    return np.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T).T


def overlap(a: Any, b: Any) -> float:
    """Intersection over union of two boxes; those of points in a row are widened first."""
    a, b = solid(a), solid(b)
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(w, 0) * max(h, 0)
    return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))


def solid(box: Any) -> Any:
    """A box no thinner than a tenth of its length."""
    size = box[2:] - box[:2]
    more = np.maximum(0.1 * size.max() - size, 0) / 2
    return np.concatenate([box[:2] - more, box[2:] + more])


def main() -> int:
    if len(sys.argv) != 3:
        print(f"usage: python {sys.argv[0]} MODEL_FOLDER CLIP_OR_PICTURE", file=sys.stderr)
        return 2
    folder, source = sys.argv[1:]
    capture = cv2.VideoCapture(source)
    if not capture.isOpened() or not (Path(folder) / "model.json").exists():
        print(f"cannot open {source} or {folder}/model.json: check both paths", file=sys.stderr)
        return 1
    model = Model(Path(folder))
    followed: list[dict[str, Any]] = []
    while True:
        more, image = capture.read()
        if not more:
            return 0
        # The cheap way while it lasts: stage 2 alone, from the points of the frame before.
        followed = [model.follow(image, found["keypoints"]) for found in followed]
        followed = [f for f in followed if f["score"] >= model.contract["score_threshold"]]
        followed = followed or model.detect(image)
        print(json.dumps({"detections": [_plain(found) for found in followed]}))


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """With lists of numbers, rounded to hundredths, for JSON."""
    return {
        "score": round(found["score"], 4),
        "keypoints": found["keypoints"].round(2).tolist(),
        "visibility": [round(float(v), 2) for v in found["visibility"]],
        "attributes": {name: round(float(v), 2) for name, v in found["attributes"].items()},
    }


if __name__ == "__main__":
    sys.exit(main())
