"""Sessions: every pair of state and message is in the table or refused, and the right side is blamed."""

from itertools import product

import pytest

from isorun.core.sent.claim import Claim
from isorun.executor.calls import tool_stream
from isorun.wire import messages
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
    Carry,
    CloseRun,
    Configure,
    Ended,
    Exited,
    Failed,
    Finish,
    Finished,
    ForkProgram,
    Go,
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
    Replaced,
    Reply,
    Result,
    Room,
    RunClaim,
    RunClosed,
    RunLog,
    RunViolated,
    Sealed,
    Serve,
    SetupError,
    Shut,
    Started,
    StoreError,
    StreamMade,
    Terminate,
    Until,
    Warmed,
    Work,
)
from isorun.wire.session import (
    ATTACHED,
    BUILD,
    CONTROL,
    LEGAL,
    SUPERVISOR,
    TOOL,
    WORKER,
    Session,
    Side,
    State,
    Table,
)
from tests.unit.records import CONTEXT, FACTS, SEALING

_PREPARED = {"preloads": [], "environment": [], "hand_over": True, "share_with_group": False}
_ENDED = {"slot": 0, "code": 0, "signal": None, "user_s": 0.0, "system_s": 0.0, "max_rss_bytes": 0}
_COUNTED = {"oom_kills": 0, "process_limit_hits": 0, "cpu_s": 0.0, "peak_memory_bytes": 0}
ALL: tuple[Message, ...] = (
    Put(path="a", data=b"", append=False, mode=0o644),
    Attached(),
    Go(argv=[], env={}, context=CONTEXT),
    Joined(),
    Ready(isolation={}),
    SetupError(step="mounts", reason="no"),
    StoreError(path="a", reason="full", errno=28),
    Started(),
    BuildInit(slot=0, without=[]),
    ForkProgram(slot=0, sealing=SEALING, cpu=None, filter=b""),
    MakeStream(slot=0),
    InitReady(slot=0),
    StreamMade(slot=0),
    BuildFailed(slot=0, step="fork", reason="no"),
    Exited(**_ENDED),
    Warmed(python="3", preloads={}, failed={}),
    Call(id=1, tool="t", params={}, reason="", timeout_s=None),
    Log(level="INFO", name="n", text="x"),
    Ended(claim=Claim(type="E")),
    Reply(id=1, value=None),
    Refused(id=1, error="ToolFailed", text=""),
    OpenRun(run=1, exec_id="e", turn="t", user="u", grants=[], held=[], limits={}),
    CloseRun(run=1),
    CallAnswered(run=1, call=7, value=None),
    CallRefused(run=1, call=7, error="ToolFailed", text="no"),
    Serve(globals_json="{}", environment={}, aws={}, socket="s"),
    Place(modes={}),
    Loaded(tools={}, services={}),
    LoadFailed(reason="no"),
    Placed(refused=""),
    Journal(run=1, records=b""),
    CallHeld(run=1, call=7, tool="a.b", params={}, reason="", seconds=1.0),
    CallGivenUp(run=1, call=7),
    RunLog(run=1, component="c", level="INFO", text="x"),
    RunClaim(run=1, claim=Claim(type="E")),
    RunViolated(run=1, reason="no"),
    RunClosed(run=1),
    Configure(globals_json="{}", environment={}),
    Work(id=2, tool="t", params={}, exec_id="e", turn="t", user="u", deadline=1.0, frame_bytes=1),
    Output(level="INFO", text="x"),
    Result(id=1, value=None),
    Failed(id=1, error="ToolFailed", text=""),
    Carry(channel="tools", data=b""),
    Room(channel="tools", count=1),
    Shut(channel="tools"),
    Replaced(channel="tools"),
    Prepare(sealing=SEALING, most_tasks=None, most_locks=None, filter=b"", **_PREPARED),
    Look(),
    Until(seconds=1.0),
    Terminate(),
    Finish(),
    Sealed(facts=FACTS),
    Finished(full_bytes=[], full_inodes=[], **_COUNTED),
)
ONE: dict[type[Message], Message] = {type(message): message for message in ALL}
STREAMS: dict[str, Table] = {
    "CONTROL": CONTROL,
    "BUILD": BUILD,
    "TOOL": TOOL,
    "SUPERVISOR": SUPERVISOR,
    "WORKER": WORKER,
    "ATTACHED": ATTACHED,
}
#: Who may be at the two ends of a stream.
ENDS = {
    "CONTROL": [(Side.HOST, Side.SLOT)],
    "BUILD": [(Side.HOST, Side.TEMPLATE), (Side.HOST, Side.ZYGOTE)],
    "TOOL": [(Side.PROGRAM, Side.SUPERVISOR)],
    "SUPERVISOR": [(Side.HOST, Side.SUPERVISOR)],
    "WORKER": [(Side.SUPERVISOR, Side.WORKER)],
    "ATTACHED": [(Side.HOST, Side.INIT)],
}


def at(us: Side, them: Side, state: State, kind: type[Message]) -> Session:
    """A session in this state, and what the message needs: a call or a program in flight, a put before it."""
    session = Session(us, them, state)
    if kind in (Reply, Refused, Result, Failed):
        session._in_flight.add(1)
    if kind in (Exited, BuildFailed):
        session._in_flight.add(0)
    if kind is StoreError:
        session._has_put = True
    return session


def tell(session: Session, us: Side, side: Side, message: Message) -> None:
    """The message as it looks from *us*."""
    (session.sent if side is us else session.received)(message)


@pytest.mark.parametrize("stream", STREAMS)
def test_the_tables_are_total(stream) -> None:
    """Every message in every state from either side does what the table says, or names who may not say it."""
    for ends, state, message in product(ENDS[stream], (*STREAMS[stream], State.CLOSED), ALL):
        for (us, them), side in product((ends, ends[::-1]), ends):
            kind = type(message)
            session = at(us, them, state, kind)
            after = LEGAL[state].get((side, kind))
            if after is not None:
                tell(session, us, side, message)
                assert session.state is after
                continue
            with pytest.raises(RuntimeError if side is us else ProtocolError) as caught:
                tell(session, us, side, message)
            assert str(caught.value) == f"{side.value} may not send {kind.__name__} when {state.value}"
            assert session.state is state


@pytest.mark.parametrize("stream", STREAMS)
def test_every_message_of_a_stream_is_in_its_table(stream) -> None:
    """No message is defined that nobody may ever send, and none is legal on another stream."""
    legal = {kind for row in STREAMS[stream].values() for _, kind in row}
    if stream == "ATTACHED":
        legal = legal - {Warmed, Exited, BuildFailed} | {Carry, Room, Shut, Replaced}
    assert legal == set(getattr(messages, stream))


def test_every_state_is_of_one_stream() -> None:
    """No stream can be left for another one's states."""
    states = [state for table in STREAMS.values() for state in table]
    assert sorted([*states, State.CLOSED], key=str) == sorted(State, key=str)
    for table in STREAMS.values():
        assert {after for row in table.values() for after in row.values()} <= {*table, State.CLOSED}


def test_a_program_takes_what_a_supervisor_may_send() -> None:
    """Its end has no session: it takes answers, whichever calls it has given up."""
    sent = {kind for row in TOOL.values() for side, kind in row if side is Side.SUPERVISOR}
    assert set(tool_stream._ANSWERS) == sent


def test_a_zygote_tells_the_end_of_each_program_once() -> None:
    """Of those that it was asked for; the rest is a violation, and so is a second word."""
    session = Session(Side.HOST, Side.ZYGOTE, State.WARM)
    with pytest.raises(ProtocolError, match=r"^no program of slot 0 is there$"):
        session.received(ONE[Exited])
    session.sent(ONE[ForkProgram])
    session.received(ONE[Exited])
    for again in (Exited, BuildFailed):
        with pytest.raises(ProtocolError, match=r"^no program of slot 0 is there$"):
            session.received(ONE[again])


def test_an_init_tells_the_end_of_its_program_once() -> None:
    """It may end at any time from its fork on."""
    for before in ((), (Look,), (Look, Sealed), (Look, Sealed, Finish)):
        session = Session(Side.INIT, Side.HOST, State.BARE)
        for kind in (Prepare, Warmed, *before):
            (session.sent if kind in (Warmed, Sealed) else session.received)(ONE[kind])
        session.sent(ONE[Exited])
        with pytest.raises(RuntimeError, match=r"^no program of slot 0 is there$"):
            session.sent(ONE[Exited])


def call(number: int) -> Call:
    """A call with this id."""
    return Call(id=number, tool="t", params={}, reason="", timeout_s=None)


def test_calls_overlap_and_are_answered_in_any_order() -> None:
    """Three calls in flight are answered last first, and an answered id may be used again."""
    session = Session(Side.SUPERVISOR, Side.PROGRAM, State.OPEN)
    for number in (1, 2, 3):
        session.received(call(number))
    session.sent(Reply(id=3, value=None))
    session.sent(Refused(id=1, error="ToolFailed", text=""))
    session.received(call(3))
    for number in (2, 3):
        session.sent(Reply(id=number, value=None))
    for number in (1, 2, 3):
        with pytest.raises(RuntimeError, match=rf"^no call {number} is in flight$"):
            session.sent(Reply(id=number, value=None))


def test_a_reused_id_in_flight_is_a_violation() -> None:
    """The second call with an id in flight is refused and the first stays in flight."""
    session = Session(Side.SUPERVISOR, Side.PROGRAM, State.OPEN)
    session.received(call(7))
    with pytest.raises(ProtocolError, match=r"^call 7 is already in flight$"):
        session.received(call(7))
    session.sent(Reply(id=7, value=None))


@pytest.mark.parametrize("answer", [Reply(id=8, value=1), Refused(id=8, error="ToolFailed", text="")])
def test_an_answer_to_no_call_blames_whoever_sent_it(answer) -> None:
    """From the peer it is a violation; from us it is our bug."""
    program, supervisor = (
        Session(Side.PROGRAM, Side.SUPERVISOR, State.OPEN),
        Session(Side.SUPERVISOR, Side.PROGRAM, State.OPEN),
    )
    with pytest.raises(ProtocolError, match=r"^no call 8 is in flight$"):
        program.received(answer)
    with pytest.raises(RuntimeError, match=r"^no call 8 is in flight$"):
        supervisor.sent(answer)


def test_calls_in_flight_are_answered_after_the_end() -> None:
    """`Ended` ends what the program may say, not what it is owed."""
    session = Session(Side.SUPERVISOR, Side.PROGRAM, State.OPEN)
    session.received(call(1))
    session.received(ONE[Ended])
    session.sent(Reply(id=1, value=None))
    with pytest.raises(ProtocolError, match=r"^program may not send Call when ended$"):
        session.received(call(2))
    with pytest.raises(RuntimeError, match=r"^no call 1 is in flight$"):
        session.sent(Reply(id=1, value=None))


def start(*middle: tuple[Side, Message]) -> Session:
    """The host's view of a slot that was built, then of these messages."""
    session = Session(Side.HOST, Side.SLOT, State.NEW)
    opening = ((Side.SLOT, Joined()), (Side.HOST, Attached()), (Side.SLOT, Ready(isolation={})))
    for side, message in (*opening, *middle):
        tell(session, Side.HOST, side, message)
    return session


PUT, GO = (Side.HOST, ONE[Put]), (Side.HOST, ONE[Go])
STARTED = (Side.SLOT, Started())


@pytest.mark.parametrize(
    "middle",
    [
        (GO, STARTED),
        (PUT, GO, STARTED),
        (PUT, PUT, PUT, GO, STARTED),
    ],
)
def test_a_start_says_that_its_files_are_stored(middle) -> None:
    """With none, one or more of them: the program starts."""
    assert start(*middle).state is State.CLOSED


@pytest.mark.parametrize(
    ("middle", "text"),
    [
        (((Side.SLOT, ONE[StoreError]),), "a put failed, and there was none"),
        ((PUT, STARTED), "slot may not send Started when ready"),
        ((PUT, GO, GO), "host may not send Go when starting"),
    ],
)
def test_a_slot_answers_what_was_sent(middle, text) -> None:
    """A slot cannot start before it is told to, nor fail to store what was not sent."""
    with pytest.raises((ProtocolError, RuntimeError)) as caught:
        start(*middle)
    assert str(caught.value) == text
