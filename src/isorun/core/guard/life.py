"""From when to when, and where, an object that holds processes and threads may be used.

Such an object does not survive a fork: its threads are not in the child, its sockets and locks are shared with the
parent. So the process that opened it is remembered, and no other process uses or closes it.
"""

import os
import threading
from enum import Enum

from isorun.core.errors import Misused


class _State(Enum):
    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class Life:
    """The life of one object. *name* and *remedy* are for errors: what it is, and how it is opened."""

    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy
        self._state = _State.NEW
        self._pid = 0
        self._lock = threading.Lock()

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was opened in another process, of which this one is a fork."""
        return self._pid not in (0, os.getpid())

    def begin(self) -> None:
        """The opening begins. Raises `Misused` unless it is the first, or the one before it failed."""
        self.check_here()  # first: in a fork the lock may be held by a thread that is not there
        with self._lock:
            if self._state is _State.CLOSED:
                raise Misused(f"this {self._name} is closed; open a new one")
            if self._state is not _State.NEW:
                raise Misused(f"this {self._name} is open already")
            self._state, self._pid = _State.OPENING, os.getpid()

    def opened(self) -> None:
        """It may be used from here on."""
        self._state = _State.OPEN

    def failed(self) -> None:
        """The opening failed, and left nothing: it may be tried again."""
        self._state, self._pid = _State.NEW, 0

    def end(self) -> bool:
        """Whether the caller is to close it now: once, and in the process that opened it."""
        if self.is_elsewhere:
            return False
        with self._lock:
            is_mine = self._state is _State.OPEN
            if is_mine:
                self._state = _State.CLOSED
            return is_mine

    def check(self) -> None:
        """Raises `Misused` unless it is open, and in this process."""
        self.check_begun()
        if self._state is _State.CLOSED:
            raise Misused(f"this {self._name} is closed; open a new one")

    def check_begun(self) -> None:
        """Raises `Misused` before it is open; what it still knows may be asked when it is closed."""
        self.check_here()
        if self._state in (_State.NEW, _State.OPENING):
            raise Misused(f"this {self._name} is not open: {self._remedy}")

    def check_here(self) -> None:
        """Raises `Misused` in a process that did not open it."""
        if self.is_elsewhere:
            raise Misused(f"this {self._name} was opened in another process; open one here")
