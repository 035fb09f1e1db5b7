"""The command line's two ways to the person: bytes that are passed on as they come, and signals that end a run.

Knows nothing of sandboxes. Nothing here may keep a time limit from being held: a
reader that stops reading loses what it did not read, and the command goes on.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sandbox_runner.pseudo_terminal import PseudoTerminal
from sandbox_runner.text import plain, plain_line

_DESCRIPTORS = {"stdout": 1, "stderr": 2}
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked this process to end. No `Exception`: nothing between may take it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """In this block the first signal that asks us to end raises `Interrupted`, unless what it yields was called before.

    From then on to the block's end such signals do nothing, so that what cleans up is not interrupted in its turn. A
    signal that was ignored when we were started (`nohup`) stays ignored.
    """
    is_settled = False

    def settle() -> None:
        nonlocal is_settled
        is_settled = True

    def raise_once(number: int, _: FrameType | None) -> None:
        if not is_settled:
            settle()
            raise Interrupted(number)

    heard = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, raise_once) for number in heard}
    try:
        yield settle
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def typed_through(descriptor: int) -> Iterator[PseudoTerminal]:
    """A terminal for a command, of the size of the one at *descriptor*, also when that changes.

    In the block every key there is the command's: Ctrl-C, too, is a byte for it and no signal for us.
    """

    def fit(*_: object) -> None:
        size = os.get_terminal_size(descriptor)
        inner.resize(size.lines, size.columns)

    with PseudoTerminal() as inner:
        fit()
        before = termios.tcgetattr(descriptor)
        heard = signal.signal(signal.SIGWINCH, fit)
        try:
            tty.setraw(descriptor)
            yield inner
        finally:
            signal.signal(signal.SIGWINCH, heard)
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Terminal:
    """Where a command's output is passed on to: our own stdout and stderr."""

    def __init__(self, *, is_shown: bool) -> None:
        self._open = dict(_DESCRIPTORS) if is_shown else {}
        self._until = math.inf

    def limit(self, timeout_s: float | None) -> None:
        """From now on nothing is waited for beyond *timeout_s*."""
        self._until = math.inf if timeout_s is None else time.monotonic() + timeout_s

    def take(self, stream: str, data: bytes) -> None:
        """Pass on *data*; a stream whose reader has gone is left out from then on."""
        descriptor = self._open.get(stream)
        if descriptor is not None and not _pass_on(descriptor, data, self._until):
            del self._open[stream]


def _pass_on(descriptor: int, data: bytes, until: float) -> bool:
    left = memoryview(data)
    while left:
        try:
            # A pipe that can be written takes this much without waiting: else its reader could outlast our time limit.
            wait = None if until == math.inf else max(until - time.monotonic(), 0)
            if not select.select([], [descriptor], [], wait)[1]:
                return False
            left = left[os.write(descriptor, left[: select.PIPE_BUF]) :]
        except BlockingIOError:
            continue
        except OSError:
            return False
    return True


def tell(text: str) -> None:
    """A line of our own, for a person; stdout is the command's."""
    _write(sys.stderr.fileno(), f"sandbox-runner: {plain(text)}\n")


def show(text: str) -> None:
    """The answer of a command of ours."""
    _write(sys.stdout.fileno(), f"{text}\n")


def show_json(value: object) -> None:
    """The answer of a command of ours, for a program."""
    show(json.dumps(value, indent=1))


def _write(descriptor: int, text: str) -> None:
    _pass_on(descriptor, text.encode("utf-8", "replace"), math.inf)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lines with the columns of *rows* below one another."""
    rows = [[plain_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        plain_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for row in rows
    )


def described(error: BaseException) -> dict[str, Any]:
    """*error* for a program."""
    return {"type": type(error).__name__, "message": plain(str(error))}
