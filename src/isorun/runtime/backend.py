"""Choosing a backend: the strongest that works, never a weaker level than was asked for."""

from contextlib import AsyncExitStack

from isorun.backends.base import Backend
from isorun.core.errors import InvalidRequest, Unavailable
from isorun.settings import Settings

NAMES = ("auto", "namespace", "docker")


async def choose_backend(wanted: str | Backend, settings: Settings, stack: AsyncExitStack) -> Backend:
    """An entered backend, left with *stack*. Raises `Unavailable` with the reason if it cannot be entered."""
    if not isinstance(wanted, str):
        return await stack.enter_async_context(wanted)
    if wanted not in NAMES:
        raise InvalidRequest(f"there is no backend {wanted!r}; use one of {', '.join(NAMES)}", code="unknown_backend")
    if wanted == "docker":
        raise Unavailable(_NO_DOCKER)
    settings.check_embedded()
    return await stack.enter_async_context(namespace_backend(settings))  # for `auto` too: there is no other


_NO_DOCKER = "this version has no docker backend"


def namespace_backend(settings: Settings) -> Backend:
    """The embedded backend as the settings want it, not entered."""
    # Imported here: the module needs Linux, and a client of another system may import isorun.
    from isorun.backends.namespace import NamespaceBackend, Options

    return NamespaceBackend(
        Options(
            python=str(settings.program_python) if settings.program_python else None,
            preloads=settings.preload,
            zygote_runs=settings.zygote_runs,
            executor_uid=settings.executor_uid,
            executor_gid=settings.executor_gid,
            cgroup_parent=str(settings.cgroup_parent) if settings.cgroup_parent else None,
        )
    )
