"""A supervisor in a container of its own: long-lived, one per bundle, beside the executors of the Docker backend.

It has the network that `PY_CODE_EXEC_NETWORK_MODE` says, its bundle and the knowledge
storage read-only, and no other folder of the host but one for its socket, which nobody
else shares. Credentials go over its stdin. It implements `supervisor.incarnation.Process`.
"""

import asyncio
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from isorun.backends import container_lease
from isorun.backends.docker import ROLE_LABEL
from isorun.backends.sent_code import BOOT, supervisor_code
from isorun.backends.slot_folder import Ids
from isorun.core.errors import CleanupFailed, SetupFailed, Unavailable
from isorun.core.limits import MIB
from isorun.settings import KB_STORAGE
from isorun.wire.messages import Serve, encode
from sandbox_runner.attached import AttachedContainer, AttachedSpec
from sandbox_runner.docker_cli import DockerCli, own_environment
from sandbox_runner.errors import SandboxError, SandboxStartFailed
from sandbox_runner.host_paths import HostPaths
from sandbox_runner.spec import MountSpec

_log = logging.getLogger("isorun")
_INSIDE = "/run/isorun"
_SHARED, _SOCKET = "shared", "supervisor.sock"
_READY_S, _LOOK_S = 60.0, 0.02
_MEMORY_BYTES = 2048 * MIB
_PIDS, _OPEN_FILES = 1024, 4096
_TMP_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """*state*: a folder of the host's user alone. *knowledge*: the daemon's host's path of the knowledge storage."""

    image: str
    network: str
    state: Path
    bundle: Path  # shown at its own path
    knowledge: Path | None
    ids: Ids
    host_paths: Mapping[str, str]
    cpus: float
    aws: Mapping[str, str]  # the files of ~/.aws: names and contents


class SupervisorContainer:
    """See `supervisor.incarnation.Process`."""

    def __init__(self, container: AttachedContainer, lease: ExitStack, channel: socket.socket) -> None:
        self._container, self._lease = container, lease
        self.socket, self.output = channel, os.dup(container.stderr)
        self._removing = threading.Lock()  # it is asked for by the loop and by threads

    @classmethod
    async def start(
        cls, options: SupervisorOptions, globals_json: str, environment: Mapping[str, str]
    ) -> "SupervisorContainer":
        """Start it, and connect. Raises `SetupFailed` with what it printed, and `Unavailable`."""
        try:
            return await asyncio.to_thread(cls._start, options, globals_json, environment)
        except SandboxError as error:
            raise Unavailable(str(error)) from error

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
                globals_json=globals_json,
                environment=dict(environment),
                aws=dict(options.aws),
                socket=f"{_INSIDE}/{_SOCKET}",
            )
            _write(container.stdin, supervisor_code() + encode(told))
            channel = _connected(shared, container)
            try:
                container.confirm(spec)
            except SandboxError:
                channel.close()
                raise
            return cls(container, stack.pop_all(), channel)

    def kill(self) -> None:
        """See `Process.kill`. Whoever listens hears the end at once; what the engine has to do, it does meanwhile."""
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
                _log.warning("%s", error)

    def wait(self, timeout_s: float | None) -> bool:
        """See `Process.wait`."""
        return self._container.wait(timeout_s) is not None

    def ending(self) -> str:
        """See `Process.ending`."""
        code = self._container.wait(0) or 0
        return f"signal {code - 128}" if code > 128 else f"exit code {code}"


def _shared(lease: Path, ids: Ids) -> Path:
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
    mounts.append(MountSpec(_on_the_host(paths, options.bundle), str(options.bundle), True))
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
        tmpfs={"/tmp": (_TMP_BYTES, _TMP_BYTES // 4096)},
        env={"LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/tmp"},
        labels={container_lease.LABEL: folder.name, ROLE_LABEL: "supervisor"},
        network=options.network,
        hostname="supervisor",
        init=True,
    )


def _on_the_host(paths: HostPaths, bundle: Path) -> str:
    try:
        return paths.translate(bundle)
    except SandboxStartFailed as error:
        raise Unavailable(
            f"{error} The tools of a bundle run in a container: mount the folder that holds bundles at "
            "AGENTIC_BUNDLES_ROOT (/bundles), set HOST_BUNDLES_PATH to the host's path of it, and name the bundle there"
        ) from error


def _write(descriptor: int, data: bytes) -> None:
    """All of *data*; a daemon that hangs takes none of it."""
    os.set_blocking(descriptor, False)
    view, until = memoryview(data), time.monotonic() + _READY_S
    try:
        while view:
            if not select.select([], [descriptor], [], max(until - time.monotonic(), 0))[1]:
                raise SetupFailed("supervisor", f"its container takes nothing after {_READY_S:.0f} s")
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
    raise SetupFailed("supervisor", f"its container does not answer after {_READY_S:.0f} s")
