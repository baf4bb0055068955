"""The tables of figures, each from its results file; README files and the page show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.reporting.results import OTHER_SHAPE, MissingFigure, Result, Results
from benchmarks.reporting.tables import Table, label, told

NAMES = {  # of data sets, by the folder that they are in
    "helen_val": "HELEN validation",
    "afw_held": "AFW faces kept from training",
    "val": "YouTube Faces validation",
    "ytf_val": "YouTube Faces validation",
    "background": "pictures without faces",
}
OUTPUTS = {
    "stage1_prior": "stage 1, templates alone",
    "stage1": "stage 1",
    "prior": "stage 2, templates alone",
}
NOTES = {"onnxruntime fp16": " (meant for GPUs)", "onnxruntime int8": " (meant for TensorRT)"}
BACKENDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
TWIN = "the twin that was trained without them"  # of face68, which was trained with them
PHOTO_PEERS = "peers-photos"
TURNED = "rotation_out_of_plane"
ERRORS = ("nme", "fr10", "auc8")


def fixed(value: Any, digits: int) -> str:
    """A number with so many digits behind the point; – for none."""
    return "–" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"  # no -0.0


def data_name(spec: str) -> str:
    """``HELEN validation`` of ``ibug:helen_val,background=no``."""
    name = spec.rpartition(":")[2].partition(",")[0].rpartition("/")[2]
    return NAMES.get(name, name)


def accuracy(results: Results) -> Table:
    """The shipped model: its outputs on HELEN validation, the locator's boxes, its twin's on AFW faces."""
    jitter, located = results["accuracy-helen_val-jitter"], results["accuracy-helen_val-located"]
    held = results["accuracy-afw_held-jitter"]
    where = f"HELEN validation ({jitter.at('samples')}), boxes jittered by ±10 %"
    rows = [
        (f"{where}: {OUTPUTS['stage1_prior']}", jitter.at("summary", "stage1_prior")),
        ("stage 1", jitter.at("summary", "stage1")),
        ("cascade", jitter.at("summary", "cascade")),
        ("the same photos, boxes found by the locator", located.at("summary", "cascade")),
        (
            f"AFW, {held.at('samples')} faces, jittered boxes: {TWIN}",
            held.at("summary", "cascade"),
        ),
    ]
    cells = [(name, fixed(row["nme"], 2), fixed(row["fr10"], 1), fixed(row["auc8"], 1)) for name, row in rows]
    return Table(("shipped model face68", "NME %", "FR@10 %", "AUC@8 %"), cells, strong=2)


def turned(results: Results) -> Table:
    """The cascade on held-back photos, all and those that are turned out of the plane."""
    rows: list[tuple[str, str, str, str]] = []
    for name, boxes in (
        ("accuracy-helen_val-jitter", "labels' boxes, jittered by ±10 %"),
        ("accuracy-helen_val-located", "found by the locator"),
        ("accuracy-afw_held-jitter", "labels' boxes, jittered by ±10 %"),
    ):
        result = results[name]
        data = name.split("-")[1]
        photos = f"AFW faces: {TWIN}" if data == "afw_held" else data_name(data)
        photos = f"{photos} ({result.at('samples')})"
        groups = [(photos, boxes, result.at("summary", "cascade"))]
        part = result.at("by_attribute", TURNED)
        groups.append(
            (f"the {part['samples']} of them that are turned out of the plane", "the same", part["cascade"])
        )
        rows += [(what, how, fixed(row["nme"], 2), fixed(row["fr10"], 1)) for what, how, row in groups]
    return Table(("photos", "boxes", "cascade NME %", "FR@10 %"), rows)


def precision(results: Results) -> Table:
    """Error and time of every precision, both stages as two calls."""
    result = results["precision"]
    data, errors = next(iter(result.at("accuracy").items()))
    times = result.at("one_core_ms")
    rows, speeds = [], []
    for name in (name for name in times if name.endswith(" staged")):
        short = name.removesuffix(" staged")
        backend, _, bits = short.partition(" ")
        alone = result.at("one_core_ms", f"{short} stage 2 alone", "times_as_fast")
        speeds.append(times[name]["times_as_fast"])
        nme = result.at("accuracy", data, name, "nme") if errors else None
        rows.append((f"{bits}, {BACKENDS.get(backend, backend)}{NOTES.get(short, '')}", fixed(nme, 3),
                     fixed(times[name]["times_as_fast"], 2), fixed(alone, 2)))  # fmt: skip
    columns = (
        "the cascade in",
        f"NME % on {data_name(data)}",
        "one CPU core, times as fast as FP32 in ONNX Runtime",
        "stage 2 alone (tracking)",
    )
    return Table(columns, rows, strong=speeds.index(max(speeds)))


def kernels(results: Results) -> Table:
    """Kernels a run, by network and precision."""
    result = results["kernels"]
    networks = result.at("networks")
    names = list(dict.fromkeys(name.partition(".")[0] for name in networks))
    kinds = list(dict.fromkeys(name.partition(".")[2] for name in networks))
    rows = [[n, *(told(networks.get(f"{n}.{kind}", {}).get("kernels")) for kind in kinds)] for n in names]
    first = f"kernels a run (TensorRT-RTX, compiled for compute capability {result.at('compute_capability')})"
    return Table((first, *kinds), rows)


def locating(results: Results) -> Table:
    """What the locator finds in each data set."""
    result = results["locate"]
    rows = []
    for name, row in result.at("figures").items():
        if not isinstance(row, dict):
            continue
        count = row["photos"] if "photos" in row else row["pictures"]
        false = row["false_boxes_per_photo"] if "photos" in row else row["false_boxes_per_picture"]
        note = ", counted only where they touch a label" if row.get("all_objects_labelled") is False else ""
        faces = (
            f"{told(row['objects'])} in {told(count)} photos"
            if "objects" in row
            else f"{told(count)} pictures"
        )
        rows.append((data_name(name), faces, fixed(row.get("found_percent"), 1), f"{fixed(false, 2)}{note}"))
    overlap = f"found, %: box overlaps the label by more than {100 * result.at('overlap'):.0f} % (IoU)"
    return Table(("locator", "faces", overlap, "false boxes a photo"), rows)


def small(results: Results) -> Table:
    """How many objects are found by their width in the frame, and what searching tiles costs."""
    result = results["finding"]
    found = result.at("found_percent")
    rows = [
        (
            f"--tiles {tiles}",
            *(fixed(share, 0) for share in row.values()),
            fixed(result.at("search_ms", tiles), 1),
            fixed(result.at("objects_in_a_background", tiles), 2),
        )
        for tiles, row in found.items()
    ]
    width, height = result.at("frame")
    widths = (f"{wide} px" for wide in next(iter(found.values())))
    columns = (*widths, "a search, ms", "told in a picture without any")
    return Table((f"found, %, by width in a frame of {width} × {height}", *columns), rows)


def reliability(results: Results) -> Table:
    """Whether visibility and score mean something."""
    result = results["reliability"]
    covers = f"a cover on {100 * result.at('share'):.0f} % of the face, {result.at('draws')} covers a photo"
    rows = [
        (f"visibility: which points lie under it? ({covers}, {result.at('samples')} photos)", "visibility"),
        ("score: face, or a place beside it in the same photo?", "score"),
    ]
    return Table(("question", "AUC"), [(what, fixed(result.at(key, "auc"), 3)) for what, key in rows])


def clips(results: Results) -> Table:
    """Tracking of every clip, one row each."""
    columns = {
        "frames": 0,
        "tracking_median_ms": 2,
        "frames_with_object_percent": 1,
        "error_clear_percent": 2,
        "error_part_covered_percent": 2,
        "jitter_rms_percent": 2,
        "lag_frames": 2,
        "second_difference_percent": 2,
        "frames_on_it_percent": 1,
    }
    found = results.matching("clip-*.json")
    if not found:
        raise MissingFigure("clip-*.json: no such results file; run python -m benchmarks.clip")
    rows = []
    for result in found:
        figures = result.at("figures")
        how = (result.at("clip"), result.at("track"), result.at("smooth"), told(result.at("max_objects")))
        cells = [fixed(figures[key], digits) if key in figures else "" for key, digits in columns.items()]
        rows.append((*how, *cells, told(len(result.at("figures", "ids")))))
    return Table(("clip", "track", "smooth", "at most", *map(label, columns), "ids"), rows)


def peers(results: Results) -> Table:
    """Time beside each peer on every clip, measured in turns on one core."""
    rows = []
    for result in results.matching("peers-*.json"):
        if result.name.startswith(PHOTO_PEERS):
            continue
        times = result.at("figures", "time")
        ours = result.at("figures", "time", "edge_kp")
        for name in (n for n in times if n not in ("edge_kp", "ratio", "cpu_ratio")):
            rows.append((
                f"{result.name.removeprefix('peers-')}, {told(result.at('figures', 'frames'))} frames",
                _system(result, "edge_kp"), fixed(ours["median_ms"], 2), _system(result, name),
                fixed(times[name]["median_ms"], 2), fixed(result.at("figures", "time", "ratio", "median"), 2),
                f"{result.date}, {result.commit or 'no commit'}",
            ))  # fmt: skip
    if not rows:
        raise MissingFigure("peers-*.json: no such results file; run python -m benchmarks.peers")
    return Table(
        ("clip", "ours", "ms a frame", "peer", "its ms", "ours / its, median of turns", "measured"), rows
    )


def photo_peers(results: Results) -> Table:
    """Error and time of every system on the same photos; of several files with the data's name."""
    found = results.matching(f"{PHOTO_PEERS}*.json")
    if not found:
        raise MissingFigure(
            f"{PHOTO_PEERS}*.json: no such results file; run python -m benchmarks.peer_photos"
        )
    rows = []
    for result in found:
        photos = f"{result.at('photos')} photos"
        of = f"{', '.join(result.at('data'))}, {photos}: " if len(found) > 1 else ""
        for name, system in result.at("systems").items():
            errors = [system[markup] or {} for markup in ("unfitted", "fitted")]
            clocks = [system["time"][clock] or {} for clock in ("ms", "network_ms")]
            cells = [fixed(error.get(key), 2) for error in errors for key in ("nme", "fr10")]
            times = [fixed(clock.get(key), 2) for clock in clocks for key in ("median", "ratio")]
            rows.append((f"{of}{name}", *cells, *times))
    errors_of = (f"{what}{how}" for how in ("", ", fitted") for what in ("NME %", "FR@10 %"))
    columns = ("a photo, ms", "times ours", "networks alone, ms", "times ours")
    return Table((photos if len(found) == 1 else "photos", *errors_of, *columns), rows)


def _system(result: Result, name: str) -> str:
    versions = result.at("figures", "versions_of_systems", name)
    runs = next((k for k in ("openvino", "onnxruntime") if k in versions), None)
    version = versions.get(name.replace("_", "-"), "")
    return f"{name} {version}".strip() + (f" ({BACKENDS[runs]})" if runs else "")


def ablation(results: Results) -> Table:
    """Error on free, covered and badly placed faces with each part of the method left out."""
    result = results["ablation"]
    parts = (("plain", "nme"), ("covered", "nme"), ("moved", "nme"), ("covered", "abnormal"))
    rows = [
        (name, *(_spread(result.at("variants", name, kind, key)) for kind, key in parts))
        for name in result.at("variants")
    ]
    columns = ("", "NME %", "covered faces", "misplaced boxes", "impossible shapes under covers, %")
    return Table(columns, rows, strong=0)


def _spread(figure: dict[str, float]) -> str:
    return f"{fixed(figure['mean'], 1)} ± {fixed(figure['std'], 1)}"


def fuzz(results: Results) -> Table:
    """Every kind of bad input, counted."""
    kinds = results["fuzz"].at("kinds")
    columns = list(dict.fromkeys(key for row in kinds.values() for key in row))
    rows = [(name, *(told(row.get(key)) for key in columns)) for name, row in kinds.items()]
    rows.append(("all", *(told(sum(row.get(key, 0) for row in kinds.values())) for key in columns)))
    return Table(("input", *columns), rows, strong=len(rows) - 1)


def weaknesses(results: Results) -> Table:
    """Error on rendered faces from easy to hard, one row a difficulty."""
    found: dict[str, dict[str, Any]] = results["face68-weaknesses"].at("error_percent")
    most = max(len(steps) for steps in found.values())
    rows = [
        [
            kind,
            *(f"{fixed(error, 1)} % ({step})" for step, error in steps.items()),
            *[""] * (most - len(steps)),
        ]
        for kind, steps in found.items()
    ]
    return Table(("rendered faces", *[""] * most), rows)


def landmarks(results: Results) -> Table:
    """Distance by landmark of the X-rays, the nearest first."""
    points = dict(results["accuracy-ceph19-val"].at("millimetres", "points"))
    del points["all points"]
    limit = next(iter(next(iter(points.values()))["within_mm_percent"]))
    order: Sequence[str] = sorted(points, key=lambda name: points[name]["mean_mm"])
    rows = [
        (label(n), fixed(points[n]["mean_mm"], 2), f"{fixed(points[n]['within_mm_percent'][limit], 1)} %")
        for n in order
    ]
    return Table(("landmark", "mm", f"within {limit} mm"), rows)


def pose(results: Results) -> Table:
    """Head pose errors of every method over all simulated faces."""
    result = results["pose"]
    angles = ("turn", "yaw", "pitch", "roll")
    rows = [
        (name, *(fixed(result.at("exact", name, "by_yaw", "all", angle, "mean"), 1) for angle in angles))
        for name in result.at("exact")
    ]
    return Table(("mean error in degrees of", "whole rotation", *angles[1:]), rows, strong=0)


TABLES: dict[str, Callable[[Results], Table]] = {
    function.__name__: function
    for function in (
        *(accuracy, turned, precision, kernels, locating, small, reliability, clips, peers, photo_peers),
        *(ablation, fuzz, weaknesses, landmarks, pose),
    )
}


def table(name: str, results: Results) -> Table:
    """A table by its name.

    Raises:
        MissingFigure: no such table, no such results file, or figures of another shape than the table reads.
    """
    if name not in TABLES:
        raise MissingFigure(f"no table {name}; there are {', '.join(TABLES)}")
    try:
        found = TABLES[name](results)
    except OTHER_SHAPE as error:
        why = f"its results have another shape ({type(error).__name__}: {error})"
        raise MissingFigure(f"table {name}: {why}; mend the table") from error
    if not found.rows:
        raise MissingFigure(f"table {name}: its results hold no row; measure again")
    return found
