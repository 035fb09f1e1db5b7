"""A process that is not an interpreter: cloned from one, it makes three C calls and sleeps for ever.

A forked Python process that does next to nothing still touches some 400 pages, each
a fault and a copy, and keeps them. This child never runs a line of Python: clone(2)
starts it in `setcontext`, which leads it through a chain of prepared calls. Each
context returns into the next one; the last is `pause`, and leads back to itself.

Needs glibc (musl has no makecontext). What the calls achieved is not reported from
inside: whoever relies on it reads /proc/<pid>/status.
"""

import ctypes
import errno
import mmap
import os
import signal

from isorun.kernel.libc import check, libc

_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_CLOSE_RANGE = 436
_CAPABILITY_VERSION_3 = 0x20080522
_CONTEXT = 8192  # ucontext_t is 968 bytes on x86_64, 4560 on aarch64
_STACK = 16384
_MEMORY = 4 * _STACK + 3 * _CONTEXT + 4096
_BIG = 128 << 10  # smaller mappings belong to the C library and the linker
_AROUND = 16384


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
        # One mapping for all that a child touches: nothing else of ours has to be copied for it.
        self._memory = mmap.mmap(-1, _MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._used = 0
        header, nothing = self._take(8), self._take(24)
        ctypes.c_uint32.from_address(header).value = _CAPABILITY_VERSION_3
        sleep = self._context("pause", ())
        _Head.from_address(sleep).link = sleep
        close = self._context("syscall", (_SYS_CLOSE_RANGE, 0, 0xFFFFFFFF, 0), sleep)
        number = _SYS_CAPSET[os.uname().machine]
        self._first = self._context("syscall", (number, header, nothing), close)
        self._stack_end = self._take(_STACK) + _STACK - 128

    def _take(self, size: int) -> int:
        address = self._start + self._used
        self._used += size + -size % 64
        if self._used > _MEMORY:
            raise MemoryError("the memory of an idle process is too small")
        return address

    def _context(self, function: str, arguments: tuple[int, ...], link: int | None = None) -> int:
        address = self._take(_CONTEXT)
        check(libc.getcontext(ctypes.c_void_p(address)), "getcontext")
        head = _Head.from_address(address)
        head.link = link
        head.stack = self._take(_STACK)
        head.stack_size = _STACK
        longs = [ctypes.c_long(argument) for argument in arguments]
        libc.makecontext(ctypes.c_void_p(address), getattr(libc, function), len(longs), *longs)
        return address

    def keep_memory_to_ourselves(self) -> None:
        """Leave this process's heap out of every child from now on.

        A child neither needs it nor may read it, and each page that both have would be
        copied by the first to write: by us, for every child. Call it once nothing else
        will be forked.
        """
        libc.pthread_self.restype = ctypes.c_void_p
        thread = libc.pthread_self()  # its surroundings hold errno and the stack guard
        needed = ((self._start, self._start + _MEMORY), (thread - _AROUND, thread + _AROUND))
        for start, end in _big_mappings():
            for first, last in _without(start, end, needed):
                result = libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTFORK)
                # A part may be given back since it was listed: the kernel says so, and advises all the rest.
                if result and ctypes.get_errno() != errno.ENOMEM:
                    check(result, "madvise(MADV_DONTFORK)")

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


def _big_mappings() -> list[tuple[int, int]]:
    """Private anonymous memory in large pieces: the heap and the interpreter's arenas."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in file]
    found = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines if _is_heap(line)]
    return [(start, end) for start, end in found if end - start >= _BIG]


def _is_heap(line: list[str]) -> bool:
    return line[1] == "rw-p" and (len(line) == 5 or line[5] == "[heap]")


def _without(start: int, end: int, needed: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """The parts of [start, end) that lie outside of every one of *needed*, in whole pages."""
    parts = [(start, end)]
    for low, high in needed:
        low, high = low - low % mmap.PAGESIZE, high + -high % mmap.PAGESIZE
        parts = [
            piece
            for first, last in parts
            for piece in ((first, min(last, low)), (max(first, high), last))
            if piece[0] < piece[1]
        ]
    return parts
