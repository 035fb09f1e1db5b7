"""Waiting for a descriptor without a thread, and messages over sockets that carry descriptors."""

import asyncio
import os
import select
import socket
from collections.abc import Callable, Sequence

from isorun.kernel import fds
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Message, decode, encode
from isorun.wire.session import Session

_PACKET = 1 << 18


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

    async def receive(self) -> Message | None:
        """The next message; None once the peer is gone. Raises `ProtocolError`, also if it comes out of turn."""
        while True:
            frame = self._frames.next()
            if frame is not None:
                message = decode(*frame)
                self._session.received(message)
                return message
            try:
                data, descriptors, pid = fds.receive(self.socket, _PACKET)
            except BlockingIOError:
                await wait_readable(self.socket.fileno())
                continue
            except ConnectionResetError:
                return None
            if not data:
                if descriptors:
                    raise ProtocolError("descriptors without a message")
                return None
            self.descriptors.extend(descriptors)
            self.pid = pid or self.pid
            self._frames.feed(data)

    async def send(self, message: Message) -> None:
        """Return once the kernel has all of it (SOCK_STREAM)."""
        self._session.sent(message)
        data = encode(message)
        async with self._turn:
            await asyncio.get_running_loop().sock_sendall(self.socket, data)
