"""The embedded backend: slots made of namespaces, seccomp, Landlock and ceilings, without a daemon.

Theory of operation. One outer jail (`jail`) holds a zygote. For each slot the host
makes the pipes and sockets, asks the template for an init, asks the zygote for a
program process inside init's namespaces, puts that into a cgroup, and lets it seal
itself. What the kernel then says of it, read from outside (`looking`), must match
what was asked for (`walls`). After `zygote_runs` slots, or when
the zygote dies, a new jail is started and the old one goes with its last slot.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from isorun.backends import jail as jails
from isorun.backends import walls
from isorun.backends.base import Program, Slot, Usage
from isorun.backends.ceilings import Ceilings, Group, choose_ceilings
from isorun.backends.environment import Environment, describe
from isorun.backends.filters import Filters, build_filters
from isorun.backends.looking import look
from isorun.backends.sending import send_program
from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.core.limits import Limits
from isorun.core.outcome import Exit
from isorun.kernel import namespaces, rlimits
from isorun.kernel.readiness import Channel, is_readable, wait_readable
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import (
    Attached,
    BuildFailed,
    BuildInit,
    Exited,
    ForkProgram,
    InitReady,
    Joined,
    Message,
    Ready,
    SetupError,
)

_M = TypeVar("_M", bound=Message)
_BUILD_S = 30.0
_KILL_S = 10.0
_MOUNTS = (
    "/workspace",
    "/workspace",
    "/tmp",
    "/dev/shm",
)  # of the first four descriptors that come with Joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator may choose about the embedded backend."""

    python: str | None = None
    preloads: tuple[str, ...] = ()
    zygote_runs: int = 1000
    executor_uid: int = 1001
    executor_gid: int = 1000
    cgroup_parent: str | None = None
    use_cgroup: bool = True  # off: the ceilings of a host without one, also where there is one
    without: frozenset[str] = frozenset()  # of walls.OPTIONAL; the result then says `weakened`

    def __post_init__(self) -> None:
        unknown = self.without - walls.OPTIONAL
        if unknown:
            raise InvalidRequest(f"no wall can be left out by the name {', '.join(sorted(unknown))}")


class NamespaceBackend:
    """Slots from a jail that is replaced every `zygote_runs` slots."""

    name = "namespace"

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._output = jails.OutputTail()
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._jail: _LeasedJail | None = None

    async def __aenter__(self) -> "NamespaceBackend":
        await self._stack.__aenter__()
        options = self._options
        self._environment: Environment = describe(options.python)
        self._identity = jails.Identity.of_this_process(options.executor_uid, options.executor_gid)
        self._ceilings: Ceilings = choose_ceilings(options.cgroup_parent if options.use_cgroup else False)
        self._stack.push_async_callback(asyncio.to_thread, self._ceilings.close)
        self._filters: Filters = build_filters(cgroup=self._ceilings.is_cgroup)
        self._host_namespaces = namespaces.identifiers()
        if not self._identity.root:
            rlimits.use_all_open_files()  # the executor's real user is then ours too, and so is what it has in flight
        await self._current()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._jail is not None:
            await self._jail.release()
            self._jail = None
        await self._stack.aclose()

    def infra_log(self) -> bytes:
        """What bubblewrap, the template and the zygote printed."""
        return self._output.read()

    @property
    def notices(self) -> tuple[str, ...]:
        """The preloads that the current jail could not import, and why."""
        return self._jail.jail.notices if self._jail else ()

    @property
    def environment(self) -> Environment:
        """The Python and packages that programs see."""
        return self._environment

    @asynccontextmanager
    async def launch(self, limits: Limits) -> AsyncIterator[Slot]:
        """A sealed slot; see `Backend.launch`."""
        leased = await self._current()
        leased.users += 1
        leased.jail.launched += 1
        try:
            async with self._build(leased.jail, limits) as slot:
                yield slot
        finally:
            await leased.release()

    async def _current(self) -> "_LeasedJail":
        async with self._starting:
            held = self._jail
            if held and not held.jail.died.is_set() and held.jail.launched < self._options.zygote_runs:
                return held
            self._jail = None
            if held:
                await held.release()
            self._jail = await _LeasedJail.start(self._environment, self._identity, self._options, self._output)
            return self._jail

    @asynccontextmanager
    async def _build(self, jail: jails.RunningJail, limits: Limits) -> AsyncIterator[Slot]:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_BUILD_S) as deadline:
                    slot = await self._built(stack, jail, limits)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise SetupFailed("slot", f"not built after {_BUILD_S:.0f} s") from error
            except (OSError, ProtocolError) as error:
                raise SetupFailed("slot", str(error)) from error
            yield slot

    async def _built(self, stack: AsyncExitStack, jail: jails.RunningJail, limits: Limits) -> "NamespaceSlot":
        number = next(jail.numbers)
        ends = _Ends(stack)
        group = self._ceilings.group(limits)
        inside: list[int] = []  # what we hold of the inside; the mount namespace among it
        stack.push_async_callback(_bury, group, inside)
        sealing = _sealing(limits, self._ceilings, self._options.without)
        init_pidfd = await _make_init(stack, jail, number, sealing)
        stack.push_async_callback(_kill, init_pidfd)
        exited = jail.expect(number)
        stack.callback(jail.forget, number)
        fork = ForkProgram(
            slot=number,
            limits=sealing,
            filters_by_number=self._filters.by_number,
            filters_by_argument=self._filters.by_argument,
            cpu=self._ceilings.next_cpu(),
        )
        await jail.ask_zygote(fork, [init_pidfd, *ends.theirs()])
        ends.close_theirs()
        control = Channel(ends.control, inside)
        await _said(control, exited, Joined)
        if control.pid is None or len(control.descriptors) != len(_MOUNTS) + 1:
            raise SetupFailed("credentials", "the kernel did not say who joined, or not all directories came along")
        program_pidfd = os.pidfd_open(control.pid)
        stack.callback(os.close, program_pidfd)
        await group.attach(control.pid)
        await control.send(Attached())
        ready = await _said(control, exited, Ready)
        work, _, tmp, shm, _ = control.descriptors
        init_pid = pid_of(init_pidfd)
        isolation = walls.confirm(
            look(control.pid, init_pid, ready.isolation, work, tmp, shm),
            limits=limits,
            host_namespaces=self._host_namespaces,
            held_by=self._ceilings.name,
            cgroup_limits=group.limits(),
            without=self._options.without,
        )
        return NamespaceSlot(
            isolation=isolation,
            ends=ends,
            directories=control.descriptors[: len(_MOUNTS)],
            control=control,
            exited=exited,
            pids=(init_pid, control.pid),
            pidfds=(init_pidfd, program_pidfd),
            group=group,
        )


class _LeasedJail:
    """A jail that is stopped once nobody uses it: the backend is one user, each slot another."""

    def __init__(self, jail: jails.RunningJail, stack: AsyncExitStack) -> None:
        self.jail = jail
        self.users = 1
        self._stack = stack

    @classmethod
    async def start(
        cls, environment: Environment, identity: jails.Identity, options: Options, output: jails.OutputTail
    ) -> "_LeasedJail":
        async with AsyncExitStack() as stack:
            jail = await stack.enter_async_context(
                jails.start(environment, identity, options.preloads, output, options.without)
            )
            return cls(jail, stack.pop_all())

    async def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            await self._stack.aclose()


class _Ends:
    """The sockets and pipes of one slot: ours to keep, theirs to hand over and close."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.control, control = socket.socketpair()
        self.tools, tools = socket.socketpair()
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.stdout, stdout = os.pipe2(os.O_CLOEXEC)
        self.stderr, stderr = os.pipe2(os.O_CLOEXEC)
        self._sockets = (control, tools)
        self._pipes = [stdout, stderr]
        stack.callback(self.close_theirs)
        for end in (self.control, self.tools):
            end.setblocking(False)
            stack.callback(end.close)
        for descriptor in (self.stdout, self.stderr):
            os.set_blocking(descriptor, False)
            stack.callback(os.close, descriptor)

    def theirs(self) -> list[int]:
        """control, stdout, stderr, tools: in the order that the zygote expects."""
        control, tools = self._sockets
        return [control.fileno(), *self._pipes, tools.fileno()]

    def close_theirs(self) -> None:
        for end in self._sockets:
            end.close()
        while self._pipes:
            os.close(self._pipes.pop())


async def _make_init(stack: AsyncExitStack, jail: jails.RunningJail, number: int, sealing: dict[str, Any]) -> int:
    """The pidfd of a new slot's init."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            ours.setblocking(False)
            await jail.ask_template(BuildInit(slot=number, limits={"without": sealing["without"]}), [theirs.fileno()])
        channel = Channel(ours)
        message = await channel.receive()
        for descriptor in channel.descriptors:
            stack.callback(os.close, descriptor)
        if isinstance(message, BuildFailed):
            raise SetupFailed(message.step, message.reason)
        if not isinstance(message, InitReady) or len(channel.descriptors) != 1:
            raise SetupFailed("init", "the template did not answer")
        return channel.descriptors[0]


def pid_of(pidfd: int) -> int:
    """The process behind *pidfd*, as our pid namespace numbers it; 0 or less if it is gone."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))


def _sealing(limits: Limits, ceilings: Ceilings, without: frozenset[str]) -> dict[str, Any]:
    """The limits that the inside enforces itself, and the walls it is to leave out."""
    data_bytes = ceilings.data_bytes(limits)
    # init counts too. A fork is counted here when it begins, in the cgroup when it ends: where every process
    # forks, twice the ceiling. The cgroup must refuse first, because only the cgroup counts what it refuses.
    nproc = limits.processes * (2 if ceilings.is_cgroup else 1) + 1
    return {
        **asdict(limits),
        "nproc": nproc,
        "data_bytes": data_bytes,
        "cpu_s": None,
        "without": sorted(without),
    }


async def _said(control: Channel, exited: "asyncio.Future[Message]", wanted: type[_M]) -> _M:
    """The next message of a slot that is being built, which must be a *wanted*."""
    message = await control.receive()
    if isinstance(message, wanted):
        return message
    if isinstance(message, SetupError):
        raise SetupFailed(message.step, message.reason)
    told = await exited  # the process is gone: the zygote knows how
    if isinstance(told, BuildFailed):
        raise SetupFailed(told.step, told.reason)
    raise SetupFailed("program process", f"it ended before the slot was ready: {told}")


async def _bury(group: Group, inside: list[int]) -> None:
    """The last of a dead slot. In a thread: undoing its mounts and its cgroup waits for the kernel."""
    await group.stop()

    def bury() -> None:
        for descriptor in inside:
            os.close(descriptor)
        group.remove()

    await asyncio.to_thread(bury)


async def _kill(init_pidfd: int) -> None:
    """Kill init, and with it the pid namespace; return once the last process of it is gone."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(init_pidfd, signal.SIGKILL)
    try:
        async with asyncio.timeout(_KILL_S):
            await wait_readable(init_pidfd)
    except TimeoutError as error:
        raise SetupFailed("kill", f"the slot's processes outlive SIGKILL by {_KILL_S:.0f} s") from error


class NamespaceSlot:
    """See `Slot`. Owned by the `launch` block that yielded it."""

    origin = ()

    def __init__(
        self,
        *,
        isolation: Mapping[str, Any],
        ends: _Ends,
        directories: list[int],
        control: Channel,
        exited: "asyncio.Future[Message]",
        pids: tuple[int, int],
        pidfds: tuple[int, int],
        group: Group,
    ) -> None:
        self.isolation = isolation
        self.stdout, self.stderr, self.tools = ends.stdout, ends.stderr, ends.tools
        self.work, self.out, *self._private = directories
        self._control = control
        self._exited = exited
        self._pids = pids
        self._init, self._program = pidfds
        self._group = group

    @property
    def memory_kills(self) -> int:
        """See `Slot.memory_kills`."""
        return self._group.watcher_kills

    @property
    def is_waiting(self) -> bool:
        """See `Slot.is_waiting`."""
        return not is_readable(self._program)

    async def start(self, program: Program) -> None:
        """See `Slot.start`."""
        await send_program(self._control, program)
        self._group.watch(self._pids, self._init, self._program)

    async def wait(self) -> None:
        """See `Slot.wait`."""
        await wait_readable(self._program)

    def terminate(self) -> None:
        """See `Slot.terminate`."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._program, signal.SIGTERM)

    async def kill(self) -> tuple[Exit, Usage]:
        """See `Slot.kill`."""
        await _kill(self._init)
        exited = await self._exited
        if not isinstance(exited, Exited):
            raise SetupFailed("zygote", "it did not say how the program ended")
        held = await self._group.final()
        full_bytes, full_inodes = self._full()
        exit_ = Exit(
            code=exited.code,
            signal=exited.signal,
            oom_kills=held.oom_kills,
            full_bytes=full_bytes,
            full_inodes=full_inodes,
            process_limit_hits=held.process_limit_hits,
        )
        used = exited.user_s + exited.system_s
        return exit_, Usage(
            cpu_s=held.cpu_s if held.cpu_s is not None else used,
            max_rss_bytes=held.peak_memory_bytes or exited.max_rss_bytes,
        )

    def _full(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        named = dict(zip(_MOUNTS, (self.work, self.out, *self._private), strict=True))
        facts = {path: os.fstatvfs(descriptor) for path, descriptor in named.items()}
        return (
            tuple(path for path, fact in facts.items() if fact.f_bfree == 0),
            tuple(path for path, fact in facts.items() if fact.f_ffree == 0),
        )
