"""Events as server-sent events, from where a client was when it lost the connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import Header, Query
from fastapi.sse import ServerSentEvent

from isorun.service.store.records import Stored

_MOST = 2**53
_LAST_S = 1.0  # in which the store answers what happened last


async def last_seen(
    last_event_id: Annotated[str, Header(pattern="^[0-9]{0,15}$")] = "",
    after: Annotated[int, Query(ge=0, le=_MOST)] = 0,
) -> int:
    """The number of the last event that the client has."""
    return int(last_event_id) if last_event_id else after


async def told(events: AsyncIterator[Stored], closing: asyncio.Event) -> AsyncIterator[ServerSentEvent]:
    """*events*, each as a message. Once the service closes, what is stored already is told, and then the stream ends:
    the outcome of a run that was cancelled with the service is the last thing that was stored.
    """
    end = asyncio.ensure_future(closing.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            await asyncio.wait({coming, end}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                await asyncio.wait({coming}, timeout=_LAST_S)
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
                return
            if (one := coming.result()) is None:
                return
            yield ServerSentEvent(raw_data=as_json(one), event=one.kind, id=str(one.seq))
    finally:
        end.cancel()


def as_json(event: Stored) -> str:
    """One line of JSON."""
    return json.dumps(asdict(event), ensure_ascii=False, separators=(",", ":"))
