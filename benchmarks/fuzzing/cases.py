"""All kinds of input that the fuzz run tries."""

from benchmarks.fuzzing.array_cases import BANK, FACE_MODEL, REFERENCES
from benchmarks.fuzzing.data_cases import COCO, PTS, WFLW
from benchmarks.fuzzing.engine_cases import ENGINE, RANGES
from benchmarks.fuzzing.image_cases import BOXES, IMAGES
from benchmarks.fuzzing.label_cases import LABELME, YOLO
from benchmarks.fuzzing.media_cases import CLIPS, PICTURES
from benchmarks.fuzzing.model_cases import DESCRIPTION, NETWORK
from benchmarks.fuzzing.run_cases import CHECKPOINT, RUN, SETTINGS

KINDS = {
    "image": IMAGES,
    "boxes": BOXES,
    "model.json": DESCRIPTION,
    "network": NETWORK,
    "templates.npz": BANK,
    "references.npz": REFERENCES,
    "engine": ENGINE,
    "ranges.json": RANGES,
    ".pts": PTS,
    "COCO": COCO,
    "WFLW": WFLW,
    "YOLO": YOLO,
    "labelme": LABELME,
    "face model": FACE_MODEL,
    "run.json": RUN,
    "checkpoint": CHECKPOINT,
    "run.toml": SETTINGS,
    "picture": PICTURES,
    "clip": CLIPS,
}
