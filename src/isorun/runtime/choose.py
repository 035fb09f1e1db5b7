"""Choosing a backend: the strongest that works, never a weaker level than was asked for."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from isorun.backends.base import Backend
from isorun.backends.release import check_release
from isorun.core.errors import InvalidRequest, Unavailable
from isorun.settings import BACKENDS, Settings, get_exec_workspace_root
from isorun.store.folder import open_root, open_state

if TYPE_CHECKING:
    from isorun.backends.namespace.backend import NamespaceBackend
    from isorun.backends.namespace.spawn import Spawned


@dataclass(frozen=True, slots=True)
class Chosen:
    """An entered backend. *fallback*: why `auto` did not take the one before it; empty if it was the first choice."""

    backend: Backend
    fallback: str = ""


def named_backend(wanted: str | Backend, settings: Settings) -> Backend | None:
    """The one backend that *wanted* names, not entered; None for `auto`, which has to try. Raises `InvalidRequest`."""
    if not isinstance(wanted, str):
        return wanted
    if wanted not in BACKENDS:
        raise InvalidRequest(
            f"there is no backend {wanted!r}; use one of {', '.join(BACKENDS)}", code="unknown_backend"
        )
    if wanted == "docker":
        settings.check_docker()
        return docker_backend(settings)
    if wanted == "namespace":
        settings.check_embedded()
        return namespace_backend(settings)
    return None


async def choose_backend(named: Backend | None, settings: Settings, stack: AsyncExitStack) -> Chosen:
    """*named*, else what `auto` is here: namespace, else docker. Entered, and left with *stack*.

    For `auto`, settings that the embedded backend cannot follow count as a reason like any other. Raises
    `Unavailable` with the reasons of both.
    """
    if named is not None:
        return Chosen(await stack.enter_async_context(named))
    try:
        settings.check_embedded()
        return Chosen(await stack.enter_async_context(namespace_backend(settings)))
    except (InvalidRequest, Unavailable) as error:
        if settings.program_python is not None:  # which no image has
            raise
        embedded = " ".join((error.reason if isinstance(error, Unavailable) else str(error)).split())
    try:
        backend = await stack.enter_async_context(docker_backend(settings))
    except Unavailable as docker:
        raise Unavailable(f"neither backend works here. namespace: {embedded}; docker: {docker.reason}") from docker
    return Chosen(backend, f"fallback: docker, because the namespace backend cannot be used: {embedded}")


def namespace_backend(settings: Settings, spawned: "Spawned | None" = None) -> "NamespaceBackend":
    """The embedded backend as the settings want it, not entered; *spawned* is a jail that was started for them."""
    check_release()
    # Imported here: the module needs Linux, and a client of another system may import isorun.
    from isorun.backends.executor_ids import of_settings
    from isorun.backends.namespace.backend import NamespaceBackend, Options

    uid, gid = of_settings(settings)
    return NamespaceBackend(
        Options(
            python=str(settings.program_python) if settings.program_python else None,
            preloads=settings.preload,
            zygote_runs=settings.zygote_runs,
            executor_uid=uid,
            executor_gid=gid,
            cgroup_parent=str(settings.cgroup_parent) if settings.cgroup_parent else None,
        ),
        spawned,
    )


def is_embedded(backend: Backend) -> "TypeGuard[NamespaceBackend]":
    """Whether the slots of *backend* are made by this process."""
    if backend.name != "namespace":
        return False
    from isorun.backends.namespace.backend import NamespaceBackend  # as above

    return isinstance(backend, NamespaceBackend)


def docker_backend(settings: Settings) -> Backend:
    """The Docker backend as the settings want it, not entered."""
    check_release()
    from isorun.backends.docker.backend import DockerBackend, Options

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
