"""A service of two processes over PostgreSQL and Redis, of which each request reaches the one or the other in turn.

`ISORUN_TEST_STORE=postgres` lets every test of this folder have one, in the place of one process over SQLite. Root's
half of CI does so with those that are marked `stores`.
"""

import hashlib
import itertools
import os
import re
import selectors
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.conftest import Require, half
from tests.servers import postgres_server, redis_server

STORES = ("sqlite", "postgres")
_HEAD = 64 << 10  # bytes of a request before its body
_PIECE = 64 << 10
_END_S = 60
#: What lives in the process that began it: kernels, programs that wait for LibreChat, and sessions of MCP as it was
#: before 2026-07-28. docs/chat-service.md asks a proxy to send these to the same process each time.
_KEPT = re.compile(rb"[A-Z]+ /(?:librechat/|api/kernels|mcp(?!(?s:.*)\nmcp-protocol-version: 2026-))", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)


def store() -> str:
    """Which of `STORES` the tests are asked to use. The two halves of CI have one each."""
    asked = os.environ.get("ISORUN_TEST_STORE", "") or STORES[half() == "root"]
    if asked not in STORES:
        raise ValueError(f"ISORUN_TEST_STORE is {asked}; known are {', '.join(STORES)}")
    return asked


class Servers:
    """One PostgreSQL with a database for each folder, and one Redis for all."""

    def __init__(self, postgres: int, redis: int) -> None:
        self._postgres, self._redis = postgres, redis

    def settings(self, folder: Path) -> dict[str, str]:
        """Of each process of the service whose data is in *folder*: started again, it has what it had."""
        name = f"t{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
        where = ("-h", "127.0.0.1", "-p", str(self._postgres), "-U", "app")
        made = subprocess.run(
            ["createdb", *where, name], env={**os.environ, "PGPASSWORD": "hush-db"}, capture_output=True, text=True
        )
        assert not made.returncode or "already exists" in made.stderr, made.stderr
        return {
            "DATABASE_URL": f"postgresql://app:hush-db@127.0.0.1:{self._postgres}/{name}",
            "REDIS_URL": f"redis://127.0.0.1:{self._redis}/0",
        }


@contextmanager
def servers(require: Require) -> Iterator[Servers]:
    """Those of a session of tests."""
    with postgres_server(require) as postgres, redis_server(require) as redis:
        yield Servers(postgres, redis)


class Both:
    """Two processes as one: what is done to it is done to both."""

    def __init__(self, processes: Sequence["subprocess.Popen[str] | Both"], front: "Front") -> None:
        self._processes, self._front = processes, front
        self.stdout = processes[0].stdout

    def send_signal(self, number: int) -> None:
        """To each that lives."""
        for one in self._processes:
            with suppress(ProcessLookupError):
                one.send_signal(number)

    def kill(self) -> None:
        """Both at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = _END_S) -> int:
        """Until both have ended; the exit code of the first, or of the second if the first's is 0."""
        codes = [one.wait(timeout) for one in self._processes]
        self._front.close()
        for one in self._processes[1:]:
            assert one.stdout is not None
            one.stdout.close()
        return next(filter(None, codes), 0)


class Front:
    """A proxy before *ports* of the loopback: each request goes to the next of them, on a connection of its own.

    Requests of `_KEPT` go to the first.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        turns, lock = itertools.cycle(ports), threading.Lock()

        class Pass(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                head = _head(self.request)
                if not head:
                    return
                with lock:
                    port = ports[0] if _KEPT.match(head) else next(turns)
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as behind:
                    behind.sendall(_alone(head))
                    _pass(self.request, behind)

        self._server = _Server(("127.0.0.1", 0), Pass)
        self.port = self._server.server_address[1]
        self._serving = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._serving.start()

    def close(self) -> None:
        """Take no connection any more."""
        if self._serving.is_alive():
            self._server.shutdown()
            self._serving.join()
            self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


def _head(client: socket.socket) -> bytes:
    """What has come once the request's head is whole; empty if it does not come."""
    head = b""
    with suppress(OSError):
        while b"\r\n\r\n" not in head and len(head) < _HEAD and (piece := client.recv(_PIECE)):
            head += piece
        return head
    return b""


def _alone(head: bytes) -> bytes:
    """The request with the wish that its connection is closed behind the answer: the next one takes its turn."""
    first, end, body = head.partition(b"\r\n\r\n")
    if re.search(rb"\r\nupgrade:", first, re.IGNORECASE):
        return head
    return _CONNECTION.sub(b"", first) + b"\r\nConnection: close" + end + body


def _pass(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until one of them hangs up."""
    with ExitStack() as stack:
        ready = stack.enter_context(selectors.DefaultSelector())
        for end, to in ((one, other), (other, one)):
            ready.register(end, selectors.EVENT_READ, to)
        while True:
            for key, _ in ready.select():
                piece = key.fileobj.recv(_PIECE)
                if not piece:
                    return
                key.data.sendall(piece)
