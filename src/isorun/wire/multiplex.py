"""Several byte streams over one, none of which can hold up another. Pure: opens nothing, waits for nothing.

Each side has a local end for every channel. What is read from one goes to `push`, what
arrives from the peer to `feed`; `out` is what the peer must be sent, oldest first. A side
sends at most `WINDOW` bytes of a channel that the peer has not delivered to its own
local end yet, so what either holds is bounded, and a channel that nobody reads stops only
itself. The peer is hostile: what it sends beyond that is a `ProtocolError`.
"""

from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Carry, Message, Replaced, Room, Shut, decode, encode

WINDOW = 1 << 18
LEFT = 1 << 20  # what a dead program may have left in its pipes and sockets, and more than the kernel lets it
CHUNK = 1 << 16  # the most that one read of a local end should bring
_FRAME = 1 << 20  # sixteen chunks: what init says of itself is far below
_VALUES = 1 << 14  # in a header: 40 ms to read at most


class _Channel:
    __slots__ = ("ignored", "peer_is_done", "pending", "room", "shut", "unsaid")

    def __init__(self) -> None:
        self.room = WINDOW  # bytes that we may still send
        self.shut = False  # whether we have said that no more come
        self.pending = bytearray()  # arrived, and not yet written to the local end
        self.peer_is_done = False
        self.unsaid = 0  # delivered, and not yet told
        self.ignored = False  # until the peer has replaced it, too


class Multiplexer:
    """One side of a stream that carries *channels*."""

    def __init__(self, channels: tuple[str, ...]) -> None:
        self._channels = {name: _Channel() for name in channels}
        self._frames = Frames(_FRAME)
        self._window = WINDOW
        self.is_behind = False  # whether the last `feed` may have left frames behind
        self.out = bytearray()

    def send(self, message: Message) -> None:
        """A message of the caller's own, behind everything that is to be sent already."""
        self.out += encode(message)

    def widen(self) -> None:
        """Room for `LEFT` bytes more on every channel; both sides add it, the sender never before the receiver.

        A reader who reads nothing then cannot keep a program that is dead from being heard to its end.
        """
        self._window = WINDOW + LEFT
        for channel in self._channels.values():
            channel.room += LEFT

    # From the local ends to the peer

    def wants(self, name: str) -> int:
        """How many bytes of the local end may be read now; 0: leave it alone."""
        channel = self._channels[name]
        return 0 if channel.shut else min(channel.room, CHUNK)

    def push(self, name: str, data: bytes) -> None:
        """What was read from the local end, at most `wants`; empty: it has ended."""
        channel = self._channels[name]
        if channel.shut:
            return
        if not data:
            channel.shut = True
            self.send(Shut(channel=name))
            return
        channel.room -= len(data)
        self.send(Carry(channel=name, data=data))

    # From the peer to the local ends

    def feed(self, data: bytes, most: int | None = None) -> list[Message]:
        """Take what arrived; returns the messages that are the caller's. Raises `ProtocolError`.

        At most *most* frames are handled: if that `is_behind`, feed again, if only nothing.
        """
        self._frames.feed(data)
        others: list[Message] = []
        handled = 0
        self.is_behind = False
        while not self.is_behind and (frame := self._frames.next()) is not None:
            handled += 1
            self.is_behind = handled == most
            message = decode(*frame, _VALUES)
            match message:
                case Carry():
                    self._arrived(message)
                case Room():
                    self._opened(message)
                case Shut():
                    self._known(message.channel).peer_is_done = True
                case Replaced() if self._known(message.channel).ignored:
                    self._known(message.channel).ignored = False
                case _:
                    others.append(message)
        return others

    def _known(self, name: str) -> _Channel:
        if name not in self._channels:
            raise ProtocolError(f"there is no channel {name[:40]!r}")
        return self._channels[name]

    def _arrived(self, message: Carry) -> None:
        channel = self._known(message.channel)
        if channel.peer_is_done:
            raise ProtocolError(f"{message.channel} continues after its end")
        if len(channel.pending) + channel.unsaid + len(message.data) > self._window:
            raise ProtocolError(f"{message.channel} carries more than there is room for")
        channel.pending += message.data
        if channel.ignored:
            self.delivered(message.channel, len(channel.pending))

    def _opened(self, message: Room) -> None:
        channel = self._known(message.channel)
        if not 0 < message.count <= self._window - channel.room:
            raise ProtocolError(f"{message.channel} opens room for {message.count} bytes that were not sent")
        channel.room += message.count

    def waiting(self, name: str) -> bytearray:
        """What is to be written to the local end."""
        return self._channels[name].pending

    def delivered(self, name: str, count: int) -> None:
        """The local end has taken the first *count* bytes of `waiting`."""
        channel = self._channels[name]
        del channel.pending[:count]
        channel.unsaid += count
        # Told in large pieces: each telling is a frame.
        if channel.unsaid >= WINDOW // 4 or (not channel.pending and channel.unsaid >= CHUNK // 4):
            self._tell(name)

    def _tell(self, name: str) -> None:
        channel = self._channels[name]
        if channel.unsaid:
            self.send(Room(channel=name, count=channel.unsaid))
            channel.unsaid = 0

    def is_open(self, name: str) -> bool:
        """Whether the local end may still give something."""
        return not self._channels[name].shut

    def is_over(self, name: str) -> bool:
        """Whether nothing more is to be written to the local end."""
        channel = self._channels[name]
        return channel.peer_is_done and not channel.pending

    def replace(self, name: str, *, ask: bool) -> None:
        """The local end is another one now: what waits for the old one is dropped.

        With *ask* the peer is told to replace its own, and what it sent before it has is dropped, too.
        """
        channel = self._channels[name]
        if channel.pending:
            self.delivered(name, len(channel.pending))
        channel.ignored = ask
        self.send(Replaced(channel=name))
