"""What the report shows, section by section: a new results file gets a :class:`Part` here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from benchmarks.reporting.curves import error_curves
from benchmarks.reporting.figures import ERRORS, OUTPUTS, fixed, table
from benchmarks.reporting.results import Result, Results
from benchmarks.reporting.tables import Table, everything


@dataclass(frozen=True)
class Part:
    """Results files that belong together."""

    title: str
    pattern: str
    """Of their names; a picture's, too."""
    about: str
    """What the figures mean."""
    absent: str
    """What is told where no file fits the pattern: which command writes one."""
    show: Callable[[Results, list[Result]], str] | None = None
    """The figures to see at once, as HTML; all of them are below, folded."""


def of(name: str) -> Callable[[Results, list[Result]], str]:
    """Shows a table of :mod:`benchmarks.reporting.figures`."""
    return lambda results, found: table(name, results).html()


def whole(results: Results, found: list[Result]) -> str:
    """Shows all figures, unfolded."""
    return "\n".join(f"<h4>{escape(result.name)}</h4>\n{everything(result.figures)}" for result in found)


def outputs(results: Results, found: list[Result]) -> str:
    """Shows the errors of every output of the cascade, and the curves."""
    rows = []
    for result in found:
        title = result.figures.get("title", result.name)
        for name in result.at("summary"):
            row = [result.at("summary", name, key) for key in ERRORS]
            what = OUTPUTS.get(name, name)
            rows.append([title, what, fixed(row[0], 2), *(fixed(value, 1) for value in row[1:])])
            title = ""
    shown = Table(("model and data", "output", "NME %", "FR@10 %", "AUC@8 %"), rows).html()
    return f"<figure>{error_curves(found)}</figure>\n{shown}"


SECTIONS: dict[str, tuple[Part, ...]] = {
    "Accuracy": (
        Part(
            "Held-back photos",
            "accuracy-*.json",
            "NME: mean distance of the keypoints in % of the reference distance (faces: between the outer "
            "eye corners). FR@10 %: share of the objects with more than 10 %. AUC@8 %: area under the error "
            "curve up to 8 %.",
            "python -m edge_kp.evaluate --data … --json benchmarks/results/accuracy-DATA-BOXES.json",
            outputs,
        ),
        Part("By attribute, point, degradation", "accuracy*", "", "python -m benchmarks.accuracy", whole),
        Part("Finding faces", "locate.json", "", "python -m benchmarks.locate", of("locating")),
        Part(
            "Small, covered and turned faces",
            "finding*",
            "Share of the faces told by the whole detector, by their width in a frame, and the price.",
            "python -m benchmarks.finding",
            of("small"),
        ),
        Part("Error curves of every output", "*-errors.png", "", "python -m edge_kp.evaluate --plots"),
        Part(
            "The templates", "*-templates.png", "The bank of the shape prior.", "python -m edge_kp.templates"
        ),
    ),
    "Speed and cascade": (
        Part("Networks and cascade", "speed*", "", "python -m benchmarks.speed", whole),
        Part(
            "Precisions",
            "precision.json",
            "Both stages with their crops on one frame with one box; the candidates take turns on one core.",
            "python -m benchmarks.precision",
            of("precision"),
        ),
    ),
    "Beside peers": (
        Part(
            "Photos",
            "peers-photos*",
            "The same photos and boxes, in turns on one core. Fitted: each labelled point as a weighted sum "
            "of the system's points, learnt from other photos, so that another markup costs nothing.",
            "python -m benchmarks.peer_photos",
            of("photo_peers"),
        ),
        Part(
            "Clips",
            "peers*",
            "The systems take turns on the same frames and the same core.",
            "python -m benchmarks.peers",
            of("peers"),
        ),
        Part("Networks alone", "networks*.json", "", "python -m benchmarks.networks", whole),
    ),
    "Robustness": (
        Part(
            "What each part of the method is worth",
            "ablation*",
            "A small cascade trained without one part after the other; mean ± standard deviation over seeds.",
            "python -m benchmarks.ablation",
            of("ablation"),
        ),
        Part("With and without the bank, covered", "occlusion*", "", "python -m benchmarks.occlusion", whole),
        Part("How much data it takes", "data*", "", "python -m benchmarks.data_efficiency", whole),
        Part("Which photos to label next", "next*", "", "python -m benchmarks.next_labels", whole),
        Part("Head pose", "pose.json", "On simulated faces.", "python -m benchmarks.pose", of("pose")),
        Part(
            "Do visibility and score mean something?",
            "reliability*",
            "AUC: how often a random yes gets more than a random no; 0.5 is a coin.",
            "python -m benchmarks.reliability",
            of("reliability"),
        ),
        Part(
            "Weaknesses",
            "*weaknesses*",
            "Rendered faces, harder from left to right: mean error in % of the eye distance.",
            "python -m benchmarks.weaknesses",
            of("weaknesses"),
        ),
    ),
    "Live loop": (
        Part(
            "Clips",
            "clip-*",
            "Where the motion is known: error while the face is free and covered, jitter (root mean square "
            "from frame to frame), in % of the eye distance, and lag. The second difference tells how much "
            "keypoints tremble.",
            "python -m benchmarks.clip",
            of("clips"),
        ),
        Part("Frame rate and age", "loop*", "", "python -m benchmarks.loop", whole),
        Part(
            "Soak", "soak*", "Everything around the loop fails at random.", "python -m benchmarks.soak", whole
        ),
        Part("Several sources", "sources*", "", "python -m benchmarks.sources", whole),
    ),
    "Bad input": (
        Part(
            "Drawn and damaged at random",
            "fuzz*",
            "Answered, refused in one line, or one of the defects: a crash, a hang, a silent wrong answer, "
            "an unclear message, and good input that is denied.",
            "python -m benchmarks.fuzz",
            of("fuzz"),
        ),
    ),
    "TensorRT and GPUs": (
        Part(
            "Kernels", "kernels.json", "Counted without a GPU.", "python -m benchmarks.kernels", of("kernels")
        ),
        Part("On a GPU", "gpu-*", "", "nothing has run on a GPU yet; benchmarks/gpu_check.sh", whole),
    ),
}
GLANCE = (  # what, the figure's path and format as in a document, unit
    ("Error on HELEN validation photos", "accuracy-helen_val-jitter/summary/cascade/nme", ".2f", "% NME"),
    ("Faces found there", "locate/figures/helen_val/found_percent", ".1f", "%"),
    ("Both stages, one core, int8", "precision/one_core_ms/openvino int8-cpu staged/median_ms", ".2f", "ms"),
    ("Tracking a face", "clip-astronaut/figures/tracking_median_ms", ".2f", "ms a frame"),
    ("Time beside MediaPipe's", "peers-astronaut/figures/time/ratio/median", ".2f", "times"),
    ("Error while the face is covered", "clip-astronaut/figures/error_part_covered_percent", ".1f", "%"),
    ("Memory of the process, after half an hour", "soak/memory_mb_late", ".0f", "MB"),
    ("Bad input: cases", "fuzz/kinds/*/cases", ",", ""),
    ("crashes among them", "fuzz/kinds/*/crash", ",", ""),
)
OTHERS = Part("Other figures", "*", "", "", whole)
