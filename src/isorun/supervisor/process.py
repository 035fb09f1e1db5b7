"""The supervisor process: loads one bundle, then answers the tool calls of every run it is given.

Theory of operation. The host starts us with a control socket, an environment that holds
the allowed credentials, and `RUNTIME_GLOBALS_JSON` (on stdin if it is too long for an
environment). We say `Loaded` or `LoadFailed`. `OpenRun` brings a run's tool stream and
output directory as descriptors; from then on the program talks to us directly. What
the host must know of it goes back on the control socket, call records in batches. When
that socket ends, or the host dies, so do we.

For a tenth of a millisecond after an answer the event loop does not sleep: a program
that calls one tool after another would pay for waking a CPU with every call.
"""

import asyncio
import faulthandler
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any

from isorun.core.errors import IsorunError
from isorun.core.pace import pace_this_thread
from isorun.core.records import Record, packed
from isorun.core.sent.claim import Claim
from isorun.core.share import Owing
from isorun.kernel import libc, namespaces
from isorun.kernel.readiness import Channel
from isorun.settings import BASE_NAMES, become_environment, process_environment
from isorun.supervisor.descriptor import GLOBALS, GLOBALS_BYTES, NO_NETWORK, SERVICES, Descriptor, from_json
from isorun.supervisor.dispatch import GrantedTool, RunFacts, Threads
from isorun.supervisor.inflight import InFlight
from isorun.supervisor.output import OutputDirectory
from isorun.supervisor.prints import redirect
from isorun.supervisor.registry import Tool, load_tools
from isorun.supervisor.serving.held import HeldCalls
from isorun.supervisor.serving.outbox import Outbox
from isorun.supervisor.serving.services import check_services
from isorun.supervisor.serving.watchdog import STUCK, Watchdog
from isorun.supervisor.session import Answering, Asking, CallLimits, ToolSession
from isorun.supervisor.worker.dispatch import WorkerTool
from isorun.supervisor.worker.modes import IN_WORKERS, SUPERVISOR_NETWORK, WorkerKind
from isorun.supervisor.worker.pool import WorkerPool
from isorun.wire.messages import (
    CallAnswered,
    CallRefused,
    CloseRun,
    FreeRun,
    HoldRun,
    Journal,
    Loaded,
    LoadFailed,
    Message,
    OpenRun,
    Place,
    Placed,
    RunClaim,
    RunClosed,
    RunHeld,
    RunLog,
    RunViolated,
    encode,
)
from isorun.wire.session import Session, Side, State

_OUR_VARIABLES = (GLOBALS, NO_NETWORK, SERVICES)
_PR_SET_PDEATHSIG = 1
_HOT_S = 100e-6
_HOT_TURN_S = 20e-6
_SWITCH_S = 0.0005  # between threads: else the loop waits 5 ms each time that a tool or a header has the interpreter
_BATCH_S = 0.01
_BATCH = 128
_BATCH_BYTES = 256 << 10  # of one message, which the host reads at one go; a single record is below it
_LINE_CHARS = 4096


def main() -> None:
    """Serve the control socket, whose number is the one argument, until it ends.

    Never returns: what tools left running ends with us.
    """
    code = 70
    try:
        code = _main(int(sys.argv[1]))
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends
        traceback.print_exc()
    finally:
        os._exit(code)


def _main(control: int) -> int:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable()
    environment = process_environment()
    text = environment.get(GLOBALS)
    if text is None:
        text = sys.stdin.read()
        if len(text.encode()) <= GLOBALS_BYTES:  # told late: tools find it where those find it that were told early
            environment = {**environment, GLOBALS: text}
            become_environment(environment)
    channel = socket.socket(fileno=control)
    os.set_inheritable(control, False)
    return serve(channel, text, environment)


def serve(channel: socket.socket, text: str, environment: Mapping[str, str]) -> int:
    """Load the bundle of *text*, `RUNTIME_GLOBALS_JSON`, and answer its runs until *channel* ends. The exit code."""
    redirect()
    if environment.keys() & {SERVICES, NO_NETWORK}:  # no tool is to find them
        become_environment({n: value for n, value in environment.items() if n not in (SERVICES, NO_NETWORK)})
    try:
        if environment.get(NO_NETWORK):
            namespaces.leave_network()
        descriptor = from_json(text)
        try:
            tools = load_tools(descriptor)
        except (IsorunError, OSError) as error:
            channel.sendall(encode(LoadFailed(reason=descriptor.for_owner(str(error)))))
            return 1
    except (IsorunError, OSError) as error:
        channel.sendall(encode(LoadFailed(reason=str(error))))
        return 1
    channel.setblocking(False)
    allowed = {name: value for name, value in environment.items() if name not in (*BASE_NAMES, *_OUR_VARIABLES)}
    # A selector of our own, so that a child that a tool forks can let go of it: an epoll is shared with its parent.
    selector = selectors.EpollSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        server = _Server(channel, descriptor, tools, allowed, WorkerPool(text, allowed))
        os.register_at_fork(after_in_child=lambda: server.abandon(selector))
        return runner.run(server.serve(environment.get(SERVICES, "")))


class _Server:
    def __init__(
        self,
        channel: socket.socket,
        descriptor: Descriptor,
        tools: Mapping[str, Tool],
        env: dict[str, str],
        pool: WorkerPool,
    ) -> None:
        self._descriptor, self._tools, self._env, self._pool = descriptor, tools, env, pool
        self._kinds: dict[str, WorkerKind] = {}  # of each tool that runs in a worker
        self._channel = channel
        self._runs: dict[int, _Run] = {}

    async def serve(self, services: str) -> int:
        sys.setswitchinterval(_SWITCH_S)
        gc.freeze()  # the bundle is there to stay: a program's values must not have all of it searched for garbage
        self._loop = asyncio.get_running_loop()
        self._closings: set[asyncio.Task[None]] = set()
        self._owing = Owing()
        # One thread for all runs: each has one header in it at most, so they have turns.
        self._apart = ThreadPoolExecutor(
            1, thread_name_prefix="headers", initializer=pace_this_thread, initargs=(lambda: len(self._runs) > 1,)
        )
        session = Session(Side.SUPERVISOR, Side.HOST, State.LOADING)
        self._outbox = Outbox(self._channel, session, self._loop)
        self._threads = Threads(self._exhausted)
        self._hot_until = 0.0
        self._hot = False
        control = Channel(self._channel, session)
        tools = {tool_id: tool.described() for tool_id, tool in self._tools.items()}
        self._outbox.put(Loaded(tools=tools, services=await check_services(services)))
        Watchdog(self._loop).start()
        placing = await control.receive()
        if isinstance(placing, Place):  # nothing else comes before its answer
            self._outbox.put(Placed(refused=await self._place(placing.modes)))
            await control.hear(partial(self._take, control.descriptors))
        return 0

    def _take(self, descriptors: list[int], message: Message) -> None:
        match message:
            case CallAnswered(run=number) | CallRefused(run=number):
                if run := self._runs.get(number):
                    run.held.answered(message)
            case OpenRun():
                stream, out, table = (descriptors.pop(0) for _ in range(3))
                self._open(message, socket.socket(fileno=stream), out, InFlight(table))
            case CloseRun(run=number):
                self._apart_from_others(self._close(number))
            case HoldRun(run=number, asked=asked):
                self._apart_from_others(self._hold(number, asked))
            case FreeRun(run=number, frozen_s=seconds):
                if run := self._runs.get(number):
                    run.session.go_on(seconds)
            case _:
                raise RuntimeError(f"the table of messages has let {type(message).__name__} pass")

    def _apart_from_others(self, act: Coroutine[Any, Any, None]) -> None:
        """It waits for one run's tools; the other runs are heard meanwhile."""
        task = self._loop.create_task(act)
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _hold(self, number: int, asked: int) -> None:
        run = self._runs.get(number)  # None: its program could not be given a new stream, and has no tools
        if run is None or await run.session.quiet():
            self._outbox.put(RunHeld(run=number, asked=asked))

    async def _place(self, modes: Mapping[str, str]) -> str:
        """Take note of where each tool runs; which one cannot, and why, or nothing."""
        for tool_id, mode in modes.items():
            if mode in IN_WORKERS:
                tool = self._tools[tool_id]
                kind = WorkerKind.of(mode, network=tool.marks.network, context=tool.context is not None)
                self._kinds[tool_id] = kind
        if self._kinds:
            self._pool.prepare()
        for kind in set(self._kinds.values()):
            if kind.network != SUPERVISOR_NETWORK and (refused := await self._pool.probe(kind)):
                tool_id = next(tool_id for tool_id, of_tool in self._kinds.items() if of_tool == kind)
                return (
                    f"{tool_id} is to run without this machine's network (mode {modes[tool_id]}, or network=False), "
                    f"and there can be no such process here: {refused}; give it another mode, or take a machine "
                    "where isorun may make network namespaces"
                )
        return ""

    async def _close(self, number: int) -> None:
        if run := self._runs.pop(number, None):  # not one whose program could not be given a new stream
            await run.close()
        self._outbox.put(RunClosed(run=number))

    def _open(self, opened: OpenRun, stream: socket.socket, out: int, table: InFlight) -> None:
        stream.setblocking(False)
        output = OutputDirectory(out)
        run = self._runs[opened.run] = _Run(opened, stream, output, self._outbox, table)
        limits = CallLimits(**opened.limits)
        facts = RunFacts(
            exec_id=opened.exec_id,
            turn=opened.turn,
            user=opened.user,
            frame_bytes=limits.frame_bytes,
            env=MappingProxyType(self._env),
            output=output,
            tell=run.tell,
        )
        granted: dict[str, Answering | Asking] = {
            tool_id: self._granted(tool_id, facts) for tool_id in opened.grants if tool_id in self._tools
        }
        granted |= run.held.tools()
        run.session = ToolSession(stream, granted, limits, run, self._touched, self._owing, self._apart)

    def _granted(self, tool_id: str, facts: RunFacts) -> Answering:
        tool, kind = self._tools[tool_id], self._kinds.get(tool_id)
        if kind is None:
            return GrantedTool(tool, facts, self._threads)
        return WorkerTool(tool, facts, self._threads, self._pool, kind)

    def _touched(self, session: ToolSession) -> None:
        self._hot_until, self._hottest = time.monotonic() + _HOT_S, session
        if not self._hot and not self._threads.busy:
            self._hot = True
            self._loop.call_soon(self._stay_hot)

    def _stay_hot(self) -> None:
        # Not while threads run: they want the interpreter more than an idle loop does. The stream of the last answer is
        # looked at here, which takes a third of a round of the loop; everybody else waits for one such turn at most.
        now = time.monotonic()
        self._hot = now < self._hot_until and not self._threads.busy
        if self._hot:
            while not self._hottest.look() and time.monotonic() < now + _HOT_TURN_S:
                os.sched_yield()
            self._loop.call_soon(self._stay_hot)

    def _exhausted(self) -> None:
        os.write(2, b"too many tools did not come back from calls that had timed out; the supervisor starts anew\n")
        os._exit(STUCK)

    def abandon(self, selector: selectors.EpollSelector) -> None:
        """In a child that a tool forked: nothing of the supervisor's is the child's to use."""
        for descriptor in (
            self._channel.fileno(),
            selector.fileno(),
            *(r.stream.fileno() for r in self._runs.values()),
            *self._pool.descriptors(),
        ):
            with suppress(OSError):
                os.close(descriptor)


class _Run:
    """One run: its session, and what the host is told of it (a `session.Listener`)."""

    session: ToolSession

    def __init__(
        self, opened: OpenRun, stream: socket.socket, output: OutputDirectory, outbox: Outbox, table: InFlight
    ) -> None:
        self._number, self._outbox, self._output, self._table = opened.run, outbox, output, table
        self.held = HeldCalls(opened.run, opened.held, outbox.put)
        self.stream = stream
        self._records: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        await self.session.close()
        self._flush()
        self._output.close()
        self.stream.close()
        self._table.close()

    def tell(self, component: str, level: str, text: str) -> None:
        """From any thread."""
        text = text[:_LINE_CHARS].encode("utf-8", "replace").decode()  # a tool may print what no frame can hold
        self._outbox.put_soon(RunLog(run=self._number, component=component, level=level, text=text))

    def logged(self, level: str, name: str, text: str) -> None:
        self._outbox.put(RunLog(run=self._number, component="program", level=level, text=f"{name} {text}"))

    def claimed(self, claim: Claim) -> None:
        self._outbox.put(RunClaim(run=self._number, claim=claim))

    def violated(self, reason: str) -> None:
        self._outbox.put(RunViolated(run=self._number, reason=reason))

    def began(self, record: dict[str, Any]) -> None:
        self._table.began(record["call_id"], record["tool_id"], record["started_at"])

    def called(self, record: dict[str, Any]) -> None:
        self._table.ended(record["call_id"])
        self._records.append(record)
        if len(self._records) >= _BATCH:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BATCH_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._records = self._records, []
        if records:
            self._put(records)
            self._table.told()

    def _put(self, records: list[Record]) -> None:
        data = packed(records)
        if len(data) > _BATCH_BYTES and len(records) > 1:
            middle = len(records) // 2
            self._put(records[:middle])
            self._put(records[middle:])
        else:
            self._outbox.put(Journal(run=self._number, records=data))
