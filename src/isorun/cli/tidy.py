"""What `isorun cleanup` does: each kind of leftover, and the proof that nobody owns it any more."""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from isorun.backends.jail import STAGE, staging_places
from isorun.core.errors import CleanupFailed
from isorun.kernel import cgroup
from isorun.runtime.folder import open_root
from isorun.runtime.recovery import recover, sweep
from isorun.settings import Settings, get_exec_workspace_root

_STARTING_S = 60.0  # between the making of a staging folder and the process that names it


def tidy(settings: Settings, *, hours: float) -> dict[str, list[str]]:
    """End lost runs, remove those older than *hours*, and what dead hosts left; the names of all of it."""
    root = open_root(get_exec_workspace_root(settings))
    lost = recover(root)
    return {
        "lost_runs": lost,
        "removed_runs": sweep(root, older_than_s=hours * 3600, now=time.time()),
        "removed_cgroups": _stale_cgroups(settings),
        "removed_staging_folders": remove_all_stages(staging_places(), list(_command_lines()), time.time()),
    }


def _stale_cgroups(settings: Settings) -> list[str]:
    parent = cgroup.find_own_parent(str(settings.cgroup_parent) if settings.cgroup_parent else None)
    if isinstance(parent, cgroup.Refusal):
        return []
    try:
        return [str(path) for path in cgroup.remove_stale(parent)]
    except OSError as error:
        raise CleanupFailed(f"a cgroup stays behind: {error}") from error


def remove_all_stages(folders: Iterable[Path], command_lines: Sequence[bytes], now: float) -> list[str]:
    """As `remove_stages`, in each of *folders*: the place depends on what root's TMPDIR was."""
    return [path for folder in folders for path in remove_stages(folder, command_lines, now)]


def remove_stages(folder: Path, command_lines: Iterable[bytes], now: float) -> list[str]:
    """Remove the empty staging folders of this user that no process names; their paths.

    A jail of root mounts into such a folder in a mount namespace of its own, so to us it
    is empty, and the command line of the jail names it for as long as it lives.
    """
    named = b"\0".join(command_lines)
    gone = []
    for path in sorted(folder.glob(f"{STAGE}*")):
        with suppress(OSError):  # another user's, not a folder, not empty, or gone meanwhile
            found = path.lstat()
            fresh = now - found.st_mtime < _STARTING_S
            if found.st_uid == os.geteuid() and not fresh and os.fsencode(path) not in named:
                path.rmdir()
                gone.append(str(path))
    return gone


def _command_lines() -> Iterable[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()
