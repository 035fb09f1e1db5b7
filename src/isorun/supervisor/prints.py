"""What tools print and log, told apart by call, on its way to the run's infra.log.

A context variable says whose call it is; tasks and the threads that tools run in carry
it. What a tool's own threads, C code or child processes print has no call: it goes to
this process's own stderr, which the host reads.
"""

import io
import logging
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

_LINE_CHARS = 2000
CALL_CHARS = 64 << 10  # of one call; a tool that floods its own stdout fills no disk


class CallOutput:
    """The lines of one call; *tell* gets each, bounded in all."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = ""
        self._left = CALL_CHARS

    def write(self, text: str) -> None:
        """Take printed text; whole lines go out."""
        if self._left <= 0:
            return
        *lines, self._rest = (self._rest + text[: self._left]).split("\n")
        self._left -= len(text)
        for line in lines:
            self._tell(line[:_LINE_CHARS])
        self._rest = self._rest[:_LINE_CHARS]
        if self._left <= 0:
            self.close()
            self._tell(f"… cut: it printed more than {CALL_CHARS >> 10} KiB")

    def close(self) -> None:
        """The call is over: a line without its end goes out too."""
        if self._rest:
            self._tell(self._rest[:_LINE_CHARS])
            self._rest = ""


class Printed(Protocol):
    """Where the text of one call goes."""

    def write(self, text: str) -> None:
        """Take printed text."""


current: ContextVar[Printed | None] = ContextVar("isorun_call", default=None)


class _Stream(io.TextIOBase):
    """In the place of sys.stdout and sys.stderr."""

    def write(self, text: str) -> int:
        output = current.get()
        if output is None:
            os.write(2, text.encode("utf-8", "replace"))
        else:
            output.write(text)
        return len(text)

    def writable(self) -> bool:
        return True


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        output = current.get()
        try:
            line = f"{record.levelname} {record.name} {self.format(record)}\n"
        except Exception:  # noqa: BLE001 - arguments that do not fit their text are no reason for a tool to fail
            self.handleError(record)
            return
        if output is None:
            os.write(2, line.encode("utf-8", "replace"))
        else:
            output.write(line)


def redirect() -> None:
    """From now on, everything that Python code prints or logs in this process goes by call."""
    sys.stdout = sys.stderr = _Stream()
    logging.basicConfig(handlers=[_Handler()], level=logging.INFO, format="%(message)s", force=True)
