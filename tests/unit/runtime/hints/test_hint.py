"""SPEC A9: the daily errors, each with its exact hint; and each ending with its exact message."""

import errno
import signal
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.core.limits import Limits
from isorun.core.outcome import CODES_OF, Code, Exit, Status
from isorun.core.sent.claim import Claim
from isorun.runtime.hints.daily import NO_SHARED_MEMORY
from isorun.runtime.hints.hint import MAX_TRACE, hint_for, last_line
from isorun.runtime.hints.message import message_for, size_text
from isorun.runtime.hints.seen import Seen

NO_NETWORK = "the program has no network: give it what it needs with --input (inputs=)"
AWAIT = "the program has a top-level await, so a loop is running already: use `await main()`"
TRACE = (
    "Stack (most recent call first):\n"
    '  File "/usr/lib/python3.11/json/decoder.py", line 353 in raw_decode\n'
    '  File "/workspace/work/user_code.py", line 12 in f\n'
    '  File "/workspace/work/user_code.py", line 40 in <module>\n'
)


def _missing(name: str) -> str:
    return f"the module {name} is missing, and nothing can be installed during a run: use what is there"


def _hint(status=Status.FAILED, code=Code.PROGRAM_ERROR, claim=None, turn=None, trace="", tail="", full=()) -> str:
    ended = Exit(code=1, full_bytes=full)
    return hint_for(status, code, Seen(claim=claim, turn=turn, trace=trace, stderr=tail, exit=ended))


@pytest.mark.parametrize(
    ("claim", "hint"),
    [
        (Claim(type="OSError", errno=errno.EAFNOSUPPORT), NO_NETWORK),
        (Claim(type="gaierror", message="[Errno -3] Temporary failure in name resolution"), NO_NETWORK),
        (
            Claim(type="ConnectError", message="[Errno 97] Address family not supported by protocol"),
            NO_NETWORK,
        ),
        (Claim(type="URLError", message="<urlopen error [Errno -2] Name or service not known>"), NO_NETWORK),
        (Claim(type="URLError", message="<urlopen error [Errno 97] anything>"), NO_NETWORK),
        (Claim(type="URLError", message="<urlopen error unknown url type: gopher>"), ""),
        (Claim(type="ModuleNotFoundError", message="No module named 'polars'"), _missing("polars")),
        (
            Claim(type="ModuleNotFoundError", message="No module named 'a.b'; 'a' is not a package"),
            _missing("a.b"),
        ),
        (
            Claim(type="ImportError", message="Missing optional dependency 'lxml'.  Use pip."),
            _missing("lxml"),
        ),
        (Claim(type="ModuleNotFoundError", message="No module named '\x1b[2J'"), ""),
        (Claim(type="OSError", errno=errno.EROFS), "that path is not writable: write to OUTPUT_DIR or /tmp"),
        (
            Claim(type="PermissionError", errno=errno.EACCES),
            "that path is not writable: write to OUTPUT_DIR or /tmp",
        ),
        (
            Claim(type="RuntimeError", message="asyncio.run() cannot be called from a running event loop"),
            AWAIT,
        ),
        (Claim(type="RuntimeError", message="This event loop is already running"), AWAIT),
        (Claim(type="ValueError", message="asyncio.run() cannot be called from a running event loop"), ""),
        (Claim(type="ValueError", message="bad"), ""),
        (None, ""),
    ],
)
def test_an_exception_has_its_hint(claim, hint) -> None:
    """What the program raised chooses the hint; an error that explains itself has none."""
    assert _hint(claim=claim) == hint


@pytest.mark.parametrize(
    ("tail", "hint"),
    [
        (
            "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>\n",
            NO_NETWORK,
        ),
        ("socket.gaierror: [Errno -2] x\n", NO_NETWORK),
        ("ModuleNotFoundError: No module named 'polars'\n", _missing("polars")),
        ("RuntimeError: asyncio.run() cannot be called from a running event loop\n", AWAIT),
        (
            "OSError: [Errno 30] Read-only file system: '/x'\n",
            "that path is not writable: write to OUTPUT_DIR or /tmp",
        ),
        (
            "Traceback (most recent call last):\n"
            '  File "/workspace/work/user_code.py", line 2, in <module>\n'
            "    shared = mmap.mmap(-1, 1 << 20)\n"
            "             ^^^^^^^^^^^^^^^^^^^^^^\n"
            "PermissionError: [Errno 1] Operation not permitted\n",
            NO_SHARED_MEMORY,
        ),
        (
            "    mmap.mmap(-1, 1 << 20)\nOSError: [Errno 12] Cannot allocate memory\n",
            "use less, or raise ISORUN_MAX_MEMORY_BYTES",
        ),
        ("PermissionError: [Errno 1] Operation not permitted\n", ""),
        ("bye\n", ""),
    ],
)
def test_a_child_that_failed_gives_the_hint_by_its_text(tail, hint) -> None:
    """A program that exits non-zero without an exception is explained by the end of stderr."""
    assert _hint(code=Code.NONZERO_EXIT, tail=tail) == hint


def test_the_claim_is_asked_before_the_log() -> None:
    """An old message in the log does not hide what ended the program."""
    claim = Claim(type="ModuleNotFoundError", message="No module named 'polars'")
    assert _hint(claim=claim, tail="socket.gaierror: handled\n") == _missing("polars")


def test_a_read_only_path_names_the_turns_folder_under_contract() -> None:
    """With a contract the place for its files is known."""
    claim = Claim(type="OSError", errno=errno.EROFS)
    assert _hint(claim=claim, turn="turn_1") == "that path is not writable: write to OUTPUT_DIR/turn_1/files or /tmp"


def test_a_broken_contract_is_explained() -> None:
    """By what went wrong if the log says it, else by where promised files belong."""
    broken = (Status.CONTRACT_FAILED, Code.MISSING_OUTPUT_FILES)
    assert _hint(*broken, turn="turn_1") == "write each promised file beneath OUTPUT_DIR/turn_1/files"
    assert _hint(*broken, turn="turn_1", tail="[Errno 97] Address family not supported") == NO_NETWORK
    assert _hint(Status.CONTRACT_FAILED, Code.ARTIFACT_VALIDATION_FAILED, turn="turn_1") == ""


def test_a_timeout_says_the_last_line() -> None:
    """Of the program, not of the library it was in; without a trace it says what helps."""
    timeout = (Status.TIMED_OUT, Code.TIMEOUT)
    assert _hint(*timeout, trace=TRACE) == "last line executed: 12"
    without = "print progress to see how far it comes, or ask for a longer timeout_s (at most ISORUN_MAX_WALL_S)"
    assert _hint(*timeout) == without
    assert _hint(*timeout, trace="\x1b[2J line 12") == without


FRAME = '  File "/workspace/work/user_code.py", line 12 in f\n'


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        (TRACE, 12),
        ("Current thread 0x00007f (most recent call first):\n" + FRAME, 12),
        (TRACE.replace("12", "7") + TRACE, 12),
        (FRAME, None),
        (TRACE.replace("  File", " File"), None),
        (TRACE.replace("work/user_code", "out/user_code"), None),
        (TRACE.replace("user_code.py", "user_codeXpy"), None),
        (TRACE.replace("line 12", "line 99999999").replace("line 40", "line -1"), None),
        (TRACE.replace("line 12", "line ١٢").replace("line 40", "line 4_0"), None),
        (TRACE + "x" * MAX_TRACE, None),
        ("", None),
    ],
)
def test_the_trace_is_parsed_strictly(trace, line) -> None:
    """The last dump counts, and in it the innermost frame of the program; what only looks alike does not."""
    assert last_line(trace) == line


@pytest.mark.parametrize(
    ("status", "code", "full", "hint"),
    [
        (Status.OUT_OF_MEMORY, Code.OUT_OF_MEMORY, (), "use less, or raise ISORUN_MAX_MEMORY_BYTES"),
        (Status.LIMIT_EXCEEDED, Code.PROCESS_LIMIT, (), "use less, or raise ISORUN_MAX_PROCESSES"),
        (
            Status.LIMIT_EXCEEDED,
            Code.LOCK_LIMIT,
            (),
            "lock whole files, or fewer parts of them, and release each lock that is no longer used",
        ),
        (Status.LIMIT_EXCEEDED, Code.FILE_SIZE_LIMIT, (), "use less, or raise ISORUN_MAX_FILE_BYTES"),
        (Status.LIMIT_EXCEEDED, Code.INODE_LIMIT, (), "use less, or raise ISORUN_MAX_WORKSPACE_INODES"),
        (Status.LIMIT_EXCEEDED, Code.OUTPUT_LIMIT, (), "use less, or raise ISORUN_MAX_OUTPUT_BYTES"),
        (
            Status.LIMIT_EXCEEDED,
            Code.WORKSPACE_LIMIT,
            ("/workspace",),
            "write less, or raise ISORUN_MAX_WORKSPACE_BYTES",
        ),
        (Status.LIMIT_EXCEEDED, Code.WORKSPACE_LIMIT, ("/tmp",), "write less, or raise ISORUN_MAX_TMP_BYTES"),
        (
            Status.LIMIT_EXCEEDED,
            Code.WORKSPACE_LIMIT,
            (),
            "write less, or raise ISORUN_MAX_WORKSPACE_BYTES or ISORUN_MAX_TMP_BYTES or ISORUN_MAX_SHM_BYTES",
        ),
    ],
)
def test_a_limit_names_the_setting_that_raises_it(status, code, full, hint) -> None:
    """Each limit has its ISORUN_MAX_ name, and that name is a setting."""
    assert _hint(status, code, full=full) == hint
    settings = {f"ISORUN_MAX_{field.name.upper()}" for field in fields(Limits)}
    assert {word for word in hint.split() if word.startswith("ISORUN_")} <= settings


def test_a_run_that_is_ok_gets_no_hint() -> None:
    """An error in the log of a run that ended well is not advice on the run."""
    assert _hint(Status.OK, None, tail="socket.gaierror: handled\n") == ""


ENDED = Exit(code=1)


@pytest.mark.parametrize(
    ("code", "exit_", "claim", "message"),
    [
        (
            Code.PROGRAM_ERROR,
            ENDED,
            Claim(type="ValueError", message="bad"),
            "the program raised ValueError: bad",
        ),
        (Code.PROGRAM_ERROR, ENDED, Claim(type="KeyError"), "the program raised KeyError"),
        (
            Code.PROGRAM_ERROR,
            ENDED,
            Claim(type="E\x1b", message="a\n  b\x1b"),
            "the program raised E\\x1b: a b\\x1b",
        ),
        (
            Code.PROGRAM_ERROR,
            ENDED,
            Claim(type="E", message="x" * 9999),
            f"the program raised E: {'x' * 299}…",
        ),
        (Code.NONZERO_EXIT, Exit(code=3), None, "exit code 3"),
        (Code.SIGNAL, Exit(signal=signal.SIGSEGV), None, "ended by signal 11 (SIGSEGV)"),
        (Code.SIGNAL, Exit(signal=40), None, "ended by signal 40"),
        (Code.TIMEOUT, Exit(signal=9), None, "exceeded its timeout of 3 s"),
        (Code.OUT_OF_MEMORY, Exit(signal=9), None, "killed for exceeding its memory limit of 1 GiB"),
        (
            Code.OUT_OF_MEMORY,
            ENDED,
            Claim(type="MemoryError"),
            "the program raised MemoryError (its memory limit is 1 GiB)",
        ),
        (Code.FILE_SIZE_LIMIT, ENDED, None, "a file exceeded the limit of 100 MiB"),
        (Code.WORKSPACE_LIMIT, Exit(code=1, full_bytes=("/tmp",)), None, "no space left in /tmp (128 MiB)"),
        (
            Code.WORKSPACE_LIMIT,
            Exit(code=1, full_bytes=("/workspace", "/workspace")),
            None,
            "no space left in /workspace (256 MiB)",
        ),
        (Code.WORKSPACE_LIMIT, ENDED, None, "no space left in /workspace, /tmp or /dev/shm"),
        (Code.INODE_LIMIT, ENDED, None, "exceeded its limit of 10000 files and folders"),
        (Code.PROCESS_LIMIT, ENDED, None, "exceeded its limit of 128 processes and threads"),
        (Code.LOCK_LIMIT, ENDED, None, "held more than 4096 file locks at once"),
        (Code.OUTPUT_LIMIT, None, None, "wrote more than 128 MiB of output"),
        (Code.MISSING_OUTPUT_FILES, None, None, "the program ended well, but promised files are missing"),
        (
            Code.ARTIFACT_VALIDATION_FAILED,
            None,
            None,
            "the program ended well, but promised files are not valid",
        ),
        (Code.PROTOCOL_VIOLATION, None, None, "the executor sent bytes that break the protocol"),
        (Code.CANCELLED, None, None, "cancelled before it ended"),
        (Code.HOST_LOST, None, None, "the host died before the run ended"),
        (Code.SANDBOX_LOST, None, None, "the sandbox failed under the program"),
    ],
)
def test_an_ending_has_its_message(code, exit_, claim, message) -> None:
    """One sentence, on one line, printable."""
    status = next(status for status, codes in CODES_OF.items() if code in codes)
    assert message_for(status, code, exit_, claim, Limits(wall_s=3)) == message


def test_a_run_that_is_ok_has_no_message() -> None:
    """There is nothing to say."""
    assert message_for(Status.OK, None, Exit(code=0), None, Limits()) == ""


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_message_without_facts(code) -> None:
    """The table is total, and a missing exit or claim breaks none of it."""
    status = next(status for status, codes in CODES_OF.items() if code in codes)
    assert message_for(status, code, None, None, Limits())


@pytest.mark.parametrize(("size", "text"), [(512, "512 bytes"), (1536, "1.5 KiB"), (2**30, "1 GiB")])
def test_a_size_is_shown_in_its_unit(size, text) -> None:
    """For people."""
    assert size_text(size) == text


@given(st.sampled_from(list(Status)), st.none() | st.sampled_from(list(Code)), st.text(), st.text(), st.text())
def test_no_text_of_a_program_makes_a_hint_raise(status, code, kind, message, trace) -> None:
    """A hint is one line whatever the program claims, prints or writes."""
    claim = Claim(type=kind, message=message)
    assert "\n" not in _hint(status, code, claim, trace=trace, tail=trace)


_ELSEWHERE = "data.csv is at /workspace/work/data.csv; the working directory is /workspace/out"


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("data.csv", _ELSEWHERE),
        ("./data.csv", _ELSEWHERE),
        ("/workspace/out/data.csv", _ELSEWHERE),
        ("/mnt/data.csv", _ELSEWHERE),
        ("tables/a.csv", "tables/a.csv is at /workspace/work/tables/a.csv; the working directory is /workspace/out"),
        ("DATA.csv", _ELSEWHERE),
        ("other.csv", "no such file is there; the given files, in /workspace/work: data.csv, tables/a.csv"),
    ],
)
def test_an_input_looked_for_elsewhere_is_pointed_to(missing: str, hint: str) -> None:
    """A file that is in work/ and was opened in out/ is named with its place; another is not."""
    text = f"[Errno 2] No such file or directory: {missing!r}"
    claim = Claim(type="FileNotFoundError", message=text, errno=errno.ENOENT)
    given = ("main.py", "user_code.py", "data.csv", "tables/a.csv")
    failed = (Status.FAILED, Code.PROGRAM_ERROR)
    assert hint_for(*failed, Seen(claim=claim, given=given)) == hint
    assert hint_for(*failed, Seen(stderr=f"FileNotFoundError: {text}\n", given=given)) == hint


def test_without_network_the_tools_that_are_offered_are_named() -> None:
    """A tool that the program does not have is not recommended to it."""
    claim = Claim(type="OSError", errno=errno.ENETUNREACH)
    names = ("generic_tools.fetch_url_contents", "generic_tools.web_search", "mine.other")
    told = {
        tools: hint_for(Status.FAILED, Code.PROGRAM_ERROR, Seen(claim=claim, tools=tools))
        for tools in (names, names[:1], names[2:])
    }
    assert told == {
        names: "the program has no network: use generic_tools.web_search and generic_tools.fetch_url_contents instead",
        names[:1]: "the program has no network: use generic_tools.fetch_url_contents instead",
        names[2:]: NO_NETWORK,
    }


LOST = "the program has no network: give it what it needs with --input (inputs=); last line executed: 12"
PIPS = "ERROR: No matching distribution found for humanize\n"
LAST = "last line executed: 12"
MEMORY = (
    "2 process(es) of the run were killed for memory (1 GiB for all together): use less in each, or "
    "fewer of them, or raise ISORUN_MAX_MEMORY_BYTES"
)
SHM = "/dev/shm (128 MiB) is full: write less, or raise ISORUN_MAX_SHM_BYTES"
BIG = "a.npy: a file takes at most 100 MiB: write less into one, or raise ISORUN_MAX_FILE_BYTES"
FORKS = "3 fork(s) or thread(s) were refused: start fewer (at most 128 at once), or raise ISORUN_MAX_PROCESSES"
INODES = "/workspace can hold no more files and folders: make fewer, or raise ISORUN_MAX_WORKSPACE_INODES"


@pytest.mark.parametrize(
    ("status", "seen", "hint"),
    [
        (Status.TIMED_OUT, Seen(exit=Exit(signal=9, oom_kills=2), trace=TRACE), f"{MEMORY}; {LAST}"),
        (Status.FAILED, Seen(exit=Exit(code=1, oom_kills=2), claim=Claim(type="BrokenProcessPool")), MEMORY),
        (Status.KILLED, Seen(exit=Exit(signal=signal.SIGBUS, full_bytes=("/dev/shm",))), SHM),
        (Status.KILLED, Seen(exit=Exit(signal=signal.SIGABRT, full_bytes=("/dev/shm",))), SHM),
        (Status.FAILED, Seen(exit=Exit(code=1, full_bytes=("/dev/shm",)), claim=Claim(type="ValueError")), SHM),
        (Status.FAILED, Seen(exit=Exit(code=1, full_inodes=("/workspace",)), claim=Claim(type="ValueError")), INODES),
        (Status.FAILED, Seen(exit=Exit(code=1), at_limit=("a.npy",), claim=Claim(type="OSError", message="…")), BIG),
        (Status.TIMED_OUT, Seen(exit=Exit(signal=9, process_limit_hits=3), trace=TRACE), f"{FORKS}; {LAST}"),
        (Status.CONTRACT_FAILED, Seen(exit=Exit(code=0, full_bytes=("/dev/shm",))), SHM),
    ],
)
def test_a_ceiling_that_was_met_is_told_first(status, seen, hint) -> None:
    """By fact, whatever exception, signal or timeout followed it."""
    assert hint_for(status, Code.ARTIFACT_VALIDATION_FAILED, seen) == hint


def test_a_bus_error_with_room_on_every_disk_is_explained() -> None:
    """A mapped file was too short."""
    told = hint_for(Status.KILLED, Code.SIGNAL, Seen(exit=Exit(signal=signal.SIGBUS)))
    assert told.startswith("memory of a file was touched that the file does not have")


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("database or disk is full", "ISORUN_MAX_WORKSPACE_BYTES"),
        ("Could not pickle: [Errno 28] No space left on device", "ISORUN_MAX_TMP_BYTES"),
        ("15000000 requested and 13107184 written", "ISORUN_MAX_FILE_BYTES"),
        ("Unable to allocate 7.28 TiB for an array", "ISORUN_MAX_MEMORY_BYTES"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes", "ISORUN_MAX_MEMORY_BYTES"),
    ],
)
def test_a_library_that_names_a_ceiling_in_its_own_words_is_understood(message, name) -> None:
    """Where no fact is left at the end: the file was removed, the memory given back."""
    assert name in _hint(claim=Claim(type="LibraryError", message=message))


def test_a_timeout_says_what_cannot_succeed() -> None:
    """An installer or a client that tries again until its time is up shows so on stderr."""
    timeout = (Status.TIMED_OUT, Code.TIMEOUT)
    assert _hint(*timeout, trace=TRACE, tail="socket.gaierror: [Errno -2] x\n") == LOST
    assert _hint(*timeout, trace=TRACE, tail=PIPS).startswith("nothing can be installed during a run")
    assert _hint(*timeout, trace=TRACE, tail=PIPS).endswith(LAST)


def test_a_broken_contract_is_explained_by_what_was_caught_and_printed() -> None:
    """The daily `except Exception as error: print(error)` goes to stdout."""
    seen = Seen(stdout="Error: [Errno 2] No such file or directory: '/app/x.csv'\n", turn="turn_1")
    told = hint_for(Status.CONTRACT_FAILED, Code.MISSING_OUTPUT_FILES, seen)
    assert told.startswith("that path is not in the sandbox")
