"""What the kernel of a container says of it: one value from the container's init to its backend.

The container says it, so it may be a lie: `backends.docker.walls` demands each wall of it.
"""

from __future__ import annotations

from isorun.core.sent.record import Record


class ContainerFacts(Record):
    """The text of files of /proc, and what was counted."""

    status: str  # /proc/PID/status of the program's process
    init: str  # the same of init
    mountinfo: str  # the program's, as all that follows
    rlimits: str  # /proc/PID/limits
    namespaces: dict[str, str]  # names by kind
    network: dict[str, str]  # files of /proc/PID/net, by name
    fds: list[int]
    sizes: dict[str, list[int]]  # by path: bytes and inodes that the file system there holds at most
    cgroup: dict[str, int]  # `version`, and the ceilings `memory_bytes` and `processes`; -1 for what is not told
