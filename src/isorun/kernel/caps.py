"""Giving up capabilities, and the other one-way switches of a process."""

import ctypes

from isorun.kernel.libc import check, libc, prctl

_SET_DUMPABLE = 4
_CAPBSET_READ = 23
_CAPBSET_DROP = 24
_SET_NO_NEW_PRIVS = 38
_CAP_AMBIENT = 47
_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522


def drop_all() -> None:
    """Empty the bounding, ambient, inheritable, permitted and effective sets. Nothing brings them back."""
    for capability in range(64):
        if libc.prctl(_CAPBSET_READ, capability, 0, 0, 0) == 1:  # -1 past the kernel's last one
            prctl(_CAPBSET_DROP, capability)
    prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def no_new_privileges() -> None:
    """From now on execve gives no privilege: setuid binaries run as the caller."""
    prctl(_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    """Whether processes of the same uid may trace this one and read its /proc entry."""
    prctl(_SET_DUMPABLE, int(dumpable))
