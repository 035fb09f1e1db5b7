"""One sentence or a few on what to do about a run that did not end well.

Pure: from values to text. The claim, the trace and the log are the program's and hostile: they are bounded, parsed
strictly, and may only choose among the hints. A hint never changes a status. `runtime.inspection` says what is wrong
with a promised file.
"""

import re
import signal
from collections.abc import Iterable

from isorun.core.limits import KIB
from isorun.core.outcome import Code, Status
from isorun.runtime.hints.caught import last_words
from isorun.runtime.hints.daily import claim_hint, tail_hint, waited_hint
from isorun.runtime.hints.met import limit_hint, met, said
from isorun.runtime.hints.paths import output
from isorun.runtime.hints.seen import Seen

PROGRAM = "/workspace/work/user_code.py"
MAX_TRACE = 128 * KIB  # characters; faulthandler writes 100 frames of at most 1 KB

NO_TRACE = "print progress to see how far it comes, or ask for a longer timeout_s (at most ISORUN_MAX_WALL_S)"
NO_ROOM = "memory of a file was touched that the file does not have: it is too short, or its disk was full (see limits)"

_STACK = re.compile(r"^[^\n]{0,200}\(most recent call first\):$", re.MULTILINE)
_FRAME = re.compile(rf'^  File "{re.escape(PROGRAM)}", line ([0-9]{{1,7}}) in [^\n]{{1,1000}}$', re.MULTILINE)


def hint_for(status: Status, code: Code | None, seen: Seen) -> str:
    """What the author of the program, or the operator, can do; "" if nothing is known."""
    ceilings = tuple(met(seen))
    match status:
        case Status.TIMED_OUT:
            line = last_line(seen.trace)
            last = NO_TRACE if line is None else f"last line executed: {line}"
            return _joined(*ceilings, waited_hint(f"{seen.stdout}\n{seen.stderr}", seen), last)
        case Status.OUT_OF_MEMORY | Status.LIMIT_EXCEEDED:
            full = (*seen.exit.full_bytes, *seen.exit.full_inodes) if seen.exit else ()
            return limit_hint(code, full)
        case Status.FAILED:
            return _joined(*ceilings, *_of_failure(seen, has_met=bool(ceilings)))
        case Status.KILLED:
            bus = seen.exit is not None and seen.exit.signal == signal.SIGBUS
            return _joined(*ceilings) or (NO_ROOM if bus else "")
        case Status.CONTRACT_FAILED:
            printed = f"{seen.stdout}\n{seen.stderr}"
            return _joined(*ceilings, tail_hint(printed, seen) or last_words(seen) or _contract_hint(code, seen))
        case _:
            return ""


def _of_failure(seen: Seen, *, has_met: bool) -> Iterable[str]:
    claim = seen.claim
    claimed = claim_hint(claim, seen) if claim else ""
    if claimed or has_met:  # after a ceiling, an older text of the log would distract from it
        return (claimed,)
    return (said(claim.message if claim else "") or tail_hint(seen.stderr, seen) or said(seen.stderr),)


def _joined(*hints: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, hints)))


def last_line(trace: str) -> int | None:
    """The line of the program that was being executed, from faulthandler's text; None if it is not there.

    The program can write to that file, so a line that is not exactly faulthandler's counts for nothing.
    """
    trace = trace[-MAX_TRACE:]
    starts = [match.end() for match in _STACK.finditer(trace)]
    frame = _FRAME.search(trace, starts[-1]) if starts else None  # the innermost comes first
    return int(frame[1]) if frame else None


def _contract_hint(code: Code | None, seen: Seen) -> str:
    if code is not Code.MISSING_OUTPUT_FILES:
        return ""
    left = f"; left in /tmp, of which nothing comes back: {', '.join(seen.left)}" if seen.left else ""
    return f"write each promised file beneath {output(seen.turn)}{left}"
