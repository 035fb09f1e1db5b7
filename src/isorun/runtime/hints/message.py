"""What happened, in one sentence: the message of a run's error.

Pure: from values to text. The claim is the program's and hostile: it is bounded and shown on one line. What to do
about it is said by `hints.hint`.
"""

import re
import signal
from collections.abc import Callable

from isorun.core.limits import GIB, KIB, MAX_LOCKS, MIB, Limits
from isorun.core.outcome import Code, Exit, Status
from isorun.core.sent.claim import Claim
from isorun.core.text import one_line

MAX_MESSAGE = 300  # characters of an exception's text
_END = 2000  # characters
_WORDS = re.compile(
    r"rror|rrno|No module|No such|codec|esol[uv]|not found|EOF when|locale|depend|matching|\bE: |unable|No space"
)
PLACES = ("/workspace", "/tmp", "/dev/shm")  # noqa: S108 - mount points inside, no files of ours


def message_for(status: Status, code: Code | None, exit_: Exit | None, claim: Claim | None, limits: Limits) -> str:
    """What happened, in one sentence; "" for a run that is ok. *limits* are those of this very run."""
    if code is None:
        return "" if status is Status.OK else f"the run ended as {status}"
    return _MESSAGES[code](exit_, claim, limits)


def may_speak_of_an_error(printed: str) -> bool:
    """Whether a look at the end of what a program printed may be worth its price: see `hints.caught`."""
    return _WORDS.search(printed[-_END:]) is not None


def _raised(claim: Claim | None) -> str:
    if claim is None:
        return "the program raised an exception"
    words = " ".join(claim.message[: 4 * MAX_MESSAGE].split())
    name = one_line(claim.type, 100)
    return f"the program raised {name}: {one_line(words, MAX_MESSAGE)}" if words else f"the program raised {name}"


def _signal(exit_: Exit | None) -> str:
    number = exit_.signal if exit_ else None
    if number is None:
        return "ended by a signal"
    try:
        return f"ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal has no name
        return f"ended by signal {number}"


def _memory(exit_: Exit | None, claim: Claim | None, limits: Limits) -> str:
    size = size_text(limits.memory_bytes)
    if exit_ is not None and exit_.signal is not None:
        return f"killed for exceeding its memory limit of {size}"
    return f"{_raised(claim)} (its memory limit is {size})"


def _exit_code(exit_: Exit | None) -> str:
    return "a non-zero exit code" if exit_ is None or exit_.code is None else f"exit code {exit_.code}"


def _full(exit_: Exit | None, limits: Limits) -> str:
    full = (*exit_.full_bytes, *exit_.full_inodes) if exit_ else ()
    named = [f"{place} ({size_text(size)})" for place, size in sizes_of(limits).items() if place in full]
    return f"no space left in {' and '.join(named) or '/workspace, /tmp or /dev/shm'}"


def sizes_of(limits: Limits) -> dict[str, int]:
    """How much each of `PLACES` holds."""
    return dict(zip(PLACES, (limits.workspace_bytes, limits.tmp_bytes, limits.shm_bytes), strict=True))


def size_text(size: int) -> str:
    """*size* bytes for people: `256 MiB`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{round(size / unit, 2):g} {name}"
    return f"{size} bytes"


_MESSAGES: dict[Code, Callable[[Exit | None, Claim | None, Limits], str]] = {
    Code.PROGRAM_ERROR: lambda _, claim, __: _raised(claim),
    Code.NONZERO_EXIT: lambda exit_, _, __: _exit_code(exit_),
    Code.SIGNAL: lambda exit_, _, __: _signal(exit_),
    Code.TIMEOUT: lambda _, __, limits: f"exceeded its timeout of {limits.wall_s:g} s",
    Code.OUT_OF_MEMORY: _memory,
    Code.FILE_SIZE_LIMIT: lambda _, __, limits: f"a file exceeded the limit of {size_text(limits.file_bytes)}",
    Code.WORKSPACE_LIMIT: lambda exit_, _, limits: _full(exit_, limits),
    Code.INODE_LIMIT: lambda _, __, limits: f"exceeded its limit of {limits.workspace_inodes} files and folders",
    Code.PROCESS_LIMIT: lambda _, __, limits: f"exceeded its limit of {limits.processes} processes and threads",
    Code.LOCK_LIMIT: lambda *_: f"held more than {MAX_LOCKS} file locks at once",
    Code.OUTPUT_LIMIT: lambda _, __, limits: f"wrote more than {size_text(limits.output_bytes)} of output",
    Code.MISSING_OUTPUT_FILES: lambda *_: "the program ended well, but promised files are missing",
    Code.ARTIFACT_VALIDATION_FAILED: lambda *_: "the program ended well, but promised files are not valid",
    Code.PROTOCOL_VIOLATION: lambda *_: "the executor sent bytes that break the protocol",
    Code.CANCELLED: lambda *_: "cancelled before it ended",
    Code.HOST_LOST: lambda *_: "the host died before the run ended",
    Code.SANDBOX_LOST: lambda *_: "the sandbox failed under the program",
}
