"""Waiting for a descriptor without a thread, and messages over sockets that carry descriptors."""

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable, Sequence

from isorun.core.share import TURN_FRAMES, TURN_S
from isorun.kernel import fds
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Message, decode, encode
from isorun.wire.session import Session

_PACKET = 1 << 18
_SHORT = 1 << 16  # of a stream: memory for a longer read is the kernel's to map each time, 50 us of it


def is_readable(descriptor: int) -> bool:
    """What `wait_readable` waits for, asked once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def wait_readable(descriptor: int) -> None:
    """Return once *descriptor* can be read, has ended, or (a pidfd) its process is dead. Many may wait for one."""
    loop = asyncio.get_running_loop()
    await _wait(descriptor, loop.add_reader, loop.remove_reader)


async def wait_writable(descriptor: int) -> None:
    """Return once *descriptor* has room. Any number may wait for one, and all of them are woken."""
    loop = asyncio.get_running_loop()
    await _wait(descriptor, loop.add_writer, loop.remove_writer)


async def _wait(descriptor: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    # By a number of our own: a loop knows one reader and one writer of a number, so that of two who wait for the
    # same one the second would take the place of the first, which then waits for ever.
    own = os.dup(descriptor)
    ready = asyncio.get_running_loop().create_future()
    try:
        add(own, _done, ready)
        try:
            await ready
        finally:
            remove(own)
    finally:
        os.close(own)


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class PacketSender:
    """Sends over a non-blocking SOCK_SEQPACKET, which stays its owner's, in the order in which it was asked."""

    def __init__(self, channel: socket.socket, session: Session) -> None:
        self._channel, self._session = channel, session
        self._turn = asyncio.Lock()  # or every packet that the peer reads would wake everybody who waits for room

    async def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """One message, and descriptors with it; return once the kernel has both."""
        self._session.sent(message)
        data = encode(message)
        async with self._turn:
            while True:
                try:
                    socket.send_fds(self._channel, [data], list(descriptors))
                except BlockingIOError:
                    await wait_writable(self._channel.fileno())
                else:
                    return


class Channel:
    """Messages from a non-blocking socket, with the descriptors and the sender's pid of the last read."""

    def __init__(self, channel: socket.socket, session: Session, descriptors: list[int] | None = None) -> None:
        self.socket, self._session = channel, session
        self._frames = Frames()
        self.descriptors = [] if descriptors is None else descriptors  # theirs to close who gave or read it
        self.pid: int | None = None
        self._turn = asyncio.Lock()  # two who send at once would mix their frames, and take each other's place
        self._hearing: _Hearing | None = None

    async def receive(self) -> Message | None:
        """The next message; None once the peer is gone. Raises `ProtocolError`, also if it comes out of turn."""
        while True:
            if (message := self.next()) is not None:
                return message
            try:
                if not self.read():
                    return None
            except BlockingIOError:
                await wait_readable(self.socket.fileno())

    async def hear(self, take: Callable[[Message], object]) -> None:
        """Hand each message of a SOCK_STREAM to *take* as it comes, in order; return once the peer is gone.

        The loop watches the socket from here on: no round of it is spent on waiting for a message. Others have their
        turn between 16 messages. Raises `ProtocolError`, and what *take* raises; then nothing more is taken.
        """
        hearing = self._hearing = _Hearing(self, take)
        try:
            await hearing.ended
        finally:
            hearing.stop()

    def stop(self) -> None:
        """Have `hear` return, before the socket is closed: its number is soon another's, whom the loop would miss."""
        if self._hearing is not None:
            self._hearing.stop()

    def next(self) -> Message | None:
        """The next message of those that were read; None: more has to be read. Raises as `receive` does."""
        frame = self._frames.next()
        if frame is None:
            return None
        message = decode(*frame)
        self._session.received(message)
        return message

    def read(self, size: int = _PACKET) -> int:
        """Read up to *size* bytes; how many, 0 once the peer is gone. Raises `BlockingIOError` if there are none."""
        try:
            data, descriptors, pid = fds.receive(self.socket, size)
        except ConnectionResetError:
            return 0
        if descriptors and not data:
            raise ProtocolError("descriptors without a message")
        self.descriptors.extend(descriptors)
        self.pid = pid or self.pid
        self._frames.feed(data)
        return len(data)

    async def send(self, *messages: Message) -> None:
        """Return once the kernel has all of them (SOCK_STREAM); it gets them together."""
        for message in messages:
            self._session.sent(message)
        data = b"".join(map(encode, messages))
        async with self._turn:
            await asyncio.get_running_loop().sock_sendall(self.socket, data)


class _Hearing:
    """The reader that a loop has of one channel, until `ended`."""

    def __init__(self, channel: Channel, take: Callable[[Message], object]) -> None:
        self._channel, self._take = channel, take
        self._loop = asyncio.get_running_loop()
        self._descriptor = channel.socket.fileno()
        self._size = _SHORT
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._turn: asyncio.Handle | None = self._loop.call_soon(self._again)  # for what `receive` read and left
        self._loop.add_reader(self._descriptor, self._readable)

    def stop(self) -> None:
        """Read no more."""
        if self._turn is not None:
            self._turn.cancel()
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = -1
        if not self.ended.done():
            self.ended.set_exception(error) if error is not None else self.ended.set_result(None)

    def _readable(self) -> None:
        if self._turn is not None:  # what was read is taken before more is
            return
        try:
            count = self._channel.read(self._size)
        except BlockingIOError:
            return
        except Exception as error:  # noqa: BLE001 - it is raised where `hear` is awaited
            self._end(error)
            return
        self._size = _PACKET if count == self._size else _SHORT
        if count:
            self._again()
        else:
            self._end(None)

    def _again(self) -> None:
        """Take messages that were read, until none is left, or others have their turn."""
        self._turn, until = None, time.monotonic() + TURN_S
        frames = 0
        try:
            while not self.ended.done() and (message := self._channel.next()) is not None:
                self._take(message)
                frames += 1
                if frames == TURN_FRAMES or time.monotonic() > until:
                    self._turn = self._loop.call_soon(self._again)
                    return
        except Exception as error:  # noqa: BLE001 - as above
            self._end(error)
