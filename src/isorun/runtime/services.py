"""The supervisor of a Runtime's bundle, and what stands around it: Redis, PostgreSQL, credentials.

Whether a service answers is asked by a connection alone: its credentials are not used here.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from isorun.runtime.backend import docker_state
from isorun.settings import Settings, base_environment, supervisor_environment

if TYPE_CHECKING:
    from isorun.supervisor.client import Supervisor
    from isorun.supervisor.incarnation import StartProcess

_log = logging.getLogger("isorun")
_CONNECT_S = 1.0
_REDIS_PORT, _POSTGRES_PORT = 6379, 5432
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


async def open_supervisor(
    settings: Settings, stack: AsyncExitStack, *, in_container: bool = False
) -> tuple["Supervisor | None", tuple[str, ...]]:
    """The supervisor of the settings' bundle, left with *stack*, and the lines that every run's infra.log begins with.

    *in_container*: it runs beside the executors of the Docker backend. None without a bundle. Raises
    `InvalidRequest` (invalid_bundle) if it cannot be loaded, and `SetupFailed` if it dies or takes too long.
    """
    if settings.bundle is None:
        return None, ()
    # Not at the top: a run without a bundle does not pay for them.
    from isorun.supervisor.client import Supervisor
    from isorun.supervisor.descriptor import load_descriptor

    descriptor = await asyncio.to_thread(load_descriptor, settings.bundle)
    environment = supervisor_environment(settings)
    if in_container:
        supervisor = Supervisor(descriptor, environment, start=container_start(settings, descriptor.root))
    else:
        environment = {**base_environment(), **environment}
        supervisor = Supervisor(descriptor, environment, network=settings.network_mode != "none")
    await stack.enter_async_context(supervisor)
    redis, postgres = await asyncio.gather(_redis(settings), _postgres(settings))
    has_keys = any(name in environment for name in _KEYS)
    lines = (
        f"ready bundle={descriptor.name} redis={redis} postgres={postgres}",
        f"AWS credentials: {'present, passed to the supervisor only' if has_keys else 'absent'}",
    )
    for line in lines:
        _log.info("[supervisor] %s", line)
    return supervisor, lines


def container_start(settings: Settings, bundle: Path) -> "StartProcess":
    """How a supervisor of *bundle* is started in a container of its own."""
    from isorun.backends.slot_folder import Ids
    from isorun.backends.supervisor_container import SupervisorContainer, SupervisorOptions

    options = SupervisorOptions(
        image=settings.image,
        network=settings.network_mode,
        state=docker_state(settings),
        bundle=bundle,
        knowledge=settings.host_kb_storage_path,
        ids=Ids.of_this_process(settings.executor_uid, settings.executor_gid),
        host_paths=settings.host_paths(),
        cpus=float(os.cpu_count() or 1),
        aws=_aws_files(),
    )

    async def start(globals_json: str, environment: Mapping[str, str]) -> SupervisorContainer:
        return await SupervisorContainer.start(options, globals_json, environment)

    return start


def _aws_files() -> dict[str, str]:
    """What of ~/.aws the supervisor gets, by name."""
    files = {}
    for name in ("config", "credentials"):
        with suppress(OSError, UnicodeDecodeError):
            files[name] = (Path.home() / ".aws" / name).read_text(encoding="utf-8")
    return files


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
