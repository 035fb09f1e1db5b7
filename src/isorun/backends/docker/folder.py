"""The folder of a container slot on this host, and what a run's own folders are given."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isorun.backends.executor_ids import Identity
from isorun.core.errors import CleanupFailed
from isorun.kernel.libc import check, libc
from sandbox_runner.linux.trees import remove_tree

PREFIX = "slot_"
_MNT_DETACH = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFolder:
    """`work` and `out` are open directories, `path` holds both."""

    path: Path
    work: int
    out: int


def given(name: str, parent: int, ids: Identity) -> int:
    """The folder *name* of the open *parent*, made if need be, and the executor's to write; opened."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    opened = os.open(name, _FOLDER, dir_fd=parent)
    if ids.root:
        os.fchown(opened, ids.uid, ids.gid)
        os.fchmod(opened, 0o755)
    else:
        os.fchown(opened, -1, ids.gid)
        os.fchmod(opened, 0o2770)  # what is made in it belongs to the group
    return opened


def remove(path: Path) -> None:
    """Unmount and remove a slot's folder, ours or a dead host's. Raises `CleanupFailed`."""
    if not path.exists():
        return
    if os.path.ismount(path):
        try:
            check(libc.umount2(os.fsencode(path), _MNT_DETACH), f"umount {path}")
        except OSError as error:
            raise CleanupFailed(f"{path} stays mounted: {error.strerror or error}") from error
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(path.name, parent)
    except OSError as error:
        raise CleanupFailed(f"{path} stays behind: {error.strerror or error}; remove it as root") from error
    finally:
        os.close(parent)
