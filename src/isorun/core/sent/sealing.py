"""What a slot does to itself before a program is in it: one value from a backend to its executor.

A backend makes a `Sealing`, the wire carries it field by field (`wire.messages`), the executor obeys it.
"""

from __future__ import annotations

from isorun.core.sent.record import Record


class Sealing(Record):
    """Bytes and counts, as the names say. No field has a default: a backend decides every one."""

    # Read by `executor.slot`
    without: list[str]  # walls to leave out, for tests (`backends.namespace.walls.OPTIONAL`); read by `interior`, too
    cgroup: bool  # whether one holds memory; read by `interior`, too
    loopback: bool  # whether the run has its own; read by `interior`, too
    nproc: int  # RLIMIT_NPROC: processes and threads of the slot's uid, init included
    data_bytes: int | None  # RLIMIT_DATA of each process; None where a cgroup holds memory
    file_bytes: int  # RLIMIT_FSIZE
    open_files: int  # RLIMIT_NOFILE of each process
    may_lack: list[str]  # resource limits that this kernel may refuse to set

    # Read by `executor.interior`: sizes of file systems. Those of a container are mounted by its engine.
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    shm_bytes: int
