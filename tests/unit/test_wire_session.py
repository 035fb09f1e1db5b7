"""Sessions: every pair of state and message is in the table or refused, and the right side is blamed."""

from itertools import product

import pytest

from isorun.wire.frames import ProtocolError
from isorun.wire.messages import (
    CONTROL,
    TOOL,
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
from isorun.wire.session import LEGAL, LEGAL_CONTROL, Session, Side, State

ONE: dict[type[Message], Message] = {
    Put: Put(path="a", data=b"", append=False, mode=0o644),
    Attached: Attached(),
    Go: Go(argv=[], env={}, context={}),
    Joined: Joined(),
    Ready: Ready(isolation={}),
    SetupError: SetupError(step="mounts", reason="no"),
    Stored: Stored(count=1),
    StoreError: StoreError(path="a", reason="full", errno=28),
    Started: Started(),
    Call: Call(id=1, tool="t", params={}, reason="", timeout_s=None),
    Log: Log(level="INFO", name="n", text="x"),
    Ended: Ended(type="E", message="", errno=None, line=None, source=""),
    Reply: Reply(id=1, value=None),
    Refused: Refused(id=1, error="ToolFailed", text=""),
}
PEER = {
    Side.HOST: Side.SLOT,
    Side.SLOT: Side.HOST,
    Side.PROGRAM: Side.SUPERVISOR,
    Side.SUPERVISOR: Side.PROGRAM,
}
CASES = [
    *product((Side.HOST, Side.SLOT), LEGAL_CONTROL, (Side.HOST, Side.SLOT), (*CONTROL, *TOOL)),
    *product((Side.PROGRAM, Side.SUPERVISOR), LEGAL, (Side.PROGRAM, Side.SUPERVISOR), (*CONTROL, *TOOL)),
]


def at(us: Side, state: State, kind: type[Message]) -> Session:
    """A session in this state, and what the message needs: a call in flight, a put outstanding."""
    session = Session(us)
    session.state = state
    if kind in (Reply, Refused):
        session._in_flight.add(1)
    if kind in (Stored, StoreError):
        session._unstored = 1
    return session


def tell(session: Session, us: Side, side: Side, message: Message) -> None:
    """The message as it looks from *us*."""
    (session.sent if side is us else session.received)(message)


@pytest.mark.parametrize("us", list(Side))
def test_the_tables_are_total(us) -> None:
    """Every message in every state from either side does what the table says, or names who may not say it."""
    for case_us, state, side, kind in CASES:
        if case_us is not us:
            continue
        session = at(us, state, kind)
        table = LEGAL if us in (Side.PROGRAM, Side.SUPERVISOR) else LEGAL_CONTROL
        after = table[state].get((side, kind))
        if after is not None:
            tell(session, us, side, ONE[kind])
            assert session.state is after
        else:
            blamed = RuntimeError if side is us else ProtocolError
            with pytest.raises(blamed) as caught:
                tell(session, us, side, ONE[kind])
            assert str(caught.value) == f"{side.value} may not send {kind.__name__} when {state.value}"
            assert session.state is state


def test_every_message_of_a_stream_is_in_its_table() -> None:
    """No message is defined that nobody may ever send, and none is legal on the other stream."""
    for kinds, table in ((TOOL, LEGAL), (CONTROL, LEGAL_CONTROL)):
        assert {kind for row in table.values() for _, kind in row} == set(kinds)


def call(number: int) -> Call:
    """A call with this id."""
    return Call(id=number, tool="t", params={}, reason="", timeout_s=None)


def test_calls_overlap_and_are_answered_in_any_order() -> None:
    """Three calls in flight are answered last first, and an answered id may be used again."""
    session = Session(Side.SUPERVISOR)
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
    session = Session(Side.SUPERVISOR)
    session.received(call(7))
    with pytest.raises(ProtocolError, match=r"^call 7 is already in flight$"):
        session.received(call(7))
    session.sent(Reply(id=7, value=None))


@pytest.mark.parametrize("answer", [Reply(id=8, value=1), Refused(id=8, error="ToolFailed", text="")])
def test_an_answer_to_no_call_blames_whoever_sent_it(answer) -> None:
    """From the peer it is a violation; from us it is our bug."""
    program, supervisor = Session(Side.PROGRAM), Session(Side.SUPERVISOR)
    with pytest.raises(ProtocolError, match=r"^no call 8 is in flight$"):
        program.received(answer)
    with pytest.raises(RuntimeError, match=r"^no call 8 is in flight$"):
        supervisor.sent(answer)


def test_calls_in_flight_are_answered_after_the_end() -> None:
    """`Ended` ends what the program may say, not what it is owed."""
    session = Session(Side.SUPERVISOR)
    session.received(call(1))
    session.received(ONE[Ended])
    session.sent(Reply(id=1, value=None))
    with pytest.raises(ProtocolError, match=r"^program may not send Call when ended$"):
        session.received(call(2))
    with pytest.raises(RuntimeError, match=r"^no call 1 is in flight$"):
        session.sent(Reply(id=1, value=None))


def start(*middle: tuple[Side, Message]) -> Session:
    """The host's view of a slot that was built, then of these messages."""
    session = Session(Side.HOST)
    opening = ((Side.SLOT, Joined()), (Side.HOST, Attached()), (Side.SLOT, Ready(isolation={})))
    for side, message in (*opening, *middle):
        tell(session, Side.HOST, side, message)
    return session


PUT, GO = (Side.HOST, ONE[Put]), (Side.HOST, ONE[Go])
STARTED = (Side.SLOT, Started())


def stored(count: int) -> tuple[Side, Message]:
    """The slot's acknowledgement of that many puts."""
    return Side.SLOT, Stored(count=count)


@pytest.mark.parametrize(
    "middle",
    [
        (GO, STARTED),
        (PUT, stored(1), GO, STARTED),
        (PUT, PUT, PUT, stored(1), stored(2), GO, STARTED),
        (PUT, PUT, GO, stored(2), STARTED),
    ],
)
def test_a_start_may_wait_for_its_files_or_not(middle) -> None:
    """Acknowledged one by one, together, or after `Go`: the program starts."""
    assert start(*middle).state is State.CLOSED


@pytest.mark.parametrize(
    ("middle", "text"),
    [
        ((stored(1),), "1 puts acknowledged, 0 outstanding"),
        ((PUT, stored(2)), "2 puts acknowledged, 1 outstanding"),
        ((PUT, stored(0)), "0 puts acknowledged, 1 outstanding"),
        ((PUT, PUT, stored(1), GO, STARTED), "started with 1 puts outstanding"),
        (((Side.SLOT, ONE[StoreError]),), "a put failed, none outstanding"),
        ((PUT, GO, GO), "host may not send Go when starting"),
    ],
)
def test_acknowledgements_must_add_up(middle, text) -> None:
    """A slot cannot start with files missing, nor acknowledge what was not sent."""
    with pytest.raises((ProtocolError, RuntimeError)) as caught:
        start(*middle)
    assert str(caught.value) == text
