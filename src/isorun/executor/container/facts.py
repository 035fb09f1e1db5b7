"""What the init of a container reads of its own kernel: of the program's process, and of the control group at the end.

Facts alone, as the files say them; what they must be is the host's to judge. Of two
layouts of the control group the one that is there is read.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from isorun.core.sent.facts import ContainerFacts
from isorun.executor import rules
from isorun.kernel.locks import Listing
from isorun.wire.messages import Finished

_IN_MEMORY = ("/tmp", "/dev/shm")  # of the workspace the host sees itself how full it is

_TURN_S = 0.02

_V2 = Path("/sys/fs/cgroup/memory.max")


def facts_of(pid: int) -> ContainerFacts:
    """What the kernel shows of process *pid*, which is the program's, and of us."""
    return ContainerFacts(
        status=_text(f"/proc/{pid}/status"),
        init=_text("/proc/self/status"),
        mountinfo=_text(f"/proc/{pid}/mountinfo"),
        rlimits=_text(f"/proc/{pid}/limits"),
        namespaces=_namespaces(pid),
        network={name: _text(f"/proc/{pid}/net/{name}") for name in rules.NETWORK_FILES},
        fds=_descriptors(pid),
        sizes={path: _size(path) for path in (rules.WORK, "/tmp", "/dev/shm")},
        cgroup=_cgroup_limits(),
    )


def count_tasks(enough: int) -> int:
    """Processes and threads of the container without init; counted no further than *enough*."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != "1":
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{name}/task"))
        if count > enough:
            break
    return count


def has_too_many_locks(listing: Listing, most: int) -> bool:
    """Whether the container's processes hold more than *most* file locks, as far as a turn at the list tells.

    It has other containers' locks only where they belong to no process, which are left out.
    """
    listing.read(time.monotonic() + _TURN_S, 2 * most)
    return sum(count for (pid, _), count in listing.counts.items() if pid > 0) > most


def final_facts(refused_tasks: int, *, too_many_locks: bool, unasked: bool) -> Finished:
    """What the control group has counted, and which places are full. The rest is what init has counted."""
    if _V2.exists():
        events, pids, cpu = (_table(f"/sys/fs/cgroup/{name}") for name in ("memory.events", "pids.events", "cpu.stat"))
        cpu_s = cpu["usage_usec"] / 1e6 if "usage_usec" in cpu else -1.0
        peak = _number("/sys/fs/cgroup/memory.peak")
    else:
        events, pids = _table("/sys/fs/cgroup/memory/memory.oom_control"), _table("/sys/fs/cgroup/pids/pids.events")
        spent = _number("/sys/fs/cgroup/cpuacct/cpuacct.usage")
        cpu_s = spent / 1e9 if spent >= 0 else -1.0
        peak = _number("/sys/fs/cgroup/memory/memory.max_usage_in_bytes")
    return Finished(
        oom_kills=events.get("oom_kill", -1),
        process_limit_hits=refused_tasks or pids.get("max", -1),
        cpu_s=cpu_s,
        peak_memory_bytes=peak,
        full_bytes=[path for path in _IN_MEMORY if _is_full(path, "f_blocks", "f_bfree")],
        full_inodes=[path for path in _IN_MEMORY if _is_full(path, "f_files", "f_ffree")],
        too_many_locks=too_many_locks,
        unasked=unasked,
    )


def _cgroup_limits() -> dict[str, int]:
    """-1 for what is not told."""
    if _V2.exists():
        names = {"memory_bytes": "memory.max", "processes": "pids.max"}
        return {"version": 2, **{name: _number(f"/sys/fs/cgroup/{file}") for name, file in names.items()}}
    names = {"memory_bytes": "memory/memory.limit_in_bytes", "processes": "pids/pids.max"}
    return {"version": 1, **{name: _number(f"/sys/fs/cgroup/{file}") for name, file in names.items()}}


def _is_full(path: str, most: str, free: str) -> bool:
    with suppress(OSError):
        found = os.statvfs(path)
        return bool(getattr(found, most)) and not getattr(found, free)  # gVisor counts no inodes: 0 of 0 are free
    return False


def _size(path: str) -> list[int]:
    """Bytes and inodes that the file system at *path* holds at most."""
    found = os.statvfs(path)
    return [found.f_blocks * found.f_frsize, found.f_files]


def _namespaces(pid: int) -> dict[str, str]:
    folder, found = f"/proc/{pid}/ns", {}
    with suppress(OSError):
        for name in os.listdir(folder):
            found[name] = os.readlink(f"{folder}/{name}")
    return found


def _descriptors(pid: int) -> list[int]:
    with suppress(OSError):
        return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
    return []


def _table(path: str) -> dict[str, int]:
    lines = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}


def _number(path: str) -> int:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else -1


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
