"""The Markdown pages: links lead somewhere, and commands have no flag that their program does not know."""

from __future__ import annotations

import re
from pathlib import Path
from runpy import run_module

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# ``edge_kp.NAME`` stands for any of them.
COMMAND = re.compile(r"(?:python -m|torchrun [^\n`]*-m) ((?:edge_kp|benchmarks)\.[a-z]\w*)((?:\\\n|[^\n`])*)")
SPOKEN_OF = re.compile(r"`(--[a-z][a-z0-9-]*)[^`]*`")
FLAG = re.compile(r"(?<!\S)--[a-z][a-z0-9-]*")
FOLDERS = ("benchmarks", "calibration", "deploy", "docs", "edge_kp", "recipes")
NAMES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")))
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(name: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = HEADING.findall(FENCE.sub("", text(name)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    lost = []
    for link in LINK.findall(FENCE.sub("", text(name))):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (ROOT / name).parent / path if path else ROOT / name
        there = target.exists() and (not anchor or anchor in anchors(str(target.resolve().relative_to(ROOT))))
        lost += [] if there else [link]
    assert not lost


def commands() -> dict[str, set[str]]:
    """Program → the flags that the pages give it."""
    found: dict[str, set[str]] = {}
    for name in NAMES:
        for program, rest in COMMAND.findall(text(name)):
            own = re.split(r"&&| # ", rest)[0]
            found.setdefault(program, set()).update(FLAG.findall(own))
    options = re.findall(r"^\| (`--.*?) \|", text("README.md").partition("\n## Train")[0], re.MULTILINE)
    found["edge_kp.run"] |= {flag for cell in options for flag in SPOKEN_OF.findall(cell)}
    return found


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("program", sorted(commands()))
def test_commands_have_no_flag_that_is_not_known(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [program, "--help"])
    with pytest.raises(SystemExit):
        run_module(program, run_name="__main__")
    known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    assert commands()[program] <= known
