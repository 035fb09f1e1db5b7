"""Whole messages over a socket, for the blocking processes inside the jail."""

import os
import socket
from collections.abc import Sequence

from isorun.kernel import fds
from isorun.wire.frames import Frames
from isorun.wire.messages import Message, Started, decode, decode_packet, encode
from isorun.wire.session import Session

_PACKET = 1 << 18
_CHUNK = 1 << 16
#: Encoded here, before any fork: for `encode` a program process would copy a dozen pages of its zygote's.
_STARTED = encode(Started())


class Packets:
    """Messages over a blocking SOCK_SEQPACKET, one a packet, with descriptors beside them."""

    def __init__(self, channel: socket.socket, session: Session) -> None:
        self._channel, self._session = channel, session

    def receive(self) -> tuple[Message, list[int]] | None:
        """One message and its descriptors; None once the peer is gone."""
        data, descriptors, _ = fds.receive(self._channel, _PACKET)
        if not data:
            return None
        message = decode_packet(data)
        self._session.received(message)
        return message, descriptors

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """One message, and descriptors with it."""
        self._session.sent(message)
        socket.send_fds(self._channel, [encode(message)], list(descriptors))


class Stream:
    """Messages over a blocking SOCK_STREAM."""

    def __init__(self, channel: socket.socket, session: Session) -> None:
        self._channel, self._session = channel, session
        self._frames = Frames()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Return once the kernel has all of it; *descriptors* go along and are closed here."""
        self._session.sent(message)
        if not descriptors:
            self._channel.sendall(_STARTED if isinstance(message, Started) else encode(message))
            return
        socket.send_fds(self._channel, [encode(message)], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def receive(self) -> Message | None:
        """The next message; None once the peer has closed its end between two messages."""
        while True:
            frame = self._frames.next()
            if frame is not None:
                message = decode(*frame)
                self._session.received(message)
                return message
            data = self._channel.recv(_CHUNK)
            if not data:
                return None
            self._frames.feed(data)

    def close(self) -> None:
        """Close the socket; the peer sees the end."""
        self._channel.close()
