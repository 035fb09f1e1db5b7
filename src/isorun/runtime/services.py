"""The supervisor of a Runtime's bundle, and what stands around it: Redis, PostgreSQL, credentials.

Whether a service answers is asked by a connection alone: its credentials are not used here.
"""

import asyncio
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from isorun.core.guard.log import log_of
from isorun.core.process import StartProcess
from isorun.core.text import one_line
from isorun.runtime.choose import Chosen
from isorun.settings import Settings, base_environment, supervisor_environment

if TYPE_CHECKING:
    from isorun.supervisor.client import Supervisor

_log = log_of("isorun")
_CONNECT_S = 1.0
_REDIS_PORT, _POSTGRES_PORT = 6379, 5432
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


async def open_supervisor(
    settings: Settings, stack: AsyncExitStack, chosen: "Chosen | asyncio.Future[Chosen]"
) -> tuple["Supervisor | None", tuple[str, ...]]:
    """The supervisor of the settings' bundle, left with *stack*, and the lines that every run's infra.log begins with.

    It runs where the *chosen* backend has its tools run. None without a bundle. Raises
    `InvalidRequest` (invalid_bundle) if it cannot be loaded, and `SetupFailed` if it dies or takes too long.
    """
    if settings.bundle is None:
        return None, ()
    # Not at the top: a run without a bundle does not pay for them.
    from isorun.supervisor.client import Supervisor
    from isorun.supervisor.descriptor import NO_NETWORK, load_descriptor
    from isorun.supervisor.incarnation import Ahead, LocalProcess

    descriptor = await asyncio.to_thread(load_descriptor, settings.bundle)
    environment = supervisor_environment(settings)
    no_network = {NO_NETWORK: "1"} if settings.network_mode == "none" else {}
    here = {**base_environment(), **environment, **no_network}
    with ExitStack() as unused:
        start_here: StartProcess = LocalProcess.start
        if isinstance(chosen, asyncio.Future):
            ahead = Ahead(here)  # 150 ms of a cold start, which pass while `auto` tries its first choice
            unused.callback(ahead.abandon)
            start_here, chosen = ahead.start, await asyncio.shield(chosen)
        start = chosen.backend.supervisor(settings, descriptor.root)
        environment = environment if start else here
        supervisor = Supervisor(descriptor, environment, start=start or start_here)
        await stack.enter_async_context(supervisor)
    redis, postgres = await asyncio.gather(_redis(settings), _postgres(settings))
    has_keys = any(name in environment for name in _KEYS)
    lines = (
        f"ready bundle={descriptor.name} redis={redis} postgres={postgres}",
        f"AWS credentials: {'present, passed to the supervisor only' if has_keys else 'absent'}",
    )
    for line in lines:
        _log.info("[supervisor] %s", one_line(line))
    return supervisor, lines


async def _redis(settings: Settings) -> str:
    return await _answers(settings.redis_url, settings.redis_host, settings.redis_port, _REDIS_PORT)


async def _postgres(settings: Settings) -> str:
    return await _answers(settings.database_url, settings.postgres_host, settings.postgres_port, _POSTGRES_PORT)


async def _answers(url: str | None, host: str | None, port: int, usual_port: int) -> str:
    """`ok`, `not configured`, or `unreachable`."""
    if url is not None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or usual_port
        except ValueError:
            return "unreachable"
    if not host:
        return "not configured"
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, UnicodeError):  # the last: a host name that no resolver takes
        return "unreachable"
    writer.close()
    return "ok"
