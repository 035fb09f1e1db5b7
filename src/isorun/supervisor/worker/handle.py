"""The supervisor's handle of one worker process: it is configured, given calls, read, killed.

Bytes from a worker are judged like a stranger's: a frame has a bound before it is read, a message its place in
`wire.session`, a call's output a bound. A worker that breaks one of these loses its call and is killed. It must never
hold up the supervisor's loop: a long answer is decoded in a thread, and many frames are handled in turns.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from isorun.core.share import TURN_FRAMES
from isorun.kernel.readiness import wait_writable
from isorun.supervisor.prints import CALL_CHARS
from isorun.supervisor.worker.failures import TRACEBACK_CHARS
from isorun.supervisor.worker.modes import WorkerKind
from isorun.wire.frames import MOST_FRAME, Frames, ProtocolError
from isorun.wire.messages import Configure, Failed, Message, Output, Result, Work, decode, encode
from isorun.wire.session import Session, Side, State
from isorun.wire.values import is_costly

_READ = 1 << 16
_EXIT_WAIT_S = 0.5  # for a process that has closed its socket to exit
_MAX_OUTPUT_CHARS = CALL_CHARS + TRACEBACK_CHARS + 1  # of one call
_CLOSED, _NO_ANSWER = "closed its connection", "sent bytes that are not an answer"
#: Called with level and text of each piece of a tool's output.
OnOutput = Callable[[str, str], None]


class WorkerLost(Exception):
    """The worker cannot answer its call any more; the text says how it ended."""


class WorkerHandle:
    """A worker of this *kind*. *worker* and *monitor* are our ends of its sockets; *on_end* is called once it is dead.

    `started` is why its namespaces cannot be made, empty if they are. `ended` is done after *on_end* was called.
    """

    def __init__(
        self,
        kind: WorkerKind,
        worker: socket.socket,
        monitor: socket.socket,
        configure: Configure,
        on_end: Callable[["WorkerHandle"], None],
    ) -> None:
        self.kind = kind
        self.calls = 0
        self.is_ending = False
        self._pid = 0
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.socket, self.monitor = worker, monitor
        self._session = Session(Side.SUPERVISOR, Side.WORKER, State.UNCONFIGURED)
        self._on_output: OnOutput = _discard
        self._output_chars = 0
        self._answer: asyncio.Future[Result | Failed] | None = None
        self._partial_line = b""
        self._how_ended = ""
        self.started: asyncio.Future[str] = self._loop.create_future()
        self._dead: asyncio.Future[None] = self._loop.create_future()
        self._stream_end: asyncio.Future[ProtocolError | None] = self._loop.create_future()
        self._frames = Frames(MOST_FRAME)
        self._is_reading = False
        self._decoding: asyncio.Task[None] | None = None
        self._loop.add_reader(monitor.fileno(), self._read_monitor)
        self._set_reading(True)
        self._configured = self._loop.create_task(self._send(configure))
        self.ended = self._loop.create_task(self._wait_ended())

    async def call(self, work: Work, out: int | None, on_output: OnOutput) -> Result | Failed:
        """The answer to *work*. The descriptor *out* goes with it; *on_output* gets its output. Raises `WorkerLost`.

        If this is cancelled, the worker cannot be used again: `kill` it.
        """
        self._on_output, self._output_chars, self._answer = on_output, 0, self._loop.create_future()
        self.calls += 1
        try:
            with suppress(OSError):  # it is dead or dying: `_wait_ended` says how it ended
                await self._configured
                await self._send(work, *([] if out is None else [out]))
            if self.ended.done():
                raise WorkerLost(self._how_ended)
            return await self._answer
        finally:
            self._on_output, self._answer = _discard, None

    async def _send(self, message: Message, *descriptors: int) -> None:
        self._session.sent(message)
        data = encode(message, MOST_FRAME)
        sent = 0
        while descriptors and not sent:
            try:
                sent = socket.send_fds(self.socket, [data], descriptors)
            except BlockingIOError:
                await wait_writable(self.socket.fileno())
        await self._loop.sock_sendall(self.socket, memoryview(data)[sent:])

    def kill(self, reason: str = "") -> None:
        """Have the worker and all that it started killed, soon. *reason*: what it did, if it is to blame."""
        self.is_ending = True
        self._how_ended = self._how_ended or reason
        with suppress(OSError):
            self.monitor.shutdown(socket.SHUT_WR)

    def rss(self) -> int:
        """The worker's resident memory in bytes; 0 if it has none any more."""
        try:
            resident = Path(f"/proc/{self._pid}/statm").read_bytes().split()[1]
        except (OSError, IndexError):
            return 0
        return int(resident) * os.sysconf("SC_PAGESIZE")

    async def _wait_ended(self) -> None:
        """Wait until the worker is dead, and kill it if it only closed its socket or broke the protocol."""
        error = await self._stream_end
        if error is None:
            await asyncio.wait((self._dead,), timeout=_EXIT_WAIT_S)
            if not self._dead.done():
                self.kill(_CLOSED)
        else:
            self._on_output("ERROR", f"{error}\n")
            self.kill(_NO_ANSWER)
        await asyncio.shield(self._dead)
        if not self._configured.cancel() and not self._configured.cancelled():
            self._configured.exception()  # it died before it was configured, and no call has awaited this task
        self.socket.close()
        self.monitor.close()
        self.is_ending = True
        self._how_ended = self._how_ended or "ended by signal 9"
        if not self.started.done():
            self.started.set_result(self._how_ended)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WorkerLost(self._how_ended))
        self._on_end(self)

    def _set_reading(self, wanted: bool) -> None:
        if wanted != self._is_reading:
            self._is_reading = wanted
            number = self.socket.fileno()
            self._loop.add_reader(number, self._read_worker) if wanted else self._loop.remove_reader(number)

    def _read_worker(self) -> None:
        data = b""
        try:
            # No room for ancillary data: the kernel closes descriptors that come along.
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            pass  # it is dead
        if data:
            self._frames.feed(data)
            self._handle_frames()
        else:
            self._stop_reading(None)

    def _stop_reading(self, error: ProtocolError | None) -> None:
        """The worker's stream has ended, or *error* is in it: read no more."""
        self._set_reading(False)
        if not self._stream_end.done():
            self._stream_end.set_result(error)

    def _handle_frames(self) -> None:
        """Handle what has arrived; after `TURN_FRAMES` the rest of the loop has a turn."""
        try:
            for _ in range(TURN_FRAMES):
                if self._stream_end.done() or (frame := self._frames.next()) is None:
                    self._set_reading(not self._stream_end.done())
                    return
                if is_costly(frame[0]):
                    self._set_reading(False)
                    self._decoding = self._loop.create_task(self._decode_in_thread(*frame))
                    return
                self._received(decode(*frame))
        except ProtocolError as error:
            self._stop_reading(error)
        else:
            self._set_reading(False)
            self._loop.call_soon(self._handle_frames)

    async def _decode_in_thread(self, header: bytes, blobs: bytes) -> None:
        """Handle a message that takes long to decode, then go on."""
        try:
            self._received(await asyncio.to_thread(decode, header, blobs))
        except ProtocolError as error:
            self._stop_reading(error)
        else:
            self._handle_frames()

    def _received(self, message: Message) -> None:
        self._session.received(message)
        match message:
            case Output(level=level, text=text):
                self._output_chars += len(text)
                if not text or level not in ("INFO", "ERROR") or self._output_chars > _MAX_OUTPUT_CHARS:
                    raise ProtocolError(f"a call says at most {_MAX_OUTPUT_CHARS} characters, as INFO or ERROR")
                self._on_output(level, text)
            case Result() | Failed() if self._answer is not None and not self._answer.done():
                self._answer.set_result(message)

    def _read_monitor(self) -> None:
        data = b""
        with suppress(OSError):
            data = self.monitor.recv(4096)
        if not data:
            self._loop.remove_reader(self.monitor.fileno())
            self._dead.set_result(None)
            return
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word in ("started", "refused"):
                self._pid = int(rest) if word == "started" else 0
                self.started.set_result(rest if word == "refused" else "")
            else:
                self._how_ended = self._how_ended or (
                    f"ended by signal {rest}" if word == "signal" else f"ended with {word} {rest}"
                )


def _discard(level: str, text: str) -> None:
    """Output while no call is open, which the protocol does not allow, has no reader."""
