"""One sentence on what went wrong, and one on what to do about it.

Pure: from values to text. The claim, the trace and the log are the program's and
hostile: they are bounded, parsed strictly, and may only choose among the hints
below. A hint never changes a status. `runtime.inspection` says what is wrong with a promised file.
"""

import errno
import re
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass
from posixpath import basename, normpath

from isorun.core.limits import GIB, KIB, MAX_LOCKS, MIB, Limits
from isorun.core.outcome import Code, Exit, Status
from isorun.core.sent.claim import Claim
from isorun.core.text import one_line

PROGRAM = "/workspace/work/user_code.py"
MAX_TRACE = 128 * KIB  # characters; faulthandler writes 100 frames of at most 1 KB
MAX_TAIL = 16 * KIB
MAX_MESSAGE = 300  # characters of an exception's text

WORK, OUT = "/workspace/work", "/workspace/out"  # out is the program's working directory
NO_NETWORK = "the program has no network: give it what it needs with --input (inputs=)"
NETWORK_TOOLS = ("generic_tools.web_search", "generic_tools.fetch_url_contents")
AWAIT_MAIN = "the program has a top-level await, so a loop is running already: use `await main()`"
NO_SHARED_MEMORY = (
    "shared memory without a file is refused on a host without a control group: use multiprocessing.shared_memory, "
    "a file in /dev/shm, or flags=mmap.MAP_PRIVATE"
)
NO_TRACE = "print progress to see how far it comes, or ask for a longer timeout_s (at most ISORUN_MAX_WALL_S)"

_STACK = re.compile(r"^[^\n]{0,200}\(most recent call first\):$", re.MULTILINE)
_FRAME = re.compile(rf'^  File "{re.escape(PROGRAM)}", line ([0-9]{{1,7}}) in [^\n]{{1,1000}}$', re.MULTILINE)
_NETWORK = re.compile(
    r"Address family (?:for hostname )?not supported|socket\.gaierror|Network is unreachable"
    r"|[Nn]ame resolution|Name or service not known|No address associated with hostname"
    r"|<urlopen error \[Errno (?:-[0-9]{1,2}|97|99|101|111|113)\]"
)
_MODULE = re.compile(r"(?:No module named|Missing optional dependency) '([\w.]{1,100})'")
_NOT_AWAITED = re.compile(r"RuntimeWarning: coroutine '(\w+\.\w+)' was never awaited$", re.MULTILINE)
_MODULE_LINE = re.compile(rf"^(?:ModuleNotFoundError|ImportError): {_MODULE.pattern}", re.MULTILINE)
_SHARED_MEMORY = re.compile(
    r"^    [^\n]{0,200}mmap\(-1\b[^\n]*\n(?:[^\n]*\n){0,2}PermissionError: \[Errno 1\]", re.MULTILINE
)
_READ_ONLY = re.compile(r"\[Errno (?:30|13)\]|Read-only file system")
_NO_FILE = re.compile(r"\[Errno 2\] No such file or directory: '([^'\n]{1,1000})'")
_NO_FILE_LINE = re.compile(rf"^FileNotFoundError: {_NO_FILE.pattern}", re.MULTILINE)
_IN_LOOP = (
    "asyncio.run() cannot be called from a running event loop",
    "This event loop is already running",
    "Cannot run the event loop while another loop is running",
)
_NETWORK_ERRNOS = (errno.EAFNOSUPPORT, errno.ENETUNREACH)

_LIMIT_NAMES = {
    Code.OUT_OF_MEMORY: "ISORUN_MAX_MEMORY_BYTES",
    Code.PROCESS_LIMIT: "ISORUN_MAX_PROCESSES",
    Code.FILE_SIZE_LIMIT: "ISORUN_MAX_FILE_BYTES",
    Code.INODE_LIMIT: "ISORUN_MAX_WORKSPACE_INODES",
    Code.OUTPUT_LIMIT: "ISORUN_MAX_OUTPUT_BYTES",
}
_SIZES = {
    "/workspace": "ISORUN_MAX_WORKSPACE_BYTES",
    "/tmp": "ISORUN_MAX_TMP_BYTES",  # noqa: S108 - a mount point inside, not a file of ours
    "/dev/shm": "ISORUN_MAX_SHM_BYTES",  # noqa: S108 - as above
}


@dataclass(frozen=True, slots=True)
class _Known:
    """What the host itself knows of the run, without the program's word."""

    turn: str | None
    given: Collection[str]
    tools: Collection[str]


def hint_for(
    status: Status,
    code: Code | None,
    claim: Claim | None,
    *,
    contract_turn: str | None,
    last_trace: str | None,
    stderr_tail: str,
    full: tuple[str, ...] = (),
    given: Collection[str] = (),
    tools: Collection[str] = (),
) -> str:
    """What the author of the program, or the operator, can do; "" if nothing is known.

    *contract_turn* is the folder `turn_<id>` of a run with a contract, *last_trace*
    what faulthandler wrote at SIGTERM, *full* the mount points without a free block,
    *given* the files in work/, *tools* the names of the tools that the program could call.
    """
    known = _Known(contract_turn, given, tools)
    match status:
        case Status.TIMED_OUT:
            line = last_line(last_trace or "")
            return NO_TRACE if line is None else f"last line executed: {line}"
        case Status.OUT_OF_MEMORY | Status.LIMIT_EXCEEDED:
            return _limit_hint(code, full)
        case Status.FAILED:
            return _claim_hint(claim, known) or _tail_hint(stderr_tail, known)
        case Status.CONTRACT_FAILED:
            return _tail_hint(stderr_tail, known) or _contract_hint(code, contract_turn)
        case _:
            return ""


def last_line(trace: str) -> int | None:
    """The line of the program that was being executed, from faulthandler's text; None if it is not there.

    The program can write to that file, so a line that is not exactly faulthandler's counts for nothing.
    """
    trace = trace[-MAX_TRACE:]
    starts = [match.end() for match in _STACK.finditer(trace)]
    frame = _FRAME.search(trace, starts[-1]) if starts else None  # the innermost comes first
    return int(frame[1]) if frame else None


def _limit_hint(code: Code | None, full: tuple[str, ...]) -> str:
    if code is Code.WORKSPACE_LIMIT:
        names = [name for place, name in _SIZES.items() if place in full] or list(_SIZES.values())
        return f"write less, or raise {' or '.join(names)}"
    if code is Code.LOCK_LIMIT:
        return "lock whole files, or fewer parts of them, and release each lock that is no longer used"
    name = _LIMIT_NAMES.get(code) if code else None
    return f"use less, or raise {name}" if name else ""


def _claim_hint(claim: Claim | None, known: _Known) -> str:
    if claim is None:
        return ""
    text = claim.message[:MAX_TAIL]
    if claim.type == "RuntimeError" and text.startswith(_IN_LOOP):
        return AWAIT_MAIN
    if claim.type in ("ModuleNotFoundError", "ImportError") and (module := _MODULE.match(text)):
        return _missing_module(module[1])
    if claim.type == "gaierror" or claim.errno in _NETWORK_ERRNOS or _NETWORK.search(text):
        return _no_network(known.tools)
    if claim.type == "FileNotFoundError" and (file := _NO_FILE.match(text)):
        return _given_elsewhere(file[1], known.given)
    if claim.errno in (errno.EROFS, errno.EACCES):
        return _read_only(known.turn)
    if claim.errno == errno.EMFILE:
        return "close what is no longer used, or raise ISORUN_MAX_OPEN_FILES"
    return ""


def forgotten_awaits(stderr: str) -> tuple[str, ...]:
    """What to say of tools that were called and not awaited; Python warns of each on stderr."""
    found = dict.fromkeys(_NOT_AWAITED.findall(stderr[-MAX_TAIL:]))
    return tuple(f"{tool} was called without await, so nothing was done: write `await {tool}(...)`" for tool in found)


def _tail_hint(stderr_tail: str, known: _Known) -> str:
    """For a program that caught the error and went on, or left it to a child."""
    text = stderr_tail[-MAX_TAIL:]
    if _NETWORK.search(text):
        return _no_network(known.tools)
    if (file := _NO_FILE_LINE.search(text)) and (hint := _given_elsewhere(file[1], known.given)):
        return hint
    if module := _MODULE_LINE.search(text):
        return _missing_module(module[1])
    if any(f"RuntimeError: {loop}" in text for loop in _IN_LOOP):
        return AWAIT_MAIN
    if _SHARED_MEMORY.search(text):
        return NO_SHARED_MEMORY
    if _READ_ONLY.search(text):
        return _read_only(known.turn)
    return next(iter(forgotten_awaits(text)), "")


def _no_network(tools: Collection[str]) -> str:
    offered = [name for name in NETWORK_TOOLS if name in tools]
    return f"the program has no network: use {' and '.join(offered)} instead" if offered else NO_NETWORK


def _given_elsewhere(missing: str, given: Collection[str]) -> str:
    """For a file that is in work/ and was looked for elsewhere; only a name of ours is shown."""
    path = normpath(missing).removeprefix(f"{OUT}/")
    found = path if path in given else next((name for name in given if basename(name) == basename(path)), None)
    if found is None or path == f"{WORK}/{found}":
        return ""
    return f"{one_line(found)} is at {WORK}/{one_line(found)}; the working directory is {OUT}"


def _missing_module(name: str) -> str:
    return (
        f"the module {name} is missing: the program's packages are those of the Python shown by "
        "`isorun doctor`, set with --python"
    )


def _read_only(turn: str | None) -> str:
    return f"that path is not writable: write to {_output(turn)} or /tmp"


def _output(turn: str | None) -> str:
    return f"OUTPUT_DIR/{one_line(turn)}/files" if turn else "OUTPUT_DIR"


def _contract_hint(code: Code | None, turn: str | None) -> str:
    if code is Code.MISSING_OUTPUT_FILES:
        return f"write each promised file beneath {_output(turn)}"
    return ""


def message_for(status: Status, code: Code | None, exit_: Exit | None, claim: Claim | None, limits: Limits) -> str:
    """What happened, in one sentence; "" for a run that is ok. *limits* are those of this very run."""
    if code is None:
        return "" if status is Status.OK else f"the run ended as {status}"
    return _MESSAGES[code](exit_, claim, limits)


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
    sizes = zip(_SIZES, (limits.workspace_bytes, limits.tmp_bytes, limits.shm_bytes), strict=True)
    full = (*exit_.full_bytes, *exit_.full_inodes) if exit_ else ()
    named = [f"{place} ({size_text(size)})" for place, size in sizes if place in full]
    return f"no space left in {' and '.join(named) or '/workspace, /tmp or /dev/shm'}"


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
