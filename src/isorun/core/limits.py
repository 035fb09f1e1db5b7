"""The ceilings of one run. Every one is positive and finite: no value means "unlimited"."""

import math
from dataclasses import dataclass, fields

from isorun.core.errors import InvalidRequest

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
MAX_FRAME_BYTES = 16 * MIB  # what the wire can carry (wire.frames.MAX_FRAME)
#: File locks of one run at a time. A database needs a few; at some 200 bytes of kernel memory each this is below 1 MiB.
MAX_LOCKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run; a promise about the whole run, for every backend.

    Bytes, seconds and counts, as the names say. Zero, negative, infinite and NaN
    values raise `InvalidRequest`, and so does a set of tmpfs sizes that could
    hold more than half of `memory_bytes` (their pages are charged to the run).
    """

    wall_s: float = 600.0  # PY_CODE_EXEC_TIMEOUT; a longer timeout_s is refused
    memory_bytes: int = 1 * GIB
    processes: int = 128  # processes and threads together
    cpus: float = 1.0
    workspace_bytes: int = 256 * MIB
    workspace_inodes: int = 10_000
    file_bytes: int = 100 * MIB  # one file
    tmp_bytes: int = 64 * MIB
    shm_bytes: int = 64 * MIB
    open_files: int = 1024  # per process
    log_bytes: int = 16 * MIB  # stdout and stderr kept in user.log; what follows is cut and said
    result_bytes: int = 1 * MIB  # stdout and stderr kept in the result, each
    output_bytes: int = 128 * MIB  # a program that writes more than this is ended: output_limit
    source_bytes: int = 1 * MIB
    input_bytes: int = 128 * MIB
    contract_items: int = 100
    tool_calls: int = 1000
    tool_calls_at_once: int = 16  # the others wait for their turn
    frame_bytes: int = 16 * MIB
    tool_call_s: float = 60.0
    grace_s: float = 2.0  # between SIGTERM and the kill

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidRequest(f"{f.name} must be a number, got {value!r}", code="invalid_limit")
            if not 0 < value < math.inf:
                raise InvalidRequest(f"{f.name} must be positive and finite, got {value}", code="invalid_limit")
            if f.type is int and not isinstance(value, int):
                raise InvalidRequest(f"{f.name} must be a whole number, got {value}", code="invalid_limit")
        if self.cpus < 0.01:
            raise InvalidRequest(f"cpus must be at least 0.01, got {self.cpus}", code="invalid_limit")
        if self.frame_bytes > MAX_FRAME_BYTES:
            raise InvalidRequest(
                f"frame_bytes must be at most {MAX_FRAME_BYTES}, got {self.frame_bytes}", code="invalid_limit"
            )
        tmpfs = self.workspace_bytes + self.tmp_bytes + self.shm_bytes
        if tmpfs > self.memory_bytes // 2:
            raise InvalidRequest(
                f"workspace, /tmp and /dev/shm hold {tmpfs} bytes together, more than half of "
                f"memory_bytes ({self.memory_bytes}); raise memory_bytes or lower them",
                code="invalid_limit",
            )
