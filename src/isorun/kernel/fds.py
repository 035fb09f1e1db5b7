"""Descriptors: which ones a process keeps, and passing them with the sender's identity."""

import array
import ctypes
import os
import socket
import struct

from isorun.kernel.libc import check, libc

_UCRED = struct.Struct("3i")  # pid, uid, gid, translated by the kernel for the receiver
_SYS_CLOSE_RANGE = 436  # the same on every architecture; glibc 2.33 and older have no wrapper
_LAST = (1 << 31) - 1  # no descriptor is larger, and gVisor takes no larger number


def keep_only(wanted: dict[int, int]) -> None:
    """Move descriptors so that number -> source of *wanted* holds, and close every other one.

    Sources are first moved out of the way, so that no target overwrites a source that is still needed.
    """
    highest = max(wanted, default=0)
    in_the_way = any(source <= highest for source in wanted.values())
    moved = {t: _duplicate_above(s, highest + 64) for t, s in wanted.items()} if in_the_way else wanted
    for target, source in moved.items():
        os.dup2(source, target, inheritable=target <= 2)
    previous = -1
    for target in sorted(moved):
        _close_range(previous + 1, target - 1)
        previous = target
    _close_range(previous + 1, _LAST)


def receive(channel: socket.socket, size: int, most: int = 8) -> tuple[bytes, list[int], int | None]:
    """One recvmsg: the bytes, the descriptors that came along (close-on-exec), and the sender's pid.

    The pid is there if the socket has SO_PASSCRED; the kernel wrote it, the sender cannot lie.
    """
    space = socket.CMSG_SPACE(most * 4) + socket.CMSG_SPACE(_UCRED.size)
    data, ancillary, flags, _ = channel.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    pid = None
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            descriptors.extend(numbers)
        elif kind == socket.SCM_CREDENTIALS:
            pid = _UCRED.unpack(payload[: _UCRED.size])[0]
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(f"more than {most} descriptors in one message")
    return data, descriptors, pid


def _close_range(first: int, last: int) -> None:
    if first <= last:
        check(libc.syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), 0), "close_range")


def _duplicate_above(source: int, lowest: int) -> int:
    import fcntl  # not on every system that may import isorun

    return fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, lowest)
