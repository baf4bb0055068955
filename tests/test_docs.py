"""The pages of the public modules: built without a warning, complete, and with no reference to nowhere."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import load

import edge_kp

SCRIPT = Path(__file__).parents[1] / "docs" / "api.py"
ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`([^`]+)`")


MODULES = load(SCRIPT).MODULES


def own(module: ModuleType) -> dict[str, Any]:
    """Public classes and functions of a module: those it names, or those made in it."""
    named = getattr(module, "__all__", None)
    return {
        name: thing
        for name, thing in list(vars(module).items())
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and (name in named if named else thing.__module__ == module.__name__ and not name.startswith("_"))
    }


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class itself defines."""
    for name, thing in list(vars(cls).items()):
        function = getattr(thing, "__func__", getattr(thing, "fget", getattr(thing, "func", thing)))
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def documented(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Everything of a module that has a page: its name, and what carries the docstring."""
    yield module.__name__, module
    for name, thing in own(module).items():
        yield f"{module.__name__}.{name}", thing
        if inspect.isclass(thing):
            for member, function in members(thing):
                yield f"{module.__name__}.{name}.{member}", function


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring(name: str) -> None:
    things = list(documented(import_module(name)))
    assert len(things) > 1
    # A dataclass without docstring gets one that only repeats its fields.
    silent = [n for n, t in things if not t.__doc__ or t.__doc__.startswith(f"{n.rpartition('.')[2]}(")]
    assert not silent, f"without docstring: {', '.join(silent)}"


@pytest.mark.parametrize("name", MODULES)
def test_every_reference_leads_somewhere(name: str) -> None:
    module = import_module(name)
    for where, thing in documented(module):
        for target in ROLE.findall(thing.__doc__ or ""):
            assert found(target, where, module), f"{where} refers to {target}"


def found(target: str, where: str, module: ModuleType) -> bool:
    """Is there a thing of this name, seen from the class, from the module, or by its full path?"""
    if target in sys.modules:
        return True
    if target.startswith("edge_kp."):
        owner, _, name = target.rpartition(".")
        if owner not in sys.modules:
            owner, _, name = owner.rpartition(".")
        return hasattr(import_module(owner), name)
    name = where.removeprefix(f"{module.__name__}.").partition(".")[0]
    cls, first = getattr(module, name, None), target.partition(".")[0]
    known = {*vars(module), *dir(cls), *getattr(cls, "__annotations__", ())}
    return first in known or re.search(rf"self\.{first}\b", inspect.getsource(module)) is not None


def test_the_package_says_which_modules_are_public() -> None:
    told = re.findall(r"^- `(edge_kp[\w.]*)`:", edge_kp.__doc__ or "", re.MULTILINE)
    assert ["edge_kp", *told] == list(MODULES)
    assert set(edge_kp.__all__) == set(own(edge_kp))


def test_the_pages_are_built(tmp_path: Path) -> None:
    out = tmp_path / "site"
    done = subprocess.run([sys.executable, str(SCRIPT), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {out / 'index.html'}\n"
    pages = {path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*.html")}
    assert pages == {"index", *(name.replace(".", "/") for name in MODULES)}
    for name in MODULES:
        page = (out / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8")
        for thing in own(import_module(name)):
            assert f'id="{thing}"' in page, f"{name}.{thing}"
    start = (out / "edge_kp.html").read_text(encoding="utf-8")
    assert 'href="edge_kp/geometry.html"' in start
    assert "numpy.ndarray[" not in re.sub("<[^>]*>", "", start), "arrays are called by what they stand for"
    assert (out / "search.js").stat().st_size > 10_000
