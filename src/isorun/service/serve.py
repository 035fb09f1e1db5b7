"""The service as a process: prints its URL, and ends runs before streams, so that each stream has its outcome."""

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from isorun.core.errors import InvalidRequest, Unavailable
from isorun.service.app import create_app
from isorun.service.auth import sign_in_link
from isorun.service.context import Service, open_service
from isorun.service.logs import start_logging
from isorun.service.page.starters import with_searches
from isorun.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 2048
_END_S = 2  # for connections, once the runs have ended


class _Server(uvicorn.Server):
    """Ends the runs first: each open stream gets its outcome, and then has no reason to stay open.

    An end by a signal is how a service ends: the process then exits with 0, and not as if the signal had killed it.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._ending: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second signal does not wait."""
        if self._ending is not None:
            super().handle_exit(sig, frame)
            return
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def end_if_taken(self) -> None:
        """End if another process serves in this one's place."""
        await self._service.taken.wait()
        self.handle_exit(signal.SIGTERM, None)

    async def _end(self) -> None:
        try:
            await self._service.close()
        finally:
            self.should_exit = True


async def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal comes. Raises `InvalidRequest`, `Unavailable`, `SetupFailed`."""
    listening = _listening(host, port)
    async with open_service(with_searches(settings)) as service:
        if host not in LOOPBACK and not await service.accounts.any_key():
            raise InvalidRequest(
                f"{host} can be reached by others, and no user has a key yet: make one with `isorun users add NAME`",
                code="no_key",
            )
        names = frozenset(LOOPBACK) if host in LOOPBACK else frozenset()
        config = uvicorn.Config(
            create_app(service, hosts=names),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_END_S,
            lifespan="on",
            http="httptools",
            ws="websockets-sansio",
        )
        logging.getLogger("uvicorn.error").addFilter(_without_query)
        await _announce(service, host, listening)
        server = _Server(config, service)
        watching = asyncio.create_task(server.end_if_taken())
        try:
            await server.serve(sockets=[listening])
        finally:
            watching.cancel()


def _without_query(record: logging.LogRecord) -> bool:
    """uvicorn logs the address of each WebSocket; what stands behind its `?` may be a key."""
    if isinstance(record.args, tuple):
        record.args = tuple(one.partition("?")[0] if isinstance(one, str) else one for one in record.args)
    return True


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sends at once only on sockets that name TCP: else each answer would wait 40 ms for the client's ACK.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)  # now: who reads the address may come at once, and is answered once we are ready
    except OSError as error:
        text = f"{host}:{port} cannot be listened on: {error.strerror}; name another with --port, or --port 0 for any"
        raise Unavailable(text) from None
    return made


async def _announce(service: Service, host: str, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    if host in LOOPBACK:
        url += await sign_in_link(service.accounts, await service.accounts.local())
    sys.stdout.write(f"Open {url}\n")
    sys.stdout.flush()


def run(settings: Settings, host: str, port: int) -> None:
    """As `serve`, from a program without a loop."""
    start_logging(settings)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    asyncio.run(serve(settings, host, port))
