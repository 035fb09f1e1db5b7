"""The host's end of a supervisor process: starts it, gives it runs, hears of them, starts it anew.

Theory of operation. One process serves all runs of a Runtime's bundle. A run is handed
over with three descriptors: our end of its tool stream, its output directory, and the
table of its calls. If the process dies, the calls in flight are journalled from that table, a
new process is started, and every open run gets a new stream: the program's end of it
travels over the old one. What the process says is ours to believe; what it hands on
of a program is not.

It must never read a tool stream itself, nor give the process more of our environment
than it is told to.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from isorun.core.errors import IsorunError, SetupFailed
from isorun.core.guard.log import log_of
from isorun.core.process import StartProcess
from isorun.core.records import unpacked
from isorun.core.text import one_line
from isorun.supervisor.descriptor import NO_NETWORK, SERVICES, Descriptor
from isorun.supervisor.incarnation import Incarnation, LocalProcess, NewStream, a_pair
from isorun.supervisor.opened import Answers, OpenedRun, RunListener
from isorun.supervisor.session import CallLimits
from isorun.supervisor.worker.modes import ModePolicy
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import (
    CallGivenUp,
    CallHeld,
    CloseRun,
    Journal,
    Message,
    OpenRun,
    RunClaim,
    RunClosed,
    RunHeld,
    RunLog,
    RunViolated,
)

_log = log_of("isorun.supervisor")
_CLOSE_S = 5.0
_RESTARTS, _WITHIN_S = 5, 60.0
_PRINTS = 1000  # lines of the process itself that are told between the beginnings of two runs


@contextmanager
def _one_runs_trouble() -> Iterator[None]:
    """One run's folder is full or gone: the others are still to be heard and served."""
    try:
        yield
    except Exception:  # noqa: BLE001 - as above, whatever a listener raises
        _log.exception("a supervisor's output could not be recorded")


class Supervisor:
    """The supervisor of one bundle. Use it as `async with`; leaving the block ends its process.

    *environment* is all that the process gets of ours. With *network* False it has none. *start*: where it runs.
    *mode_policy*: where its tools run. Entering raises `InvalidRequest` (invalid_bundle) naming file, line and tool if
    the bundle cannot be loaded, and `Unavailable` naming the tool that cannot run where it must.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        environment: Mapping[str, str],
        *,
        network: bool = True,
        start: StartProcess = LocalProcess.start,
        mode_policy: ModePolicy | None = None,
    ) -> None:
        self.descriptor = descriptor
        self._start_process = start
        self._mode_policy = mode_policy or ModePolicy()
        self._environment = {**environment, **({} if network else {NO_NETWORK: "1"})}
        self.tools: Mapping[str, Mapping[str, Any]] = {}
        self.services: Mapping[str, str] = {}  # `ok` or `unreachable (reason)`, as the first process found each
        self._runs: dict[int, OpenedRun] = {}
        self._numbers = self._prints = 0
        self._process: Incarnation | None = None
        self._deaths: deque[float] = deque(maxlen=_RESTARTS)
        self._restarted = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> "Supervisor":
        self._process = await self._start()
        self._environment.pop(SERVICES, None)  # a process that replaces it does not wait for services
        self._keeper = asyncio.create_task(self._keep(), name="isorun-supervisor")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing = True
        if self._process is not None:
            await self._process.end()
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper

    async def _start(self) -> Incarnation:
        process = Incarnation(await self._start_process(self.descriptor.to_json(), self._environment), self._printed)
        try:
            loaded = await process.load()
            await process.place(self._mode_policy.resolve(self.descriptor.modes, loaded.tools))
        except BaseException:
            await process.end()
            raise
        self.tools, self.services = loaded.tools, {**self.services, **loaded.services}
        return process

    async def open(
        self,
        *,
        exec_id: str,
        turn: str,
        user: str,
        grants: Sequence[str],
        limits: CallLimits,
        stream: socket.socket,
        out: int,
        listener: RunListener,
        new_stream: NewStream = a_pair,
        held: Sequence[str] = (),
        answers: Answers | None = None,
    ) -> OpenedRun:
        """Hand a run over. *stream* and *out* stay the caller's and must live until `OpenedRun.close`.

        *new_stream* makes what replaces *stream* if this process dies. *answers* is asked for the calls of *held*.
        """
        self._numbers += 1
        self._prints = 0
        request = OpenRun(
            run=self._numbers,
            exec_id=exec_id,
            turn=turn,
            user=user,
            grants=list(grants),
            held=list(held),
            limits=asdict(limits),
        )
        run = OpenedRun(self, request, stream, out, listener, new_stream, answers)
        self._runs[request.run] = run
        if self._process is None:
            self._restarted.set()  # a process that died too often gets another chance with every run
        elif not self._process.is_killed:  # else it is the next one's
            run.hand_to(self._process)
        return run

    def tell(self, message: Message) -> bool:
        """Send *message* to the process; False if it has died."""
        if self._process is None:
            return False
        self._process.send(message)
        return True

    async def finish(self, run: OpenedRun) -> None:
        """See `OpenedRun.close`."""
        process = self._process
        if process is not None and not run.closed.done():
            process.send(CloseRun(run=run.request.run))
            # A loop that is being torn down has cancelled the keeper: then nobody hears the answer.
            await asyncio.wait({run.closed, self._keeper}, timeout=_CLOSE_S, return_when=asyncio.FIRST_COMPLETED)
            if not run.closed.done() and not self._keeper.done():
                _log.error("the supervisor of %s does not answer; it is killed", self.descriptor.name)
                run.listener.told("supervisor", "ERROR", "the supervisor does not answer; it is killed")
                process.kill()
        self._runs.pop(run.request.run, None)

    async def _keep(self) -> None:
        """Hear the process until it dies, and start another, for as long as we live."""
        while not self._closing:
            if self._process is None:
                await self._restarted.wait()
            else:
                await self._hear(self._process)
                await self._bury()
            if not self._closing:
                await self._revive()

    async def _hear(self, process: Incarnation) -> None:
        """Take what it says until it is gone, or is killed because it said something else than a message."""
        try:
            await process.hear(self._take)
        except (ProtocolError, OSError) as error:
            _log.error(
                "the supervisor of %s sent bytes that are not a message: %s", self.descriptor.name, one_line(str(error))
            )
            process.kill()

    async def _bury(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        how = await process.end()
        if self._closing:
            return
        self._deaths.append(time.monotonic())
        _log.error("the supervisor of %s died (%s)", self.descriptor.name, one_line(how))
        for run in [run for run in self._runs.values() if not run.is_new]:
            with _one_runs_trouble():
                run.listener.told("supervisor", "ERROR", f"the supervisor died ({how})")
                run.journal_the_unsaid()
                if run.answers is not None:
                    run.answers.given_up(None)
            run.held(run.asked, quiet=True)
            if not run.closed.done():
                run.closed.set_result(None)  # whoever waits for its last words waits in vain

    async def _revive(self) -> None:
        self._restarted.clear()
        often = len(self._deaths) == _RESTARTS and time.monotonic() - self._deaths[0] < _WITHIN_S
        try:
            if often:
                raise SetupFailed("supervisor", f"it died {_RESTARTS} times within {_WITHIN_S:.0f} s")
            self._process = await self._start()
        except (IsorunError, OSError) as error:
            _log.error("the supervisor of %s is not started again: %s", self.descriptor.name, one_line(str(error)))
            self._deaths.clear()
            for run in self._runs.values():
                run.cut_off()
                with _one_runs_trouble():
                    run.listener.told("supervisor", "ERROR", f"the supervisor is not started again: {error}")
            return
        for run in tuple(self._runs.values()):
            if run.is_new:
                run.hand_to(self._process)
            elif await run.replace_stream():
                run.closed = asyncio.get_running_loop().create_future()
                run.hand_to(self._process)
                with _one_runs_trouble():
                    run.listener.told("supervisor", "INFO", "the supervisor was started anew")

    def _take(self, message: Message) -> None:
        if run := self._runs.get(getattr(message, "run", 0)):
            with _one_runs_trouble():
                self._tell(run, message)

    def _tell(self, run: OpenedRun, message: Message) -> None:
        listener = run.listener
        match message:
            case Journal(records=records):
                listener.journalled(unpacked(records))
            case RunLog(component=component, level=level, text=text):
                listener.told(component, level, text) if component != "program" else listener.logged(
                    level, *text.partition(" ")[::2]
                )
            case RunClaim(claim=claim):
                listener.claimed(claim)
            case RunViolated(reason=reason):
                listener.violated(reason)
            case CallHeld() if run.answers is not None and not run.is_closing:
                run.answers.asked(message)
            case CallGivenUp(call=call_id) if run.answers is not None:
                run.answers.given_up(call_id)
            case RunHeld(asked=asked):
                run.held(asked, quiet=True)
            case RunClosed() if not run.closed.done():
                run.closed.set_result(None)

    def _printed(self, line: str) -> None:
        """What was printed outside of calls: for our own log, and for the run's if it is alone. A flood is cut."""
        self._prints += 1
        if self._prints > _PRINTS:
            return
        _log.warning("%s: %s", self.descriptor.name, one_line(line))
        if len(self._runs) == 1:
            next(iter(self._runs.values())).listener.told("supervisor", "WARNING", line)
