"""What the kernel says of a slot, read from outside through /proc and the slot's own descriptors.

The slot's processes are asked for three things only, all said before a program is
there: the Landlock ABI they were restricted by and what the filter answers to `socket`,
which no file tells, and the hostname, which only its namespace knows.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

from isorun.executor import rules
from isorun.kernel import namespaces

#: The names of /proc/<pid>/limits, which any process may read of any other.
_RLIMITS = {
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_MEMLOCK": "Max locked memory",
}
_NAME_WIDTH = 26
#: How the lines of /proc/<pid>/status begin that `walls` judges.
_STATUS = ("Uid:", "Gid:", "Cap", "NoNewPrivs:", "Seccomp")


def look(pid: int, init: int, told: Mapping[str, Any], work: int, tmp: int, shm: int) -> dict[str, Any]:
    """Everything that `walls.confirm` judges. *pid*: the program's process; *work*, *tmp*, *shm*: its directories.

    Raises OSError if the processes are gone.
    """
    maps = {"Uid": _text(f"{pid}/uid_map"), "Gid": _text(f"{pid}/gid_map")}
    return {
        "status": as_inside(_of_walls(_text(f"{pid}/status")), maps),
        "init": _of_walls(_text(f"{init}/status")),
        "mountinfo": _text(f"{pid}/mountinfo"),
        "namespaces": namespaces.identifiers(pid),
        "sizes": {path: _size(fd) for path, fd in ((rules.WORK, work), ("/tmp", tmp), ("/dev/shm", shm))},
        "network": {name: _text(f"{pid}/net/{name}", "") for name in rules.NETWORK_FILES},
        "rlimits": rlimits_of(_text(f"{pid}/limits")),
        "core_pattern": _text("sys/kernel/core_pattern"),
        "fds": sorted(int(entry.name) for entry in os.scandir(f"/proc/{pid}/fd")),
        "cpus": sorted(os.sched_getaffinity(pid)),
        **told,
    }


def _of_walls(status: str) -> str:
    """The lines of a /proc/<pid>/status that tell of a wall, of sixty."""
    return "\n".join(line for line in status.splitlines() if line.startswith(_STATUS))


def as_inside(status: str, maps: Mapping[str, str]) -> str:
    """A /proc/<pid>/status with its ids as the process itself sees them, by its uid_map and gid_map."""
    lines = status.splitlines()
    for number, line in enumerate(lines):
        name, _, ids = line.partition(":")
        if name in maps:
            lines[number] = f"{name}:\t" + "\t".join(str(_inside(int(i), maps[name])) for i in ids.split())
    return "\n".join(lines)


def rlimits_of(limits: str) -> dict[str, list[int]]:
    """Soft and hard limit by name, from a /proc/<pid>/limits; -1 is unlimited."""
    return {name: list(pair) for name, pair in _rlimits_of(limits)}


@functools.lru_cache(maxsize=16)
def _rlimits_of(limits: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Remembered: the text is the same for all slots of the same limits."""
    rows = {line[:_NAME_WIDTH].strip(): line[_NAME_WIDTH:].split()[:2] for line in limits.splitlines()}
    return tuple(
        (name, tuple(-1 if word == "unlimited" else int(word) for word in rows[row])) for name, row in _RLIMITS.items()
    )


def _inside(outside: int, id_map: str) -> int:
    for line in id_map.splitlines():
        first, start, count = map(int, line.split())
        if start <= outside < start + count:
            return first + outside - start
    return -1


def _text(name: str, absent: str | None = None) -> str:
    """*absent*: in place of a file that this kernel does not have."""
    try:
        descriptor = os.open(f"/proc/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if absent is None:
            raise
        return absent
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "backslashreplace")


def _size(directory: int) -> list[int]:
    facts = os.fstatvfs(directory)
    return [facts.f_blocks * facts.f_frsize, facts.f_files]
