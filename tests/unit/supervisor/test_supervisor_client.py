"""The host's end of a supervisor process, where no program is needed to see it fail."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from isorun.core.errors import Unavailable
from isorun.core.sent.claim import Claim
from isorun.settings import base_environment
from isorun.supervisor.client import Supervisor
from isorun.supervisor.descriptor import load_descriptor
from isorun.supervisor.incarnation import Incarnation, LocalProcess
from isorun.supervisor.opened import OpenedRun
from isorun.supervisor.session import CallLimits
from isorun.wire.frames import Frames
from isorun.wire.messages import (
    Call,
    CallAnswered,
    Loaded,
    Message,
    Placed,
    Reply,
    RunClosed,
    decode,
    decode_packet,
    encode,
)
from tests.bundles import write_bundle

LIMITS = CallLimits(calls=100, at_once=4, call_s=30.0, frame_bytes=1 << 24)
TOOLS = """
import os, time
@isorun.tool
def pid() -> int:
    '''Who am I.'''
    return os.getpid()
@isorun.tool
async def blocks(seconds: float) -> None:
    '''Block the loop, as no coroutine should.'''
    time.sleep(seconds)
"""
_PATIENCE_S = 30.0


class Heard:
    """A run's listener; a full disk if told so."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.disk_is_full = False

    def told(self, component: str, level: str, text: str) -> None:
        if self.disk_is_full:
            raise OSError(28, "No space left on device")
        self.lines.append(text)

    def logged(self, level: str, name: str, text: str) -> None:
        self.told(name, level, text)

    def claimed(self, claim: Claim) -> None:
        self.told("", "", claim.type)

    def violated(self, reason: str) -> None:
        self.told("", "", reason)

    def began(self, record: dict[str, Any]) -> None:
        pass

    def called(self, record: dict[str, Any]) -> None:
        self.journalled([record])

    def journalled(self, records: Sequence[dict[str, Any]]) -> None:
        if self.disk_is_full:
            raise OSError(28, "No space left on device")
        self.records += records


class Host:
    """A supervisor and the runs that a test gives it."""

    def __init__(self, supervisor: Supervisor, out: int, stack: ExitStack) -> None:
        self.supervisor, self._out, self._stack = supervisor, out, stack

    async def open(self, heard: Heard, grants: list[str]) -> tuple[OpenedRun, socket.socket]:
        """A run, and the program's end of its stream."""
        ours, theirs = (self._stack.enter_context(end) for end in socket.socketpair())
        ours.setblocking(False)
        theirs.setblocking(False)
        run = await self.supervisor.open(
            exec_id="e",
            turn="turn_1",
            user="",
            grants=grants,
            limits=LIMITS,
            stream=ours,
            out=self._out,
            listener=heard,
        )
        return run, theirs


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    descriptor = load_descriptor(write_bundle(tmp_path / "bundle", x=TOOLS))
    with ExitStack() as stack:
        out = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, out)
        async with Supervisor(descriptor, base_environment()) as supervisor:
            yield Host(supervisor, out, stack)


async def answer(stream: socket.socket, number: int, tool: str = "x.pid", **params: object) -> Any:  # noqa: ANN401 - a result
    """The result of a call over *stream*."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(stream, encode(Call(id=number, tool=tool, params=params, reason="", timeout_s=None)))
    reply = decode_packet(await asyncio.wait_for(loop.sock_recv(stream, 1 << 16), _PATIENCE_S))
    assert isinstance(reply, Reply)
    return reply.value


async def replacement(stream: socket.socket) -> socket.socket:
    """The stream that comes over *stream* when the supervisor is replaced."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(stream, lambda: readable.done() or readable.set_result(None))
    await asyncio.wait_for(readable, _PATIENCE_S)
    loop.remove_reader(stream)
    data, (descriptor,), _, _ = socket.recv_fds(stream, 1, 1)
    assert data == b"\0"
    new = socket.socket(fileno=descriptor)
    new.setblocking(False)
    return new


async def test_a_run_whose_log_cannot_be_written_costs_the_others_nothing(host: Host) -> None:
    """A listener that raises, as on a full disk, does not end the hearing of the process."""
    full, fine = Heard(), Heard()
    first, stream = await host.open(full, ["x.pid"])
    second, other = await host.open(fine, ["x.pid"])
    full.disk_is_full = True
    await answer(stream, 1)
    await answer(other, 1)
    await first.close()
    await second.close()
    assert [record["status"] for record in fine.records] == ["ok"]


async def test_a_run_that_could_not_be_handed_over_can_be_closed(host: Host) -> None:
    """Its program took no new stream, so the new process knows nothing of it; closing it ends nobody else's run."""
    gone, kept = Heard(), Heard()
    first, stream = await host.open(gone, ["x.pid"])
    second, other = await host.open(kept, ["x.pid"])
    os.kill(await answer(other, 1), signal.SIGKILL)
    stream.close()
    new = await replacement(other)
    pid = await answer(new, 2)
    first.closed = asyncio.get_running_loop().create_future()  # as of one that was opened while no process was there
    await asyncio.wait_for(first.close(), 4)
    assert await answer(new, 3) == pid
    await second.close()
    new.close()


async def test_a_process_that_takes_no_more_runs_is_not_waited_for(host: Host) -> None:
    """A run that finds its socket full has no tools, and is told; once it goes on, those before it are answered."""
    heard = Heard()
    first, stream = await host.open(heard, ["x.pid"])
    pid = await answer(stream, 1)
    os.kill(pid, signal.SIGSTOP)
    names = [f"x.{'long' * 50}{n}" for n in range(100)]
    runs: list[tuple[Heard, OpenedRun, socket.socket]] = []
    while not runs or not runs[-1][0].lines:
        late = Heard()
        runs.append((late, *await host.open(late, names)))
    assert runs[-1][0].lines == ["the supervisor does not answer: this run has no tools"]
    assert runs[-1][2].recv(1) == b""
    os.kill(pid, signal.SIGCONT)
    assert await answer(stream, 2) == pid
    for run in (first, *(run for _, run, _ in runs)):
        await asyncio.wait_for(run.close(), _PATIENCE_S)
    third, again = await host.open(Heard(), ["x.pid"])
    assert await answer(again, 1) == pid
    await third.close()


async def test_a_run_that_begins_as_a_process_is_killed_gets_the_next_one(host: Host) -> None:
    """Nothing is lost of what was never handed over: its first call is answered, and is no call of a dead process."""
    heard = Heard()
    process = host.supervisor._process
    assert process is not None
    process.kill()
    run, stream = await host.open(heard, ["x.pid"])
    assert isinstance(await asyncio.wait_for(answer(stream, 1), _PATIENCE_S), int)
    assert "the supervisor was started anew" not in heard.lines
    await run.close()
    assert [record["status"] for record in heard.records] == ["ok"]


async def test_a_place_that_is_away_does_not_end_the_keeping(tmp_path: Path) -> None:
    """A supervisor that cannot be started anew, because a daemon is away, say, is tried again with the next run."""
    starts: list[int] = []

    async def start(globals_json: str, environment: Mapping[str, str]) -> LocalProcess:
        starts.append(len(starts))
        if starts[-1] == 1:
            raise Unavailable("the Docker engine does not answer")
        return await LocalProcess.start(globals_json, environment)

    descriptor = load_descriptor(write_bundle(tmp_path / "b", x=TOOLS))
    async with Supervisor(descriptor, base_environment(), start=start) as supervisor:
        first = supervisor._process
        assert first is not None
        first.kill()
        async with asyncio.timeout(_PATIENCE_S):
            while len(starts) < 2:  # noqa: ASYNC110 - the keeper's own steps are told to nobody
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert (supervisor._process, supervisor._keeper.done()) == (None, False)
        with ExitStack() as stack:
            out = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, out)
            heard = Heard()
            run, stream = await Host(supervisor, out, stack).open(heard, ["x.pid"])
            assert await answer(stream, 1) > 0  # what was asked before the process was there is answered
            await run.close()
        assert [record["status"] for record in heard.records] == ["ok"]


class Peer:
    """A process that has said that it serves, and of which *theirs* is all that is left."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.output, writer = os.pipe()
        os.close(writer)
        self.socket.setblocking(False)
        self.theirs.settimeout(_PATIENCE_S)
        self.theirs.sendall(encode(Loaded(tools={}, services={})) + encode(Placed(refused="")))

    async def incarnation(self) -> Incarnation:
        """The host's end, once it serves."""
        made = Incarnation(self, lambda _: None)
        await made.load()
        await made.place({})
        return made

    def kill(self) -> None:
        pass

    def wait(self, timeout_s: float | None) -> bool:
        return True

    def ending(self) -> str:
        return "exit code 0"

    def close(self) -> None:
        self.theirs.close()


async def test_the_end_of_a_process_ends_the_hearing_of_it() -> None:
    """Also in the middle of a flood: the number of its socket is soon another's."""
    process = Peer()
    number = process.socket.fileno()
    incarnation = await process.incarnation()
    process.theirs.sendall(b"".join(encode(RunClosed(run=number)) for number in range(1000)))
    heard: list[Message] = []
    hearing = asyncio.ensure_future(incarnation.hear(heard.append))
    await asyncio.sleep(0)
    assert await asyncio.wait_for(incarnation.end(), _PATIENCE_S) == "exit code 0"
    await asyncio.wait_for(hearing, _PATIENCE_S)
    assert not asyncio.get_running_loop().remove_reader(number)


@pytest.fixture
def often() -> Iterator[None]:
    """Threads change places at every occasion."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


async def test_threads_send_whole_messages_at_once(often: None) -> None:
    """The first is larger than what the socket has room for, and is not mixed with those that others send meanwhile."""
    process = Peer()
    incarnation = await process.incarnation()
    rounds = 20
    together = threading.Barrier(4, timeout=_PATIENCE_S)

    def answer(run: int) -> None:
        for number in range(rounds):
            together.wait()
            incarnation.send(CallAnswered(run=run, call=number, value="x" * 300_000))

    def read() -> list[Message]:
        frames, got = Frames(), []
        for turn in range(rounds):
            together.wait()
            while len(got) < 1 + 3 * (turn + 1):  # with `Place`
                frames.feed(process.theirs.recv(1 << 16))
                while (frame := frames.next()) is not None:
                    got.append(decode(*frame))
        return got

    got, *_ = await asyncio.gather(asyncio.to_thread(read), *(asyncio.to_thread(answer, run) for run in range(3)))
    answers = [(one.run, one.call) for one in got if isinstance(one, CallAnswered)]
    assert sorted(answers) == [(run, number) for run in range(3) for number in range(rounds)]
    await incarnation.end()
