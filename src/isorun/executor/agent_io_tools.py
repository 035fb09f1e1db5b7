"""The program's way to its tools: `await tool_call(...)`, or `tool_call_sync(...)` without a loop.

Calls may overlap, from any thread and any loop. A reader thread, started with the
first call, hands each answer to the call it belongs to. A child of `os.fork` has no
tools: the stream belongs to the process it was given to.
"""

import asyncio
import os
import socket
import threading
from concurrent.futures import Future
from typing import Any

from isorun.wire.frames import Frames
from isorun.wire.messages import Call, Message, Refused, Reply, decode, encode

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
    """Nobody answers tool calls: no supervisor, or it is gone."""


_ERRORS: dict[str, type[ToolError]] = {error.__name__: error for error in ToolError.__subclasses__()}


async def tool_call(
    fn: Any = None,  # noqa: ANN401 - a proxy's attribute; checked below
    params: dict[str, Any] | None = None,
    tool_id: str | None = None,
    call_reason: str = "",
    timeout_s: float | None = None,
) -> Any:  # noqa: ANN401 - the tool's result is its own affair
    """Call a tool by its proxy (*fn*) or its *tool_id* and return its result.

    *params* are the tool's arguments; bytes may stand anywhere in them. Raises a
    `ToolError` of the kind that says why there is no result, and `TypeError` if *fn*
    and *tool_id* name different tools, or neither is given.
    """
    return await asyncio.wrap_future(_begin(_named(fn, tool_id), params or {}, call_reason, timeout_s))


def tool_call_sync(
    fn: Any = None,  # noqa: ANN401 - as in tool_call
    params: dict[str, Any] | None = None,
    tool_id: str | None = None,
    call_reason: str = "",
    timeout_s: float | None = None,
) -> Any:  # noqa: ANN401 - as in tool_call
    """As `tool_call`, for code without a running loop; blocks this thread only."""
    return _begin(_named(fn, tool_id), params or {}, call_reason, timeout_s).result()


def _named(fn: object, tool_id: str | None) -> str:
    of_fn = getattr(fn, "tool_id", None)
    if fn is not None and of_fn is None:
        raise TypeError(f"fn must be a tool such as local_tools.write_note, not {fn!r}")
    if of_fn is not None and tool_id is not None and of_fn != tool_id:
        raise TypeError(f"fn is {of_fn} and tool_id is {tool_id}: name one tool")
    name = of_fn or tool_id
    if name is None:
        raise TypeError("name a tool with fn or tool_id")
    return str(name)


class ToolStream:
    """One end of the tool stream, shared by every thread of the program's process."""

    def __init__(self, descriptor: int) -> None:
        self._socket: socket.socket | None = socket.socket(fileno=descriptor)
        self._writing = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._next = 1
        self._reader: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forget)

    def send(self, message: Message) -> None:
        """Send *message* if anybody is there to read it."""
        data = encode(message)
        with self._writing:
            if self._socket is not None:
                try:
                    self._socket.sendall(data)
                except OSError:
                    self._socket = None

    def begin(self, tool: str, params: dict[str, Any], reason: str, timeout_s: float | None) -> "Future[Any]":
        """Send a call; the future gets its result or its `ToolError`."""
        future: Future[Any] = Future()
        with self._writing:
            number, self._next = self._next, self._next + 1
            data = encode(Call(id=number, tool=tool, params=params, reason=reason, timeout_s=timeout_s))
            channel = self._socket
            if channel is None:
                raise ToolUnavailable("no tool stream: a child process has none, and a closed one stays closed")
            self._waiting[number] = future
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, args=(channel,), daemon=True, name="tool-answers")
                self._reader.start()
            try:
                channel.sendall(data)
            except OSError as error:
                self._waiting.pop(number)
                raise ToolUnavailable(f"the supervisor is gone: {error.strerror}") from error
        return future

    def _read(self, channel: socket.socket) -> None:
        frames = Frames()
        while True:
            try:
                data = channel.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            frames.feed(data)
            while (frame := frames.next()) is not None:
                self._answer(decode(*frame))
        for number in list(self._waiting):
            future = self._waiting.pop(number)
            if future.set_running_or_notify_cancel():
                future.set_exception(ToolUnavailable("the supervisor is gone"))

    def _answer(self, message: Message) -> None:
        match message:
            case Reply(id=number, value=value):
                future = self._waiting.pop(number)
                if future.set_running_or_notify_cancel():  # else the caller has given up, and the answer with it
                    future.set_result(value)
            case Refused(id=number, error=error, text=text):
                future = self._waiting.pop(number)
                if future.set_running_or_notify_cancel():
                    future.set_exception(_ERRORS[error](text))
            case _:
                raise RuntimeError(f"the supervisor sent a {type(message).__name__}")

    def _forget(self) -> None:
        """In a child of fork: the stream is the parent's."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._writing = threading.Lock()
        self._waiting = {}
        self._reader = None


_stream: list[ToolStream] = []


def connect(descriptor: int) -> ToolStream:
    """Use *descriptor* for the calls of this process."""
    _stream[:] = [ToolStream(descriptor)]
    return _stream[0]


def _begin(tool: str, params: dict[str, Any], reason: str, timeout_s: float | None) -> "Future[Any]":
    if not _stream:
        raise ToolUnavailable("no tool stream in this process")
    return _stream[0].begin(tool, params, reason, timeout_s)
