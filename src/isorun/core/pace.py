"""The pace of long work in a thread beside an event loop: a turn of work, then a rest of several, while others wait.

A thread that works without a rest takes the interpreter each time the loop lets go of it, at every call of the system;
another run, which makes a hundred such calls, would wait a hundred turns. Who works in pieces calls `rest` between
them. In a thread that is not paced it does nothing.
"""

import threading
import time
from collections.abc import Callable

from isorun.core.share import SHARE, TURN_S

_FREE_S = 0.01  # of the processor: what takes no longer has no rest
_here = threading.local()


def pace_this_thread(are_others: Callable[[], bool]) -> None:
    """From now on `rest` rests in this thread, while *are_others* says that somebody waits for the interpreter."""
    _here.pace = _Pace(are_others)


def rest() -> None:
    """Rest if this thread is paced, and its turn is over."""
    pace: _Pace | None = getattr(_here, "pace", None)
    if pace is not None:
        pace.rest()


class _Pace:
    def __init__(self, are_others: Callable[[], bool]) -> None:
        self._are_others = are_others
        self._credit, self._at, self._worked = _FREE_S, time.monotonic(), time.thread_time()

    def rest(self) -> None:
        worked = time.thread_time()
        if worked - self._worked < TURN_S:
            return
        now = time.monotonic()
        self._credit = min(_FREE_S, self._credit + (now - self._at) * SHARE) - (worked - self._worked)
        self._at, self._worked = now, worked
        if self._credit < 0:
            if self._are_others():
                time.sleep(-self._credit / SHARE)
            else:
                self._credit = 0.0
