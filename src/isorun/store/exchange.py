"""Two names of one file system that trade places in one step: renameat2 with RENAME_EXCHANGE.

A reader sees the one folder or the other, at every moment at which this process is killed.
"""

import ctypes
import errno
import os

from isorun.kernel.libc import check, libc

_RENAME_EXCHANGE = 2
#: For a C library without a wrapper (glibc before 2.28, musl before 1.2.5).
_SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "riscv64": 276}


def exchange(one: str, other: str, *, one_dir_fd: int, other_dir_fd: int) -> None:
    """Let the names *one* and *other* trade what they name. Links are traded, not followed.

    Raises `OSError`: EOPNOTSUPP and a text that says so if the file system or the kernel
    cannot do it (then nothing was changed), else what the kernel says.
    """
    arguments = (
        ctypes.c_int(one_dir_fd),
        ctypes.c_char_p(os.fsencode(one)),
        ctypes.c_int(other_dir_fd),
        ctypes.c_char_p(os.fsencode(other)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    try:
        check(_renameat2(*arguments), "renameat2(RENAME_EXCHANGE)")
    except OSError as exc:
        # EINVAL: the file system does not know the flag; ENOSYS: the kernel does not know the call.
        if exc.errno in (errno.EINVAL, errno.ENOSYS):
            raise OSError(errno.EOPNOTSUPP, "this file system cannot exchange two folders in one step") from exc
        raise


def _renameat2(*arguments: object) -> int:
    if hasattr(libc, "renameat2"):
        return int(libc.renameat2(*arguments))
    number = _SYS_RENAMEAT2.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"renameat2 has no known number on {os.uname().machine}")
    return int(libc.syscall(ctypes.c_long(number), *arguments))
