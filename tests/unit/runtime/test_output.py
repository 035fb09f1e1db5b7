"""What a program prints, at the host's end: kept within bounds, and read for no longer than its share."""

import asyncio
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.core.limits import MIB, Limits
from isorun.core.share import BURST_S, Account, Owing
from isorun.runtime.events import Event, Feed
from isorun.runtime.output import Kept, OutputLog, _decoded
from isorun.runtime.printed.pipes import PipeReader


def log_of(path: Path, **limits: int) -> OutputLog:
    return OutputLog(str(path / "user.log"), "===== START =====", Limits(**limits), lambda *_: None, lambda: None)


def test_a_flood_is_kept_on_disk_and_not_in_memory(tmp_path) -> None:
    """64 MB printed cost the host process less than 8 MB; user.log has its cap of them, the result its own."""
    block = b"0123456789abcde\n" * 4096
    tracemalloc.start()
    try:
        log = log_of(tmp_path)
        for _ in range(1000):
            log.feed("stdout", block)
        log.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    assert (log.total, log.truncated) == (1000 * len(block), True)
    assert 15 * MIB < (tmp_path / "user.log").stat().st_size < 17 * MIB
    assert log.log_text().endswith("0123456789abcde\n")
    assert len(log.log_text()) == MIB


@pytest.mark.parametrize("count", [0, 1, 100_000, 700_000])
def test_the_end_of_the_log_is_text_from_its_first_line_on(tmp_path, count) -> None:
    """Without our own first line, and without half a character where only the end of it is given."""
    log = log_of(tmp_path)
    log.feed("stderr", "é\n".encode() * count)
    log.close()
    text = log.log_text()
    assert text == ("é\n" * count)[len("é\n" * count) - len(text) :]
    assert len(text) == 2 * count or len(text.encode()) > MIB - 4


def test_events_of_a_flood_are_bounded_in_bytes() -> None:
    """A late subscriber gets the latest ones, and is told how many are gone; the host does not keep all of them."""
    feed = Feed()
    for _ in range(500):
        feed.publish(Event(kind="output", at_s=0.0, data={"stream": "stdout", "text": "x" * 65536}))
    feed.publish(Event(kind="outcome", at_s=0.0))

    async def late() -> list[Event]:
        return [event async for event in feed.subscribe()]

    events = asyncio.run(late())
    assert (events[0].kind, events[-1].kind) == ("skipped", "outcome")
    assert events[0].data["events"] + len(events) - 1 == 501
    assert sum(len(event.data.get("text", "")) for event in events) <= 2 * MIB


async def test_a_pipe_that_owes_is_left_alone_and_heard_to_its_end() -> None:
    """Its reader takes no byte of it while it owes; once nobody can write any more, all of it at once."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    taken: list[bytes] = []
    account = Account(Owing(), 0.0)
    try:
        pipe = PipeReader(reader, taken.append, account)
        account.spend(asyncio.get_running_loop().time(), 1000 * BURST_S)
        os.write(writer, b"one")
        while not taken:  # noqa: ASYNC110 - a list tells nobody that it has grown
            await asyncio.sleep(0)
        os.write(writer, b"two")
        for _ in range(20):
            await asyncio.sleep(0)
        assert taken == [b"one"]
        os.close(writer)
        pipe.hurry()
        async with asyncio.timeout(5):
            await pipe.ended.wait()
        assert taken == [b"one", b"two"]
    finally:
        os.close(reader)


@given(st.lists(st.sampled_from([b"\xff", b"x" * 65535, "é".encode(), "😀".encode(), b"\xf0\x9f", b"\n"]), max_size=9))
def test_text_is_decoded_in_pieces_as_it_would_be_whole(parts: list[bytes]) -> None:
    """A character that lies across two pieces is one character, and half of one is a replacement."""
    data = b"".join(parts)
    assert _decoded(data) == data.decode("utf-8", "replace")


def test_a_flood_holds_little_more_than_its_result(tmp_path) -> None:
    """The result's MiB of a stream, and the MiB with which user.log ends, which is let go of once it is on disk."""
    block = b"0123456789abcde\n" * 4096
    tracemalloc.start()
    try:
        log = log_of(tmp_path)
        for _ in range(1000):
            log.feed("stdout", block)
        log.feed("stdout", b"in pieces\n")
        _, peak = tracemalloc.get_traced_memory()
        log.close()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.6 * MIB
    assert held < 1.3 * MIB
    assert log.log_text().endswith("0123456789abcde\nin pieces\n")


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 300))
def test_what_is_kept_is_the_beginning_and_the_end(parts: list[bytes], cap: int) -> None:
    """Of any pieces: whole if they fit, else as many bytes as may be, and how many are missing."""
    kept, whole = Kept(cap), b"".join(parts)
    heads = b"".join(kept.add(part) for part in parts)
    tail = max(cap // 16, 1)
    assert heads == whole[: cap - tail]
    if len(whole) <= cap:
        assert kept.read() == whole
    else:
        note = b"\n[... %d bytes were cut here ...]\n" % (len(whole) - cap)
        assert kept.read() == heads + note + whole[-tail:]


def test_events_are_bounded_in_memory_whatever_they_hold() -> None:
    """A text with one emoji takes four bytes for each of its characters."""
    feed = Feed()
    for _ in range(100):
        feed.publish(Event(kind="output", at_s=0.0, data={"stream": "stdout", "text": "😀" + "x" * 65535}))
    feed.publish(Event(kind="outcome", at_s=0.0))

    async def late() -> list[Event]:
        return [event async for event in feed.subscribe()]

    texts = [event.data["text"] for event in asyncio.run(late()) if event.kind == "output"]
    assert 0 < sum(map(sys.getsizeof, texts)) <= 2 * MIB
