"""A program's pipes: a flood of small pieces is read in few turns, in order, and nobody waits for it."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from isorun.runtime.events import Event, Feed
from isorun.runtime.printed.pipes import READ, Gathering, Order, PipeReader, drain

ROOM = READ


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose reading end does not block."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        with suppress(OSError):  # a test that needs the pipe's end closes it
            os.close(writer)


def flooded(gathering: Gathering, *, size: int = 10, every_s: float = 0.0001, count: int = 16) -> list[float]:
    """What it says to *count* pieces of *size* bytes."""
    return [gathering.pause_s(100 + index * every_s, size, 0.0) for index in range(count)]


def test_what_comes_seldom_is_read_when_it_comes() -> None:
    """A piece every two milliseconds, for as long as one likes, and the first fifteen of a flood."""
    assert flooded(Gathering(ROOM), every_s=0.002, count=1000) == [0.0] * 1000
    assert flooded(Gathering(ROOM), count=15) == [0.0] * 15


def test_a_flood_gathers_for_four_milliseconds() -> None:
    """From its sixteenth piece on, and as long as something comes."""
    gathering = Gathering(ROOM)
    assert flooded(gathering)[-1] == pytest.approx(0.004)
    assert gathering.pause_s(100.1, 300, 0.004) == pytest.approx(0.004)


@pytest.mark.parametrize("room", [4096, 65536])
def test_it_waits_for_no_more_than_the_pipe_holds(room: int) -> None:
    """A pipe that would fill meanwhile, and stop its writer, is left alone for a shorter time, or not at all."""
    gathering = Gathering(room)
    assert flooded(gathering, size=10)[-1] <= 0.004
    assert gathering.pause_s(101, room // 4, 0.001) == pytest.approx(0.0015)
    assert gathering.pause_s(102, room // 2, 0.001) == 0.0


def test_a_full_pipe_is_read_at_once_for_a_while() -> None:
    """Whoever writes large pieces is not held up by the small one at the end of each."""
    gathering = Gathering(ROOM)
    assert gathering.pause_s(99.99, ROOM, 0.0) == 0.0
    assert flooded(gathering, count=500) == [0.0] * 500
    assert flooded(gathering, count=2000)[-1] > 0


async def test_lines_one_by_one_are_read_in_few_turns() -> None:
    """2,000 lines, and the loop could read each when it is written: every byte in order, in a fifth of the reads."""
    taken: list[bytes] = []
    lines = [b"%d\n" % index for index in range(2000)]
    with pipe() as (reader, writer):
        found = PipeReader(reader, taken.append, order=Order())
        for line in lines:
            os.write(writer, line)
            await asyncio.sleep(0)
        os.close(writer)
        async with asyncio.timeout(5):
            await found.ended.wait()
    assert b"".join(taken) == b"".join(lines)
    assert len(taken) < 400


async def gathering_pipe(reader: int, writer: int, order: Order, take: Callable[[bytes], None]) -> PipeReader:
    """A reader that is left alone now, since a flood came before; *take* gets what comes from here on."""
    found = PipeReader(reader, lambda _: None, order=order)
    while not order.gathering:
        os.write(writer, b".")
        await asyncio.sleep(0)
    found._take = take
    return found


async def test_a_line_is_not_held_back() -> None:
    """What comes alone behind a flood is taken within the 50 ms in which a person sees it."""
    taken = asyncio.Queue[bytes]()
    with pipe() as (reader, writer):
        found = await gathering_pipe(reader, writer, Order(), taken.put_nowait)
        os.write(writer, b"a line\n")
        async with asyncio.timeout(0.05):
            assert await taken.get() == b"a line\n"
        found.stop()


async def test_the_other_pipe_does_not_overtake() -> None:
    """What gathered in one pipe is taken before the bytes that arrive in the other."""
    taken, order = asyncio.Queue[bytes](), Order()
    with pipe() as (out, to_out), pipe() as (err, to_err):
        first = await gathering_pipe(out, to_out, order, taken.put_nowait)
        second = PipeReader(err, taken.put_nowait, order=order)
        os.write(to_out, b"first\n")
        os.write(to_err, b"second\n")
        assert [await taken.get(), await taken.get()] == [b"first\n", b"second\n"]
        first.stop()
        second.stop()


async def test_an_event_does_not_overtake_the_output_before_it() -> None:
    """A tool call that follows a print has the later number."""
    feed, order = Feed(), Order()
    feed.before_others = order.catch_up
    with pipe() as (reader, writer):

        def told(data: bytes) -> None:
            feed.publish(Event(kind="output", at_s=0.0, data={"text": data.decode()}))

        found = await gathering_pipe(reader, writer, order, told)
        os.write(writer, b"about to call\n")
        feed.publish(Event(kind="tool_call", at_s=0.0), Event(kind="outcome", at_s=0.0))
        found.stop()
    assert [event.kind async for event in feed.subscribe()] == ["output", "tool_call", "outcome"]


async def test_what_gathers_is_not_lost_at_the_end() -> None:
    """The bytes of a pipe that is left alone when its last writer has gone are taken by `drain`."""
    taken: list[bytes] = []
    with pipe() as (reader, writer):
        found = await gathering_pipe(reader, writer, Order(), taken.append)
        os.write(writer, b"last words")
        os.close(writer)
        await drain([found])
    assert taken == [b"last words"]
