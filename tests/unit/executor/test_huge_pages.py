"""Huge pages under memory that is there: what is in it stays, and a kernel without them changes nothing."""

import ctypes
import mmap
import re
from pathlib import Path

import pytest

from isorun.executor.warm import huge_pages
from isorun.kernel.libc import libc
from tests.unit.forked import in_child

_HUGE = 2 << 20


def _huge_kb() -> int:
    found = re.search(r"^AnonHugePages: +([0-9]+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _filled() -> mmap.mmap:
    """Eight megabytes in small pages, each page with a number in it."""
    area = mmap.mmap(-1, 4 * _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, len(area), mmap.PAGESIZE):
        area[at] = at // mmap.PAGESIZE % 251
    area.madvise(mmap.MADV_HUGEPAGE)
    return area


def _can_collapse() -> bool:
    area = _filled()
    start = -(-ctypes.addressof(ctypes.c_char.from_buffer(area)) // _HUGE) * _HUGE
    return bool(libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(_HUGE), 25) == 0)


def test_memory_is_collapsed_and_keeps_its_content() -> None:
    """What was in small pages is in huge ones, byte for byte, where the kernel can do that at all."""

    def collapsed() -> tuple[bool, int, int]:
        can, area = _can_collapse(), _filled()
        before = _huge_kb()
        huge_pages.collapse()
        gained = _huge_kb() - before
        return can, gained, sum(area[at] != at // mmap.PAGESIZE % 251 for at in range(0, len(area), mmap.PAGESIZE))

    can, gained, wrong = in_child(collapsed)
    assert wrong == 0
    assert (gained >= 3 * _HUGE // 1024) == can


@pytest.mark.parametrize("advice", [255, 100])
def test_a_kernel_without_it_changes_nothing(advice: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An advice that the kernel does not know is refused by it, which nobody hears of."""
    assert libc.madvise(None, 0, advice) == -1  # the control: it is unknown here
    monkeypatch.setattr(huge_pages, "_COLLAPSE", advice)
    huge_pages.collapse()
