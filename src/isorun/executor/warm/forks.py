"""fork(2) for a process with one thread, without what Python does around it where that changes nothing.

`os.fork` calls every function that was registered for forks. Those of the standard library make locks anew that
another thread may have held, and forget other threads. Here are no others, and that work copies 200 pages into each
slot. `Forks` finds out whether only those are registered. What a preload registered is called, by `os.fork`, and what
C libraries registered (pthread_atfork) is called in any case.
"""

import asyncio
import ctypes
import os
import posix
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

#: Whose functions change nothing in the child of a process with one thread, no running loop and no lock held, but for
#: random's, which draws a seed: a slot does that itself (`slot.reseed`).
_HARMLESS = frozenset({"asyncio.events", "concurrent.futures.thread", "logging", "random", "threading"})
#: For which this was looked up: what PyOS_AfterFork_Child does in C beside calling them is about other threads as well.
_KNOWN = ((3, 11), (3, 12), (3, 13))
# With the interpreter's lock held, as everything here: PyDLL does not release it around the call.
_fork = ctypes.PyDLL(None, use_errno=True).fork
_fork.argtypes, _fork.restype = (), ctypes.c_int


class Forks:
    """Forks of this process. Make it, and let preloads be imported in `watched`, before the first one."""

    def __init__(self) -> None:
        self._registered: set[str] = set()  # names of modules
        self._is_plain: bool | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take note of who registers a function for forks meanwhile."""
        real = os.register_at_fork

        @wraps(real)
        def register_at_fork(**functions: Any) -> None:  # noqa: ANN401 - os.register_at_fork's own
            self._registered.add(sys._getframe(1).f_globals.get("__name__", ""))
            real(**functions)

        _put(register_at_fork)
        try:
            yield
        finally:
            _put(real)

    def fork(self) -> int:
        """As `os.fork`. The child has to seed `random` itself."""
        if self._is_plain is None:
            self._is_plain = self.is_plain()
        if not self._is_plain:
            return os.fork()
        pid: int = _fork()
        if pid < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return pid

    def is_plain(self) -> bool:
        """Whether nothing is to be put right in a child of this process."""
        return (
            sys.implementation.name == "cpython"
            and sys.version_info[:2] in _KNOWN
            and self._registered <= _HARMLESS
            and threading.active_count() == len(sys._current_frames()) == 1
            and vars(asyncio.events)["_event_loop_policy"] is None
        )


def _put(function: object) -> None:
    for module in (os, posix):
        vars(module)["register_at_fork"] = function
