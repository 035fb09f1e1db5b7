"""Landlock: which files a process and its descendants may reach, beneath what mounts already say.

Raw system calls, because it runs in a slot, once per slot. It grants what it is
told and decides no paths.

What it adds to read-only mounts: a path that was forgotten in the mount plan is
not reachable; no device can be made; device ioctls are refused (ABI 5); TCP is
refused (ABI 4) unless it is wanted; abstract sockets and signals stay among the processes of the
same run (ABI 6), so the run's init, which is not restricted, cannot be
signalled. On ABI 1 the kernel also refuses every rename and link from one
directory to another (EXDEV).
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

from isorun.kernel.libc import check, libc

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_NEWEST = 7  # the last ABI that this module was written for

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # all else is for directories
# All rights on files that the ABI of this index knows: REFER came with 2, TRUNCATE with 3, IOCTL_DEV with 5.
_FS_RIGHTS = (0, 0x1FFF, 0x3FFF, 0x7FFF, 0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF)
_TCP_BIND_AND_CONNECT = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3

_READ_ONLY = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICE = _READ_FILE | _WRITE_FILE
_NO_DEVICES = ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)

_syscall = libc["syscall"]  # an object of our own: a restype on libc.syscall would be everybody's
_syscall.restype = ctypes.c_long


def abi() -> int:
    """The Landlock ABI of the running kernel; 0 if it has none, has it off, or an outer sandbox hides it."""
    version: int = _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))
    if version >= 0:
        return version
    if ctypes.get_errno() in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        return 0
    return check(version, "landlock_create_ruleset")


def restrict(read_only: Iterable[str], read_write: Iterable[str], *, devices: Iterable[str], tcp: bool = False) -> int:
    """Restrict the calling thread, for ever, to these trees (or single files) and device nodes.

    `read_only`: read and execute. `read_write`: everything but making devices.
    `devices`: read and write, no ioctl. `tcp`: it may bind and connect. A path is bound to the file that it names
    now, so call it after the mounts are made, and after no_new_privs. Returns
    the ABI that was used; 0 means that nothing was done. Raises OSError, also
    for a path that is not there.
    """
    used = min(abi(), _NEWEST)
    if used == 0:
        return 0
    handled = _FS_RIGHTS[used]
    ruleset = _create(used, handled, tcp)
    try:
        for rights, paths in (
            (_READ_ONLY, read_only),
            (handled & _NO_DEVICES, read_write),
            (_DEVICE, devices),
        ):
            for path in paths:
                _allow(ruleset, path, rights)
        check(_syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint(0)), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return used


def _create(used: int, handled: int, tcp: bool) -> int:
    attributes = struct.pack("=Q", handled)
    if used >= 4:
        attributes += struct.pack("=Q", 0 if tcp else _TCP_BIND_AND_CONNECT)
    if used >= 6:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    size = ctypes.c_size_t(len(attributes))
    return check(_syscall(_CREATE_RULESET, attributes, size, ctypes.c_uint(0)), "landlock_create_ruleset")


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, fd)  # packed in the kernel's header too
        added = _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, ctypes.c_uint(0))
        check(added, f"landlock_add_rule({path})")
    finally:
        os.close(fd)
