"""The supervisor's end of the spawner: starts it, asks it for workers, starts a new one if it is dead."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from isorun.core.sent.importer import BOOT, packed, sources_of
from isorun.settings import base_environment

_MAIN = "from isorun.supervisor.worker.spawner import main; main()"


class SpawnerClient:
    """The spawner process of this supervisor. Use it in one thread: when that ends, all workers are killed."""

    def __init__(self) -> None:
        self._popen: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def open(self) -> socket.socket:
        """The socket to the spawner, which is started if none is running. Raises `OSError`."""
        if self._socket is None or self._popen is None or self._popen.poll() is not None:
            self.close()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._socket = ours
                self._popen = _start(theirs.fileno())
        return self._socket

    def spawn(self, network: str) -> tuple[socket.socket, socket.socket]:
        """Our ends of the sockets of a new worker and its monitor. See `WorkerKind.network`. Raises `OSError`."""
        channel = self.open()
        worker, workers_end = socket.socketpair()
        monitor, monitors_end = socket.socketpair()
        with workers_end, monitors_end:
            for end in (worker, monitor):
                end.setblocking(False)
            try:
                ends = [workers_end.fileno(), monitors_end.fileno()]
                socket.send_fds(channel, [network.encode()], ends, socket.MSG_DONTWAIT)
            except BaseException:
                worker.close()
                monitor.close()
                raise
        return worker, monitor

    def descriptors(self) -> list[int]:
        """The descriptor of its socket, if there is one."""
        return [] if self._socket is None else [self._socket.fileno()]

    def close(self) -> None:
        """Kill the spawner if one is running; workers end with it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None


def _start(channel: int) -> "subprocess.Popen[bytes]":
    """Start the process. It imports isorun from where this process does: from files, or from the sources sent to it."""
    spec = sys.modules[__name__].__spec__
    sources = sources_of(spec.loader) if spec is not None else None
    place = str(Path(__file__).resolve().parents[3])
    boot = f"import sys; sys.path.insert(0, {place!r}); {_MAIN}" if sources is None else BOOT
    stdin = os.memfd_create("isorun-code", os.MFD_CLOEXEC)
    try:
        if sources is not None:
            os.write(stdin, packed(sources, _MAIN))
            os.lseek(stdin, 0, os.SEEK_SET)
        # -I: nothing from the environment or the current folder is imported.
        options = ["-I", *(["-B"] if sys.dont_write_bytecode else []), *(["-X", "utf8"] if sys.flags.utf8_mode else [])]
        return subprocess.Popen(
            [sys.executable, *options, "-c", boot, str(channel), str(os.getpid())],
            env=base_environment(),
            stdin=stdin,
            pass_fds=[channel],
            cwd="/",
            start_new_session=True,  # Ctrl-C at the host's terminal is not for a worker
        )
    finally:
        os.close(stdin)
