"""Waiting for descriptors: a loop knows one waiter of a number, and here any number may wait."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from isorun.kernel.readiness import Channel, PacketSender, wait_readable, wait_writable
from isorun.wire.messages import Put, decode_packet
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
