"""The queue of the supervisor's messages to the host."""

import asyncio
import os
import socket
import threading
from contextlib import suppress

from isorun.wire.messages import Message, RunLog, encode
from isorun.wire.session import Session

_MAX_UNSENT = 4 << 20  # bytes that the host has not read; beyond this log lines are dropped, records never


class Outbox:
    """Messages to the host, sent in order. No method blocks, even if the host is slow to read."""

    def __init__(self, channel: socket.socket, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self._channel, self._session, self._loop = channel, session, loop
        self._unsent = bytearray()
        self._thread = threading.get_ident()

    def put_soon(self, message: Message) -> None:
        """As `put`, from any thread."""
        if threading.get_ident() == self._thread:
            self.put(message)
        else:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self.put, message)

    def put(self, message: Message) -> None:
        """Send *message*, now or when there is room."""
        if isinstance(message, RunLog) and len(self._unsent) > _MAX_UNSENT:
            return
        self._session.sent(message)
        was_empty = not self._unsent
        self._unsent += encode(message)
        if was_empty:
            self._send()
            if self._unsent:
                self._loop.add_writer(self._channel.fileno(), self._flush)

    def _flush(self) -> None:
        self._send()
        if not self._unsent:
            self._loop.remove_writer(self._channel.fileno())

    def _send(self) -> None:
        try:
            del self._unsent[: self._channel.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            os._exit(0)  # the host is gone
