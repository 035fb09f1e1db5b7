"""What an idle process is not given of its parent's memory."""

import ctypes
import mmap
import os
import re
from pathlib import Path

import pytest

from isorun.kernel.libc import libc
from isorun.kernel.processes import idle

PAGE = mmap.PAGESIZE


def flags_at(address: int) -> list[str]:
    """The kernel's word on the mapping that holds *address*."""
    for text in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)[1:]:
        low, high = (int(end, 16) for end in text.split(None, 1)[0].split("-"))
        if low <= address < high:
            return text.rpartition("VmFlags:")[2].split()
    return []


def test_memory_that_was_given_back_since_it_was_listed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an arena of the interpreter may be, by what reads the list. All the rest is kept from a child."""
    libc.mmap.restype = ctypes.c_void_p
    start = libc.mmap(None, ctypes.c_size_t(64 * PAGE), 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0))
    size, middle = ctypes.c_size_t(32 * PAGE), ctypes.c_void_p(start + 16 * PAGE)
    try:
        assert libc.munmap(middle, size) == 0
        monkeypatch.setattr(idle, "_big_mappings", lambda: [(start, start + 64 * PAGE)])
        idle.IdleProcess().keep_memory_to_ourselves()
        assert "dc" in flags_at(start)
        assert "dc" in flags_at(start + 63 * PAGE)
        assert flags_at(start + 32 * PAGE) == []
    finally:
        libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(64 * PAGE))


def test_any_other_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a child would have is not passed over."""
    monkeypatch.setattr(idle, "_big_mappings", lambda: [(1, PAGE + 1)])  # not at a page: EINVAL
    with pytest.raises(OSError, match=r"madvise\(MADV_DONTFORK\): " + os.strerror(22)):
        idle.IdleProcess().keep_memory_to_ourselves()
