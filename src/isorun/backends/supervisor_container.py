"""A supervisor in a container of its own: long-lived, one per bundle, beside the executors of the Docker backend.

It has the network that `PY_CODE_EXEC_NETWORK_MODE` says, its bundle and the knowledge
storage read-only, and no other folder of the host but one for its socket, which nobody
else shares. Credentials go over its stdin. It implements `supervisor.incarnation.Process`.
"""

import asyncio
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isorun.backends.sent_code import BOOT, supervisor_code
from isorun.backends.slot_folder import Ids
from isorun.core.errors import SetupFailed, Unavailable
from isorun.core.limits import MIB
from isorun.wire.messages import Serve, encode
from sandbox_runner.attached import AttachedContainer, AttachedSpec
from sandbox_runner.docker_cli import DockerCli
from sandbox_runner.errors import SandboxError
from sandbox_runner.host_paths import HostPaths
from sandbox_runner.spec import MountSpec

KB_STORAGE = "/kdcube-storage"
_INSIDE = "/run/isorun"
_SOCKET = "supervisor.sock"
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
    labels: Mapping[str, str]


class SupervisorContainer:
    """See `supervisor.incarnation.Process`."""

    def __init__(self, container: AttachedContainer, folder: Path, channel: socket.socket) -> None:
        self._container, self._folder = container, folder
        self.socket, self.output = channel, os.dup(container.stderr)
        self._gone = threading.Event()
        self._removing = threading.Lock()
        self._is_removed = False

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
        paths = HostPaths.discover(options.host_paths or None, cli, os.environ)
        folder = _folder(options)
        container = None
        try:
            spec = _spec(options, paths, folder)
            container = AttachedContainer.start(cli, spec)
            told = Serve(
                globals_json=globals_json,
                environment=dict(environment),
                aws=dict(options.aws),
                socket=f"{_INSIDE}/{_SOCKET}",
            )
            _write(container.stdin, supervisor_code() + encode(told))
            channel = _connected(folder, container)
            container.confirm(spec)
        except BaseException:
            if container is not None:
                container.remove()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(container, folder, channel)

    def kill(self) -> None:
        """See `Process.kill`."""
        with self._removing:
            if not self._is_removed:
                self._is_removed = True
                self._container.remove()

    def wait(self, timeout_s: float | None) -> bool:
        """See `Process.wait`."""
        return self._container.wait(timeout_s) is not None

    def ending(self) -> str:
        """See `Process.ending`."""
        code = self._container.wait(0)
        return f"exit code {code}"

    def close(self) -> None:
        """See `Process.close`."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _folder(options: SupervisorOptions) -> Path:
    """Where its socket will be: the host's and its own."""
    folder = options.state / f"supervisor_{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    if options.ids.root:
        os.chown(folder, options.ids.uid, options.ids.gid)
    else:
        os.chown(folder, -1, options.ids.gid)
        folder.chmod(0o2770)
    return folder


def _spec(options: SupervisorOptions, paths: HostPaths, folder: Path) -> AttachedSpec:
    mounts = [MountSpec(paths.translate(folder), _INSIDE)]
    mounts.append(MountSpec(paths.translate(options.bundle), str(options.bundle), True))
    if options.knowledge is not None:
        mounts.append(MountSpec(options.knowledge, KB_STORAGE, True))
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
        labels=options.labels,
        network=options.network,
        hostname="supervisor",
    )


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
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
