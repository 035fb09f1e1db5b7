"""Work on many items: some at once, results in the order of the items, no item taken before there is room for it."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, cast

from isorun.core.errors import Misused

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")
_END = object()
_AHEAD = 8  # times *at_once*: results that wait for a slow one before them


async def each(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """*items*, for `ordered`; each is made in the event loop."""
    for item in items:
        yield item


async def each_aside(items: Iterable[_Item], closing: asyncio.Event) -> AsyncIterator[_Item]:
    """*items*, for `ordered`; each is made in a thread, so making it may take long, or wait for the loop.

    Raises `Misused` once *closing* is set: an item may never come, and neither the loop nor this process waits for it.
    """
    iterator = iter(items)
    closed = asyncio.ensure_future(closing.wait())
    try:
        while True:
            made = _aside(next, iterator, _END)
            await asyncio.wait({made, closed}, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                raise Misused("it was closed before all programs were made")
            if (item := made.result()) is _END:
                return
            yield cast("_Item", item)
    finally:
        closed.cancel()


def _aside(work: Callable[..., _Done], *given: object) -> "asyncio.Future[_Done]":
    """What *work* gives, in a thread that holds up no end: those of `asyncio.to_thread` are waited for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Done] = loop.create_future()

    def tell(done: Callable[[], None]) -> None:
        if not future.done():
            done()

    def work_it() -> None:
        try:
            made = work(*given)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it as it is
            told = partial(future.set_exception, error)
        else:
            told = partial(future.set_result, made)
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(tell, told)

    threading.Thread(target=copy_context().run, args=(work_it,), name="isorun-next", daemon=True).start()
    return future


async def ordered(
    work: Callable[[_Item], Coroutine[Any, Any, _Done]], items: AsyncIterator[_Item], at_once: int
) -> AsyncGenerator[_Done]:
    """What *work* gives for each of *items*, in their order; at most *at_once* are worked on.

    An exception of *work* or of *items* is raised in its place in the order, and ends it. Left early, it cancels what
    is under way, and returns when that has ended.
    """
    begun: deque[asyncio.Task[_Done]] = deque()
    taking: asyncio.Task[Any] | None = None
    more = True
    try:
        while True:
            running = [task for task in begun if not task.done()]
            if more and taking is None and len(running) < at_once and len(begun) < _AHEAD * at_once:
                taking = asyncio.create_task(_next(items))
            if taking is not None and taking.done():
                more = taking.exception() is None and taking.result() is not _END
                if more:
                    begun.append(asyncio.create_task(work(taking.result())))
                elif taking.exception() is not None:
                    begun.append(taking)  # to be raised once what came before it is told
                taking = None
            elif begun and begun[0].done():
                yield begun.popleft().result()
            elif taking is None and not begun:
                return
            else:
                await asyncio.wait({*running, *filter(None, (taking,))}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end((*begun, *filter(None, (taking,))))


async def _next(items: AsyncIterator[Any]) -> Any:  # noqa: ANN401 - an item, or `_END`
    return await anext(items, _END)


async def _end(tasks: Collection["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
