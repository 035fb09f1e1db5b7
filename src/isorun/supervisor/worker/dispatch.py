"""One tool of one run, dispatched to a worker: what `supervisor.dispatch` is for a tool in the supervisor."""

from collections.abc import Mapping
from typing import Any

from isorun.supervisor.dispatch import GrantedTool, RunFacts, Threads
from isorun.supervisor.prints import CallOutput
from isorun.supervisor.registry import Tool
from isorun.supervisor.session import Refusal
from isorun.supervisor.tool import ToolError
from isorun.supervisor.worker.failures import TRACEBACK_CHARS
from isorun.supervisor.worker.handle import WorkerLost
from isorun.supervisor.worker.modes import WorkerKind
from isorun.supervisor.worker.pool import WorkerPool
from isorun.wire.frames import MAX_FRAME
from isorun.wire.messages import Failed, Result, Work

_TOOL_ERRORS = ("ToolFailed", "ToolInputInvalid")  # a worker may report these two; the supervisor decides the others


class WorkerTool(GrantedTool):
    """See `session.Answering`."""

    def __init__(self, tool: Tool, run: RunFacts, threads: Threads, pool: WorkerPool, kind: WorkerKind) -> None:
        super().__init__(tool, run, threads)
        self._pool, self._kind = pool, kind

    async def execute(
        self, call_id: int, params: dict[str, Any], arguments: Mapping[str, Any], deadline: float
    ) -> object:
        """See `GrantedTool.execute`; the worker makes *arguments* again from *params*."""
        tool, run = self._tool, self._run
        work = Work(
            id=call_id,
            tool=tool.id,
            params=params,
            exec_id=run.exec_id,
            turn=run.turn,
            user=run.user,
            deadline=deadline,
            frame_bytes=min(run.frame_bytes, MAX_FRAME),
        )
        log = _CallLog(run, f"{tool.id} {call_id}")
        try:
            answer = await self._call(work, log)
        except WorkerLost as lost:
            log.write("ERROR", f"the tool's process {lost}\n")
            raise Refusal("ToolFailed", f"the tool's process {lost} (call {call_id})") from None
        except ToolError as error:
            raise Refusal("ToolFailed", str(error)) from None
        finally:
            log.close()
        if isinstance(answer, Failed):
            raise Refusal(answer.error if answer.error in _TOOL_ERRORS else "ToolFailed", answer.text)
        return answer.value

    async def _call(self, work: Work, log: "_CallLog") -> Result | Failed:
        if self._tool.context is None:
            return await self._pool.call(self._kind, work, None, log.write)
        with self._run.output.lent() as out:
            return await self._pool.call(self._kind, work, out, log.write)


class _CallLog:
    """The output of one call, for the run's infra.log: prints as they come, a traceback once the call has ended."""

    def __init__(self, run: RunFacts, name: str) -> None:
        self._run, self._name = run, name
        self._output = CallOutput(lambda text: run.tell("tool", "INFO", f"{name}: {text}"))
        self._traceback = ""

    def write(self, level: str, text: str) -> None:
        """Take a piece of the output, as a worker sends it."""
        if level == "INFO":
            self._output.write(text)
        else:
            self._traceback += text

    def close(self) -> None:
        """Write the rest: no more output comes."""
        for line in self._traceback[:TRACEBACK_CHARS].splitlines():
            self._run.tell("tool", "ERROR", f"{self._name}: {line}")
        self._output.close()
