"""Answers a run's held calls: by the caller's function, or by `Run.answer`.

Theory of operation. The supervisor checks that the program may make the call, and counts its time. A coroutine function
runs in the Runtime's loop, any other function in a thread that has no other call. That thread sends the answer itself:
to wake the loop takes as long as most functions. A thread cannot be ended: if it does not return in time it is
abandoned, and counted. Parameters and reason are the program's claims. The traceback of a function goes to infra.log,
and the program gets the number of the call; only a `ToolError` is sent with its text.
"""

import asyncio
import functools
import inspect
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from isorun.core.errors import InvalidRequest
from isorun.core.guard.log import log_of
from isorun.core.text import shown
from isorun.runtime.events import Event, Feed
from isorun.runtime.held.threads import Threads
from isorun.runtime.held.tools import HostTool
from isorun.runtime.request import AcceptedRun
from isorun.supervisor.output import INSIDE, OutputDirectory
from isorun.supervisor.registry import ArgumentsRefused, ResultType, Tool
from isorun.supervisor.session import Refusal
from isorun.supervisor.tool import ToolContext, ToolError
from isorun.supervisor.worker.failures import failed, raised, unsendable
from isorun.wire.messages import REFUSALS, CallHeld, NotEncodable
from isorun.wire.values import TOO_LARGE, Unfit

_log = log_of("isorun")
_SHOWN_BYTES = 64 << 10  # of params, in an event
_SHOWN_IN_ALL = 4 << 20  # in those of one run: they are kept until it is forgotten
_TEXT_CHARS = 8192  # of why a call has no result, as in `supervisor.session`
_NODE_BYTES = 16
_REPLIED = object()  # in the place of a result: it is sent


class Replies(Protocol):
    """Sends answers to the program: `supervisor.opened.OpenedRun`."""

    def reply(self, call_id: int, value: object = None, *, error: str = "", text: str = "") -> None:
        """See there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCall:
    """A call that waits for `Run.answer`. `params` and `claimed_reason` are what the program says."""

    call_id: int
    tool_id: str
    params: Mapping[str, Any]
    claimed_reason: str
    deadline: float  # monotonic: after it the program has got a `ToolTimeout`
    size: int  # bytes of `params`, about

    def shown(self, *, whole: bool) -> dict[str, Any]:
        """The data of an event, which is kept: of parameters that are not to be there *whole* it has the size alone."""
        return {
            "call_id": self.call_id,
            "tool_id": self.tool_id,
            "params": self.params if whole else {"omitted_bytes": self.size},
            "claimed_reason": self.claimed_reason,
        }


@dataclass(slots=True)
class _OpenCall:
    call: HeldCall
    task: asyncio.Task[None] | None = None  # answers it; None: the caller has to, by `Run.answer`


class HostAnswers:
    """Answers the held calls of one run. *feed* gets an event for each call, *tell* lines for the run's infra.log.

    *at* says how long the program has run. *out* is a descriptor of the run's output directory; it is duplicated. See
    `supervisor.opened.Answers`.
    """

    def __init__(
        self,
        request: AcceptedRun,
        out: int,
        feed: Feed,
        at: Callable[[], float],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._request, self._tools = request, request.own_tools
        self._feed, self._at, self._tell = feed, at, tell
        self._output = OutputDirectory(os.dup(out))
        self._open: dict[int, _OpenCall] = {}
        self._used: dict[str, int] = {}
        self._shown = 0  # bytes of params in events
        self._threads = Threads()
        self._replies: Replies | None = None

    @property
    def waiting(self) -> tuple[HeldCall, ...]:
        """The calls that wait for `answer`, in the order in which they were asked."""
        return tuple(opened.call for opened in tuple(self._open.values()) if opened.task is None)

    def send_by(self, replies: Replies) -> None:
        """Send answers by *replies*. The first call comes after this."""
        self._replies = replies

    def close(self) -> None:
        """Give up all calls: no more come."""
        self.given_up(None)
        self._threads.close()
        self._output.close()

    def asked(self, call: CallHeld) -> None:
        """See `supervisor.opened.Answers`."""
        held = HeldCall(
            call_id=call.call,
            tool_id=call.tool,
            params=call.params,
            claimed_reason=call.reason,
            deadline=time.monotonic() + call.seconds,
            size=_size(call.params),
        )
        opened = self._open[call.call] = _OpenCall(held)
        answering = self._answer(self._tools[call.tool], held, opened)
        opened.task = asyncio.get_running_loop().create_task(answering)

    def given_up(self, call_id: int | None) -> None:
        """See `supervisor.opened.Answers`."""
        for number in tuple(self._open) if call_id is None else (call_id,):
            opened = self._open.pop(number, None)
            if opened is not None and opened.task is not None:
                opened.task.cancel()

    def answer(self, call_id: int, value: object, error: str | None, kind: str) -> None:
        """See `Run.answer`."""
        opened = self._open.get(call_id)
        if opened is None or opened.task is not None:
            open_ = ", ".join(f"{one.call_id} ({one.tool_id})" for one in self.waiting) or "none"
            raise InvalidRequest(f"no call {shown(call_id)} waits for an answer; open are {open_}", code="no_such_call")
        if kind not in REFUSALS:
            raise InvalidRequest(f"kind must be one of {', '.join(REFUSALS)}, got {shown(kind)}", code="invalid_answer")
        try:
            if error is not None:
                self._reply(call_id, error=kind, text=str(error))
            else:
                self._reply(call_id, ResultType(Any).dumped(value))
        except (NotEncodable, Unfit) as unfit:
            raise InvalidRequest(
                f"the answer to call {call_id} cannot be sent: {unfit}", code="invalid_answer"
            ) from None
        del self._open[call_id]

    def _reply(self, call_id: int, value: object = None, *, error: str = "", text: str = "") -> None:
        assert self._replies is not None, "send_by is called before the first call comes"
        self._replies.reply(call_id, value, error=error, text=text)

    async def _answer(self, host: HostTool, call: HeldCall, opened: _OpenCall) -> None:
        """Answer by the tool's function. Without a function the call waits for `Run.answer`."""
        try:
            if host.tool is None:
                await self._check(host, call)
                opened.task = None  # before the event: its reader may answer at once
                self._publish_started(call)
                return
            self._publish_started(call)
            if (value := await self._call_function(host.tool, call)) is not _REPLIED:
                await self._reply_with(host.tool.result, call, value)
        except Refusal as refused:
            self._refuse(call, refused)
        except Exception:  # noqa: BLE001 - a full disk, say: without an answer the call would wait until its time is over
            _log.exception("%s: call %d could not be answered", call.tool_id, call.call_id)
            self._refuse(call, Refusal("ToolFailed", failed(call.call_id)))
        self._open.pop(call.call_id, None)

    def _refuse(self, call: HeldCall, refused: Refusal) -> None:
        text = str(refused)[:_TEXT_CHARS].encode("utf-8", "replace").decode()  # a file name can hold lone surrogates
        self._reply(call.call_id, error=refused.error, text=text)

    def _publish_started(self, call: HeldCall) -> None:
        whole = call.size <= _SHOWN_BYTES and self._shown + call.size <= _SHOWN_IN_ALL
        self._shown += call.size if whole else 0
        self._feed.publish(Event(kind="tool_call_started", at_s=self._at(), data=call.shown(whole=whole)))

    async def _check(self, host: HostTool, call: HeldCall) -> None:
        from isorun.runtime.inspection.schema import value_fault

        fault = await self._threads.run(lambda: value_fault(host.described["parameters"], dict(call.params)))
        if fault:
            raise Refusal("ToolInputInvalid", f"{call.tool_id}: {fault}")

    async def _call_function(self, tool: Tool, call: HeldCall) -> object:
        """The result of the caller's function. Raises `Refusal`."""
        try:
            arguments = tool.check(dict(call.params))
        except ArgumentsRefused as refused:
            raise Refusal("ToolInputInvalid", f"{tool.id}: {refused}") from None
        except Exception as error:  # noqa: BLE001 - boundary: a type of the caller's own may fail in any way
            raise self._failed(call, error) from None
        self._count(tool)
        if tool.context is not None:
            arguments[tool.context] = self._context(tool, call)
        timeout = asyncio.timeout(tool.marks.timeout_s)
        try:
            async with timeout:
                if tool.is_async:
                    return await tool.function(**arguments)
                function = functools.partial(tool.function, **arguments)
                value = await self._threads.run(function, functools.partial(self._reply_from_thread, call))
                return await value if inspect.isawaitable(value) else value
        except (Refusal, KeyboardInterrupt):
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._failed(call, error) from None  # raised by the function, not by a cancellation of ours
        except BaseException as error:  # noqa: BLE001 - SystemExit, too, would end the loop of every run
            if timeout.expired():
                raise Refusal("ToolTimeout", f"{tool.id} took longer than {tool.marks.timeout_s:.3g} s") from None
            raise self._failed(call, error) from None

    def _reply_from_thread(self, call: HeldCall, value: object) -> object:
        """Answer with what a function returned, in its thread; what cannot be sent as it is, is left to the loop."""
        if call.call_id in self._open and not inspect.isawaitable(value):
            with suppress(NotEncodable):
                self._reply(call.call_id, value)
                return _REPLIED
        return value

    async def _reply_with(self, result: ResultType, call: HeldCall, value: object) -> None:
        """Answer with *value*, as it is or as its type dumps it."""
        try:
            self._reply(call.call_id, value)
        except NotEncodable as error:
            if error.reason.startswith(TOO_LARGE):
                raise Refusal("ToolFailed", unsendable(error)) from None
            self._reply(call.call_id, await self._dumped(result, call, value))

    async def _dumped(self, result: ResultType, call: HeldCall, value: object) -> object:
        try:
            return await self._threads.run(lambda: result.dumped(value))
        except Unfit as unfit:
            raise Refusal("ToolFailed", unsendable(unfit)) from None
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001 - boundary: a type of the caller's own may fail in any way
            raise self._failed(call, error) from None

    def _count(self, tool: Tool) -> None:
        used = self._used[tool.id] = self._used.get(tool.id, 0) + 1
        if tool.marks.max_calls is not None and used > tool.marks.max_calls:
            said = f"this run may call {tool.id} {tool.marks.max_calls} times (max_calls of its @isorun.tool)"
            raise Refusal("ToolBudgetExceeded", said)

    def _context(self, tool: Tool, call: HeldCall) -> ToolContext:
        request = self._request
        return ToolContext(
            output_dir=INSIDE,
            user_id=request.user_id,
            turn_id=request.turn,
            exec_id=request.exec_id,
            deadline=call.deadline,
            log=logging.getLogger(f"isorun.tool.{tool.id}"),
            env={},
            opener=self._output.open,
        )

    def _failed(self, call: HeldCall, error: BaseException) -> Refusal:
        if isinstance(error, ToolError):
            return Refusal("ToolFailed", str(error))
        host = self._tools[call.tool_id]
        for line in raised(error, host.described["where"]).splitlines():
            self._tell("tool", "ERROR", f"{call.tool_id} {call.call_id}: {line}")
        return Refusal("ToolFailed", failed(call.call_id))


def _size(value: object) -> int:
    size, open_ = 0, [value]
    while open_:
        one = open_.pop()
        size += _NODE_BYTES + (len(one) if isinstance(one, str | bytes | bytearray | memoryview) else 0)
        if isinstance(one, Mapping):
            size += sum(map(len, one))
            open_ += one.values()
        elif isinstance(one, list):
            open_ += one
    return size
