"""The threads in which a run's plain functions answer its held calls: each is used again, also if it was abandoned."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest

from isorun.runtime.held.threads import MAX_ABANDONED, Left, Threads
from isorun.supervisor.session import Refusal

_PATIENCE_S = 60
_WHO = contextvars.ContextVar("_WHO", default="nobody")


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads()
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


async def test_what_a_function_returns_and_raises(threads: Threads) -> None:
    """As if it was called here, in the context of who waits; what would end a loop or a task raises something else."""
    _WHO.set("somebody")
    assert await threads.run(_WHO.get) == "somebody"
    with pytest.raises(LookupError, match="no"):
        await threads.run(_fail)
    with pytest.raises(asyncio.CancelledError):
        await threads.run(_cancel)
    for function in (_leave, _stop):
        with pytest.raises(Left):
            await threads.run(function)
    assert await threads.run(threading.get_ident) == await threads.run(threading.get_ident) != threading.get_ident()


async def test_an_abandoned_thread_that_returns_is_used_again(threads: Threads) -> None:
    """With 32 that do not, no function is called; once they have returned, their threads answer the next calls."""
    go_on = threading.Event()
    seen: list[int] = []

    def hang() -> None:
        seen.append(threading.get_ident())
        go_on.wait(_PATIENCE_S)

    tasks = [asyncio.ensure_future(threads.run(hang)) for _ in range(MAX_ABANDONED)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    with pytest.raises(Refusal, match=f"{MAX_ABANDONED} calls whose time was over have not come back"):
        await threads.run(threading.get_ident)
    go_on.set()
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                again = await threads.run(threading.get_ident)
                break
            except Refusal:
                await asyncio.sleep(0.001)
    assert again in seen


async def test_what_is_made_of_a_result_is_made_in_its_thread(threads: Threads) -> None:
    """And that thread is free by then: who is answered from there may call again before the loop has noticed."""
    seen: list[tuple[int, bool]] = []

    def then(result: int) -> str:
        seen.append((threading.get_ident(), bool(threads._idle)))
        return f"made of {result}"

    assert await threads.run(lambda: 3, then) == "made of 3"
    assert seen == [(await threads.run(threading.get_ident), True)]
    with pytest.raises(LookupError):
        await threads.run(_fail, then)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 3, lambda _: 1 / 0)
    assert len(seen) == 1
