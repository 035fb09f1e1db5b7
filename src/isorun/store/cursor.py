"""Moves through a folder that may have been made to harm its reader.

One descriptor goes down by `openat` without following links, and up by `..`, checked
against what was there on the way down: any depth costs one descriptor and no recursion.
It opens regular files and folders, and never decides what becomes of them.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from isorun.core.contract.items import MAX_PART_BYTES, MAX_PATH_BYTES
from isorun.core.text import has_control

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = _READ | os.O_DIRECTORY
FILE = _READ | os.O_NONBLOCK  # a FIFO that took a file's place must not block the reader
KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Cursor:
    """One descriptor that moves through a tree, so that no depth can exhaust them. Owns *fd*."""

    def __init__(self, fd: int, enter: Callable[[bytes, int], int]) -> None:
        self.fd = fd
        self.device = os.fstat(fd).st_dev
        self._enter = enter
        self._names: list[bytes] = []
        self._above: list[tuple[int, int]] = []  # device and inode of every folder we came through

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)

    def go(self, folder: bytes) -> None:
        """Move to *folder*, relative to the root. After an error the cursor is where it got to."""
        wanted = folder.split(b"/") if folder else []
        shared = 0
        for ours, theirs in zip(self._names, wanted, strict=False):
            if ours != theirs:
                break
            shared += 1
        while len(self._names) > shared:
            self._up()
        for name in wanted[shared:]:
            self._down(name)

    def names(self, most: int | None = None) -> list[bytes]:
        """The first *most* names of this folder, sorted, as the kernel holds them."""
        with os.scandir(self.fd) as entries:
            return sorted(os.fsencode(entry.name) for entry in islice(entries, most))

    def _down(self, name: bytes) -> None:
        here = os.fstat(self.fd)
        below = self._enter(name, self.fd)
        os.close(self.fd)
        self.fd = below
        self._names.append(name)
        self._above.append((here.st_dev, here.st_ino))

    def _up(self) -> None:
        above = os.open("..", FOLDER, dir_fd=self.fd)
        info = os.fstat(above)
        if (info.st_dev, info.st_ino) != self._above[-1]:
            os.close(above)
            raise OSError(errno.ESTALE, "the tree changed while it was read", os.fsdecode(self._names[-1]))
        os.close(self.fd)
        self.fd = above
        self._names.pop()
        self._above.pop()


def name_fault(path: bytes, name: bytes) -> str | None:
    if len(name) > MAX_PART_BYTES or len(path) > MAX_PATH_BYTES:
        return f"is {len(path)} bytes long; the limits are {MAX_PART_BYTES} a part and {MAX_PATH_BYTES} in all"
    if not _is_utf8(name):
        return "the name is not UTF-8"
    if has_control(name.decode()):
        return "the name holds a control character"
    return None


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def open_root(fd: int) -> int:
    """A descriptor of our own for the folder *fd*, made readable; the caller's stays as it was."""
    if os.fstat(fd).st_mode & 0o500 != 0o500:
        Path(f"/proc/self/fd/{fd}").chmod(0o700)  # the program may shut the folder itself
    return os.open(".", FOLDER, dir_fd=fd)


def _unlock(name: bytes, dir_fd: int, mode: int) -> None:
    """Give its owner, who we are, the right to read *name*; a link is not followed."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            Path(f"/proc/self/fd/{handle}").chmod(mode)  # there is no fchmod for O_PATH
    finally:
        os.close(handle)


def open_file(name: bytes, dir_fd: int) -> int:
    try:
        return os.open(name, FILE, dir_fd=dir_fd)
    except PermissionError:
        _unlock(name, dir_fd, 0o600)
        return os.open(name, FILE, dir_fd=dir_fd)


def enter_unlocked(name: bytes, dir_fd: int) -> int:
    """A folder of the program's, opened and made readable and searchable."""
    try:
        folder = os.open(name, FOLDER, dir_fd=dir_fd)
    except PermissionError:
        _unlock(name, dir_fd, 0o700)
        folder = os.open(name, FOLDER, dir_fd=dir_fd)
    try:
        if os.fstat(folder).st_mode & 0o500 != 0o500:
            os.fchmod(folder, 0o700)
    except OSError:
        os.close(folder)
        raise
    return folder


def enter(name: bytes, dir_fd: int) -> int:
    return os.open(name, FOLDER, dir_fd=dir_fd)


def enter_made(name: bytes, dir_fd: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=dir_fd)
    return enter(name, dir_fd)


def by_fd(fd: int) -> Path:
    """A path of the folder *fd* that no rename can turn elsewhere, while it is open in this process."""
    return Path(f"/proc/self/fd/{fd}")
