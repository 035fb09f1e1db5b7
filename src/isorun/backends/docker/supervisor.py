"""A supervisor in a container of its own: long-lived, one per bundle, beside the executors of the Docker backend.

It has the network that `PY_CODE_EXEC_NETWORK_MODE` says, its bundle and the knowledge
storage read-only, and no other folder of the host but one for its socket, which nobody
else shares. Credentials go over its stdin. It implements `core.process.Process`.
"""

import asyncio
import json
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from isorun.backends.docker import lease as container_lease
from isorun.backends.docker.refusals import explained
from isorun.backends.docker.sent_code import BOOT, supervisor_code
from isorun.backends.executor_ids import Identity
from isorun.core.errors import CleanupFailed, SetupFailed, Unavailable
from isorun.core.guard.log import log_of
from isorun.core.ids import BUILT_IN_MODULE
from isorun.core.limits import MIB
from isorun.core.text import one_line
from isorun.settings import KB_STORAGE
from isorun.wire.messages import Serve, encode
from sandbox_runner.docker.attached import AttachedContainer, AttachedSpec, Tmpfs
from sandbox_runner.docker.command import DockerCli, own_environment
from sandbox_runner.docker.host_paths import HostPaths
from sandbox_runner.errors import SandboxError, SandboxStartFailed
from sandbox_runner.spec import MountSpec

_log = log_of("isorun")
_INSIDE = "/run/isorun"
_BUNDLES = "/bundles"
_SHARED, _SOCKET = "shared", "supervisor.sock"
_READY_S, _LOOK_S = 60.0, 0.02
_MEMORY_BYTES = 2048 * MIB
_PIDS, _OPEN_FILES = 1024, 4096
_TMP_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """*state*: a folder of the host's user alone. *knowledge*: the knowledge storage on the engine's host."""

    image: str
    network: str
    state: Path
    bundle: Path  # shown below _BUNDLES, whose folders everybody may enter, under its own name
    knowledge: Path | None
    ids: Identity
    host_paths: Mapping[str, str]
    cpus: float
    aws: Mapping[str, str]  # the files of ~/.aws: names and contents


def aws_files() -> dict[str, str]:
    """What of ~/.aws the supervisor gets, by name."""
    files = {}
    for name in ("config", "credentials"):
        with suppress(OSError, UnicodeDecodeError):
            files[name] = (Path.home() / ".aws" / name).read_text(encoding="utf-8")
    return files


class SupervisorContainer:
    """See `core.process.Process`."""

    def __init__(self, container: AttachedContainer, lease: ExitStack, channel: socket.socket) -> None:
        self._container, self._lease = container, lease
        self.socket, self.output = channel, os.dup(container.stderr)
        self._removing = threading.Lock()  # it is asked for by the loop and by threads

    @classmethod
    async def start(
        cls, options: SupervisorOptions, globals_json: str, environment: Mapping[str, str]
    ) -> "SupervisorContainer":
        """Start it, and connect. Raises `SetupFailed` with what it printed, and `Unavailable`."""
        starting = asyncio.ensure_future(asyncio.to_thread(cls._start, options, globals_json, environment))
        try:
            return await asyncio.shield(starting)
        except SandboxError as error:
            raise Unavailable(str(error), backend="docker") from error
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it still makes would be nobody's.
            await asyncio.wait({starting})
            if starting.exception() is None:
                await asyncio.to_thread(starting.result().abandon)
            raise

    @classmethod
    def _start(
        cls, options: SupervisorOptions, globals_json: str, environment: Mapping[str, str]
    ) -> "SupervisorContainer":
        cli = DockerCli()
        paths = HostPaths.discover(options.host_paths or None, cli, own_environment())
        with ExitStack() as stack:
            folder = stack.enter_context(container_lease.take(options.state, cli))
            shared = _shared(folder, options.ids)
            spec = _spec(options, paths, folder)
            container = AttachedContainer.start(cli, spec)
            stack.callback(container.remove)
            told = Serve(
                globals_json=_placed(globals_json, _place(options)),
                environment=dict(environment),
                aws=dict(options.aws),
                socket=f"{_INSIDE}/{_SOCKET}",
            )
            _write(container.stdin, supervisor_code(built_ins=BUILT_IN_MODULE in globals_json) + encode(told))
            try:
                channel = _connected(shared, container)
            except SetupFailed as error:
                if better := explained(str(error), options.image, options.network, _named(options, spec)):
                    raise better from error
                raise
            try:
                container.confirm(spec)
            except SandboxError:
                channel.close()
                raise
            return cls(container, stack.pop_all(), channel)

    def kill(self) -> None:
        """See `Process.kill`. The listener hears the end at once; the engine does its part meanwhile."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=self.close, name="isorun-supervisor-end").start()

    def close(self) -> None:
        """See `Process.close`."""
        with self._removing:
            try:
                self._lease.close()
            except (CleanupFailed, SandboxError) as error:
                # The daemon is away; its stdin is closed, so it ends when that is back.
                _log.warning("%s", one_line(str(error)))

    def abandon(self) -> None:
        """End a supervisor that no Runtime was given: its streams are then ours to close."""
        self.socket.close()
        os.close(self.output)
        self.close()

    def wait(self, timeout_s: float | None) -> bool:
        """See `Process.wait`."""
        return self._container.wait(timeout_s) is not None

    def ending(self) -> str:
        """See `Process.ending`."""
        code = self._container.wait(0) or 0
        return f"signal {code - 128}" if code > 128 else f"exit code {code}"


def _shared(lease: Path, ids: Identity) -> Path:
    """Where its socket will be: the host's and its own."""
    folder = lease / _SHARED
    folder.mkdir(mode=0o700)
    if ids.root:
        os.chown(folder, ids.uid, ids.gid)
    else:
        os.chown(folder, -1, ids.gid)
        folder.chmod(0o2770)
    return folder


def _spec(options: SupervisorOptions, paths: HostPaths, folder: Path) -> AttachedSpec:
    mounts = [MountSpec(paths.translate(folder / _SHARED), _INSIDE)]
    mounts.append(MountSpec(_on_the_host(paths, options.bundle), _place(options), True))
    if options.knowledge is not None:
        mounts.append(MountSpec(options.knowledge, str(KB_STORAGE), True))
    return AttachedSpec(
        image=options.image,
        command=("python3", "-I", "-B", "-X", "utf8", "-c", BOOT),
        user=(options.ids.uid, options.ids.gid),
        memory_bytes=_MEMORY_BYTES,
        pids=_PIDS,
        cpus=options.cpus,
        nofile=_OPEN_FILES,
        mounts=tuple(mounts),
        tmpfs={"/tmp": Tmpfs(_TMP_BYTES, _TMP_BYTES // 4096)},
        env={"LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/tmp"},
        labels={**container_lease.labels(folder), container_lease.ROLE_LABEL: "supervisor"},
        network=options.network,
        hostname="supervisor",
        init=True,
    )


def _named(options: SupervisorOptions, spec: AttachedSpec) -> dict[str, str]:
    """The settings behind what is mounted."""
    bundle = next(os.fspath(mount.host_path) for mount in spec.mounts if mount.container_path == _place(options))
    knowledge = {"HOST_KB_STORAGE_PATH": str(options.knowledge)} if options.knowledge else {}
    return {**knowledge, "HOST_BUNDLES_PATH": bundle}


def _place(options: SupervisorOptions) -> str:
    return f"{_BUNDLES}/{options.bundle.name}"


def _placed(globals_json: str, place: str) -> str:
    """`RUNTIME_GLOBALS_JSON` for a process that finds the bundle there, see `supervisor.descriptor`."""
    return json.dumps({**json.loads(globals_json), "place": place})


def _on_the_host(paths: HostPaths, bundle: Path) -> str:
    try:
        return paths.translate(bundle)
    except SandboxStartFailed as error:
        raise Unavailable(
            f"{error} The tools of a bundle run in a container: mount the folder that holds bundles at "
            "AGENTIC_BUNDLES_ROOT (/bundles), set HOST_BUNDLES_PATH to the host's path of it, and name the bundle "
            "there",
            backend="docker",
        ) from error


def _write(descriptor: int, data: bytes) -> None:
    """All of *data*; a daemon that hangs takes none of it."""
    os.set_blocking(descriptor, False)
    view, until = memoryview(data), time.monotonic() + _READY_S
    try:
        while view:
            if not select.select([], [descriptor], [], max(until - time.monotonic(), 0))[1]:
                raise SetupFailed("supervisor", f"its container does not read its input within {_READY_S:.0f} s")
            with suppress(BlockingIOError):
                view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        return  # it ended; what it printed says why


def _connected(folder: Path, container: AttachedContainer) -> socket.socket:
    """Its socket, once it is there. By the number of its folder: a path of a socket has 107 bytes at most."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for _ in range(int(_READY_S / _LOOK_S)):
            channel = socket.socket(socket.AF_UNIX)
            with suppress(FileNotFoundError, ConnectionRefusedError):
                channel.connect(f"/proc/self/fd/{directory}/{_SOCKET}")
                channel.setblocking(False)
                return channel
            channel.close()
            if container.wait(_LOOK_S) is not None:
                said = os.read(container.stderr, 4096).decode("utf-8", "replace").strip()
                raise SetupFailed("supervisor", f"its container ended: {said[-1000:] or 'it did not say why'}")
    finally:
        os.close(directory)
    raise SetupFailed("supervisor", f"its container did not answer within {_READY_S:.0f} s")
