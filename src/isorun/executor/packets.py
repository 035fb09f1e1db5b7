"""Whole messages over a socket, for the blocking processes inside the jail."""

import os
import socket
from collections.abc import Sequence

from isorun.kernel import fds
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Message, decode, encode

_PACKET = 1 << 18
_CHUNK = 1 << 16


def receive_packet(channel: socket.socket) -> tuple[Message, list[int]] | None:
    """One message and its descriptors from a SOCK_SEQPACKET; None once the peer is gone."""
    data, descriptors, _ = fds.receive(channel, _PACKET)
    if not data:
        return None
    frames = Frames()
    frames.feed(data)
    frame = frames.next()
    if frame is None:
        raise ProtocolError("a packet that is not one whole frame")
    return decode(*frame), descriptors


def send_packet(channel: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
    """One message, and descriptors with it."""
    socket.send_fds(channel, [encode(message)], list(descriptors))


class Stream:
    """Messages over a blocking SOCK_STREAM."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._frames = Frames()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Return once the kernel has all of it; *descriptors* go along and are closed here."""
        if not descriptors:
            self._channel.sendall(encode(message))
            return
        socket.send_fds(self._channel, [encode(message)], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def receive(self) -> Message | None:
        """The next message; None once the peer has closed its end between two messages."""
        while True:
            frame = self._frames.next()
            if frame is not None:
                return decode(*frame)
            data = self._channel.recv(_CHUNK)
            if not data:
                return None
            self._frames.feed(data)

    def close(self) -> None:
        """Close the socket; the peer sees the end."""
        self._channel.close()
