"""Choosing a backend: the strongest that works, never a weaker level than was asked for."""

from contextlib import AsyncExitStack
from pathlib import Path

from isorun.backends.base import Backend
from isorun.core.errors import InvalidRequest, Unavailable
from isorun.runtime.folder import open_root, open_state
from isorun.settings import Settings, get_exec_workspace_root

NAMES = ("auto", "namespace", "docker")


async def choose_backend(wanted: str | Backend, settings: Settings, stack: AsyncExitStack) -> Backend:
    """An entered backend, left with *stack*. `auto` is namespace, else docker.

    Raises `Unavailable` with the reason, of both for `auto`, if it cannot be entered.
    """
    if not isinstance(wanted, str):
        return await stack.enter_async_context(wanted)
    if wanted not in NAMES:
        raise InvalidRequest(f"there is no backend {wanted!r}; use one of {', '.join(NAMES)}", code="unknown_backend")
    if wanted == "docker":
        settings.check_docker()
        return await stack.enter_async_context(docker_backend(settings))
    settings.check_embedded()
    try:
        return await stack.enter_async_context(namespace_backend(settings))
    except Unavailable as embedded:
        if wanted == "namespace" or settings.program_python is not None:  # which no image has
            raise
        try:
            return await stack.enter_async_context(docker_backend(settings))
        except Unavailable as docker:
            raise Unavailable(f"neither backend works here. namespace: {embedded}; docker: {docker}") from docker


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


def docker_backend(settings: Settings) -> Backend:
    """The Docker backend as the settings want it, not entered."""
    from isorun.backends.docker import DockerBackend, Options

    return DockerBackend(
        Options(
            image=settings.image,
            state=docker_state(settings),
            runtime=settings.docker_runtime,
            preloads=settings.preload,
            executor_uid=settings.executor_uid,
            executor_gid=settings.executor_gid,
            host_paths=settings.host_paths(),
        )
    )


def docker_state(settings: Settings) -> Path:
    """The folder, of this user alone, below which the folders that containers share with us are made."""
    return Path(open_state(str(open_root(get_exec_workspace_root(settings)))))
