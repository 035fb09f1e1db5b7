"""Everything that waits to be written to one file system, written: syncfs."""

import ctypes

from isorun.kernel.libc import check, libc


def flush_file_system(fd: int) -> None:
    """Return once all data of the file system that *fd* lies on is on the disk. Raises OSError."""
    check(libc.syncfs(ctypes.c_int(fd)), "syncfs")
