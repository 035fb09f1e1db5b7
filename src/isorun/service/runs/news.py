"""Reading a stream of the store as it grows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from isorun.service.runs.wakes import Wakes
from isorun.service.store.database import Away
from isorun.service.store.records import Stored

_AWAY_S = 1.0  # after which a database that is away is asked again

#: The events behind a number; as many as one answer holds. None: there are none, and never will be.
More = Callable[[int], Awaitable[list[Stored] | None]]


async def followed(wakes: Wakes, stream: str, more: More, after: int) -> AsyncIterator[Stored]:
    """What there is and comes behind event *after*, until *more* says that nothing comes.

    Nothing is missed between reading and waiting: news that come while the store is read end the wait at once.
    """
    with wakes.listen(stream) as news:
        while True:
            news.clear()
            try:
                found = await more(after)
            except Away:  # the answer to the client has begun: all that can be done is to ask again
                await asyncio.sleep(_AWAY_S)
                continue
            if found is None:
                return
            for one in found:
                yield one
                after = one.seq
            if not found:
                await _wait(news, wakes)


async def _wait(news: asyncio.Event, wakes: Wakes) -> None:
    try:
        async with asyncio.timeout(wakes.look_again_s):
            await news.wait()
    except TimeoutError:
        return
