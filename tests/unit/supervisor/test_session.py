"""One run's tool stream at the trusted end: who is answered, when, and that no byte brings it down."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isorun.core.sent.claim import Claim
from isorun.core.share import TURN_FRAMES
from isorun.supervisor import session as supervisor_session
from isorun.supervisor.serving.held import HeldCalls
from isorun.supervisor.session import NESTED, NO_SUCH_TOOL, CallLimits, Refusal, ToolSession
from isorun.wire.frames import MAX_FRAME, PREFIX_BYTES, Frames
from isorun.wire.messages import (
    Call,
    CallAnswered,
    CallGivenUp,
    CallHeld,
    CallRefused,
    Ended,
    Log,
    Message,
    Refused,
    Reply,
    decode,
    encode,
)

LIMITS = CallLimits(calls=100, at_once=4, call_s=30.0, frame_bytes=MAX_FRAME)


@dataclass
class Heard:
    """A listener that keeps everything, in order."""

    logs: list[tuple[str, str, str]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)

    def logged(self, level: str, name: str, text: str) -> None:
        self.logs.append((level, name, text))

    def claimed(self, claim: Claim) -> None:
        self.claims.append(claim)

    def violated(self, reason: str) -> None:
        self.violations.append(reason)

    def began(self, record: dict[str, Any]) -> None:
        assert "status" not in record
        self.begun.append(record["call_id"])

    def called(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    @property
    def endings(self) -> list[tuple[int, str]]:
        return [(record["call_id"], record["status"]) for record in self.records]


@dataclass
class Does:
    """A granted tool that does what the test says."""

    does: Callable[[int, dict[str, Any], float], Awaitable[object]]
    max_calls: int | None = None
    timeout_s: float | None = None

    async def answer(self, call_id: int, params: dict[str, Any], deadline: float) -> object:
        return await self.does(call_id, params, deadline)

    async def sendable(self, call_id: int, value: object) -> object:
        return value


async def _echo(call_id: int, params: dict[str, Any], deadline: float) -> object:
    return params


ECHO = Does(_echo)


class Program:
    """The other end: sends what it likes, reads what comes."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self.channel = channel
        self._frames = Frames()

    async def send(self, *messages: Message | bytes) -> None:
        """All of it; bytes go as they are."""
        data = b"".join(m if isinstance(m, bytes) else encode(m) for m in messages)
        await asyncio.get_running_loop().sock_sendall(self.channel, data)

    def sends_what_fits(self, data: bytes) -> int:
        """How much of *data* the socket takes without waiting."""
        sent = 0
        try:
            while sent < len(data):
                sent += self.channel.send(data[sent : sent + 65536])
        except BlockingIOError:
            pass
        return sent

    async def read(self, count: int = 1) -> list[Any]:
        """The next *count* answers."""
        answers: list[Any] = []
        while len(answers) < count:
            if (frame := self._frames.next()) is not None:
                answers.append(decode(*frame))
                continue
            data = await asyncio.get_running_loop().sock_recv(self.channel, 1 << 20)
            assert data, "the stream ended"
            self._frames.feed(data)
        return answers


def call(number: int = 1, tool: str = "x.f", timeout_s: float | None = None, **params: object) -> Call:
    return Call(id=number, tool=tool, params=params, reason="because", timeout_s=timeout_s)


@dataclass
class Scene:
    session: ToolSession
    program: Program
    heard: Heard


@asynccontextmanager
async def scene(
    granted: Mapping[str, Any] | None = None,
    apart: ThreadPoolExecutor | None = None,
    held: HeldCalls | None = None,
    **limits: float,
) -> AsyncIterator[Scene]:
    """A session that grants *granted* (default: `x.f`, an echo), and a program on the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        heard = Heard()
        granted = {**({"x.f": ECHO} if granted is None else granted), **(held.tools() if held else {})}
        session = ToolSession(ours, granted, replace(LIMITS, **limits), heard, apart=apart)
        try:
            yield Scene(session, Program(theirs), heard)
        finally:
            await session.close()


async def until(true: Callable[[], object]) -> None:
    """Let the loop work until *true* gives something true."""
    while not true():  # noqa: ASYNC110 - a predicate over what a listener heard; it sets no event
        await asyncio.sleep(0)


async def test_a_call_gets_its_result_and_a_record() -> None:
    """The value comes under the call's id; the record has what was asked, what came of it, and when."""
    async with scene() as s:
        before = time.time()
        await s.program.send(call(7, a=[1, b"\xff"]))
        assert await s.program.read() == [Reply(id=7, value={"a": [1, b"\xff"]})]
        (record,) = s.heard.records
        assert {k: v for k, v in record.items() if k not in ("ms", "started_at")} == {
            "call_id": 7,
            "tool_id": "x.f",
            "reason": "because",
            "status": "ok",
            "params": {"a": [1, b"\xff"]},
            "result": {"a": [1, b"\xff"]},
        }
        assert 0 <= record["ms"] < 10_000
        assert before <= record["started_at"] <= time.time()


async def test_calls_overlap_and_are_answered_as_they_end() -> None:
    """A slow call holds nobody up: answers come in the order in which tools end, each under its own id."""
    events = {number: asyncio.Event() for number in (1, 2, 3)}

    async def waits(call_id: int, params: dict[str, Any], deadline: float) -> object:
        await events[call_id].wait()
        return call_id

    async with scene({"x.f": Does(waits)}) as s:
        await s.program.send(*(call(n) for n in (1, 2, 3)))
        await until(lambda: len(s.heard.begun) == 3)
        for number in (2, 3, 1):
            events[number].set()
            assert await s.program.read() == [Reply(id=number, value=number)]
        assert s.heard.endings == [(2, "ok"), (3, "ok"), (1, "ok")]


@pytest.mark.parametrize(
    "tool", ["x.g", "x", "", "x.f.g", "X.F", "x.__class__", "x._private", "__import__", "os.system", "x.f\0", "../x.f"]
)
async def test_one_answer_for_unknown_and_not_granted(tool: str) -> None:
    """A name that is not granted gets one text, whatever it is, and a record; nothing is begun."""
    async with scene() as s:
        await s.program.send(call(1, tool))
        assert await s.program.read() == [Refused(id=1, error="ToolDenied", text=NO_SUCH_TOOL)]
        assert s.heard.endings == [(1, "ToolDenied")]
        assert s.heard.begun == []


async def test_a_program_cannot_start_another_run() -> None:
    """exec_tools is denied with its reason."""
    async with scene() as s:
        await s.program.send(call(1, "exec_tools.execute_code_python"))
        assert await s.program.read() == [Refused(id=1, error="ToolDenied", text=NESTED)]


async def test_a_refusal_has_its_kind_and_text() -> None:
    """What the tool's side refuses with is what the program and the record get."""

    async def refuses(call_id: int, params: dict[str, Any], deadline: float) -> object:
        raise Refusal("ToolInputInvalid", "x.f: a: wrong")

    async with scene({"x.f": Does(refuses)}) as s:
        await s.program.send(call())
        assert await s.program.read() == [Refused(id=1, error="ToolInputInvalid", text="x.f: a: wrong")]
        (record,) = s.heard.records
        assert (record["status"], record["error"], "result" in record) == ("ToolInputInvalid", "x.f: a: wrong", False)


async def test_the_text_of_a_refusal_is_short_and_can_be_sent() -> None:
    """A text of megabytes is cut and lone surrogates are replaced: the call is answered all the same."""
    texts = ["y" * (20 << 20), "name \udcff", "\ud800" * 10_000]

    async def refuses(call_id: int, params: dict[str, Any], deadline: float) -> object:
        raise Refusal("ToolFailed", texts[call_id])

    async with scene({"x.f": Does(refuses)}) as s:
        await s.program.send(call(0), call(1), call(2))
        answers = sorted(await s.program.read(3), key=lambda answer: answer.id)
        assert [answer.text for answer in answers] == ["y" * 8192, "name ?", "?" * 8192]
        assert {record["error"] for record in s.heard.records} == {answer.text for answer in answers}


class _Changing(dict):
    """As a dict that another thread changes while it is looked at."""

    def items(self) -> Any:  # noqa: ANN401 - it gives nothing
        raise RuntimeError("dictionary changed size during iteration: /secret")


_CYCLE: list[object] = []
_CYCLE.append(_CYCLE)
UNSENDABLE = {
    "an object": (object(), "the tool's result cannot be sent: value: object cannot be sent"),
    "in a list": ([1, {"a": {2}}], "the tool's result cannot be sent: value[1].a: set cannot be sent"),
    "cyclic": (_CYCLE, "the tool's result cannot be sent: value[0]: it contains itself"),
    "NaN": (float("nan"), "the tool's result cannot be sent: value: nan cannot be sent"),
    "keys": ({1: 2}, "the tool's result cannot be sent: value: keys must be str, got int"),
    "surrogate": ("\ud800", "the tool's result cannot be sent: value: text with a lone surrogate cannot be sent"),
    "too large": (
        bytes(MAX_FRAME),
        f"the tool's result cannot be sent: value: the frame would exceed {MAX_FRAME} bytes here",
    ),
    "changing": (_Changing(a=1, b=2), "the tool failed (call 1)"),
}


@pytest.mark.parametrize("case", UNSENDABLE)
async def test_a_result_that_cannot_be_sent_is_a_failure(case: str) -> None:
    """The program is told so by path, the session goes on, and the next call is answered."""
    value, text = UNSENDABLE[case]

    async def gives(call_id: int, params: dict[str, Any], deadline: float) -> object:
        return value if call_id == 1 else "fine"

    async with scene({"x.f": Does(gives)}, at_once=1) as s:
        await s.program.send(call(1), call(2))
        assert await s.program.read(2) == [Refused(id=1, error="ToolFailed", text=text), Reply(id=2, value="fine")]
        assert s.heard.endings == [(1, "ToolFailed"), (2, "ok")]


async def test_a_small_frame_limit_holds_for_results() -> None:
    """The run's own limit counts, to the byte."""

    async def gives(call_id: int, params: dict[str, Any], deadline: float) -> object:
        return b"x" * params["n"]

    overhead = len(encode(Reply(id=1, value=b""))) - PREFIX_BYTES + len("100") - len("0")
    async with scene({"x.f": Does(gives)}, frame_bytes=overhead + 900) as s:
        await s.program.send(call(1, n=900))
        assert await s.program.read() == [Reply(id=1, value=b"x" * 900)]
        await s.program.send(call(1, n=901))
        (answer,) = await s.program.read()
        assert answer.error == "ToolFailed"


async def test_an_answering_that_breaks_its_word_is_a_failure() -> None:
    """An exception that should not come from there holds no place for ever, and its text is not told."""

    async def breaks(call_id: int, params: dict[str, Any], deadline: float) -> object:
        raise KeyError("s3cret")

    async with scene({"x.f": Does(breaks), "x.g": ECHO}, at_once=1) as s:
        await s.program.send(call(1), call(2, "x.g"))
        assert await s.program.read(2) == [
            Refused(id=1, error="ToolFailed", text="the tool failed (call 1)"),
            Reply(id=2, value={}),
        ]


# Ceilings


async def test_the_budget_counts_every_call_that_is_made() -> None:
    """Refused calls count too; beyond the budget each is answered and none is recorded."""
    async with scene(calls=3) as s:
        await s.program.send(call(1), call(2, "no.such"), call(3), *(call(n) for n in range(4, 50)))
        answers = await s.program.read(49)
        over = [answer for answer in answers if isinstance(answer, Refused) and answer.error == "ToolBudgetExceeded"]
        assert [answer.id for answer in over] == list(range(4, 50))
        assert {answer.text for answer in over} == {"this run may make 3 tool calls (ISORUN_MAX_TOOL_CALLS)"}
        assert sorted(s.heard.endings) == [(1, "ok"), (2, "ToolDenied"), (3, "ok")]


async def test_a_call_within_the_budget_is_recorded_whatever_is_made_after_it() -> None:
    """A program cannot keep a failing call out of the journal by using up its budget meanwhile."""
    release = asyncio.Event()

    async def fails_late(call_id: int, params: dict[str, Any], deadline: float) -> object:
        await release.wait()
        raise Refusal("ToolFailed", "late")

    async with scene({"x.f": Does(fails_late)}, calls=2) as s:
        await s.program.send(*(call(n) for n in range(1, 10)))
        await s.program.read(7)
        release.set()
        await s.program.read(2)
        assert sorted(s.heard.endings) == [(1, "ToolFailed"), (2, "ToolFailed")]


async def test_a_tool_has_a_budget_of_its_own() -> None:
    """`max_calls` bounds that tool, and no other."""
    async with scene({"x.f": Does(_echo, max_calls=1), "x.g": ECHO}) as s:
        await s.program.send(call(1), call(2), call(3, "x.g"))
        answers = {answer.id: answer for answer in await s.program.read(3)}
        assert answers[2] == Refused(
            id=2, error="ToolBudgetExceeded", text="this run may call x.f 1 times (max_calls of its @isorun.tool)"
        )
        assert (type(answers[1]), type(answers[3])) == (Reply, Reply)


async def test_no_more_than_at_once_run_together() -> None:
    """The others wait for their turn, in order, and each end lets one begin."""
    running: list[int] = []
    most = 0
    release = asyncio.Semaphore(0)

    async def works(call_id: int, params: dict[str, Any], deadline: float) -> object:
        nonlocal most
        running.append(call_id)
        most = max(most, len(running))
        await release.acquire()
        running.remove(call_id)
        return None

    async with scene({"x.f": Does(works)}, at_once=3) as s:
        await s.program.send(*(call(n) for n in range(1, 11)))
        await until(lambda: len(running) == 3)
        assert s.heard.begun == [1, 2, 3]
        for _ in range(10):
            release.release()
            await s.program.read()
        assert (most, s.heard.begun) == (3, list(range(1, 11)))


async def test_a_call_that_waits_for_its_turn_expires() -> None:
    """Its deadline counts from when it was read; the tool is never begun for it, and the queue goes on."""
    release = asyncio.Event()

    async def holds(call_id: int, params: dict[str, Any], deadline: float) -> object:
        await release.wait()
        return call_id

    async with scene({"x.f": Does(holds)}, at_once=1) as s:
        await s.program.send(call(1), call(2, timeout_s=0.05), call(3))
        text = "the deadline passed before it was this call's turn"
        assert await s.program.read() == [Refused(id=2, error="ToolTimeout", text=text)]
        release.set()
        assert await s.program.read(2) == [Reply(id=1, value=1), Reply(id=3, value=3)]
        assert s.heard.begun == [1, 3]


DEADLINES = [(None, 30.0), (5.0, 5.0), (1e300, 30.0), (0.0, 0.0), (-5.0, 0.0)]


@pytest.mark.parametrize(("asked", "seconds"), DEADLINES)
async def test_a_call_may_shorten_its_time_and_not_lengthen_it(asked: float | None, seconds: float) -> None:
    """The deadline that a tool is given is the asked time, between zero and the run's own."""
    given_: list[float] = []

    async def notes(call_id: int, params: dict[str, Any], deadline: float) -> object:
        given_.append(deadline - time.monotonic())
        return None

    async with scene({"x.f": Does(notes)}) as s:
        await s.program.send(call(timeout_s=asked))
        await s.program.read()
        assert seconds - 2 < given_[0] <= seconds


async def test_each_call_is_cancelled_at_its_own_time() -> None:
    """Whichever was sent first; a tool's own time counts from when it is begun, and others go on."""
    release = asyncio.Event()
    cancelled: list[int] = []

    async def waits(call_id: int, params: dict[str, Any], deadline: float) -> object:
        try:
            await release.wait()
        except asyncio.CancelledError:
            cancelled.append(call_id)
            raise
        return call_id

    tools = {"x.f": Does(waits), "x.g": Does(waits, timeout_s=0.2)}
    async with scene(tools, at_once=3) as s:
        await s.program.send(call(1), call(2, timeout_s=0.8), call(3, timeout_s=0.4), call(4, tool="x.g"))
        assert await s.program.read(3) == [
            Refused(id=3, error="ToolTimeout", text="x.f took longer than 0.4 s"),
            Refused(id=4, error="ToolTimeout", text="x.g took longer than 0.2 s"),
            Refused(id=2, error="ToolTimeout", text="x.f took longer than 0.8 s"),
        ]
        assert cancelled == [3, 4, 2]
        release.set()
        assert await s.program.read() == [Reply(id=1, value=1)]


async def test_a_tool_may_use_its_last_moment() -> None:
    """A tool that answers its cancellation with a result, or an error of its own, has that for an answer."""

    async def tidies(call_id: int, params: dict[str, Any], deadline: float) -> object:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if call_id == 2:
                raise Refusal("ToolFailed", "half done") from None
            return "half of it"

    async with scene({"x.f": Does(tidies)}) as s:
        await s.program.send(call(1, timeout_s=0.05), call(2, timeout_s=0.1))
        assert await s.program.read(2) == [
            Reply(id=1, value="half of it"),
            Refused(id=2, error="ToolFailed", text="half done"),
        ]


async def test_a_tool_that_ignores_that_its_time_is_over_is_given_up() -> None:
    """A coroutine that swallows its cancellation is answered for, its place is free again, its result is nobody's."""
    release = asyncio.Event()

    async def deaf(call_id: int, params: dict[str, Any], deadline: float) -> object:
        while call_id == 1 and not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return "late"

    async with scene({"x.f": Does(deaf)}, at_once=1) as s:
        await s.program.send(call(1, timeout_s=0.05), call(2))
        assert await s.program.read(2) == [
            Refused(id=1, error="ToolTimeout", text="x.f did not end when its time was over"),
            Reply(id=2, value="late"),
        ]
        release.set()
        await s.program.send(call(1))
        assert await s.program.read() == [Reply(id=1, value="late")]
        assert s.heard.endings == [(1, "ToolTimeout"), (2, "ok"), (1, "ok")]


# Back-pressure


async def test_a_program_that_reads_nothing_is_read_no_further() -> None:
    """With a megabyte of answers unread, no more calls are read or begun; once read, all of them are answered."""

    async def large(call_id: int, params: dict[str, Any], deadline: float) -> object:
        return b"x" * 600_000

    async with scene({"x.f": Does(large)}, calls=1000, at_once=2) as s:
        calls = b"".join(encode(call(n, pad="p" * 4000)) for n in range(1, 401))
        sent = s.program.sends_what_fits(calls)
        await until(lambda: len(s.heard.records) >= 3)
        for _ in range(1000):
            await asyncio.sleep(0)  # whatever the session still wants to do, it can
            sent += s.program.sends_what_fits(calls[sent:])
        assert sent < len(calls)
        assert len(s.heard.records) <= 6  # 1 MiB, the socket's own buffer, and what was running
        rest = asyncio.create_task(s.program.send(calls[sent:]))
        answers = await s.program.read(400)
        await rest
        assert {type(answer) for answer in answers} == {Reply}
        assert sorted(answer.id for answer in answers) == list(range(1, 401))


async def test_calls_that_cannot_be_begun_stop_the_reading() -> None:
    """With 64 calls open the stream is read no further: what a program sends then stays with the program."""
    release = asyncio.Event()

    async def holds(call_id: int, params: dict[str, Any], deadline: float) -> object:
        await release.wait()
        return None

    async with scene({"x.f": Does(holds)}, calls=10_000, at_once=4) as s:
        calls = b"".join(encode(call(n, pad="p" * 4000)) for n in range(1, 1001))
        sent = s.program.sends_what_fits(calls)
        for _ in range(1000):
            await asyncio.sleep(0)
            sent += s.program.sends_what_fits(calls[sent:])
        assert sent < len(calls) / 2
        release.set()
        rest = asyncio.create_task(s.program.send(calls[sent:]))
        assert len(await s.program.read(1000)) == 1000
        await rest


async def test_calls_that_ask_much_stop_the_reading() -> None:
    """With 32 MiB of parameters open the stream is read no further, until some of these calls have ended."""
    release = asyncio.Event()

    async def holds(call_id: int, params: dict[str, Any], deadline: float) -> object:
        await release.wait()
        return None

    async with scene({"x.f": Does(holds)}, at_once=2) as s:
        sent: list[int] = []

        async def sends() -> None:
            for n in range(1, 31):
                await s.program.send(call(n, a=b"x" * (4 << 20)))
                sent.append(n)

        sending = asyncio.create_task(sends())
        before = -1
        while before < len(sent):  # until it takes nothing in a while
            before = len(sent)
            await asyncio.sleep(0.5)
        assert len(sent) <= 10
        release.set()
        assert len(await s.program.read(30)) == 30
        await sending


# Records and claims


@pytest.mark.slow
async def test_many_small_values_fill_a_runs_share_of_the_journal() -> None:
    """What is counted is the memory that they take in the host: 64 KiB of empty lists are a megabyte and more."""

    async def nothing(call_id: int, params: dict[str, Any], deadline: float) -> object:
        return None

    async with scene({"x.f": Does(nothing)}, calls=1000) as s:
        for n in range(1, 262):  # a text is as large as it is long: these leave some 1.2 MB of 16 MiB
            await s.program.send(call(n, a="x" * 60_000 if n < 259 else [[]] * 20_000))
            await s.program.read()
        assert ["a" in record["params"] for record in s.heard.records] == [True] * 259 + [False] * 2


async def test_large_values_are_left_out_of_the_record() -> None:
    """More than 64 KiB of params or result is journalled by its size."""

    async def doubles(call_id: int, params: dict[str, Any], deadline: float) -> object:
        return params["a"] * 2

    async with scene({"x.f": Does(doubles)}) as s:
        await s.program.send(call(1, a=b"x" * 40_000))
        await s.program.send(call(2, a=b"x" * 70_000))
        await s.program.read(2)
        first, second = s.heard.records
        assert first["params"] == {"a": b"x" * 40_000}
        assert 80_000 <= first["result"]["omitted_bytes"] < 80_200
        assert 70_000 <= second["params"]["omitted_bytes"] < 70_200


async def test_the_record_is_what_was_asked_and_sent() -> None:
    """What a tool does to its params, and later to its result, does not change the journal."""
    shared: dict[str, Any] = {"n": [1]}

    async def spoils(call_id: int, params: dict[str, Any], deadline: float) -> object:
        params["a"].append(params)
        return shared

    async with scene({"x.f": Does(spoils)}) as s:
        await s.program.send(call(a=[1]))
        await s.program.read()
        shared["n"].append(object())
        assert (s.heard.records[0]["params"], s.heard.records[0]["result"]) == ({"a": [1]}, {"n": [1]})


async def test_what_a_program_says_of_itself_is_bounded() -> None:
    """Log records and claims are cut; a level that is no word becomes INFO; so are a record's tool and reason."""
    async with scene() as s:
        await s.program.send(
            Log(level="WARNING", name="n" * 1000, text="t" * 100_000),
            Log(level="INFO] [host", name="n", text="t"),
            Call(id=1, tool="t" * 1000, params={}, reason="r" * 10_000, timeout_s=None),
            Ended(claim=Claim(type="T" * 1000, message="m" * 10_000, errno=28, line=3, source="s" * 1000)),
        )
        await until(lambda: s.heard.claims)
        assert s.heard.logs == [("WARNING", "n" * 200, "t" * 8192), ("INFO", "n", "t")]
        assert s.heard.claims == [Claim(type="T" * 200, message="m" * 4096, errno=28, line=3, source="s" * 200)]
        assert (s.heard.records[0]["tool_id"], s.heard.records[0]["reason"]) == ("t" * 200, "r" * 1000)


async def test_log_records_are_counted() -> None:
    """Ten thousand are handed on, and no more."""
    async with scene() as s:
        await s.program.send(encode(Log(level="INFO", name="n", text="t")) * 10_050, call(1))
        await s.program.read()
        assert len(s.heard.logs) == 10_000


# Violations and the end


VIOLATIONS = {
    "a reused id": ((call(5), call(5)), "call 5 is already in flight"),
    "the supervisor's part": ((Reply(id=1, value=1),), "program may not send Reply when open"),
    "a call after the end": (
        (Ended(claim=Claim(type="E")), call(1)),
        "program may not send Call when ended",
    ),
    "an oversized frame": ((b"\xff" * 8,), f"frame of 4294967295 bytes exceeds {MAX_FRAME}"),
}


@pytest.mark.parametrize("case", VIOLATIONS)
async def test_a_violation_is_told_once_and_ends_the_reading(case: str) -> None:
    """What follows it is not read, and nothing more is answered."""
    sent, reason = VIOLATIONS[case]

    async def holds(call_id: int, params: dict[str, Any], deadline: float) -> object:
        return await asyncio.get_running_loop().create_future()

    async with scene({"x.f": Does(holds), "x.g": ECHO}) as s:
        await s.program.send(*sent, call(9, "x.g"), b"\xff" * 100)
        await until(lambda: s.heard.violations)
        await s.session.close()
        assert s.heard.violations == [reason]
        assert (9, "ok") not in s.heard.endings
        with pytest.raises(BlockingIOError):
            s.program.channel.recv(1)


async def test_an_id_may_be_used_again_once_it_is_answered() -> None:
    """The control of the reused id: in flight it is a violation, afterwards it is not."""
    async with scene() as s:
        for _ in range(3):
            await s.program.send(call(5))
            assert await s.program.read() == [Reply(id=5, value={})]
        assert s.heard.violations == []


async def test_close_takes_the_last_claim_and_cancels_what_is_open() -> None:
    """Open calls are journalled as cancelled; what the dead program had said is heard, its calls are not."""
    started: list[int] = []
    cancelled: list[int] = []

    async def holds(call_id: int, params: dict[str, Any], deadline: float) -> object:
        started.append(call_id)
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(call_id)
            raise

    async with scene({"x.f": Does(holds)}, at_once=1) as s:
        await s.program.send(call(1), call(2))
        await until(lambda: started)
        claim = Claim(type="ValueError", message="no", errno=None, line=3, source="x")
        s.program.channel.setblocking(True)
        s.program.channel.sendall(
            encode(call(3)) + encode(Log(level="INFO", name="n", text="last")) + encode(Ended(claim=claim))
        )
        s.program.channel.close()
        await s.session.close()
        assert sorted(s.heard.endings) == [(1, "cancelled"), (2, "cancelled")]
        assert {record["error"] for record in s.heard.records} == {"the run ended before the tool did"}
        assert (s.heard.claims, s.heard.logs) == ([claim], [("INFO", "n", "last")])
        assert s.heard.begun == [1]
        await until(lambda: cancelled == [1])
        await s.session.close()
        assert len(s.heard.records) == 2


async def test_close_hears_what_had_to_wait_for_room() -> None:
    """A claim behind more calls than are taken at once is heard at the end, also when it was read long before."""

    async def holds(call_id: int, params: dict[str, Any], deadline: float) -> object:
        return await asyncio.get_running_loop().create_future()

    async with scene({"x.f": Does(holds)}, at_once=1) as s:
        claim = Claim(type="MemoryError")
        await s.program.send(*(call(n) for n in range(1, 101)), Ended(claim=claim))
        await until(lambda: s.heard.begun)
        await s.session.close()
        assert s.heard.claims == [claim]


async def test_nothing_is_told_after_close() -> None:
    """A tool that ends later than its run tells nobody, and nothing is sent."""
    release = asyncio.Event()

    async def deaf(call_id: int, params: dict[str, Any], deadline: float) -> object:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    async with scene({"x.f": Does(deaf)}) as s:
        await s.program.send(call(1))
        await until(lambda: s.heard.begun)
        await s.session.close()
        release.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert s.heard.endings == [(1, "cancelled")]
        with pytest.raises(BlockingIOError):
            s.program.channel.recv(1)


async def test_descriptors_that_come_along_are_not_taken() -> None:
    """SCM_RIGHTS beside a legal call: the call is answered, and no descriptor of ours is the sender's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with scene() as s:
            await s.program.send()
            s.program.channel.setblocking(True)
            socket.send_fds(s.program.channel, [encode(call(1))], [theirs.fileno()] * 20)
            s.program.channel.setblocking(False)
            assert await s.program.read() == [Reply(id=1, value={})]
            theirs.close()
            ours.setblocking(False)
            assert ours.recv(1) == b"", "another copy of it is open somewhere"


# Turns


async def test_a_flood_is_handled_a_turn_at_a_time() -> None:
    """However much has arrived at once, the loop has a turn for others after at most sixteen frames."""
    async with scene() as s:
        s.program.sends_what_fits(encode(Log(level="INFO", name="n", text="x")) * 1000)
        seen = [0]
        while seen[-1] < 1000:
            await asyncio.sleep(0)
            seen.append(len(s.heard.logs))
        assert max(after - before for before, after in itertools.pairwise(seen)) <= TURN_FRAMES


async def test_the_end_of_a_run_is_heard_a_turn_at_a_time() -> None:
    """What a program left in its socket when it died holds nobody up either, and all of it is heard."""
    async with scene() as s:
        sent = s.program.sends_what_fits(encode(Log(level="INFO", name="n", text="x")) * 1000)
        count = sent // len(encode(Log(level="INFO", name="n", text="x")))
        closing = asyncio.ensure_future(s.session.close())
        seen = [0]
        while not closing.done():
            await asyncio.sleep(0)
            seen.append(len(s.heard.logs))
        assert (seen[-1], count > TURN_FRAMES) == (count, True)
        assert max(after - before for before, after in itertools.pairwise(seen)) <= TURN_FRAMES


@pytest.mark.parametrize("values", [100, 10_000])
async def test_a_header_that_is_long_to_read_is_read_in_a_thread(values) -> None:
    """The loop that all runs share reads short ones itself; the answer is the same, and so is a later call's."""
    read_by: list[str] = []

    class Apart(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the base has it
            read_by.append("a thread")
            return super().submit(*args, **kwargs)

    with Apart(1) as apart:
        async with scene(apart=apart) as s:
            await s.program.send(call(1, a=[{}] * values), call(2))
            assert await s.program.read(2) == [Reply(id=1, value={"a": [{}] * values}), Reply(id=2, value={})]
    assert read_by == (["a thread"] if values > 4096 else [])


@pytest.mark.parametrize("apart", [True, False])
async def test_more_values_than_a_program_may_send_are_a_breach(apart) -> None:
    """Read in a thread or not; the control: as many as it may send are echoed."""
    with ThreadPoolExecutor(1) as executor:
        async with scene(values=5000, apart=executor if apart else None) as s:
            await s.program.send(call(1, a=[0] * 4980))
            assert (await s.program.read())[0].value == {"a": [0] * 4980}
            await s.program.send(call(2, a=[0] * 5001))
            await until(lambda: s.heard.violations)
            assert s.heard.violations == ["header of more than 5000 values"]


async def test_a_costly_header_does_not_outlive_its_run() -> None:
    """Closed while a thread reads: nothing is told of it afterwards."""
    with ThreadPoolExecutor(1) as executor:
        async with scene(apart=executor) as s:
            await s.program.send(call(1, a=[{}] * 20_000))
            await until(lambda: s.session._apart)
            await s.session.close()
        assert (s.heard.records, s.heard.violations) == ([], [])


async def test_log_records_far_above_what_is_kept_are_a_breach(monkeypatch) -> None:
    """A flood ends; the control: what is above the cap, but not far, is dropped."""
    monkeypatch.setattr(supervisor_session, "_LOG_RECORDS", 10)
    monkeypatch.setattr(supervisor_session, "_LOGS_SENT", 20)
    record = Log(level="INFO", name="n", text="")
    async with scene() as s:
        await s.program.send(*[record] * 20, call(1))
        assert await s.program.read() == [Reply(id=1, value={})]
        assert (len(s.heard.logs), s.heard.violations) == (10, [])
        await s.program.send(record)
        await until(lambda: s.heard.violations)
        assert s.heard.violations == ["too many log records: at most 10 of them, and 4194304 characters"]


async def test_calls_far_above_the_budget_are_a_breach(monkeypatch) -> None:
    """A flood ends; the control: a program that takes no notice of a refusal is refused again."""
    monkeypatch.setattr(supervisor_session, "_CALLS_MORE", 10)
    async with scene(calls=1) as s:
        await s.program.send(*(call(number, "no.such") for number in range(20)))
        assert {answer.error for answer in await s.program.read(20)} == {"ToolDenied", "ToolBudgetExceeded"}
        assert s.heard.violations == []
        await s.program.send(call(20))
        await until(lambda: s.heard.violations)
        assert s.heard.violations == ["too many calls: this run may make 1"]


# Any bytes


def _messages() -> st.SearchStrategy[bytes]:
    calls = st.builds(
        Call,
        id=st.integers(-(2**63), 2**63 - 1),
        tool=st.sampled_from(["x.f", "x.g", "exec_tools.x"]) | st.text(max_size=20),
        params=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3),
        reason=st.text(max_size=5),
        timeout_s=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    )
    logs = st.builds(Log, level=st.text(max_size=9), name=st.text(max_size=9), text=st.text(max_size=9))
    ends = st.builds(Ended, claim=st.builds(Claim, type=st.text(max_size=9), message=st.text(max_size=9)))
    return st.one_of(calls, logs, ends).map(lambda message: encode(message))


@pytest.mark.slow
@given(parts=st.lists(st.one_of(st.binary(max_size=64), _messages()), max_size=12), cut=st.integers(1, 400))
@settings(max_examples=200, deadline=None)
def test_no_bytes_make_it_raise(parts: list[bytes], cut: int) -> None:
    """Whatever arrives, in whatever pieces: answers, records or one violation, and a session that can be closed."""
    failures: list[dict[str, Any]] = []

    async def feed() -> Heard:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with scene({"x.f": ECHO}, calls=5, at_once=2, frame_bytes=5000) as s:
            data = b"".join(parts)
            for start in range(0, len(data), cut):
                s.program.sends_what_fits(data[start : start + cut])  # after a violation nobody makes room
                for _ in range(3):
                    await asyncio.sleep(0)
            await s.session.close()
            return s.heard

    heard = asyncio.run(feed())
    assert failures == []
    assert len(heard.violations) <= 1
    assert len(heard.records) <= 5


# A run that is frozen


class Held:
    """A tool that ends when it is told to, and what deadlines it was given."""

    def __init__(self) -> None:
        self.ends: dict[int, asyncio.Event] = {}
        self.deadlines: dict[int, float] = {}

    async def __call__(self, call_id: int, params: dict[str, Any], deadline: float) -> object:
        self.deadlines[call_id] = deadline
        self.ends[call_id] = asyncio.Event()
        await self.ends[call_id].wait()
        return call_id


async def test_quiet_waits_for_the_tools_at_work_and_begins_no_other() -> None:
    """What runs is answered; what waits for its turn, and what comes then, waits until the run goes on."""
    tool = Held()
    async with scene({"x.f": Does(tool), "x.g": ECHO}, at_once=1) as s:
        await s.program.send(call(1), call(2))
        await until(lambda: 1 in tool.ends)
        quiet = asyncio.ensure_future(s.session.quiet())
        await asyncio.sleep(0.01)
        assert not quiet.done()
        tool.ends[1].set()
        assert await s.program.read() == [Reply(id=1, value=1)]
        assert await quiet
        await s.program.send(call(3, "x.g"))
        await asyncio.sleep(0.01)
        assert s.heard.begun == [1]
        s.session.go_on(0.0)
        await until(lambda: 2 in tool.ends)
        tool.ends[2].set()
        assert await s.program.read(2) == [Reply(id=2, value=2), Reply(id=3, value={})]


async def test_a_call_that_the_host_answers_keeps_no_run_from_being_frozen() -> None:
    """And its deadline moves with the time that the run was frozen; one that is not held passes."""
    tool, host = Held(), Host("x.h")
    async with scene({"x.f": Does(tool)}, held=host.calls, call_s=0.3) as s:
        await s.program.send(call(1, "x.h"), call(2))
        await until(lambda: 2 in tool.ends)
        quiet = asyncio.ensure_future(s.session.quiet())
        await asyncio.sleep(0)
        assert not quiet.done()
        tool.ends[2].set()
        assert await s.program.read() == [Reply(id=2, value=2)]
        assert await quiet
        await asyncio.sleep(0.6)  # twice the call's time
        assert s.heard.endings == [(2, "ok")]
        s.session.go_on(30.0)
        await asyncio.sleep(0.6)
        assert s.heard.endings == [(2, "ok")]
        host.answer(1, "thought")
        assert await s.program.read() == [Reply(id=1, value="thought")]
        await s.program.send(call(3, "x.h"))  # control: a call of its own has the usual time
        (refused,) = await s.program.read()
        assert (refused.id, refused.error) == (3, "ToolTimeout")


async def test_quiet_is_given_up_by_going_on_and_by_the_end() -> None:
    """It then says that it was: the run is not to be frozen."""
    tool = Held()
    async with scene({"x.f": Does(tool)}) as s:
        await s.program.send(call(1))
        await until(lambda: 1 in tool.ends)
        quiet = asyncio.ensure_future(s.session.quiet())
        await asyncio.sleep(0)
        s.session.go_on(0.0)
        assert not await quiet
        await s.program.send(call(2))
        await until(lambda: 2 in tool.ends)
        last = asyncio.ensure_future(s.session.quiet())
        await asyncio.sleep(0)
        await s.session.close()
        assert not await last


async def test_a_session_without_calls_is_quiet_at_once_and_takes_what_was_sent_meanwhile() -> None:
    """A frozen program sends nothing; what it had sent before is in the socket."""
    async with scene() as s:
        assert await s.session.quiet()
        await s.program.send(call(1))
        await asyncio.sleep(0.01)
        assert s.heard.records == []
        s.session.go_on(1.0)
        assert await s.program.read() == [Reply(id=1, value={})]


# Calls that the host answers


class Host:
    """The host that the calls of the tools *ids* are held for: what it is told, and how it answers."""

    def __init__(self, *ids: str) -> None:
        self.told: list[Message] = []
        self.calls = HeldCalls(7, ids, self._tell)

    def _tell(self, message: Message) -> None:
        encode(message)  # as the outbox does, which raises for what cannot be sent
        self.told.append(message)

    def answer(self, number: int, value: object) -> None:
        self.calls.answered(CallAnswered(run=7, call=number, value=value))


async def test_a_held_call_is_told_to_the_host_and_gets_its_answer() -> None:
    """The host is asked with all that the program said; a value and a refusal come back, in any order."""
    host = Host("x.h")
    async with scene(held=host.calls, call_s=20.0) as s:
        await s.program.send(call(1, "x.h", a=[b"x"]), call(2, "x.h", timeout_s=1.0), call(3))
        await until(lambda: len(host.told) == 2)
        first, second = host.told
        assert isinstance(first, CallHeld)
        assert isinstance(second, CallHeld)
        assert (first.run, first.call, first.tool, first.params) == (7, 1, "x.h", {"a": [b"x"]})
        assert first.reason == "because"
        assert 19 < first.seconds <= 20
        assert 0 < second.seconds <= 1
        host.calls.answered(CallRefused(run=7, call=2, error="ToolDenied", text="no"))
        host.answer(1, {"b": [1]})
        answers = {answer.id: answer for answer in await s.program.read(3)}
        assert answers == {
            1: Reply(id=1, value={"b": [1]}),
            2: Refused(id=2, error="ToolDenied", text="no"),
            3: Reply(id=3, value={}),
        }
        results = {record["call_id"]: record.get("result", record.get("error")) for record in s.heard.records}
        assert results == {1: {"b": [1]}, 2: "no", 3: {}}
    assert len(host.told) == 2  # nothing was open in the end


async def test_the_tools_of_the_host_are_its_own() -> None:
    """One that is granted, too, is the host's; and what is neither is denied."""
    host = Host("x.f")
    async with scene(held=host.calls) as s:
        await s.program.send(call(1), call(2, "x.g"))
        assert await s.program.read() == [Refused(id=2, error="ToolDenied", text=NO_SUCH_TOOL)]
        host.answer(1, "the host")
        assert await s.program.read() == [Reply(id=1, value="the host")]


async def test_a_held_call_whose_time_is_over_is_given_up() -> None:
    """The host is told, its late answer is dropped, and a call that waited for its turn is begun."""
    host = Host("x.h")
    async with scene(held=host.calls, at_once=1) as s:
        await s.program.send(call(1, "x.h", timeout_s=0.05), call(2, "x.h"))
        (refused,) = await s.program.read()
        assert refused == Refused(id=1, error="ToolTimeout", text="x.h took longer than 0.05 s")
        host.answer(1, "late")
        host.answer(2, "in time")
        assert await s.program.read() == [Reply(id=2, value="in time")]
        host.answer(2, "twice")
        assert s.heard.endings == [(1, "ToolTimeout"), (2, "ok")]
    kinds = [(type(message).__name__, message.call) for message in host.told]  # type: ignore[attr-defined]  # each has
    assert kinds == [("CallHeld", 1), ("CallGivenUp", 1), ("CallHeld", 2)]


async def test_the_end_of_a_run_gives_up_its_held_calls() -> None:
    """Each is recorded as cancelled, the host is told, and an answer that comes then changes nothing."""
    host = Host("x.h")
    async with scene(held=host.calls) as s:
        await s.program.send(call(1, "x.h"))
        await until(lambda: host.told)
        await s.session.close()
        host.answer(1, "late")
        assert s.heard.endings == [(1, "cancelled")]
    assert host.told[1:] == [CallGivenUp(run=7, call=1)]


async def test_what_does_not_fit_in_a_frame_is_refused_on_its_way_and_back() -> None:
    """Arguments that fit in the program's frame and not in the host's, and an answer that is too large for the run."""
    host = Host("x.h")
    room = MAX_FRAME - len(encode(call(1, "x.h", a=b""))) - 16
    async with scene(held=host.calls, at_once=1) as s:
        sending = asyncio.ensure_future(s.program.send(call(1, "x.h", a=bytes(room)), call(2, "x.h")))
        (refused,) = await s.program.read()
        assert refused.error == "ToolInputInvalid"
        assert refused.text.startswith("x.h: the arguments cannot be handed on: ")
        await sending
        await until(lambda: host.told)
        host.answer(2, "x" * MAX_FRAME)
        (refused,) = await s.program.read()
        assert (refused.id, refused.error) == (2, "ToolFailed")
        assert refused.text.startswith("the tool's result cannot be sent")
        await s.program.send(call(3, "x.h"))
        await until(lambda: len(host.told) == 2)
        host.answer(3, "small")
        assert await s.program.read() == [Reply(id=3, value="small")]
    assert s.heard.endings == [(1, "ToolInputInvalid"), (2, "ToolFailed"), (3, "ok")]
