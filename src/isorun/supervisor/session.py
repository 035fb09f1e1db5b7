"""One run's tool stream, from the trusted end. Every byte is hostile.

Theory of operation. Bytes become messages (`wire`), a call becomes a check (is it
granted, does the budget allow it, do the arguments fit), then a task with a deadline,
then an answer under the call's id, in the order in which tools finish. Reading stops while
too many calls are open or too many answers are unread, so a program can fill no
memory but its own; and for as long as it owes the loop's time (`share`), so that it
holds up no other run. A header that is long to read is read in a thread. What the
loader says of an exception or a log record is a claim: bounded, handed on, deciding
nothing.

The module is long because a hostile peer's every message is handled in this one place. It must not
know where tools come from, and must not tell the program why a tool is
not there or what a tool's failure was.
"""

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.sent.claim import Claim
from isorun.core.share import TURN_FRAMES, TURN_S, Account, Owing, charged
from isorun.core.text import one_line
from isorun.supervisor.worker.failures import failed, unsendable
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Call, Ended, Log, Message, NotEncodable, Refused, Reply, decode, decode_packet, encode
from isorun.wire.session import Session, Side, State
from isorun.wire.values import CALL_VALUES, TOO_LARGE, is_costly

_log = log_of("isorun.supervisor")
_READ = 1 << 16
_DRIP = 4096  # bytes: a shorter read that ends inside a frame is a turn for nothing
_LOG_RECORDS = 10_000
_LOG_CHARS = 4 << 20  # of all records together: one may be as long as a frame, and all go to the host's disk
_RECORD_CHARS = 8192
_UNREAD_BYTES = 1 << 20  # answers the program has not read; beyond this none of its calls is read either
_OPEN_CALLS = 64  # begun or waiting for their turn; beyond this the stream is read no further
_OPEN_BYTES = 32 << 20  # of what these ask, nor beyond this: 64 frames are a GiB
_REASON_CHARS = 1000
_NAME_CHARS = 200
_TEXT_CHARS = 8192  # of why a call has no result: a program's own argument names, or a tool's error, stand in it
_OVERDUE_S = 1.0  # for a tool to end once its time is over; a coroutine can ignore that it is cancelled
_KEPT_BYTES = 64 << 10  # of one call's params, and of its result, in the journal
_KEPT_IN_ALL = 16 << 20
_VALUE_BYTES = 16  # counted for a value beside its text: 64 KiB of "[]," are 1.4 MB of lists
_ANSWER_FREE_S = 0.002  # of one result: a MiB of bytes is no program's doing, a result of thousands of values may be
#: What no program sends by mistake: a loop that takes refusals for answers ends long before, and our own handler
#: sends no record that would not be kept. Beyond this the stream is a flood, and is not served.
_CALLS_ABOVE, _CALLS_MORE = 10, 1000  # times the budget, and so many more
_LOGS_SENT = 2 * _LOG_RECORDS
_LOG_BYTES_SENT = 8 * _LOG_CHARS
NO_SUCH_TOOL = "no such tool for this run"
NESTED = "nested_execution: a program cannot start another run"


class Refusal(Exception):
    """A call that gets no result: the type the program sees, and the text."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error


class Answering(Protocol):
    """How a granted call gets its result."""

    @property
    def max_calls(self) -> int | None:
        """The calls one run may make of this tool; None if only the run's own budget counts."""

    @property
    def timeout_s(self) -> float | None:
        """The seconds one call of this tool may take; None if only the run's own limit counts."""

    async def answer(self, call_id: int, params: dict[str, Any], deadline: float) -> object:
        """The tool's result, or `Refusal` and nothing else. It is cancelled at *deadline* (monotonic)."""

    async def sendable(self, call_id: int, value: object) -> object:
        """A result that cannot be sent as it is, as JSON's types and bytes, or `Refusal`."""


class Asking:
    """How the calls of some tools get their results from elsewhere: nothing works for them here."""

    max_calls: int | None = None
    timeout_s: float | None = None

    def ask(self, call: Call, reason: str, deadline: float, answered: Callable[[object], None]) -> None:
        """Ask for the result of *call* by *deadline* (monotonic). Later *answered* gets it, or a `Refusal`, once."""
        raise NotImplementedError

    def give_up(self, call_id: int) -> None:
        """The call has ended: *answered* is not called any more."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What one run may do with tools: calls in all, at once, seconds of one, bytes and values of one frame."""

    calls: int
    at_once: int
    call_s: float
    frame_bytes: int
    values: int = CALL_VALUES

    @classmethod
    def of(cls, limits: Limits) -> "CallLimits":
        """Those among the ceilings of a run."""
        return cls(
            calls=limits.tool_calls,
            at_once=limits.tool_calls_at_once,
            call_s=limits.tool_call_s,
            frame_bytes=limits.frame_bytes,
        )


class Listener(Protocol):
    """Who is told what happens on the stream."""

    def logged(self, level: str, name: str, text: str) -> None:
        """The program logged this."""

    def claimed(self, claim: Claim) -> None:
        """The loader says that this exception ended the program. Texts are bounded."""

    def violated(self, reason: str) -> None:
        """The program broke the protocol; the stream is read no further. Told once."""

    def began(self, record: dict[str, Any]) -> None:
        """A tool is about to be carried out; the record has no status yet."""

    def called(self, record: dict[str, Any]) -> None:
        """A call has ended; see `ToolSession` for the record."""


@dataclass(slots=True, kw_only=True)
class _Open:
    """A call that was admitted and has no answer yet."""

    call: Call
    deadline: float  # monotonic
    record: dict[str, Any]
    begun: float = 0.0  # monotonic
    task: asyncio.Task[None] | None = None  # None while it waits for its turn
    is_late: bool = False  # and so was cancelled
    asked: Asking | None = None  # answers it: it has no task, and the run may be frozen meanwhile
    weight: int  # bytes of what it asks, about

    @property
    def due(self) -> float:
        """When it is to be looked at."""
        return self.deadline + _OVERDUE_S if self.is_late else self.deadline


class ToolSession:
    """Answers the calls of one run until `close`. *channel* is non-blocking and stays its owner's.

    *owing* knows the other streams of this loop. *apart*: where a header that is long to read is read; None: here.
    A record has call_id, tool_id, reason, status (`ok`, the error's type, or `cancelled`), ms,
    started_at (seconds since the epoch), params, and result or error. *touched* is called
    with the session when it has sent an answer.
    """

    def __init__(
        self,
        channel: socket.socket,
        granted: Mapping[str, Answering | Asking],
        limits: CallLimits,
        listener: Listener,
        touched: Callable[["ToolSession"], None] = lambda _: None,
        owing: Owing | None = None,
        apart: Executor | None = None,
    ) -> None:
        self._channel = channel
        self._granted = granted
        self._limits = limits
        self._listener = listener
        self._touched = touched
        self._frames = Frames(limits.frame_bytes)
        self._session = Session(Side.SUPERVISOR, Side.PROGRAM, State.OPEN)
        self._log_records = self._log_chars = self._log_bytes = self._kept = self._calls = self._weight = 0
        self._used: dict[str, int] = {}
        self._opened: dict[int, _Open] = {}
        self._waiting: deque[_Open] = deque()
        self._look: asyncio.TimerHandle | None = None  # one for all calls: most end long before they are due
        self._unread = bytearray()
        self._reading = False
        self._open = True
        self._is_closing = False
        self._account = Account(owing or Owing(), time.monotonic())
        self._executor = apart
        self._apart: asyncio.Task[None] | None = None  # reads a header that is long to read
        self._turn: asyncio.Handle | None = None  # the next one; until then nothing is read
        self._is_still = False  # the run is frozen, or is to be: no call is begun
        self._quieting: asyncio.Future[bool] | None = None
        self._loop = asyncio.get_running_loop()
        self._poller = select.poll()
        self._poller.register(channel, select.POLLIN)
        self._read(True)

    async def quiet(self) -> bool:
        """Begin no call and read nothing from here on; return once no tool is at work. False: `go_on` came first."""
        self._is_still = True
        self._read(False)
        self._quieting = self._loop.create_future()
        self._look_whether_quiet()
        return await self._quieting

    def _look_whether_quiet(self) -> None:
        if self._quieting is None or self._quieting.done() or any(call.task for call in self._opened.values()):
            return
        if self._look is not None:  # from here on no deadline comes nearer
            self._look.cancel()
            self._look = None
        self._quieting.set_result(True)

    def go_on(self, frozen_s: float) -> None:
        """Begin calls again. Those that are open get *frozen_s* more: so long the run was frozen."""
        if self._quieting is not None and not self._quieting.done():
            self._quieting.set_result(False)
        self._is_still = False
        for opened in self._opened.values():
            opened.deadline += frozen_s
            opened.begun += frozen_s
        if self._opened and not self._is_closing:
            self._look_at(min(opened.due for opened in self._opened.values()))
        self._go_on()

    async def close(self) -> None:
        """Take what the program sent before it died, then give up every call. Nothing is told afterwards."""
        waiting, self._waiting = self._waiting, deque()
        self._is_closing = True
        if self._quieting is not None and not self._quieting.done():
            self._quieting.set_result(False)
        self._read(False)
        for call in (*waiting, *self._opened.values()):
            self._ended(call, "cancelled", error="the run ended before the tool did")
            if call.asked is not None:
                call.asked.give_up(call.call.id)
        for task in (self._apart, *(call.task for call in self._opened.values())):
            if task is not None:
                task.cancel()
        await self._hear_the_rest()
        self._stop()
        for handle in (self._look, self._turn):
            if handle is not None:
                handle.cancel()

    async def _hear_the_rest(self) -> None:
        """What was read and had to wait, and what is in the socket: turn by turn, for there may be much of it."""
        while self._open:
            _, is_behind = self._take_some(time.monotonic())
            if not is_behind:
                try:
                    data = self._channel.recv(_READ)
                except OSError:  # also BlockingIOError: a program that still lives has said enough
                    return
                if not data:
                    return
                self._frames.feed(data)
            await asyncio.sleep(0)

    def _stop(self) -> None:
        self._open = False
        self._read(False)
        self._account.close()
        with suppress(OSError, ValueError):
            self._loop.remove_writer(self._channel.fileno())

    def _read(self, wanted: bool) -> None:
        if wanted == self._reading:
            return
        self._reading = wanted
        with suppress(OSError, ValueError):
            if wanted:
                self._loop.add_reader(self._channel.fileno(), self._readable)
            else:
                self._loop.remove_reader(self._channel.fileno())

    def look(self) -> bool:
        """Take what has arrived, as the loop would have it done in its next round; False: nothing has."""
        if not self._reading or not self._poller.poll(0):
            return False
        self._readable()
        return True

    def _readable(self) -> None:
        began = time.monotonic()
        try:
            # No room for ancillary data: descriptors that come along are closed by the kernel.
            data = self._channel.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._read(False)
            return
        self._frames.feed(data)
        self._take(began, len(data))

    def _take(self, began: float, arrived: int = 0) -> None:
        """Have one turn, and decide when the next one is."""
        frames, is_behind = self._take_some(began)
        now = time.monotonic()
        cost = charged(now - began, frames or arrived >= _DRIP, is_behind=is_behind)
        if cost or is_behind or not self._reading or self._crowded:
            self._rest(self._account.spend(now, cost), is_behind=is_behind)

    def _rest(self, pause_s: float, *, is_behind: bool = False) -> None:
        """Leave the stream alone for *pause_s*, or until everybody else has had a turn, or until it brings more."""
        if self._turn is None and self._apart is None and self._open and not self._is_closing:
            if pause_s:
                self._turn = self._loop.call_later(pause_s, self._again)
            elif is_behind:
                self._turn = self._loop.call_soon(self._again)
        self._read(self._may_read)

    def _again(self) -> None:
        self._turn = None
        if self._may_read:
            self._take(time.monotonic())

    @property
    def _may_read(self) -> bool:
        waits = self._crowded or self._is_still or self._turn is not None or self._apart is not None
        return self._open and not self._is_closing and not waits

    def _take_some(self, began: float) -> tuple[int, bool]:
        """Handle messages that are here until a turn is over: how many, and whether it was over before they were."""
        frames = 0
        try:
            while self._open and (self._is_closing or not (self._crowded or self._is_still)):
                if frames == TURN_FRAMES or (frames and time.monotonic() - began > TURN_S):
                    return frames, True
                if (frame := self._frames.next()) is None:
                    break
                frames += 1
                if self._executor is not None and is_costly(frame[0]):
                    if not self._is_closing:  # what takes long is a call or a breach, and nobody waits for either
                        self._apart = self._loop.create_task(self._read_apart(self._executor, *frame))
                    return frames, True
                self._received(decode(*frame, self._limits.values), len(frame[0]) + len(frame[1]), _values(frame[0]))
        except ProtocolError as error:
            self._violated(error)
        return frames, False

    def _received(self, message: Message, size: int, values: int) -> None:
        self._session.received(message)
        if not (self._is_closing and isinstance(message, Call)):  # nobody is left to read the answer
            self._handle(message, size, values)

    def _violated(self, error: ProtocolError) -> None:
        self._stop()
        self._listener.violated(str(error))

    async def _read_apart(self, executor: Executor, header: bytes, blobs: bytes) -> None:
        """One message whose header is long to read, in a thread: the loop goes on with everybody else's."""
        try:
            read = await self._loop.run_in_executor(executor, _timed, header, blobs, self._limits.values)
            message, values, took_s = read
            self._received(message, len(header) + len(blobs), values)
        except ProtocolError as error:
            self._violated(error)
        else:
            self._apart = None
            self._rest(self._account.spend(time.monotonic(), took_s), is_behind=True)

    @property
    def _crowded(self) -> bool:
        return len(self._opened) >= _OPEN_CALLS or self._weight > _OPEN_BYTES or len(self._unread) > _UNREAD_BYTES

    def _handle(self, message: Message, size: int, values: int) -> None:
        match message:
            case Call():
                self._call(message, size, values)
            case Log():
                self._log(message, size)
            case Ended(claim=claim):
                name, text, source = claim.type[:_NAME_CHARS], claim.message[:4096], claim.source[:_NAME_CHARS]
                packages = claim.packages[:4096]
                self._listener.claimed(claim.changed(type=name, message=text, source=source, packages=packages))
            case _:
                raise ProtocolError(f"a program does not send {type(message).__name__}")

    def _log(self, record: Log, size: int) -> None:
        text = record.text[:_RECORD_CHARS]
        self._log_records += 1
        self._log_bytes += size
        if self._log_records > _LOGS_SENT or self._log_bytes > _LOG_BYTES_SENT:
            raise ProtocolError(f"too many log records: at most {_LOG_RECORDS} of them, and {_LOG_CHARS} characters")
        self._log_chars += len(text)
        if self._log_records <= _LOG_RECORDS and self._log_chars <= _LOG_CHARS:
            # The level stands before the component in a line: with a bracket in it, it would forge one.
            level = record.level[:20] if record.level.isalnum() else "INFO"
            self._listener.logged(level, record.name[:_NAME_CHARS], text)

    def _call(self, call: Call, size: int, values: int) -> None:
        asked = call.timeout_s
        seconds = self._limits.call_s if asked is None else min(max(asked, 0.0), self._limits.call_s)
        record = {
            "call_id": call.id,
            "tool_id": call.tool[:_NAME_CHARS],
            "reason": call.reason[:_REASON_CHARS],
            "started_at": time.time(),
            "params": self._kept_value(call.params, size, values),
        }
        weight = size + _VALUE_BYTES * values
        opened = _Open(call=call, deadline=time.monotonic() + seconds, record=record, weight=weight)
        opened.record["ms"] = -time.perf_counter() * 1000  # until it has ended
        try:
            self._admit(call)
        except Refusal as refusal:
            # What is over the budget is answered, and not recorded: it has no end.
            self._refuse(opened, refusal, recorded=self._calls <= self._limits.calls)
            return
        self._opened[call.id] = opened
        self._weight += weight
        if self._running <= self._limits.at_once:  # with this one
            self._begin(opened)
        else:
            self._waiting.append(opened)
            self._look_at(opened.deadline)

    def _look_at(self, due: float) -> None:
        """Look for calls that are due then, or before."""
        if self._look is not None:
            if self._look.when() <= due:
                return
            self._look.cancel()
        self._look = self._loop.call_at(due, self._end_what_is_due)

    def _end_what_is_due(self) -> None:
        self._look = None
        for opened in list(self._opened.values()):
            if opened.due > self._loop.time():
                continue
            if opened.asked is not None:
                opened.asked.give_up(opened.call.id)
                self._give_up(opened, _took_too_long(opened))
            elif opened.task is None:
                self._waiting.remove(opened)
                self._give_up(opened, "the deadline passed before it was this call's turn")
            elif opened.is_late:
                self._give_up(opened, f"{opened.call.tool} did not end when its time was over")
            else:
                opened.is_late = True
                opened.task.cancel()
        if self._opened:
            self._look_at(min(opened.due for opened in self._opened.values()))

    def _give_up(self, opened: _Open, text: str) -> None:
        """Answer in the place of a tool; a later result of the tool is dropped."""
        self._refuse(opened, Refusal("ToolTimeout", text))
        self._next(opened)

    @property
    def _running(self) -> int:
        return len(self._opened) - len(self._waiting)

    def _admit(self, call: Call) -> None:
        """Raise `Refusal` for a call that may not be made. Refused calls count, so that probing has an end."""
        self._calls += 1
        if self._calls > _CALLS_ABOVE * self._limits.calls + _CALLS_MORE:
            raise ProtocolError(f"too many calls: this run may make {self._limits.calls}")
        if self._calls > self._limits.calls:
            said = f"this run may make {self._limits.calls} tool calls (ISORUN_MAX_TOOL_CALLS)"
            raise Refusal("ToolBudgetExceeded", said)
        tool = self._granted.get(call.tool)
        if tool is None:
            raise Refusal("ToolDenied", NESTED if call.tool.startswith("exec_tools.") else NO_SUCH_TOOL)
        if tool.max_calls is not None:
            used = self._used[call.tool] = self._used.get(call.tool, 0) + 1
            if used > tool.max_calls:
                said = f"this run may call {call.tool} {tool.max_calls} times (max_calls of its @isorun.tool)"
                raise Refusal("ToolBudgetExceeded", said)

    def _begin(self, opened: _Open) -> None:
        self._listener.began(opened.record)
        opened.begun = time.monotonic()
        tool = self._granted[opened.call.tool]
        most = tool.timeout_s
        if most is not None and opened.begun + most < opened.deadline:
            opened.deadline = opened.begun + most
        if isinstance(tool, Asking):  # without a task, which would cost two rounds of the loop
            opened.asked = tool
            tool.ask(opened.call, opened.record["reason"], opened.deadline, partial(self._answered, opened))
        else:
            opened.task = self._loop.create_task(self._answer(opened, tool))
        self._look_at(opened.deadline)

    def _answered(self, opened: _Open, value: object) -> None:
        """A held call has its answer: a value that came in a message, or a `Refusal`."""
        began, number = time.thread_time(), opened.call.id
        if isinstance(value, Refusal):
            self._refuse(opened, value)
        else:
            try:
                self._reply(opened, value, encode(Reply(id=number, value=value), self._limits.frame_bytes), began)
            except NotEncodable as error:  # it could be sent to us, so it is too large
                self._refuse(opened, Refusal("ToolFailed", unsendable(error)))
        self._next(opened)

    async def _answer(self, opened: _Open, tool: Answering) -> None:
        call, refusal, data, began = opened.call, None, b"", 0.0
        # The journal keeps what was asked and what was sent, whatever the tool does to its own copy.
        params = _copied(call.params) if opened.record["params"] is call.params else call.params
        try:
            value = await tool.answer(call.id, params, opened.deadline)
            began = time.thread_time()
            try:
                data = encode(Reply(id=call.id, value=value), self._limits.frame_bytes)
            except NotEncodable as error:
                if error.reason.startswith(TOO_LARGE):
                    raise
                value = await tool.sendable(call.id, value)
                began = time.thread_time()  # what the loop did meanwhile is not this call's
                data = encode(Reply(id=call.id, value=value), self._limits.frame_bytes)
        except Refusal as refused:
            refusal = refused
        except asyncio.CancelledError:
            if not opened.is_late:
                raise
            refusal = Refusal("ToolTimeout", _took_too_long(opened))
        except NotEncodable as error:
            refusal = Refusal("ToolFailed", unsendable(error))
        except Exception:  # noqa: BLE001 - a result that changes while it is encoded; no answer would be for ever
            _log.exception("%s: call %d got no answer", one_line(call.tool), call.id)
            refusal = Refusal("ToolFailed", failed(call.id))
        if "status" in opened.record:
            return  # given up
        if refusal is not None:
            self._refuse(opened, refusal)
        else:
            self._reply(opened, value, data, began)
        self._next(opened)

    def _reply(self, opened: _Open, value: object, data: bytes, began: float) -> None:
        """Send *data*, the `Reply` with *value*; *began*: the thread's own time before it was made."""
        self._session.sent(Reply(id=opened.call.id, value=None))
        self._send(data)
        self._ended(opened, "ok", result=self._kept_value(value, len(data), None, data))
        if (cost := time.thread_time() - began) > _ANSWER_FREE_S:
            self._rest(self._account.spend(time.monotonic(), cost))

    def _next(self, opened: _Open) -> None:
        """One call less: begin a waiting call, and read on if there is room again."""
        if self._opened.pop(opened.call.id, None) is not None:
            self._weight -= opened.weight
        self._look_whether_quiet()
        self._go_on()

    def _go_on(self) -> None:
        """Begin calls that waited, and read on, as far as there is room."""
        while (
            self._open
            and not self._is_still
            and self._waiting
            and self._running < self._limits.at_once
            and len(self._unread) <= _UNREAD_BYTES  # each may bring another answer as long as a frame
        ):
            self._begin(self._waiting.popleft())
        if not self._reading and self._may_read:
            self._take(time.monotonic())

    def _refuse(self, opened: _Open, refusal: Refusal, *, recorded: bool = True) -> None:
        text = str(refusal)[:_TEXT_CHARS].encode("utf-8", "replace").decode()  # a file name can hold lone surrogates
        answer = Refused(id=opened.call.id, error=refusal.error, text=text)
        self._session.sent(answer)
        self._send(encode(answer))
        if recorded:
            self._ended(opened, refusal.error, error=text)

    def _ended(self, opened: _Open, status: str, **outcome: object) -> None:
        record = opened.record
        if "status" not in record:
            record.update(outcome, status=status, ms=round(time.perf_counter() * 1000 + record["ms"], 3))
            self._listener.called(record)

    def _kept_value(self, value: object, size: int, values: int | None, sent: bytes = b"") -> object:
        """*value* for the journal, as it was *sent*, unless it is large or the run has filled its share of it."""
        if size > _KEPT_BYTES:
            return {"omitted_bytes": size}
        weight = size + _VALUE_BYTES * (_values(sent) if values is None else values)
        if self._kept + weight > _KEPT_IN_ALL:
            return {"omitted_bytes": size}
        self._kept += weight
        if sent and isinstance(value, (dict, list, tuple, bytearray, memoryview)):
            message = decode_packet(sent)
            return message.value if isinstance(message, Reply) else None
        return value

    def _send(self, data: bytes) -> None:
        if not self._open:
            return
        self._touched(self)
        sent = 0
        if not self._unread:
            try:
                sent = self._channel.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # nobody is there to read it; the end of the stream is seen by the reader
        if sent < len(data):
            self._unread += data[sent:]
            self._loop.add_writer(self._channel.fileno(), self._flush)

    def _flush(self) -> None:
        try:
            sent = self._channel.send(self._unread)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unread)
        del self._unread[:sent]
        if not self._unread:
            self._loop.remove_writer(self._channel.fileno())
        self._go_on()


def _timed(header: bytes, blobs: bytes, most: int) -> tuple[Message, int, float]:
    """The message, its `_values`, and how long it was being read, by the clock: so long the loop was kept waiting."""
    began = time.monotonic()
    return decode(header, blobs, most), min(_values(header), most), time.monotonic() - began


def _took_too_long(opened: _Open) -> str:
    return f"{opened.call.tool} took longer than {opened.deadline - opened.begun:.3g} s"


def _values(header: bytes) -> int:
    """How many values there are in *header*, or more: what stands in a text is counted, too."""
    return sum(map(header.count, (b",", b"[", b"{")))


def _copied(value: Any) -> Any:  # noqa: ANN401 - JSON's types in and out
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
