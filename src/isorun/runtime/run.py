"""One run, from a request and a slot to an outcome.

Theory of operation. The slot already stands. We start reading its pipes and its tool
stream, send the program, and the clock starts when the slot says that the program's
first instruction is next. Then the first of these ends the run: the program's end, the
deadline, a cancellation, a flood of output, a breach of the protocol. If it was not
the program, it gets SIGTERM and a grace period. In every case the slot is then killed,
and only after that, when nothing can write any more, are pipes drained and files read.
"""

import asyncio
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isorun.backends.base import File, Program, Slot, Usage
from isorun.backends.walls import executor_line
from isorun.core.limits import Limits
from isorun.core.outcome import Claim, Code, Exit, Status, Stop, classify
from isorun.executor import rules
from isorun.executor.loader import MAIN
from isorun.runtime.events import Event, Feed
from isorun.runtime.folder import RunFolder, failed, utc_now
from isorun.runtime.output import OutputLog, PipeReader
from isorun.runtime.request import RunRequest
from isorun.runtime.toolstream import open_tools
from isorun.wire.frames import MAX_FRAME
from isorun.wire.messages import Ended

if TYPE_CHECKING:
    from isorun.supervisor.client import Supervisor

_log = logging.getLogger("isorun")
_DRAIN_S = 5.0
_BLANK = re.compile(r"\s")
_TRACE = 8192
_EXEC_TOOLS = ("execute_code_python", "execute_code_python_side_effect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator decides about every run."""

    log_mode: str = "include_logging"
    traceback_remap: bool = True
    frame_bytes: int = MAX_FRAME  # the largest frame that the other end of the tool stream takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known once the last process is dead, before files are looked at."""

    status: Status
    code: Code | None
    exit: Exit
    usage: Usage
    claim: Claim | None
    stop: Stop | None
    violation: str
    last_trace: str
    run_s: float
    output: OutputLog
    tool_calls: tuple[dict[str, Any], ...]  # records, see `supervisor.session.ToolSession`


def program_for(request: RunRequest, options: Options) -> Program:
    """What the slot is told to run."""
    files = [File(path=f"work/{rules.PROGRAM}", data=request.code)]  # the loader brings main.py
    if request.stdin is not None:
        files.append(File(path=f"work/{rules.STDIN_FILE}", data=request.stdin))
    files.extend(request.inputs)
    if request.before is not None:
        files.extend(
            File(path=f"out/{path}", source=request.before / path, sha256=digest)
            for path, digest in request.sent.items()
        )
    items = request.contract.items if request.contract else ()
    context = {
        "exec_id": request.exec_id,
        "turn": request.turn,
        "contract": [{"filename": i.path, "description": i.description} for i in items] if items else None,
        "directories": sorted({item.path.rpartition("/")[0] for item in items}),
        "log_mode": options.log_mode,
        "traceback_remap": options.traceback_remap,
        "frame_bytes": options.frame_bytes,
        "stdin": request.stdin is not None,
        "tools": _proxies(request.grants),
    }
    return Program(files=files, argv=request.argv, context=context)


def _proxies(grants: Sequence[str]) -> dict[str, list[str]]:
    """The names of the tools by alias. Those that every program finds are there to be denied with a reason."""
    found = {"exec_tools": list(_EXEC_TOOLS)}
    for tool_id in grants:
        alias, _, name = tool_id.partition(".")
        found.setdefault(alias, []).append(name)
    return found


class Conduct:
    """One run in one slot. `run` is called once; `stop` may be called at any time by anybody."""

    def __init__(
        self,
        request: RunRequest,
        slot: Slot,
        folder: RunFolder,
        limits: Limits,
        feed: Feed,
        on_output: Callable[[str, bytes], None] | None = None,
        supervisor: "Supervisor | None" = None,
    ) -> None:
        self._request = request
        self._supervisor = supervisor
        self._on_output = on_output
        self._slot = slot
        self._folder = folder
        self._limits = limits
        self._feed = feed
        self._stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._violation = ""
        self._started = 0.0
        self._calls: list[dict[str, Any]] = []
        self._claim: Claim | None = None

    def stop(self, reason: Stop) -> None:
        """End the run; the first reason given is the one that counts."""
        if not self._stopped.done():
            self._stopped.set_result(reason)

    @property
    def program_started(self) -> bool:
        """Whether the program's first instruction was reached."""
        return self._started > 0

    async def run(self, program: Program) -> Ending:
        """Run *program* to its end. A misbehaving program is an `Ending`; only the sandbox raises."""
        try:
            output = OutputLog(
                str(self._folder.user_log),
                f"===== EXECUTION {self._request.exec_id} START {utc_now()} =====",
                self._limits,
                self._published,
                lambda: self.stop(Stop.OUTPUT),
            )
        except OSError as error:
            raise failed(str(self._folder.user_log), error) from error
        try:
            self._folder.append_infra("executor", "INFO", executor_line(self._slot.isolation))
            for line in self._slot.origin:
                _log.info("[docker.exec] %s", line)
                self._folder.append_infra("docker.exec", "INFO", line)
            await self._slot.start(program)
            self._started = time.monotonic()
            self._feed.publish(Event(kind="started", at_s=0.0, data={"exec_id": self._request.exec_id}))
        except BaseException:
            output.close()
            raise
        # Listening begins here: no event comes before `started`, and until then the pipes hold what is said.
        readers = [
            PipeReader(self._slot.stdout, lambda data: self._printed(output, "stdout", data)),
            PipeReader(self._slot.stderr, lambda data: self._printed(output, "stderr", data)),
        ]
        tools = await open_tools(self._supervisor, self._request, self._slot, self._limits, self)
        try:
            self._folder.write_program(MAIN, self._request.code)  # while the program runs, not before
            stop = await self._until_end()
            run_s = time.monotonic() - self._started
            exit_, usage = await self._slot.kill()
            await _drain(readers)
        finally:
            for reader in readers:
                reader.stop()
            await tools.close()
            output.close()
        if self._stopped.done() and self._stopped.result() is Stop.VIOLATION:
            stop = Stop.VIOLATION  # found while draining: the last bytes count like the first
        status, code = classify(exit_, stop, self._claim)
        return Ending(
            status=status,
            code=code,
            exit=exit_,
            usage=usage,
            claim=self._claim,
            stop=stop,
            violation=self._violation,
            last_trace=_read_trace(self._slot.work) if stop else "",
            run_s=run_s,
            output=output,
            tool_calls=tuple(self._calls),
        )

    async def _until_end(self) -> Stop | None:
        """Wait for whatever ends the run first; None if it was the program itself."""
        ended = asyncio.ensure_future(self._slot.wait())
        try:
            waited: set[asyncio.Future[Any]] = {ended, self._stopped}
            await asyncio.wait(waited, timeout=self._request.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await ended
                return None
            self.stop(Stop.DEADLINE)  # without effect if another reason came first
            self._slot.terminate()
            await asyncio.wait({ended}, timeout=self._limits.grace_s)
            return self._stopped.result()
        finally:
            ended.cancel()
            with suppress(asyncio.CancelledError):
                await ended

    def _at(self) -> float:
        return round(time.monotonic() - self._started, 6) if self._started else 0.0

    def _printed(self, output: OutputLog, stream: str, data: bytes) -> None:
        if self._on_output is not None:
            self._on_output(stream, data)
        output.feed(stream, data)

    def _published(self, stream: str, text: str) -> None:
        self._feed.publish(Event(kind="output", at_s=self._at(), data={"stream": stream, "text": text}))

    def logged(self, level: str, name: str, text: str) -> None:
        """See `session.Listener`."""
        self._folder.append_infra("program", level, f"{name} {text}")

    def told(self, component: str, level: str, text: str) -> None:
        """See `client.RunListener`."""
        self._folder.append_infra(component, level, text)

    def claimed(self, claim: Ended) -> None:
        """See `session.Listener`."""
        self._claim = Claim(
            type=claim.type, message=claim.message, errno=claim.errno, line=claim.line, source=claim.source
        )

    def began(self, record: dict[str, Any]) -> None:
        """See `session.Listener`."""

    def called(self, record: dict[str, Any]) -> None:
        """See `session.Listener`."""
        self.journalled([record])

    def journalled(self, records: Sequence[dict[str, Any]]) -> None:
        """See `client.RunListener`."""
        self._calls += records
        lines = (f"[tool_call] {_one_word(r['tool_id'])} {r['call_id']} {r['status']} {r['ms']}" for r in records)
        self._folder.append_infra("supervisor", "INFO", *lines)
        at_s = self._at()
        shown = ({key: record[key] for key in ("call_id", "tool_id", "reason", "status", "ms")} for record in records)
        self._feed.publish(*(Event(kind="tool_call", at_s=at_s, data=data) for data in shown))

    def violated(self, reason: str) -> None:
        """See `session.Listener`."""
        self._violation = reason
        self.stop(Stop.VIOLATION)


def _one_word(tool_id: str) -> str:
    """A program chose it: with a blank in it, it could pass for another call's whole line."""
    return _BLANK.sub(lambda blank: f"\\x{ord(blank[0]):02x}", tool_id)


async def _drain(readers: list[PipeReader]) -> None:
    """Everybody who could write is dead, so each pipe has an end; the bound is for a kernel that disagrees."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            for reader in readers:
                await reader.ended.wait()


def _read_trace(work: int) -> str:
    """What faulthandler wrote at SIGTERM; the program could have put anything in its place."""
    try:
        descriptor = os.open(rules.LAST_TRACE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=work)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, _TRACE).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
