"""Waiting for descriptors: a loop knows one waiter of a number, and here any number may wait."""

import asyncio
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from isorun.core.share import TURN_FRAMES
from isorun.kernel.readiness import Channel, PacketSender, wait_readable, wait_writable
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import Message, Put, Started, decode_packet, encode
from isorun.wire.session import Session, Side, State

_AT_ONCE = 64


@pytest.fixture
def packets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of packet sockets: ours does not block, theirs gives up after 5 s."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(5)
        yield ours, theirs


async def test_everybody_who_waits_for_one_descriptor_is_woken() -> None:
    """The second to wait does not take the place of the first; one who gives up takes nobody's."""
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as end:
        first, second, third = (asyncio.ensure_future(wait_readable(reader)) for _ in range(3))
        await asyncio.sleep(0)
        third.cancel()
        await asyncio.sleep(0)
        print("x", file=end, flush=True)
        async with asyncio.timeout(5):
            await asyncio.gather(first, second)


async def test_everybody_who_waits_for_room_is_woken(packets) -> None:
    """As above, for the other direction."""
    ours, theirs = packets
    _until_it_would_block(lambda: ours.send(b"x" * 4096))
    waiting = [asyncio.ensure_future(wait_writable(ours.fileno())) for _ in range(3)]
    await asyncio.sleep(0)
    theirs.setblocking(False)
    _until_it_would_block(lambda: theirs.recv(1 << 16))
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)


def _until_it_would_block(once: Callable[[], object]) -> None:
    with suppress(BlockingIOError):
        while True:
            once()


async def test_packets_of_many_who_send_at_once_all_arrive_in_order(packets) -> None:
    """More than the socket has room for: each waits for its turn, and none is forgotten."""
    ours, theirs = packets
    sender = PacketSender(ours, Session(Side.HOST, Side.SLOT, State.READY))
    last_of_all = Put(path="last", data=b"", append=False, mode=0)
    message = Put(path="p", data=b"x" * 8192, append=False, mode=0)
    tasks = [asyncio.ensure_future(sender.send(message)) for _ in range(_AT_ONCE)]
    last = asyncio.ensure_future(sender.send(last_of_all))
    await asyncio.sleep(0)
    tasks[40].cancel()  # one that waits: the turn goes on to the next
    heard = [decode_packet(await asyncio.to_thread(theirs.recv, 1 << 18)) for _ in range(_AT_ONCE)]
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, last, return_exceptions=True)
    assert [task.cancelled() for task in tasks].count(True) == 1
    assert heard == [message] * (_AT_ONCE - 1) + [last_of_all]


async def test_frames_of_many_who_send_at_once_stay_whole() -> None:
    """A frame larger than the socket has room for is not mixed with the next one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        sender = Channel(ours, Session(Side.HOST, Side.SLOT, State.READY))
        receiver = Channel(theirs, Session(Side.SLOT, Side.HOST, State.READY))
        messages = [Put(path=str(n), data=bytes([n]) * 300_000, append=False, mode=0) for n in range(8)]
        sending = asyncio.gather(*map(sender.send, messages))
        async with asyncio.timeout(10):
            assert [await receiver.receive() for _ in messages] == messages
            await sending


@pytest.fixture
def streams() -> Iterator[tuple[socket.socket, Channel]]:
    """Who sends, with 60 s of patience, and the channel that hears it."""
    theirs, ours = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(60)
        channel = Channel(ours, Session(Side.SLOT, Side.HOST, State.READY))
        yield theirs, channel
        for descriptor in channel.descriptors:
            os.close(descriptor)


def put(number: int, data: bytes = b"") -> Put:
    return Put(path=str(number), data=data, append=False, mode=0)


async def test_what_is_heard_comes_in_order_until_the_peer_is_gone(streams) -> None:
    """After a first message was received by itself: what was read with it, a large one, one in pieces."""
    theirs, channel = streams
    messages = [put(n, bytes(700_000) if n == 20 else b"x") for n in range(60)]
    data = b"".join(map(encode, messages))
    theirs.send(data[:1000])  # some messages, and a part of the next one
    assert await channel.receive() == messages[0]
    taken: list[Message] = []
    hearing = asyncio.ensure_future(channel.hear(taken.append))
    sending = asyncio.ensure_future(asyncio.to_thread(theirs.sendall, data[1000:-1]))
    async with asyncio.timeout(60):
        while len(taken) < 58:  # noqa: ASYNC110 - the messages themselves are what is waited for
            await asyncio.sleep(0.001)
        await sending
        assert not hearing.done()
        theirs.send(data[-1:])
        theirs.close()
        await hearing
    assert taken == messages[1:]


async def test_what_was_read_before_is_heard_without_more(streams) -> None:
    """The second message came with the first, and nothing comes after it."""
    theirs, channel = streams
    theirs.send(encode(put(0)) + encode(put(1)))
    assert await channel.receive() == put(0)
    taken: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    hearing = asyncio.ensure_future(channel.hear(taken.set_result))
    assert await asyncio.wait_for(taken, 60) == put(1)
    hearing.cancel()


async def test_a_flood_is_heard_in_turns(streams) -> None:
    """Others have the loop between 16 messages."""
    theirs, channel = streams
    taken: list[Message] = []
    data = b"".join(encode(put(n)) for n in range(500))
    assert len(data) < 1 << 16  # so that one read has them all
    theirs.send(data)
    hearing = asyncio.ensure_future(channel.hear(taken.append))
    seen = [0]
    async with asyncio.timeout(60):
        while len(taken) < 500:
            await asyncio.sleep(0)
            seen.append(len(taken))
    hearing.cancel()
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= TURN_FRAMES


async def test_no_more_is_read_than_is_taken(streams) -> None:
    """Whatever a peer sends: what was read is taken before the next read, so the memory for it is bounded."""
    theirs, channel = streams
    size, count = len(encode(put(1000, bytes(1000)))), 1000
    read, taken, left = [0], [0], []

    def reading(size: int, real: Callable[[int], int] = channel.read) -> int:
        left.append(sum(read) - sum(taken))
        read.append(real(size))
        return read[-1]

    channel.read = reading
    hearing = asyncio.ensure_future(channel.hear(lambda message: taken.append(len(encode(message)))))
    sending = asyncio.to_thread(theirs.sendall, b"".join(encode(put(1000 + n, bytes(1000))) for n in range(count)))
    async with asyncio.timeout(60):
        await sending
        theirs.close()
        await hearing
    assert sum(taken) == size * count
    assert max(left) < size


@pytest.mark.parametrize("ours", [False, True])
async def test_what_is_wrong_is_raised_where_it_is_heard(streams, ours: bool) -> None:
    """A message out of turn and an exception of who takes it both end the hearing, and nothing more is taken."""
    theirs, channel = streams
    taken: list[Message] = []

    def take(message: Message) -> None:
        taken.append(message)
        if ours and len(taken) == 2:
            raise OSError("a full disk")

    theirs.send(encode(put(0)) + encode(put(1)) + encode(put(2) if ours else Started()) + encode(put(3)))
    with pytest.raises(
        OSError if ours else ProtocolError, match="a full disk" if ours else "host may not send Started"
    ):
        await asyncio.wait_for(channel.hear(take), 60)
    assert taken == [put(0), put(1)]
    theirs.send(encode(put(4)))
    await asyncio.sleep(0.01)
    assert len(taken) == 2


async def test_who_is_cancelled_hears_no_more(streams) -> None:
    """The messages stay in the socket, and somebody else may read them."""
    theirs, channel = streams
    taken: list[Message] = []
    hearing = asyncio.ensure_future(channel.hear(taken.append))
    await asyncio.sleep(0)
    hearing.cancel()
    await asyncio.wait({hearing})
    assert not asyncio.get_running_loop().remove_reader(channel.socket)
    receiving = asyncio.ensure_future(channel.receive())
    await asyncio.sleep(0)
    theirs.send(encode(put(1)))
    assert await asyncio.wait_for(receiving, 60) == put(1)
    assert taken == []


async def test_a_number_that_is_used_again_is_watched_again(streams) -> None:
    """A channel that is stopped before its socket is closed leaves nothing behind in the loop."""
    _, channel = streams
    hearing = asyncio.ensure_future(channel.hear(lambda _: None))
    await asyncio.sleep(0)
    number = channel.socket.fileno()
    channel.stop()
    channel.socket.close()
    theirs, ours = socket.socketpair()
    with theirs, ours:
        again = ours if ours.fileno() == number else theirs
        assert again.fileno() == number
        again.setblocking(False)
        taken: list[Message] = []
        other = Channel(again, Session(Side.SLOT, Side.HOST, State.READY))
        heard = asyncio.ensure_future(other.hear(taken.append))
        await hearing
        sender = theirs if again is ours else ours
        sender.send(encode(put(1)))
        sender.close()
        await asyncio.wait_for(heard, 60)
        assert taken == [put(1)]


async def test_descriptors_come_with_the_messages_that_are_heard(streams) -> None:
    """In the order in which they were sent, each no later than its message."""
    theirs, channel = streams
    ends = [os.pipe() for _ in range(3)]
    there: list[int] = []
    hearing = asyncio.ensure_future(channel.hear(lambda _: there.append(len(channel.descriptors))))
    for number, (reader, writer) in enumerate(ends):
        os.write(writer, b"%d" % number)
        socket.send_fds(theirs, [encode(put(number))], [reader])
        os.close(reader)
        os.close(writer)
    theirs.close()
    await asyncio.wait_for(hearing, 60)
    assert [os.read(descriptor, 8) for descriptor in channel.descriptors] == [b"0", b"1", b"2"]
    assert all(count >= number + 1 for number, count in enumerate(there))
