"""The `work/` and `out/` of one container slot, on the daemon's host, sized where this process may mount.

Where isorun is root on the daemon's own machine, a slot's folder is a file system in
memory that holds the run's ceilings of bytes and inodes itself, and what a program
writes there is charged to its container. Elsewhere it is a folder of the disk, and
`WorkspaceWatch` ends a run that grows past them.
"""

import asyncio
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from isorun.core.errors import CleanupFailed, SetupFailed, Unavailable
from isorun.core.limits import Limits
from isorun.kernel import mounts
from isorun.kernel.libc import check, libc
from isorun.kernel.trees import remove_tree

PREFIX = "slot_"
_MNT_DETACH = 2
_LOOK_S = 0.05
_DEEPEST = 3800  # of a path's 4095 bytes, the next name's 255 taken off


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """The uid and gid of an executor container, on the host the same, and how its folders are given to it."""

    uid: int
    gid: int
    root: bool  # we are: the folders become the executor's; else it shares them by its group

    @classmethod
    def of_this_process(cls, uid: int, gid: int) -> "Ids":
        """Raises `Unavailable` if this process could not share a folder with that group."""
        root = os.geteuid() == 0
        if not root and gid not in {os.getegid(), *os.getgroups()}:
            raise Unavailable(
                f"the executor's group {gid} is none of yours, so it could not write its output: set "
                f"ISORUN_EXECUTOR_GID to one of your groups ({os.getegid()}), or run isorun as root"
            )
        return cls(uid=uid, gid=gid, root=root)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFolder:
    """`work` and `out` are open directories, `path` holds both."""

    path: Path
    work: int
    out: int
    is_sized: bool


@contextmanager
def slot_folder(slots: Path, limits: Limits, ids: Ids, *, may_mount: bool) -> Iterator[SlotFolder]:
    """A new one below *slots*; nothing of it is left behind the block. Raises `SetupFailed`, `CleanupFailed`."""
    path = slots / f"{PREFIX}{secrets.token_hex(8)}"
    opened: list[int] = []
    sized = False
    try:
        try:
            path.mkdir(mode=0o711 if ids.root else 0o710)
            sized = may_mount and _mounted(path, limits, ids)
            opened.append(_given(path / "work", ids))
            opened.append(_given(path / "out", ids))
        except OSError as error:
            raise SetupFailed("workspace", f"{path}: {error.strerror or error}") from error
        yield SlotFolder(path=path, work=opened[0], out=opened[1], is_sized=sized)
    finally:
        for descriptor in opened:
            os.close(descriptor)
        remove(path)


def _mounted(path: Path, limits: Limits, ids: Ids) -> bool:
    """Whether root may mount here: in a container it usually may not."""
    # Below the mount, too: a daemon that does not see it then shows these, and the size tells.
    for name in ("work", "out"):
        os.close(_given(path / name, ids))
    try:
        mounts.tmpfs(str(path), size=limits.workspace_bytes, inodes=limits.workspace_inodes + 3, mode=0o711)
    except PermissionError:
        return False
    return True


def _given(path: Path, ids: Ids) -> int:
    path.mkdir(mode=0o755, exist_ok=True)
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if ids.root:
        os.fchown(opened, ids.uid, ids.gid)
        os.fchmod(opened, 0o755)
    else:
        os.fchown(opened, -1, ids.gid)
        os.fchmod(opened, 0o2770)  # what is made in it belongs to the group
    return opened


def remove(path: Path) -> None:
    """Unmount and remove a slot's folder, ours or one that a dead host left. Raises `CleanupFailed`."""
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


class WorkspaceWatch:
    """Looks every 50 ms what a folder of the disk holds, and calls *over* once it is more than *limits* allow.

    It does not see a file that is unlinked and still open nor, if we are not root, what is in a folder that the program
    has made its own (mode 0700): only a sized file system (isorun as root) counts it.
    """

    def __init__(self, folder: SlotFolder, limits: Limits, over: Callable[[], None]) -> None:
        self._folder, self._limits, self._over = folder, limits, over
        self.full_bytes = self.full_inodes = False

    async def run(self) -> None:
        """Until it is cancelled, or a ceiling is passed."""
        while not await self.look():  # noqa: ASYNC110 - a file system tells nobody that it grows
            await asyncio.sleep(_LOOK_S)
        self._over()

    async def look(self) -> bool:
        """Whether a ceiling is passed, now or before."""
        used, inodes = await asyncio.to_thread(_held, (self._folder.work, self._folder.out))
        self.full_bytes |= used > self._limits.workspace_bytes
        self.full_inodes |= inodes > self._limits.workspace_inodes
        return self.full_bytes or self.full_inodes


def _held(directories: tuple[int, ...]) -> tuple[int, float]:
    """Bytes on the disk and inodes below them, no link followed; infinitely many of a tree too deep to be seen."""
    used, inodes = 0, 0.0
    waiting = [f"/proc/self/fd/{directory}" for directory in directories]
    while waiting:
        for entry in _entries(waiting.pop()):
            inodes += 1
            with suppress(OSError):  # the program works meanwhile
                found = entry.stat(follow_symlinks=False)
                used += found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(entry.path)
            if len(entry.path) > _DEEPEST:
                return used, inf
    return used, inodes


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    with suppress(OSError), os.scandir(folder) as entries:  # of one that is gone, or the program's own
        yield from entries
