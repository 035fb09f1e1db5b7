"""The ceilings of a run where no control group can be written: what its processes hold, sampled.

`backends.watch.memory` calls `sample` every 20 ms and kills the largest process, or the run, above a ceiling.
Between two samples a run may go over; RLIMIT_DATA and RLIMIT_NPROC bound by how much.

Not seen here, because no process has it mapped: files in tmpfs (their sizes bound them), memfds that are written but
not mapped, and the unmapped part of shared memory without a file (`backends.filters` refuses both).
What sockets hold is not seen either, so `socket_bytes` takes each for as full as it may be.

Must not: kill, wait, keep state between samples, or believe that a process is still there.
"""

import os
from collections.abc import Callable, Iterable, Mapping

# No pathlib, no dataclasses: the watcher's process starts once for every `isorun run`, and they are half of that.
_PROC = "/proc"


class Sample:
    """What the processes of one run held, at slightly different instants.

    `processes` counts threads, as the kernel's own limits do, and zombies, which hold a pid.
    `bytes_of` has the part of each pid in `rss_bytes`. `table_bytes` is the part that page tables are,
    `least_bytes` what is held even if the processes share all they can: every page table, and all of the largest.
    `own_of` has the private memory and the page tables of each pid: where they grow, nothing shared is counted again.
    """

    __slots__ = ("bytes_of", "least_bytes", "own_of", "pids", "processes", "rss_bytes", "table_bytes")

    def __init__(
        self, bytes_of: Mapping[int, int], tables_of: Mapping[int, int], own_of: Mapping[int, int], processes: int
    ) -> None:
        self.own_of = own_of
        self.rss_bytes = sum(bytes_of.values())
        self.table_bytes = sum(tables_of.values())
        self.least_bytes = self.table_bytes + max((bytes_of[pid] - tables_of[pid] for pid in bytes_of), default=0)
        self.processes = processes
        self.pids = tuple(sorted(bytes_of))
        self.bytes_of = bytes_of


def sample(roots: Iterable[int], proc: str | os.PathLike[str] = _PROC, *, shared_once: bool = False) -> Sample:
    """The processes *roots* and all their descendants; a process that vanishes meanwhile is skipped.

    `rss_bytes` sums private and shared memory of each process and its page tables, so pages that forked processes
    share count once for each: cheap, and never too low. With *shared_once* they count once (PSS),
    which takes the kernel a walk over every page table: for confirming that a run is over.
    """
    root = os.fspath(proc)
    children = None if has_children_files(proc) else _children_by_scan(root)
    todo, seen, tables, own = list(roots), dict[int, int](), dict[int, int](), dict[int, int]()
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
        seen[pid], tables[pid], own[pid], threads = held
        processes += threads
        todo += below
    return Sample(seen, tables, own, processes)


_FEW_SOCKETS = 64  # what honest programs open; their buffers are empty most of the time


def socket_bytes(pid: int, proc: str | os.PathLike[str] = _PROC) -> int:
    """The most that the sockets in the network namespace of *pid* may hold, the first few not counted.

    An unread message is kernel memory of no process: a few hundred socket pairs, all full, are the whole of a run's
    memory. The namespace's own count has a socket until its last message is gone. Other lists miss a sender that is
    closed, whose datagrams wait at the receiver, and a socket that was reset or disconnected, which keeps its messages.
    The count also has sockets on their way through another one, and connections that were not accepted.
    """
    listed = b"\n" + (_read(f"{os.fspath(proc)}/{pid}/net/sockstat") or b"")
    return max(_kib(listed, b"\nsockets: used") - _FEW_SOCKETS, 0) * _most_of_a_socket(proc)


def _most_of_a_socket(proc: str | os.PathLike[str]) -> int:
    # A message is held against one buffer or the other. A full one refuses, so the last message may lie above it.
    sizes = (_read(f"{os.fspath(proc)}/sys/net/core/{way}mem_default") for way in "wr")
    return max(int(size or 212_992) for size in sizes) + (64 << 10)


def has_children_files(proc: str | os.PathLike[str] = _PROC) -> bool:
    """Whether the kernel lists children per thread (CONFIG_PROC_CHILDREN); if not, all of *proc* is read."""
    return os.path.exists(f"{os.fspath(proc)}/thread-self/children")


def children_of(proc: str | os.PathLike[str] = _PROC) -> Callable[[int], list[int]]:
    """What gives the children of a process, by a look now, or, where the kernel has no list of them, by one look."""
    root = os.fspath(proc)
    if has_children_files(proc):
        return lambda pid: _children(root, pid)
    listed = _children_by_scan(root)
    return lambda pid: listed.get(pid, [])


def _children(root: str, pid: int) -> list[int]:
    # A child belongs to the thread that forked it, so every thread is asked.
    try:
        threads = os.listdir(f"{root}/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += [int(p) for p in (_read(f"{root}/{pid}/task/{thread}/children") or b"").split()]
    return found


def _children_by_scan(root: str) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for name in os.listdir(root):
        parent = parent_of(int(name), root) if name.isdigit() else None
        if parent is not None:
            children.setdefault(parent, []).append(int(name))
    return children


def parent_of(pid: int, proc: str = _PROC) -> int | None:
    """The pid of its parent; None if it is gone."""
    stat = _read(f"{proc}/{pid}/stat")
    # The command in parentheses is the program's choice and may look like anything.
    return int(stat.rpartition(b")")[2].split()[1]) if stat else None


def _held(root: str, pid: int, shared_once: bool) -> tuple[int, int, int, int] | None:
    """Bytes of one process: all, page tables, these and private memory; then its threads. None when it is gone."""
    status = _read(f"{root}/{pid}/status")
    if not status:
        return None
    threads, of = _kib(status, b"\nThreads:"), f"{root}/{pid}"
    if threads > 0 and b"\nRssAnon:" not in status:
        # The first thread of a process may end before the others: its own files then show no memory and no descriptors.
        of, status = _living_thread(root, pid) or (of, status)
    # The leading newline: the Name: line before it holds what the program chose, newlines escaped.
    # Swapped pages are held as well: else a host's swap would be room above the ceiling.
    anon = _kib(status, b"\nRssAnon:") + _kib(status, b"\nVmSwap:")
    memory = anon + _kib(status, b"\nRssShmem:")
    if shared_once and (rollup := _read(f"{of}/smaps_rollup")):
        memory = _kib(rollup, b"\nPss_Anon:") + _kib(rollup, b"\nPss_Shmem:") + _kib(rollup, b"\nSwapPss:")
    # Page tables are each process's own. Reading one byte in 2 MiB of zeroes makes a page of them and nothing else.
    tables = _kib(status, b"\nVmPTE:") + _kib(status, b"\nVmPMD:")
    held = (memory + tables) * 1024 + _descriptor_bytes(of)
    return held, tables * 1024, (anon + tables) * 1024, threads


def _living_thread(root: str, pid: int) -> tuple[str, bytes] | None:
    """The folder and the status of a thread of *pid* that has its memory; None if none has."""
    try:
        threads = os.listdir(f"{root}/{pid}/task")
    except OSError:  # gone
        return None
    for thread in threads:
        status = _read(f"{root}/{pid}/task/{thread}/status")
        if status and b"\nRssAnon:" in status:
            return f"{root}/{pid}/task/{thread}", status
    return None


_FEW_DESCRIPTORS = 64  # what most programs have
_OF_A_DESCRIPTOR = 4864  # a file of /proc that was read keeps a page, and its own 750 bytes; half a pipe the same


def _descriptor_bytes(of: str) -> int:
    """What the kernel may keep for the open files of a process, the first few not counted. Before Linux 6.2: 0."""
    try:
        count = os.stat(f"{of}/fd").st_size
    except OSError:  # gone
        return 0
    return max(0, count - _FEW_DESCRIPTORS) * _OF_A_DESCRIPTOR


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
