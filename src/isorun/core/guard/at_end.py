"""What is open when the interpreter ends is closed by then.

Theory of operation. At its end the interpreter first shuts the threads of `concurrent.futures` down, and calls `atexit`
functions after that. By then no thread can be started, and closing would wait for ever for what a thread has to do. The
one place before that is where `concurrent.futures` itself is told, and what was registered last is called first there:
hence the import.
"""

import concurrent.futures.thread  # noqa: F401 - it registers itself, before we do
import logging
import threading
from typing import Protocol

_log = logging.getLogger(__name__)


class Closes(Protocol):
    """What can be closed, from any thread; more of it does nothing, and so in a forked child."""

    def close(self) -> None:
        """Close it."""


_open: set[Closes] = set()


def will_close(thing: Closes) -> None:
    """Close *thing* when the interpreter ends, unless `is_closed` said that it is."""
    _open.add(thing)


def is_closed(thing: Closes) -> None:
    """It need not be closed any more."""
    _open.discard(thing)


def _close_all() -> None:
    for thing in tuple(_open):
        try:
            thing.close()
        except Exception:  # noqa: BLE001 - whatever one raises, the others are still to be closed
            _log.exception("%s could not be closed at the interpreter's end", type(thing).__name__)


threading._register_atexit(_close_all)  # type: ignore[attr-defined]  # CPython has it; `concurrent.futures` uses it
