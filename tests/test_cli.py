"""Exit codes and one-line errors that every command shares."""

import argparse
import os
import subprocess
import sys

import pytest

from edge_kp import evaluate, export, run, train
from edge_kp.cli import natural, number, positive, run_cli
from edge_kp.errors import DataError
from edge_kp.templates import __main__ as templates

DATA = ["--data", "synthetic:4"]


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (train.main, [*DATA, "--out", "x", "--batch", "0"]),
        (train.main, [*DATA, "--out", "x", "--seed", "-1"]),
        (train.main, [*DATA, "--out", "x", "--workers", "-1"]),
        (train.main, [*DATA, "--out", "x", "--turn", "nan"]),
        (train.main, [*DATA, "--out", "x", "--cover", "1.5"]),
        (train.main, [*DATA, "--out", "x", "--learning-rate", "inf"]),
        (train.main, [*DATA, "--out", "x", "--patience", "-1"]),
        (train.main, [*DATA, "--out", "x", "--scale", "0"]),
        (train.main, [*DATA]),
        (templates.main, [*DATA, "--out", "x.npz", "--seed", "-1"]),
        (templates.main, [*DATA, "--out", "x.npz", "--k", "0"]),
        (evaluate.main, [*DATA, "--threads", "-1"]),
        (evaluate.main, [*DATA, "--threads", "99999999999"]),
        (export.main, ["--out", "x"]),
        (run.main, ["--source", "x", "--max-frames", "0"]),
    ],
)
def test_wrong_usage_exits_with_2(main, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (DataError("a.jpg: broken", "b.jpg: missing"), ["error: a.jpg: broken", "error: b.jpg: missing"]),
        (
            NotADirectoryError(20, "Not a directory", "file/x"),
            ["error: file/x: not a directory: check the path, and that you may use it"],
        ),
    ],
)
def test_bad_input_is_told_in_lines_of_its_own(error, lines, capsys):
    def body(args: argparse.Namespace) -> None:
        raise error

    assert run_cli(body, argparse.ArgumentParser(), []) == 1
    assert capsys.readouterr().err.splitlines() == lines
    assert run_cli(body, argparse.ArgumentParser(), ["-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_our_own_is_not_hidden():
    def body(args: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_cli(body, argparse.ArgumentParser(), [])


@pytest.mark.parametrize(("kind", "good"), [(positive, "1"), (natural, "0"), (number(0, 1), "1e-3")])
def test_number_types(kind, good):
    assert kind(good) == float(good)
    for bad in ("-1", "x", "nan", "", "99999999999"):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(bad)


CLOSED = """
import argparse, sys
from edge_kp.cli import leave, run_cli
from edge_kp.errors import DataError
from edge_kp.live.status import Status

def body(args):
    Status().line("running")
    print("printed")
    open(sys.argv[1], "w").write("done")
    raise DataError("m\\udcfcller.png: broken")

leave(run_cli(body, argparse.ArgumentParser(), []))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error_and_nothing_said_goes_elsewhere(tmp_path, closed):
    done, said = tmp_path / "done", tmp_path / "said"
    command = f'exec "$0" -c "$1" "$2" >"$3" 2>&1 {closed}'
    shell = ["sh", "-c", command, sys.executable, CLOSED, str(done), str(said)]
    assert subprocess.run(shell, timeout=60).returncode == 1
    assert done.read_text() == "done"
    lines = said.read_text().splitlines()
    assert lines == {
        "2>&-": ["printed"],
        ">&-": ["running", "error: m\\udcfcller.png: broken"],
    }.get(closed, [])


LEAVE = """
import atexit, sys, threading
from edge_kp.cli import leave
atexit.register(print, "taken down")
print("all is written", end=" ")
threading.Thread(target=threading.Event().wait, name=sys.argv[1], daemon=True).start()
leave(int(sys.argv[2]))
"""


@pytest.mark.parametrize(("name", "code"), [("edge_kp capture 0", 130), ("edge_kp sink a", 0), ("other", 1)])
def test_a_thread_that_was_left_behind_is_not_taken_down(name, code):
    command = [sys.executable, "-c", LEAVE, name, str(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stdout.strip() == "all is written" + (" taken down" if name == "other" else "")
