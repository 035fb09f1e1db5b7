"""Redis and PostgreSQL that a test may kill in the middle of everything, and start again with what they had."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers import Require, _unprivileged, unused_port

_PATIENCE_S = 60.0


class Killable:
    """A server on a port of the loopback. *ready*: a command that succeeds once it answers."""

    def __init__(
        self, port: int, folder: Path, command: Sequence[object], ready: Sequence[object], **owner: int
    ) -> None:
        self.port = port
        self._folder, self._command, self._ready, self._owner = folder, command, ready, owner
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        argv = [str(part) for part in self._command]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, cwd=self._folder, stdout=log, stderr=log, start_new_session=True, **self._owner
            )
        end = time.monotonic() + _PATIENCE_S
        while subprocess.run([str(part) for part in self._ready], capture_output=True).returncode:
            assert time.monotonic() < end, (self._folder / "server.log").read_text()
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """At once, with all of its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_PATIENCE_S)

    def close(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()


@contextmanager
def redis(require: Require) -> Iterator[Killable]:
    """It stores nothing, and wants the password `hush-redis`."""
    program = shutil.which("redis-server")
    if program is None:
        require("redis", "there is no redis-server")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-")))
        port = unused_port()
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--requirepass", "hush-redis")
        ready = ("redis-cli", "-p", port, "-a", "hush-redis", "--no-auth-warning", "-e", "ping")
        server = Killable(port, folder, [program, "--port", port, *options], ready)
        stack.callback(server.close)
        server.start()
        yield server


@contextmanager
def postgres(require: Require) -> Iterator[Killable]:
    """Its owner is `app`, with the password `hush-db`. What it has committed outlives it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        require("postgres", "there is no initdb below /usr/lib/postgresql")
    owner = {} if os.geteuid() else _unprivileged()
    with ExitStack() as stack:
        # Not below pytest's folders, which another user may not enter.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postgres-")))
        (folder / "password").write_text("hush-db")
        for path in (folder, folder / "password"):
            os.chown(path, owner.get("user", -1), owner.get("group", -1))
        data, port = folder / "data", unused_port()
        made = [found[-1], "-D", data, "-U", "app", "--auth", "scram-sha-256", "--pwfile", folder / "password"]
        subprocess.run([*made, "--no-sync"], check=True, capture_output=True, cwd=folder, **owner)
        options = ["-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1"]
        command = [found[-1].with_name("postgres"), "-D", data, "-p", port, *options]
        ready = [found[-1].with_name("pg_isready"), "-q", "-h", "127.0.0.1", "-p", port]
        server = Killable(port, folder, command, ready, **owner)
        stack.callback(server.close)
        server.start()
        yield server
