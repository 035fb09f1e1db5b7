"""Waiting for a descriptor without a thread, and messages over sockets that carry descriptors."""

import asyncio
import select
import socket
from collections.abc import Sequence

from isorun.kernel import fds
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Message, decode, encode

_PACKET = 1 << 18


def is_readable(descriptor: int) -> bool:
    """What `wait_readable` waits for, asked once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def wait_readable(descriptor: int) -> None:
    """Return once *descriptor* can be read, has ended, or (a pidfd) its process is dead."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(descriptor, _done, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def _wait_writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(descriptor, _done, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def send_packet(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """One message, and descriptors with it, over a non-blocking SOCK_SEQPACKET."""
    data = encode(message)
    while True:
        try:
            socket.send_fds(channel, [data], list(descriptors))
        except BlockingIOError:
            await _wait_writable(channel.fileno())
        else:
            return


class Channel:
    """Messages from a non-blocking socket, with the descriptors and the sender's pid of the last read."""

    def __init__(self, channel: socket.socket, descriptors: list[int] | None = None) -> None:
        self.socket = channel
        self._frames = Frames()
        self.descriptors = [] if descriptors is None else descriptors  # theirs to close who gave or read it
        self.pid: int | None = None

    async def receive(self) -> Message | None:
        """The next message; None once the peer is gone."""
        while True:
            frame = self._frames.next()
            if frame is not None:
                return decode(*frame)
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
        await asyncio.get_running_loop().sock_sendall(self.socket, encode(message))
