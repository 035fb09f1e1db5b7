"""The C library, and the one rule for its results: non-zero is an `OSError` that names the call."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def has_contexts(library: object = libc) -> bool:
    """Whether the C library can prepare a context to run: glibc can, musl has no makecontext."""
    return hasattr(library, "makecontext")


def check(result: int, call: str) -> int:
    """Return *result*, or raise `OSError` naming *call* if it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, arg2: int) -> int:
    """prctl(2), with every argument passed as an unsigned long; those behind *arg2* are 0."""
    words = map(ctypes.c_ulong, (arg2, 0, 0, 0))
    return check(libc.prctl(ctypes.c_int(option), *words), f"prctl({option})")
