"""A process that is not an interpreter: cloned from one, it makes three C calls and sleeps for ever.

A forked Python process that does next to nothing still touches some 400 pages, each
a fault and a copy, and keeps them. This child never runs a line of Python: clone(2)
starts it in `setcontext`, which leads it through a chain of prepared calls. Each
context returns into the next one; the last is `pause`, and leads back to itself.

Needs glibc (musl has no makecontext). What the calls achieved is not reported from
inside: whoever relies on it reads /proc/<pid>/status.
"""

import ctypes
import os
import platform
import signal

from isorun.kernel.libc import check, libc

_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_CLOSE_RANGE = 436
_CAPABILITY_VERSION_3 = 0x20080522
_CONTEXT = 8192  # ucontext_t is 968 bytes on x86_64, 4560 on aarch64
_STACK = 65536


class _Head(ctypes.Structure):
    """How ucontext_t begins on every Linux; the registers that follow are makecontext's."""

    _fields_ = (
        ("flags", ctypes.c_ulong),
        ("link", ctypes.c_void_p),
        ("stack", ctypes.c_void_p),
        ("stack_flags", ctypes.c_int),
        ("stack_size", ctypes.c_size_t),
    )


class IdleProcess:
    """Prepared once; `clone` makes as many children as are wanted, each with a copy of it."""

    def __init__(self) -> None:
        self._kept: list[object] = []  # what the contexts point to
        header = self._keep((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0))
        nothing = self._keep((ctypes.c_uint32 * 6)())
        number = _SYS_CAPSET[platform.machine()]
        sleep = self._context("pause", ())
        _Head.from_address(sleep).link = sleep
        close = self._context("syscall", (_SYS_CLOSE_RANGE, 0, 0xFFFFFFFF, 0), sleep)
        self._first = self._context("syscall", (number, header, nothing), close)
        self._stack_end = self._keep(ctypes.create_string_buffer(_STACK)) + _STACK - 128
        self._stack_end -= self._stack_end % 16  # the ABI's alignment

    def _keep(self, thing: "ctypes.Array[ctypes.c_uint32] | ctypes.Array[ctypes.c_char]") -> int:
        self._kept.append(thing)
        return ctypes.addressof(thing)

    def _context(self, function: str, arguments: tuple[int, ...], link: int | None = None) -> int:
        address = self._keep(ctypes.create_string_buffer(_CONTEXT + 64))
        address += -address % 64
        check(libc.getcontext(ctypes.c_void_p(address)), "getcontext")
        head = _Head.from_address(address)
        head.link = link
        head.stack = self._keep(ctypes.create_string_buffer(_STACK))
        head.stack_size = _STACK
        longs = [ctypes.c_long(argument) for argument in arguments]
        libc.makecontext(ctypes.c_void_p(address), getattr(libc, function), len(longs), *longs)
        return address

    def clone(self, flags: int) -> int:
        """The pid of a new child in the new namespaces *flags*; it ends when it is killed.

        It inherits this process's ignored signals and whether it is dumpable. When this
        returns it has given up every capability that its namespaces gave it, and then
        closed every descriptor.
        """
        closed, held = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                pid = self._cloned(flags)
            finally:
                os.close(held)
            os.read(closed, 1)  # returns, with nothing, when the child's copy is closed too
        finally:
            os.close(closed)
        return pid

    def _cloned(self, flags: int) -> int:
        pid = int(
            libc.clone(
                libc.setcontext,
                ctypes.c_void_p(self._stack_end),
                ctypes.c_int(ctypes.c_uint(flags | signal.SIGCHLD).value),
                ctypes.c_void_p(self._first),
            )
        )
        if pid < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"clone({flags:#x}): {os.strerror(number)}")
        return pid
