"""How a run ended: values, never exceptions.

`classify` is the one place that turns what the kernel said about a dead program
into a word. The exit decides. What the program claims about itself (`Claim`) is
hostile: it may name the reason of a failure, it cannot turn one into a success.
"""

import errno
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from isorun.core.sent.claim import Claim


class Status(StrEnum):
    """One word per ending; the HTTP API and the CLI show these words unchanged."""

    OK = "ok"
    FAILED = "failed"  # the program raised, or exited non-zero
    KILLED = "killed"  # by a signal that we did not send
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    LIMIT_EXCEEDED = "limit_exceeded"
    CONTRACT_FAILED = "contract_failed"  # it ended well and broke its promise
    PROTOCOL_VIOLATION = "protocol_violation"  # the executor sent bytes we refuse
    CANCELLED = "cancelled"
    LOST = "lost"  # a stored run whose host died, or whose sandbox failed under it


class Code(StrEnum):
    """The error codes of a run. `CODES_OF` says which status may carry which."""

    PROGRAM_ERROR = "program_error"
    NONZERO_EXIT = "nonzero_exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    FILE_SIZE_LIMIT = "file_size_limit"
    WORKSPACE_LIMIT = "workspace_limit"
    INODE_LIMIT = "inode_limit"
    PROCESS_LIMIT = "process_limit"
    LOCK_LIMIT = "lock_limit"
    OUTPUT_LIMIT = "output_limit"
    MISSING_OUTPUT_FILES = "missing_output_files"
    ARTIFACT_VALIDATION_FAILED = "artifact_validation_failed"
    PROTOCOL_VIOLATION = "protocol_violation"
    CANCELLED = "cancelled"
    HOST_LOST = "host_lost"
    SANDBOX_LOST = "sandbox_lost"


CODES_OF: dict[Status, tuple[Code, ...]] = {
    Status.OK: (),
    Status.FAILED: (Code.PROGRAM_ERROR, Code.NONZERO_EXIT),
    Status.KILLED: (Code.SIGNAL,),
    Status.TIMED_OUT: (Code.TIMEOUT,),
    Status.OUT_OF_MEMORY: (Code.OUT_OF_MEMORY,),
    Status.LIMIT_EXCEEDED: (
        Code.FILE_SIZE_LIMIT,
        Code.WORKSPACE_LIMIT,
        Code.INODE_LIMIT,
        Code.PROCESS_LIMIT,
        Code.LOCK_LIMIT,
        Code.OUTPUT_LIMIT,
    ),
    Status.CONTRACT_FAILED: (Code.MISSING_OUTPUT_FILES, Code.ARTIFACT_VALIDATION_FAILED),
    Status.PROTOCOL_VIOLATION: (Code.PROTOCOL_VIOLATION,),
    Status.CANCELLED: (Code.CANCELLED,),
    Status.LOST: (Code.HOST_LOST, Code.SANDBOX_LOST),
}


class Stop(StrEnum):
    """Why the host ended a run before the program did."""

    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    OUTPUT = "output"
    VIOLATION = "violation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """What the kernel said of the dead program and its run, in raw facts.

    Exactly one of `code` and `signal` is set. `oom_kills` counts the processes of
    the run that were killed for memory; the full_* facts are those of the tmpfs
    filesystems at the end; `process_limit_hits` counts refused forks and threads,
    and is None where no cgroup counts them. `outside`: who ended the sandbox itself, where
    that was neither the program nor we; with `is_lost` it failed, and ours is the signal.
    `violation`: what the program did against its sandbox, for which that was ended. `unasked`: the program is known to
    have ended before anybody's word to end reached it; its end may have been heard of much later.
    """

    code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    full_bytes: tuple[str, ...] = ()  # mount points without a free block
    full_inodes: tuple[str, ...] = ()
    process_limit_hits: int | None = None
    limit: Code | None = None  # for whose sake we ended it, where no kernel refuses
    outside: str = ""
    is_lost: bool = False
    violation: str = ""
    unasked: bool = False

    def __post_init__(self) -> None:
        if (self.code is None) == (self.signal is None):
            raise ValueError("exactly one of code and signal must be set")


def classify(exit_: Exit, stop: Stop | None, claim: Claim | None) -> tuple[Status, Code | None]:
    """The word and the code of an ending, before the contract is looked at.

    A reason of ours comes first (we know why we ended it), then the cause the
    kernel vouches for, then the exit itself.
    """
    match stop:
        case Stop.DEADLINE:
            return Status.TIMED_OUT, Code.TIMEOUT
        case Stop.CANCELLED:
            return Status.CANCELLED, Code.CANCELLED
        case Stop.OUTPUT:
            return Status.LIMIT_EXCEEDED, Code.OUTPUT_LIMIT
        case Stop.VIOLATION:
            return Status.PROTOCOL_VIOLATION, Code.PROTOCOL_VIOLATION
        case None:
            return _ended_by_itself(exit_, claim)
        case _:
            assert_never(stop)


def _ended_by_itself(exit_: Exit, claim: Claim | None) -> tuple[Status, Code | None]:
    if exit_.is_lost:
        return Status.LOST, Code.SANDBOX_LOST
    if exit_.limit is not None:
        return Status.LIMIT_EXCEEDED, exit_.limit
    if exit_.code == 0:
        return Status.OK, None  # a child's OOM, a full disk it coped with: notices, not endings
    if exit_.signal == signal.SIGKILL and exit_.oom_kills > 0:
        return Status.OUT_OF_MEMORY, Code.OUT_OF_MEMORY
    if exit_.signal == 25:  # SIGXFSZ: the kernel sends it for RLIMIT_FSIZE only
        return Status.LIMIT_EXCEEDED, Code.FILE_SIZE_LIMIT
    if exit_.signal is not None:
        return Status.KILLED, Code.SIGNAL
    if claim is None:
        return Status.FAILED, Code.NONZERO_EXIT
    if claim.type == "MemoryError":
        return Status.OUT_OF_MEMORY, Code.OUT_OF_MEMORY
    limit = _limit_behind(exit_, claim)
    if limit is not None:
        return Status.LIMIT_EXCEEDED, limit
    return Status.FAILED, Code.PROGRAM_ERROR


def _limit_behind(exit_: Exit, claim: Claim) -> Code | None:
    """The limit that the uncaught error ran into, if the kernel's own counts agree."""
    if claim.errno == errno.EFBIG:
        return Code.FILE_SIZE_LIMIT
    if claim.errno == errno.ENOSPC and "/workspace" in exit_.full_inodes:
        return Code.INODE_LIMIT
    if claim.errno == errno.ENOSPC:
        return Code.WORKSPACE_LIMIT
    return Code.PROCESS_LIMIT if _was_refused_a_process(exit_, claim) else None


def _was_refused_a_process(exit_: Exit, claim: Claim) -> bool:
    hits = exit_.process_limit_hits
    if claim.type == "RuntimeError" and claim.message.startswith("can't start new thread"):
        return hits != 0
    if claim.errno != errno.EAGAIN:
        return False
    # Any non-blocking read fails with EAGAIN too. Where nothing counts refused forks, the line that
    # raised tells: os.fork, _fork_exec of subprocess, popen_fork of multiprocessing, os.posix_spawn.
    return ("fork" in claim.source or "posix_spawn" in claim.source) if hits is None else hits > 0


def cli_exit_code(status: Status, exit_: Exit | None) -> int:
    """The exit code of `isorun run` for an outcome (the table of the README)."""
    match status:
        case Status.OK:
            return 0
        case Status.FAILED:
            return exit_.code if exit_ and exit_.code else 1
        case Status.KILLED:
            return 128 + (exit_.signal or 0) if exit_ else 1
        case Status.TIMED_OUT:
            return 124
        case Status.OUT_OF_MEMORY:
            return 137
        case Status.LIMIT_EXCEEDED:
            return 5
        case Status.CONTRACT_FAILED:
            return 3
        case Status.PROTOCOL_VIOLATION:
            return 6
        case Status.CANCELLED:
            return 130
        case Status.LOST:
            return 70  # as an error of the sandbox's, which it is
        case _:
            assert_never(status)
