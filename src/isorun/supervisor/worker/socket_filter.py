"""The seccomp filter of a worker that can make no socket.

socketpair(2) stays allowed, because event loops wake themselves with it; so do the sockets that the worker was given.
"""

import errno
import os
import struct

#: Of `uname -m`: the number that a filter sees, and those of socket(2); io_uring_setup(2) is the same everywhere.
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_IO_URING_SETUP = 425  # with it, sockets are made without socket(2)
_OTHER_ABI = 0x40000000  # x32's numbers begin there
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, RET|K
_NUMBER, _MACHINE = 0, 4  # offsets in struct seccomp_data
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
_ROW = struct.Struct("=HBBI")  # struct sock_filter


def build(machine: str = "") -> bytes:
    """The filter for `seccomp.load`. Raises `OSError` for a machine whose numbers are not known."""
    machine = machine or os.uname().machine
    if machine not in _MACHINES:
        raise OSError(errno.ENOTSUP, f"no filter is known for {machine}")
    audit, socket = _MACHINES[machine]
    rows = (
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 0, 5, audit),  # else refuse: calls of another machine have other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 3, 0, socket),
        (_EQUAL, 2, 0, _IO_URING_SETUP),
        (_AT_LEAST, 1, 0, _OTHER_ABI),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    )
    return b"".join(_ROW.pack(*row) for row in rows)
