"""Who may say what, and when. The tables are the protocol; read them first. No I/O, no locks.

There is a table for each of the six streams of `PROTOCOL.md`. A `Session` is one side's view of one socket:
tell it of every message, in the order in which they cross. `kernel.readiness`, `executor.packets`, the relay,
the init of a container and the supervisor do so for all that they send and read.
"""

from enum import Enum

from isorun.wire.frames import ProtocolError
from isorun.wire.messages import (
    Attached,
    BuildFailed,
    BuildInit,
    Call,
    CallAnswered,
    CallGivenUp,
    CallHeld,
    CallRefused,
    CloseRun,
    Configure,
    Ended,
    Exited,
    Failed,
    Finish,
    Finished,
    ForkProgram,
    FreeRun,
    Go,
    HoldRun,
    InitReady,
    Joined,
    Journal,
    Loaded,
    LoadFailed,
    Log,
    Look,
    MakeStream,
    Message,
    OpenRun,
    Output,
    Place,
    Placed,
    Prepare,
    Put,
    Ready,
    Refused,
    Reply,
    Result,
    RunClaim,
    RunClosed,
    RunHeld,
    RunLog,
    RunViolated,
    Sealed,
    Serve,
    SetupError,
    Started,
    StoreError,
    StreamMade,
    Terminate,
    Until,
    Warmed,
    Work,
)


class Side(Enum):
    """An end of a stream."""

    HOST = "host"
    SLOT = "slot"
    TEMPLATE = "template"
    ZYGOTE = "zygote"
    INIT = "init"
    PROGRAM = "program"
    SUPERVISOR = "supervisor"
    WORKER = "worker"


class State(Enum):
    """How far a conversation is; each stream has its own, but for the last."""

    NEW = "new"  # control
    JOINED = "joined"
    ATTACHED = "attached"
    READY = "ready"
    STARTING = "starting"
    BUILDING = "building"  # build
    COLD = "cold"
    WARM = "warm"
    ASKED = "asked"
    OPEN = "open"  # tool
    ENDED = "ended"
    UNTOLD = "untold"  # supervisor
    LOADING = "loading"
    LOADED = "loaded"
    SERVING = "serving"
    UNCONFIGURED = "unconfigured"  # worker
    IDLE = "idle"
    WORKING = "working"
    BARE = "bare"  # attached
    PREPARING = "preparing"
    WARMED = "warmed"
    LOOKED = "looked at"
    SEALED = "sealed"
    FINISHING = "finishing"
    CLOSED = "closed"


Table = dict[State, dict[tuple[Side, type[Message]], State]]

CONTROL: Table = {  # the slot is built, its files are stored, the program starts
    State.NEW: {
        (Side.SLOT, Joined): State.JOINED,
        (Side.SLOT, SetupError): State.CLOSED,
    },
    State.JOINED: {(Side.HOST, Attached): State.ATTACHED},
    State.ATTACHED: {  # where a container begins
        (Side.SLOT, Ready): State.READY,
        (Side.SLOT, SetupError): State.CLOSED,
    },
    State.READY: {
        (Side.HOST, Put): State.READY,
        (Side.SLOT, StoreError): State.CLOSED,
        (Side.HOST, Go): State.STARTING,
    },
    State.STARTING: {  # the host may send Go right behind its last Put and save a round trip
        (Side.SLOT, StoreError): State.CLOSED,
        (Side.SLOT, SetupError): State.CLOSED,
        (Side.SLOT, Started): State.CLOSED,
    },
}

BUILD: Table = {
    State.BUILDING: {(Side.HOST, BuildInit): State.BUILDING},  # the template's socket
    State.COLD: {(Side.ZYGOTE, Warmed): State.WARM},  # the zygote's
    State.WARM: {
        (Side.HOST, ForkProgram): State.WARM,
        (Side.HOST, MakeStream): State.WARM,
        (Side.ZYGOTE, Exited): State.WARM,
        (Side.ZYGOTE, BuildFailed): State.WARM,
    },
    State.ASKED: {  # the one that travels beside BuildInit or MakeStream
        (Side.TEMPLATE, InitReady): State.CLOSED,
        (Side.TEMPLATE, BuildFailed): State.CLOSED,
        (Side.ZYGOTE, StreamMade): State.CLOSED,
    },
}

TOOL: Table = {  # calls overlap, and are answered by their ids in any order
    State.OPEN: {
        (Side.PROGRAM, Call): State.OPEN,
        (Side.PROGRAM, Log): State.OPEN,
        (Side.PROGRAM, Ended): State.ENDED,
        (Side.SUPERVISOR, Reply): State.OPEN,
        (Side.SUPERVISOR, Refused): State.OPEN,
    },
    State.ENDED: {  # calls in flight are still answered: the supervisor cannot know whether they are waited for
        (Side.SUPERVISOR, Reply): State.ENDED,
        (Side.SUPERVISOR, Refused): State.ENDED,
    },
}

SUPERVISOR: Table = {
    State.UNTOLD: {(Side.HOST, Serve): State.CLOSED},  # the stdin of one in a container
    State.LOADING: {
        (Side.SUPERVISOR, Loaded): State.LOADED,
        (Side.SUPERVISOR, LoadFailed): State.CLOSED,
    },
    State.LOADED: {  # the host knows the tools now, and says where each runs
        (Side.HOST, Place): State.LOADED,
        (Side.SUPERVISOR, Placed): State.SERVING,
    },
    State.SERVING: {  # all runs of a bundle at once: a message names its run
        (Side.HOST, OpenRun): State.SERVING,
        (Side.HOST, CloseRun): State.SERVING,
        (Side.HOST, CallAnswered): State.SERVING,
        (Side.HOST, CallRefused): State.SERVING,
        (Side.SUPERVISOR, CallHeld): State.SERVING,
        (Side.SUPERVISOR, CallGivenUp): State.SERVING,
        (Side.HOST, HoldRun): State.SERVING,
        (Side.HOST, FreeRun): State.SERVING,
        (Side.SUPERVISOR, Journal): State.SERVING,
        (Side.SUPERVISOR, RunLog): State.SERVING,
        (Side.SUPERVISOR, RunClaim): State.SERVING,
        (Side.SUPERVISOR, RunViolated): State.SERVING,
        (Side.SUPERVISOR, RunHeld): State.SERVING,
        (Side.SUPERVISOR, RunClosed): State.SERVING,
    },
}

WORKER: Table = {  # one call at a time
    State.UNCONFIGURED: {(Side.SUPERVISOR, Configure): State.IDLE},
    State.IDLE: {(Side.SUPERVISOR, Work): State.WORKING},
    State.WORKING: {
        (Side.WORKER, Output): State.WORKING,
        (Side.WORKER, Result): State.IDLE,
        (Side.WORKER, Failed): State.IDLE,
    },
}

ATTACHED: Table = {  # beside what `multiplex` handles in every state
    State.BARE: {(Side.HOST, Prepare): State.PREPARING},
    State.PREPARING: {
        (Side.INIT, Warmed): State.WARMED,
        (Side.INIT, BuildFailed): State.CLOSED,
    },
    State.WARMED: {  # from here on the program's process may end
        (Side.HOST, Look): State.LOOKED,
        (Side.INIT, BuildFailed): State.CLOSED,
        (Side.INIT, Exited): State.WARMED,
    },
    State.LOOKED: {
        (Side.INIT, Sealed): State.SEALED,
        (Side.INIT, Exited): State.LOOKED,
    },
    State.SEALED: {
        (Side.HOST, Until): State.SEALED,
        (Side.HOST, Terminate): State.SEALED,
        (Side.HOST, Finish): State.FINISHING,
        (Side.INIT, Exited): State.FINISHING,  # it ends the others without being told
    },
    State.FINISHING: {
        (Side.HOST, Finish): State.FINISHING,
        (Side.HOST, Until): State.FINISHING,
        (Side.HOST, Terminate): State.FINISHING,
        (Side.INIT, Exited): State.FINISHING,
        (Side.INIT, Finished): State.CLOSED,
    },
}

LEGAL: Table = {**CONTROL, **BUILD, **TOOL, **SUPERVISOR, **WORKER, **ATTACHED, State.CLOSED: {}}


class Session:
    """One side's view of one socket: *us* and *them* talk over it, and begin in *state*."""

    __slots__ = ("_has_put", "_in_flight", "_them", "_us", "state")

    def __init__(self, us: Side, them: Side, state: State) -> None:
        self._us, self._them, self.state = us, them, state
        self._in_flight: set[int] = set()  # ids of calls; or slots whose program has been asked for
        self._has_put = False

    def sent(self, message: Message) -> None:
        """An illegal message of ours is our bug (`RuntimeError`), and is not blamed on the peer."""
        self._advance(self._us, message, RuntimeError)

    def received(self, message: Message) -> None:
        """An illegal message of the peer's is a `ProtocolError`; the state stays as it was."""
        self._advance(self._them, message, ProtocolError)

    def _advance(self, side: Side, message: Message, error: type[Exception]) -> None:
        kind = type(message)
        after = LEGAL[self.state].get((side, kind))
        if after is None:
            raise error(f"{side.value} may not send {kind.__name__} when {self.state.value}")
        if wrong := self._account(message):
            raise error(wrong)
        self.state = after

    def _account(self, message: Message) -> str | None:
        """Count what the tables cannot: ids in flight, whether there was a put, programs whose end is not told."""
        match message:
            case Call(id=number) | Work(id=number):
                if number in self._in_flight:
                    return f"call {number} is already in flight"
                self._in_flight.add(number)
            case Reply(id=number) | Refused(id=number) | Result(id=number) | Failed(id=number):
                if number not in self._in_flight:
                    return f"no call {number} is in flight"
                self._in_flight.remove(number)
            case ForkProgram(slot=number):
                self._in_flight.add(number)
            case Prepare():
                self._in_flight.add(0)
            case Exited(slot=number) | BuildFailed(slot=number) if self.state is not State.ASKED:
                if number not in self._in_flight:
                    return f"no program of slot {number} is there"
                self._in_flight.remove(number)
            case Put():
                self._has_put = True
            case StoreError() if not self._has_put:
                return "a put failed, and there was none"
        return None
