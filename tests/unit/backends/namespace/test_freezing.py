"""Stopping by signals alone: nothing that came into being between two looks is missed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isorun.backends.namespace import freezing

#: The first process of a namespace, as far as it matters here: what is orphaned becomes its child, and it reaps. Its
#: child forks when it is told to, and ends. Two of them write to one pipe: each line is one write.
FIRST = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    os.write(1, b"%d\\n" % os.getpid())
    sys.stdin.readline()
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
    os._exit(0)
os.wait()
os.write(1, b"reaped\\n")
time.sleep(60)
"""


@pytest.fixture
def first() -> Iterator[subprocess.Popen[str]]:
    """A process that runs `FIRST`, and whose family is ended behind the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", FIRST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        yield process
        os.killpg(process.pid, 9)


async def test_a_child_of_one_that_ends_while_it_is_looked_at_is_stopped_too(first, monkeypatch) -> None:
    """It is in no list that was made before, and the one that is has gone; so one look cannot be the last."""
    child = int(first.stdout.readline())
    grandchildren: list[int] = []
    look_at = freezing._look_at

    def ends_when_looked_at(pid: int) -> freezing._Seen:
        if pid == child and not grandchildren:
            first.stdin.write("\n")
            first.stdin.flush()
            said = {first.stdout.readline().strip(), first.stdout.readline().strip()}
            grandchildren.extend(int(word) for word in said - {"reaped"})
        return look_at(pid)

    monkeypatch.setattr(freezing, "_look_at", ends_when_looked_at)
    init = os.pidfd_open(first.pid)
    freezer = freezing.BySignal(init, first.pid, child)
    try:
        await freezer.freeze()
        assert [freezing.stat_of(Path(f"/proc/{pid}"))[0] for pid in grandchildren] == ["T"]
        await freezer.thaw()
        assert [freezing.stat_of(Path(f"/proc/{pid}"))[0] in "RS" for pid in grandchildren] == [True]
    finally:
        os.close(init)
