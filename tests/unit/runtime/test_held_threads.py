"""The threads in which a run's plain functions answer its held calls: each is used again, also if it was abandoned."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest

from isorun.runtime.held.calls import _MAX_ABANDONED, _Left, _Refused, _Threads

_PATIENCE_S = 60
_WHO = contextvars.ContextVar("_WHO", default="nobody")


@pytest.fixture
def threads() -> Iterator[_Threads]:
    threads = _Threads()
    yield threads
    threads.close()


def _leave() -> None:
    raise SystemExit(3)


def _stop() -> None:
    raise StopIteration


def _cancel() -> None:
    raise asyncio.CancelledError


def _fail() -> None:
    raise LookupError("no")


async def test_what_a_function_returns_and_raises(threads: _Threads) -> None:
    """As if it was called here, in the context of who waits; what would end a loop or a task raises something else."""
    _WHO.set("somebody")
    assert await threads.run(_WHO.get) == "somebody"
    with pytest.raises(LookupError, match="no"):
        await threads.run(_fail)
    with pytest.raises(asyncio.CancelledError):
        await threads.run(_cancel)
    for function in (_leave, _stop):
        with pytest.raises(_Left):
            await threads.run(function)
    assert await threads.run(threading.get_ident) == await threads.run(threading.get_ident) != threading.get_ident()


async def test_an_abandoned_thread_that_returns_is_used_again(threads: _Threads) -> None:
    """With 32 that do not, no function is called; once they have returned, their threads answer the next calls."""
    go_on = threading.Event()
    seen: list[int] = []

    def hang() -> None:
        seen.append(threading.get_ident())
        go_on.wait(_PATIENCE_S)

    tasks = [asyncio.ensure_future(threads.run(hang)) for _ in range(_MAX_ABANDONED)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    with pytest.raises(_Refused, match=f"{_MAX_ABANDONED} calls whose time was over have not come back"):
        await threads.run(threading.get_ident)
    go_on.set()
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                again = await threads.run(threading.get_ident)
                break
            except _Refused:
                await asyncio.sleep(0.001)
    assert again in seen
