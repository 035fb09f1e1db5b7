"""What `isorun cleanup` does: each kind of leftover, and the proof that nobody owns it any more.

Runs and containers have a lease, a lock that the kernel drops with its holder, in whatever container. Control groups,
jails and folders in /tmp are this machine's and carry the process that made them, see `kernel.processes.owner`.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from isorun.backends.docker import lease as container_lease
from isorun.backends.executor_ids import Identity
from isorun.backends.namespace import cgroup
from isorun.backends.namespace.orphans import end_orphans
from isorun.backends.namespace.spawn import STAGE, staging_places
from isorun.core.errors import CleanupFailed, IsorunError
from isorun.core.guard.log import log_of
from isorun.kernel.processes.owner import Owner
from isorun.runtime.choose import docker_state
from isorun.settings import Settings, get_exec_workspace_root
from isorun.store.folder import open_root
from isorun.store.recovery import recover, remove, sweep
from isorun.store.sessions import sweep_sessions
from isorun.supervisor.worker.spawner import TEMPORARY
from sandbox_runner.docker.command import DockerCli, own_environment
from sandbox_runner.docker.host_paths import HostPaths
from sandbox_runner.errors import SandboxError

_log = log_of("isorun")


@dataclass(slots=True)
class Tidied:
    """What went, a list of names for each kind; and what could not be looked at or stays, in words."""

    gone: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def take(self, kind: str, step: Callable[[], Iterable[object]]) -> None:
        """Do *step*; one that fails holds up no other."""
        self.gone[kind] = []
        try:
            self.gone[kind] += map(str, step())
        except (IsorunError, SandboxError, OSError) as error:
            self.problems.append(f"{kind.replace('_', ' ')}: {error}")


def tidy(settings: Settings, *, hours: float) -> Tidied:
    """End lost runs, remove those older than *hours*, and what dead hosts left."""
    root = open_root(get_exec_workspace_root(settings))
    found, stuck = Tidied(), list[str]()

    def swept() -> list[str]:
        return sweep(root, older_than_s=hours * 3600, now=time.time())

    found.take("removed_runs", swept)  # first: it makes the room that ending a lost run takes
    unused_s = settings.session_retention_hours * 3600
    found.take("removed_sessions", lambda: sweep_sessions(root, older_than_s=unused_s, now=time.time()))
    found.take("lost_runs", lambda: recover(root, stuck))
    if hours == 0:
        found.gone["removed_runs"] += swept()
        stuck = [exec_id for exec_id in stuck if not _removed(root, exec_id, found)]
    found.problems += [f"run {exec_id} cannot be ended; `isorun cleanup --all` removes it" for exec_id in stuck]
    found.take("ended_jails", end_orphans)
    found.take("removed_containers", lambda: _containers(settings))
    found.take("removed_cgroups", lambda: _stale_cgroups(settings))
    found.take("removed_staging_folders", _stages)
    found.take("removed_temporary_folders", lambda: remove_temporary(Path(tempfile.gettempdir())))
    return found


def _removed(root: Path, exec_id: str, found: Tidied) -> bool:
    """Whether a lost run that cannot be ended, mostly for want of room, could be removed."""
    try:
        remove(root, exec_id)
    except IsorunError as error:
        found.problems.append(str(error))
        return False
    found.gone["removed_runs"].append(exec_id)
    return True


def _containers(settings: Settings) -> list[str]:
    """The leases whose containers and folders were removed: of this root, and of each that a container names."""
    here = docker_state(settings)
    try:
        cli = DockerCli()
        states = {here, *container_lease.states(cli)}
        paths = HostPaths.discover(settings.host_paths() or None, cli, own_environment())
    except SandboxError:
        if container_lease.dead(here):
            raise  # something of theirs stays
        return []  # no engine, and nothing that says there ever was one
    left = [state for state in sorted(states) if container_lease.dead(state)]
    if not left:
        return []  # nor are the executor's ids asked for, which only the Docker backend needs
    ids = Identity.of_container(settings.executor_uid, settings.executor_gid)
    empty = container_lease.Emptier(cli, settings.image, (ids.uid, ids.gid), paths.translate)
    return [name for state in left for name in container_lease.recover(state, cli, None if ids.root else empty)]


def _stale_cgroups(settings: Settings) -> list[Path]:
    parent = cgroup.find_own_parent(str(settings.cgroup_parent) if settings.cgroup_parent else None)
    if isinstance(parent, cgroup.Refusal):
        return []
    try:
        return cgroup.remove_stale(parent)
    except OSError as error:
        raise CleanupFailed(f"a cgroup stays behind: {error}") from error


def _stages() -> list[str]:
    return [str(path) for place in staging_places() for path in remove_stages(place)]


def remove_stages(place: Path) -> list[Path]:
    """Remove this user's empty staging folders in *place* whose host is dead: what died with its mount namespace."""
    return list(_removed_by(Path.rmdir, place, STAGE))


def remove_temporary(place: Path) -> list[Path]:
    """Remove this user's folders in *place*, with all in them, of workers whose monitor is dead."""
    return list(_removed_by(shutil.rmtree, place, TEMPORARY))


def _removed_by(remove: Callable[[Path], object], place: Path, prefix: str) -> Iterator[Path]:
    for path in sorted(place.glob(f"{prefix}*")):
        owner = Owner.parse(path.name.removeprefix(prefix).rpartition("-")[0])
        if owner is None or owner.is_alive:
            continue
        with suppress(OSError):  # another user's, not a folder, not to be removed, or gone meanwhile
            if path.lstat().st_uid == os.geteuid():
                remove(path)
                yield path
