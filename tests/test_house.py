"""The floors: a file imports from its own floor or a lower one, and heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_kp

PACKAGE = Path(edge_kp.__file__).parent
ROOT = PACKAGE.parent

ATTIC = 9
ANNEX = 5
LIVE = 4
# The longest name that fits decides; a new file needs a floor here.
FLOORS = {
    **dict.fromkeys(("errors", "extras", "files", "types", "schema", "arguments", "look_rules"), 0),
    "config": 0,
    "cores": 0,
    "provenance": 0,  # imports nothing of the package
    "cli": 0,  # imports nothing but errors, so every command line may use it
    **dict.fromkeys(("geometry", "templates", "metrics", "smoothing", "pose", "overlay"), 1),
    "clock": 0,  # imports nothing of the package
    **dict.fromkeys(("modeldir", "parity", "contract", "backends", "triton"), 2),
    **dict.fromkeys(("stage", "cascade", "cascade_result", "locator", "detector"), 3),
    **dict.fromkeys(("each_frame", "identity", "looks", "together", "search", "tracker"), 3),
    "": 3,  # the package itself: the public names
    "templates.__main__": ATTIC,
    "live": LIVE,
    "training": ANNEX,
    **dict.fromkeys(
        (
            "__main__",
            "recipe",
            "run",
            "train",
            "prelabel",
            "relabel",
            "turn",
            "export",
            "compact",
            "evaluate",
            "calibrate",
            "build_engine",
        ),
        ATTIC,
    ),
}
ROOMS = {
    "aiohttp": ("edge_kp/live/page/",),
    "paho": ("edge_kp/live/mqtt.py",),
    "torch": ("edge_kp/training/", "edge_kp/train.py"),
    "onnx": ("edge_kp/training/",),
    "onnxsim": ("edge_kp/training/",),
    "matplotlib": ("edge_kp/training/", "benchmarks/"),
    **dict.fromkeys(("yaml", "PIL"), ("edge_kp/training/",)),
    "pycuda": ("edge_kp/backends/cuda.py",),
    "cuda": ("edge_kp/backends/cuda.py",),
    **dict.fromkeys(("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"), ("edge_kp/backends/tensorrt.py",)),
    "onnxruntime": ("edge_kp/backends/onnxruntime.py", "edge_kp/backends/__init__.py", "edge_kp/training/"),
    "openvino": ("edge_kp/backends/openvino.py", "edge_kp/backends/__init__.py"),
}

DEVICES = (
    "aiohttp",
    "paho",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "pycuda",
    "cuda",
)  # may be missing


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """``edge_kp.training.loop`` of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in files()}


def floor(module: str) -> int:
    name = module.removeprefix("edge_kp").removeprefix(".")
    while name not in FLOORS:
        assert "." in name, f"{module} stands on no floor: give it one in {Path(__file__).name}"
        name = name.rpartition(".")[0]
    return FLOORS[name]


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, ast.AST]]:
    """Every module that the code imports, at the top or inside functions, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield (whole if whole in MODULES else base), node
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value), node


def package_of(path: Path) -> str:
    name = module_name(path)
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def may_import(importer: int, imported: int) -> bool:
    if importer == ANNEX:
        return imported not in (LIVE, ATTIC)
    return imported <= importer


@pytest.mark.parametrize("path", files(), ids=module_name)
def test_a_file_imports_from_its_own_floor_or_below(path: Path) -> None:
    own = floor(module_name(path))
    for name, node in imports(ast.parse(path.read_text(encoding="utf-8")), package_of(path)):
        if name.split(".")[0] == "edge_kp":
            assert may_import(own, floor(name)), f"{path.name}:{node.lineno} imports {name} from above"


def test_the_command_line_helper_imports_errors_alone() -> None:
    tree = ast.parse((PACKAGE / "cli.py").read_text(encoding="utf-8"))
    own = {name for name, _ in imports(tree, "edge_kp") if name.startswith("edge_kp")}
    assert own == {"edge_kp.errors"}


def test_the_rules_see_a_forbidden_import() -> None:
    code = "if x:\n  from ..live import pipeline\n  import edge_kp.run\n  from edge_kp.training import loop\n"
    found = [name for name, _ in imports(ast.parse(code), "edge_kp.training")]
    assert found == ["edge_kp.live.pipeline", "edge_kp.run", "edge_kp.training.loop"]
    assert [may_import(ANNEX, floor(name)) for name in found] == [False, False, True]
    assert not may_import(floor("edge_kp.cascade"), floor("edge_kp.training.loop"))
    assert not may_import(floor("edge_kp.geometry"), floor("edge_kp.modeldir"))
    with pytest.raises(AssertionError, match="no floor"):
        floor("edge_kp.cellar")


def sources() -> list[Path]:
    """Everything that is shipped: the package, the programs beside it, benchmarks and calibration."""
    beside = [p for folder in ("benchmarks", "calibration") for p in sorted((ROOT / folder).rglob("*.py"))]
    return [*files(), *sorted(ROOT.glob("*.py")), *beside]


@pytest.mark.parametrize("library", sorted(ROOMS))
def test_a_heavy_library_stays_in_its_room(library: str) -> None:
    for path in sources():
        place = path.relative_to(ROOT).as_posix()
        if place.startswith(ROOMS[library]):
            continue
        if place.startswith(("benchmarks/", "calibration/")):
            continue  # tools for a developer's machine
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [n.lineno for name, n in imports(tree, "edge_kp") if name.split(".")[0] == library]
        assert not found, f"{place}:{found[0]} imports {library}; only {', '.join(ROOMS[library])} may"


def test_the_training_command_imports_torch_only_where_it_is_needed() -> None:
    tree = ast.parse((PACKAGE / "train.py").read_text(encoding="utf-8"))
    inside = {
        node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for _, node in imports(f, "edge_kp")
    }
    for name, node in imports(tree, "edge_kp"):
        if name.split(".")[0] == "torch" or name.startswith("edge_kp.training"):
            assert node in inside, f"train.py:{node.lineno} imports {name} at the top"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_running_and_evaluating_load_no_training_library() -> None:
    loaded = python(
        "import sys, edge_kp, edge_kp.run, edge_kp.evaluate\n"
        "print(*(m for m in ('torch', 'onnx', 'matplotlib', 'tensorboard') if m in sys.modules))"
    )
    assert loaded.split() == []


def test_every_module_outside_training_imports_without_torch() -> None:
    names = sorted(m for m in MODULES if not m.startswith("edge_kp.training"))
    assert len(names) > 20
    imported = python(
        "import importlib, sys\n"
        "sys.modules['torch'] = None\n"
        f"for name in {names}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        f"        if (error.name or '').split('.')[0] not in {DEVICES}:\n"
        "            raise\n"
        "    print(name)\n"
    )
    assert imported.split() == names
