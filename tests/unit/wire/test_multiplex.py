"""Channels over one stream: what goes in comes out, in order, and nobody holds more than a window of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.wire.frames import ProtocolError
from isorun.wire.messages import Carry, Finish, Replaced, Room, Sealed, Shut, Terminate, encode
from isorun.wire.multiplex import CHUNK, LEFT, WINDOW, Multiplexer
from tests.unit.records import FACTS

NAMES = ("a", "b")


def carried(sender: Multiplexer, receiver: Multiplexer) -> list[object]:
    """Bring what *sender* has to send to *receiver*; the messages that are nobody's channel."""
    data, sender.out = bytes(sender.out), bytearray()
    return list(receiver.feed(data))


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(min_size=1, max_size=3 * CHUNK)), max_size=12), st.data())
def test_every_byte_arrives_once_and_in_order(writes, data) -> None:
    """However reads, deliveries and transport interleave, and however slow one channel is."""
    left, right = Multiplexer(NAMES), Multiplexer(NAMES)
    waiting = {name: b"".join(part for who, part in writes if who == name) for name in NAMES}
    wanted, arrived = dict(waiting), dict.fromkeys(NAMES, b"")
    while any(waiting.values()) or any(right.waiting(name) for name in NAMES) or left.out or right.out:
        for name in NAMES:
            part = waiting[name][: left.wants(name)]
            if part:
                left.push(name, part)
                waiting[name] = waiting[name][len(part) :]
        carried(left, right)
        for name in NAMES:
            assert len(right.waiting(name)) <= WINDOW
            most = len(right.waiting(name))
            count = data.draw(st.integers(min(1, most), most))
            arrived[name] += bytes(right.waiting(name)[:count])
            right.delivered(name, count)
        carried(right, left)
    assert arrived == wanted


def test_a_channel_that_nobody_reads_stops_itself_alone() -> None:
    """Its sender may read no more of it once a window is on its way; the other channel goes on."""
    left, right = Multiplexer(NAMES), Multiplexer(NAMES)
    sent = 0
    while most := left.wants("a"):
        left.push("a", b"x" * most)
        sent += most
    carried(left, right)
    assert (sent, len(right.waiting("a")), left.wants("a")) == (WINDOW, WINDOW, 0)
    left.push("b", b"through")
    carried(left, right)
    assert bytes(right.waiting("b")) == b"through"
    right.delivered("a", WINDOW)
    carried(right, left)
    assert left.wants("a") == CHUNK


def test_what_is_left_is_heard_though_nobody_reads_it() -> None:
    """Once both sides have made room for it; and no more than that."""
    left, right = Multiplexer(NAMES), Multiplexer(NAMES)
    while most := left.wants("a"):
        left.push("a", b"x" * most)
    carried(left, right)
    right.widen()
    left.widen()
    sent = WINDOW
    while most := left.wants("a"):
        left.push("a", b"x" * most)
        sent += most
    left.push("a", b"")
    carried(left, right)
    assert (sent, len(right.waiting("a"))) == (WINDOW + LEFT, WINDOW + LEFT)
    right.delivered("a", sent)
    assert right.is_over("a")
    with pytest.raises(ProtocolError, match="continues after its end"):
        right.feed(encode(Carry(channel="a", data=b"x")))


def test_an_end_is_told_behind_what_came_before() -> None:
    """The channel is over once its last bytes are delivered, and nothing more is read of it."""
    left, right = Multiplexer(NAMES), Multiplexer(NAMES)
    left.push("a", b"last")
    left.push("a", b"")
    left.push("a", b"")
    carried(left, right)
    assert (left.wants("a"), left.is_open("a"), right.is_over("a")) == (0, False, False)
    right.delivered("a", 4)
    assert right.is_over("a")
    assert not right.is_over("b")


def test_messages_of_the_callers_pass_in_order() -> None:
    """What is no channel's is handed out, in the order in which it was sent."""
    left, right = Multiplexer(NAMES), Multiplexer(NAMES)
    left.send(Terminate())
    left.push("a", b"between")
    left.send(Finish())
    assert carried(left, right) == [Terminate(), Finish()]


def test_what_belongs_to_a_replaced_stream_is_dropped() -> None:
    """Until the peer has replaced its end, too, what comes from there is the old one's; the window stays whole."""
    host, init = Multiplexer(NAMES), Multiplexer(NAMES)
    init.push("a", b"half a fra")
    host.push("a", b"an answer to the old one")
    carried(init, host)
    host.replace("a", ask=True)
    init.push("a", b"me of the old one")
    assert carried(host, init) == [Replaced(channel="a")]
    init.replace("a", ask=False)
    init.push("a", b"new")
    carried(init, host)
    assert (bytes(host.waiting("a")), bytes(init.waiting("a"))) == (b"new", b"")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([Carry(channel="c", data=b"x")], "there is no channel 'c'"),
        ([Room(channel="c", count=1)], "there is no channel 'c'"),
        ([Shut(channel="c")], "there is no channel 'c'"),
        ([Replaced(channel="c")], "there is no channel 'c'"),
        ([Carry(channel="a", data=b"x" * (WINDOW + 1))], "a carries more than there is room for"),
        ([Carry(channel="a", data=b"x" * WINDOW), Carry(channel="a", data=b"x")], "a carries more than there is room"),
        ([Shut(channel="a"), Carry(channel="a", data=b"x")], "a continues after its end"),
        ([Room(channel="a", count=1)], "a opens room for 1 bytes that were not sent"),
        ([Room(channel="a", count=0)], "a opens room for 0 bytes"),
        ([Room(channel="a", count=-5)], "a opens room for -5 bytes"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_refused(messages, reason) -> None:
    """Nothing of it is kept beyond a window."""
    with pytest.raises(ProtocolError, match=reason):
        Multiplexer(NAMES).feed(b"".join(map(encode, messages)))


@given(st.binary(max_size=200))
def test_no_bytes_get_out_as_anything_but_a_refusal(data) -> None:
    """Whatever the peer sends."""
    try:
        Multiplexer(NAMES).feed(data)
    except ProtocolError:
        return


def test_a_flood_of_frames_is_taken_so_many_at_a_time() -> None:
    """Each feed handles the given number and says that it may have left some; nothing is lost, and order stays."""
    side = Multiplexer(NAMES)
    data = b"".join(encode(Carry(channel="a", data=bytes([n]))) for n in range(40))
    side.feed(data, 16)
    seen = [len(side.waiting("a"))]
    while side.is_behind:
        side.feed(b"", 16)
        seen.append(len(side.waiting("a")))
    assert (seen, bytes(side.waiting("a"))) == ([16, 32, 40], bytes(range(40)))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Sealed(facts=FACTS.changed(fds=[0] * 20_000)), "header of more than 16384 values"),
        (Carry(channel="a", data=bytes(1 << 20)), "exceeds 1048576"),
    ],
)
def test_what_is_long_to_read_is_refused(message, reason) -> None:
    """An init that was taken over cannot make the host read for a second: it says little of itself, and in pieces."""
    with pytest.raises(ProtocolError, match=reason):
        Multiplexer(NAMES).feed(encode(message))
