"""What the kernel says of this process, read after the last wall stands and before the program.

Raw: every slot pays for each line that runs here, so the host does the reading of it
(`backends.walls`), compares it with what it asked for, and keeps it as `isolation`.
"""

import os
import resource
from typing import Any

from isorun.executor import rules
from isorun.kernel import fds, namespaces

RLIMITS = {
    "RLIMIT_NPROC": resource.RLIMIT_NPROC,
    "RLIMIT_DATA": resource.RLIMIT_DATA,
    "RLIMIT_FSIZE": resource.RLIMIT_FSIZE,
    "RLIMIT_NOFILE": resource.RLIMIT_NOFILE,
    "RLIMIT_CORE": resource.RLIMIT_CORE,
    "RLIMIT_MEMLOCK": resource.RLIMIT_MEMLOCK,
}
SIZED = (rules.WORK, "/tmp", "/dev/shm")


def read_back(landlock_abi: int) -> dict[str, Any]:
    """Texts of /proc/self, namespaces, sizes of the tmpfs, rlimits, descriptors, hostname."""
    return {
        "status": _text("/proc/self/status"),
        "mountinfo": _text("/proc/self/mountinfo"),
        "namespaces": namespaces.identifiers(),
        "sizes": {path: _size(path) for path in SIZED},
        "rlimits": {name: list(resource.getrlimit(number)) for name, number in RLIMITS.items()},
        "fds": fds.open_descriptors(),
        "hostname": os.uname().nodename,
        "landlock_abi": landlock_abi,
        "cpus": sorted(os.sched_getaffinity(0)),
    }


def _text(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "backslashreplace")


def _size(path: str) -> list[int]:
    facts = os.statvfs(path)
    return [facts.f_blocks * facts.f_frsize, facts.f_files]
