"""Huge pages under this process's own memory: fewer entries for a fork to copy, and for a child's end to undo."""

import ctypes

from isorun.kernel.libc import libc

_HUGE = 2 << 20  # bytes, on x86-64, and on aarch64 with pages of 4 KB; elsewhere the kernel refuses, or rounds
_COLLAPSE = 25  # MADV_COLLAPSE, Linux 6.1


def collapse() -> None:
    """Ask for them under the heap and what is mapped without a file. A favour: a kernel that has none says no."""
    for start, end in _private():
        first, last = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
        if first < last:
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _COLLAPSE)


def _private() -> list[tuple[int, int]]:
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            place, rights, _, _, _, *name = line.split(None, 5)
            if rights == "rw-p" and (not name or name[0].strip() in ("", "[heap]")):
                start, end = place.split("-")
                found.append((int(start, 16), int(end, 16)))
    return found
