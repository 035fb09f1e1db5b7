"""How the page names things: a tone for each status, sizes, durations and times for people.

The word of a status is the library's, unchanged, so that it can be looked up.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from isorun.core.outcome import Status

Tone = Literal["good", "bad", "warn", "live", "quiet"]

OPEN: Mapping[str, str] = MappingProxyType(
    {"queued": "It waits for its turn.", "running": "It runs. What it prints appears here as it comes."}
)
#: What is said of an ending whose result has no message of its own.
ENDINGS: Mapping[str, tuple[Tone, str]] = MappingProxyType(
    {
        Status.OK: ("good", "It ended well."),
        Status.FAILED: ("bad", "It raised, or ended with an exit code that is not 0."),
        Status.KILLED: ("bad", "A signal ended it."),
        Status.TIMED_OUT: ("warn", "It ran until its time was over. What it printed and wrote is kept."),
        Status.OUT_OF_MEMORY: ("warn", "It wanted more memory than it may have."),
        Status.LIMIT_EXCEEDED: ("warn", "It reached a limit."),
        Status.CONTRACT_FAILED: ("bad", "It ended well and broke its promise."),
        Status.PROTOCOL_VIOLATION: ("bad", "It sent bytes that the host refuses."),
        Status.CANCELLED: ("quiet", "It was stopped. What it printed and wrote is kept."),
        Status.LOST: ("bad", "The host that ran it went away. What it had printed is kept."),
    }
)


def is_open(status: str) -> bool:
    """Whether a run of that status has still to end."""
    return status in OPEN


def tone(status: str) -> Tone:
    """The colour of a status."""
    if is_open(status):
        return "live"
    return ENDINGS[status][0] if status in ENDINGS else "quiet"


def sentence(status: str) -> str:
    """What a status means, for a run that says nothing more exact."""
    if is_open(status):
        return OPEN[status]
    return ENDINGS[status][1] if status in ENDINGS else ""


def size(count: float | None) -> str:
    """A number of bytes, short: `12.3 KB` (1,000 bytes each); "" for None."""
    if count is None:
        return ""
    number = float(count)
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def seconds(duration: float | None) -> str:
    """A duration in seconds, short: `18 ms`, `3.00 s`, `2 min 5 s`; "" for None."""
    if duration is None:
        return ""
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    if duration < 60:
        return f"{duration:.2f} s"
    return f"{int(duration // 60)} min {int(duration % 60)} s"


def moment(time: str | None) -> str:
    """A time of RFC 3339 for people, in UTC; "" for anything else."""
    try:
        return datetime.fromisoformat(time or "").strftime("%-d %b %Y, %H:%M:%S UTC")
    except ValueError:
        return ""
