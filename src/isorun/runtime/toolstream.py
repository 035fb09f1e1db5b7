"""The host's end of a run's tool stream. Every byte is hostile.

There is no supervisor yet: a call is answered with `ToolUnavailable`. What the
loader says of an exception and of log records is taken as a claim, bounded, and
decides nothing that the exit does not.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from isorun.core.outcome import Claim
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Call, Ended, Log, Message, Refused, decode, encode
from isorun.wire.session import Session, Side

_READ = 1 << 16
_LOG_RECORDS = 10_000
_LOG_CHARS = 4 << 20  # of all records together: one may be as long as a frame, and all go to the host's disk
_RECORD_CHARS = 8192
_UNANSWERED_BYTES = 1 << 20  # answers the program does not read are not kept beyond this


class ToolStream:
    """Reads calls and claims, and answers. `on_violation` is called once, with the reason."""

    def __init__(
        self,
        channel: socket.socket,
        max_frame: int,
        on_log: Callable[[str, str, str], None],
        on_call: Callable[[Call, Refused], None],
        on_violation: Callable[[str], None],
    ) -> None:
        self._channel = channel
        self._frames = Frames(max_frame)
        self._session = Session(Side.SUPERVISOR)
        self._on_log, self._on_call, self._on_violation = on_log, on_call, on_violation
        self._records = self._log_chars = 0
        self._pending = bytearray()
        self.claim: Claim | None = None
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            # No room for ancillary data: descriptors that come along are closed by the kernel.
            data = self._channel.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
            while self._open and (frame := self._frames.next()) is not None:
                message = decode(*frame)
                self._session.received(message)
                self._handle(message)
        except ProtocolError as error:
            self.close()
            self._on_violation(str(error))

    def _handle(self, message: Message) -> None:
        match message:
            case Ended():
                self.claim = Claim(
                    type=message.type[:200],
                    message=message.message[:4096],
                    errno=message.errno,
                    line=message.line,
                    source=message.source[:200],
                )
            case Log():
                self._log(message)
            case Call():
                self._refuse(message)
            case _:
                raise ProtocolError(f"a program does not send {type(message).__name__}")

    def _log(self, record: Log) -> None:
        text = record.text[:_RECORD_CHARS]
        self._records += 1
        self._log_chars += len(text)
        if self._records <= _LOG_RECORDS and self._log_chars <= _LOG_CHARS:
            # The level stands before the component in a line: with a bracket in it, it would forge one.
            level = record.level[:20] if record.level.isalnum() else "INFO"
            self._on_log(level, record.name[:200], text)

    def _refuse(self, call: Call) -> None:
        answer = Refused(id=call.id, error="ToolUnavailable", text="no tools are configured for this run")
        self._session.sent(answer)
        self._on_call(call, answer)
        self._pending += encode(answer)
        if len(self._pending) > _UNANSWERED_BYTES:
            raise ProtocolError("the program calls tools and does not read the answers")
        self._flush()

    def _flush(self) -> None:
        self._loop.remove_writer(self._channel.fileno())
        try:
            sent = self._channel.send(self._pending)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._pending[:sent]
        if self._pending:
            self._loop.add_writer(self._channel.fileno(), self._flush)

    def drain(self) -> None:
        """Take what was sent before the program died."""
        while self._open:
            try:
                data = self._channel.recv(_READ)
            except OSError:
                data = b""
            if not data:
                self.close()
            else:
                self._take(data)

    def close(self) -> None:
        """Stop listening; the socket stays its owner's."""
        if self._open:
            self._open = False
            with suppress(OSError, ValueError):
                self._loop.remove_reader(self._channel.fileno())
                self._loop.remove_writer(self._channel.fileno())
