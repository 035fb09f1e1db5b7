"""A pseudo-terminal of ours for one command: it has one end, we have the other.

We type there, and decide the window's size. The caller's own terminal is another one: a command that sets or asks
something of its terminal does not reach the caller's.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from contextlib import suppress
from types import TracebackType
from typing import Self

END_OF_FILE = b"\x04"  # what a person types for it


class PseudoTerminal:
    """For one `SandboxInstance.exec`, as its *terminal*. Leaving its `with` closes it."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.ours, self.theirs = os.openpty()
        self.resize(rows, columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close_theirs()
        ours, self.ours = self.ours, -1
        if ours >= 0:
            os.close(ours)

    def resize(self, rows: int, columns: int) -> None:
        """The window has this size now; the command is sent SIGWINCH. Does nothing once closed."""
        with suppress(OSError, ValueError):
            fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def pass_on(self) -> None:
        """Their end is a client's, which has a terminal elsewhere: bytes go through as they are."""
        tty.setraw(self.theirs)

    def close_theirs(self) -> None:
        """The command has it now; ours would keep it open for ever."""
        theirs, self.theirs = self.theirs, -1
        if theirs >= 0:
            os.close(theirs)
