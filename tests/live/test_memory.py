"""Threads that come and go take no memory with them."""

import os
import subprocess
import sys

import pytest

COUNT = """
import ctypes, sys, threading
from edge_kp.live.memory import few_arenas
if sys.argv[1] == "few":
    few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
started, go_on = threading.Barrier(9), threading.Barrier(9)

def work():
    libc.malloc(100_000)
    started.wait()
    go_on.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
started.wait()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
go_on.wait()
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_all_threads_share_few_pools():
    """glibc's own account, malloc_info(3), has a <heap> for each pool."""
    pools = {}
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    for how in ("few", "many"):
        command = [sys.executable, "-c", COUNT, how]
        done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        pools[how] = done.stdout.count("<heap nr=")
    assert pools["few"] <= 2 < pools["many"]


FREE = """
import ctypes, sys
from pathlib import Path
from edge_kp.live.memory import GiveBack
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

libc.mallopt(-3, 1 << 30)  # nothing so large that it were mapped on its own
before = memory()
pieces = [libc.malloc(100_000) for _ in range(1000)]
for piece in pieces:
    ctypes.memset(piece, 1, 100_000)
for piece in pieces[:-1]:  # the last one keeps the pool from shrinking
    libc.free(piece)
held = memory()
GiveBack(every_s=3600)()
later = memory()
GiveBack(every_s=0)()
print(before, held, later, memory())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_what_is_free_is_given_back_in_time():
    done = subprocess.run([sys.executable, "-c", FREE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    before, held, later, after = map(int, done.stdout.split())
    assert held > before + 90_000  # kB
    assert abs(later - held) < 1000
    assert after < before + 5000
