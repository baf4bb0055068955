"""``python docs/api.py site``: the pages of the public modules, made from their docstrings by pdoc.

Every warning of pdoc is an error: a page with a hole in it is not written.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pdoc

import edge_kp

# The package itself and what its docstring names.
MODULES = (
    "edge_kp",
    "edge_kp.types",
    "edge_kp.schema",
    "edge_kp.errors",
    "edge_kp.geometry",
    "edge_kp.metrics",
    "edge_kp.pose",
    "edge_kp.smoothing",
    "edge_kp.overlay",
    "edge_kp.templates",
    "edge_kp.modeldir",
    "edge_kp.look_rules",
    "edge_kp.parity",
    "edge_kp.backends",
    "edge_kp.backends.base",
    "edge_kp.each_frame",
    "edge_kp.tracker",
    "edge_kp.live.source",
    "edge_kp.live.frames",
    "edge_kp.live.parts",
    "edge_kp.live.pipeline",
    "edge_kp.live.following",
    "edge_kp.live.statistics",
    "edge_kp.live.preview",
    "edge_kp.live.sinks",
    "edge_kp.live.lines",
    "edge_kp.live.csv_sink",
    "edge_kp.live.udp",
    "edge_kp.live.mqtt",
    "edge_kp.live.page",
)


class Array:
    """A NumPy array, ``numpy.ndarray``; its shape, type and unit are told where it is asked for or given."""

    __module__ = "edge_kp.types"


def write(out: Path) -> None:
    """Write a page for each of :data:`MODULES`, an index and a search into the folder ``out``."""
    for name in MODULES:
        import_module(name)
    for name, module in list(sys.modules.items()):
        if name.startswith("edge_kp") and hasattr(module, "Array"):
            module.Array = Array  # type: ignore[attr-defined]  # what the alias stands for fills a line
    pdoc.render.configure(
        docformat="google",
        footer_text=f"edge_kp {edge_kp.__version__}",
        show_source=False,
        template_directory=Path(__file__).parent / "api_pages",
    )
    # A package brings all of its modules along, so each name is followed by what takes those out again.
    specs = (spec for name in MODULES for spec in (name, rf"!{name}\..+"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*specs, output_directory=out)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python docs/api.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write")
    out = parser.parse_args(argv).out
    write(out)
    print(f"wrote {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
