"""Who waits for news of a stream is woken; what the news are, the store says.

A wake may come once too often and must never be missing: who waits reads the store first, then waits, then reads again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

#: Told of an order, such as to cancel a run, that is for this process: its verb, then what it is about.
OnOrder = Callable[[str, str], Awaitable[None]]


class Wakes(Protocol):
    """Between those who write events and those who wait for them."""

    def listen(self, stream: str) -> "contextmanager[asyncio.Event]":  # type: ignore[valid-type]  # a generator's
        """Inside the block, the event is set whenever there is news of *stream*."""

    async def tell(self, *streams: str) -> None:
        """There is news of *streams*."""

    async def order(self, host: str, verb: str, subject: str) -> None:
        """Let the process *host* do something about *subject*."""


class LocalWakes:
    """For a service of one process."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self.on_order: OnOrder | None = None

    @contextmanager
    def listen(self, stream: str) -> Iterator[asyncio.Event]:
        """Inside the block, the event is set whenever there is news of *stream*."""
        news = asyncio.Event()
        self._waiting[stream].add(news)
        try:
            yield news
        finally:
            self._waiting[stream].discard(news)
            if not self._waiting[stream]:
                del self._waiting[stream]

    async def tell(self, *streams: str) -> None:
        """There is news of *streams*."""
        self.wake(*streams)

    def wake(self, *streams: str) -> None:
        """Wake those of this process."""
        for stream in streams:
            for news in self._waiting.get(stream, ()):
                news.set()

    def wake_all(self) -> None:
        """Wake everybody: news may have been missed."""
        self.wake(*self._waiting)

    async def order(self, host: str, verb: str, subject: str) -> None:
        """There is only this process."""
        if self.on_order is not None:
            await self.on_order(verb, subject)
