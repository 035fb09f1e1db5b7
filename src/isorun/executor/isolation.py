"""What the kernel says of this process, read after the last wall stands and before the program.

The host compares it with what it asked for and keeps it as the run's `isolation`.
"""

import os
import socket
from typing import Any

from isorun.executor import rules
from isorun.kernel import fds, mounts, namespaces, rlimits

_STATUS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
_RLIMITS = ("RLIMIT_NPROC", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_MEMLOCK")
_SIZED = (rules.WORK, "/tmp", "/dev/shm")  # noqa: S108 - the slot's own tmpfs


def read_back(landlock_abi: int) -> dict[str, Any]:
    """Status fields, namespaces, mounts, tmpfs sizes, rlimits, descriptors, hostname."""
    return {
        "status": status(),
        "namespaces": namespaces.identifiers(),
        "mounts": [[m.target, m.kind, m.read_only] for m in mounts.mounted()],
        "sizes": {path: _size(path) for path in _SIZED},
        "rlimits": {name: list(pair) for name, pair in rlimits.read_back(_RLIMITS).items()},
        "fds": fds.open_descriptors(),
        "hostname": socket.gethostname(),
        "landlock_abi": landlock_abi,
        "pid": os.getpid(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "proc": _proc_options(),
    }


def status() -> dict[str, str]:
    """The lines of /proc/self/status that tell of rights."""
    found = {}
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs the slot 30 ms
        for line in file:
            name, _, value = line.partition(":")
            if name in _STATUS:
                found[name] = value.strip()
    return found


def _size(path: str) -> list[int]:
    facts = os.statvfs(path)
    return [facts.f_blocks * facts.f_frsize, facts.f_files]


def _proc_options() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        lines = [line.split() for line in file]
    return next((line[-1] for line in reversed(lines) if line[4] == "/proc"), "")
