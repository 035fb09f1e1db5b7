"""Opening files beneath a directory that a program owns and may change meanwhile.

The kernel refuses what leads out (`openat2` with RESOLVE_BENEATH) and every link; this
module decides neither which directory nor what is written. A thread can take a
program's file-system ids for the call: then it may do no more than the program may,
and a file system whose user namespace does not know root lets it write at all.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from isorun.kernel.libc import check, libc

_OPENAT2 = 437  # the same on every architecture
_HOW = struct.Struct("QQQ")  # flags, mode, resolve
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO in a file's place must not block us

_syscall = libc["syscall"]  # an object of our own: a restype on libc.syscall would be everybody's
_syscall.restype = ctypes.c_long


def open_beneath(directory: int, path: str, flags: int, mode: int = 0o644) -> int:
    """A descriptor of *path*, which is relative to *directory* and reached without any link. Raises OSError."""
    creating = flags & os.O_CREAT
    how = _HOW.pack(flags | _SAFE, mode if creating else 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV)
    opened = _syscall(
        _OPENAT2, ctypes.c_int(directory), ctypes.c_char_p(os.fsencode(path)), ctypes.c_char_p(how), _HOW.size
    )
    return check(opened, "openat2")


def make_folders(directory: int, path: str, mode: int = 0o755) -> None:
    """Make every folder of *path* beneath *directory* that is missing. Raises OSError."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        parent = "/".join(parts[: count - 1]) or "."
        above = open_beneath(directory, parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(FileExistsError):
                os.mkdir(parts[count - 1], mode, dir_fd=above)
        finally:
            os.close(above)


@contextmanager
def acting_as(ids: tuple[int, int] | None) -> Iterator[None]:
    """Use the uid and gid *ids* for what this thread does with files, inside the block; None changes nothing.

    The kernel takes root's rights over files away with its file-system uid, and gives them back with it.
    Raises `PermissionError` if this process may not take them.
    """
    if ids is None:
        yield
        return
    uid, gid = ids
    gid_before = libc.setfsgid(ctypes.c_uint(gid))
    uid_before = libc.setfsuid(ctypes.c_uint(uid))
    try:
        # The calls report no failure: they return the id before, so they are asked once more.
        if libc.setfsuid(ctypes.c_uint(uid)) != uid or libc.setfsgid(ctypes.c_uint(gid)) != gid:
            raise PermissionError(errno.EPERM, f"the file-system ids {uid}:{gid} cannot be taken")
        yield
    finally:
        libc.setfsuid(ctypes.c_uint(uid_before))
        libc.setfsgid(ctypes.c_uint(gid_before))
