"""The program's way to its tools: `await tool_call(...)`, or `tool_call_sync(...)` without a loop.

Calls may overlap, from any thread and any loop. A child of `os.fork` has no tools: the
stream belongs to the process it was given to. What is wrong with a call on this side is
found before anything is sent. It must not wait or read itself: see `tool_stream`.
"""

import os
import socket
from math import inf
from typing import Any

from isorun.executor.calls.tool_loops import ToolLoops
from isorun.executor.calls.tool_stream import Answer, Gone, ToolStream
from isorun.executor.calls.tool_threads import ToolThreads
from isorun.wire.messages import NotEncodable, Reply, encode
from isorun.wire.values import TOO_LARGE

__all__ = [
    "ToolBudgetExceeded",
    "ToolDenied",
    "ToolError",
    "ToolFailed",
    "ToolInputInvalid",
    "ToolTimeout",
    "ToolUnavailable",
    "tool_call",
    "tool_call_sync",
]


class ToolError(Exception):
    """A tool call that gave no result."""


class ToolDenied(ToolError):
    """No such tool for this run."""


class ToolInputInvalid(ToolError):
    """The arguments do not fit the tool's description."""


class ToolTimeout(ToolError):
    """The tool took longer than the call's deadline."""


class ToolBudgetExceeded(ToolError):
    """The run has used up the calls it was granted."""


class ToolFailed(ToolError):
    """The tool raised."""


class ToolUnavailable(ToolError):
    """No supervisor answers tool calls: the run has none, or it is gone."""


ERRORS: dict[str, type[ToolError]] = {error.__name__: error for error in ToolError.__subclasses__()}


async def tool_call(
    fn: Any = None,  # noqa: ANN401 - a proxy's attribute; checked below
    params: dict[str, Any] | None = None,
    tool_id: str | None = None,
    call_reason: str = "",
    timeout_s: float | None = None,
) -> Any:  # noqa: ANN401 - the tool's result is its own affair
    """Call a tool by its proxy (*fn*) or its *tool_id* and return its result.

    *params* are the tool's arguments; bytes may stand anywhere in them, and dates, sets, tables
    and numbers of numpy are sent in the form that JSON has for them. *timeout_s* bounds the
    tool's time, which the run's own limit does anyway. Raises a `ToolError` of the kind that
    says why there is no result (`ToolInputInvalid` names the place of a value that cannot be
    sent, such as `params.a[3]`, and nothing was sent), and `TypeError` if *fn* and *tool_id*
    name different tools, or neither is given.
    """
    number, frame = _frame(_named(fn, tool_id), params, call_reason, timeout_s)
    try:
        answer = await _connection[0].loops.running().call(number, frame)
    except Gone as gone:
        raise ToolUnavailable(str(gone)) from None
    return _result(answer)


def tool_call_sync(
    fn: Any = None,  # noqa: ANN401 - as in tool_call
    params: dict[str, Any] | None = None,
    tool_id: str | None = None,
    call_reason: str = "",
    timeout_s: float | None = None,
) -> Any:  # noqa: ANN401 - as in tool_call
    """As `tool_call`, for code without a running loop; blocks this thread only."""
    number, frame = _frame(_named(fn, tool_id), params, call_reason, timeout_s)
    try:
        answer = _connection[0].threads.call(number, frame)
    except Gone as gone:
        raise ToolUnavailable(str(gone)) from None
    return _result(answer)


def _named(fn: object, tool_id: object) -> str:
    of_fn = getattr(fn, "tool_id", None)
    if fn is not None and not isinstance(of_fn, str):
        raise TypeError(f"fn must be a tool such as local_tools.write_note, not {fn!r}")
    if tool_id is None:
        tool_id = of_fn
    elif of_fn is not None and of_fn != tool_id:
        raise TypeError(f"fn is {of_fn} and tool_id is {tool_id}: name one tool")
    if tool_id is None:
        raise TypeError("name a tool with fn or tool_id")
    if not isinstance(tool_id, str):
        raise TypeError(f"tool_id must be str, not {type(tool_id).__name__}")
    return tool_id


def _frame(tool: str, params: dict[str, Any] | None, reason: str, timeout_s: float | None) -> tuple[int, bytes]:
    if not _connection:
        raise ToolUnavailable("no tool stream in this process")
    if timeout_s is not None and not (_is_number(timeout_s) and 0 < timeout_s < inf):
        raise ToolInputInvalid(f"timeout_s: must be a positive, finite number of seconds, got {timeout_s!r}")
    stream, given = _connection[0].stream, {} if params is None else params
    try:
        return stream.frame(tool, given, reason, timeout_s)
    except NotEncodable as error:
        if not error.path.startswith("params") or not isinstance(given, dict) or error.reason.startswith(TOO_LARGE):
            raise ToolInputInvalid(str(error)) from None
    try:
        return stream.frame(tool, _converted(given), reason, timeout_s)
    except NotEncodable as error:
        raise ToolInputInvalid(str(error)) from None


def _converted(params: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON's types and bytes
    """*params* with dates, sets, numbers of numpy and the like in the form that JSON has for them."""
    from isorun.wire import conversion  # not at the top: most programs need it never, and it imports much
    from isorun.wire.values import Unfit

    try:
        return conversion.plain(params)
    except Unfit as unfit:
        raise ToolInputInvalid(f"params{unfit.path}: {unfit.reason}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _result(answer: Answer) -> Any:  # noqa: ANN401 - as in tool_call
    if isinstance(answer, Reply):
        return answer.value
    raise ERRORS[answer.error](answer.text)


class _Connection:
    """The stream of this process, and who waits on it."""

    def __init__(self, descriptor: int) -> None:
        self.stream = ToolStream(descriptor)
        self.threads = ToolThreads(self.stream)
        self.loops = ToolLoops(self.stream)

    def forget(self) -> None:
        """In a child of fork: the stream is the parent's."""
        self.threads.forget()
        self.stream.forget()


_connection: list[_Connection] = []  # empty, or the one of this process


def prepare(descriptor: int) -> ToolStream:
    """Let calls go over *descriptor*, a stream socket by the time of the first, in this process or its child."""
    connection = _Connection(descriptor)
    _connection[:] = [connection]
    return connection.stream


def keep_from_children() -> None:
    """From now on no child of this process has its calls."""
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for connection in _connection:
        connection.forget()


def rehearse() -> None:
    """Make one call that is answered at once, over a socket of its own: see `Loader`."""
    ours, theirs = socket.socketpair()
    with theirs:
        connection = _Connection(ours.detach())
        number, frame = connection.stream.frame("a.b", {"c": "d"}, "", None)
        theirs.send(encode(Reply(id=number, value={"e": "f"})))
        connection.threads.call(number, frame)
        connection.forget()
