"""Who waits for news of a stream is woken; what the news are, the store says.

A wake may come once too often. A missed wake costs time and nothing else: who waits reads the store first, then
waits, then reads again, and looks by himself after `look_again_s`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

#: Does what this process was ordered to, such as to cancel a run: told what it is about.
Obey = Callable[[str], Awaitable[None]]
_LOOK_AGAIN_S = 15.0


class Wakes(Protocol):
    """Between those who write events and those who wait for them."""

    @property
    def look_again_s(self) -> float:
        """After how many seconds without news who waits looks by himself."""

    @property
    def hears(self) -> bool:
        """Whether news of other processes arrive."""

    def listen(self, stream: str) -> AbstractContextManager[asyncio.Event]:
        """Inside the block, the event is set whenever there is news of *stream*."""

    def tell(self, *streams: str) -> None:
        """There is news of *streams*."""

    def on(self, verb: str, obey: Obey) -> None:
        """What to do when this process is ordered to *verb*."""

    async def order(self, host: str, verb: str, subject: str) -> bool:
        """Let the process *host* do something about *subject*. Whether it was told: whether it does so is not known."""


class LocalWakes:
    """For a service of one process."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._obeying: dict[str, Obey] = {}

    @property
    def look_again_s(self) -> float:
        """After how many seconds without news who waits looks by himself."""
        return _LOOK_AGAIN_S

    @property
    def hears(self) -> bool:
        """Whether news of other processes arrive."""
        return True

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

    def tell(self, *streams: str) -> None:
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

    def on(self, verb: str, obey: Obey) -> None:
        """What to do when this process is ordered to *verb*."""
        self._obeying[verb] = obey

    async def order(self, host: str, verb: str, subject: str) -> bool:
        """There is only this process."""
        return await self.obey(verb, subject)

    async def obey(self, verb: str, subject: str) -> bool:
        """Do what this process was ordered to; False if it does not know how."""
        if (obey := self._obeying.get(verb)) is None:
            return False
        await obey(subject)
        return True
