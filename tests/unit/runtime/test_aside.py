"""The two lanes of what the host does for dead runs."""

import asyncio
import os
import sys
import threading

import pytest

from isorun.core import pace
from isorun.core.limits import KIB, MIB
from isorun.runtime.aside import Aside, is_large, is_slight
from tests.unit.clock import Clock


def statvfs(*, files: int = 10, used: int = 4096) -> os.statvfs_result:
    """A file system of 1 GiB and 10,000 inodes of which so much is used."""
    blocks = (1 << 30) // 4096
    free = blocks - used // 4096
    return os.statvfs_result((4096, 4096, blocks, free, free, 10_000, 10_000 - files, 10_000 - files, 0, 255))


@pytest.mark.parametrize(
    ("out", "printed", "large"),
    [
        (statvfs(), 1000, False),
        (statvfs(files=5000), 0, True),
        (statvfs(used=100 * MIB), 0, True),
        (statvfs(), MIB, True),
    ],
)
def test_what_is_large_is_told_before_it_is_read(out, printed, large) -> None:
    """By the number of files, by their bytes, or by what was printed."""
    assert is_large(out, printed) is large


async def test_a_small_run_does_not_wait_for_large_ones() -> None:
    """More large ones than there are threads of any kind: the small one is done while none of them is."""
    release = threading.Event()
    async with Aside(lambda: 1) as aside:
        large = [asyncio.ensure_future(aside.do(release.wait, 30, large=True)) for _ in range(100)]
        try:
            async with asyncio.timeout(20):
                assert await aside.do(lambda: "small", large=False) == "small"
            assert not any(task.done() for task in large)
        finally:
            release.set()
        assert all(await asyncio.gather(*large))


@pytest.mark.parametrize(("runs", "large", "rests"), [(1, True, False), (2, True, True), (2, False, False)])
async def test_a_large_run_rests_while_others_are_under_way(monkeypatch, runs: int, large: bool, rests: bool) -> None:
    """It is alone among as many runs as there are large ones; a small run has no rests."""
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    async with Aside(lambda: runs) as aside:
        await aside.do(clock.work, 100, 0.001, large=large)
    assert bool(clock.slept) is rests


async def test_the_loop_has_the_interpreter_back_soon() -> None:
    """Threads change places every half millisecond, and more often if the caller wants it so."""
    before = sys.getswitchinterval()
    try:
        for wanted, found in [(0.005, 0.0005), (0.0001, 0.0001)]:
            sys.setswitchinterval(wanted)
            async with Aside(lambda: 1):
                assert sys.getswitchinterval() == pytest.approx(found, abs=2e-6)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("out", "printed", "slight"),
    [
        (statvfs(), 1000, True),
        (statvfs(files=100), 0, False),
        (statvfs(used=MIB), 0, False),
        (statvfs(), 64 * KIB, False),
    ],
)
def test_what_is_slight_takes_no_thread(out, printed, slight) -> None:
    """A usual run is neither large nor slight."""
    assert is_slight(out, printed) is slight
    assert not is_large(out, printed)
