"""Loading a seccomp filter that somebody else built. It decides nothing about its content."""

import ctypes
import errno

from isorun.kernel.libc import check, libc

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION = 8  # bytes of one struct sock_filter
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class _Program(ctypes.Structure):  # struct sock_fprog
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def load(program: bytes) -> None:
    """Put *program* (raw classic BPF) over the calling thread and all that it starts, for ever.

    Raises OSError: EACCES without no_new_privs, EINVAL for bytes that are no
    filter. Other threads of the process are not covered, so load before any.
    """
    count, rest = divmod(len(program), _INSTRUCTION)
    if rest or not 0 < count <= _MAX_INSTRUCTIONS:
        # The kernel sees the count alone, 16 bits wide: a wrapped one would load a part of the filter.
        raise OSError(errno.EINVAL, f"not a seccomp filter: {len(program)} bytes")
    # prctl and not seccomp(2): a filter that stands already may refuse the latter.
    filter_ = _Program(count, program)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    check(libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(filter_)), "prctl(PR_SET_SECCOMP)")
