"""A process and all that it starts end together, with a PID namespace of their own and without."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from subprocess import PIPE

import pytest

PATIENCE_S = 20.0
#: Starts `work` of the tree below and waits for it or for standard input. Its one argument says what it may have.
HOLDER = """
import sys
from isorun.kernel import namespaces
from isorun.kernel.processes.tree import ProcessTree

def refused(flags):
    raise PermissionError(1, "no")

if sys.argv[1] == "orphans":
    namespaces.unshare = refused
tree = ProcessTree(network=True)
tree.start(work)
print(tree.wait(0), flush=True)
"""
#: Leaves its session, and is an orphan of one that has ended.
LEAVES = """
import os, time
def work():
    heard, says = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(says, b".")
            time.sleep(60)
        os._exit(0)
    os.read(heard, 1)
    print("begun", flush=True)
    time.sleep(60 if WAITS else 0)
    return 3
"""
#: Each process forks the next and ends, so a list of them is old when it is made.
CHAIN = """
import ctypes, os, time
libc = ctypes.CDLL(None)
fork, leave = libc.fork, libc._exit
def work():
    heard, says = os.pipe()
    if fork() == 0:
        os.write(says, b".")
        while True:
            if fork():
                leave(0)
    os.read(heard, 1)
    print("begun", flush=True)
    time.sleep(60 if WAITS else 0)
    return 3
"""


@pytest.mark.parametrize("tree", [LEAVES, CHAIN], ids=["leaves", "chain"])
@pytest.mark.parametrize("kind", ["namespace", "orphans"])
@pytest.mark.parametrize("waits", [True, False], ids=["told", "by itself"])
def test_nothing_of_it_is_left(tmp_path: Path, tree: str, kind: str, waits: bool) -> None:
    """Whether the process ends by itself or is told to, and in whatever way its descendants try to escape."""
    program = tmp_path / "holder.py"
    program.write_text(tree.replace("WAITS", str(waits)) + HOLDER)
    command = [sys.executable, program, kind]
    holder = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, start_new_session=True)
    # Its whole group at once: a chain that outlived it would be caught by nothing else.
    kept = threading.Timer(PATIENCE_S, os.killpg, [holder.pid, signal.SIGKILL])
    kept.start()
    with holder:
        assert holder.stdout.readline() == "begun\n"
        if waits:
            holder.stdin.close()
        assert holder.stdout.read() == ("signal 9\n" if waits else "exit code 3\n")
    kept.cancel()
    until = time.monotonic() + PATIENCE_S
    while running(program) and time.monotonic() < until:
        time.sleep(0.01)
    assert running(program) == []


def running(program: Path) -> list[int]:
    """The processes that were started to run *program*, and their descendants."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if entry.isdigit() and os.fsencode(program) in command.split(b"\0"):
            found.append(int(entry))
    return found
