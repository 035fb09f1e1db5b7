"""Carries out one granted call: arguments checked, context filled, deadline kept, failures told apart.

The text of a host's error can hold paths and secrets, so what a tool raised goes to the
run's infra.log; the program is told that the tool failed, and the number of the call.
Only a `ToolError` speaks for itself.
"""

import asyncio
import contextvars
import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from isorun.supervisor.output import INSIDE, OutputDirectory
from isorun.supervisor.prints import CallOutput, current
from isorun.supervisor.registry import ArgumentsRefused, Tool
from isorun.supervisor.session import Refusal
from isorun.supervisor.tool import ToolContext, ToolError
from isorun.supervisor.worker.failures import failed, raised, unsendable
from isorun.wire.values import Unfit

_THREADS = 64
_ABANDONED = 32  # threads whose call has timed out; with these the process is of no use any more


class Threads:
    """Where tools that are not coroutines run. A thread cannot be ended, so calls can leave it behind."""

    def __init__(self, exhausted: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tool")
        self._exhausted = exhausted
        self._pid = os.getpid()
        self._abandoned = 0
        self.busy = 0

    async def run(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> object:
        """The result of *function*; if this is cancelled, its thread goes on and is counted."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        self.busy += 1
        future = loop.run_in_executor(self._pool, context.run, functools.partial(self._call, function, arguments))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                self._abandoned += 1
                future.add_done_callback(self._came_back)
                if self._abandoned >= _ABANDONED:
                    self._exhausted()
            raise
        finally:
            self.busy -= 1

    def end_child(self) -> None:
        """Does not return in a child that a tool forked and that came back here: it is not the supervisor."""
        if os.getpid() != self._pid:
            os._exit(70)

    def _came_back(self, future: "asyncio.Future[object]") -> None:
        self._abandoned -= 1
        if not future.cancelled():
            future.exception()  # nobody waits for it any more

    def _call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> object:
        try:
            return function(**arguments)
        except (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration) as error:
            raise _Left(repr(error)) from error
        finally:
            self.end_child()


class _Left(Exception):
    """A tool raised what would end the process, or what a future does not carry: the call would hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the tools of one run may know of it."""

    exec_id: str
    turn: str
    user: str
    frame_bytes: int  # of an answer
    env: Mapping[str, str]
    output: OutputDirectory
    tell: Callable[[str, str, str], None]  # component, level, text: a line for the run's infra.log


class GrantedTool:
    """One tool for one run; see `session.Answering`."""

    def __init__(self, tool: Tool, run: RunFacts, threads: Threads) -> None:
        self._tool, self._run, self._threads = tool, run, threads
        self._log = logging.getLogger(f"isorun.tool.{tool.id}")
        self.max_calls = tool.marks.max_calls
        self.timeout_s = tool.marks.timeout_s

    async def answer(self, call_id: int, params: dict[str, Any], deadline: float) -> object:
        """See `session.Answering.answer`."""
        tool = self._tool
        try:
            arguments = tool.check(params)
        except ArgumentsRefused as refused:
            raise Refusal("ToolInputInvalid", f"{tool.id}: {refused}") from None
        except Exception as error:  # noqa: BLE001 - boundary: a type of the tool's own may fail in any way
            raise self._failed(call_id, error) from None
        if deadline <= time.monotonic():
            raise Refusal("ToolTimeout", f"{tool.id} was not begun: its time was over")
        return await self.execute(call_id, params, arguments, deadline)

    async def execute(self, call_id: int, params: dict[str, Any], arguments: dict[str, Any], deadline: float) -> object:
        """The result of the tool for *arguments*, which were made of *params*, or `Refusal`."""
        tool = self._tool
        if tool.context is not None:
            arguments[tool.context] = self._context(deadline)
        output = CallOutput(lambda text: self._run.tell("tool", "INFO", f"{tool.id} {call_id}: {text}"))
        token = current.set(output)
        try:
            if tool.is_async:
                return await tool.function(**arguments)
            return await self._threads.run(tool.function, arguments)
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            raise self._failed(call_id, error) from None  # the tool raised it by itself
        except BaseException as error:  # noqa: BLE001 - boundary: any tool may fail in any way, also by SystemExit
            raise self._failed(call_id, error) from None
        finally:
            self._threads.end_child()
            current.reset(token)
            output.close()

    async def sendable(self, call_id: int, value: object) -> object:
        """See `session.Answering.sendable`. In a thread: a large table takes its time."""
        try:
            return await self._threads.run(self._tool.result.dumped, {"value": value})
        except Unfit as unfit:
            raise Refusal("ToolFailed", unsendable(unfit)) from None
        except Exception as error:  # noqa: BLE001 - boundary: a type of the tool's own may fail in any way
            raise self._failed(call_id, error) from None

    def _context(self, deadline: float) -> ToolContext:
        run = self._run
        return ToolContext(
            output_dir=INSIDE,
            user_id=run.user,
            turn_id=run.turn,
            exec_id=run.exec_id,
            deadline=deadline,
            log=self._log,
            env=run.env,
            opener=run.output.open,
        )

    def _failed(self, call_id: int, error: BaseException) -> Refusal:
        if isinstance(error, ToolError):
            return Refusal("ToolFailed", str(error))
        for line in raised(error, self._tool.where).splitlines():
            self._run.tell("tool", "ERROR", f"{self._tool.id} {call_id}: {line}")
        return Refusal("ToolFailed", failed(call_id))


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
