"""Starts the supervisors of a Runtime, and reports on Redis, PostgreSQL and credentials of its bundle.

The supervisor asks whether a service answers. It is not given the service's password for that.
"""

import asyncio
import functools
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from isorun.core.guard.log import log_of
from isorun.core.ids import BUILT_IN_MODULE, is_built_in
from isorun.core.process import StartProcess
from isorun.core.text import one_line
from isorun.runtime.choose import Chosen
from isorun.runtime.request import AcceptedRun
from isorun.settings import Settings, base_environment, supervisor_environment

if TYPE_CHECKING:
    from isorun.supervisor.client import Supervisor
    from isorun.supervisor.descriptor import Descriptor
    from isorun.supervisor.serving.services import Service
    from isorun.supervisor.worker.modes import ModePolicy

_log = log_of("isorun")
_REDIS_PORT, _POSTGRES_PORT = 6379, 5432
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


async def open_supervisor(
    settings: Settings, stack: AsyncExitStack, chosen: "Chosen | asyncio.Future[Chosen]"
) -> tuple["Supervisor | None", tuple[str, ...]]:
    """The supervisor of the settings' bundle, closed with *stack*, and the first lines of every run's infra.log.

    It runs where the *chosen* backend runs tools. None without a bundle. Raises `InvalidRequest` if that cannot
    be loaded, `Unavailable` if a tool cannot run where it must, `SetupFailed` if it dies or takes too long.
    """
    if settings.bundle is None:
        return None, ()
    # Not at the top, so that a run without a bundle does not pay for them.
    from isorun.supervisor.client import Supervisor
    from isorun.supervisor.descriptor import NO_NETWORK, SERVICES
    from isorun.supervisor.incarnation import Ahead, LocalProcess
    from isorun.supervisor.serving.services import encode_services

    descriptor = await asyncio.to_thread(descriptor_of, settings, settings.bundle)
    services, statuses = _asked(settings)
    environment = environment_of(settings, descriptor) | ({SERVICES: encode_services(services)} if services else {})
    no_network = {NO_NETWORK: "1"} if settings.network_mode == "none" else {}
    here = {**base_environment(), **environment, **no_network}
    with ExitStack() as unused:
        start_here: StartProcess = LocalProcess.start
        if isinstance(chosen, asyncio.Future):
            ahead = Ahead(here)  # 150 ms of a cold start, which pass while `auto` tries its first choice
            unused.callback(ahead.abandon)
            start_here, chosen = ahead.start, await asyncio.shield(chosen)
        start = chosen.backend.supervisor(settings, descriptor.root)
        environment, policy = environment if start else here, mode_policy_of(settings, in_container=bool(start))
        supervisor = Supervisor(descriptor, environment, start=start or start_here, mode_policy=policy)
        await stack.enter_async_context(supervisor)
    statuses |= supervisor.services
    has_keys = any(name in environment for name in _KEYS)
    lines = (
        f"ready bundle={descriptor.name} redis={statuses['redis']} postgres={statuses['postgres']}",
        f"AWS credentials: {'present, passed to the supervisor only' if has_keys else 'absent'}",
    )
    for line in lines:
        _log.info("[supervisor] %s", one_line(line))
    return supervisor, lines


def descriptor_of(settings: Settings, bundle: str | Path | None, *, named: str = "") -> "Descriptor":
    """The tools of *bundle*; without one the built-in tools. A bundle has those, too, if *named* is one of them, or the
    operator has set so. Raises `InvalidRequest` (invalid_bundle).
    """
    from isorun.supervisor.descriptor import BUILT_INS, load_descriptor, with_built_ins

    if bundle is None:
        return BUILT_INS
    descriptor = load_descriptor(bundle)
    return with_built_ins(descriptor) if settings.builtin_tools or is_built_in(named) else descriptor


def environment_of(settings: Settings, descriptor: "Descriptor") -> dict[str, str]:
    """The environment of these tools' supervisor; it has the keys of search services only with the built-in tools."""
    return supervisor_environment(settings, built_ins=any(one.module == BUILT_IN_MODULE for one in descriptor.entries))


class Supervisors:
    """The supervisors of one Runtime: that of its *bundle*, if it has one. Leaving the block ends the others.

    Without a bundle a supervisor is started for the first run that needs it. It has the built-in tools, or no tools:
    then it hands calls of the caller's own tools back to this process.
    """

    def __init__(self, settings: Settings, bundle: "Supervisor | None") -> None:
        self.has_bundle = bundle is not None
        self._settings, self._bundle = settings, bundle
        self._started: dict[bool, Supervisor] = {}  # by whether they have the built-in tools
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def of(self, request: AcceptedRun) -> "Supervisor | None":
        """The supervisor for *request*; None: all its calls are denied. Raises what `open_supervisor` raises."""
        if self._bundle is not None or not request.grants:
            return self._bundle
        has_built_ins = set(request.grants) != set(request.own_tools)
        async with self._starting:
            if has_built_ins not in self._started:
                self._started[has_built_ins] = await self._stack.enter_async_context(self._new(has_built_ins))
            return self._started[has_built_ins]

    def _new(self, has_built_ins: bool) -> "Supervisor":
        from isorun.supervisor.client import Supervisor
        from isorun.supervisor.descriptor import BUILT_INS, NO_BUNDLE

        # On this machine with every backend: these tools are isorun's, and those that can crash run in workers.
        if not has_built_ins:
            return Supervisor(NO_BUNDLE, base_environment())
        environment = {**base_environment(), **environment_of(self._settings, BUILT_INS)}
        network = self._settings.network_mode != "none"
        return Supervisor(BUILT_INS, environment, network=network, mode_policy=mode_policy_of(self._settings))


@functools.cache
def built_in_tools() -> Mapping[str, Mapping[str, Any]]:
    """The built-in tools as a supervisor that has them would describe them, by id."""
    from isorun.supervisor.descriptor import BUILT_INS
    from isorun.supervisor.registry import load_tools

    return {tool_id: tool.described() for tool_id, tool in load_tools(BUILT_INS).items()}


def by_default(tools: Iterable[str]) -> tuple[str, ...]:
    """Those of *tools* that a run gets if it names none. Web tools are a way out, so a run has to name them."""
    from isorun.tools.tools_insights import is_fetch_uri_content_tool, is_search_tool

    return tuple(i for i in tools if not (is_search_tool(i) or is_fetch_uri_content_tool(i)))


def mode_policy_of(settings: Settings, *, in_container: bool = False) -> "ModePolicy":
    """The mode policy of the operator and isorun; *in_container*: whether the supervisor is in a container."""
    from isorun.supervisor.worker.modes import ModePolicy
    from isorun.tools.tools_insights import tool_isolation

    return ModePolicy(operators=settings.tool_modes(), default=tool_isolation, in_container=in_container)


def _asked(settings: Settings) -> tuple[dict[str, "Service"], dict[str, str]]:
    """The services that a supervisor is to ask, and the status of each that it need not ask."""
    from isorun.supervisor.serving.services import Service, unreachable  # as above

    redis = settings.redis_url, settings.redis_host, settings.redis_port, _REDIS_PORT
    postgres = settings.database_url, settings.postgres_host, settings.postgres_port, _POSTGRES_PORT
    user, database = settings.postgres_user or "", settings.postgres_db or ""
    found: dict[str, Service] = {}
    statuses: dict[str, str] = {}
    for name, schemes, variable, (url, host, port, usual_port) in (
        ("redis", ("redis", "rediss", "unix"), "REDIS_URL", redis),
        ("postgres", ("postgres",), "DATABASE_URL", postgres),
    ):
        if url is None and host:
            found[name] = Service(host, port, False, *((user, database) if name == "postgres" else ()))
        elif url is None or not url.startswith(schemes):  # none, or a database that is a file
            statuses[name] = "not configured"
        else:
            try:
                found[name] = _service_of(url, usual_port)
            except ValueError:
                statuses[name] = unreachable(f"{variable} names no host and port")
    return found, statuses


def _service_of(url: str, usual_port: int) -> "Service":
    """Where *url* leads, without its password. Raises ValueError."""
    from isorun.supervisor.serving.services import Service  # as above

    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError(url)
    user, database = unquote(parts.username or ""), unquote(parts.path.removeprefix("/"))
    return Service(parts.hostname, parts.port or usual_port, parts.scheme == "rediss", user, database)
