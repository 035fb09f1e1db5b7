"""The host's end of an attached container: four channels of a slot over its stdin and stdout.

To the runtime a slot in a container looks like any other: pipes for what it prints,
sockets for control and tool calls. This module moves the bytes between those and the
container's frames (`wire.multiplex`), without a thread. What arrives is hostile, init's
own messages included; the first thing that breaks the protocol ends the container's word.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from isorun.core.errors import SetupFailed
from isorun.core.share import TURN_FRAMES, Account, Owing, charged
from isorun.executor.container.init import CHANNELS
from isorun.executor.status import SAYS_WHO
from isorun.kernel import fds
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import BuildFailed, Exited, Finish, Finished, Message, Terminate
from isorun.wire.multiplex import CHUNK, Multiplexer
from isorun.wire.session import Session, Side, State
from isorun.wire.unbroken import Mended
from sandbox_runner.docker.attached import AttachedContainer

_M = TypeVar("_M", bound=Message)
_SOCKETS = ("control", "tools")
_SAID = 4096  # of what the container prints for people, kept for an error's text


class Relay:
    """Moves bytes from `start` to `close`. `control` and `tools` are sockets, `stdout` and `stderr` pipes to read."""

    def __init__(
        self, container: AttachedContainer, printed: Callable[[bytes], None], owing: Owing | None = None
    ) -> None:
        self._account = Account(owing or Owing(), time.monotonic())
        self._turn: asyncio.Handle | None = None  # the next one; until then the container's stdout is not read
        self._container, self._printed = container, printed
        self._loop = asyncio.get_running_loop()
        self._streams = Multiplexer(CHANNELS)
        self._session = Session(Side.HOST, Side.INIT, State.BARE)
        self._mended = Mended()
        self._unsent = bytearray()  # of `executor_code`: it goes before every frame
        self._heard: dict[type[Message], Message] = {}
        self._news = asyncio.Event()
        self._is_finishing = False
        self.failure: SetupFailed | None = None  # once it is set, nothing more comes of the container
        self.said = b""
        self._ends: dict[str, int] = {}
        self._watched: dict[int, tuple[bool, bool]] = {}
        self.control, self.tools = self._socket("control"), self._socket("tools")
        self.stdout, self.stderr = self._pipe("stdout"), self._pipe("stderr")

    def _socket(self, name: str) -> socket.socket:
        theirs, ours = socket.socketpair()
        for end in (theirs, ours):
            end.setblocking(False)
        self._ends[name] = ours.detach()
        return theirs

    def _pipe(self, name: str) -> int:
        reader, self._ends[name] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        return reader

    def start(self, code: bytes, *messages: Message) -> None:
        """Send *code*, then *messages*, and begin to listen."""
        container = self._container
        for descriptor in (container.stdin, container.stdout, container.stderr):
            os.set_blocking(descriptor, False)
        self._unsent += code
        for message in messages:
            self.send(message)
        self._loop.add_reader(container.stdout, self._read)
        self._loop.add_reader(container.stderr, self._read_said)
        self._settle()

    def send(self, message: Message) -> None:
        """Send init a message, unless it has had its last word."""
        if Finished in self._heard:
            return
        self._session.sent(message)
        self._streams.send(message)
        self._settle()

    def terminate(self) -> None:
        """SIGTERM to the program, if it is still there."""
        if not self.is_over:
            self.send(Terminate())

    def finish(self) -> None:
        """Have init end everything, and say `Finished`."""
        if not self._is_finishing:
            self._is_finishing = True
            self._streams.widen()
            self.send(Finish())

    @property
    def is_over(self) -> bool:
        """Whether the program has ended, or the container."""
        return self.failure is not None or Exited in self._heard

    def heard(self, kind: type[_M]) -> _M | None:
        """The message of that kind, if it has come."""
        message = self._heard.get(kind)
        return message if isinstance(message, kind) else None

    async def hear(self, kind: type[_M]) -> _M:
        """Wait for init's message of that kind. Raises `SetupFailed` if the container ends before it."""
        while (message := self.heard(kind)) is None:
            if self.failure is not None:
                raise self.failure
            self._news.clear()
            await self._news.wait()
        return message

    async def wait_over(self) -> None:
        """Return once `is_over`."""
        while not self.is_over:
            self._news.clear()
            await self._news.wait()

    async def wait_gone(self) -> None:
        """Return once nothing more can come: the engine has closed the container's streams."""
        while self.failure is None:
            self._news.clear()
            await self._news.wait()

    def stop(self) -> None:
        """Leave the container's streams alone from here on: they are about to be closed."""
        self._fail("it is closed")

    def close(self) -> None:
        """Stop moving bytes and close every end, the slot's too."""
        self.stop()
        for name in tuple(self._ends):
            self._close_end(name)
        for end in (self.control, self.tools):
            end.close()
        for descriptor in (self.stdout, self.stderr):
            os.close(descriptor)

    # The container

    def _read(self) -> None:
        began = time.monotonic()
        try:
            data = os.read(self._container.stdout, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._read_said()
            # What every container says of itself is no reason.
            lines = self.said.decode("utf-8", "replace").strip().splitlines()
            said = [line for line in lines if not line.startswith(SAYS_WHO)]
            self._fail(f"the container ended: {' '.join(said[-3:]) or 'it did not say why'}")
            return
        try:
            self._hear_some(began, self._mended.feed(data))
        except ProtocolError as error:
            self._fail(f"the container broke the protocol: {error}")

    def _hear_some(self, began: float, data: bytes) -> None:
        """Have one turn, and decide when the next one is: what it takes is charged to the container."""
        try:
            for message in self._streams.feed(data, TURN_FRAMES):
                self._session.received(message)
                if isinstance(message, BuildFailed):
                    self._fail(f"{message.step}: {message.reason}")
                    return
                self._heard[type(message)] = message
                self._news.set()
        except ProtocolError as error:
            self._fail(f"the container broke the protocol: {error}")
            return
        if len(self._streams.out) > 2 * _BEHIND:  # what it says is delivered, and it is told so: nothing else grows
            self._fail("the container broke the protocol: it reads nothing")
            return
        self._settle()
        now, behind = time.monotonic(), self._streams.is_behind
        pause_s = 0.0 if self._is_finishing else self._account.spend(now, charged(now - began, 1, is_behind=behind))
        if self.failure is None and (pause_s or behind):
            self._loop.remove_reader(self._container.stdout)
            self._turn = self._loop.call_later(pause_s, self._again) if pause_s else self._loop.call_soon(self._again)

    def _again(self) -> None:
        self._turn = None
        self._loop.add_reader(self._container.stdout, self._read)
        if self._streams.is_behind:
            self._hear_some(time.monotonic(), b"")

    def _read_said(self) -> None:
        try:
            data = os.read(self._container.stderr, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._container.stderr)
            return
        self.said = (self.said + data)[-_SAID:]
        self._printed(data)

    def _write(self) -> None:
        out = self._unsent or self._streams.out
        try:
            while out:
                del out[: os.write(self._container.stdin, out[:CHUNK])]
                out = self._unsent or self._streams.out
        except BlockingIOError:
            pass
        except OSError:  # it reads nothing any more; the end of its stdout says why
            self._unsent.clear()
            self._streams.out.clear()

    def _fail(self, text: str) -> None:
        """Nothing more comes of the container; what came before is still delivered."""
        if self.failure is not None:
            return
        self.failure = SetupFailed("container", text)
        self._account.close()
        if self._turn is not None:
            self._turn.cancel()
        self._watch(self._container.stdin, reads=None, writes=False)
        self._loop.remove_reader(self._container.stdout)
        self._loop.remove_reader(self._container.stderr)
        self._settle()
        self._news.set()

    # The slot's ends

    def _settle(self) -> None:
        """Send what can be sent, and watch exactly those ends that have something to do."""
        for name in tuple(self._ends):
            self._deliver(name)
            if self.failure is not None and name in self._ends and not self._streams.waiting(name):
                self._close_end(name)
        if self.failure is not None:
            for name, descriptor in self._ends.items():
                self._watch(descriptor, reads=None, writes=bool(self._streams.waiting(name)))
            return
        self._write()
        self._watch(self._container.stdin, reads=None, writes=bool(self._unsent or self._streams.out))
        for name, descriptor in self._ends.items():
            reads = name in _SOCKETS and self._streams.wants(name) > 0 and len(self._streams.out) < _BEHIND
            self._watch(descriptor, reads=name if reads else None, writes=bool(self._streams.waiting(name)))

    def _watch(self, descriptor: int, *, reads: str | None, writes: bool) -> None:
        before = self._watched.get(descriptor, (False, False))
        if before[0] != (reads is not None):
            if reads is None:
                self._loop.remove_reader(descriptor)
            else:
                self._loop.add_reader(descriptor, self._take, reads)
        if before[1] != writes:
            if writes:
                self._loop.add_writer(descriptor, self._settle)
            else:
                self._loop.remove_writer(descriptor)
        self._watched[descriptor] = (reads is not None, writes)

    def _deliver(self, name: str) -> None:
        descriptor, streams = self._ends[name], self._streams
        while waiting := streams.waiting(name):
            try:
                streams.delivered(name, os.write(descriptor, waiting[:CHUNK]))
            except BlockingIOError:
                return
            except OSError:  # the runtime listens no more
                streams.delivered(name, len(waiting))
        if streams.is_over(name):
            self._end(name)

    def _end(self, name: str) -> None:
        """The program's end of the channel has ended: so does the slot's."""
        if name in _SOCKETS:
            with suppress(OSError), socket.socket(fileno=os.dup(self._ends[name])) as end:
                end.shutdown(socket.SHUT_WR)
            return
        self._close_end(name)

    def _close_end(self, name: str) -> None:
        self._forget(self._ends[name])
        os.close(self._ends.pop(name))

    def _forget(self, descriptor: int) -> None:
        self._watch(descriptor, reads=None, writes=False)
        del self._watched[descriptor]

    def _take(self, name: str) -> None:
        """From the slot's end of a socket to the container."""
        with socket.socket(fileno=os.dup(self._ends[name])) as end:
            try:
                data, received, _ = fds.receive(end, self._streams.wants(name))
            except BlockingIOError:
                return
            except OSError:
                data, received = b"", []
        if received:
            if data[:-1]:
                self._streams.push(name, data[:-1])
            self._replace(name, received)
        else:
            self._streams.push(name, data)
        self._settle()

    def _replace(self, name: str, received: list[int]) -> None:
        """The supervisor is a new one, and this is its stream, see PROTOCOL.md."""
        self._forget(self._ends[name])
        os.close(self._ends[name])
        self._ends[name], *rest = received
        os.set_blocking(self._ends[name], False)
        for descriptor in rest:
            os.close(descriptor)
        self._streams.replace(name, ask=True)


_BEHIND = 1 << 20  # bytes that the container has not taken: nothing more is read for it until it has
