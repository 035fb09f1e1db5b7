"""How a run ended: the table of DESIGN 6, row by row."""

import errno
import signal

import pytest

from isorun.core.outcome import CODES_OF, Code, Exit, Status, Stop, classify, cli_exit_code
from isorun.core.sent.claim import Claim

RAISED = Claim(type="ValueError", message="no", line=3)
OOM = Claim(type="MemoryError")


def _full(number: int, source: str = "") -> Claim:
    return Claim(type="OSError", errno=number, source=source)


@pytest.mark.parametrize(
    ("exit_", "claim", "status", "code"),
    [
        (Exit(code=0), None, Status.OK, None),
        (Exit(code=1), RAISED, Status.FAILED, Code.PROGRAM_ERROR),
        (Exit(code=3), None, Status.FAILED, Code.NONZERO_EXIT),
        (Exit(signal=signal.SIGSEGV), None, Status.KILLED, Code.SIGNAL),
        (Exit(signal=signal.SIGKILL), None, Status.KILLED, Code.SIGNAL),
        (Exit(signal=signal.SIGKILL, oom_kills=1), None, Status.OUT_OF_MEMORY, Code.OUT_OF_MEMORY),
        (Exit(code=1), OOM, Status.OUT_OF_MEMORY, Code.OUT_OF_MEMORY),
        (Exit(signal=signal.SIGXFSZ), None, Status.LIMIT_EXCEEDED, Code.FILE_SIZE_LIMIT),
        (Exit(code=1), _full(errno.EFBIG), Status.LIMIT_EXCEEDED, Code.FILE_SIZE_LIMIT),
        (Exit(code=1), _full(errno.ENOSPC), Status.LIMIT_EXCEEDED, Code.WORKSPACE_LIMIT),
        (
            Exit(code=1, full_bytes=("/workspace",)),
            _full(errno.ENOSPC),
            Status.LIMIT_EXCEEDED,
            Code.WORKSPACE_LIMIT,
        ),
        (
            Exit(code=1, full_inodes=("/workspace",)),
            _full(errno.ENOSPC),
            Status.LIMIT_EXCEEDED,
            Code.INODE_LIMIT,
        ),
        (Exit(code=1, process_limit_hits=2), _full(errno.EAGAIN), Status.LIMIT_EXCEEDED, Code.PROCESS_LIMIT),
        (Exit(code=1), _full(errno.EAGAIN, "child = os.fork()"), Status.LIMIT_EXCEEDED, Code.PROCESS_LIMIT),
        (Exit(code=1), _full(errno.EAGAIN, "self.pid = _fork_exec("), Status.LIMIT_EXCEEDED, Code.PROCESS_LIMIT),
        (Exit(code=1), _full(errno.EAGAIN, "os.posix_spawn(p, [], {})"), Status.LIMIT_EXCEEDED, Code.PROCESS_LIMIT),
        (Exit(code=1), _full(errno.EAGAIN, "os.read(reader, 1)"), Status.FAILED, Code.PROGRAM_ERROR),
        (Exit(code=1), _full(errno.EAGAIN), Status.FAILED, Code.PROGRAM_ERROR),
        (Exit(code=1), _full(errno.EACCES, "os.fork()"), Status.FAILED, Code.PROGRAM_ERROR),
        (
            Exit(code=1),
            Claim(type="RuntimeError", message="can't start new thread"),
            Status.LIMIT_EXCEEDED,
            Code.PROCESS_LIMIT,
        ),
        (
            Exit(code=1, process_limit_hits=0),
            Claim(type="RuntimeError", message="can't start new thread"),
            Status.FAILED,
            Code.PROGRAM_ERROR,
        ),
        (Exit(code=1, process_limit_hits=0), _full(errno.EAGAIN, "os.fork()"), Status.FAILED, Code.PROGRAM_ERROR),
        (
            Exit(code=1, process_limit_hits=1),
            Claim(type="RuntimeError", message="can't start new thread"),
            Status.LIMIT_EXCEEDED,
            Code.PROCESS_LIMIT,
        ),
        (Exit(code=1, process_limit_hits=0), _full(errno.EAGAIN), Status.FAILED, Code.PROGRAM_ERROR),
    ],
)
def test_each_ending_of_a_program_has_its_word(
    exit_: Exit, claim: Claim | None, status: Status, code: Code | None
) -> None:
    """Exit code, signal, OOM kill, limit and exception are told apart by what the kernel said."""
    assert classify(exit_, None, claim) == (status, code)


@pytest.mark.parametrize("claim", [None, RAISED, OOM, _full(errno.ENOSPC), _full(errno.EAGAIN, "os.fork()")])
def test_exit_zero_is_success_whatever_else_happened(claim: Claim | None) -> None:
    """A child's OOM, a full disk and a hostile claim do not turn exit 0 into a failure."""
    coped = Exit(code=0, oom_kills=3, full_bytes=("/tmp",), process_limit_hits=9)
    assert classify(coped, None, claim) == (Status.OK, None)


@pytest.mark.parametrize("exit_", [Exit(code=1), Exit(signal=11), Exit(code=255)])
@pytest.mark.parametrize("type_", ["SystemExit", "ok", "", "Success"])
def test_no_claim_makes_a_failure_a_success(exit_: Exit, type_: str) -> None:
    """What the program says about itself cannot say that it ended well."""
    assert classify(exit_, None, Claim(type=type_, errno=0))[0] in (Status.FAILED, Status.KILLED)


@pytest.mark.parametrize("exit_", [Exit(code=0), Exit(code=1), Exit(signal=9, oom_kills=1), Exit(signal=15)])
@pytest.mark.parametrize(
    ("stop", "status", "code"),
    [
        (Stop.DEADLINE, Status.TIMED_OUT, Code.TIMEOUT),
        (Stop.CANCELLED, Status.CANCELLED, Code.CANCELLED),
        (Stop.OUTPUT, Status.LIMIT_EXCEEDED, Code.OUTPUT_LIMIT),
        (Stop.VIOLATION, Status.PROTOCOL_VIOLATION, Code.PROTOCOL_VIOLATION),
    ],
)
def test_a_reason_of_ours_comes_before_the_exit(stop: Stop, status: Status, code: Code, exit_: Exit) -> None:
    """A program that exits 0 on our SIGTERM has still timed out, and our kill is not its OOM."""
    assert classify(exit_, stop, None) == (status, code)


def test_every_stop_has_an_ending_of_its_own() -> None:
    """The table is total, and each pair it can give is one that `CODES_OF` allows."""
    pairs = [classify(Exit(code=0), stop, None) for stop in Stop]
    assert len(set(pairs)) == len(Stop)
    assert all(code in CODES_OF[status] for status, code in pairs)


def test_every_status_lists_its_codes_and_each_code_belongs_to_one() -> None:
    """DESIGN's table is total: no status without a row, no code without or with two statuses."""
    assert set(CODES_OF) == set(Status)
    listed = [code for codes in CODES_OF.values() for code in codes]
    assert sorted(listed) == sorted(Code)
    assert CODES_OF[Status.OK] == ()


@pytest.mark.parametrize(
    ("status", "exit_", "code"),
    [
        (Status.OK, Exit(code=0), 0),
        (Status.FAILED, Exit(code=3), 3),
        (Status.FAILED, Exit(code=1), 1),
        (Status.FAILED, None, 1),
        (Status.KILLED, Exit(signal=11), 139),
        (Status.KILLED, Exit(signal=9), 137),
        (Status.TIMED_OUT, Exit(signal=9), 124),
        (Status.OUT_OF_MEMORY, Exit(signal=9), 137),
        (Status.LIMIT_EXCEEDED, Exit(code=1), 5),
        (Status.CONTRACT_FAILED, Exit(code=0), 3),
        (Status.PROTOCOL_VIOLATION, Exit(code=0), 6),
        (Status.CANCELLED, Exit(signal=15), 130),
        (Status.LOST, None, 70),
    ],
)
def test_design6_the_cli_exit_follows_the_table(status: Status, exit_: Exit | None, code: int) -> None:
    """`isorun run` ends with the program's own code, or with the word's."""
    assert cli_exit_code(status, exit_) == code


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
@pytest.mark.parametrize("exit_", [None, Exit(code=0), Exit(code=7), Exit(signal=9)])
def test_only_ok_exits_zero(status: Status, exit_: Exit | None) -> None:
    """A script that tests the exit code never takes another ending for success."""
    assert cli_exit_code(status, exit_) != 0


@pytest.mark.parametrize("given", [{}, {"code": 0, "signal": 9}])
def test_an_exit_is_a_code_or_a_signal(given: dict[str, int]) -> None:
    """A dead program has one of the two; neither and both are our bug."""
    with pytest.raises(ValueError, match=r"^exactly one of code and signal must be set$"):
        Exit(**given)
