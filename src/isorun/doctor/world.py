"""What is known of this machine and of this deployment, for the checks of `isorun doctor --production`.

A value, so that a test can make any deployment. Looking changes nothing.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isorun.backends.executor_ids import Identity, of_settings
from isorun.backends.namespace import cgroup
from isorun.backends.remedy import Action, actions_of
from isorun.doctor.docker import Found
from isorun.settings import ENVIRONMENT, Settings, in_container, process_environment
from sandbox_runner.errors import SandboxError
from sandbox_runner.leftovers import listed

ENTRYPOINT = Path("/usr/local/bin/docker-entrypoint.sh")
SOCKET = "unix:///var/run/docker.sock"
_GRACE_H = 24.0  # a Runtime removes runs once it is used, so a day may pass


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that the checks judge by."""

    settings: Settings
    root: Path
    docker: bool  # whether runs are containers
    found: Found
    contained: bool  # whether this process is in a container
    uid: int
    executor: Identity
    entrypoint: int | None = None  # mode of the file; None: it is not there
    socket: tuple[str, int | None] = (SOCKET, None)  # the daemon's address, and the mode of its file
    has_tls: bool = False  # of the daemon's address, if it is a port
    files: Mapping[str, int] = field(default_factory=dict)  # the settings' files -> their modes
    leftovers: tuple[str, ...] = ()
    memory_bytes: int = 0  # of this machine
    cgroup: str = ""  # why there is none; empty if there is one
    cgroup_actions: tuple[Action, ...] = ()  # what gives one
    old_runs: int = 0
    isolation: Mapping[str, Any] | None = None  # of a run that was tried; None: there was none
    core_pattern: str = "core"


def look(
    settings: Settings, root: Path, found: Found, *, docker: bool, isolation: Mapping[str, Any] | None = None
) -> World:
    """What this machine is like. *found*: what the engine said, if it was asked; *isolation*: of a trial run."""
    parent = cgroup.find_own_parent(str(settings.cgroup_parent) if settings.cgroup_parent else None)
    lacks = parent.lacks if isinstance(parent, cgroup.Refusal) else ()
    environ = process_environment()
    address = environ.get("DOCKER_HOST") or SOCKET
    sources = {row.source for row in settings.rows()} - {ENVIRONMENT, "default"}
    modes = {source: _mode(Path(source)) for source in sources}
    return World(
        settings=settings,
        root=root,
        docker=docker,
        found=found,
        contained=in_container(),
        uid=os.geteuid(),
        executor=Identity.of_jail(*of_settings(settings)),
        entrypoint=_mode(ENTRYPOINT),
        socket=(address, _mode(Path(address.removeprefix("unix://"))) if address.startswith("unix://") else None),
        has_tls=bool(environ.get("DOCKER_TLS_VERIFY")),
        files={source: mode for source, mode in modes.items() if mode is not None},
        leftovers=tuple(_leftovers()) if docker else (),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        cgroup="; ".join(f"{lack.controller}: {lack.reason}" for lack in lacks),
        cgroup_actions=actions_of(*(lack.remedy for lack in lacks)),
        old_runs=_old_runs(root, (settings.retention_hours + _GRACE_H) * 3600, time.time()),
        isolation=isolation,
        core_pattern=_core_pattern(),
    )


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _core_pattern() -> str:
    try:
        return Path("/proc/sys/kernel/core_pattern").read_text(errors="replace").strip()
    except OSError:
        return ""


def _leftovers() -> Iterator[str]:
    try:
        for one in listed():
            if one.why:
                yield f"{one.kind} {one.name} ({one.why})"
    except SandboxError as error:
        yield f"not known: {error}"


def _old_runs(root: Path, age_s: float, now: float) -> int:
    count = 0
    with suppress(OSError):  # no such folder, or one that we may not read: another check says so
        for entry in os.scandir(root):
            if entry.name.startswith("codegen_") and now - entry.stat(follow_symlinks=False).st_mtime > age_s:
                count += 1
    return count
