"""The ceilings of a run where no control group can be written: what its processes hold, sampled.

`backends.ceilings` calls `sample` every 20 ms and kills the largest process, or the run, above a ceiling.
Between two samples a run may go over; RLIMIT_DATA and RLIMIT_NPROC bound by how much.

Not seen here, because no process has it mapped: files in tmpfs (their sizes bound them) and
memfds that are written but not mapped (nothing here bounds them: only refusing memfd_create does).
What sockets hold is not seen either, so `socket_bytes` takes each for as full as it may be.

Must not: kill, wait, keep state between samples, or believe that a process is still there.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes of one run held, at slightly different instants.

    `processes` counts threads, as the kernel's own limits do, and zombies, which hold a pid.
    `bytes_of` has the part of each pid in `rss_bytes`.
    """

    rss_bytes: int
    processes: int
    pids: tuple[int, ...]
    bytes_of: Mapping[int, int] = field(default_factory=dict, compare=False)


def sample(roots: Iterable[int], proc: Path = _PROC, *, shared_once: bool = False) -> Sample:
    """The processes *roots* and all their descendants; one that vanishes meanwhile is skipped.

    `rss_bytes` sums private and shared memory of each process, so pages that forked processes
    share count once for each: cheap, and never too low. With *shared_once* they count once (PSS),
    which takes the kernel a walk over every page table: for confirming that a run is over.
    """
    root = str(proc)
    children = None if has_children_files(proc) else _children_by_scan(root)
    todo, seen = list(roots), dict[int, int]()
    processes = 0
    while todo:
        pid = todo.pop()
        if pid in seen:
            continue
        # Children first: a process that exits between the two reads has still told us of them.
        below = _children(root, pid) if children is None else children.get(pid, [])
        held = _held(root, pid, shared_once)
        if held is None:
            todo += below
            continue
        seen[pid] = held[0]
        processes += held[1]
        todo += below
    return Sample(rss_bytes=sum(seen.values()), processes=processes, pids=tuple(sorted(seen)), bytes_of=seen)


_FEW_SOCKETS = 64  # what honest programs open; their buffers are empty most of the time


def socket_bytes(pid: int, proc: Path = _PROC) -> int:
    """The most that the Unix sockets in the network namespace of *pid* may hold, the first few not counted.

    A message that nobody reads is kernel memory of no process: a few hundred socket pairs, all full,
    are the whole of a run's memory. The list has those on their way through another socket as well.
    """
    listed = _read(f"{proc}/{pid}/net/unix") or b""
    count = listed.count(b"\n") - 1 - _FEW_SOCKETS
    return max(count, 0) * _most_of_a_socket(proc)


@functools.cache
def _most_of_a_socket(proc: Path) -> int:
    # A send is refused once the buffer is full, so the last message may lie above it.
    return int(_read(f"{proc}/sys/net/core/wmem_default") or 212_992) + (64 << 10)


def has_children_files(proc: Path = _PROC) -> bool:
    """Whether the kernel lists children per thread (CONFIG_PROC_CHILDREN); if not, all of *proc* is read."""
    return (proc / "thread-self" / "children").exists()


def _children(root: str, pid: int) -> list[int]:
    # A child belongs to the thread that forked it, so every thread is asked.
    try:
        threads = [t.name for t in Path(f"{root}/{pid}/task").iterdir()]
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += [int(p) for p in (_read(f"{root}/{pid}/task/{thread}/children") or b"").split()]
    return found


def _children_by_scan(root: str) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path(root).iterdir():
        if not entry.name.isdigit():
            continue
        stat = _read(f"{root}/{entry.name}/stat")
        if stat:
            # The command in parentheses is the program's choice and may look like anything.
            parent = int(stat.rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    return children


def _held(root: str, pid: int, shared_once: bool) -> tuple[int, int] | None:
    """Bytes and threads of one process; None when it is gone."""
    status = _read(f"{root}/{pid}/status")
    if not status:
        return None
    # The leading newline: the Name: line before it holds what the program chose, newlines escaped.
    # Swapped pages are held as well: else a host's swap would be room above the ceiling.
    memory = _kib(status, b"\nRssAnon:") + _kib(status, b"\nRssShmem:") + _kib(status, b"\nVmSwap:")
    if shared_once and (rollup := _read(f"{root}/{pid}/smaps_rollup")):
        memory = _kib(rollup, b"\nPss_Anon:") + _kib(rollup, b"\nPss_Shmem:") + _kib(rollup, b"\nSwapPss:")
    return memory * 1024, _kib(status, b"\nThreads:")


def _kib(text: bytes, key: bytes) -> int:
    """The number after *key*; 0 without it: a zombie has no memory lines."""
    _, found, rest = text.partition(key)
    return int(rest.split(None, 1)[0]) if found else 0


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:  # gone, or (smaps_rollup) not ours to read
        return None
