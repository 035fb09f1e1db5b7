"""Who may say what, and when. The tables are the protocol; read them first. No I/O, no locks.

A run has two conversations. On the control stream host and slot build the slot, store its files and
start the program. On the tool stream the program makes calls, many at once, and the supervisor
answers each by its id, in any order. A `Session` is one side's view of one conversation: tell it
of every message, in the order in which they cross the stream.

The build stream (host to template and zygote) has no table: each request stands alone, and
`PROTOCOL.md` says who may send it.
"""

from enum import Enum

from isorun.wire.frames import ProtocolError
from isorun.wire.messages import (
    Attached,
    Call,
    Ended,
    Go,
    Joined,
    Log,
    Message,
    Put,
    Ready,
    Refused,
    Reply,
    SetupError,
    Started,
    Stored,
    StoreError,
)


class Side(Enum):
    """An end of a stream: `HOST` and `SLOT` talk on the control stream, the others on the tool stream."""

    HOST = "host"
    SLOT = "slot"
    PROGRAM = "program"
    SUPERVISOR = "supervisor"


class State(Enum):
    """How far a conversation is. Each stream has its own."""

    OPEN = "open"  # tool stream
    ENDED = "ended"
    NEW = "new"  # control stream
    JOINED = "joined"
    ATTACHED = "attached"
    READY = "ready"
    STARTING = "starting"
    CLOSED = "closed"


Table = dict[State, dict[tuple[Side, type[Message]], State]]

LEGAL: Table = {
    State.OPEN: {
        (Side.PROGRAM, Call): State.OPEN,
        (Side.PROGRAM, Log): State.OPEN,
        (Side.PROGRAM, Ended): State.ENDED,
        (Side.SUPERVISOR, Reply): State.OPEN,
        (Side.SUPERVISOR, Refused): State.OPEN,
    },
    State.ENDED: {  # calls in flight are still answered: the supervisor cannot know that nobody listens
        (Side.SUPERVISOR, Reply): State.ENDED,
        (Side.SUPERVISOR, Refused): State.ENDED,
    },
}

LEGAL_CONTROL: Table = {
    State.NEW: {
        (Side.SLOT, Joined): State.JOINED,
        (Side.SLOT, SetupError): State.CLOSED,
    },
    State.JOINED: {(Side.HOST, Attached): State.ATTACHED},
    State.ATTACHED: {
        (Side.SLOT, Ready): State.READY,
        (Side.SLOT, SetupError): State.CLOSED,
    },
    State.READY: {
        (Side.HOST, Put): State.READY,
        (Side.SLOT, Stored): State.READY,
        (Side.SLOT, StoreError): State.CLOSED,
        (Side.HOST, Go): State.STARTING,
    },
    State.STARTING: {  # the host may send Go right behind its last Put and save a round trip
        (Side.SLOT, Stored): State.STARTING,
        (Side.SLOT, StoreError): State.CLOSED,
        (Side.SLOT, SetupError): State.CLOSED,
        (Side.SLOT, Started): State.CLOSED,
    },
    State.CLOSED: {},
}


class Session:
    """One side's view of one conversation; *us* says which side, and by that which stream."""

    __slots__ = ("_in_flight", "_legal", "_them", "_unstored", "_us", "state")

    def __init__(self, us: Side) -> None:
        on_control = us in (Side.HOST, Side.SLOT)
        pair = (Side.HOST, Side.SLOT) if on_control else (Side.PROGRAM, Side.SUPERVISOR)
        self._us = us
        self._them = pair[0] if us is pair[1] else pair[1]
        self._legal = LEGAL_CONTROL if on_control else LEGAL
        self.state = State.NEW if on_control else State.OPEN
        self._in_flight: set[int] = set()
        self._unstored = 0

    def sent(self, message: Message) -> None:
        """An illegal message of ours is our bug (`RuntimeError`), and is not blamed on the peer."""
        self._advance(self._us, message, RuntimeError)

    def received(self, message: Message) -> None:
        """An illegal message of the peer's is a `ProtocolError`; the state stays as it was."""
        self._advance(self._them, message, ProtocolError)

    def _advance(self, side: Side, message: Message, error: type[Exception]) -> None:
        kind = type(message)
        after = self._legal[self.state].get((side, kind))
        if after is None:
            raise error(f"{side.value} may not send {kind.__name__} when {self.state.value}")
        if wrong := self._account(message):
            raise error(wrong)
        self.state = after

    def _account(self, message: Message) -> str | None:
        """Count what the tables cannot: ids in flight, and puts not yet acknowledged."""
        match message:
            case Call(id=number):
                if number in self._in_flight:
                    return f"call {number} is already in flight"
                self._in_flight.add(number)
            case Reply(id=number) | Refused(id=number):
                if number not in self._in_flight:
                    return f"no call {number} is in flight"
                self._in_flight.remove(number)
            case Put():
                self._unstored += 1
            case Stored(count=count):
                if not 1 <= count <= self._unstored:
                    return f"{count} puts acknowledged, {self._unstored} outstanding"
                self._unstored -= count
            case StoreError() if not self._unstored:
                return "a put failed, none outstanding"
            case Started() if self._unstored:
                return f"started with {self._unstored} puts outstanding"
        return None
