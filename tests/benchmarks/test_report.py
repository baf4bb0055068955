"""The report: results that say where they are from, one page of them, and no other figure in a README."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import report  # noqa: E402
from benchmarks.common import RESULTS, write_result  # noqa: E402
from benchmarks.reporting.documents import BLOCK, DOCUMENTS, NUMBER, number, update, updated  # noqa: E402
from benchmarks.reporting.figures import TABLES, fixed, table  # noqa: E402
from benchmarks.reporting.page import OTHERWISE, page  # noqa: E402
from benchmarks.reporting.results import Results, read_result, read_results  # noqa: E402
from benchmarks.reporting.sections import SECTIONS  # noqa: E402
from benchmarks.reporting.tables import Table, everything, told  # noqa: E402
from edge_kp.errors import DataError  # noqa: E402
from edge_kp.provenance import commit, provenance  # noqa: E402

VOID = {"meta", "img", "line", "polyline", "br", "link"}
PAGES = ("README.md", "docs/figures.md", "docs/precision.md", "docs/training.md")
# Settings, sizes and versions in these pages, which nobody measured.
NO_FIGURES = {"3.10", "2025.0", "0.8", "0.5", "80 %", "10.3", "40 %", "640 ×", "2 mm", "2.0", "320 ×"}
GOOD: dict[str, Any] = {
    "command": "python -m benchmarks.x --data ibug:helen",
    "date": "2026-11-23",
    "commit": "f92be36+",
    "machine": {"cpu": "A CPU", "system": "Linux x86_64"},
    "versions": {"edge-kp": "0.1.0", "torch": None},
    "figures": {"a": {"nme": 3.5, "count": 1200}, "b": {"nme": 4.25, "count": 300}},
    "ratio": 0.0277,
    "none": None,
}


class Checked(HTMLParser):
    """Tags that close in the order they were opened, and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        self.text = "".join(self.said)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def put(folder: Path, name: str = "x", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**GOOD, **changes}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results()


# ---- what is committed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_figures_of_a_document_are_those_of_the_results(name: str, results: Results) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert updated(text, name, results) == text, "run python -m benchmarks.report --readme"


def test_a_changed_result_is_seen(results: Results, tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    path = tmp_path / "results" / "precision.json"
    content = json.loads(path.read_text())
    content["one_core_ms"]["onnxruntime fp16 staged"]["times_as_fast"] = 77.25
    path.write_text(json.dumps(content))
    text = (ROOT / "docs/precision.md").read_text(encoding="utf-8")
    changed = updated(text, "docs/precision.md", read_results(tmp_path / "results"))
    assert changed != text
    assert "77.25" in changed


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_measured_number_but_those_of_results(name: str) -> None:
    text = NUMBER.sub("", BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8")))
    text = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    unit = r" ?(?:%|ms|MB|GB|times|×|mm|°|minutes|hours?)"
    found = set(re.findall(rf"(?<![\w.,±])\d[\d,]*(?:\.\d+(?:{unit})?|{unit})", text))
    assert found <= NO_FIGURES, "measure it: see benchmarks/results/README.md"


def test_the_page_shows_every_file_and_needs_no_other(results: Results) -> None:
    text = page(results)
    seen = Checked(text)
    assert seen.open == []
    assert seen.loads
    assert all(load.startswith(("data:image/", "#")) for load in seen.loads)
    assert not re.search(r"url\(|@import|<script|<link|<iframe", text)
    for name in results.files:
        assert f"{name}.json" in seen.text
    for name in results.pictures:
        assert text.count(f'alt="{name}"') == 1, name
    assert OTHERWISE not in seen.text, "a table does not fit the results it is for"
    assert "not measured (" not in seen.text, "a figure at a glance does not fit the results it is from"
    assert page(results) == text


def test_every_kind_of_bad_input_is_counted_on_the_page(results: Results) -> None:
    seen = Checked(page(results)).text
    kinds = results["fuzz"].at("kinds")
    assert all(kind in seen for kind in kinds)
    rows = table("fuzz", results).rows
    assert [row[0] for row in rows] == [*kinds, "all"]
    assert rows[-1][1] == f"{sum(kind['cases'] for kind in kinds.values()):,}"


def test_every_table_has_rows_as_wide_as_its_head(results: Results) -> None:
    for name in TABLES:
        if name == "photo_peers" and not results.matching("peers-photos*.json"):
            continue
        found = table(name, results)
        assert found.rows, name
        assert {len(row) for row in found.rows} == {len(found.columns)}, name


# ---- the schema --------------------------------------------------------------------------------------------


def test_a_good_file_is_read(tmp_path: Path) -> None:
    result = read_result(put(tmp_path))
    assert (result.name, result.commit, result.machine["cpu"]) == ("x", "f92be36+", "A CPU")
    assert set(result.figures) == {"figures", "ratio", "none"}
    assert read_result(put(tmp_path, commit=None, machine={**GOOD["machine"], "gpu": "H100"})).commit is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": 3}, "command: expected"),
        ({"command": "rm -rf /"}, "command: expected"),
        ({"date": "yesterday"}, "date: expected YYYY-MM-DD"),
        ({"date": "20261123"}, "date: expected YYYY-MM-DD"),
        ({"date": "2026-02-30"}, "date: expected YYYY-MM-DD"),
        ({"commit": "main"}, "commit: expected"),
        ({"commit": 5}, "commit: expected"),
        ({"machine": "a big one"}, "machine: expected an object"),
        ({"machine": {"system": "Linux"}}, "machine: cpu: expected a name, got null"),
        ({"machine": {**GOOD["machine"], "gpu": None}}, "machine: gpu: expected a name"),
        ({"machine": {**GOOD["machine"], "colour": "red"}}, "machine: unknown colour"),
        ({"versions": {"numpy": "2"}}, "versions: expected an object that names edge-kp"),
        ({"versions": {"edge-kp": "0.1.0", "numpy": 2}}, "versions: numpy: expected"),
        ({"figures": {"a": [1, float("nan")]}}, "figures/a/1: nan is no figure"),
        ({"ratio": float("inf")}, "ratio: inf is no figure"),
    ],
)
def test_a_file_that_breaks_the_schema_is_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path / "results", **changes)
    assert report.main(["--results", str(path.parent), "--out", str(tmp_path / "r.html")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: {said}")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("key", ["command", "date", "commit", "machine", "versions"])
def test_nothing_about_the_origin_may_be_missing(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({k: v for k, v in GOOD.items() if k != key}))
    with pytest.raises(DataError, match=f"without {key}"):
        read_result(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe{}", b'{"a": 1}', b"[" * 100_000, b'"\\ud800"'],
    ids=["empty", "cut", "list", "number", "null", "encoding", "alone", "deep", "half a character"],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert report.main(["--results", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'x.json'}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json"]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a", date="")
    put(tmp_path, "b", commit="")
    (tmp_path / "notes.txt").write_text("hello")
    assert report.main(["--results", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [Path(line.split(": ")[1]).name for line in lines] == ["a.json", "b.json", "notes.txt"]


def test_no_folder_and_no_results_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--results", str(tmp_path)]) == 1
    assert report.main(["--results", str(tmp_path / "none")]) == 1
    empty, missing = capsys.readouterr().err.splitlines()
    assert "holds no results file; run a benchmark first" in empty
    assert "No such file or directory; name a folder of results files" in missing


def test_what_benchmarks_write_fits_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--data", "ibug:/home/me/helen", "--out=/home/me/results", "--fit=ibug:/home/me/helen,take=4"]
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", *words])
    path = write_result("x", {"figure": 1}, tmp_path, gpu="A GPU")
    result = read_result(path)
    assert result.command == "python -m benchmarks.x --data ibug:helen --out=results --fit=ibug:helen,take=4"
    assert result.machine["gpu"] == "A GPU"
    assert result.figures == {"figure": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


# ---- commits -----------------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_tells_of_changed_code_alone(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    for name in ("code.py", "README.md", "benchmarks/results/x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "benchmarks" / "results" / "x.json").write_text("2")
    (tmp_path / "README.md").write_text("2")
    assert commit(tmp_path) == head, "figures and words change no figure"
    (tmp_path / "code.py").write_text("2")
    assert commit(tmp_path) == f"{head}+"
    (tmp_path / "site-packages").mkdir()
    assert commit(tmp_path / "site-packages") is None, "a repository around it is another project's"


def test_the_command_tells_no_folder_and_no_password() -> None:
    told = {
        "coco:/home/me/a.json,/home/me/pictures": "coco:a.json,pictures",
        "--out=/home/me/out": "--out=out",
        "face@ibug:/home/me/train@ibug:/home/me/val": "face@ibug:train@ibug:val",
        "rtsp://user:secret@host/door": "rtsp:door",
        "640x480": "640x480",
    }
    assert provenance("x", list(told))["command"] == " ".join(["python -m x", *told.values()])


def test_outside_a_checkout_and_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() is None
    assert provenance("benchmarks.x", [])["commit"] is None


# ---- the page ----------------------------------------------------------------------------------------------

HOSTILE = '</td></table><script>alert("1")</script><img src=http://example.org/x>&amp;<!-- end -->'


def test_hostile_words_are_shown_as_they_are(tmp_path: Path) -> None:
    put(
        tmp_path,
        "speed",
        command=f"python -m benchmarks.speed {HOSTILE}",
        machine={"cpu": HOSTILE, "system": HOSTILE},
        versions={"edge-kp": HOSTILE, HOSTILE: "1"},
        figures={HOSTILE: {HOSTILE: HOSTILE}, "list": [HOSTILE], "rows": [{HOSTILE: HOSTILE}]},
    )
    put(tmp_path, HOSTILE.replace("/", "_"), title=HOSTILE)
    kinds = {HOSTILE: {"cases": 1, "answered": 1}}
    put(tmp_path, "fuzz", kinds=kinds)
    summary = {HOSTILE: {"nme": 1.0, "fr10": 0.0, "auc8": 1.0}}
    put(tmp_path, "accuracy-x", title=HOSTILE, summary=summary, errors_percent={HOSTILE: {"cascade": 1.5}})
    picture = tmp_path / 'x" onerror="alert(1).png'
    picture.write_bytes(cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes())
    seen = Checked(page(read_results(tmp_path)))
    assert seen.open == []
    assert "script" not in seen.tags
    assert seen.tags.count("img") == 1
    assert all(load.startswith(("data:", "#")) for load in seen.loads)
    assert seen.text.count(HOSTILE) > 10


def test_hostile_words_stay_in_their_cell_of_a_readme(tmp_path: Path) -> None:
    hostile = "a | b\n<!-- end --> **c** [d](e) `f`"
    put(tmp_path, "fuzz", kinds={hostile: {"cases": 1}, "all | of": {"cases": 2}})
    text = "# x\n\n<!-- figures: fuzz -->\n<!-- end -->\n\nafter\n"
    results = read_results(tmp_path)
    once = updated(text, "x.md", results)
    assert updated(once, "x.md", results) == once
    rows = once.split("-->\n", 1)[1].split("\n<!-- end -->")[0].splitlines()
    assert len(rows) == 5
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_an_absent_file_is_told_by_name(tmp_path: Path) -> None:
    put(tmp_path, "speed")
    text = Checked(page(read_results(tmp_path))).text
    for parts in SECTIONS.values():
        for part in parts:
            if part.pattern != "speed*":
                assert f"No {part.pattern} yet: {part.absent}" in text
    assert "nothing has run on a GPU yet" in text
    assert "not measured (soak.json: no such results file" in text


def test_files_that_nobody_thought_of_are_shown_whole(tmp_path: Path) -> None:
    put(
        tmp_path,
        "novel",
        figures={"deep": {"er": {"nme": 12.5, "who": "me"}}},
        rows=[{"a": 1}, {"b": [1, 2]}],
    )
    text = Checked(page(read_results(tmp_path))).text
    assert "Other figures" in text
    for word in ("novel.json", "deep", "er", "12.5", "me", "1, 2", "0.0277"):
        assert word in text, word


@pytest.mark.parametrize(
    "name", ["precision", "kernels", "fuzz", "peers-x", "clip-x", "accuracy-x", "pose", "ablation"]
)
def test_figures_of_another_shape_are_told_and_shown_whole(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, kinds=3, variants=[], networks=None, figures={"strange": 12345})
    seen = Checked(page(read_results(tmp_path)))
    assert seen.open == []
    assert OTHERWISE in seen.text
    assert "12,345" in seen.text


def test_systems_on_the_same_photos_stand_side_by_side(tmp_path: Path) -> None:
    clock = {"median": 1.25, "p90": 2.0, "ratio": 1.0, "ratio_quartiles": [1.0, 1.0]}
    error = {"nme": 3.333, "fr10": 0.5, "by_part": {}}
    systems = {
        "edge_kp": {"unfitted": error, "fitted": error, "time": {"ms": clock, "network_ms": clock}},
        "other": {"unfitted": None, "fitted": error, "time": {"ms": clock, "network_ms": None}},
    }
    put(tmp_path, "peers-photos", data=["helen_val"], photos=108, systems=systems)
    found = table("photo_peers", read_results(tmp_path))
    assert found.columns[0] == "108 photos"
    assert list(found.rows[0]) == ["edge_kp", "3.33", "0.50", "3.33", "0.50", "1.25", "1.00", "1.25", "1.00"]
    assert list(found.rows[1]) == ["other", "–", "–", "3.33", "0.50", "1.25", "1.00", "–", "–"]
    assert OTHERWISE not in page(read_results(tmp_path))
    put(tmp_path, "peers-photos-afw", data=["afw", "more"], photos=45, systems=systems)
    both = read_results(tmp_path)
    found = table("photo_peers", both)
    assert found.columns[0] == "photos"
    assert [row[0] for row in found.rows] == [
        "helen_val, 108 photos: edge_kp",
        "helen_val, 108 photos: other",
        "afw, more, 45 photos: edge_kp",
        "afw, more, 45 photos: other",
    ]
    with pytest.raises(DataError, match=r"peers-\*\.json: no such results file"):
        table("peers", both)
    assert OTHERWISE not in page(both)


def test_details_of_a_data_set_are_not_taken_for_a_summary(tmp_path: Path) -> None:
    put(tmp_path, "accuracy_afw", errors={"nme": 7.5})
    text = page(read_results(tmp_path))
    assert OTHERWISE not in text
    assert "No accuracy-*.json yet" in Checked(text).text


def test_the_command_writes_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "results")
    assert report.main(["--results", str(tmp_path / "results")]) == 0
    path = tmp_path / "results" / "report.html"
    first = path.read_text(encoding="utf-8")
    assert report.main(["--results", str(tmp_path / "results")]) == 0, "its own page is no odd file"
    assert path.read_text(encoding="utf-8") == first
    assert "1 results files" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        report.main(["--readme", "--out", "x.html"])


# ---- tables ------------------------------------------------------------------------------------------------


def test_figures_as_text() -> None:
    told_as = {
        1234567: "1,234,567",
        0.94412: "0.9441",
        12345.6: "12,346",
        None: "–",
        True: "yes",
        "a_b": "a_b",
    }
    assert {value: told(value) for value in told_as} == told_as
    assert told({"mean": 7.0256, "std": 0.011}) == "7.026 ± 0.011"
    assert told([1, 2.5]) == "1, 2.5"
    assert told([]) == "none"
    assert fixed(-0.0004, 2) == "0.00"


def test_any_figures_become_tables() -> None:
    html = everything({"top_ms": 1.5, "rows": {"a": {"x": 1}, "b": {"x": 2, "y": {"mean": 1.0, "std": 0.5}}}})
    seen = Checked(html)
    assert seen.tags.count("table") == 2
    cells = re.findall(r"<t[dh](?: class=n)?>(.*?)</t", html)
    assert cells == ["figure", "value", "top, ms", "1.5", "", "x", "y", "a", "1", "", "b", "2", "1 ± 0.5"]


def test_a_list_of_figures_has_a_row_for_each() -> None:
    html = everything(
        {"rows": [{"a": "x", "ms": {"p50": 1.5, "p90": 2}}, {"a": "y", "ms": {"p50": 3, "p90": 4}}]}
    )
    cells = re.findall(r"<t[dh](?: class=n)?>(.*?)</t", html)
    assert cells == ["", "a", "ms p50", "ms p90", "1", "x", "1.5", "2", "2", "y", "3", "4"]


def test_a_table_in_markdown() -> None:
    assert Table(("", "a"), [("x", "1"), ("y", "")], strong=0).markdown() == (
        "| | a |\n|---|---|\n| **x** | **1** |\n| y | |"
    )


# ---- documents ---------------------------------------------------------------------------------------------


@pytest.fixture
def few(tmp_path: Path) -> Results:
    put(tmp_path)
    return read_results(tmp_path)


@pytest.mark.parametrize(
    ("path", "form", "text"),
    [
        ("x/figures/a/nme", ".2f", "3.50"),
        ("x/figures/*/count", ",", "1,500"),
        ("x/figures/a/*", ".1f", "1203.5"),
        ("x/ratio", ".1%", "2.8 %"),
        ("x/ratio", "+.2f", "+0.03"),
    ],
)
def test_a_number_by_path_and_format(few: Results, path: str, form: str, text: str) -> None:
    assert number(path, form, few) == text


@pytest.mark.parametrize(
    ("marked", "said"),
    [
        ("<!--=x/figures/a/gone .2f-->1<!--/-->", "x.json: holds no figure figures/a/gone"),
        ("<!--=y/figures .2f-->1<!--/-->", "y.json: no such results file"),
        ("<!--=x/figures .2f-->1<!--/-->", "x/figures: is no number"),
        ("<!--=x/none .2f-->1<!--/-->", "x/none: is no number"),
        ("<!--=x/figures/* .2f-->1<!--/-->", "figures/* is no number"),
        ("<!--=x/ratio .2q-->1<!--/-->", "x/ratio .2q: "),
        ("<!--=x/ratio .2f-->1", "'<!--=' without its counterpart"),
        ("1<!--/-->", "'<!--/-->' without its counterpart"),
    ],
)
def test_a_number_that_the_results_do_not_have_is_one_line(few: Results, marked: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        updated(f"one\n\ntwo {marked} three\n", "x.md", few)
    (line,) = caught.value.problems
    assert line.startswith("x.md:3: ")
    assert said in line


def test_a_block_without_end_or_table_is_told(few: Results) -> None:
    for text, said in (
        ("<!-- figures: kernels -->\n", "without its counterpart"),
        ("<!-- end -->\n", "without its counterpart"),
        ("<!-- figures: tea -->\n<!-- end -->\n", "no table tea; there are accuracy"),
        ("<!-- figures: kernels -->\n<!-- end -->\n", "kernels.json: no such results file"),
        ("<!--=x/ratio .2f-->1<!--/--> begins\n", "a marker begins the line"),
    ):
        with pytest.raises(DataError, match=re.escape(said)) as caught:
            updated(f"one\n\n{text}", "x.md", few)
        assert caught.value.problems[0].startswith("x.md:3: ")


def test_documents_are_written_all_or_none(tmp_path: Path, few: Results) -> None:
    root = tmp_path / "root"
    for name in DOCUMENTS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("a <!--=x/ratio .2f-->old<!--/--> b\n", encoding="utf-8")
    bad = root / DOCUMENTS[-1]
    bad.write_text("a <!--=x/gone .2f-->old<!--/--> b\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no figure gone"):
        update(root, few)
    assert "old" in (root / DOCUMENTS[0]).read_text(encoding="utf-8")
    bad.write_text("nothing\n", encoding="utf-8")
    assert update(root, few) == [root / name for name in DOCUMENTS[:-1]]
    assert (root / DOCUMENTS[0]).read_text(encoding="utf-8") == "a <!--=x/ratio .2f-->0.03<!--/--> b\n"
    assert update(root, few) == []
