"""Resource limits of one process tree: which, how high, why; and set.

`table` decides and runs anywhere; `apply` sets it on the calling process, whose children inherit
it. Apply it after the slot's user namespace exists: NPROC counts per user and namespace, and set
before, one slot's fork bomb would starve the others.

Must not: raise a hard limit that was inherited lower, nor take "unlimited" for an answer.
"""

from collections.abc import Collection, Iterable

Row = tuple[str, int, int]  # name, soft, hard

_KIB = 1 << 10
_MIB = 1 << 20


def table(*, processes: int, data_bytes: int | None, file_bytes: int, open_files: int) -> tuple[Row, ...]:
    """The limits of a slot. *data_bytes* is None if a cgroup holds memory."""
    wanted = {"processes": processes, "data_bytes": data_bytes, "file_bytes": file_bytes, "open_files": open_files}
    for name, value in wanted.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")
    rows: list[Row] = [
        # Fork and thread bombs; the only such ceiling without a cgroup, the nearer of two with one.
        ("RLIMIT_NPROC", processes, processes),
        # One huge or sparse file; SIGXFSZ or EFBIG names the cause, before the tmpfs is full.
        ("RLIMIT_FSIZE", file_bytes, file_bytes),
        # Each descriptor pins kernel memory (pipes 64 KiB and more) that no tmpfs size bounds.
        ("RLIMIT_NOFILE", open_files, open_files),
        # A core dump would fill the workspace with the program's memory. Not 0: a core_pattern that begins with a
        # pipe gets the dump at 0 too, in the host's namespaces and as root. The kernel passes it over at exactly 1,
        # which no file of a dump fits into.
        ("RLIMIT_CORE", 1, 1),
        # Locked pages cannot be reclaimed: enough for a key or two, not to pin the machine's memory.
        ("RLIMIT_MEMLOCK", 64 * _KIB, 64 * _KIB),
        # POSIX message queues outlive the process that made them, in kernel memory.
        ("RLIMIT_MSGQUEUE", 0, 0),
        # Queued signals and POSIX timers are kernel memory; a few per process is what honest code needs.
        ("RLIMIT_SIGPENDING", 1024, 1024),
        # The usual 8 MiB, which also sizes each thread's stack. The hard limit lets a deep recursion
        # ask for more, and keeps "unlimited" away, which would turn the address layout to the legacy one.
        ("RLIMIT_STACK", 8 * _MIB, 64 * _MIB),
    ]
    if data_bytes is not None:
        # Without a cgroup: what one process may map privately and write to, refused at once (MemoryError).
        rows.append(("RLIMIT_DATA", data_bytes, data_bytes))
    return tuple(rows)


def apply(rows: Iterable[Row], *, may_lack: Collection[str] = ()) -> None:
    """Set each limit on this process. Raises OSError naming the one the kernel refused, and ValueError
    for a negative one, which the kernel would read as unlimited.

    A hard limit that was inherited lower stays: it cannot be raised, and it is the tighter ceiling. Those in
    *may_lack* may be refused: gVisor's kernel knows them by name only, and has nothing that they would bound.
    """
    import resource  # here: it exists on Unix only, and `table` must import anywhere

    for name, soft, hard in rows:
        which = getattr(resource, name)
        inherited = resource.getrlimit(which)[1]
        if min(soft, hard) < 0:
            raise ValueError(f"{name} must not be unlimited, got {soft}, {hard}")
        if inherited != resource.RLIM_INFINITY:
            soft, hard = min(soft, inherited), min(hard, inherited)
        if resource.getrlimit(which) == (soft, hard):
            continue  # also where a filter refuses to set it: an engine's profile does so for RLIMIT_CORE
        try:
            resource.setrlimit(which, (soft, hard))
        except (OSError, ValueError) as exc:
            if name in may_lack:
                continue
            # CPython turns EPERM and EINVAL into ValueError
            raise OSError(f"{name}: cannot be set to {soft}, {hard}: {exc}") from exc


def use_all_open_files() -> None:
    """Raise this process's soft limit of open files to its hard one.

    The kernel refuses to pass descriptors over sockets once more are on their way, in all processes of the
    user, than the sender's own soft limit. A program may keep as many on their way as its limit allows, so
    whoever builds slots needs a higher one, or one program would stop all building.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
