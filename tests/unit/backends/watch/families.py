"""Real processes for the watcher's process to look at."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from isorun.backends.watch.memory import Memory
from isorun.backends.watch.told import RECORD, Told

#: In a network of its own, as a run is: else every socket of the machine would be counted as the family's.
FAMILY = """
import ctypes, os, signal
assert ctypes.CDLL(None).unshare(0x1000_0000 | 0x4000_0000) == 0  # CLONE_NEWUSER, CLONE_NEWNET
shared = bytearray(b"x") * ({shared} << 20)
print(os.getpid(), flush=True)
for own in {own}:
    if (pid := os.fork()) == 0:
        held = bytearray(b"x") * (own << 20)
        os.write(1, b"%d " % os.getpid() + bytes([10]))
        signal.pause()
signal.pause()
"""


class Family:
    """A process, its children, and what is told of them."""

    def __init__(self, stack: ExitStack, records: Path, shared: int, own: list[int]) -> None:
        first = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", FAMILY.format(shared=shared, own=own)], stdout=-1, process_group=0)
        )
        stack.callback(os.killpg, first.pid, signal.SIGKILL)
        assert first.stdout is not None
        said = [int(first.stdout.readline()) for _ in range(1 + len(own))]
        self.first, self.children = said[0], sorted(said[1:])
        self._records = os.open(records, os.O_RDWR | os.O_CREAT)
        stack.callback(os.close, self._records)
        self.pidfd = os.pidfd_open(self.first)
        stack.callback(os.close, self.pidfd)
        self.told = Told(self._records, 0)

    def memory(self, most: int) -> Memory:
        return Memory(most, (self.first, self.first), (self.pidfd, self.pidfd), self.told)

    def record(self) -> tuple[int, int, int, int]:
        return RECORD.unpack(os.pread(self._records, RECORD.size, 0).ljust(RECORD.size, b"\0"))

    def is_dead(self) -> bool:
        return bool(select.select([self.pidfd], [], [])[0])


@contextmanager
def family(records: Path, shared: int, own: list[int]) -> Iterator[Family]:
    with ExitStack() as stack:
        yield Family(stack, records, shared, own)


def is_running(pid: int) -> bool:
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
