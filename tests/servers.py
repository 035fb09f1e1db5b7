"""Servers on ports of the loopback, for as long as a block lasts: Redis and PostgreSQL as this machine has them."""

import os
import pwd
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

Require = Callable[[str, str], NoReturn]
_PATIENCE_S = 60.0


def unused_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def answering(words: bytes) -> Iterator[int]:
    """The port of a server that says *words* to whoever has said something."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 12)
            self.request.sendall(words)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def redis_server(require: Require, *options: str) -> Iterator[int]:
    """The port of a Redis of our own, which stores nothing; *options* come first: the name of a configuration."""
    program = shutil.which("redis-server")
    if program is None:
        require("redis", "there is no redis-server")
    port = unused_port()
    command = [program, *options, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory(prefix="redis-") as folder, _running(command, Path(folder)) as server:
        _wait_until(lambda: _listens(port), server)
        yield port


@contextmanager
def postgres_server(require: Require, *, auth: str = "scram-sha-256", tls: bool = False) -> Iterator[int]:
    """The port of a PostgreSQL of our own. Its owner is `app` with the password `hush-db`; *auth* as in pg_hba.conf.

    With *tls* it takes no connection without it.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        require("postgres", "there is no initdb below /usr/lib/postgresql")
    owner = {} if os.geteuid() else _unprivileged()
    # Not below pytest's folders, which another user may not enter.
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder, port = Path(name), unused_port()
        (folder / "password").write_text("hush-db")
        for path in (folder, folder / "password"):
            os.chown(path, owner.get("user", -1), owner.get("group", -1))
        data = folder / "data"
        made = [found[-1], "-D", data, "-U", "app", "--auth", auth, "--pwfile", folder / "password", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **owner)
        if tls:
            rules = data / "pg_hba.conf"
            rules.write_text(f"hostssl all all all {auth}\n")
        options = ["-c", "fsync=off", "-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1"]
        server = [found[-1].with_name("postgres"), "-D", data, "-p", str(port), *options]
        with _running(server, folder, **owner) as process:
            ready = found[-1].with_name("pg_isready")
            _wait_until(
                lambda: not subprocess.run([ready, "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode, process
            )
            yield port


def _unprivileged() -> dict[str, int]:
    """Whom PostgreSQL may run as: it refuses root, and wants an account."""
    names = {account.pw_name: account for account in pwd.getpwall()}
    account = names.get("postgres") or names["nobody"]
    return {"user": account.pw_uid, "group": account.pw_gid}


@contextmanager
def _running(command: Sequence[str | Path], folder: Path, **options: int) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def _wait_until(is_up: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _PATIENCE_S
    while not is_up():
        assert time.monotonic() < end, f"{process.args} is not up"
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        time.sleep(0.02)
