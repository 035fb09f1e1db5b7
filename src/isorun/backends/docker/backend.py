"""The Docker backend: each slot a container of its own, with our init as its first process.

Theory of operation. A slot's `work/` and `out/` are in memory and handed to the host
(`backends.docker.workspace`); of the host one empty folder is mounted. `sandbox_runner.docker.attached` starts the
container and keeps its three streams. Over its stdin goes our code (`sent_code`), then
frames: from there on it is a slot like any other, behind a `Relay`. What the kernel and
the engine say of it must be what was asked for (`backends.docker.walls`), else it is not handed
out.

The module is long because one `async with` owns a container from its command line to its removal, and
every step of that undoes the one before if it fails.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isorun.backends.base import Slot, preload_notices
from isorun.backends.docker import lease as container_lease
from isorun.backends.docker import walls as container_walls
from isorun.backends.docker import workspace as handed_workspace
from isorun.backends.docker.folder import SlotFolder
from isorun.backends.docker.refusals import check_image, check_network, check_runtime, check_unseen, explained
from isorun.backends.docker.relay import Relay
from isorun.backends.docker.sent_code import BOOT, executor_code, handing_code
from isorun.backends.docker.slot import DockerSlot, Watch, remove
from isorun.backends.docker.workspace import Handover, handover
from isorun.backends.environment import ENV, Environment
from isorun.backends.executor_ids import Identity
from isorun.backends.filters import build_filter
from isorun.backends.output import OutputTail
from isorun.backends.watch.watching import Subject, Watcher
from isorun.core.errors import SetupFailed, Unavailable
from isorun.core.guard.log import log_of
from isorun.core.limits import MAX_LOCKS, Limits
from isorun.core.process import StartProcess
from isorun.core.sent.facts import ContainerFacts
from isorun.core.sent.sealing import Sealing
from isorun.core.share import Owing
from isorun.executor import interior, rules
from isorun.kernel.readiness import Channel
from isorun.settings import Settings
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import Look, Prepare, Ready, Sealed, SetupError, Warmed
from isorun.wire.session import Session, Side, State
from sandbox_runner.docker.attached import AttachedContainer, AttachedSpec, Tmpfs
from sandbox_runner.docker.command import DockerCli, own_environment
from sandbox_runner.docker.engine import Engine
from sandbox_runner.docker.host_paths import HostPaths
from sandbox_runner.errors import SandboxError, SandboxStartFailed
from sandbox_runner.spec import MountSpec

_log = log_of("isorun")
_DOCKER_IN_DOCKER = "Running in Docker-in-Docker mode"
_BUILD_S = 60.0
_SAID = 2000  # of what the program's process printed before it was ready
_PYTHON = ("python3", "-c", BOOT)  # no option: the program and its children would have it too
_NPROC = 1 << 16  # RLIMIT_NPROC counts every process of a uid on the host: the container's own ceiling is the one
_LACKING = ("RLIMIT_MSGQUEUE", "RLIMIT_SIGPENDING", "RLIMIT_NPROC", "RLIMIT_MEMLOCK")  # of a kernel of its own
#: What a kernel of its own takes of the ceilings that the host holds around it: memory, threads for each of the
#: program's (it may be traced by one, and run on another), and threads of its own.
_KERNEL_BYTES, _KERNEL_THREADS, _KERNEL_TASKS = 192 << 20, 3, 256
_SHARING = ("runc", "crun")  # runtimes on the host's kernel
_HOLDER_BYTES, _HOLDER_TASKS = 64 << 20, 8
_INIT = 1  # process of ours, which the container's ceiling counts too


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator may choose about the Docker backend. *state*: a folder of the host's user alone."""

    image: str
    state: Path
    runtime: str | None = None
    preloads: tuple[str, ...] = ()
    executor_uid: int = 1001
    executor_gid: int = 1000
    host_paths: Mapping[str, str] = field(default_factory=dict)  # our folders and the engine's host's


class DockerBackend:
    """Slots that are containers of *options.image*."""

    name = "docker"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._output = OutputTail()
        self._owing = Owing()
        self._stack = ExitStack()
        self._failed: dict[str, str] = {}  # preloads
        self._watcher = Watcher()
        self._sees_processes = False  # of containers; known once one is there
        self._environment = Environment(
            python=f"python3 of {options.image}", version="", sys_path=(), binds=(), symlinks=()
        )

    async def __aenter__(self) -> "DockerBackend":
        try:
            await asyncio.to_thread(self._enter)
        except SandboxError as error:
            raise Unavailable(f"{error}", backend="docker") from error
        self._lease = self._stack.enter_context(container_lease.take(self._options.state, self._cli))
        if self._is_translated:
            _log.info("[docker.exec] %s", _DOCKER_IN_DOCKER)
        if not self._has_own_kernel:
            self._watcher.start()
        return self

    def _enter(self) -> None:
        options = self._options
        self._cli = DockerCli()
        self._paths = HostPaths.discover(options.host_paths or None, self._cli, own_environment())
        engine = Engine.ask(self._cli)
        self._runtime = check_runtime(options.runtime, engine)
        self._has_own_kernel = container_walls.has_own_kernel(self._runtime)
        self._own_runtime = _sharing(engine.runtimes) if self._has_own_kernel else self._runtime
        check_image(options.image, self._cli.inspect("image", options.image))
        self._check_place()
        self._ids = Identity.of_container(options.executor_uid, options.executor_gid)
        self._is_translated = self._paths.strict or bool(self._paths.folders)
        user = (self._ids.uid, self._ids.gid)
        empty = container_lease.Emptier(self._cli, options.image, user, self._paths.translate)
        for name in container_lease.recover(options.state, self._cli, None if self._ids.root else empty):
            _log.warning("what %s had left was removed: its process died", name)
        self._filters = {on: build_filter(cgroup=True, loopback=on) for on in (False, True)}
        self._host_namespaces = {path.name: str(path.readlink()) for path in Path("/proc/self/ns").iterdir()}

    def _check_place(self) -> None:
        """Raise `Unavailable` if no container could be shown a folder of ours."""
        root = self._options.state.parent
        try:
            self._paths.translate(root)
        except SandboxStartFailed as error:
            raise Unavailable(
                f"{root}: the engine's host has no path for the folder of the runs: start this container with "
                f"-v /host/folder:{root}, or correct HOST_EXEC_WORKSPACE_PATH",
                backend="docker",
            ) from error

    async def __aexit__(self, *exc: object) -> None:
        """Raises `CleanupFailed` if a container stays."""
        await self._watcher.close()
        await asyncio.to_thread(self._stack.close)

    @property
    def environment(self) -> Environment:
        """The image's Python."""
        return self._environment

    @property
    def notices(self) -> tuple[str, ...]:
        """The preloads that the image's Python could not import, and why."""
        return preload_notices(self._failed)

    @property
    def failed_preloads(self) -> Mapping[str, str]:
        """Of the last container that was made ready."""
        return self._failed

    def infra_log(self) -> bytes:
        """What the containers printed for people."""
        return self._output.read()

    def supervisor(self, settings: Settings, bundle: Path) -> StartProcess:
        """In a container of its own, beside the executors; see `Backend.supervisor`."""
        # Not at the top: it needs this module, and a run without a bundle does not need it.
        from isorun.backends.docker.supervisor import SupervisorContainer, SupervisorOptions, aws_files

        check_network(settings.network_mode)
        options = SupervisorOptions(
            image=self._options.image,
            network=settings.network_mode,
            state=self._options.state,
            bundle=bundle,
            knowledge=settings.host_kb_storage_path,
            ids=Identity.of_container(self._options.executor_uid, self._options.executor_gid),
            host_paths=self._options.host_paths,
            cpus=float(os.cpu_count() or 1),
            aws=aws_files(),
        )

        async def start(globals_json: str, environment: Mapping[str, str]) -> SupervisorContainer:
            return await SupervisorContainer.start(options, globals_json, environment)

        return start

    @asynccontextmanager
    async def launch(self, limits: Limits, *, loopback: bool = False) -> AsyncIterator[Slot]:
        """A sealed container; see `Backend.launch`."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_BUILD_S) as deadline:
                    slot = await self._built(stack, limits, loopback)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise SetupFailed("container", f"not ready after {_BUILD_S:.0f} s") from error
            except (OSError, ProtocolError, SandboxError) as error:
                raise SetupFailed("container", str(error)) from error
            except SetupFailed as error:
                if better := explained(str(error), self._options.image, "none", {}):
                    raise better from error
                raise
            yield slot

    async def _built(self, stack: AsyncExitStack, limits: Limits, loopback: bool) -> "DockerSlot":
        place, folder, holder = stack.enter_context(handover(self._lease, self._ids)), None, None
        if self._has_own_kernel:
            folder, holder = await self._held(stack, place, limits)
        spec = self._spec(limits, place.path, holder, loopback)
        container = AttachedContainer.start(self._cli, spec)
        stack.push_async_callback(remove, container)
        relay = Relay(container, self._output.add, self._owing)
        stack.callback(relay.close)
        relay.start(executor_code(), self._prepare(limits, loopback))
        inspecting = asyncio.ensure_future(self._inspected(relay, container, spec))
        stack.push_async_callback(_cancel, inspecting)
        folder = folder or await place.taken(relay, limits)
        warmed = await relay.hear(Warmed)
        self._failed = dict(warmed.failed)
        control = Channel(relay.control, Session(Side.HOST, Side.SLOT, State.ATTACHED))
        ready = await _ready(control, relay)
        relay.send(Look())
        sealed = await relay.hear(Sealed)
        inspected = await inspecting
        isolation = self._confirmed(sealed.facts, ready, limits, loopback)
        pid = int(inspected["State"]["Pid"])
        first = _pidfd(pid, inspected["Id"])
        if first is not None:
            stack.callback(os.close, first)
            self._sees_processes = True
        slot = DockerSlot(
            isolation,
            self._origin,
            relay,
            control,
            folder,
            container,
            first,
            limits,
            has_own_kernel=self._has_own_kernel,
            watch=self._watch(pid, first, relay, limits.memory_bytes // 2 if loopback else None),
        )
        stack.push_async_callback(slot.stop_watching)
        return slot

    def _watch(self, pid: int, first: int | None, relay: Relay, socket_bytes: int | None) -> Watch | None:
        """How its file locks and sockets are counted; a kernel of its own has both in its memory."""
        if self._has_own_kernel:
            return None
        if first is None:
            check_unseen(loopback=socket_bytes is not None)
            return None
        return Watch(
            self._watcher,
            Subject(
                pids=(pid, pid), pidfds=(first, first), memory_bytes=None, socket_bytes=socket_bytes, tell=relay.finish
            ),
        )

    async def _held(self, stack: AsyncExitStack, place: Handover, limits: Limits) -> tuple[SlotFolder, str]:
        """The workspace, and the name of a container that has it, too, and hands it over: no other kernel can.

        That container runs on the host's kernel, and nothing of a program's.
        """
        spec = replace(
            self._spec(limits, place.path),
            memory_bytes=_HOLDER_BYTES,
            pids=_HOLDER_TASKS,
            tmpfs={},
            shared=(rules.WORKSPACE, handed_workspace.mount(limits, self._ids)),
            shares=None,
            runtime=self._own_runtime,
            labels={**container_lease.labels(self._lease), container_lease.ROLE_LABEL: "workspace"},
        )
        container = AttachedContainer.start(self._cli, spec)
        stack.push_async_callback(remove, container)
        relay = Relay(container, self._output.add, self._owing)
        stack.callback(relay.close)
        relay.start(handing_code())
        return await place.taken(relay, limits), container.name

    def _confirmed(self, facts: ContainerFacts, ready: Ready, limits: Limits, loopback: bool) -> Mapping[str, Any]:
        return container_walls.confirm(
            facts,
            ready=ready.isolation,
            limits=limits,
            ids=(self._ids.uid, self._ids.gid),
            runtime=self._runtime,
            host_namespaces=self._host_namespaces,
            loopback=loopback,
        )

    def _origin(self, folder: Path) -> tuple[str, ...]:
        if not self._is_translated:
            return ()
        theirs = self._paths.translate(folder)
        return _DOCKER_IN_DOCKER, f"Container paths: workdir={folder}", f"Host paths: workdir={theirs}"

    async def _inspected(self, relay: Relay, container: AttachedContainer, spec: AttachedSpec) -> Mapping[str, Any]:
        await relay.hear(Warmed)  # before, the engine may not know it yet
        return await asyncio.to_thread(container.confirm, spec)

    def _prepare(self, limits: Limits, loopback: bool) -> Prepare:
        own_kernel = self._has_own_kernel
        sealing = Sealing(
            without=[],
            cgroup=True,
            loopback=loopback,
            nproc=_NPROC,
            data_bytes=None,
            file_bytes=limits.file_bytes,
            open_files=limits.open_files,
            may_lack=list(_LACKING) if own_kernel else [],
            workspace_bytes=limits.workspace_bytes,
            workspace_inodes=limits.workspace_inodes,
            tmp_bytes=limits.tmp_bytes,
            shm_bytes=limits.shm_bytes,
        )
        return Prepare(
            sealing=sealing,
            filter=self._filters[loopback],
            preloads=list(self._options.preloads),
            environment=["PATH", *ENV],
            hand_over=not own_kernel,
            share_with_group=not self._ids.root,
            most_tasks=limits.processes if own_kernel else None,
            most_locks=None if own_kernel or self._sees_processes else MAX_LOCKS,
        )

    def _spec(self, limits: Limits, place: Path, holder: str | None = None, loopback: bool = False) -> AttachedSpec:
        tmpfs = _tmpfs(limits)
        if holder is None:
            tmpfs[rules.WORKSPACE] = handed_workspace.mount(limits, self._ids)
        return AttachedSpec(
            image=self._options.image,
            command=_PYTHON,
            user=(self._ids.uid, self._ids.gid),
            memory_bytes=limits.memory_bytes + (_KERNEL_BYTES if self._has_own_kernel else 0),
            pids=limits.processes * _KERNEL_THREADS + _KERNEL_TASKS
            if self._has_own_kernel
            else limits.processes + _INIT,
            cpus=limits.cpus,
            nofile=None,  # the program's own is set when it is sealed: see `rlimits.use_all_open_files`
            file_bytes=limits.file_bytes,
            mounts=(MountSpec(self._paths.translate(place), rules.HANDOVER, read_only=True),),
            tmpfs=tmpfs,
            shares=None if holder is None else (holder, rules.WORKSPACE),
            env=ENV,
            labels={**container_lease.labels(self._lease), container_lease.ROLE_LABEL: "executor"},
            hostname=rules.HOSTNAME,
            sysctls=_sysctls() if loopback and not self._has_own_kernel else {},
            runtime=self._options.runtime,
        )


def _sysctls() -> dict[str, str]:
    """Of a container with loopback on this kernel; one of its own has its sockets in its memory."""
    has_ipv6 = Path("/proc/sys/net/ipv6").exists()  # engines turn it off, and their hosts file names ::1
    return {**interior.LOOPBACK, **({"net.ipv6.conf.lo.disable_ipv6": "0"} if has_ipv6 else {})}


def _tmpfs(limits: Limits) -> dict[str, Tmpfs]:
    sizes = {"/tmp": limits.tmp_bytes, "/dev/shm": limits.shm_bytes}
    return {path: Tmpfs(size, rules.scratch_inodes(size)) for path, size in sizes.items()}


def _sharing(runtimes: Sequence[str]) -> str:
    """A runtime whose containers run on the host's kernel. Raises `Unavailable` if the engine has none."""
    for name in _SHARING:
        if name in runtimes:
            return name
    raise Unavailable(
        f"the Docker engine knows neither {' nor '.join(_SHARING)}. A runtime with a kernel of its own needs one "
        "of the two to hold the workspaces: add it to the runtimes in daemon.json",
        backend="docker",
    )


async def _ready(control: Channel, relay: Relay) -> Ready:
    message = await control.receive()
    if isinstance(message, Ready):
        return message
    if isinstance(message, SetupError):
        raise SetupFailed(message.step, message.reason)
    await relay.wait_over()
    if relay.failure is not None:
        raise relay.failure
    said = b""
    with suppress(BlockingIOError):
        said = os.read(relay.stderr, _SAID)
    raise SetupFailed("program process", f"it ended before the slot was ready: {said.decode(errors='replace')}")


def _pidfd(pid: int, container_id: str) -> int | None:
    """The container's first process, if it is one of those that we see, in the container's own cgroup."""
    with suppress(OSError):
        opened = os.pidfd_open(pid)
        with suppress(OSError):
            if container_id in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii"):
                return opened
        os.close(opened)
    return None


async def _cancel(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, SetupFailed, SandboxError):
        await task
