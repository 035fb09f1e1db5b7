"""The Docker backend: each slot a container of its own, with our init as its first process.

Theory of operation. A slot's `work/` and `out/` are folders of the daemon's host
(`slot_folder`); nothing else of the host is mounted. `sandbox_runner.attached` starts the
container and keeps its three streams. Over its stdin goes our code (`sent_code`), then
frames: from there on it is a slot like any other, behind a `Relay`. What the kernel and
the engine say of it must be what was asked for (`container_walls`), else it is not handed
out.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isorun.backends import container_lease, container_walls
from isorun.backends.base import Slot
from isorun.backends.docker_slot import DockerSlot, remove
from isorun.backends.environment import Environment
from isorun.backends.filters import Filters, build_filters
from isorun.backends.jail import ENV, OutputTail
from isorun.backends.relay import Relay
from isorun.backends.sent_code import BOOT, executor_code
from isorun.backends.slot_folder import Ids, SlotFolder, slot_folder
from isorun.core.errors import SetupFailed, Unavailable
from isorun.core.limits import Limits
from isorun.executor import rules
from isorun.kernel.readiness import Channel
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import Look, Prepare, Ready, Sealed, SetupError, Warmed
from sandbox_runner.attached import AttachedContainer, AttachedSpec
from sandbox_runner.docker_cli import DockerCli, own_environment
from sandbox_runner.errors import SandboxError
from sandbox_runner.host_paths import HostPaths
from sandbox_runner.spec import MountSpec

_log = logging.getLogger("isorun")
#: The version of what we expect of an image, in its label of this name.
IMAGE_LABEL, IMAGE_VERSION = "isorun.image", "1"
ROLE_LABEL = "isorun.role"  # executor or supervisor: for who looks at `docker ps`
_DOCKER_IN_DOCKER = "Running in Docker-in-Docker mode"
_BUILD_S = 60.0
_SAID = 2000  # of what the program's process printed before it was ready
_PYTHON = ("python3", "-I", "-B", "-X", "utf8", "-c", BOOT)
_NPROC = 1 << 16  # RLIMIT_NPROC counts every process of a uid on the host: the container's own ceiling is the one
_LACKING = ("RLIMIT_MSGQUEUE", "RLIMIT_SIGPENDING", "RLIMIT_NPROC", "RLIMIT_MEMLOCK")  # of a kernel of its own
#: What a kernel of its own takes of the ceilings that the host holds around it: memory, threads for each of the
#: program's (it may be traced by one, and run on another), and threads of its own.
_KERNEL_BYTES, _KERNEL_THREADS, _KERNEL_TASKS = 192 << 20, 3, 256
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
    host_paths: Mapping[str, str] = field(default_factory=dict)  # our folders and the daemon's host's


class DockerBackend:
    """Slots that are containers of *options.image*."""

    name = "docker"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._output = OutputTail()
        self._stack = ExitStack()
        self._failed: dict[str, str] = {}  # preloads
        self._environment = Environment(
            python=f"python3 of {options.image}", version="", sys_path=(), binds=(), symlinks=()
        )

    async def __aenter__(self) -> "DockerBackend":
        try:
            await asyncio.to_thread(self._enter)
        except SandboxError as error:
            raise Unavailable(f"{error}") from error
        self._lease = self._stack.enter_context(container_lease.take(self._options.state, self._cli))
        if self._is_translated:
            _log.info("[docker.exec] %s", _DOCKER_IN_DOCKER)
        return self

    def _enter(self) -> None:
        options = self._options
        self._cli = DockerCli()
        self._paths = HostPaths.discover(options.host_paths or None, self._cli, own_environment())
        self._runtime = check_engine(self._cli, options.runtime)
        self._has_own_kernel = container_walls.has_own_kernel(self._runtime)
        check_image(self._cli, options.image)
        self._ids = Ids.of_this_process(options.executor_uid, options.executor_gid)
        # A mount of ours is the daemon's, too, where it sees our paths as they are.
        self._is_translated = self._paths.strict or bool(self._paths.folders)
        self._may_mount = self._ids.root and not self._is_translated
        for name in container_lease.recover(options.state, self._cli):
            _log.warning("what %s had left was removed: its process died", name)
        self._filters: Filters = build_filters(cgroup=True)
        self._host_namespaces = {path.name: str(path.readlink()) for path in Path("/proc/self/ns").iterdir()}

    async def __aexit__(self, *exc: object) -> None:
        """Raises `CleanupFailed` if a container stays."""
        await asyncio.to_thread(self._stack.close)

    @property
    def environment(self) -> Environment:
        """The image's Python."""
        return self._environment

    @property
    def notices(self) -> tuple[str, ...]:
        """The preloads that the image's Python could not import, and why."""
        return tuple(f"preload of {name} failed: {why}" for name, why in self._failed.items())

    def infra_log(self) -> bytes:
        """What the containers printed for people."""
        return self._output.read()

    @asynccontextmanager
    async def launch(self, limits: Limits) -> AsyncIterator[Slot]:
        """A sealed container; see `Backend.launch`."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_BUILD_S) as deadline:
                    slot = await self._built(stack, limits)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise SetupFailed("container", f"not ready after {_BUILD_S:.0f} s") from error
            except (OSError, ProtocolError, SandboxError) as error:
                raise SetupFailed("container", str(error)) from error
            yield slot

    async def _built(self, stack: AsyncExitStack, limits: Limits) -> "DockerSlot":
        folder = stack.enter_context(slot_folder(self._lease, limits, self._ids, may_mount=self._may_mount))
        spec = self._spec(limits, folder)
        container = AttachedContainer.start(self._cli, spec)
        stack.push_async_callback(remove, container)
        relay = Relay(container, self._output.add)
        stack.callback(relay.close)
        relay.start(executor_code(), self._prepare(limits))
        inspecting = asyncio.ensure_future(self._inspected(relay, container, spec))
        stack.push_async_callback(_cancel, inspecting)
        warmed = await relay.hear(Warmed)
        self._failed = dict(warmed.failed)
        control = Channel(relay.control)
        ready = await _ready(control, relay)
        relay.send(Look())
        sealed = await relay.hear(Sealed)
        inspected = await inspecting
        if folder.is_sized and not container_walls.is_sized(sealed.facts, limits):
            # The daemon has a mount namespace of its own (a service with PrivateTmp, say): from here on we watch.
            _log.warning("the daemon does not see what we mount: workspaces are folders of the disk, and watched")
            self._may_mount = False
            return await self._built(stack, limits)
        isolation = self._confirmed(sealed.facts, ready, limits, held_sizes=folder.is_sized)
        first = _pidfd(int(inspected["State"]["Pid"]), inspected["Id"])
        if first is not None:
            stack.callback(os.close, first)
        slot = DockerSlot(
            isolation,
            self._origin(folder, spec),
            relay,
            control,
            folder,
            container,
            first,
            limits,
            has_own_kernel=self._has_own_kernel,
        )
        stack.push_async_callback(slot.stop_watching)
        return slot

    def _confirmed(
        self, facts: Mapping[str, Any], ready: Ready, limits: Limits, *, held_sizes: bool
    ) -> Mapping[str, Any]:
        return container_walls.confirm(
            facts,
            ready=ready.isolation,
            limits=limits,
            ids=(self._ids.uid, self._ids.gid),
            runtime=self._runtime,
            host_namespaces=self._host_namespaces,
            held_sizes=held_sizes,
        )

    def _origin(self, folder: SlotFolder, spec: AttachedSpec) -> tuple[str, ...]:
        if not self._is_translated:
            return ()
        paths = f"Container paths: workdir={folder.path / 'work'}", f"Host paths: workdir={spec.mounts[0].host_path}"
        return _DOCKER_IN_DOCKER, *paths

    async def _inspected(self, relay: Relay, container: AttachedContainer, spec: AttachedSpec) -> Mapping[str, Any]:
        await relay.hear(Warmed)  # before, the engine may not know it yet
        return await asyncio.to_thread(container.confirm, spec)

    def _prepare(self, limits: Limits) -> Prepare:
        sealing = {**_plain(limits), "nproc": _NPROC, "data_bytes": None, "cpu_s": None, "without": []}
        sealing["share_with_group"] = not self._ids.root
        if self._has_own_kernel:
            sealing |= {"may_lack": list(_LACKING), "most_tasks": limits.processes}
        return Prepare(
            limits=sealing,
            filters_by_number=self._filters.by_number,
            filters_by_argument=self._filters.by_argument,
            preloads=list(self._options.preloads),
            environment=["PATH", *ENV],
        )

    def _spec(self, limits: Limits, folder: SlotFolder) -> AttachedSpec:
        mounts = {name: self._paths.translate(folder.path / name) for name in ("work", "out")}
        return AttachedSpec(
            image=self._options.image,
            command=_PYTHON,
            user=(self._ids.uid, self._ids.gid),
            memory_bytes=limits.memory_bytes + (_KERNEL_BYTES if self._has_own_kernel else 0),
            pids=limits.processes * _KERNEL_THREADS + _KERNEL_TASKS
            if self._has_own_kernel
            else limits.processes + _INIT,
            cpus=limits.cpus,
            nofile=limits.open_files,
            file_bytes=limits.file_bytes,
            mounts=tuple(MountSpec(path, f"{rules.WORKSPACE}/{name}") for name, path in mounts.items()),
            tmpfs={path: (size, max(size // 4096, 64)) for path, size in _tmpfs(limits).items()},
            env=ENV,
            labels={container_lease.LABEL: self._lease.name, ROLE_LABEL: "executor"},
            hostname=rules.HOSTNAME,
            runtime=self._options.runtime,
        )


def _tmpfs(limits: Limits) -> dict[str, int]:
    return {"/tmp": limits.tmp_bytes, "/dev/shm": limits.shm_bytes}


def _plain(limits: Limits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in Limits.__dataclass_fields__}


def check_engine(cli: DockerCli, runtime: str | None) -> str:
    """The runtime that containers get. Raises `Unavailable` if the daemon does not answer or does not know it."""
    # Asked first: without a daemon a CLI of 20.10 answers `info` with a complaint about the template.
    version = cli.run("version", "--format", "{{.Server.Version}}")
    if version.code:
        raise Unavailable(f"the Docker daemon does not answer: {version.said}")
    answer = cli.run("info", "--format", "{{.DefaultRuntime}} {{range $name, $_ := .Runtimes}}{{$name}} {{end}}")
    if answer.code:
        raise Unavailable(f"the Docker daemon does not answer: {answer.said}")
    usual, *known = answer.stdout.decode().split()
    if runtime is not None and runtime not in known:
        raise Unavailable(
            f"the Docker daemon knows no runtime {runtime} (ISORUN_DOCKER_RUNTIME), only {', '.join(sorted(known))}: "
            "add it to the runtimes of its daemon.json"
        )
    return runtime or usual


def check_image(cli: DockerCli, image: str) -> None:
    """Raise `Unavailable` if *image* is not there, or is not one that this version of isorun can use."""
    answer = cli.run("image", "inspect", "--format", f'{{{{index .Config.Labels "{IMAGE_LABEL}"}}}}', image)
    if answer.code:
        raise Unavailable(f"there is no image {image}: make it with `isorun image build`, or set PY_CODE_EXEC_IMAGE")
    version = answer.stdout.decode().strip()
    if version != IMAGE_VERSION:
        raise Unavailable(
            f"the image {image} is of version {version or 'none'} ({IMAGE_LABEL}), and this isorun needs "
            f"{IMAGE_VERSION}: make it again with `isorun image build`"
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
