"""Moves the bytes between us and one process: its output to who takes it, its input from bytes or a descriptor.

Knows nothing of sandboxes, and ends no process. Its input is asked for only while the process has taken what came
before, so a source that is faster than its reader waits, and takes no memory of ours.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

_READ = 1 << 16


class Stream(Protocol):
    """Takes what a process printed."""

    def take(self, data: bytes) -> None: ...


class Pump:
    """The pipes of one process, ours to read, write and close. *streams*: by descriptor, who takes what comes there.

    *inlet* is where its input goes (None: it has none); *source* the input: bytes, or a descriptor of the caller's,
    which is read and not closed. *at_end* is said at the input's end, before the inlet is closed.
    """

    def __init__(
        self, streams: Mapping[int, Stream], inlet: int | None, source: bytes | int | None, at_end: bytes = b""
    ) -> None:
        self._streams = dict(streams)
        self._inlet, self._at_end = inlet, at_end
        self._source = source if isinstance(source, int) else None
        self._left = memoryview(b"" if source is None or isinstance(source, int) else source)
        if inlet is not None:
            os.set_blocking(inlet, False)
            self._go_on()

    def run(self, until: float) -> bool:
        """Move bytes until nothing more can come or go; False if *until*, monotonic, came first."""
        while self._streams or self._inlet is not None:
            wait = until - time.monotonic()
            if wait <= 0:
                return False
            for descriptor, events in self._waiting().poll(math.ceil(wait * 1000)):
                if descriptor in self._streams:
                    self._read(descriptor)
                elif descriptor == self._inlet:
                    self._write(is_broken=not events & select.POLLOUT)
                elif descriptor == self._source:
                    self._ask()
        return True

    def close(self) -> None:
        """Close what is open still. A second call does nothing."""
        self._close_inlet()
        while self._streams:
            os.close(self._streams.popitem()[0])

    def _waiting(self) -> select.poll:
        found = select.poll()
        for descriptor in self._streams:
            found.register(descriptor, select.POLLIN)
        if self._inlet is not None:
            # Without an event to wait for, the end of who reads there is told all the same.
            found.register(self._inlet, select.POLLOUT if self._left else 0)
            if not self._left and self._source is not None:
                found.register(self._source, select.POLLIN)
        return found

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _READ)
        except BlockingIOError:
            return
        except OSError:  # of a terminal that nobody has open any more: EIO
            data = b""
        self._streams[descriptor].take(data)
        if not data:
            del self._streams[descriptor]
            os.close(descriptor)

    def _write(self, *, is_broken: bool) -> None:
        assert self._inlet is not None
        try:
            if is_broken:
                raise BrokenPipeError
            self._left = self._left[os.write(self._inlet, self._left[:_READ]) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self._close_inlet()
        else:
            self._go_on()

    def _ask(self) -> None:
        assert self._source is not None
        data = b""
        try:
            data = os.read(self._source, _READ)
        except BlockingIOError:
            return
        except OSError:  # a terminal that is gone, or a descriptor that was closed: it is at its end
            pass
        self._left = memoryview(data)
        if not data:
            self._source = None
            self._go_on()

    def _go_on(self) -> None:
        """At the input's end, say so and close the inlet."""
        if not self._left and self._source is None:
            self._left, self._at_end = memoryview(self._at_end), b""
            if not self._left:
                self._close_inlet()

    def _close_inlet(self) -> None:
        inlet, self._inlet = self._inlet, None
        if inlet is not None:
            with suppress(OSError):
                os.close(inlet)
