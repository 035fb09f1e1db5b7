"""One run, from a request and a slot to an outcome.

Theory of operation. The slot already stands. We start reading its pipes and its tool
stream, send the program, and the clock starts when the slot says that the program's
first instruction is next. Then the first of these ends the run: the program's end, the
deadline, a cancellation, a flood of output, a breach of the protocol. If it was not
the program, it gets SIGTERM and a grace period. In every case the slot is then killed,
and only after that, when nothing can write any more, are pipes drained and files read.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from isorun.backends.base import File, Program, Slot, Usage
from isorun.core.errors import InvalidRequest
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.outcome import Code, Exit, Status, Stop, classify
from isorun.core.sent.claim import Claim
from isorun.core.sent.context import RunContext
from isorun.core.share import Account, Owing
from isorun.core.text import one_line, one_word
from isorun.executor import rules
from isorun.executor.status import line_of_isolation
from isorun.runtime.clock import Clock, Freezing
from isorun.runtime.events import Event, Feed
from isorun.runtime.held.tools import about_own, host_answers
from isorun.runtime.output import OnOutput, OutputLog, listening_to
from isorun.runtime.printed.pipes import Order, PipeReader, drain
from isorun.runtime.request import AcceptedRun
from isorun.runtime.shown import crash_dumps, read_trace
from isorun.runtime.toolstream import open_tools
from isorun.store.folder import RunFolder, failed, utc_now
from isorun.wire.frames import MAX_FRAME
from isorun.wire.values import CALL_VALUES

if TYPE_CHECKING:
    from isorun.runtime.held.calls import HostAnswers
    from isorun.supervisor.client import Supervisor

_log = log_of("isorun")
_NODES_OF_OURS = 8  # the program, the loader, and what the loader notes beside them


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator decides about every run."""

    log_mode: str = "include_logging"
    traceback_remap: bool = True
    keep_value: bool = True
    save_figures: bool = True
    frame_bytes: int = MAX_FRAME  # the largest frame that the other end of the tool stream takes
    frame_values: int = CALL_VALUES  # and how many values in it
    about: Mapping[str, list[str]] = field(default_factory=dict)  # of the bundle's tools, see `core.signatures.about`
    cpus: float = 1.0  # what the program is told that it has


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
    run_s: float  # of the run's own time, see `clock`
    frozen_s: float
    output: OutputLog
    tool_calls: tuple[dict[str, Any], ...]  # records, see `supervisor.session.ToolSession`
    heard: tuple[str, ...] = ()  # notices about the caller's on_output


def program_for(request: AcceptedRun, options: Options) -> Program:
    """What the slot is told to run."""
    files = [File(path=f"work/{rules.PROGRAM}", data=request.code)]  # the loader brings main.py
    if request.stdin is not None:
        files.append(File(path=f"work/{rules.STDIN_FILE}", data=request.stdin))
    given = shown_names(request)
    files.extend(replace(file, path=_cwd_path(file.path)) if _top(file) in given else file for file in request.inputs)
    if request.before is not None:
        files.extend(
            File(path=f"out/{path}", source=request.before / path, sha256=digest)
            for path, digest in request.sent.items()
        )
    items = request.contract.items if request.contract else ()
    context = RunContext(
        exec_id=request.exec_id,
        turn=request.turn,
        contract=[{"filename": item.path, "description": item.description} for item in items],
        directories=_directories(request),
        log_mode=options.log_mode,
        traceback_remap=options.traceback_remap,
        keep_value=options.keep_value,
        save_figures=options.save_figures,
        frame_bytes=options.frame_bytes,
        frame_values=options.frame_values,
        cpus=ceil(options.cpus),
        stdin=request.stdin is not None,
        given=sorted(given),
        tools=_proxies(request.grants),
        about={**{i: options.about[i] for i in request.grants if i in options.about}, **about_own(request.own_tools)},
    )
    return Program(files=files, argv=request.argv, env=request.env, context=context, timeout_s=request.timeout_s)


def _directories(request: AcceptedRun) -> list[str]:
    """The folders of out/ that the program finds made: for its turn and for the parents of its promises."""
    if not request.needs_turn:
        return []
    items = request.contract.items if request.contract else ()
    return sorted({f"{request.turn}/files", *(item.path.rpartition("/")[0] for item in items)})


def shown_names(request: AcceptedRun) -> frozenset[str]:
    """The inputs that stand in out/, by the first part of their path; the others stand in work/ alone.

    A name that the host writes there itself, the turn's folder and what out/ starts with come before them.
    """
    if not request.shown:
        return frozenset()
    taken = {path.partition("/")[0] for path in request.sent} | {request.turn}
    tops = {_top(file) for file in request.inputs}
    return frozenset(name for name in tops - taken if not RunFolder.reserved(name))


def digests_in_out(request: AcceptedRun, program: Program) -> dict[str, str]:
    """The sha256 of each input that stood in out/, by its path there. The run did not make a file that still has it."""
    given = shown_names(request)
    paths = [_cwd_path(file.path) for file in request.inputs if _top(file) in given]
    return {path.removeprefix("out/"): program.digests[path] for path in paths if path in program.digests}


def check_room(request: AcceptedRun) -> AcceptedRun:
    """*request* if what it sends can stand in the workspace. Raises `InvalidRequest` (too_many_inputs)."""
    if not request.inputs and not request.sent:
        return request
    given = shown_names(request)
    files = {_cwd_path(file.path) if _top(file) in given else file.path for file in request.inputs}
    files |= {f"out/{path}" for path in request.sent}
    files |= {f"out/{name}" for name in _directories(request)}
    # Each input in out/ has a link in work/, by which it is found beside the program, too.
    needed, most = len(_with_folders(files)) + len(given) + _NODES_OF_OURS, request.limits.workspace_inodes
    if needed > most:
        raise InvalidRequest(
            f"the inputs take {needed} files, folders and links in the workspace, which may have {most} "
            "(ISORUN_MAX_WORKSPACE_INODES); send fewer, or an archive of them",
            code="too_many_inputs",
        )
    return request


def _with_folders(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found


def _top(file: File) -> str:
    return file.path.removeprefix("work/").partition("/")[0]


def _cwd_path(path: str) -> str:
    return f"out/{path.removeprefix('work/')}"


def _proxies(grants: Sequence[str]) -> dict[str, list[str]]:
    """The names of the tools by alias. Those that every program finds are there to be denied with a reason."""
    found = {"exec_tools": list(rules.EXEC_TOOLS)}
    for tool_id in grants:
        alias, _, name = tool_id.partition(".")
        found.setdefault(alias, []).append(name)
    return found


class Conduct:
    """One run in one slot. `run` is called once; `stop` may be called at any time by anybody."""

    def __init__(
        self,
        request: AcceptedRun,
        slot: Slot,
        folder: RunFolder,
        limits: Limits,
        feed: Feed,
        on_output: OnOutput | None = None,
        supervisor: "Supervisor | None" = None,
        owing: Owing | None = None,
    ) -> None:
        self._request = request
        self._owing = owing or Owing()
        self._supervisor = supervisor
        self._listening = listening_to(on_output) if on_output else None
        self._slot = slot
        self._folder = folder
        self._limits = limits
        self._feed = feed
        self._stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._violation = ""
        self.clock = Clock(request.timeout_s)
        self.freezing = Freezing(slot, self.clock, feed)
        self._calls: list[dict[str, Any]] = []
        self._claim: Claim | None = None
        self.output: OutputLog | None = None  # what it has printed
        self.held: HostAnswers | None = None  # of the caller's own tools

    def stop(self, reason: Stop) -> None:
        """End the run; the first reason given counts."""
        if not self._stopped.done():
            self._stopped.set_result(reason)

    @property
    def program_started(self) -> bool:
        """Whether the program's first instruction was reached."""
        return self.clock.has_begun

    @property
    def tool_calls(self) -> tuple[dict[str, Any], ...]:
        """The records of the calls that have ended, see `supervisor.session.ToolSession`."""
        return tuple(self._calls)

    @property
    def heard(self) -> tuple[str, ...]:
        """Notices about the caller's function, if one listens to what is printed."""
        return self._listening.notices() if self._listening else ()

    async def run(self, program: Program) -> Ending:
        """Run *program* to its end. A misbehaving program is an `Ending`; only the sandbox raises.

        Long because every stream that is opened here is closed here, in one order on every way out.
        """
        try:
            output = self.output = OutputLog(
                str(self._folder.user_log),
                f"===== EXECUTION {self._request.exec_id} START {utc_now()} =====",
                self._limits,
                self._published,
                lambda: self.stop(Stop.OUTPUT),
            )
        except OSError as error:
            raise failed(str(self._folder.user_log), error) from error
        try:
            self._folder.append_infra("executor", "INFO", line_of_isolation(self._slot.isolation))
            for line in self._slot.origin(self._folder.path):
                _log.info("[docker.exec] %s", one_line(line))
                self._folder.append_infra("docker.exec", "INFO", line)
            await self._slot.start(program)
            self.clock.begin()
            self._feed.publish(Event(kind="started", at_s=0.0, data={"exec_id": self._request.exec_id}))
        except BaseException:
            output.close()
            raise
        # Listening begins here: no event comes before `started`, and until then the pipes hold what is said.
        account, order = Account(self._owing, time.monotonic()), Order()
        self._feed.before_others = order.catch_up
        readers = [
            PipeReader(self._slot.stdout, lambda data: self._printed(output, "stdout", data), account, order),
            PipeReader(self._slot.stderr, lambda data: self._printed(output, "stderr", data), account, order),
        ]
        self.held = host_answers(self._request, self._slot.out, self._feed, self._at, self.told)
        tools = await open_tools(
            self._supervisor, self._request, self._slot, self._limits, self, self._owing, self.held
        )
        try:
            self.freezing.begin(tools)
            self._folder.write_program(rules.MAIN, self._request.code)  # while the program runs, not before
            stop = await self._until_end()
            run_s, frozen_s = self.clock.run_s, self.clock.frozen_s
            exit_, usage = await self._slot.kill()
            if exit_.unasked and stop is Stop.DEADLINE:
                stop = None  # it was over in time, and we heard of it too late
            if exit_.violation:
                self.violated(exit_.violation)
            await drain(readers)
            if dumps := crash_dumps(read_trace(self._slot.work)):
                self._printed(output, "stderr", dumps.encode())
        finally:
            for reader in readers:
                reader.stop()
            account.close()
            await tools.close()
            if self.held is not None:
                self.held.close()
            output.close()
        if self._listening is not None:
            await self._listening.told()
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
            last_trace=read_trace(self._slot.work) if stop else "",
            run_s=run_s,
            frozen_s=frozen_s,
            output=output,
            tool_calls=tuple(self._calls),
            heard=self.heard,
        )

    async def _until_end(self) -> Stop | None:
        """Wait for the first thing that ends the run; None if the program ended by itself."""
        ended = asyncio.ensure_future(self._slot.wait())
        try:
            while not (ended.done() or self._stopped.done()) and ((left := self.clock.left_s) is None or left > 0):
                waited: set[asyncio.Future[Any]] = {ended, self._stopped, self.clock.moved}
                await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await self.freezing.end()
                await ended
                return None
            self.stop(Stop.DEADLINE)  # without effect if another reason came first
            await self.freezing.end(self._slot.terminate)
            await asyncio.wait({ended}, timeout=self._limits.grace_s)
            return self._stopped.result()
        finally:
            ended.cancel()
            with suppress(asyncio.CancelledError):
                await ended

    def _at(self) -> float:
        return round(self.clock.run_s, 6)

    def _printed(self, output: OutputLog, stream: str, data: bytes) -> None:
        output.feed(stream, data)
        if self._listening is not None:  # the caller's code comes last: it may raise
            self._listening.tell(stream, data)

    def _published(self, stream: str, text: str) -> None:
        self._feed.publish(Event(kind="output", at_s=self._at(), data={"stream": stream, "text": text}))

    def logged(self, level: str, name: str, text: str) -> None:
        """See `session.Listener`."""
        self._folder.append_infra("program", level, f"{name} {text}")

    def told(self, component: str, level: str, text: str) -> None:
        """See `opened.RunListener`."""
        self._folder.append_infra(component, level, text)

    def claimed(self, claim: Claim) -> None:
        """See `session.Listener`."""
        self._claim = claim

    def began(self, record: dict[str, Any]) -> None:
        """See `session.Listener`."""

    def called(self, record: dict[str, Any]) -> None:
        """See `session.Listener`."""
        self.journalled([record])

    def journalled(self, records: Sequence[dict[str, Any]]) -> None:
        """See `opened.RunListener`."""
        self._calls += records
        # A program chose the id: with a blank in it, it could pass for another call's whole line.
        lines = (f"[tool_call] {one_word(r['tool_id'])} {r['call_id']} {r['status']} {r['ms']}" for r in records)
        self._folder.append_infra("supervisor", "INFO", *lines)
        at_s = self._at()
        shown = ({key: record[key] for key in ("call_id", "tool_id", "reason", "status", "ms")} for record in records)
        self._feed.publish(*(Event(kind="tool_call", at_s=at_s, data=data) for data in shown))

    def violated(self, reason: str) -> None:
        """See `session.Listener`."""
        self._violation = reason
        self.stop(Stop.VIOLATION)
