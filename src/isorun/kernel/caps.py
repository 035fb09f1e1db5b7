"""Giving up capabilities, and the other one-way switches of a process."""

import ctypes
import errno
from collections.abc import Collection

from isorun.kernel.libc import check, libc, prctl

_SET_DUMPABLE = 4
_CAPBSET_DROP = 24
_CAP_SYSLOG = 34  # every kernel that has user namespaces knows it
_SET_NO_NEW_PRIVS = 38
_CAP_AMBIENT = 47
_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522


def drop_all() -> None:
    """Empty the bounding, ambient, inheritable, permitted and effective sets. Nothing brings them back."""
    drop = libc.prctl
    for capability in range(64):
        if drop(_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL and capability > _CAP_SYSLOG:
                break  # past the kernel's last one
            check(-1, f"prctl(PR_CAPBSET_DROP, {capability})")
    prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    drop_held()


def keep_only(kept: Collection[int]) -> None:
    """Empty the five sets of all but *kept*, the bounding, permitted and effective ones; nothing brings others back.

    A capability in *kept* that this process does not hold is not gained. Who holds none is left alone: that
    process cannot empty its bounding set, and `no_new_privileges` keeps it from using that.
    """
    held = _held()
    if not held:
        return
    for capability in range(64):
        if capability not in kept and libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() == errno.EINVAL and capability > _CAP_SYSLOG:
                break  # past the kernel's last one
            check(-1, f"prctl(PR_CAPBSET_DROP, {capability})")
    prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    left = held & sum(1 << capability for capability in kept)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = left & 0xFFFFFFFF, left >> 32
    check(libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)), "capset")


def _held() -> int:
    """The permitted set."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm"))


def demand_none() -> None:
    """Raise OSError unless all five sets are empty already: who has no CAP_SETPCAP cannot empty the bounding set."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        held = [line.strip() for line in status if line.startswith("Cap") and int(line.split()[1], 16)]
    if held:
        raise OSError(errno.EPERM, f"this process holds capabilities: {', '.join(held)}")


def drop_held() -> None:
    """Empty the inheritable, permitted and effective sets: enough for a process that never executes."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def no_new_privileges() -> None:
    """From now on execve gives no privilege: setuid binaries run as the caller."""
    prctl(_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    """Whether processes of the same uid may trace this one and read its /proc entry."""
    prctl(_SET_DUMPABLE, int(dumpable))
