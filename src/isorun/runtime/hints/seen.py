"""What a hint is made of."""

from collections.abc import Collection
from dataclasses import dataclass, field

from isorun.core.limits import Limits
from isorun.core.outcome import Exit
from isorun.core.sent.claim import Claim

WORK, OUT = "/workspace/work", "/workspace/out"  # out is the program's working directory
MAX_TEXT = 16 << 10  # characters of what a program printed, or says of its exception, that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that is known of a run that has ended.

    *claim*, *trace* (what faulthandler wrote at SIGTERM), *left* (names in /tmp), *stdout* and *stderr* (their ends)
    are the program's word.
    The others are the host's: *turn*, the folder `turn_<id>` of a run with a contract; *given*, the files in work/;
    *tools*, the names of the tools that it could call; *loopback*, whether it had its own; *files*, what was collected
    of out/; *at_limit*, those of *files* that have as many bytes as a file may have.
    """

    claim: Claim | None = None
    trace: str = ""
    stdout: str = ""
    stderr: str = ""
    exit: Exit | None = None
    limits: Limits = field(default_factory=Limits)
    program: str = ""
    turn: str | None = None
    given: Collection[str] = ()
    tools: Collection[str] = ()
    loopback: bool = False
    files: Collection[str] = ()
    left: Collection[str] = ()
    at_limit: Collection[str] = ()
