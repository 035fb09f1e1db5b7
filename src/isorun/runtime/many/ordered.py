"""Work on many items: some at once, results in the order of the items, no item taken before there is room for it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar, cast

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")
_END = object()
_AHEAD = 8  # times *at_once*: results that wait for a slow one before them


async def each(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """*items*, for `ordered`; each is made in the event loop."""
    for item in items:
        yield item


async def each_aside(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """*items*, for `ordered`; each is made in a thread, so making it may take long, or wait for the loop."""
    iterator = iter(items)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield cast("_Item", item)


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
