"""What the host does for a dead run, in threads beside its loop: a small run never waits for a large one.

There are two lanes. A run that left much behind has a thread of few, and waits for others that did, too. What is
of the usual size goes at once. What takes less than a thread's wake-up, which is a part of a millisecond, is done
in the loop itself (`is_slight`). Which it is, is asked of the file system and of what was printed, before anything
is read.

Such threads take the interpreter from the loop, which has to wait for it each time it wakes,
5 ms by default. So threads of this process change places ten times as often from the first
Runtime on. It is not undone: another Runtime, or the caller, may have asked for the same since.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from isorun.core.pace import pace_this_thread

_T = TypeVar("_T")
_LARGE_AT_ONCE = 2
_SWITCH_S = 0.0005
_SMALL_FILES = 200
_SMALL_BYTES = 4 << 20
_SMALL_OUTPUT = 256 << 10
_SLIGHT_FILES = 24  # of them a dozen are the program's and the loader's own
_SLIGHT_BYTES = 256 << 10
_SLIGHT_OUTPUT = 16 << 10


def is_large(out: os.statvfs_result, printed: int) -> bool:
    """Whether a run with such an `out/`, which printed so many bytes, left more behind than is usual."""
    files = out.f_files - out.f_ffree
    used = (out.f_blocks - out.f_bfree) * out.f_frsize
    return files > _SMALL_FILES or used > _SMALL_BYTES or printed > _SMALL_OUTPUT


def is_slight(out: os.statvfs_result, printed: int) -> bool:
    """Whether a run left so little that taking it costs the loop about a millisecond, and no thread is worth it."""
    files = out.f_files - out.f_ffree
    used = (out.f_blocks - out.f_bfree) * out.f_frsize
    return files <= _SLIGHT_FILES and used <= _SLIGHT_BYTES and printed <= _SLIGHT_OUTPUT


class Aside:
    """The lanes of one Runtime, which has as many runs under way as *runs* says. Left, it waits for what is being done.

    While other runs are under way, what is done for large ones is done in turns (`core.pace`).
    """

    def __init__(self, runs: Callable[[], int]) -> None:
        self._runs, self._in_large = runs, 0
        pace = partial(pace_this_thread, lambda: self._runs() > self._in_large)
        self._large = ThreadPoolExecutor(_LARGE_AT_ONCE, thread_name_prefix="isorun-large", initializer=pace)

    async def __aenter__(self) -> "Aside":
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._large.shutdown)

    async def do(self, work: Callable[..., _T], *args: Any, large: bool) -> _T:  # noqa: ANN401 - whatever *work* takes
        """The result of *work*, done in a thread."""
        if not large:
            return await asyncio.to_thread(work, *args)
        self._in_large += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._large, work, *args)
        finally:
            self._in_large -= 1


async def in_thread(work: Callable[[], _T]) -> _T:
    """The result of *work*, done in a thread; a cancellation waits for its end, so that no lock is freed beneath it."""
    return await to_its_end(asyncio.to_thread(work))


async def to_its_end(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of *work*, whose end a cancellation waits for."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        task.cancelled() or task.exception()
        raise
