"""Whose something is that a process of this machine made: groups, jails, folders in /tmp.

What a host keeps below its workspace root has a lease, a lock that the kernel drops with its holder. What it makes
elsewhere is seen by this machine alone, so it carries the process itself: its number, and what tells it from any
later one with that number. In another pid namespace the number means nothing: of an owner there nothing is known here,
and it is taken to live.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass

PATTERN = r"([1-9][0-9]*)-([0-9]+)-([0-9]+)"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. `str` is its form in names, and `parse` reads that."""

    pid: int
    started: int  # clock ticks after boot
    namespace: int  # the inode of its pid namespace

    @classmethod
    def of_this_process(cls) -> "Owner":
        """We. Raises OSError where /proc is not mounted."""
        started = _start_time(os.getpid())
        if started is None:
            raise FileNotFoundError(f"/proc/{os.getpid()}/stat cannot be read")
        return cls(os.getpid(), started, _own_namespace())

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """The owner that *text* names; None if it names none."""
        found = re.fullmatch(PATTERN, text)
        return cls(*map(int, found.groups())) if found else None

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}-{self.namespace}"

    @property
    def is_alive(self) -> bool:
        """Whether it lives, or may: about another pid namespace we cannot tell."""
        return self.namespace != _own_namespace() or _start_time(self.pid) == self.started


def _own_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat: with the pid it names a process for the machine's uptime."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        # The command in parentheses may hold spaces and parentheses of its own.
        state, *fields = file.read().rpartition(b")")[2].split()
        return None if state == b"Z" else int(fields[18])  # one that nobody has reaped yet makes nothing any more
    return None
