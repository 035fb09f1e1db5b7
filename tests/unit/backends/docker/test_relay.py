"""The host's end of a container: what init says becomes a slot's pipes and sockets, and a liar is cut off.

init is played here, over real pipes, with the multiplexer that it really uses.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from isorun.backends.docker.relay import Relay
from isorun.core.errors import SetupFailed
from isorun.core.share import TURN_FRAMES
from isorun.executor.container.init import CHANNELS
from isorun.wire.messages import (
    BuildFailed,
    Carry,
    Exited,
    Finished,
    Go,
    Look,
    Message,
    Prepare,
    Replaced,
    Sealed,
    Until,
    Warmed,
    encode,
)
from isorun.wire.multiplex import WINDOW, Multiplexer
from isorun.wire.unbroken import unbroken
from tests.unit.records import CONTEXT, FACTS, SEALING

WARM = Warmed(python="3.11", preloads={}, failed={})
EXIT = Exited(slot=0, code=0, signal=None, user_s=0.1, system_s=0.1, max_rss_bytes=1)
LAST = Finished(
    oom_kills=0, process_limit_hits=0, cpu_s=0.1, peak_memory_bytes=1, full_bytes=[], full_inodes=[], unasked=True
)
CODE = b"our code"
PREPARE = Prepare(
    sealing=SEALING,
    filter=b"",
    preloads=[],
    environment=[],
    hand_over=True,
    share_with_group=False,
    most_tasks=None,
    most_locks=None,
)


class Container:
    """The three descriptors of an attached container, and the other ends of them."""

    def __init__(self) -> None:
        self.inside_in, self.stdin = os.pipe()
        self.stdout, self.inside_out = os.pipe()
        self.stderr, self.inside_err = os.pipe()
        os.set_blocking(self.inside_in, False)
        self.streams = Multiplexer(CHANNELS)

    def say(self, *messages: Message) -> None:
        """What init sends."""
        for message in messages:
            self.streams.send(message)
        self.flush()

    def push(self, name: str, data: bytes) -> None:
        """What init has read of the program's end of a channel."""
        self.streams.push(name, data)
        self.flush()

    def flush(self) -> None:
        """Send everything."""
        while self.streams.out:
            sent = unbroken(bytes(self.streams.out[: 1 << 14]))
            assert os.write(self.inside_out, sent) == len(sent)  # a pipe takes as much at once
            del self.streams.out[: 1 << 14]

    def heard(self) -> list[Message]:
        """What the host has sent since; what is of a channel waits in `streams`."""
        try:
            return self.streams.feed(os.read(self.inside_in, 1 << 20))
        except BlockingIOError:
            return []

    def end(self) -> None:
        """The container is gone."""
        for descriptor in (self.inside_out, self.inside_err):
            os.close(descriptor)


@pytest.fixture
async def container() -> AsyncIterator[Container]:
    """A container that has just been started; its streams are closed at the end, by whom they are open."""
    made = Container()
    yield made
    for descriptor in (made.stdin, made.stdout, made.stderr, made.inside_in, made.inside_out, made.inside_err):
        try:
            os.close(descriptor)
        except OSError:
            continue


Begin = Callable[[], Relay]


@pytest.fixture
async def relay(container: Container) -> AsyncIterator[Relay]:
    """A relay that has sent its code and what the container is to become."""
    printed: list[bytes] = []
    made = Relay(container, printed.append)
    made.start(CODE, PREPARE)
    assert os.read(container.inside_in, len(CODE)) == CODE
    assert container.heard() == [PREPARE]
    yield made
    made.close()


async def turns(count: int = 20) -> None:
    """Let the loop do what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


def read(descriptor: int) -> bytes | None:
    """What is there; None if nothing is, b"" at the end."""
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return None


async def test_what_the_program_prints_arrives_and_ends(container: Container, relay: Relay) -> None:
    """On its own pipe each, with its end."""
    container.push("stdout", b"out")
    container.push("stderr", b"err")
    container.push("stdout", b"")
    await turns()
    assert (read(relay.stdout), read(relay.stdout), read(relay.stderr), read(relay.stderr)) == (
        b"out",
        b"",
        b"err",
        None,
    )


async def test_tool_calls_go_both_ways(container: Container, relay: Relay) -> None:
    """Bytes as they are; the end of either side is seen by the other."""
    container.push("tools", b"call")
    await turns()
    assert relay.tools.recv(100) == b"call"
    relay.tools.send(b"answer")
    await turns()
    assert container.heard() == []
    assert bytes(container.streams.waiting("tools")) == b"answer"
    container.push("tools", b"")
    await turns()
    assert relay.tools.recv(100) == b""
    relay.tools.shutdown(socket.SHUT_WR)
    await turns()
    container.heard()
    container.streams.delivered("tools", len(b"answer"))
    assert container.streams.is_over("tools")


async def test_messages_are_heard_by_who_waits_for_them(container: Container, relay: Relay) -> None:
    """Before and after they came."""
    waiting = asyncio.ensure_future(relay.hear(Warmed))
    await turns()
    assert (waiting.done(), relay.is_over) == (False, False)
    container.say(WARM, EXIT)
    assert await waiting == WARM
    assert await relay.hear(Exited) == EXIT
    assert relay.is_over
    await relay.wait_over()


async def test_an_init_that_had_its_last_word_is_told_nothing(container: Container, relay: Relay) -> None:
    """It ends everything by itself at its program's end; what we would have it do then, it hears no more."""
    container.say(WARM)
    await relay.hear(Warmed)
    relay.send(Look())
    container.say(Sealed(facts=FACTS), EXIT)
    await relay.wait_over()
    container.heard()
    container.say(LAST)
    await relay.hear(Finished)
    relay.send(Until(seconds=1.0))
    relay.terminate()
    relay.finish()
    await turns()
    assert container.heard() == []
    assert relay.failure is None


@pytest.mark.parametrize("shut", [True, False], ids=["its end was said", "its end was not said"])
async def test_what_was_said_before_the_end_is_delivered_though_nobody_reads_yet(
    container: Container, relay: Relay, shut: bool
) -> None:
    """More than a pipe holds: the rest comes as it is read, and then the end."""
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    said = os.urandom(200_000)
    for start in range(0, len(said), 50_000):
        container.push("stdout", said[start : start + 50_000])
        await turns()
    if shut:
        container.push("stdout", b"")
    container.end()
    await relay.wait_gone()
    arrived = b""
    while (data := read(relay.stdout)) != b"":
        arrived += data or b""
        await turns(2)
    await turns()
    assert (arrived, troubles) == (said, [])


@pytest.mark.parametrize(
    "lie",
    [
        b"a line\n",
        unbroken(b"no frame at all, and more than eight bytes"),
        unbroken(encode(Go(argv=[], env={}, context=CONTEXT))),
        unbroken(encode(WARM) * 2),
        unbroken(encode(Sealed(facts=FACTS))),
        unbroken(encode(WARM) + encode(Sealed(facts=FACTS))),
        unbroken(encode(Carry(channel="stdin", data=b"x"))),
        unbroken(encode(Carry(channel="tools", data=b"x" * (WINDOW + 1)))),
        unbroken(encode(Replaced(channel="tools"))),
    ],
    ids=[
        "a line break",
        "bytes",
        "a message of the host's",
        "said twice",
        "sealed before it is warm",
        "sealed before the host looks",
        "no such channel",
        "beyond the window",
        "not asked for",
    ],
)
async def test_an_init_that_lies_is_heard_no_further(container: Container, relay: Relay, lie: bytes) -> None:
    """Whoever waits is told that the protocol was broken; what comes behind it does not count."""
    os.set_blocking(container.inside_out, False)
    sent = 0
    while sent < len(lie) and relay.failure is None:
        try:
            sent += os.write(container.inside_out, lie[sent:])
        except BlockingIOError:
            await turns(2)
    await turns()
    os.write(container.inside_out, unbroken(encode(EXIT)))
    await turns()
    with pytest.raises(SetupFailed, match="the container broke the protocol: "):
        await relay.hear(Finished)
    assert relay.heard(Exited) is None


async def test_a_container_that_ends_says_why(container: Container, relay: Relay) -> None:
    """By the last lines of what it printed for people; all who wait are told."""
    os.write(container.inside_err, b"first\ndocker: no such image\n")
    container.end()
    with pytest.raises(SetupFailed, match="container: the container ended: first docker: no such image"):
        await relay.hear(Warmed)
    assert relay.is_over


async def test_a_step_that_failed_is_named(container: Container, relay: Relay) -> None:
    """As init says it."""
    container.say(BuildFailed(slot=0, step="program process", reason="no memory"))
    with pytest.raises(SetupFailed, match="program process: no memory"):
        await relay.hear(Warmed)


async def test_a_new_supervisors_stream_takes_the_place_of_the_old(container: Container, relay: Relay) -> None:
    """init is told, what the old program's half had sent is dropped, and from there on it is the new one's."""
    ours, theirs = socket.socketpair()
    container.push("tools", b"half of a call")
    await turns()
    relay.tools.send(b"an answer")
    with theirs:
        socket.send_fds(relay.tools, [b"\0"], [theirs.fileno()])
    await turns()
    assert container.heard() == [Replaced(channel="tools")]
    container.push("tools", b"the other half")
    container.streams.replace("tools", ask=False)
    container.push("tools", b"new")
    await turns()
    assert ours.recv(100) == b"new"
    ours.send(b"to the new one")
    await turns()
    assert container.heard() == []
    assert bytes(container.streams.waiting("tools")) == b"to the new one"
    ours.close()


async def test_small_frames_are_delivered_a_turn_at_a_time(container: Container, relay: Relay) -> None:
    """A program that prints byte by byte: a turn of the loop delivers at most sixteen frames, and the end is heard."""
    for _ in range(200):
        container.streams.push("stdout", b"x")
    container.flush()
    container.push("stdout", b"")
    found: list[bytes | None] = [None]
    while found[-1] != b"":
        await asyncio.sleep(0)
        found.append(read(relay.stdout))
    sizes = [len(data) for data in found if data]
    assert (sum(sizes), max(sizes) <= TURN_FRAMES) == (200, True)
