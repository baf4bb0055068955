"""``edge-kp COMMAND``: every program under one name, and hints that hold wherever the package came from."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edge_kp
from edge_kp.__main__ import COMMANDS, main
from edge_kp.extras import install

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(edge_kp.__file__).parent
ROOT = PACKAGE.parent


def programs() -> set[str]:
    """Modules of the package that are programs: they have a ``main`` that the exit code comes from."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        functions = {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}
        if "main" in functions:
            found.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found - {"edge_kp.__main__"}


def test_every_program_is_a_command() -> None:
    assert len(programs()) > 5
    assert {module for module, _ in COMMANDS.values()} == programs()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_helps_under_its_own_name(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/edge-kp", command])
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: edge-kp {command} ")
    module = COMMANDS[command][0]
    monkeypatch.setattr(sys, "argv", [module.replace(".", "/") + ".py"])
    with pytest.raises(SystemExit):
        main([command, "--help"])
    name = module.removesuffix(".__main__")
    assert capsys.readouterr().out.startswith(f"usage: python -m {name} ")


def test_help_lists_all_and_loads_no_heavy_library(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys\nfrom edge_kp.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = ('torch', 'onnx', 'onnxruntime', 'openvino', 'matplotlib', 'aiohttp', 'tensorrt')\n"
        "print('heavy:', code, *(m for m in heavy if m in sys.modules))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    text = capfd.readouterr().out
    for command, (_, what) in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [command, what] for line in text.splitlines()), command
    assert text.splitlines()[-1] == "heavy: 0"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "edge_kp", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"edge-kp {edge_kp.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a command first, such as edge-kp run; edge-kp --help lists them"),
        (["--camera", "0"], "name a command first, such as edge-kp run; edge-kp --help lists them"),
        (["trian", "--help"], "trian: no such command; is it train?"),
        (["build_engine"], "build_engine: no such command; is it build-engine?"),
        (["dance"], f"dance: no such command; there are {', '.join(COMMANDS)}"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1] == f"edge-kp: error: {said}"


def test_arguments_and_exit_code_are_those_of_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--headless", "--source", str(tmp_path / "none.mp4")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "none.mp4" in line


def test_ctrl_c_while_a_program_is_imported_ends_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "run", ("interrupted", ""))
    assert main(["run"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_the_old_ways_lead_to_the_same_programs() -> None:
    for way, command in (("-m calibration", "calibrate"), ("build_engine.py", "build_engine")):
        done = subprocess.run(
            [sys.executable, *way.split(), "--help"], capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout.startswith(f"usage: python -m edge_kp.{command} "), done.stderr


def test_an_extra_is_installed_by_the_name_of_the_package() -> None:
    assert install("train") == "pip install 'edge-kp[train]'"


def test_an_extra_of_a_folder_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert install("page") == "pip install '.[page]' in the project's folder"


def test_every_extra_that_a_hint_names_is_there() -> None:
    named = {
        node.args[0].value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "install"
        and isinstance(node.args[0], ast.Constant)
    }
    assert named == {"train", "facemesh", "bench", "page", "mqtt", "gpu"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named <= set(project["optional-dependencies"])
