"""The embedded backend: slots made of namespaces, seccomp, Landlock and ceilings, without a daemon.

Theory of operation. One outer jail (`jail`) holds a zygote. For each slot the host
makes the pipes and sockets, asks the template for an init, asks the zygote for a
program process inside init's namespaces, puts that into a cgroup, and lets it seal
itself. What the kernel then says of it, read from outside (`looking`), must match
what was asked for (`walls`). After `zygote_runs` slots, or when
the zygote dies, or something of a slot outlives its kill, a new jail is started and the old one goes with its
last slot.

The module is long because a slot, its streams and its end share the descriptors that are made here, and
each descriptor has one owner.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from isorun.backends.base import Program, Slot, Usage, preload_notices
from isorun.backends.ends import Ends
from isorun.backends.environment import Environment, describe
from isorun.backends.executor_ids import Identity
from isorun.backends.filters import build_filter
from isorun.backends.namespace import ending, walls
from isorun.backends.namespace import jail as jails
from isorun.backends.namespace.ceilings import Ceilings, Group, choose_ceilings
from isorun.backends.namespace.ending import SlotEnd, pid_of
from isorun.backends.namespace.freezing import ByGroup, BySignal, Freezer
from isorun.backends.namespace.looking import look
from isorun.backends.namespace.spawn import Spawned
from isorun.backends.output import OutputTail
from isorun.backends.sending import send_ahead, send_program
from isorun.backends.watch.watching import Subject, Watched, Watcher
from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.core.limits import Limits
from isorun.core.outcome import Code, Exit
from isorun.core.sent.sealing import Sealing
from isorun.kernel import namespaces, rlimits
from isorun.kernel.readiness import Channel, is_readable, wait_readable
from isorun.settings import Settings
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import (
    Attached,
    BuildFailed,
    BuildInit,
    Exited,
    ForkProgram,
    InitReady,
    Joined,
    MakeStream,
    Message,
    Ready,
    SetupError,
)
from isorun.wire.session import Session, Side, State

_M = TypeVar("_M", bound=Message)
MakePair = Callable[[], Awaitable[tuple[socket.socket, socket.socket]]]
_BUILD_S = 30.0
_TOLD_S = 10.0
_REAPED_S = 0.1  # of a dead program, by the zygote; after that the slot is killed without its word
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
            raise InvalidRequest(f"{', '.join(sorted(unknown))} is not a wall that you can leave out")


class NamespaceBackend:
    """Slots from a jail that is replaced every `zygote_runs` slots.

    *spawned* is its first jail, started already as the options say; it stays the caller's if it was not taken.
    """

    name = "namespace"

    def __init__(self, options: Options | None = None, spawned: Spawned | None = None) -> None:
        self._options = options or Options()
        self._spawned = spawned
        self._output = OutputTail()
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._jail: _LeasedJail | None = None
        self._retired: set[asyncio.Task[None]] = set()  # jails that end once their last slot has
        self._lender: NamespaceBackend | None = None  # whose ceilings and watcher are ours too

    async def __aenter__(self) -> "NamespaceBackend":
        async with AsyncExitStack() as stack:
            await self._enter(stack)
            self._stack = stack.pop_all()
        return self

    async def _enter(self, stack: AsyncExitStack) -> None:
        options, lender = self._options, self._lender
        self._environment: Environment = describe(options.python)
        self._identity = Identity.of_jail(options.executor_uid, options.executor_gid)
        if lender is not None:
            self._ceilings: Ceilings = lender._ceilings
            self._watcher: Watcher = lender._watcher
            self._host_namespaces: dict[str, int] = lender._host_namespaces
        else:
            self._make_own(stack)
        await self._current()

    def _make_own(self, stack: AsyncExitStack) -> None:
        options = self._options
        self._ceilings = choose_ceilings(options.cgroup_parent if options.use_cgroup else False)
        stack.push_async_callback(asyncio.to_thread, self._ceilings.close)
        self._watcher = Watcher()
        stack.push_async_callback(ending.uninterrupted, self._watcher.close)
        self._watcher.start()
        build_filter(cgroup=self._ceilings.is_cgroup)  # before there is a jail, where there is none for this machine
        self._host_namespaces = namespaces.identifiers()
        if not self._identity.root:
            rlimits.use_all_open_files()  # the executor's real user is then ours too, and so is what it has in flight

    async def __aexit__(self, *exc: object) -> None:
        async with self._stack:  # whatever fails here, what was made is removed
            if self._jail is not None:
                self._retire(self._jail)
            for told in await asyncio.gather(*self._retired, return_exceptions=True):
                if told is not None:
                    raise told

    def infra_log(self) -> bytes:
        """What bubblewrap, the template and the zygote printed."""
        return self._output.read()

    @property
    def notices(self) -> tuple[str, ...]:
        """The preloads that the current jail could not import, and why."""
        return preload_notices(self.failed_preloads)

    @property
    def failed_preloads(self) -> Mapping[str, str]:
        """Of the current jail."""
        return self._jail.jail.failed_preloads if self._jail else {}

    @property
    def environment(self) -> Environment:
        """The Python and packages that programs see."""
        return self._environment

    def supervisor(self, settings: Settings, bundle: Path) -> None:
        """As a child of this process; see `Backend.supervisor`."""

    def beside(self, preloads: tuple[str, ...]) -> "NamespaceBackend":
        """One with the same walls, not entered, whose slots have imported *preloads* on isorun's own Python.

        Ceilings and the watcher are those of this one, which has to be left last.
        """
        other = NamespaceBackend(replace(self._options, python=None, preloads=preloads))
        other._lender = self
        return other

    async def reload(self, preloads: tuple[str, ...]) -> None:
        """Have *preloads* in the slots that are built from now on, instead; those that stand stay as they are."""
        options = replace(self._options, preloads=preloads)
        jail = await _LeasedJail.start(self._environment, self._identity, options, self._output, None)
        try:
            async with self._starting:  # else one that is being started would take the new one's place
                if self._jail is not None:
                    self._retire(self._jail)
                self._options, self._jail = options, jail
        except BaseException:
            await asyncio.shield(jail.release())
            raise

    @asynccontextmanager
    async def launch(self, limits: Limits, *, loopback: bool = False) -> AsyncIterator[Slot]:
        """A sealed slot; see `Backend.launch`."""
        leased = await self._current()
        leased.users += 1
        leased.jail.launched += 1
        try:
            async with self._build(leased.jail, limits, loopback) as slot:
                yield slot
        finally:
            await leased.release()

    async def _current(self) -> "_LeasedJail":
        async with self._starting:
            held = self._jail
            if held and held.is_fit and held.jail.launched < self._options.zygote_runs:
                return held
            if held:
                self._retire(held)
            spawned, self._spawned = self._spawned, None
            self._jail = await _LeasedJail.start(
                self._environment, self._identity, self._options, self._output, spawned
            )
            return self._jail

    def _retire(self, jail: "_LeasedJail") -> None:
        """Not waited for, and not given up with the caller that found the jail unfit."""
        self._jail = None
        self._retired.add(asyncio.create_task(jail.release(), name="isorun-retire"))

    @asynccontextmanager
    async def _build(self, jail: jails.RunningJail, limits: Limits, loopback: bool) -> AsyncIterator[Slot]:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_BUILD_S) as deadline:
                    slot = await self._built(stack, jail, limits, loopback)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise SetupFailed("slot", f"not built after {_BUILD_S:.0f} s") from error
            except (OSError, ProtocolError) as error:
                raise SetupFailed("slot", str(error)) from error
            yield slot

    async def _built(
        self, stack: AsyncExitStack, jail: jails.RunningJail, limits: Limits, loopback: bool
    ) -> "NamespaceSlot":
        """The slot that *stack* owns. Long because its steps have one order, and each gives the next what it needs."""
        number = next(jail.numbers)
        ends = Ends(stack, self._identity.uid if self._identity.root else None)
        group = self._ceilings.group(limits)
        inside: list[int] = []  # what we hold of the inside
        end = SlotEnd(group, inside, jail.remains)
        stack.push_async_callback(end.bury)
        sealing = _sealing(limits, self._ceilings, self._options.without, loopback)
        self._ceilings.expect()
        init_pidfd = await _make_init(stack, jail, number, sealing)
        init_pid = pid_of(init_pidfd)
        end.born(init_pidfd, init_pid)
        stack.push_async_callback(end.leave)
        exited = jail.expect(number)
        stack.callback(jail.forget, number)
        fork = ForkProgram(
            slot=number,
            sealing=sealing,
            filter=build_filter(cgroup=self._ceilings.is_cgroup, loopback=loopback),
            cpu=self._ceilings.next_cpu(),
        )
        await jail.ask_zygote(fork, [init_pidfd, *ends.theirs()])
        ends.close_theirs()
        control = Channel(ends.control, Session(Side.HOST, Side.SLOT, State.NEW), inside)
        await _said(control, exited, Joined)
        if control.pid is None or len(control.descriptors) != len(_MOUNTS) + 2:
            raise SetupFailed("credentials", "the kernel did not say who joined, or not all descriptors came along")
        tools = socket.socket(fileno=control.descriptors.pop())
        end.mounts = control.descriptors.pop()
        stack.callback(tools.close)
        tools.setblocking(False)
        program_pidfd = os.pidfd_open(control.pid)
        stack.callback(os.close, program_pidfd)
        await group.attach(control.pid)
        await control.send(Attached())
        ready = await _said(control, exited, Ready)
        work, _, tmp, shm = control.descriptors
        isolation = walls.confirm(
            look(control.pid, init_pid, ready.isolation, work, tmp, shm),
            limits=limits,
            host_namespaces=self._host_namespaces,
            held_by=self._ceilings.name,
            cgroup_limits=group.limits(),
            without=self._options.without,
            loopback=loopback,
        )
        subject = Subject(
            pids=(init_pid, control.pid),
            pidfds=(init_pidfd, program_pidfd),
            # Where no cgroup holds memory, all processes together may not have more, either; see `_sealing`.
            memory_bytes=None if self._ceilings.is_cgroup else limits.memory_bytes,
            socket_bytes=limits.memory_bytes // 2 if loopback and self._ceilings.is_cgroup else None,
            devices={os.fstat(fd).st_dev for fd in (work, tmp, shm)},  # of the file systems that are this slot's alone
        )
        freezing = group.freezer
        end.freezer = ByGroup(freezing) if freezing else BySignal(init_pidfd, init_pid, control.pid)
        slot = NamespaceSlot(
            isolation=isolation,
            ends=ends,
            tools=tools,
            directories=control.descriptors[: len(_MOUNTS)],
            control=control,
            exited=exited,
            subject=subject,
            group=group,
            watcher=self._watcher,
            end=end,
            freezer=end.freezer,
            make_stream=lambda: _make_stream(jail, number, init_pidfd),
        )
        stack.callback(slot.stop_watching)
        return slot


class _LeasedJail:
    """A jail that is stopped after its last user: the backend is one user, each slot another."""

    def __init__(self, jail: jails.RunningJail, stack: AsyncExitStack) -> None:
        self.jail = jail
        self.users = 1
        self._stack = stack

    @classmethod
    async def start(
        cls,
        environment: Environment,
        identity: Identity,
        options: Options,
        output: OutputTail,
        spawned: Spawned | None,
    ) -> "_LeasedJail":
        async with AsyncExitStack() as stack:
            jail = await stack.enter_async_context(
                jails.start(environment, identity, options.preloads, output, options.without, spawned)
            )
            return cls(jail, stack.pop_all())

    @property
    def is_fit(self) -> bool:
        """Whether a new slot may be made in it."""
        return not self.jail.died.is_set() and not self.jail.remains

    async def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            await self._stack.aclose()
            await self.jail.remains.bury()


async def _make_init(stack: AsyncExitStack, jail: jails.RunningJail, number: int, sealing: Sealing) -> int:
    """The pidfd of a new slot's init."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            ours.setblocking(False)
            await jail.ask_template(BuildInit(slot=number, without=sealing.without), [theirs.fileno()])
        channel = Channel(ours, Session(Side.HOST, Side.TEMPLATE, State.ASKED))
        try:
            message = await channel.receive()
        except BaseException:
            # Given up before the answer: an init that nobody waits for would stand until the jail ends.
            await asyncio.shield(_kill_unborn(channel))
            raise
        for descriptor in channel.descriptors:
            stack.callback(os.close, descriptor)
        if isinstance(message, BuildFailed):
            raise SetupFailed(message.step, message.reason)
        if not isinstance(message, InitReady) or len(channel.descriptors) != 1:
            raise SetupFailed("init", "the template did not answer")
        return channel.descriptors[0]


async def _make_stream(jail: jails.RunningJail, number: int, init: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new tool stream, made by the zygote in the network namespace of *init*, a pidfd."""
    asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with asked:
        with theirs:
            asked.setblocking(False)
            await jail.ask_zygote(MakeStream(slot=number), [init, theirs.fileno()])
        channel = Channel(asked, Session(Side.HOST, Side.ZYGOTE, State.ASKED))
        try:
            async with asyncio.timeout(_TOLD_S):
                await channel.receive()
            if len(channel.descriptors) != 2:
                raise SetupFailed("tool stream", "the zygote did not make the stream")
            ours, program = (socket.socket(fileno=channel.descriptors.pop(0)) for _ in range(2))
        except (TimeoutError, OSError, ProtocolError) as error:
            raise SetupFailed("tool stream", f"the zygote did not make the stream: {error}") from error
        finally:
            for descriptor in channel.descriptors:
                os.close(descriptor)
    return ours, program


async def _kill_unborn(channel: Channel) -> None:
    """Hear what the template still says of a slot that was given up, and end its init."""
    with suppress(TimeoutError, OSError, ProtocolError):
        async with asyncio.timeout(_TOLD_S):
            await channel.receive()
    for descriptor in channel.descriptors:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def _sealing(limits: Limits, ceilings: Ceilings, without: frozenset[str], loopback: bool) -> Sealing:
    return Sealing(
        without=sorted(without),
        cgroup=ceilings.is_cgroup,
        loopback=loopback,
        # init counts too. A fork is counted here when it begins, in the cgroup when it ends: where every process
        # forks, twice the ceiling. The cgroup must refuse first, because only the cgroup counts what it refuses.
        nproc=limits.processes * (2 if ceilings.is_cgroup else 1) + 1,
        # Where no cgroup holds memory, no process alone may have more than the run; the watcher sees to the sum.
        data_bytes=None if ceilings.is_cgroup else limits.memory_bytes,
        file_bytes=limits.file_bytes,
        open_files=limits.open_files,
        may_lack=[],
        workspace_bytes=limits.workspace_bytes,
        workspace_inodes=limits.workspace_inodes,
        tmp_bytes=limits.tmp_bytes,
        shm_bytes=limits.shm_bytes,
    )


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


class NamespaceSlot:
    """See `Slot`. Owned by the `launch` block that yielded it."""

    def __init__(
        self,
        *,
        isolation: Mapping[str, Any],
        ends: Ends,
        tools: socket.socket,
        directories: list[int],
        control: Channel,
        exited: "asyncio.Future[Message]",
        subject: Subject,
        group: Group,
        watcher: Watcher,
        end: SlotEnd,
        freezer: Freezer,
        make_stream: MakePair,
    ) -> None:
        self.isolation = isolation
        self.stdout, self.stderr, self.tools = ends.stdout, ends.stderr, tools
        self.work, self.out, *self._private = directories
        self._control = control
        self._exited = exited
        self._subject = subject
        self._init, self._program = subject.pidfds
        self._group = group
        self._watcher = watcher
        self._watched: Watched | None = None
        self._is_entrusted = False
        self._end = end
        self._freezer = freezer
        self._make_stream = make_stream

    def origin(self, folder: Path) -> tuple[str, ...]:
        """See `Slot.origin`."""
        return ()

    @property
    def is_waiting(self) -> bool:
        """See `Slot.is_waiting`. With its zygote the program dies, too, but the kernel may need a moment for it."""
        return not self._exited.done() and not is_readable(self._program)

    async def store(self, program: Program) -> None:
        """See `Slot.store`."""
        await send_ahead(self._control, program)

    async def start(self, program: Program) -> None:
        """See `Slot.start`."""
        self._watched = await self._watcher.watch(self._subject)  # first: a watcher that is late lets no program run
        await send_program(self._control, program)

    async def new_stream(self) -> tuple[socket.socket, socket.socket]:
        """See `Slot.new_stream`."""
        return await self._make_stream()

    async def wait(self) -> None:
        """See `Slot.wait`."""
        await wait_readable(self._program)

    def terminate(self) -> None:
        """See `Slot.terminate`."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._program, signal.SIGTERM)

    def extend(self, seconds: float) -> None:
        """See `Slot.extend`. Nothing inside knows the time."""

    async def freeze(self) -> None:
        """See `Slot.freeze`. The watcher may have to end the run in our place, and then to thaw it."""
        if self._watched is not None and not self._is_entrusted and self._freezer.thawed_by is not None:
            await self._watcher.entrust(self._watched, *self._freezer.thawed_by, self._freezer.let_die)
            self._exited.add_done_callback(lambda _: self._freezer.let_die())  # or its jail has ended
            self._is_entrusted = True
        await self._freezer.freeze()

    async def thaw(self) -> None:
        """See `Slot.thaw`."""
        await self._freezer.thaw()

    async def kill(self) -> tuple[Exit, Usage]:
        """See `Slot.kill`."""
        if await self._is_over():
            self._end.let_go()
        else:
            await self._end.kill()
        await asyncio.wait({self._exited}, timeout=_TOLD_S)
        exited = self._exited.result() if self._exited.done() else None
        if not isinstance(exited, Exited):
            raise SetupFailed("zygote", "it did not say how the program ended")
        held, seen = await self._group.final(), self._watched
        self.stop_watching()
        if seen is not None:
            seen.confirm()
        full_bytes, full_inodes = self._full()
        exit_ = Exit(
            code=exited.code,
            signal=exited.signal,
            oom_kills=held.oom_kills + (seen.kills if seen else 0),
            full_bytes=full_bytes,
            full_inodes=full_inodes,
            process_limit_hits=held.process_limit_hits,
            limit=Code.LOCK_LIMIT if seen is not None and seen.has_too_many_locks else None,
            violation=self._freezer.violation,
        )
        used = exited.user_s + exited.system_s
        peak = held.peak_memory_bytes or (seen.peak_bytes if seen else 0) or exited.max_rss_bytes
        return exit_, Usage(
            cpu_s=held.cpu_s if held.cpu_s is not None else used,
            max_rss_bytes=peak + (seen.lock_bytes if seen else 0),
        )

    async def _is_over(self) -> bool:
        """Whether nothing of the run is left that could write: its program is reaped, and its group is empty.

        Then init alone is there, which never had a descriptor of the run: it ends when the slot is taken down.
        """
        if not is_readable(self._program):
            return False
        await asyncio.wait({self._exited}, timeout=_REAPED_S)
        return self._exited.done() and self._group.is_empty()

    def stop_watching(self) -> None:
        """Every process is dead."""
        if self._watched is not None:
            self._watcher.forget(self._watched)

    def _full(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        named = dict(zip(_MOUNTS, (self.work, self.out, *self._private), strict=True))
        facts = {path: os.fstatvfs(descriptor) for path, descriptor in named.items()}
        return (
            tuple(path for path, fact in facts.items() if fact.f_bfree == 0),
            tuple(path for path, fact in facts.items() if fact.f_ffree == 0),
        )
